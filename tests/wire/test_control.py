#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Seeing and changing the scheduler from outside: the control socket, vgpuctl, metrics.

Tests: mediator/control*.c, mediator/ctl/, mediator/metrics*.c, mediator/listen.c,
mediator/reload.c, mediator/report.c"""
import json
import os
import pty
import re
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402
from vgputest import N  # noqa: E402

# In a build with sanitizers: a worker's filter forbids the leak checker's process, and a worker
# that ends by itself would wait for that.
os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=0")

MIB = 1 << 20
# Where a worker's claims are in its turn page, and its descriptor of that: protocol/vgpu-worker.h.
CLAIMS, TURN_FD = 256, 7
LIMITS = {"priority": "high", "share": "100", "memory": "none", "sessions": "none",
          "commands": "none", "doorbell-rate": "none", "interrupt-rate": "none",
          "max-kernel": "none"}


def free_port(family=socket.AF_INET):
    with socket.socket(family) as probe:
        probe.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        return probe.getsockname()[1]


def ticks(pid):
    """Time on the processor, user and system, in clock ticks."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def wakes(pid):
    """How often it has slept."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"(?m)^voluntary_ctxt_switches:\s+(\d+)$", file.read())[1])


class TestCase(v.TestCase):
    def make(self, mediator="", config=""):
        self.m = self.mediator(config, mediator)

    def attach(self, vm_id=1, shm=8 * MIB, queues=4, **fields):
        device = v.Device(v.Client(self.m), vm_id=vm_id, shm=shm, queues=queues, **fields)
        self.addCleanup(device.close)
        self.m.vm(vm_id, state="idle")
        return device

    def rewrite(self, old, new):
        """Replaces text in the configuration's file."""
        with open(self.m.config, encoding="ascii") as file:
            text = file.read()
        self.assertIn(old, text)
        with open(self.m.config, "w", encoding="ascii") as file:
            file.write(text.replace(old, new))

    def set(self, vm_id, key, value):
        answer = self.m.ask("set", vm=vm_id, key=key, value=value)
        self.assertNotIn("error", answer)
        self.assertEqual((answer["vm"], answer["key"]), (vm_id, key))
        return answer["value"]

    def refused(self, words, command, **arguments):
        error = self.m.ask(command, **arguments).get("error", "")
        self.assertIn(words, error)

    def session(self, vm_id, queue):
        return next(s for s in self.m.vms()[vm_id]["sessions"] if s["queue"] == queue.number)

    def spin(self, queue, seconds):
        function = queue.function("spin")
        queue.post(v.command("LAUNCH", v.cmd_launch(function, struct.pack("<Q",
                                                                          int(seconds * 1e9)))))

    def allocate(self, queue, size):
        """The result of an allocation, which stays."""
        return queue.call("MEM_ALLOC", struct.pack("<QQ", size, 0))[0]

    def ctl(self, *arguments, code=0):
        result = subprocess.run([v.VGPUCTL, "--socket", self.m.control, *arguments], text=True,
                                stdin=subprocess.DEVNULL, capture_output=True,
                                timeout=v.PATIENCE, check=False)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        if code == 0:
            self.assertEqual(result.stderr, "")
        else:
            self.assertEqual(result.stdout, "")
            self.assertRegex(result.stderr, r"^(vgpuctl|usage): ")
        return result.stdout + result.stderr


