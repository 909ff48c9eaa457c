#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The end of a mediator is none for its VMs, where somebody keeps their descriptors: it is killed
at random under load, and the next one goes on. VGPU_KILLS is how often (default 40; a thousand take
five minutes).

Tests: mediator/adopt.c, mediator/drain.c, mediator/keep.c, mediator/record.c, mediator/keeper/main.c,
mediator/process.c, mediator/queue.c, mediator/vm.c, mediator/client.c, mediator/pool.c,
mediator/launcher.c, worker/worker.c, worker/ring-worker.c, worker/register-worker.c,
guest/libvgpu/open.c"""
import bisect
import fcntl
import multiprocessing
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402
from vgputest import N  # noqa: E402

ADOPTIONS = int(os.environ.get("VGPU_ADOPTIONS", "60"))
VMS, QUEUES = int(os.environ.get("VGPU_VMS", "8")), int(os.environ.get("VGPU_QUEUES", "4"))
STEP = int(os.environ.get("VGPU_POINT_STEP", "7"))
KILLS = int(os.environ.get("VGPU_KILLS", "40"))
WORDS = 1024
OK = (0, b"")


class Player(v.Aside):
    """
    A VM, in a process of its own: one session that is never closed, one that comes and goes, sums
    in register mode, and resets of that. All that it computes is looked at.
    """

    def __init__(self, mediator, vm, priority):
        self.mediator, self.vm, self.priority = mediator, vm, priority
        self.leave = multiprocessing.Event()
        super().__init__()

    def run(self):
        self.times, self.last_reset, problem = [], 0, ""
        try:
            self.play()
        except Exception:  # pylint: disable=broad-except
            problem = f"VM {self.vm}: {traceback.format_exc()}"
        return problem, self.times

    def linger(self):
        """Attached, so that its account can be looked at."""
        self.leave.wait(v.PATIENCE)

    def play(self):
        self.device = v.Device(v.Client(self.mediator), vm_id=self.vm, priority=self.priority,
                               shm=4 << 20, queues=2)
        lasting, coming = v.Queue(self.device, 0).open(), v.Queue(self.device, 1)
        memory = lasting.memory(4 * WORDS)
        number = 0
        while not self.stop.is_set():
            number += 1
            self.work(lasting, memory, number)
            self.sum(number)
            if number % 8 == 0:
                coming.open()
                self.work(coming, coming.memory(4 * WORDS), number)
                coming.close()
                coming.wait_state("FREE")
            if number % 16 == 0:
                self.reset(number)
            self.begun.set()
        if lasting.status() != ("RUNNING", "NONE", 1):
            raise AssertionError(f"the session is {lasting.status()}")
        if lasting.call("MEM_FREE", struct.pack("<QQ", memory, 0)) != OK:
            raise AssertionError("its memory was not there")

    def done(self):
        self.times.append(time.monotonic())
        if select.select([self.device.client.socket], [], [], 0)[0]:
            self.hear(self.last_reset)

    def work(self, queue, memory, number):
        """Two values in the same place one after the other, each copied to another one."""
        for i in (0, 1):
            queue.post(v.command("FILL", v.cmd_fill(memory, number + i, WORDS)), ring=False)
            queue.post(v.command("COPY", v.cmd_copy(queue.address + 4 * WORDS * i, memory,
                                                    4 * WORDS, "FROM_DEVICE")))
        if queue.call("SYNC") != OK:
            raise AssertionError("SYNC failed")
        seen = queue.device.map[queue.offset:queue.offset + 8 * WORDS]
        if seen != struct.pack("<I", number) * WORDS + struct.pack("<I", number + 1) * WORDS:
            raise AssertionError("wrong bytes")
        self.done()

    def sum(self, number):
        answer = self.device.call(v.add_inline([number], [number + 1]))
        if answer != (0, struct.pack("<i", 2 * number + 1)):
            raise AssertionError(f"{number} + {number + 1}: {answer}")
        self.done()

    def reset(self, serial):
        self.device.client.send(v.message("RESET", serial=serial))
        while self.hear(serial, self.last_reset) != serial:
            pass
        self.last_reset = serial
        self.times.append(time.monotonic())

    def hear(self, *serials):
        """Nothing but a RESET_DONE comes; two mediators may say the same one. Its serial."""
        answer = self.device.client.receive()
        serial = answer and v.get(answer, "vgpu_msg.serial")
        if not answer or v.get(answer, "vgpu_msg.type") != N["VGPU_MSG_RESET_DONE"] or \
                serial not in serials:
            raise AssertionError(f"no RESET_DONE of {serials} but {bytes(answer[:32])}")
        return serial


class Survival(v.TestCase):
    backend = "cpu"

    def unusual(self):
        """Of the log, what is not said at each kill."""
        usual = ("was ended by signal 9", " ready a", "carried over", "computing on", "kernels that")
        return "\n".join(line for line in self.m.read_log().splitlines()
                         if not any(text in line for text in usual))[:6000]

    def test_random_kills(self):
        """Nothing ends, nothing is lost or wrong, and accounts are exact afterwards."""
        self.m = self.mediator(mediator=f"backend = {self.backend}", keeper=True)
        dice = random.Random(1)
        players = [Player(self.m, vm, priority) for vm, priority in
                   ((1, N["VGPU_PRIORITY_LOW"]), (2, N["VGPU_PRIORITY_MEDIUM"]),
                    (3, N["VGPU_PRIORITY_MEDIUM"]), (4, N["VGPU_PRIORITY_HIGH"]))]
        self.addCleanup(lambda: [player.process.kill() for player in players])
        for player in players:
            self.assertTrue(player.begun.wait(v.PATIENCE))
        kills = []
        for _ in range(KILLS):
            time.sleep(dice.uniform(0.001, 0.3))
            kills.append(self.m.replace())
        problems, times = zip(*[player.result() for player in players])
        self.assertEqual([problem for problem in problems if problem], [], self.unusual())
        for vm in range(1, 5):
            self.m.vm(vm, memory_used=0)
        gaps = sorted(next_after(times_of, at) - at for times_of in times for at in kills)
        print(f"{sum(map(len, times))} done, {len(kills)} kills; the next one after a kill: median "
              f"{1000 * gaps[len(gaps) // 2]:.0f}, p99 {1000 * gaps[len(gaps) * 99 // 100]:.0f} ms",
              file=sys.stderr)
        for player in players:
            player.leave.set()


class Blame(v.TestCase):
    def test_crashes_of_nobody(self):
        """Those that no VM is to blame for end nothing."""
        self.m = self.mediator(keeper=True)
        self.device = v.Device(v.Client(self.m), vm_id=1, shm=4 << 20, queues=1)
        queue = v.Queue(self.device).open()
        for _ in range(5):
            self.m.replace(signal.SIGSEGV)
            self.m.vms()
            self.assertEqual(queue.call("SYNC"), OK)

    @unittest.skipIf(v.sanitizer(v.MEDIATOR), "a sanitizer takes the signals of crashes")
    def test_vm_that_crashes_them(self):
        """It is ended and stays out for a while; others live."""
        if not v.may_trace():
            self.skipTest("no process may watch another one here")
        self.m = self.mediator(keeper=True)
        self.device = v.Device(v.Client(self.m), vm_id=1, shm=4 << 20, queues=1)
        other = v.Queue(v.Device(v.Client(self.m), vm_id=2, shm=4 << 20, queues=1)).open()
        for _ in range(3):
            pid = self.m.pid
            # Somewhere in what it does for VM 1, by a fault of its own.
            crasher = subprocess.Popen([v.KILL_AT, "--crash", str(pid), "9"],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self.assertEqual(crasher.stdout.readline(), "watching\n")
            self.device.client.send(v.message("QUEUE", queue__queue=0, queue__action=77))
            self.assertEqual(crasher.stdout.readline(), "killed\n")
            crasher.stdin.close()
            crasher.stdout.close()
            crasher.wait()
            v.wait_until("the next mediator", lambda pid=pid: self.m.pid != pid and
                         self.m.ask("list"))
            self.assertEqual(other.call("SYNC"), OK)
        self.assertEqual(list(self.m.vms()), [2], self.m.read_log()[-2000:])
        client = v.Client(self.m)
        client.send(v.hello(vm_id=1))
        self.assertIn("ten minutes after that", v.text(client.receive(),
                                                       "vgpu_msg.refused.reason"))


class Often(v.TestCase):
    def kill(self):
        """Kills the mediator; how long it took until another one answers."""
        at = self.m.replace()
        self.m.vms()
        return time.monotonic() - at

    def sizes(self):
        """Descriptors and resident pages of the keeper, and of the worker of a session."""
        sizes = []
        for pid in (self.m.process.pid, self.worker):
            with open(f"/proc/{pid}/statm", encoding="ascii") as file:
                sizes += [v.idle_descriptors(pid), int(file.read().split()[1])]
        return sizes

    def test_leaves_nothing(self):
        """VGPU_ADOPTIONS times (default 60): no descriptor and no memory more than at first."""
        self.m = self.mediator(keeper=True)
        device = v.Device(v.Client(self.m), vm_id=1, shm=4 << 20, queues=2)
        queue = v.Queue(device).open()
        self.worker = self.m.vm(1)["sessions"][0]["worker_pid"]
        for _ in range(5):
            self.kill()
        before, own = self.sizes(), v.idle_descriptors(self.m.pid)
        for _ in range(ADOPTIONS):
            self.kill()
        self.assertEqual(queue.call("SYNC"), OK)
        after = self.sizes()
        self.assertEqual(after[::2], before[::2])
        self.assertEqual(v.idle_descriptors(self.m.pid), own)
        # A page for each would be a leak; some more are the allocator's, and a sanitizer's.
        for now, then in zip(after[1::2], before[1::2]):
            self.assertLess(now - then, (20 + ADOPTIONS // 20) * (
                20 if v.sanitizer(v.MEDIATOR) else 1))

    def test_alone(self):
        """A session that is alone works on without any mediator, and has no gap with the next."""
        self.m = self.mediator(keeper=True)
        queue = v.Queue(v.Device(v.Client(self.m), vm_id=1, shm=4 << 20, queues=1)).open()
        memory = queue.memory(4)
        self.assertEqual(queue.call("FILL", v.cmd_fill(memory, 0, 1)), OK)
        os.kill(self.m.process.pid, signal.SIGSTOP)
        self.addCleanup(os.kill, self.m.process.pid, signal.SIGCONT)
        os.kill(v.children(self.m.process.pid)[0], signal.SIGKILL)
        for number in range(200):
            self.assertEqual(queue.call("FILL", v.cmd_fill(memory, number, 1)), OK)
        os.kill(self.m.process.pid, signal.SIGCONT)
        v.wait_until("the next mediator", lambda: self.m.vms() if v.listens(self.m.control) else None)
        before = self.m.vm(1)["sessions"][0]["queue_wait"]["count"]
        for number in range(200):
            self.assertEqual(queue.call("FILL", v.cmd_fill(memory, number, 1)), OK)
        # It never had to ask: the turn that it had is its own still.
        self.assertEqual(self.m.vm(1)["sessions"][0]["queue_wait"]["count"], before)

    def test_many_at_once(self):
        """VGPU_VMS VMs (default 8), with as many sessions as they have queues, which are 4."""
        self.m = self.mediator(keeper=True, mediator="max-vms = 1000")
        devices = [v.Device(v.Client(self.m), vm_id=vm, shm=8 << 20, queues=QUEUES)
                   for vm in range(1, VMS + 1)]
        queues = [v.Queue(device, number) for device in devices for number in range(QUEUES)]
        for queue in queues:
            queue.begin()
        for queue in queues:
            queue.wait_state("RUNNING")
        times = []
        for _ in range(5):
            times.append(self.kill())
            for queue in queues:
                self.assertEqual(queue.call("SYNC"), OK)
                self.assertEqual(queue.status(), ("RUNNING", "NONE", 1))
        print(f"{VMS} VMs of {QUEUES} sessions: another mediator answers after "
              f"{1000 * min(times):.0f} to {1000 * max(times):.0f} ms", file=sys.stderr)


class Coming(v.TestCase):
    def test_mediators_that_end_as_a_host_process_comes(self):
        """They have taken it, and nobody has kept it: it comes again, to the next one."""
        m = self.mediator()
        path = os.path.join(m.dir.name, "first")
        queues, shm = 1, 64 << 20
        with socket.socket(socket.AF_UNIX) as server:
            server.settimeout(v.PATIENCE)
            server.bind(path)
            server.listen(1)
            check = subprocess.Popen([os.path.join(v.OUT, "tests/session/session-check"), "--host",
                                      path, "identity"], stdout=subprocess.PIPE, text=True)
            self.addCleanup(check.kill)
            for last in (False, True):
                connection, _ = server.accept()
                connection.settimeout(v.PATIENCE)
                hello = connection.recv(N["VGPU_MSG_SIZE"], socket.MSG_WAITALL)
                answer = v.message("ATTACHED", attached__vm_id=5, attached__pool=65,
                                   attached__vectors=1 + queues, attached__queues=queues,
                                   attached__shm_size=shm)
                v.put(answer, "vgpu_msg.serial", v.get(hello, "vgpu_msg.serial"))
                self.assertEqual(v.get(hello, "vgpu_msg.hello.shm_size"), shm)
                memory = os.memfd_create("t", os.MFD_ALLOW_SEALING)
                os.ftruncate(memory, shm + N["VGPU_REGS_SIZE"])
                fcntl.fcntl(memory, 1033, 6)
                fds = [memory] + [os.eventfd(0) for _ in range(2 + 2 * queues)]
                socket.send_fds(connection, [bytes(answer)], fds)
                for fd in fds:
                    os.close(fd)
                opening = connection.recv(N["VGPU_MSG_SIZE"], socket.MSG_WAITALL)
                self.assertEqual(v.get(opening, "vgpu_msg.type"), N["VGPU_MSG_QUEUE"])
                if last:
                    os.rename(m.socket, path)
                connection.close()
            output = check.communicate(timeout=v.PATIENCE)[0]
        self.assertEqual(check.returncode, 0, output)


class Operator(v.TestCase):
    def ctl(self, *arguments, code=0):
        done = subprocess.run([v.VGPUCTL, "--socket", self.m.control, *arguments],
                              capture_output=True, text=True, timeout=v.PATIENCE, check=False)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout + done.stderr

    def make(self, keeper=True):
        self.m = self.mediator(keeper=keeper)
        self.device = v.Device(v.Client(self.m), vm_id=5, shm=4 << 20, queues=4)
        self.queues = [v.Queue(self.device, number).open() for number in range(3)]

    def test_upgrade(self):
        self.make()
        for _ in range(2):
            self.assertIn("; 3 of 3 sessions were carried over; there was no mediator for",
                          self.ctl("upgrade"))
            for queue in self.queues:
                self.assertEqual(queue.call("SYNC"), OK)
        self.assertIn(f"as process {self.last_child()} of user {os.getuid()} asks",
                      self.m.read_log())

    def last_child(self):
        """Its number is in the log, where it belongs to a vgpuctl that has ended."""
        return self.m.read_log().split(" asks")[-2].split("process ")[-1].split(" ")[0]

    def test_upgrade_to_a_wrong_configuration(self):
        self.make()
        with open(self.m.config, "a", encoding="ascii") as file:
            file.write("nonsense = 1\n")
        self.assertIn("the configuration has mistakes", self.ctl("upgrade", code=1))
        self.assertEqual(self.queues[0].call("SYNC"), OK)

    def test_wrong_configuration_for_a_while(self):
        """A crash meanwhile ends nothing: the keeper tries on until it is mended."""
        self.make()
        with open(self.m.config, encoding="ascii") as file:
            text = file.read()
        with open(self.m.config, "w", encoding="ascii") as file:
            file.write(text + "nonsense = 1\n")
        os.kill(self.m.pid, signal.SIGKILL)
        v.wait_until("it does not start", lambda: "trying again each 1 s" in self.m.read_log())
        with open(self.m.config, "w", encoding="ascii") as file:
            file.write(text)
        v.wait_until("it is served", lambda: self.m.vms())
        for queue in self.queues:
            self.assertEqual(queue.call("SYNC"), OK)
            self.assertEqual(queue.status(), ("RUNNING", "NONE", 1))

    def test_upgrade_where_nobody_keeps_anything(self):
        self.make(keeper=False)
        self.assertIn("nobody keeps the sessions meanwhile", self.ctl("upgrade", code=1))
        self.assertEqual(self.queues[0].call("SYNC"), OK)

    def test_end(self):
        self.make()
        self.ctl("end", "5", "1")
        self.assertEqual(self.queues[1].end(), "OPERATOR")
        self.assertIn("VM 5 queue 1: its session is ended by process", self.m.read_log())
        for words in (("5", "1"), ("5", "3"), ("5", "77")):
            self.assertIn("has no session on queue", self.ctl("end", *words, code=1))
        self.assertIn("no VM 6 is attached", self.ctl("end", "6", "0", code=1))
        self.assertIn("is no queue's number", self.ctl("end", "5", "x", code=2))
        self.assertEqual(self.queues[0].call("SYNC"), OK)
        self.assertEqual(self.queues[1].open().call("SYNC"), OK)

    def test_detach(self):
        self.make()
        self.ctl("detach", "5")
        self.assertEqual(self.device.client.receive(), b"")
        v.wait_until("it is gone", lambda: not self.m.vms())
        self.assertIn("VM 5: is detached by process", self.m.read_log())

    def gpus(self):
        """(number, workers, drained) of each, of pool A."""
        return [(gpu["number"], gpu["workers"], gpu["drained"])
                for gpu in self.m.ask("list")["pools"][0]["gpus"]]

    def test_drain(self):
        """What is there goes on, register mode moves, and nothing new comes; a restart included."""
        self.m = self.mediator(config="[pool A]\ndevices = 2 200\n", keeper=True)
        self.device = v.Device(v.Client(self.m), vm_id=5, shm=4 << 20, queues=4)
        self.queues = [v.Queue(self.device, number) for number in range(4)]
        for queue in self.queues[:2]:
            queue.open()
        on = {s["gpu"]: s["queue"] for s in self.m.vm(5)["sessions"]}
        self.assertEqual(set(on), {2, 200})
        self.assertEqual(self.m.vm(5)["registers"]["gpu"], 2)
        self.assertIn("sessions that go on there until they end: 1", self.ctl("drain", "2"))
        v.wait_until("register mode moves",
                     lambda: self.gpus() == [(2, 1, True), (200, 2, False)])
        self.assertEqual(self.device.call(v.add_inline([1], [2])), (0, b"\3\0\0\0"))
        self.queues[2].open()
        self.m.replace()
        self.queues[3].open()
        self.assertEqual(self.gpus(), [(2, 1, True), (200, 4, False)])
        self.assertIn("GPU 2 with 1 worker, drained, GPU 200 with 4 workers", self.ctl("list"))
        self.assertEqual(self.queues[on[2]].call("SYNC"), OK)
        self.assertRegex(self.m.read_log(),
                         r"GPU 2: is drained, as process \d+ of user \d+ asks; sessions there: 1")
        # All of them: sessions are refused, and what is asked in register mode waits.
        self.queues[3].close()
        self.queues[3].wait_state("FREE")
        self.ctl("drain", "200")
        v.wait_until("its worker is gone", lambda: self.m.vm(5)["worker_pid"] == 0)
        self.queues[3].send("OPEN")
        self.assertEqual(self.queues[3].end(), "NO_GPU")
        self.device.ring(v.add_inline([3], [4]))
        # Another VM may come, and waits like this one.
        other = v.Device(v.Client(self.m), vm_id=6)
        self.addCleanup(other.close)
        other.ring(v.add_inline([5], [6]))
        for vm in (5, 6):
            self.assertEqual(self.m.vm(vm)["state"], "no-gpu")
        self.assertEqual(self.ctl("undrain", "2"), "")
        self.assertEqual(self.device.finish(), (0, b"\7\0\0\0"))
        self.assertEqual(other.finish(), (0, b"\x0b\0\0\0"))
        self.assertEqual(self.m.vm(5)["registers"]["gpu"], 2)
        self.assertEqual(self.m.vm(5)["registers"]["worker_failures"], 0)
        self.queues[3].open()
        for queue in self.queues:
            self.assertEqual(queue.call("SYNC"), OK)
        for number in ("3", "256", "2147483647"):
            self.assertIn(f"no pool has GPU {number}", self.ctl("drain", number, code=1))
        for number in ("x", "4294967298", "2x", ""):
            self.assertIn("is no GPU's number", self.ctl("undrain", number, code=2))

    def test_pauses_outlive_it(self):
        """Of a pool and of a VM; and so does what was set, as long as the configuration stays."""
        self.make()
        self.ctl("pause", "5")
        self.ctl("pause", "A")
        self.ctl("set", "5", "share", "300")
        self.ctl("upgrade")
        answer = self.m.ask("list")
        self.assertTrue(answer["vms"][0]["paused"] and answer["pools"][0]["paused"])
        self.assertEqual(answer["vms"][0]["limits"]["share"], "300")
        self.ctl("resume", "A")
        self.ctl("resume", "5")
        memory = self.queues[0].memory(4)
        self.assertEqual(self.queues[0].call("FILL", v.cmd_fill(memory, 1, 1)), OK)
        with open(self.m.config, "a", encoding="ascii") as file:
            file.write("[vm 5]\nshare = 50\nmax-priority = low\n")
        self.ctl("upgrade")
        vm = self.m.vm(5)
        self.assertEqual((vm["limits"]["share"], vm["priority"]), ("50", "low"))

    def test_names_outlive_it(self):
        """And the sections that are about them."""
        uuid = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
        self.m = self.mediator("[vm web01]\nshare = 70\n[vm " + uuid + "]\nshare = 50\n",
                               keeper=True)
        for number, fields in ((1, {}), (2, {"hello__uuid": bytes.fromhex(uuid.replace("-", ""))})):
            device = v.Device(v.Client(self.m), vm_id=number, hello__name=b"web01", **fields)
            self.addCleanup(device.close)
        for _ in range(2):
            vms = self.m.vms()
            self.assertEqual([(vm["name"], vm.get("uuid"), vm["share"]) for vm in
                              (vms[1], vms[2])], [("web01", None, 70), ("web01", uuid, 50)])
            self.ctl("upgrade")

    def test_configuration_that_forbids_it(self):
        """It holds: what may not attach any more does not go on either."""
        self.make()
        with open(self.m.config, encoding="ascii") as file:
            text = file.read()
        with open(self.m.config, "w", encoding="ascii") as file:
            file.write(text.replace("backend", "unknown-vms = refuse\nbackend"))
        workers = [s["worker_pid"] for s in self.m.vm(5)["sessions"]]
        self.assertIn("0 of 3 sessions were carried over", self.ctl("upgrade", code=1))
        self.assertEqual(self.device.client.receive(), b"")
        self.assertEqual(self.m.vms(), {})
        v.wait_until("its workers end", lambda: not any(map(v.program, workers)))


# What a hostile worker of VM 9 does: it is given a turn, and when it is told RESYNC it says STATE as
# the manner has it.
LIAR = r"""
import os, select, socket, struct, sys, time
sys.path.insert(0, {lib!r})
from vgputest import N
manner = {manner!r}
if "--user" in sys.argv:
    user, group = map(int, sys.argv[sys.argv.index("--user") + 1].split(":"))
    os.setgid(group)
    os.setuid(user)
