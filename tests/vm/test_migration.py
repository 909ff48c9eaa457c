#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Real guests that move between two hosts, which are two mediators, while they compute.

Tests: qemu/vgpu-stub*.c, mediator/vm.c, guest/driver/, guest/libvgpu/"""
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402

CHECKS = ("identity pageable_copies pinned_copies builtin_kernels more_than_the_ring_holds threads "
          "wrong_arguments")


class Migration(v.TestCase):
    def start(self, *extra):
        """A guest, on a host of its own."""
        monitor = v.Monitor()
        self.addCleanup(monitor.close)
        mediator = self.mediator()
        guest = self.guest(mediator, 1, extra=(*monitor.options, *extra),
                           pass_fds=[monitor.theirs.fileno()])
        guest.mediator, guest.monitor = mediator, monitor
        monitor.theirs.close()
        monitor.execute("query-status")  # answers when it has started, and listens
        return guest

    def migrate(self, guest):
        """Where it is then."""
        directory = tempfile.TemporaryDirectory(prefix="vgpu-test-")
        self.addCleanup(directory.cleanup)
        uri = "unix:" + os.path.join(directory.name, "migration")
        target = self.start("-incoming", uri)
        guest.monitor.execute("migrate", uri=uri)
        self.assertEqual(guest.monitor.wait_migrated(), "completed")
        target.count, target.buffer = guest.count, guest.buffer
        guest.kill()
        v.wait_until("it is gone there", lambda: guest.mediator.vms() == {})
        return target

    def test_guest_moves_about(self):
        """By sysfs and with the driver: requests in flight, then sessions, which are in the way."""
        guest = self.start()
        guest.wait_boot()
        for way in ("sysfs", "driver"):
            if way == "driver":
                guest.good("insmod /vgpu.ko")
            guest.good("rm -f /tmp/stop; (while [ ! -e /tmp/stop ]; do vgpu add 20 22; done "
                       ">/tmp/sums 2>&1; touch /tmp/stopped) >/dev/null 2>&1 &")
            for _ in range(3):
                before = int(guest.good("wc -l </tmp/sums"))
                guest = self.migrate(guest)
                v.wait_until("it goes on",
                             lambda: int(guest.good("wc -l </tmp/sums")) > before + 2)
            guest.good("touch /tmp/stop; while [ ! -e /tmp/stopped ]; do sleep 0.05; done; "
                       "rm /tmp/stopped")
            self.assertEqual(guest.good("sort /tmp/sums | uniq"), "42\n")
            guest.good("session-load 0 >/tmp/load 2>&1 & echo $! >/tmp/pid")
            v.wait_until("a session", lambda: guest.mediator.vms()[1]["sessions"])
            queue = guest.mediator.vms()[1]["sessions"][0]["queue"]
            with self.assertRaisesRegex(AssertionError, rf"\(queues: {queue}\)"):
                guest.monitor.execute("migrate", uri="exec:cat >/dev/null")
            guest.good("kill $(cat /tmp/pid); while kill -0 $(cat /tmp/pid); do sleep 0.05; done "
                       "2>/dev/null; vgpu reap")
            guest = self.migrate(guest)
            self.assertRegex(guest.good("session-check " + CHECKS),
                             rf"\n{len(CHECKS.split())} passed, 0 failed, 0 skipped\n$")
            self.assertEqual(guest.good("vgpu add 2 3"), "5\n")


if __name__ == "__main__":
    v.main()
