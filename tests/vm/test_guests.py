#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Real guests: a Debian kernel under QEMU, several at once, well-behaved and hostile.

Tests: qemu/vgpu-stub*.c, guest/cli/, guest/libvgpu/pci*.c, guest/libvgpu/request*.c"""
import os
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402

PRIORITIES = {1: "high", 2: "medium", 3: "low"}


class Guests(v.TestCase):
    def setUp(self):
        self.m = self.mediator()

    def boot(self, *ids, **keywords):
        """Guests with these VM ids, booted at the same time."""
        guests = [self.guest(self.m, vm, PRIORITIES.get(vm, "medium"), **keywords) for vm in ids]
        for guest in guests:
            guest.wait_boot()
        return guests

    def good(self, guest, command, expected=None):
        output = guest.good(command)
        if expected is not None:
            self.assertEqual(output, expected)
        return output

    def test_one_guest_does_it_all(self):
        guest, = self.boot(1)
        self.assertIn("priority   high", self.good(guest, "vgpu info"))
        self.assertRegex(self.good(guest, "vgpu list"), r"^0000:00:0\d\.0\n$")
        self.good(guest, "vgpu add 2 3", "5\n")
        self.good(guest, "vgpu add 1.5 2.25", "3.75\n")
        self.good(guest, "vgpu echo hello", "hello\n")
        self.good(guest, "printf '1,2\\n3\\n' >/tmp/a; printf '10,20,30' >/tmp/b; "
                         "vgpu add --file /tmp/a /tmp/b", "11,22\n33\n")
        self.assertIn("all correct", self.good(guest, "vgpu add --n 10000000 --check"))
        self.assertIn("all correct",
                      self.good(guest, "vgpu add --n 1000000 --check --type float32"))
        self.assertIn("echo of 4 bytes", self.good(guest, "vgpu bench"))
        self.good(guest, "vgpu reset")
        self.assertEqual(guest.run("vgpu --device 0000:00:1f.0 info")[0], 3)

    def test_client_written_from_the_register_table(self):
        guest, = self.boot(1)
        self.good(guest, "bare 20 22", "42\n")
        self.good(guest, "bare -5 2; bare 1 1; bare 2147483647 1", "-3\n2\n-2147483648\n")

    def test_two_processes_take_turns(self):
        guest, = self.boot(1)
        self.good(guest, "for i in 1 2 3; do (for j in 1 2 3 4 5 6 7 8 9 10; do "
                         "vgpu add $i $j >>/tmp/$i || echo no >>/tmp/$i; done) & done; wait; "
                         "cat /tmp/1 /tmp/2 /tmp/3 | sort -n | tr '\\n' ' '",
                  " ".join(str(n) for n in sorted(i + j for i in (1, 2, 3)
                                                  for j in range(1, 11))) + " ")

    def test_user_without_permission(self):
        guest, = self.boot(1)
        code, output = guest.run("echo 'u:x:1000:1000::/:/bin/sh' >/etc/passwd 2>/dev/null || "
                                 "{ mkdir -p /etc; echo 'u:x:1000:1000::/:/bin/sh' >/etc/passwd; }; "
                                 "su u -c 'vgpu info'")
        self.assertEqual(code, 4, output)
        self.assertIn("Permission denied", output)

    def test_kernel_under_lockdown(self):
        """As with Secure Boot: programs cannot map the device, and are told why."""
        guest, = self.boot(1, kernel="lockdown=integrity")
        code, output = guest.run("vgpu info")
        self.assertEqual(code, 4, output)
        self.assertIn("lockdown", output)
        self.assertIn("load the guest driver", output)

    def test_order_of_three_guests(self):
        """The demo's assertion: low asks first, high is served first."""
        guests = self.boot(1, 2, 3)
        self.m.ask("pause", pool="A")
        for vm in (3, 2, 1):
            guests[vm - 1].send(f"vgpu add {vm} 100")
            self.m.vm(vm, state="waiting")
        self.m.ask("resume", pool="A")
        for vm, guest in enumerate(guests, 1):
            self.assertEqual(guest.finish(), (0, f"{vm + 100}\n"))
        v.wait_until("three turns", lambda: len(self.m.ask("history", pool="A")["turns"]) == 3)
        turns = self.m.ask("history", pool="A")["turns"]
        self.assertEqual([turn["vm"] for turn in turns], [1, 2, 3])

    def test_mediator_absent_at_boot_and_back(self):
        self.m.stop()
        guest, = self.boot(1)
        code, output = guest.run("vgpu add 2 3")
        self.assertEqual(code, 5, output)
        self.assertIn("offline", output)
        self.m.start()
        self.m.vm(1, state="idle")
        self.good(guest, "vgpu add 2 3", "5\n")

    def test_request_survives_the_mediator(self):
        guest, = self.boot(1)
        self.m.ask("pause", pool="A")
        guest.send("vgpu add 2 3")
        self.m.vm(1, state="waiting")
        self.m.stop(signal.SIGKILL)
        time.sleep(0.5)
        self.m.start()
        self.assertEqual(guest.finish(), (0, "5\n"))

    def test_guest_resets_itself(self):
        """`reboot` with a request waiting: -no-reboot makes QEMU end, and its worker with it."""
        guest, = self.boot(1)
        self.m.ask("pause", pool="A")
        guest.run("vgpu add 2 3 >/dev/null 2>&1 &")
        worker = self.m.vm(1, state="waiting")["worker_pid"]
        guest.send("reboot -f")
        guest.process.wait(v.PATIENCE)
        v.wait_until("the worker has ended", lambda: not os.path.exists(f"/proc/{worker}"))
        self.assertEqual(self.m.vms(), {})

    def test_hostile_guest_disturbs_no_other(self):
        victim, hostile = self.boot(1, 4)
        for attack in ("vgpu info >/dev/null; abuse flood 300000", "abuse garbage 1 200000",
                       "abuse garbage 99 200000", "abuse shm 7", "abuse busy 2",
                       "vgpu add --n 2000000 --check & sleep 0.05; kill -9 $!",
                       "for i in 1 2 3 4 5 6 7 8; do vgpu reset & done; wait"):
            hostile.send(attack)
            for i in range(5):
                self.good(victim, f"vgpu add {i} 1000", f"{i + 1000}\n")
            self.good(victim, "vgpu add --n 100000 --check")
            hostile.finish()
        # And it has not locked itself out.
        self.good(hostile, "vgpu reset; vgpu add 2 3", "5\n")
        starts = self.m.vm(1)["worker_starts"]
        self.assertEqual(starts, 1)

    def test_what_is_killed_is_its_own_affair(self):
        guests = self.boot(1, 2, 3)
        # A worker: its guest is answered all the same.
        self.m.ask("pause", pool="A")
        guests[0].send("vgpu add 2 3")
        os.kill(self.m.vm(1, state="waiting")["worker_pid"], signal.SIGKILL)
        self.m.ask("resume", pool="A")
        self.assertEqual(guests[0].finish(), (0, "5\n"))
        # A QEMU, and with it a guest, in the middle of a request: its turn goes on.
        self.m.ask("pause", pool="A")
        guests[0].send("vgpu add 1 1")
        guests[1].send("vgpu add 4 5")
        self.m.vm(1, state="waiting")
        self.m.vm(2, state="waiting")
        guests[0].kill()
        self.m.ask("resume", pool="A")
        self.assertEqual(guests[1].finish(), (0, "9\n"))
        self.good(guests[2], "vgpu add --n 100000 --check")
        v.wait_until("VM 1 is gone", lambda: sorted(self.m.vms()) == [2, 3])


