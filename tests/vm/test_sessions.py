#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Sessions of programs in real guests, by sysfs and by the guest driver: several at once, killed,
rebooted, without rights, beside a hostile guest, and when the host's side ends.

Tests: guest/driver/, guest/libvgpu/driver*.c, guest/libvgpu/pci*.c, guest/libvgpu/queue.c,
guest/libvgpu/session*.c, qemu/vgpu-stub*.c"""
import os
import re
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402

# Tests of session-check that measure no time: for guests that get little of it.
CHECKS = ("identity pageable_copies pinned_copies pinned_memory_runs_out fill_and_copy_on_device "
          "builtin_kernels launch_with_pointers_to_arguments kernel_reads_pinned_memory "
          "more_than_the_ring_holds threads errors_come_with_the_next_synchronise wrong_arguments "
          "foreign_module illegal_address_stays")
DEVICE = "$(ls -d /sys/bus/pci/devices/$(vgpu list))"
RULES = os.path.join(v.TOP, "guest/driver/60-vgpu.rules")


def exists(pid):
    return os.path.exists(f"/proc/{pid}")


class TestCase(v.TestCase):
    def setUp(self):
        self.m = self.mediator()

    def boot(self, *ids, **keywords):
        """Guests with these VM ids, booted at the same time."""
        guests = [self.guest(self.m, vm, **keywords) for vm in ids]
        for guest in guests:
            guest.wait_boot()
        return guests

    def good(self, guest, command):
        return guest.good(command)

    def check(self, guest, tests=CHECKS):
        output = self.good(guest, "session-check " + tests)
        # Of all there are, some are for a GPU.
        passed, skipped = (len(tests.split()), 0) if tests else (r"\d+", r"\d+")
        self.assertRegex(output, rf"\n{passed} passed, 0 failed, {skipped} skipped\n$")

    def sessions(self, vm_id=1):
        """The workers of the sessions, by queue."""
        return {session["queue"]: session["worker_pid"]
                for session in self.m.vms()[vm_id]["sessions"] if session["state"] != "starting"}

    def wait_sessions(self, count, vm_id=1):
        v.wait_until(f"{count} sessions of VM {vm_id}", lambda: len(self.sessions(vm_id)) == count)
        return self.sessions(vm_id)

    def load(self, guest, name, seconds=0, vm_id=1):
        """Starts session-load in the guest; (its process id, its queue)."""
        before = self.wait_sessions(len(self.sessions(vm_id)), vm_id)
        pid = self.good(guest, f"rm -f /tmp/{name}; session-load {seconds} >/tmp/{name} 2>&1 & "
                               "echo $!").strip()
        v.wait_until("its session", lambda: set(self.sessions(vm_id)) - set(before))
        queue, = set(self.sessions(vm_id)) - set(before)
        self.good(guest, f"until grep -q open /tmp/{name}; do sleep 0.05; done")
        return int(pid), queue

    def result(self, guest, name, stop=None):
        """What session-load said at its end, after SIGTERM to a process id."""
        return self.good(guest, (f"kill {stop}; " if stop else "") +
                         f"until grep rounds: /tmp/{name}; do sleep 0.05; done")

    def goes_on(self, queue, vm_id=1):
        """Waits until a session has got some work done."""
        def requests():
            return next(session["requests"] for session in self.m.vms()[vm_id]["sessions"]
                        if session["queue"] == queue)
        before = requests()
        v.wait_until("it goes on", lambda: requests() > before + 20)

    def both_ways(self, guest):
        """By sysfs, then by the driver."""
        yield "sysfs"
        self.good(guest, "insmod /vgpu.ko; test -c /dev/vgpu0")
        yield "driver"


class Sessions(TestCase):
    def test_session_check(self):
        """All that a session promises: by sysfs, by the driver, and by sysfs once more."""
        guest, = self.boot(1)
        for _ in self.both_ways(guest):
            self.check(guest, "")
            v.wait_until("no session is left", lambda: self.sessions() == {})
        self.good(guest, "rmmod vgpu")
        self.check(guest)
        self.assertEqual(self.m.vms()[1]["worker_starts"], 1)
        self.good(guest, "insmod /vgpu.ko")
        self.assertNotIn("no interrupts", self.good(guest, "dmesg"))

    def test_four_processes_at_once(self):
        """Beside a fifth that uses register mode."""
        guest, = self.boot(1)
        for way in self.both_ways(guest):
            loads = [self.load(guest, f"{way}{i}") for i in range(3)]
            self.assertEqual([queue for _, queue in loads], [0, 1, 2])
            self.check(guest)
            self.assertEqual(self.good(guest, "vgpu add 20 22"), "42\n")
            self.assertIn("all correct", self.good(guest, "vgpu add --n 100000 --check"))
            for i, (pid, queue) in enumerate(loads):
                self.goes_on(queue)
                self.assertRegex(self.result(guest, f"{way}{i}", pid), r"^[1-9]\d* rounds: OK\n$")
            v.wait_until("no session is left", lambda: self.sessions() == {})

    def test_signals(self):
        """Under a timer's signal, 100 and 10,000 times a second, work is done."""
        guest, = self.boot(1)
        for _ in self.both_ways(guest):
            for microseconds in (10000, 100):
                output = self.good(guest, f"ticking {microseconds}")
                self.assertRegex(output, r"^[1-9]\d* signals\n$")

    def test_as_many_as_there_are_queues(self):
        """One more is told that it is one too many."""
        guest, = self.boot(1, device=",queues=3")
        for way in self.both_ways(guest):
            loads = [self.load(guest, f"{way}{i}") for i in range(3)]
            code, output = guest.run("session-load 1")
            self.assertEqual(code, 5, output)
            self.assertIn("0 rounds: BUSY", output)
            self.result(guest, f"{way}0", loads[0][0])
            self.check(guest)
            for i in (1, 2):
                self.assertIn("rounds: OK", self.result(guest, f"{way}{i}", loads[i][0]))
            v.wait_until("no session is left", lambda: self.sessions() == {})

    def test_process_killed(self):
        """Its queue is closed: by sysfs when somebody looks, by the driver at once."""
        guest, = self.boot(1)
        other, kept = self.load(guest, "other")
        for closes in ("test $(vgpu reap) = 1", "session-check identity"):
            pid, queue = self.load(guest, "killed")
            worker = self.sessions()[queue]
            self.good(guest, f"kill -9 {pid}; while [ -e /proc/{pid}/exe ]; do sleep 0.05; done")
            # Nobody has looked.
            self.assertEqual(self.sessions()[queue], worker)
            self.good(guest, closes)
            self.wait_sessions(1)
            self.assertFalse(exists(worker))
            self.goes_on(kept)
        self.assertEqual(self.good(guest, "vgpu reap"), "0\n")
        pids = [str(self.load(guest, f"dead{i}")[0]) for i in range(3)]
        self.good(guest, f"kill -9 {' '.join(pids)}; for p in {' '.join(pids)}; do "
                         "while [ -e /proc/$p/exe ]; do sleep 0.05; done; done")
        self.assertEqual(self.good(guest, "vgpu reap"), "3\n")
        self.wait_sessions(1)
        self.assertRegex(self.result(guest, "other", other), r"^[1-9]\d* rounds: OK\n$")
        self.good(guest, "insmod /vgpu.ko")
        other, kept = self.load(guest, "other")
        for _ in range(5):
            pid, queue = self.load(guest, "killed")
            worker = self.sessions()[queue]
            self.good(guest, f"kill -9 {pid}")
            v.wait_until("its worker has ended", lambda: not exists(worker))
            self.wait_sessions(1)
            self.goes_on(kept)
        self.assertRegex(self.result(guest, "other", other), r"^[1-9]\d* rounds: OK\n$")

    def test_worker_killed_on_the_host(self):
        guest, = self.boot(1)
        for way in self.both_ways(guest):
            pid, kept = self.load(guest, f"kept-{way}")
            _, queue = self.load(guest, f"lost-{way}")
            os.kill(self.sessions()[queue], signal.SIGKILL)
            self.assertRegex(self.result(guest, f"lost-{way}"), r"^\d+ rounds: ENDED LOST\n$")
            self.goes_on(kept)
            self.check(guest, "identity builtin_kernels")
            self.assertRegex(self.result(guest, f"kept-{way}", pid), r"^[1-9]\d* rounds: OK\n$")

    def test_mediator_killed_and_back(self):
        """Programs are told; those that come when it is back are served."""
        guest, = self.boot(1)
        for way in self.both_ways(guest):
            for how in (signal.SIGKILL, signal.SIGTERM):
                name = f"{way}{int(how)}"
                self.load(guest, name)
                self.m.stop(how)
                self.assertRegex(self.result(guest, name), r"^\d+ rounds: ENDED MEDIATOR\n$")
                code, output = guest.run("session-load 1")
                self.assertEqual(code, 5, output)
                self.assertIn("0 rounds: OFFLINE", output)
                self.m.start()
                self.m.vm(1, state="idle")
                self.check(guest, "identity builtin_kernels")
                self.assertEqual(self.good(guest, "vgpu add 2 3"), "5\n")

    def test_driver_comes_to_open_sessions(self):
        """What programs without it have left is closed; what they have mapped is theirs no more."""
        guest, = self.boot(1)
        pid, _ = self.load(guest, "killed")
        self.good(guest, f"kill -9 {pid}")
        worker, = self.sessions().values()
        self.good(guest, "insmod /vgpu.ko")
        v.wait_until("its worker has ended", lambda: not exists(worker))
        self.assertEqual(self.sessions(), {})
        self.check(guest)

    def test_driver_unbound_with_open_sessions(self):
        """Workers end, programs do too, and a driver that is bound again serves the next."""
        guest, = self.boot(1)
        self.good(guest, "insmod /vgpu.ko")
        for _ in range(2):
            pids = [self.load(guest, name)[0] for name in ("one", "two")]
            workers = self.sessions().values()
            self.good(guest, f"basename {DEVICE} >/tmp/address; "
                             "cat /tmp/address >/sys/bus/pci/drivers/vgpu/unbind; "
                             "! [ -e /dev/vgpu0 ]")
            v.wait_until("the workers have ended", lambda: not any(map(exists, workers)))
            for pid in pids:
                self.good(guest, f"while [ -e /proc/{pid}/exe ]; do sleep 0.05; done")
            self.good(guest, "cat /tmp/address >/sys/bus/pci/drivers/vgpu/bind; [ -c /dev/vgpu0 ]")
            self.check(guest)