class Questions(TestCase):
    """Raw bytes on the control socket."""

    def setUp(self):
        self.make(config="[pool B]\ndevices = 3\n[pool D]\ndevices = 5 7\nexclusive = yes\n")

    def raw(self, *pieces):
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(v.PATIENCE)
            control.connect(self.m.control)
            for piece in pieces:
                control.sendall(piece)
            answer = b""
            while not answer.endswith(b"\n"):
                piece = control.recv(65536)
                if not piece:
                    break
                answer += piece
        return json.loads(answer) if answer else None

    def error(self, question):
        if not isinstance(question, bytes):
            question = json.dumps(question).encode()
        return self.raw(question + b"\n").get("error", "no error")

    def test_every_error(self):
        self.attach(7, pool="B")
        for question, words in (
                (b"", "no JSON object"),
                (b"vgpu", "no JSON object"),
                (b"[1]", "no JSON object"),
                (b'"list"', "no JSON object"),
                (b"{", "no JSON object"),
                (b"\0\xff\xfe", "no JSON object"),
                ({}, "no 'command'"),
                ({"command": []}, "no 'command'"),
                ({"command": None}, "no 'command'"),
                ({"command": "fry"}, "unknown command 'fry': this mediator, version "),
                ({"command": "fry"}, "knows list, show, set, history, pause, resume, reload, end, detach, "
                                    "upgrade"),
                ({"command": "show"}, "no 'vm'"),
                ({"command": "show", "vm": ""}, "'' names no VM"),
                ({"command": "show", "vm": "seven"}, "no VM seven is attached"),
                ({"command": "show", "vm": "\x1b[2J"}, "names no VM"),
                ({"command": "show", "vm": 7.5}, "no 'vm'"),
                ({"command": "show", "vm": {}}, "no 'vm'"),
                ({"command": "show", "vm": 8}, "no VM 8 is attached; 'vgpuctl list' shows who is"),
                ({"command": "show", "vm": -7}, "'-7' names no VM"),
                ({"command": "show", "vm": 7 + (1 << 32)}, "'4294967303' names no VM"),
                ({"command": "history"}, "no 'pool'"),
                ({"command": "history", "pool": []}, "no 'pool'"),
                ({"command": "history", "pool": "C"}, "no pool 'C'; there is B, D"),
                ({"command": "pause", "pool": "BD"}, "no pool 'BD'"),
                ({"command": "resume", "pool": ""}, "no pool ''"),
                ({"command": "pause", "vm": 8}, "no VM 8 is attached"),
                ({"command": "resume", "vm": "8"}, "no VM 8 is attached"),
                ({"command": "resume", "pool": "b"}, "no pool 'b'"),
                ({"command": "set"}, "no 'vm'"),
                ({"command": "set", "vm": 9, "key": "share", "value": 1}, "no VM 9 is attached"),
                ({"command": "set", "vm": 7}, "no 'key'"),
                ({"command": "set", "vm": 7, "key": "share"}, "no 'value'"),
                ({"command": "set", "vm": 7, "key": "share", "value": None}, "no 'value'"),
                ({"command": "set", "vm": 7, "key": "pool", "value": "B"},
                 "unknown key 'pool': there are " + ", ".join(LIMITS)),
                ({"command": "set", "vm": 7, "key": "share", "value": 0}, "'share' is '0', must"),
                ({"command": "set", "vm": 7, "key": "share", "value": "x"}, "'share' is 'x', must"),
                ({"command": "set", "vm": 7, "key": "memory", "value": "1"}, "'memory' is '1'"),
                ({"command": "set", "vm": 7, "key": "sessions", "value": 65}, "'sessions' is '65'"),
                ({"command": "set", "vm": 7, "key": "priority", "value": "top"}, "is 'top', must"),
        ):
            self.assertIn(words, self.error(question), question)
        self.assertEqual(self.m.vms()[7]["limits"], LIMITS)

    def test_bytes(self):
        question = b'{"command":"list"}\n'
        self.assertEqual(self.raw(*(bytes([byte]) for byte in question))["vms"], [])
        self.assertIn("vms", self.raw(question + b"x" * 5000))
        self.assertIn("too long", self.raw(b"{" + b" " * 1022)["error"])
        self.assertIn("vms", self.raw(b" " * (1022 - len(question)) + question))
        for piece in (b"", b"{"):
            with socket.socket(socket.AF_UNIX) as control:
                control.connect(self.m.control)
                control.sendall(piece)
        self.assertIn("vms", self.raw(question))

    def test_large_answer(self):
        """Larger than any socket's buffer, taken in small pieces."""
        self.m.close()
        self.make(mediator="max-vms = 200")
        for i in range(200):
            client = v.Client(self.m)
            self.addCleanup(client.close)
            client.attach(vm_id=i + 1)
        with socket.socket(socket.AF_UNIX) as control:
            control.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            control.settimeout(v.PATIENCE)
            control.connect(self.m.control)
            control.sendall(b'{"command":"list"}\n')
            # Nobody waits for who does not read.
            self.assertEqual(len(self.m.vms()), 200)
            answer = b"".join(iter(lambda: control.recv(4096), b""))
        self.assertGreater(len(answer), 212992)
        self.assertEqual([vm["vm"] for vm in json.loads(answer)["vms"]], list(range(1, 201)))

    def test_list(self):
        answer = self.m.ask("list")
        self.assertEqual((answer["gpu"], answer["vms"]), (False, []))
        self.assertTrue(answer["computes_on"].startswith("the CPU"))
        self.assertGreater(answer["clock_seconds"], 0)
        self.assertEqual(answer["pools"], [
            {"pool": "B", "paused": False, "exclusive": False, "slice_seconds": 0.005,
             "window_seconds": 0.0001, "least_share": 0.01, "turns": 0,
             "gpus": [{"number": 3, "workers": 0, "drained": False}]},
            {"pool": "D", "paused": False, "exclusive": True, "slice_seconds": 0.005,
             "window_seconds": 0.0001, "least_share": 0.01, "turns": 0,
             "gpus": [{"number": 5, "workers": 0, "drained": False},
                      {"number": 7, "workers": 0, "drained": False}]}])

    def test_show(self):
        device = self.attach(7, pool="D", priority=2, hello__name=b"seven")
        q = v.Queue(device, 2).open()
        q.memory(3 * MIB)
        self.spin(q, 0.02)
        self.assertEqual(q.call("SYNC")[0], 0)
        vm = self.m.ask("show", vm=7)
        self.assertEqual(vm, {**self.m.vms()[7], "attached_seconds": vm["attached_seconds"]})
        self.assertEqual({key: vm[key] for key in ("vm", "name", "kind", "pool", "priority",
                                                   "share", "queues", "shm_bytes", "memory_used",
                                                   "memory_limit", "limits", "worker_starts")},
                         {"vm": 7, "name": "seven", "kind": "vm", "pool": "D",
                          "priority": "high", "share": 100, "queues": 4, "shm_bytes": 8 * MIB,
                          "memory_used": 3 * MIB, "memory_limit": 0, "limits": LIMITS,
                          "worker_starts": 1})
        self.assertEqual(vm["client_pid"], os.getpid())
        session, = vm["sessions"]
        self.assertEqual((session["queue"], session["state"], session["device"]), (2, "idle", "CPU"))
        # An exclusive pool gives it one GPU.
        self.assertEqual((vm["gpu"], session["gpu"]), (5, 5))
        self.assertEqual(session["memory_used"], 3 * MIB)
        self.assertGreaterEqual(session["gpu_seconds"]["compute"], 0.01)
        self.assertGreaterEqual(session["doorbells"], 1)
        self.assertEqual(session["queue_wait"]["count"], sum(session["queue_wait"]["buckets"]))
        for key in ("requests", "turns", "doorbells", "busy_seconds"):
            self.assertEqual(vm[key], vm["registers"][key] + session[key], key)

    def test_totals_outlive_sessions(self):
        """What a VM has done never falls: when sessions end, fail, and come back."""
        device = self.attach(7, pool="B")
        q = v.Queue(device).open()
        self.assertTrue(q.nop())
        self.spin(q, 0.02)
        self.assertEqual(q.call("SYNC")[0], 0)
        before = self.m.vms()[7]
        self.assertGreaterEqual(before["requests"], 3)
        q.close()
        after = self.m.vms()[7]
        self.assertEqual(after["sessions"], [])
        self.assertEqual(after["memory_used"], 0)
        for key in ("requests", "turns", "doorbells", "gpu_seconds", "queue_wait"):
            self.assertEqual(after[key], before[key], key)
        self.assertEqual(after["worker_failures"], 0)
        self.assertTrue(q.open().nop())
        os.kill(self.session(7, q)["worker_pid"], signal.SIGKILL)
        self.assertEqual(q.end(), "LOST")
        last = self.m.vms()[7]
        self.assertEqual(last["requests"], after["requests"] + 1)
        self.assertEqual(last["worker_failures"], 1)

    def test_worker_lowers_its_counters(self):
        """Whatever it writes there, nothing falls, and no sum wraps round."""
        device = self.attach(7, pool="B")
        q, other = v.Queue(device).open(), v.Queue(device, 1).open()
        for _ in range(10):
            self.assertTrue(q.nop() and other.nop())
        vm = self.m.vms()[7]
        self.assertGreaterEqual(vm["requests"], 20)
        try:
            page = os.open(f"/proc/{self.session(7, q)['worker_pid']}/fd/{TURN_FD}", os.O_RDWR)
        except PermissionError:
            self.skipTest("needs to be root")
        os.pwrite(page, bytes(128), CLAIMS)
        self.assertEqual(self.m.vms()[7]["requests"], vm["requests"])
        self.assertEqual(self.session(7, q)["requests"], 10)
        os.pwrite(page, b"\xff" * 128, CLAIMS)
        vm = self.m.vms()[7]
        self.assertEqual((vm["requests"], vm["in_flight"]), ((1 << 64) - 1, (1 << 64) - 1))
        # It cannot have computed for longer than it has lived.
        self.assertLess(vm["busy_seconds"], 10 * v.PATIENCE)
        q.close()
        self.assertEqual(self.m.vms()[7]["requests"], (1 << 64) - 1)
        self.assertTrue(other.nop())
        os.close(page)


