#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What a real guest is told of its GPU without a session: by vgpu info and by libnvidia-ml.so.1,
through sysfs and through the guest driver; and who has the GPU, by process.

Tests: guest/libvgpu/watch.c, guest/libnvml/*.c, guest/driver/file.c, qemu/vgpu-stub.c"""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402

CHECK = "LD_LIBRARY_PATH=/lib nvml-check"


class Nvml(v.TestCase):
    def setUp(self):
        self.m = self.mediator("[defaults]\nmemory = 100M")
        self.g = self.guest(self.m, 1, device=",queues=2")
        self.g.wait_boot()

    def good(self, command):
        code, output = self.g.run(command)
        self.assertEqual(code, 0, output)
        return output

    def load(self):
        """A session that goes on; its process."""
        return self.good("session-load --memory 3 0 >/dev/null 2>&1 & echo $!").split()[0]

    def look(self, way):
        output = v.wait_until("a card", lambda: (lambda text: "computes   CPU\n" in text and text)(
            self.good("vgpu info")))
        self.assertRegex(output, rf"\nby         {way}\n(.*\n)*memory     0 of 100 MiB\n")
        self.assertRegex(self.good(CHECK), r"devices 1\nname CPU\nGPU-76475055-.*\n00000000:00:00.0"
                         r"\nmemory 104857600 0\ntemperature: Not Supported\npower: Not Supported\n"
                         r"processes 0\n$")
        process = self.load()
        v.wait_until("its process is told", lambda: re.search(
            rf"\nprocesses 1\nprocess {process} session-load \d+\n", self.good(CHECK)))
        self.assertRegex(self.good("vgpu info"), rf"\nsession    queue 0: process {process}, ")
        self.assertIn(f'"process": {process}, ', self.good("vgpu info --json"))
        # With all queues taken too.
        self.load()
        v.wait_until("two processes", lambda: "\nprocesses 2\n" in self.good(CHECK))
        self.assertEqual(self.good("vgpu info").count("\nsession "), 2)

    def end(self):
        self.good("killall -9 session-load; vgpu reap")
        v.wait_until("nobody has it", lambda: "\nprocesses 0\n" in self.good(CHECK))
        v.wait_until("all is given back",
                     lambda: "memory     0 of 100 MiB" in self.good("vgpu info"))

    def test_by_sysfs(self):
        self.look("sysfs")
        self.end()

    def test_by_the_driver(self):
        """Everybody may look who may read the device file, and do no more."""
        self.good("insmod /vgpu.ko")
        self.look("guest driver")
        self.good("chmod 664 /dev/vgpu0; mkdir -p /etc; echo u:x:1000:1000::/:/bin/sh >/etc/passwd")
        self.assertRegex(self.good(f"su u -c '{CHECK}'"), r"\nprocesses 2\n")
        self.assertIn("\nby         guest driver\n", self.good("su u -c 'vgpu info'"))
        code, output = self.g.run("su u -c 'vgpu add 2 3'")
        self.assertEqual(code, 4, output)
        self.end()

    def test_no_mediator(self):
        self.m.stop()
        code, output = self.g.run("vgpu info")
        self.assertEqual(code, 5, output)
        self.assertIn("\nstatus     offline\n", output)
        code, output = self.g.run(CHECK)
        self.assertEqual((code, output), (1, "devices 1\nname: GPU is lost\n"))


if __name__ == "__main__":
    v.main()
