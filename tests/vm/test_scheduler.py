#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Three real guests that all want the GPU, all the time: of high, medium and low priority.

Tests: mediator/arbiter*.c, mediator/pool*.c, worker/ledger.c"""
import os
import signal
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402

PRIORITIES = {1: "high", 2: "medium", 3: "low"}
HIGH, MEDIUM, LOW = PRIORITIES


class Guests(v.TestCase):
    def boot(self, config):
        self.m = self.mediator(config)
        guests = {vm: self.guest(self.m, vm, priority) for vm, priority in PRIORITIES.items()}
        for guest in guests.values():
            guest.wait_boot()
        return guests

    def session(self, vm_id):
        """What the control socket says of the VM's only session, or None."""
        sessions = self.m.vms()[vm_id]["sessions"]
        return sessions[0] if len(sessions) == 1 else None

    def wait_state(self, vm_id, state):
        v.wait_until(f"VM {vm_id} has a session that is {state}",
                     lambda: (self.session(vm_id) or {"state": ""})["state"] == state)

    def goes_on(self, vm_id):
        """Waits until the VM has got some work done."""
        before = self.session(vm_id)["requests"]
        v.wait_until(f"VM {vm_id} goes on",
                     lambda: self.session(vm_id)["requests"] > before + 100)

    def test_bands(self):
        """Each has the same work to do; the higher is done first, though it asked last."""
        guests = self.boot("[pool A]\ndevices = 0\n")
        self.m.ask("pause", pool="A")
        for vm in (LOW, MEDIUM, HIGH):
            guests[vm].send("session-load --spin 20000 --rounds 6 0")
            self.wait_state(vm, "waiting")
        order, results = [], {}

        def wait(vm):
            results[vm] = guests[vm].finish()
            order.append(vm)
        threads = [threading.Thread(target=wait, args=(vm,)) for vm in PRIORITIES]
        for thread in threads:
            thread.start()
        self.m.ask("resume", pool="A")
        for thread in threads:
            thread.join()
        self.assertEqual(results, {vm: (0, "open\n6 rounds: OK\n") for vm in PRIORITIES})
        self.assertEqual(order, [HIGH, MEDIUM, LOW])

    def test_killed_in_the_middle(self):
        """The medium one is; the others get all that they want, and what they compute is right."""
        guests = self.boot("[pool A]\ndevices = 0\nleast-share = 20%\n")
        loads = {vm: f"session-load --spin 5000 0 >/tmp/load 2>&1 & echo $!" for vm in PRIORITIES}
        pids = {}
        for vm, guest in guests.items():
            code, output = guest.run(loads[vm])
            self.assertEqual(code, 0, output)
            pids[vm] = int(output)
        for vm in PRIORITIES:
            v.wait_until("its session", lambda vm=vm: self.session(vm))
            self.goes_on(vm)
        vm = self.m.vms()[MEDIUM]
        workers = [vm["registers"]["worker_pid"], self.session(MEDIUM)["worker_pid"]]
        guests[MEDIUM].process.send_signal(signal.SIGKILL)
        v.wait_until("it is gone", lambda: MEDIUM not in self.m.vms())
        v.wait_until("its workers are gone",
                     lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers))
        for vm in (HIGH, LOW):
            self.goes_on(vm)
            code, output = guests[vm].run(f"kill {pids[vm]}; "
                                          "until grep -s rounds: /tmp/load; do sleep 0.05; done")
            self.assertEqual(code, 0, output)
            self.assertRegex(output, r"^[1-9]\d* rounds: OK\n$")
        # It comes back as if nothing had been.
        guest = self.guest(self.m, MEDIUM, PRIORITIES[MEDIUM])
        guest.wait_boot()
        self.assertEqual(guest.run("session-load --rounds 3 0"), (0, "open\n3 rounds: OK\n"))

    def test_memory_quota(self):
        """The guest sees what it may have and gets no more, of all its processes together; it
        goes on with what it has, and the others have what they want."""
        guests = self.boot(f"[vm {LOW}]\nmemory = 8M\n")
        for vm, guest in guests.items():
            guest.send("session-load --memory 16 --rounds 5 0")
        mib = r"^open\n(\d+) of 16 MiB, (\d+) KiB left of (\d+) MiB\n5 rounds: OK\n$"
        for vm, guest in guests.items():
            code, output = guest.finish()
            self.assertEqual(code, 0, output)
            self.assertRegex(output, mib)
            if vm == LOW:
                # Some KiB are for computing.
                self.assertRegex(output, r"\n7 of 16 MiB, 9\d\d KiB left of 8 MiB\n")
            else:
                self.assertIn("\n16 of 16 MiB, ", output)
        low = guests[LOW]
        code, output = low.run("session-load --memory 5 0 >/tmp/load 2>&1 & pid=$!; "
                               "until grep -s MiB /tmp/load; do sleep 0.05; done; "
                               "session-load --memory 5 --rounds 1 0; "
                               "kill -9 $pid; vgpu reap; session-load --memory 5 --rounds 1 0")
        self.assertEqual(code, 0, output)
        self.assertRegex(output, r"^5 of 5 MiB, \d+ KiB left of 8 MiB\n"
                                 r"open\n2 of 5 MiB, \d+ KiB left of 8 MiB\n1 rounds: OK\n"
                                 r"1\nopen\n5 of 5 MiB, \d+ KiB left of 8 MiB\n1 rounds: OK\n$")
        v.wait_until("all is given back", lambda: self.m.vms()[LOW]["memory_used"] == 0)


if __name__ == "__main__":
    v.main()