class Users(TestCase):
    def test_who_may(self):
        """Others than root after the udev rule's work, done by hand, and its group alone."""
        guest, = self.boot(1)
        self.good(guest, "mkdir -p /etc; echo root:x:0:0::/:/bin/sh >/etc/passwd; "
                         "echo u:x:1000:1000::/:/bin/sh >>/etc/passwd; "
                         "echo w:x:1001:1001::/:/bin/sh >>/etc/passwd; "
                         "echo render:x:105:u >/etc/group; chmod 755 / /bin; id u; id w")
        with open(RULES, encoding="ascii") as file:
            rules = file.read()
        sysfs, = re.findall(r"RUN\+=\"/bin/sh -c '(.*)'\"", rules)
        self.assertRegex(rules, r'SUBSYSTEM=="vgpu".*GROUP="render", MODE="0664"')
        path = self.good(guest, f"readlink -f {DEVICE}").strip()
        for way in self.both_ways(guest):
            self.denied(guest, "u")
            if way == "sysfs":
                self.good(guest, sysfs.replace("$$", "$").replace("/sys%p", path))
            else:
                self.good(guest, "chgrp render /dev/vgpu0; chmod 0664 /dev/vgpu0")
            self.denied(guest, "w")
            if way == "driver":
                self.assertIn("priority ", self.good(guest, "su w -c 'vgpu info'"))
            self.good(guest, "su u -c 'session-check identity builtin_kernels'")
            self.assertRegex(self.good(guest, "su u -c 'session-load 1'"),
                             r"^open\n[1-9]\d* rounds: OK\n$")

    def denied(self, guest, user):
        code, output = guest.run(f"su {user} -c 'session-load 1'")
        self.assertEqual(code, 4, output)
        self.assertIn("Permission denied", output)
        self.assertEqual(self.sessions(), {})