link = socket.socket(fileno=N["VGPU_WORKER_FD_LINK"])
link.setblocking(True)

def say(kind, value=0, rest=b""):
    try:
        link.send(struct.pack("<IIIIQ104s", N["VGPU_LINK_" + kind], value, 0, 0, 0, rest))
    except OSError:
        pass

def state(number):
    say("STATE", number, struct.pack("<III", told, 0, 0))

while True:
    message = link.recv(128)
    if not message:
        time.sleep(1000)  # it does not heed the end of its link either
    kind, value = struct.unpack_from("<II", message)
    if kind == N["VGPU_LINK_OPEN"]:
        say("READY", 1)
        say("ASK")
    elif kind == N["VGPU_LINK_RESYNC"]:
        told = {told}
        if manner == "late":
            time.sleep(0.3)
        for _ in range({{"never": 0, "twice": 2, "flood": 200}}.get(manner, 1)):
            state(value + (manner == "number"))
"""


class Liars(v.TestCase):
    """A worker that was taken over gains nothing by what it says to another mediator, or does not."""

    def make(self, manner, told="0"):
        self.m = self.mediator(keeper=True)
        folder = self.m.dir.name
        liar, chooser = os.path.join(folder, "liar"), os.path.join(folder, "worker")
        with open(liar, "w", encoding="ascii") as file:
            file.write(LIAR.format(lib=os.path.dirname(v.__file__), manner=manner, told=told))
        with open(chooser, "w", encoding="ascii") as file:
            file.write(f"#!/bin/sh\ncase \"$*\" in *'VM 9 queue'*) exec /usr/bin/python3 {liar} \"$@\";; esac\n"
                       f"exec {v.WORKER} \"$@\"\n")
        os.chmod(chooser, 0o755)
        self.m.stop()
        with open(self.m.config, encoding="ascii") as file:
            text = file.read()
        with open(self.m.config, "w", encoding="ascii") as file:
            file.write(text.replace(v.WORKER, chooser).replace(
                "backend", "turn-limit = 1\nbackend"))
        self.m.start()
        self.honest = v.Queue(v.Device(v.Client(self.m), vm_id=1, shm=4 << 20, queues=1)).open()
        self.other = v.Device(v.Client(self.m), vm_id=9, shm=4 << 20, queues=1)
        self.liar = v.Queue(self.other).open()
        self.memory = self.honest.memory(4 << 20)

    def work(self, count):
        """Enough of it that who is beside it is in its way."""
        for i in range(count):
            self.honest.post(v.command("FILL", v.cmd_fill(self.memory, i, 1 << 20)))
        self.assertEqual(self.honest.call("SYNC"), OK)
        return True

    def check(self, state, *ends):
        """The honest one is served on and on; the other one is in this state in the end."""
        for _ in range(3):
            self.m.replace()
            self.m.vms()
            self.work(20)
        v.wait_until(f"the other one is {state}", lambda: self.work(20) and
                     self.liar.state() == state)
        if ends:
            self.assertIn(self.liar.status()[1], ends)
        self.assertEqual(self.honest.status(), ("RUNNING", "NONE", 1))
        workers = [pid for pid in v.children(self.m.process.pid)]
        self.assertEqual(self.m.stop(), 0)
        v.wait_until("nobody is left", lambda: not any(map(v.program, workers)))

    def test_says_nothing(self):
        self.make("never")
        self.check("ENDED", "TIMEOUT")

    def test_says_it_late(self):
        """And keeps the turn that it has: it is ended as anybody who does so."""
        self.make("late", 'N["VGPU_LINK_TURN_ASKED"] | N["VGPU_TURN_STOPPED"]')
        self.check("ENDED", "TIMEOUT")

    def test_says_it_on_and_on(self):
        """It gave its turn back, it says, but its word says that it did not."""
        self.make("flood")
        self.check("ENDED", "LOST")

    def test_has_a_turn_that_it_was_not_given(self):
        self.make("once", 'N["VGPU_TURN_SHARED"] if len(os.listdir("/proc/self/fd")) else 0')
        self.check("ENDED", "TIMEOUT", "LOST")

    def test_says_it_to_another_mediator(self):
        self.make("number")
        self.check("ENDED", "TIMEOUT")


class Points(v.TestCase):
    """
    The mediator is killed at each moment of what it does for a VM that others can see: when it
    enters and leaves a system call. VGPU_POINT_STEP: only each of so many (default 7; with 1 it
    takes ten minutes).
    """

    def setUp(self):
        if not v.may_trace():
            self.skipTest("no process may watch another one here")
        self.m = self.mediator(keeper=True)
        self.device = v.Device(v.Client(self.m), vm_id=1, shm=4 << 20, queues=3)
        self.lasting = v.Queue(self.device, 0).open()
        self.other = v.Queue(self.device, 1)
        self.lasting.good()

    def kill_at(self, point, act):
        """Acts, and has the mediator killed at that point of it; False: there is no such point."""
        pid = self.m.pid
        killer = subprocess.Popen([v.KILL_AT, str(pid), str(point)], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True)
        self.assertEqual(killer.stdout.readline(), "watching\n")
        act()
        killer.stdin.close()
        killed = killer.stdout.readline() == "killed\n"
        killer.stdout.close()
        self.assertEqual(killer.wait(), 0)
        if killed:
            v.wait_until("the next mediator", lambda: self.m.pid != pid)
        return killed

    def each_point(self, act, look, prepare=lambda: None):
        """Acts once for each point; `look` waits until it is done, and sees whether that is so."""
        point, points = 1 + random.Random(point_seed()).randrange(STEP), 0
        more = True
        while more:
            prepare()
            more = self.kill_at(point, lambda: (act(), self.look_on(look)))
            look()
            self.lasting.good(point)
            self.assertEqual(self.lasting.status(), ("RUNNING", "NONE", 1))
            self.assertEqual(self.device.call(v.add_inline([point], [2])),
                             (0, struct.pack("<i", point + 2)))
            point += STEP
            points += 1
        self.m.vm(1, memory_used=0)
        print(f"{self._testMethodName}: {points - 1} points, step {STEP}", file=sys.stderr)
        return points

    @staticmethod
    def look_on(look):
        """For as long as it may take where nobody is killed; else the next mediator does it."""
        try:
            look(0.3)
        except AssertionError:
            pass

    def status(self, queue, *states):
        def look(patience=v.PATIENCE):
            v.wait_until(f"queue {queue.number} is {states}", lambda: queue.state() in states,
                         patience)
        return look

    def test_open(self):
        opened = self.status(self.other, "RUNNING")

        def look(patience=v.PATIENCE):
            opened(patience)
            if patience == v.PATIENCE:
                self.other.good()

        def prepare():
            if self.other.state() != "FREE":
                self.other.close()
            self.other.clear()
            self.other.claim()
        self.assertGreater(self.each_point(lambda: self.other.send("OPEN"), look, prepare), 3)

    def test_close(self):
        self.assertGreater(self.each_point(lambda: self.other.send("CLOSE"),
                                           self.status(self.other, "FREE"), self.other.open), 3)

    def test_reset(self):
        serial = 0

        def act():
            nonlocal serial
            serial += 1
            self.device.client.send(v.message("RESET", serial=serial))

        def look(patience=v.PATIENCE):
            v.wait_until("RESET_DONE", done, patience)

        heard = 0

        def done():
            nonlocal heard
            while select.select([self.device.client.socket], [], [], 0)[0]:
                answer = self.device.client.receive()
                self.assertEqual(v.get(answer, "vgpu_msg.type"), N["VGPU_MSG_RESET_DONE"])
                heard = v.get(answer, "vgpu_msg.serial")
            return heard == serial
        self.assertGreater(self.each_point(act, look), 3)

    def test_session_that_ends(self):
        """By its own mistake: the guest is told that, whichever mediator hears of it."""
        ended = self.status(self.other, "ENDED")

        def look(patience=v.PATIENCE):
            ended(patience)
            self.assertEqual(self.other.status()[1], "BAD_RING")

        def act():
            self.other.post(bytes(16))
        self.each_point(act, look, self.other.open)

    def test_attach(self):
        """Who is not told that it is attached says HELLO again, as the stub does."""
        clients = []

        def act():
            clients.append(v.Client(self.m))
            clients[-1].send(v.hello(vm_id=2, shm=1 << 20, queues=1))

        def look(patience=v.PATIENCE):
            v.wait_until("ATTACHED", attached, patience)

        def attached():
            try:
                client = clients[-1]
                if client.fds:
                    return True
                if not select.select([client.socket], [], [], 0)[0]:
                    return False
                if v.get(client.receive(), "vgpu_msg.type") == N["VGPU_MSG_ATTACHED"]:
                    client.fds = client.take_fds(5)
                    return True
            except (OSError, AssertionError):
                pass
            # The end of file, or somebody else has the number: that was this one, a moment ago.
            clients.pop().close()
            act()
            return False

        def prepare():
            while clients:
                clients.pop().close()
            v.wait_until("it is gone", lambda: 2 not in self.m.vms())
        self.assertGreater(self.each_point(act, look, prepare), 3)


def point_seed():
    """Each day others of the points, where not all of them are looked at."""
    return int(time.time() // 86400)


def next_after(times, at):
    """The first of ascending times after that; the last one's where there is none."""
    place = bisect.bisect(times, at)
    return times[place] if place < len(times) else at


if __name__ == "__main__":
    v.main()