class Rebooting(v.TestCase):
    def test_guest_reboots_and_the_device_stays(self):
        """With a request waiting, which the reset drops; the kernel boots again by PVH."""
        m = self.mediator()
        guest = self.guest(m, 1, reboot=True)
        guest.wait_boot()
        m.ask("pause", pool="A")
        guest.run("vgpu add 2 3 >/dev/null 2>&1 &")
        m.vm(1, state="waiting")
        guest.send("reboot -f")
        guest.wait_boot()
        m.vm(1, state="idle")
        m.ask("resume", pool="A")
        self.assertEqual(guest.run("vgpu add 4 5"), (0, "9\n"))

    def test_two_devices_in_one_guest(self):
        m = self.mediator()
        guest = self.guest(m, 1, extra=(
            "-chardev", f"socket,id=other,path={m.socket}",
            "-device", "vgpu-stub,chardev=other,vm-id=2,priority=low,shm=16M"))
        guest.wait_boot()
        code, output = guest.run("vgpu add 1 2")
        self.assertEqual(code, 2)
        self.assertIn("has 2 vGPUs: say which", output)
        addresses = guest.run("vgpu list")[1].split()
        self.assertEqual(len(addresses), 2)
        vms = [guest.run(f"vgpu --device {address} info")[1].split()[1] for address in addresses]
        self.assertEqual(sorted(vms), ["1", "2"])
        for address in addresses:
            self.assertEqual(guest.run(f"vgpu --device {address} add 2 3"), (0, "5\n"))


class ManyGuests(v.TestCase):
    def test_sixteen_one_after_another_leak_nothing(self):
        """Two at a time, eight times: descriptors, processes and memory are as before."""
        m = self.mediator()
        sums = []

        def run(vm):
            with v.Guest(m, vm, memory=160, shm="64M") as guest:
                guest.wait_boot()
                sums.append((vm, guest.run(f"vgpu add {vm} 1000; vgpu add --n 1000000 --check")))
            v.wait_until("it is gone", lambda: vm not in m.vms())

        def resident():
            with open(f"/proc/{m.pid}/statm", encoding="ascii") as file:
                return int(file.read().split()[1])

        def lane(first):
            for i in range(8):
                run(first + 2 * i)
        run(100)
        v.wait_until("no worker is left", lambda: v.workers(m.pid) == [])
        descriptors, pages = v.idle_descriptors(m.pid), resident()
        sums.clear()
        threads = [threading.Thread(target=lane, args=(1 + i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(sums), 16)
        for vm, (code, output) in sums:
            self.assertEqual(code, 0, output)
            self.assertTrue(output.startswith(f"{vm + 1000}\n"), output)
        v.wait_until("no worker is left", lambda: v.workers(m.pid) == [])
        v.wait_until("no descriptor is left", lambda: v.descriptors(m.pid) == descriptors)
        self.assertLess(resident(), pages + 256, "pages of the mediator")


if __name__ == "__main__":
    v.main()