class Hostile(TestCase):
    def test_hostile_guest_disturbs_no_other(self):
        """Whatever it writes and wherever: the other's sessions are as without it."""
        victim, hostile = self.boot(1, 4)
        pid, kept = self.load(victim, "kept")
        # With sessions of its own that are open meanwhile.
        self.good(hostile, "session-load 0 >/dev/null 2>&1 & session-load 0 >/dev/null 2>&1 &")
        self.wait_sessions(2, 4)
        for attack in ("abuse queues 1 30000", "abuse shm 7", "abuse queues 2 30000",
                       "abuse garbage 3 200000", "abuse queues 4 30000; abuse shm 9",
                       "for i in 1 2 3 4 5 6; do session-check threads & sleep 0.2; kill -9 $!; "
                       "done"):
            hostile.send(attack + " >/dev/null 2>&1")
            self.check(victim)
            self.assertEqual(self.good(victim, "vgpu add 40 2"), "42\n")
            self.goes_on(kept)
            hostile.finish()
        self.assertRegex(self.result(victim, "kept", pid), r"^[1-9]\d* rounds: OK\n$")
        self.assertEqual(self.m.vms()[1]["worker_starts"], 1)
        # And it has not locked itself out.
        self.good(hostile, "killall session-load; while killall -0 session-load; do sleep 0.05; "
                           "done 2>/dev/null; vgpu reset; vgpu reap")
        v.wait_until("no session is left", lambda: self.sessions(4) == {})
        self.check(hostile)
        self.good(hostile, "insmod /vgpu.ko")
        self.check(hostile)