class Changes(TestCase):
    """`set` and `reload`, and what they do to those who are attached."""

    def test_set_and_show(self):
        """Every key: what was said, as it stands, and as it is shown."""
        self.make(config="[vm 2]\nmemory = 5G\n")
        self.attach(1)
        self.attach(2)
        expected = dict(LIMITS)
        for key, value, stands in (
                ("priority", "low", "low"), ("share", 250, "250"), ("share", "10000", "10000"),
                ("memory", "1536M", "1536M"), ("memory", 2 << 30, "2G"), ("sessions", 3, "3"),
                ("commands", 64, "64"), ("doorbell-rate", "1000", "1000"),
                ("interrupt-rate", 1, "1"), ("max-kernel", "0.5s", "500ms"),
                ("sessions", "none", "none"), ("max-kernel", "none", "none")):
            self.assertEqual(self.set(1, key, value), stands)
            expected[key] = stands
            self.assertEqual(self.m.vms()[1]["limits"], expected)
        vms = self.m.vms()
        self.assertEqual((vms[1]["priority"], vms[1]["share"], vms[1]["memory_limit"]),
                         ("low", 10000, 2 << 30))
        self.assertEqual(vms[2]["limits"], {**LIMITS, "memory": "5G"})

    def test_priority(self):
        """Who is raised while it waits is served first."""
        self.make()
        a, b = self.attach(1), self.attach(2)
        for raised, order in ((None, [1, 2]), (2, [2, 1])):
            self.m.ask("pause", pool="A")
            known = len(self.m.ask("history", pool="A")["turns"])
            for vm_id, device in ((1, a), (2, b)):
                device.ring(v.add_inline([1], [2]))
                self.m.vm(vm_id, state="waiting")
            if raised:
                self.set(raised, "priority", "high")
            self.m.ask("resume", pool="A")
            for device in (a, b):
                self.assertEqual(device.finish(), (0, b"\3\0\0\0"))
            turns = v.wait_until("two turns are over", lambda: (
                lambda turns: turns if len(turns) == known + 2 else None)(
                    self.m.ask("history", pool="A")["turns"]))
            self.assertEqual([turn["vm"] for turn in turns[known:]], order)
            for turn in turns:
                self.assertEqual((turn["engine"], turn["gpu"]), ("compute", 0))
        self.assertEqual(turns[-2]["priority"], "high")

    def test_priority_outlasts_other_keys(self):
        """But not a reload: then it is again what the VM asked for."""
        self.make()
        self.attach(1, priority=0)
        self.set(1, "share", 50)
        self.assertEqual(self.m.vms()[1]["priority"], "low")
        self.set(1, "priority", "high")
        self.set(1, "share", 200)
        self.assertEqual(self.m.vms()[1]["priority"], "high")
        self.assertEqual(self.m.ask("reload"), {})
        vm = self.m.vms()[1]
        self.assertEqual((vm["priority"], vm["limits"]), ("low", LIMITS))

    def test_memory(self):
        self.make()
        device = self.attach(1)
        queues = [v.Queue(device, i).open() for i in range(2)]
        self.set(1, "memory", "8M")
        self.assertEqual(self.allocate(queues[0], 6 * MIB), N["VGPU_GPU_SUCCESS"])
        # All sessions share it.
        self.assertEqual(self.allocate(queues[1], 4 * MIB), N["VGPU_GPU_OUT_OF_MEMORY"])
        self.assertEqual(self.allocate(queues[1], 1 * MIB), N["VGPU_GPU_SUCCESS"])
        vm = self.m.vms()[1]
        self.assertEqual((vm["memory_used"], vm["memory_limit"]), (7 * MIB, 8 * MIB))
        # Less than it has: it keeps that, and gets no more.
        self.set(1, "memory", "2M")
        self.assertEqual(self.allocate(queues[0], 4096), N["VGPU_GPU_OUT_OF_MEMORY"])
        self.assertEqual(self.m.vms()[1]["memory_used"], 7 * MIB)
        self.set(1, "memory", "none")
        self.assertEqual(self.allocate(queues[1], 4 * MIB), N["VGPU_GPU_SUCCESS"])
        queues[0].close()
        self.assertEqual(self.m.vms()[1]["memory_used"], 5 * MIB)

    def test_sessions(self):
        self.make()
        device = self.attach(1)
        first, second = v.Queue(device, 0).open(), v.Queue(device, 1)
        self.set(1, "sessions", 1)
        second.begin()
        self.assertEqual(second.end(), "QUOTA")
        self.assertTrue(first.nop())
        first.close()
        self.assertTrue(second.open().nop())
        self.set(1, "sessions", "none")
        self.assertTrue(first.open().nop())

    def test_max_kernel(self):
        self.make()
        device = self.attach(1)
        long, other = v.Queue(device, 0).open(), v.Queue(device, 1).open()
        self.spin(long, 1000)
        v.wait_until("it runs", lambda: self.session(1, long)["state"] == "running")
        self.set(1, "max-kernel", "50ms")
        self.assertEqual(long.end(), "TIMEOUT")
        self.assertTrue(other.nop())

    def test_commands(self):
        """No more than so many pieces of work are under way, and all get done."""
        self.make()
        q = v.Queue(self.attach(1)).open()
        # Register mode's worker and the session share it evenly.
        self.set(1, "commands", 4)
        for _ in range(8):
            self.spin(q, 0.02)
        ticket = q.ask("SYNC")
        most = 0
        while not q.answered(ticket):
            most = max(most, self.m.vms()[1]["in_flight"])
        self.assertEqual(q.answer(ticket)[0], 0)
        self.assertIn(most, (1, 2))

    def test_reload(self):
        """Those who are attached stay, sessions too, and get what the file says now."""
        self.make(config="[pool A]\ndevices = 0\nwindow = 200us\n[vm 1]\nshare = 70\n")
        devices = [self.attach(1), self.attach(2)]
        queues = [v.Queue(device).open() for device in devices]
        before = self.m.vms()
        self.assertEqual([before[i]["share"] for i in (1, 2)], [70, 100])
        self.set(2, "share", 300)
        self.rewrite("window = 200us", "window = 1ms\nslice = 2ms\nleast-share = 2.5%")
        self.rewrite("share = 70", "share = 40\nmemory = 1M\nmax-priority = low")
        self.assertEqual(self.m.ask("reload"), {})
        pool, = self.m.ask("list")["pools"]
        self.assertEqual((pool["window_seconds"], pool["slice_seconds"], pool["least_share"]),
                         (0.001, 0.002, 0.025))
        after = self.m.vms()
        self.assertEqual([after[i]["share"] for i in (1, 2)], [40, 100])
        self.assertEqual([after[i]["priority"] for i in (1, 2)], ["low", "medium"])
        self.assertEqual(self.allocate(queues[0], 2 * MIB), N["VGPU_GPU_OUT_OF_MEMORY"])
        self.assertEqual(self.allocate(queues[1], 2 * MIB), N["VGPU_GPU_SUCCESS"])
        for i, device, q in zip((1, 2), devices, queues):
            self.assertEqual(q.status(), ("RUNNING", "NONE", 1))
            self.assertEqual([s["worker_pid"] for s in after[i]["sessions"]],
                             [s["worker_pid"] for s in before[i]["sessions"]])
            self.assertEqual(after[i]["worker_pid"], before[i]["worker_pid"])
            self.assertEqual(device.call(v.add_inline([20], [22])), (0, b"\x2a\0\0\0"))

    def test_reload_of_what_takes_a_restart(self):
        self.make()
        with open(self.m.config, "a", encoding="ascii") as file:
            file.write("[mediator]\nworker = /nowhere\n[pool B]\ndevices = 1\n")
        # Pool A was there of itself.
        changes = [f"{what}: that takes a restart" for what in
                   ("'worker' has changed", "pool A has gone", "pool B is new")]
        self.assertEqual(self.m.ask("reload"), {"restart": changes})
        self.assertEqual(self.ctl("reload").splitlines(), changes)
        for change in changes:
            self.assertIn("warning: " + change, self.m.read_log())

    def test_reload_with_a_mistake(self):
        self.make(config="[vm 1]\nshare = 70\n")
        device = self.attach(1)
        self.rewrite("share = 70", "share = 80\nshare-of = 3")
        self.refused("has mistakes", "reload")
        self.assertIn(f"{self.m.config}:", self.m.read_log())
        self.assertIn("unknown key 'share-of'", self.m.read_log())
        self.assertEqual(self.m.vms()[1]["share"], 70)
        self.assertRegex(self.ctl("reload", code=1),
                         rf"is not taken over\n  {re.escape(self.m.config)}:\d+: section \[vm 1\]: "
                         r"unknown key 'share-of': there are user, ")
        self.assertEqual(device.call(v.add_inline([20], [22])), (0, b"\x2a\0\0\0"))
        self.rewrite("share-of = 3", "")
        self.ctl("reload")
        self.assertEqual(self.m.vms()[1]["share"], 80)

    def test_sections_by_name(self):
        uuid = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
        self.make(config=f"[vm web01]\nshare = 70\n[vm {uuid}]\nshare = 50\n")
        self.attach(1, hello__name=b"web01")
        self.attach(2, hello__name=b"web01", hello__uuid=bytes.fromhex(uuid.replace("-", "")))
        self.attach(3, hello__name=b"web02", hello__flags=0)
        self.attach(4, hello__name=b"web01", hello__flags=N["VGPU_HELLO_HOST"],
                    hello__uuid=bytes.fromhex(uuid.replace("-", "")))
        self.assertNotIn("uuid", self.m.vm(4))
        shares = lambda: [vm["share"] for _, vm in sorted(self.m.vms().items())]  # noqa: E731
        self.assertEqual(shares(), [70, 50, 100, 100])
        self.rewrite("share = 70", "share = 80")
        self.rewrite("share = 50", "share = 60")
        self.ctl("reload")
        self.assertEqual(shares(), [80, 60, 100, 100])

    def test_hangup(self):
        """SIGHUP does the same."""
        self.make(config="[vm 1]\nshare = 70\n")
        self.attach(1)
        self.rewrite("share = 70", "share = 80")
        self.m.process.send_signal(signal.SIGHUP)
        self.m.vm(1, share=80)


