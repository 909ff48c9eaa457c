#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A device that is plugged into a running guest, and out of it under load, by the commands of
docs/hotplug.md; and one for which there is no room.

Tests: docs/hotplug.md, guest/driver/main.c, guest/driver/file.c, guest/libvgpu/watch.c,
guest/libvgpu/pci-device.c"""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402

with open(os.path.join(v.TOP, "docs/hotplug.md"), encoding="utf-8") as page:
    PAGE = page.read()
PORT = re.search(r"-device (pcie-root-port,\S+)", PAGE)[1]
ADD, DELETE = re.findall(r"(?m)^\(qemu\) (device_\w+ .*)$", PAGE)


class HotPlug(v.TestCase):
    def start(self, port=PORT):
        self.m = self.mediator()
        self.qmp = v.Monitor()
        self.addCleanup(self.qmp.close)
        # The page's chardev is called gpu, the tests' has another name.
        self.g = self.guest(self.m, 7, plug=False, pass_fds=(self.qmp.theirs.fileno(),),
                            extra=("-device", port, *self.qmp.options))
        self.g.wait_boot()

    def type(self, command):
        said = self.qmp.execute("human-monitor-command",
                                **{"command-line": command.replace("chardev=gpu",
                                                                   "chardev=mediator")})
        self.assertEqual(said, "")

    def plug(self):
        self.type(ADD)
        v.wait_until("the guest sees it", lambda: self.g.run("vgpu info")[0] == 0)

    def unplug(self):
        self.type(DELETE)
        self.qmp.wait_event("DEVICE_DELETED")
        v.wait_until("the mediator has let it go", lambda: self.m.vms() == {})

    def test_in_and_out(self):
        self.start()
        self.assertEqual(self.g.run("vgpu info")[0], 3)
        for _ in range(2):
            self.plug()
            self.assertIn("\nshared     256 MiB\n", self.g.good("vgpu info"))
            self.assertEqual(self.g.good("vgpu add 2 3").strip(), "5")
            self.g.good("session-check 0 >/tmp/out || { cat /tmp/out; false; }")
            self.unplug()
            self.assertEqual(self.g.run("vgpu info")[0], 3)

    def test_out_under_load(self):
        """With the driver, programs are told, and none dies of a signal."""
        self.start()
        self.g.good("insmod /vgpu.ko")
        for _ in range(2):
            self.plug()
            self.assertIn("\nby         guest driver\n", self.g.good("vgpu info"))
            # One in register mode, and one with a session, pinned memory and work on its way.
            self.g.good("(r=0; while [ $r = 0 ]; do vgpu add --n 400000 --check; r=$?; done; "
                        "echo $r >/tmp/add) "
                        ">/tmp/add.log 2>&1 & "
                        "(session-load --memory 3 0; echo $? >/tmp/load) >/tmp/load.log 2>&1 & ")
            v.wait_until("both are at work", lambda: len(self.m.vm(7)["sessions"]) == 1 and
                         self.m.vm(7)["requests"] > 3)
            self.unplug()
            for name in ("add", "load"):
                v.wait_until(f"{name} ends", lambda name=name: self.g.run(f"cat /tmp/{name}")[0] == 0)
                code = int(self.g.good(f"cat /tmp/{name}"))
                told = self.g.good(f"cat /tmp/{name}.log")
                self.assertTrue(0 < code < 128, f"{name}: {code}: {told}")
            self.g.good("rm /tmp/add /tmp/load")
        self.g.good("rmmod vgpu")

    def test_no_room(self):
        """The device has no memory then; each way says so, and what to do."""
        self.start("pcie-root-port,id=port1,chassis=1,slot=1,pref64-reserve=2M")
        self.type(ADD)
        v.wait_until("the guest sees it", lambda: self.g.run("vgpu info")[0] == 0)
        self.assertIn("\nshared     none: it has no address", self.g.good("vgpu info"))
        self.assertEqual(self.g.good("vgpu add 2 3").strip(), "5")  # the registers have room
        code, told = self.g.run("vgpu add --n 100000 --check")
        self.assertEqual(code, 9, told)
        self.assertRegex(told, r"has no address: .* no room for 256 MiB; .*pref64-reserve=256M")
        self.g.good("insmod /vgpu.ko")
        self.assertRegex(self.g.good("dmesg"), r"vgpu .*: its shared memory has no address, .* "
                                               r"no room for 256 MiB: .*pref64-reserve=256M")
        self.unplug()


if __name__ == "__main__":
    v.main()
