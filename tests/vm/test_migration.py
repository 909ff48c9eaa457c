#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Real guests that move between two hosts, which are two mediators, while they compute.

Tests: qemu/vgpu-stub*.c, mediator/vm.c, guest/driver/, guest/libvgpu/"""
import json
import os
import socket
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402

CHECKS = ("identity pageable_copies pinned_copies builtin_kernels more_than_the_ring_holds threads "
          "wrong_arguments")


class Monitor:
    """QMP, over a descriptor that the guest's QEMU inherits."""

    def __init__(self):
        self.ours, self.theirs = socket.socketpair()
        self.ours.settimeout(v.PATIENCE)
        self.lines = self.ours.makefile("rb")
        self.options = ("-chardev", f"socket,id=qmp,fd={self.theirs.fileno()}",
                        "-mon", "chardev=qmp,mode=control")

    def greet(self):
        self.theirs.close()
        self.lines.readline()
        self.execute("qmp_capabilities")

    def execute(self, name, **arguments):
        """Its answer; an error is told as (None, description)."""
        self.ours.sendall(json.dumps({"execute": name, "arguments": arguments}).encode())
        while True:
            answer = json.loads(self.lines.readline())
            if "error" in answer:
                raise AssertionError(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]

    def close(self):
        self.lines.close()
        self.ours.close()


class Migration(v.TestCase):
    def start(self, *extra):
        """A guest, on a host of its own."""
        monitor = Monitor()
        self.addCleanup(monitor.close)
        mediator = self.mediator()
        guest = self.guest(mediator, 1, extra=(*monitor.options, *extra),
                           pass_fds=[monitor.theirs.fileno()])
        guest.mediator, guest.monitor = mediator, monitor
        monitor.greet()
        return guest

    def good(self, guest, command):
        code, output = guest.run(command)
        self.assertEqual(code, 0, output)
        return output

    def migrate(self, guest):
        """Where it is then."""
        directory = tempfile.TemporaryDirectory(prefix="vgpu-test-")
        self.addCleanup(directory.cleanup)
        uri = "unix:" + os.path.join(directory.name, "migration")
        target = self.start("-incoming", uri)
        guest.monitor.execute("migrate", uri=uri)
        state = v.wait_until("the migration's end", lambda: next(
            (s for s in (guest.monitor.execute("query-migrate")["status"],)
             if s in ("completed", "failed")), None))
        self.assertEqual(state, "completed")
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
                self.good(guest, "insmod /vgpu.ko")
            self.good(guest, "rm -f /tmp/stop; (while [ ! -e /tmp/stop ]; do vgpu add 20 22; done "
                             ">/tmp/sums 2>&1; touch /tmp/stopped) >/dev/null 2>&1 &")
            for _ in range(3):
                before = int(self.good(guest, "wc -l </tmp/sums"))
                guest = self.migrate(guest)
                v.wait_until("it goes on", lambda: int(self.good(guest, "wc -l </tmp/sums")) >
                             before + 2)
            self.good(guest, "touch /tmp/stop; while [ ! -e /tmp/stopped ]; do sleep 0.05; done; "
                             "rm /tmp/stopped")
            self.assertEqual(self.good(guest, "sort /tmp/sums | uniq"), "42\n")
            self.good(guest, "session-load 0 >/tmp/load 2>&1 & echo $! >/tmp/pid")
            v.wait_until("a session", lambda: guest.mediator.vms()[1]["sessions"])
            queue = guest.mediator.vms()[1]["sessions"][0]["queue"]
            with self.assertRaisesRegex(AssertionError, rf"\(queues: {queue}\)"):
                guest.monitor.execute("migrate", uri="exec:cat >/dev/null")
            self.good(guest, "kill $(cat /tmp/pid); while kill -0 $(cat /tmp/pid); do "
                             "sleep 0.05; done 2>/dev/null; vgpu reap")
            guest = self.migrate(guest)
            self.assertRegex(self.good(guest, "session-check " + CHECKS),
                             rf"\n{len(CHECKS.split())} passed, 0 failed, 0 skipped\n$")
            self.assertEqual(self.good(guest, "vgpu add 2 3"), "5\n")


if __name__ == "__main__":
    v.main()