class Rebooting(TestCase):
    def test_guest_reboots_with_open_sessions(self):
        """Its queues are free afterwards, whichever way they were opened."""
        guest, = self.boot(1, reboot=True)
        for way in ("sysfs", "driver", "sysfs"):
            if way == "driver":
                self.good(guest, "insmod /vgpu.ko")
            for name in ("one", "two"):
                self.load(guest, name)
            workers = self.sessions().values()
            guest.send("reboot -f")
            guest.wait_boot()
            self.assertEqual(self.sessions(), {})
            self.assertFalse(any(map(exists, workers)))
            self.m.vm(1, state="idle")
            self.assertEqual(self.good(guest, "vgpu reap"), "0\n")
            self.check(guest, "identity builtin_kernels")
            self.assertEqual(self.sessions(), {})


class Survivors(TestCase):
    """With a keeper: guests and QEMU notice nothing of a mediator's end."""

    def setUp(self):
        self.m = self.mediator(keeper=True)

    def test_mediators_come_and_go(self):
        guest, = self.boot(1)
        for way in self.both_ways(guest):
            pid, queue = self.load(guest, way)
            worker = self.sessions()[queue]
            for how in (signal.SIGKILL, signal.SIGUSR2, signal.SIGSEGV):
                self.m.replace(how)
                # The check's session before may have been closing then, which the next one ends.
                v.wait_until("no other session is left",
                             lambda: self.sessions() == {queue: worker})
                self.goes_on(queue)
                self.assertEqual(self.good(guest, "vgpu add 2 3"), "5\n")
                self.check(guest, "identity")
            self.assertRegex(self.result(guest, way, pid), r"^[1-9]\d* rounds: OK\n$")


if __name__ == "__main__":
    v.main()