class Vgpuctl(TestCase):
    """The program, as people and scripts use it."""

    def setUp(self):
        self.make(config="[pool A]\ndevices = 0\n[pool C]\ndevices = 1 2\n")
        device = self.attach(7, hello__name=b"seven", pool="A")
        self.q = v.Queue(device, 3).open()
        self.q.memory(3 * MIB)
        self.attach(8, pool="C", priority=0)

    def columns(self, text, first):
        """The table that begins with this heading: its lines by heading."""
        lines = text.splitlines()
        start = next(i for i, line in enumerate(lines) if line.split()[:1] == [first])
        return lines[start].split(), [line.split() for line in lines[start + 1:] if line]

    def test_list(self):
        text = self.ctl("list")
        self.assertIn("computing on the CPU", text)
        self.assertIn("\npool A: GPU 0 with 2 workers\n", text)
        self.assertIn("\npool C: GPU 1 with 1 worker, GPU 2 with 0 workers\n", text)
        head, lines = self.columns(text, "VM")
        self.assertEqual([len(line) for line in lines], [len(head), len(head) - 1])
        seven = dict(zip(head, lines[0]))
        self.assertEqual([seven[key] for key in ("VM", "NAME", "POOL", "PRIORITY", "STATE", "SHARE",
                                                 "GPU", "SESSIONS", "MEMORY", "LIMIT")],
                         ["7", "seven", "A", "medium", "idle", "100", "0", "1", "3.0M", "none"])
        self.assertEqual(json.loads(self.ctl("--json", "list"))["vms"][0]["name"], "seven")
        self.ctl("pause", "A")
        self.assertIn("\npool A is paused\n", self.ctl("list"))
        self.ctl("resume", "A")
        self.assertNotIn("paused", self.ctl("list"))
        self.ctl("pause", "7")
        head, lines = self.columns(self.ctl("list"), "VM")
        self.assertEqual(dict(zip(head, lines[0]))["STATE"], "paused")
        self.assertRegex(self.ctl("top", "--count", "1", "--batch"), r"\b7 .* paused ")
        self.ctl("resume", "7")
        self.assertNotIn("paused", self.ctl("list"))

    def test_show(self):
        text = self.ctl("show", "7")
        self.assertNotIn("{", text)
        self.assertTrue(text.startswith("VM 7\n"))
        for line in (r"name +seven", r"priority +medium", r"memory +3\.0M of as much as there is",
                     r"doorbell-rate +none", r"worker_failures +0", r"compute +\d+\.\d+ s",
                     r"priority +high, has medium as it asked for",
                     r"registers +idle +0 +\d+ +0 +.*", r"queue 3 +idle +0 +\d+ +3\.0M +.*"):
            self.assertRegex(text, rf"(?m)^  {line}$")
        self.assertEqual(json.loads(self.ctl("--json", "show", "7"))["vm"], 7)

    def test_long_names(self):
        """Whole, in a column of its own: they are to be typed."""
        names = ["instance-0000001a", "instance-0000001b", "x" * 63]
        for number, name in enumerate(names, 20):
            self.attach(number, hello__name=name.encode())
        head, lines = self.columns(self.ctl("list"), "VM")
        self.assertEqual([line[1] for line in lines[2:]], names)
        self.assertEqual(len({len(line) for line in self.ctl("list").splitlines()[-5:]}), 1)

    def test_set(self):
        self.assertEqual(self.ctl("set", "7", "memory", "64M"), "")
        self.assertRegex(self.ctl("set", "7"), r"(?m)^  memory +64M$")
        self.assertEqual(json.loads(self.ctl("--json", "set", "7", "share", "33")),
                         {"vm": 7, "key": "share", "value": "33"})
        self.assertIn("'memory' is '1', must be", self.ctl("set", "7", "memory", "1", code=1))
        self.assertIn("unknown key 'beauty': there are priority, share",
                      self.ctl("set", "7", "beauty", "1", code=1))
        self.assertIn("no VM 9 is attached", self.ctl("set", "9", "share", "1", code=1))
        self.assertIn("no VM 9 is attached", self.ctl("set", "9", code=1))

    def test_by_name(self):
        """And by UUID; a name that two have is nobody's."""
        uuid = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
        self.attach(9, hello__name=b"web 01", hello__uuid=bytes.fromhex(uuid.replace("-", "")))
        self.attach(5, hello__name=b"9")
        self.attach(6, hello__name=b"seven", hello__flags=N["VGPU_HELLO_HOST"])
        for name in ("9", "web 01", uuid, uuid.upper()):
            text = self.ctl("show", name)
            self.assertRegex(text, r"^VM 9\n")
            self.assertRegex(text, rf"(?m)^  uuid +{uuid}$")
        self.assertRegex(self.ctl("show", "seven"), r"^VM 7\n")
        self.assertNotIn("uuid", self.m.vm(7))
        self.ctl("pause", "web 01")
        self.assertTrue(self.m.vm(9)["paused"])
        self.ctl("resume", uuid)
        self.assertFalse(self.m.vm(9)["paused"])
        self.ctl("set", "seven", "share", "42")
        self.assertEqual(self.m.vm(7)["share"], 42)
        self.ctl("end", "seven", "3")
        v.wait_until("its end", lambda: self.q.state() == "ENDED")
        self.attach(10, hello__name=b"web 01")
        self.assertIn("VM 9 and VM 10 are both web 01: say the number",
                      self.ctl("detach", "web 01", code=1))
        self.ctl("detach", uuid)
        self.assertEqual(sorted(self.m.vms()), [5, 6, 7, 8, 10])

    def test_who_asked(self):
        """For each that changes something, the log tells."""
        self.attach(9, hello__name=b"web")
        for command, words in (
                (("set", "9", "share", "7"), "VM 9: share is 7 now, as WHO asks"),
                (("pause", "9"), "VM 9: paused by WHO"), (("resume", "9"), "VM 9: resumed by WHO"),
                (("pause", "C"), "pool C: paused by WHO"),
                (("resume", "C"), "pool C: resumed by WHO"),
                (("drain", "2"), "as WHO asks"), (("undrain", "2"), "as WHO asks"),
                (("reload",), "the configuration is read again, as WHO asks"),
                (("end", "7", "3"), "VM 7 queue 3: its session is ended by WHO"),
                (("detach", "9"), "VM 9: is detached by WHO")):
            before = len(self.m.read_log())
            self.ctl(*command)
            self.assertRegex(self.m.read_log()[before:], re.escape(words).replace(
                "WHO", rf"process \d+ of user {os.getuid()}"))

    def complete(self, *words):
        """What bash offers for the last of these."""
        script = (f"vgpuctl() {{ command {v.VGPUCTL} \"$@\"; }}; "
                  f". {v.TOP}/packaging/bash-completion/vgpuctl; "
                  "COMP_WORDS=(vgpuctl \"$@\"); COMP_CWORD=$#; _vgpuctl; echo \"${COMPREPLY[*]}\"")
        return subprocess.run(["bash", "-c", script, "bash", "--socket", self.m.control, *words],
                              text=True, check=True, capture_output=True,
                              timeout=v.PATIENCE).stdout.split()

    def test_completion(self):
        """By place, and by what the mediator of that socket has."""
        for number, name in enumerate((b"two words", b"it's", b"$(echo x)", b"12", b"db", b"db"), 20):
            self.attach(number, hello__name=name)
        self.attach(10, hello__name=b"shell", hello__flags=N["VGPU_HELLO_HOST"])
        vms = ["7", "8", "10", *map(str, range(20, 26)), "seven"]
        for words, offered in (
                (("dr",), ["drain"]), (("re",), ["resume", "reload"]), (("show", ""), vms),
                (("--json", "show", "se"), ["seven"]), (("pause", ""), ["A", "C", *vms]),
                (("history", ""), ["A", "C"]), (("drain", ""), ["0", "1", "2"]),
                (("set", "seven", "sh"), ["share"]), (("set", "seven", "share", ""), []),
                (("set", "seven", "priority", ""), ["low", "medium", "high"]),
                (("end", "7", ""), []), (("list", ""), []), (("list", "--js"), ["--json"]),
                (("top", "--interval", ""), [])):
            self.assertEqual(self.complete(*words), offered, words)

    def test_no_such_vm(self):
        for name, words in (("eight", "no VM eight is attached"), ("0", "'0' names no VM"),
                            ("7x", "'7x' names no VM"), ("4294967296", "names no VM"),
                            ("", "'' names no VM")):
            for command in (("show", name), ("set", name, "share", "1"), ("detach", name),
                            ("end", name, "0")):
                self.assertIn(words, self.ctl(*command, code=1))

    def test_history(self):
        self.spin(self.q, 0.001)
        self.assertEqual(self.q.call("SYNC")[0], 0)
        v.wait_until("a turn", lambda: self.m.ask("history", pool="A")["turns"])
        head, lines = self.columns(self.ctl("history", "A"), "TURN")
        self.assertEqual(dict(zip(head, lines[0]))["ENGINE"], "compute")
        self.assertIn("no pool 'B'; there is A, C", self.ctl("history", "B", code=1))

    def test_wrong_usage(self):
        for arguments, words in (
                ((), "usage:"), (("fry",), "unknown command 'fry'"), (("show",), "show takes a VM;"),
                (("list", "7"), "list takes nothing"), (("show", "-1"), "usage:"),
                (("set", "7", "share"), "a value for 'share' is missing"),
                (("set", "7", "share", "1", "2"), "set takes a VM, or that with"),
                (("--what",), "usage:"),
                (("top", "--interval", "0"), "--interval is '0'"),
                (("top", "--interval", "1s"), "--interval is '1s'"),
                (("top", "--interval", "nan"), "--interval is 'nan'"),
                (("top", "--count", "0"), "--count is '0'"),
                (("top", "--count", "-1"), "--count is '-1'"),
                (("list", "--batch"), "--batch is for top alone"),
                (("--socket", "", "list"), "--socket is ''"),
                (("--socket", "x" * 200, "list"), "--socket is 'xxx")):
            result = subprocess.run([v.VGPUCTL, *arguments], text=True, capture_output=True,
                                    timeout=v.PATIENCE, check=False)
            self.assertEqual((result.returncode, result.stdout), (2, ""), arguments)
            self.assertIn(words, result.stderr)
        self.assertIn("  top ", self.ctl("--help"))

    def test_no_mediator(self):
        self.m.stop()
        for arguments in (("list",), ("top", "--batch"), ("reload",)):
            text = self.ctl(*arguments, code=3)
            self.assertIn(f"cannot reach the mediator at '{self.m.control}'", text)
            self.assertIn("is vgpu-mediator running?", text)

    def test_top_batch(self):
        """One run: tables, of what happens between them; the busy one first."""
        self.spin(self.q, 1000)
        v.wait_until("it runs", lambda: self.session(7, self.q)["state"] == "running")
        text = self.ctl("top", "--batch", "--count", "2", "--interval", "0.3")
        tables = re.split(r"(?m)^in the last \d+\.\d+ s; faults so far$", text)
        self.assertEqual(len(tables), 3)
        for table in tables[1:]:
            head, lines = self.columns(table, "VM")
            self.assertEqual(head, "VM NAME POOL PRIORITY STATE GPU GPU% COPY% MEMORY LIMIT WAITS "
                                   "WAIT-P50 WAIT-P99 FLIGHT FAULTS".split())
            self.assertEqual([line[0] for line in lines], ["7", "queue", "registers", "8"])
            self.assertEqual(dict(zip(head, lines[0]))["STATE"], "running")
        self.m.ask("set", vm=7, key="max-kernel", value="1ms")

    def test_top_json(self):
        """GPU time, waits and memory of the time between two refreshes."""
        process = subprocess.Popen([v.VGPUCTL, "--socket", self.m.control, "--json", "top",
                                    "--interval", "0.5", "--count", "3"], text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        while process.poll() is None:
            self.spin(self.q, 0.05)
            self.assertEqual(self.q.call("SYNC")[0], 0)
        lines = [json.loads(line) for line in process.stdout.read().splitlines()]
        self.assertEqual(len(lines), 3)
        for line in lines[1:]:
            seven, eight = line["vms"]
            self.assertEqual((seven["vm"], eight["vm"]), (7, 8))
            self.assertGreater(seven["gpu_percent"], 5)
            # Work is counted when its end is seen: a piece may belong to the refresh before.
            self.assertLess(seven["gpu_percent"], 100 + 100 * 0.1 / line["seconds"])
            self.assertEqual(eight["gpu_percent"], 0)
            self.assertEqual((seven["memory_used"], eight["workers"]), (3 * MIB, []))
            self.assertEqual([worker["for"] for worker in seven["workers"]],
                             ["queue 3", "registers"])
            self.assertEqual(seven["gpu_percent"], seven["workers"][0]["gpu_percent"])

    def test_top_waits(self):
        """Those since the last refresh alone."""
        def refresh():
            return json.loads(process.stdout.readline())["vms"]
        self.m.ask("pause", pool="A")
        process = subprocess.Popen([v.VGPUCTL, "--socket", self.m.control, "--json", "top",
                                    "--interval", "0.3"], text=True, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        ticket = self.q.ask("FILL", v.cmd_fill(self.q.memory(16), 1, 4))
        v.wait_until("it waits", lambda: self.session(7, self.q)["state"] == "waiting")
        time.sleep(0.02)
        refresh()
        self.m.ask("resume", pool="A")
        self.assertEqual(self.q.answer(ticket)[0], 0)
        waited = v.wait_until("the wait", lambda: next(
            (vm for vm in refresh() if vm["vm"] == 7 and vm["waits"]), None))
        self.assertGreaterEqual(waited["wait_p50_seconds"], 0.02)
        v.wait_until("none since", lambda: not any(vm["waits"] for vm in refresh()))

    def test_top_screen(self):
        """On a terminal: draws, sorts by a key, and q ends it."""
        child, terminal = pty.fork()
        if child == 0:
            os.environ["TERM"] = "xterm"
            os.execv(v.VGPUCTL, [v.VGPUCTL, "--socket", self.m.control, "top",
                                 "--interval", "0.2"])
        self.addCleanup(os.close, terminal)
        screen = b""

        def draws(words):
            """Whether it does so, before its end."""
            nonlocal screen
            limit = time.monotonic() + v.PATIENCE
            while not re.search(words, screen):
                if time.monotonic() > limit or \
                        not select.select([terminal], [], [], v.PATIENCE)[0]:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    self.fail(f"no {words} in {screen[-2000:]}")
                try:
                    screen += os.read(terminal, 65536)
                except OSError:
                    return False  # a terminal's end of file
            return True
        for words in (rb"PRIORITY", rb"seven", rb"in the last"):
            self.assertTrue(draws(words), screen)
        # Another order: lines change places.
        screen = b""
        os.write(terminal, b"V")
        self.assertTrue(draws(rb"seven|low"), screen)
        os.write(terminal, b"q")
        self.assertFalse(draws(rb"what it does not say"))
        _, status = os.waitpid(child, 0)
        self.assertEqual(os.waitstatus_to_exitcode(status), 0)


NAME = r"[a-z][a-z0-9_]*"
LABEL = r'[a-z][a-z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? ([0-9.e+-]+)")


def parse_page(page):
    """Checks every line as Prometheus reads it; {name: {labels as a tuple: value}}."""
    samples, types, current, done = {}, {}, None, set()
    if not page.endswith("\n"):
        raise AssertionError("no newline at the end")
    lines = iter(page.split("\n")[:-1])
    for line in lines:
        if line.startswith("# HELP "):
            _, _, name, text = line.split(" ", 3)
            kind = re.fullmatch(rf"# TYPE {name} (counter|gauge|histogram)", next(lines))
            if not re.fullmatch(NAME, name) or not text or not kind or name in types:
                raise AssertionError(line)
            if (kind[1] == "counter") != name.endswith("_total"):
                raise AssertionError(f"{name} is a {kind[1]}")
            done.add(current)
            current, types[name] = name, kind[1]
            continue
        match = SAMPLE.fullmatch(line)
        if not match:
            raise AssertionError(f"no sample: {line!r}")
        name = match[1]
        base = re.sub(r"_(bucket|sum|count)$", "", name) if types.get(current) == "histogram" \
            else name
        labels = tuple(re.findall(LABEL, match[2] or ""))
        if base != current or current in done or labels in samples.setdefault(name, {}):
            raise AssertionError(f"out of place: {line!r}")
        samples[name][labels] = float(match[3])
    check_histogram(samples)
    return samples


def check_histogram(samples):
    """The only one that there is."""
    name = "vgpu_queue_wait_seconds"
    series = {}
    for labels, value in samples.get(name + "_bucket", {}).items():
        series.setdefault(labels[:-1], []).append((labels[-1], value))
    for labels, buckets in series.items():
        bounds = [float(label[len('le="'):-1]) for label, _ in buckets]
        values = [value for _, value in buckets]
        if bounds != sorted(set(bounds)) or bounds[-1] != float("inf") or values != sorted(values):
            raise AssertionError(f"buckets of {labels}")
        if values[-1] != samples[name + "_count"][labels] or labels not in samples[name + "_sum"]:
            raise AssertionError(f"sums of {labels}")
    if set(series) != set(samples.get(name + "_count", {})):
        raise AssertionError("buckets are missing")


class Metrics(TestCase):
    """What Prometheus gets, over TCP and over a socket, and who disturbs that."""

    def serve(self, address=None, config=""):
        self.port = free_port()
        self.address = address or ("127.0.0.1", self.port)
        text = self.address if isinstance(self.address, str) else f"127.0.0.1:{self.port}"
        self.make(mediator=f"metrics = {text}", config=config)

    def connect(self, wait=True):
        connection = socket.socket(socket.AF_UNIX if isinstance(self.address, str) else
                                   socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET)
        connection.settimeout(v.PATIENCE if wait else 0)
        self.addCleanup(connection.close)
        try:
            connection.connect(self.address)
        except BlockingIOError:
            pass
        return connection

    def try_to_send(self, connection, data):
        try:
            connection.send(data)
        except OSError:
            pass  # it is not connected yet, or not any more

    def http(self, request):
        """(status, headers in small letters, body)"""
        connection = self.connect()
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        connection.close()
        head, body = answer.split(b"\r\n\r\n", 1)
        lines = head.decode("ascii").lower().split("\r\n")
        return int(lines[0].split()[1]), lines[1:], body.decode("ascii")

    def page(self):
        status, headers, body = self.http(b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
                                          b"Connection: close\r\n\r\n")
        self.assertEqual(status, 200)
        self.assertIn("content-type: text/plain; version=0.0.4; charset=utf-8", headers)
        return parse_page(body)

    def value(self, name, **labels):
        """The sum of those that have these labels."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        values = [value for have, value in self.page().get(name, {}).items()
                  if wanted <= set(have)]
        return sum(values) if values else None

    def fresh(self, what, name, condition, **labels):
        """Waits until a page says so: one is handed out for a while."""
        return v.wait_until(what, lambda: condition(self.value(name, **labels)))

    def test_off(self):
        self.make()
        self.assertNotIn("metrics at", self.m.read_log())
        self.assertEqual(self.m.ask("list")["vms"], [])

    def test_empty(self):
        self.serve(config="[pool B]\ndevices = 4 6\n")
        page = self.page()
        self.assertEqual(page["vgpu_vms"], {(): 0})
        self.assertEqual(page["vgpu_preempts"], {(): 1})
        self.assertEqual(page["vgpu_vms_max"], {(): 256})
        self.assertEqual(page["vgpu_generation"], {(): 1})
        self.assertEqual(page["vgpu_pool_drained"], {('pool="B"', 'gpu="4"'): 0,
                                                     ('pool="B"', 'gpu="6"'): 0})
        self.assertEqual(list(page["vgpu_build_info"].values()), [1])
        self.assertEqual(page["vgpu_pool_workers"], {('pool="B"', 'gpu="4"'): 0,
                                                     ('pool="B"', 'gpu="6"'): 0})

    def test_refusals_reloads_and_drains(self):
        self.serve(config="[vm 1]\nshare = 70\n")
        for name in ("refusals_total", "reloads_total", "reload_failures_total"):
            self.assertEqual(self.value("vgpu_" + name), 0)
        self.assertEqual(self.value("vgpu_config_good"), 1)
        for _ in range(3):
            with v.Client(self.m) as client:
                client.send(v.hello(vm_id=0))
                client.receive()
        self.ctl("drain", "0")
        self.ctl("reload")
        self.rewrite("share = 70", "share = much")
        self.ctl("reload", code=1)
        self.fresh("a new page", "vgpu_refusals_total", lambda value: value == 3)
        self.fresh("a new page", "vgpu_config_good", lambda value: value == 0)
        self.assertEqual(self.value("vgpu_reloads_total"), 2)
        self.assertEqual(self.value("vgpu_reload_failures_total"), 1)
        self.assertEqual(self.value("vgpu_pool_drained", pool="A", gpu=0), 1)
        self.rewrite("share = much", "share = 7")
        self.ctl("reload")
        self.fresh("a new page", "vgpu_config_good", lambda value: value == 1)

    def test_values(self):
        """As the control socket has them, and never less than before."""
        self.serve()
        device = self.attach(7, priority=2)
        q = v.Queue(device).open()
        q.memory(3 * MIB)
        self.spin(q, 0.05)
        self.assertEqual(q.call("SYNC")[0], 0)
        self.assertNotEqual(q.call("MEM_FREE", struct.pack("<QQ", 1, 0))[0], 0)
        self.set(7, "memory", "1G")
        vm = self.m.vms()[7]
        common = {"vm": 7, "pool": "A", "priority": "high"}
        self.fresh("a new page", "vgpu_memory_limit_bytes", lambda value: value == 1 << 30, **common)
        for name, key in (("vgpu_memory_bytes", "memory_used"), ("vgpu_commands_total", "requests"),
                          ("vgpu_command_errors_total", "errors"), ("vgpu_faults_total", "faults"),
                          ("vgpu_doorbells_total", "doorbells"), ("vgpu_turns_total", "turns"),
                          ("vgpu_interrupts_total", "interrupts"), ("vgpu_share", "share"),
                          ("vgpu_worker_failures_total", "worker_failures"),
                          ("vgpu_commands_in_flight", "in_flight")):
            self.assertEqual(self.value(name, **common), vm[key], name)
        self.assertEqual(self.value("vgpu_worker_starts_total", **common), 2)
        self.assertEqual(self.value("vgpu_sessions", **common), 1)
        self.assertEqual(self.value("vgpu_pool_workers", pool="A", gpu=0), 2)
        self.assertEqual(self.value("vgpu_queue_wait_seconds_count", **common),
                         vm["queue_wait"]["count"])
        busy = self.value("vgpu_gpu_time_seconds_total", gpu=0, engine="compute", **common)
        self.assertGreaterEqual(busy, 0.04)
        self.assertAlmostEqual(busy, vm["gpu_seconds"]["compute"], places=6)
        before = self.page()
        q.close()
        os.kill(vm["worker_pid"], signal.SIGKILL)
        self.fresh("it failed", "vgpu_worker_failures_total", lambda value: value == 1)
        for name, samples in self.page().items():
            if name.endswith("_total"):
                for labels, value in samples.items():
                    self.assertGreaterEqual(value, before[name][labels], (name, labels))
        self.assertEqual(self.value("vgpu_memory_bytes"), 0)

    def test_gpu_time_stays_where_it_was_spent(self):
        """Sessions of one queue on one GPU, then on another: neither's time falls."""
        self.serve(config="[pool A]\ndevices = 0 1\n")
        device = self.attach(7)
        q, other = v.Queue(device, 0), v.Queue(device, 1)
        times = {0: 0.0, 1: 0.0}
        seen = set()
        for first in (None, other):
            # The worker goes where the fewest are.
            if first:
                first.open()
            q.open()
            seen.add(self.session(7, q)["gpu"])
            self.spin(q, 0.05)
            self.assertEqual(q.call("SYNC")[0], 0)
            total = self.m.vms()[7]["gpu_seconds"]["compute"]
            q.close()
            self.fresh("a new page", "vgpu_gpu_time_seconds_total",
                       lambda value: value and abs(value - total) < 1e-6, engine="compute")
            for gpu, time_there in times.items():
                now = self.value("vgpu_gpu_time_seconds_total", gpu=gpu, engine="compute") or 0.0
                self.assertGreaterEqual(now, time_there)
                times[gpu] = now
        self.assertEqual(seen, {0, 1})
        self.assertGreaterEqual(min(times.values()), 0.04)

    def test_hostile_name(self):
        self.serve()
        for i, (name, label) in enumerate((
                (b'a"} 1\nvgpu_vms 9\n', r'a\"} 1?vgpu_vms 9?'), (b"\\", r"\\"),
                (b'\\"', r'\\\"'), (b"\xff\x80\x1b[2J", "???[2J"), (b"{}=,# HELP", "{}=,# HELP"),
                (b"%s%n", "%s%n"), (b'"' * 63, r'\"' * 63)), 1):
            self.attach(i, hello__name=name)
            self.fresh("a new page", "vgpu_vms", lambda value, i=i: value == i)
            info = [labels for labels in self.page()["vgpu_vm_info"] if f'vm="{i}"' in labels]
            self.assertEqual(info, [(f'vm="{i}"', f'name="{label}"', 'kind="vm"')])

    def test_other_requests(self):
        self.serve()
        for request, status in ((b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404),
                                (b"GET /metrics/ HTTP/1.1\r\nHost: x\r\n\r\n", 404),
                                (b"GET /../metrics HTTP/1.1\r\nHost: x\r\n\r\n", 404),
                                (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", 404),
                                (b"POST /metrics HTTP/1.1\r\nHost: x\r\n"
                                 b"Content-Length: 1000000000\r\n\r\n", 405),
                                (b"DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 405),
                                (b"GET /metrics?a=b HTTP/1.1\r\nHost: x\r\n\r\n", 200)):
            with self.subTest(request):
                status_now, headers, _ = self.http(
                    request.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n"))
                self.assertEqual(status_now, status)
                self.assertEqual("allow: get, head" in headers, status == 405)
        for garbage in (b"\0" * 100, b"GET\r\n\r\n", b"\r\n" * 50, b"x" * 100000):
            connection = self.connect()
            try:
                connection.sendall(garbage)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
            except OSError:
                pass  # it has hung up: as well
        self.assertEqual(self.value("vgpu_vms"), 0)

    def test_socket(self):
        with v.tempfile.TemporaryDirectory(prefix="vgpu-test-") as folder:
            path = os.path.join(folder, "metrics")
            self.serve(path)
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o660)
            self.assertEqual(self.value("vgpu_vms"), 0)
            # What a mediator that was killed left behind is replaced.
            self.m.stop(signal.SIGKILL)
            self.m.start()
            self.assertEqual(self.value("vgpu_vms"), 0)
            self.m.stop()
            self.assertFalse(os.path.exists(path))

    def test_ipv6(self):
        try:
            port = free_port(socket.AF_INET6)
        except OSError:
            self.skipTest("no IPv6 on this machine")
        self.make(mediator=f"metrics = [::1]:{port}")
        self.address = ("::1", port)
        self.assertEqual(self.value("vgpu_vms"), 0)

    def test_port_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.make(mediator=f"metrics = 127.0.0.1:{port}")
            self.assertIn(f"cannot serve metrics at '127.0.0.1:{port}': Address already in use",
                          self.m.read_log())
            self.assertIn("warning: going on without metrics", self.m.read_log())
            self.attach(1)

    def test_reload_keeps_the_place(self):
        self.serve()
        self.rewrite(f"127.0.0.1:{self.port}", "off")
        self.assertEqual(len(self.m.ask("reload")["restart"]), 1)
        self.assertIn("'metrics' has changed: that takes a restart", self.m.read_log())
        self.assertEqual(self.value("vgpu_vms"), 0)

    def test_slow_scrapers(self):
        """Half a request, for ever, on more connections than are served: nobody else notices."""
        self.serve()
        self.page()
        slow = [self.connect(wait=False) for _ in range(64)]
        for i, connection in enumerate(slow):
            self.try_to_send(connection, b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: "[:10 + i % 30])
        idle = ticks(self.m.pid)
        start = time.monotonic()
        for i in range(20):
            with v.Device(v.Client(self.m), vm_id=i + 1) as device:
                self.assertEqual(device.call(v.add_inline([20], [22])), (0, b"\x2a\0\0\0"))
            for connection in slow[i::20]:
                self.try_to_send(connection, b"x")
        # Whatever the clock says: it has waited, not turned round and round.
        seconds = time.monotonic() - start
        self.assertLess(ticks(self.m.pid) - idle, 50 + 50 * seconds)
        for connection in slow:
            connection.close()
        self.assertIsNotNone(self.value("vgpu_vms"))

    def test_scrapers_that_do_not_read(self):
        self.serve()
        for i in range(1, 9):
            self.attach(i)
        for _ in range(64):
            connection = self.connect(wait=False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            self.try_to_send(connection, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        device = self.attach(100)
        self.assertEqual(device.call(v.add_inline([20], [22])), (0, b"\x2a\0\0\0"))
        self.assertEqual(len(self.m.vms()), 9)

    def test_eager_scraper(self):
        """As fast as it goes: pages are right, work goes on, and nothing is kept."""
        self.serve()
        device = self.attach(1)
        self.page()
        idle = v.idle_descriptors(self.m.pid)
        for _ in range(100):
            self.assertEqual(list(self.page()["vgpu_vms"].values()), [1])
        self.assertEqual(device.call(v.add_inline([20], [22])), (0, b"\x2a\0\0\0"))
        v.wait_until("no descriptor is left", lambda: v.descriptors(self.m.pid) <= idle)

    def test_idle(self):
        """Unasked, metrics wake nobody."""
        self.serve()
        self.page()
        before, busy = wakes(self.m.pid), ticks(self.m.pid)
        time.sleep(5)
        self.assertLess(wakes(self.m.pid) - before, 50)
        self.assertLessEqual(ticks(self.m.pid) - busy, 1)


if __name__ == "__main__":
    v.main()
