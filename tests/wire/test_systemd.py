#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The mediator's unit under systemd: a restart, a crash and a watchdog's end no session, a stop
ends all. A systemd of the test's own runs the unit, as a user's service manager, in a mount
namespace in which it may think that the system was booted by it. Skipped without root or systemd.

Tests: mediator/keep.c, mediator/adopt.c, mediator/main.c, mediator/mediator.c"""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402

SYSTEMD = next((path for path in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd")
                if os.path.exists(path)), None)
UNIT = os.path.join(v.TOP, "packaging/systemd/vgpu-mediator.service.in")
# What a user's manager cannot do, or this test does otherwise.
LEFT_OUT = re.compile(r"^(Requires|Wants|After|Exec\w+|RuntimeDirectory\w*|Protect\w*|Private\w*|"
                      r"NoNewPrivileges|CapabilityBoundingSet|Restrict(Namespaces|AddressFamilies|"
                      r"Realtime|SUIDSGID)|LockPersonality|SystemCall\w+|IPAddress\w+|UMask|"
                      r"LimitNOFILE|WantedBy|Also|Documentation)=.*\n", re.M)
OK = (0, b"")


@unittest.skipUnless(SYSTEMD and shutil.which("systemctl") and os.geteuid() == 0,
                     "no systemd, or not root")
class Unit(v.TestCase):
    ask, vms, vm = v.Mediator.ask, v.Mediator.vms, v.Mediator.vm

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="vgpu-test-")
        self.addCleanup(folder.cleanup)
        self.dir = folder.name
        self.socket, self.control = [os.path.join(self.dir, name) for name in ("attach", "control")]
        self.log = os.path.join(self.dir, "log")
        config = os.path.join(self.dir, "conf")
        with open(config, "w", encoding="ascii") as file:
            file.write(f"[mediator]\nlisten = {self.socket}\ncontrol = {self.control}\n"
                       f"worker = {v.WORKER}\nbackend = cpu\n")
        units = os.path.join(self.dir, "config/systemd/user")
        os.makedirs(units)
        with open(UNIT, encoding="ascii") as file:
            unit = LEFT_OUT.sub("", file.read())
        with open(os.path.join(units, "vgpu-mediator.service"), "w", encoding="ascii") as file:
            file.write(unit.replace("[Service]\n", f"[Service]\nExecStart={v.MEDIATOR} --config "
                                    f"{config}\nStandardError=append:{self.log}\n"))
        self.environment = {**os.environ, "XDG_RUNTIME_DIR": self.dir,
                            "XDG_CONFIG_HOME": os.path.join(self.dir, "config")}
        self.manager = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /run && "
             f"mkdir -p /run/systemd/system && exec {SYSTEMD} --user --log-target=null"],
            env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        self.addCleanup(self.end_manager)
        v.wait_until("systemd", lambda: self.manager.poll() is not None or os.path.exists(
            os.path.join(self.dir, "systemd/private")))
        if self.manager.poll() is not None:
            self.skipTest("systemd does not run here")
        self.assertEqual(self.systemctl("start").returncode, 0, self.systemctl("status").stdout)
        self.device = v.Device(v.Client(self), vm_id=7, shm=4 << 20, queues=2)
        self.queue = v.Queue(self.device).open()

    def end_manager(self):
        self.systemctl("stop")
        self.manager.kill()
        self.manager.wait()

    def systemctl(self, verb, *arguments):
        return subprocess.run(["systemctl", "--user", verb, "vgpu-mediator", *arguments],
                              env=self.environment, capture_output=True, text=True,
                              timeout=v.PATIENCE, check=False)

    def property(self, name):
        return self.systemctl("show", "-p", name, "--value").stdout.strip()

    def go_on(self, act):
        """Acts, and finds another mediator with the same session."""
        pid, kept = self.property("MainPID"), self.property("NFileDescriptorStore")
        act(int(pid))
        self.assertEqual(self.queue.call("SYNC"), OK)
        v.wait_until("the next mediator", lambda: self.property("MainPID") not in (pid, "0") and
                     self.property("ActiveState") == "active")
        self.assertEqual(self.device.call(v.add_inline([1], [2])), (0, b"\3\0\0\0"))
        self.assertEqual(self.queue.status(), ("RUNNING", "NONE", 1))
        self.assertEqual(self.vm(7)["sessions"][0]["state"], "idle")
        v.wait_until("as much is kept", lambda: self.property("NFileDescriptorStore") == kept)

    def test_crash(self):
        for number in (signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV):
            self.go_on(lambda pid, number=number: os.kill(pid, number))

    def test_restart(self):
        for _ in range(2):
            self.go_on(lambda _: self.assertEqual(self.systemctl("restart").returncode, 0))
        self.go_on(lambda _: self.systemctl("kill", "-s", "USR2", "--kill-whom=main"))

    def test_stop(self):
        worker = self.vm(7)["sessions"][0]["worker_pid"]
        self.assertEqual(self.systemctl("stop").returncode, 0)
        self.assertEqual(self.queue.status(), ("ENDED", "MEDIATOR", 1))
        v.wait_until("its worker ends", lambda: not v.program(worker))
        self.assertEqual(self.property("NFileDescriptorStore"), "0")

    def test_wrong_configuration(self):
        """It is started once, says what is wrong, and is not started again and again."""
        with open(os.path.join(self.dir, "conf"), "a", encoding="ascii") as file:
            file.write("nonsense = 1\n")
        self.systemctl("restart")
        v.wait_until("it has failed", lambda: self.property("ActiveState") == "failed")
        self.assertEqual(self.property("NRestarts"), "0")
        worker = self.queue
        v.wait_until("sessions have ended", lambda: not worker.device.client.socket.recv(1))


if __name__ == "__main__":
    v.main()
