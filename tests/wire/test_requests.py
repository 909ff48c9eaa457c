#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Requests through a real mediator and worker: every opcode with every length, operands out
of range, turns, and what happens when a worker or the mediator ends at a bad moment.

Tests: worker/register-worker*.c, worker/registers*.c, worker/request.c, worker/isolation.c,
worker/main.c, mediator/process*.c, mediator/vm*.c, mediator/main*.c, mediator/mediator.c,
mediator/ctl/, guest/cli/, guest/libvgpu/host*.c, guest/libvgpu/request*.c"""
import os
import signal
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402
from vgputest import N  # noqa: E402

MIB = 1 << 20


def error(name):
    return N["VGPU_ERROR_" + name]


class Requests(v.TestCase):
    def setUp(self):
        self.m = self.mediator()
        self.d = v.Device(v.Client(self.m), shm=MIB)
        self.addCleanup(self.d.close)

    def expect(self, name, request, length=None):
        self.assertEqual(self.d.call(request, length), (error(name), b""))

    def test_guest_every_length_of_every_opcode(self):
        valid = {N["VGPU_OP_DEVICE_INFO"]: [16], N["VGPU_OP_ADD_SHM"]: [40],
                 N["VGPU_OP_ADD_INLINE"]: [24], N["VGPU_OP_ECHO"]: range(16, 257)}
        bodies = {N["VGPU_OP_DEVICE_INFO"]: v.request(N["VGPU_OP_DEVICE_INFO"]),
                  N["VGPU_OP_ECHO"]: v.request(N["VGPU_OP_ECHO"]),
                  N["VGPU_OP_ADD_INLINE"]: v.add_inline([1], [2]),
                  N["VGPU_OP_ADD_SHM"]: v.add_shm(1, 0, 4, 8)}
        for opcode, body in bodies.items():
            for length in [*range(0, 300), 4096, 1 << 31, (1 << 32) - 1]:
                code, _ = self.d.call(body.ljust(256, b"\0"), length)
                expected = error("NONE") if length in valid[opcode] else error("BAD_LENGTH")
                self.assertEqual(code, expected, f"opcode {opcode} length {length}")

    def test_guest_unknown_opcode(self):
        for opcode in (0, 5, 99, (1 << 32) - 1):
            self.expect("BAD_OPCODE", v.request(opcode))

    def test_guest_operands_out_of_range(self):
        edge = (0, 4, MIB - 4, MIB, MIB + 4, 1 << 32, 1 << 63, (1 << 64) - 4)
        for offset in edge:
            expected = error("NONE") if offset + 4 <= MIB else error("BAD_RANGE")
            for request in (v.add_shm(1, offset, 0, 4096), v.add_shm(1, 0, offset, 4096)):
                self.assertEqual(self.d.call(request)[0], expected)
        for count in (0, 1 << 40, 1 << 62, (1 << 64) - 1):
            self.expect("BAD_COUNT", v.add_shm(count, 0, 0, 0))
        self.expect("BAD_RANGE", v.add_shm(MIB // 4 + 1, 0, 0, 0))
        self.expect("BAD_ALIGNMENT", v.add_shm(1, 1, 0, 0))
        self.expect("BAD_OVERLAP", v.add_shm(2, 0, 64, 4))
        self.expect("BAD_TYPE", v.add_shm(1, 0, 4, 8, kind=3))
        self.expect("BAD_RESERVED", v.request(N["VGPU_OP_ECHO"], 0, 1))

    def test_sums(self):
        count = N["VGPU_INLINE_MAX"]
        a, b = list(range(count)), [2 * i for i in range(count)]
        code, back = self.d.call(v.add_inline(a, b))
        self.assertEqual(code, 0)
        self.assertEqual(struct.unpack(f"<{count}i", back), tuple(3 * i for i in range(count)))
        self.d.map[0:12] = struct.pack("<3f", 1.5, 2.25, -1e30)
        self.d.map[64:76] = struct.pack("<3f", 2.0, 0.5, 1e30)
        code, _ = self.d.call(v.add_shm(3, 0, 64, 128, kind=N["VGPU_TYPE_FLOAT32"]))
        self.assertEqual(code, 0)
        self.assertEqual(struct.unpack("<3f", self.d.map[128:140]), (3.5, 2.75, 0.0))

    def test_echo_and_device_info(self):
        self.assertEqual(self.d.call(v.request(N["VGPU_OP_ECHO"], operands=b"ping")), (0, b"ping"))
        code, info = self.d.call(v.request(N["VGPU_OP_DEVICE_INFO"]))
        self.assertEqual(code, 0)
        self.assertIn(b"CPU", info[v.FIELDS["vgpu_device_info.name"][0]:])

    def test_guest_rings_twice(self):
        """Doorbells rung while busy are one more run, after it."""
        for _ in range(100):
            self.d.ring(v.add_inline([1], [2]))
        self.assertEqual(self.d.finish(), (0, b"\3\0\0\0"))

    def test_guest_changes_the_request_while_it_waits(self):
        self.m.ask("pause", pool="A")
        self.d.ring(v.add_inline([1], [2]))
        self.m.vm(1, state="waiting")
        start = self.d.shm_size + v.FIELDS["vgpu_regs_page.request"][0]
        self.d.map[start:start + 256] = b"\xff" * 256
        self.m.ask("resume", pool="A")
        self.assertEqual(self.d.finish(), (0, b"\3\0\0\0"))

    def test_first_result_within_a_second(self):
        """From connecting to the first answer."""
        start = time.monotonic()
        with v.Device(v.Client(self.m), vm_id=2) as device:
            device.call(v.add_inline([1], [2]))
        # The floor is 1 s; a busy test machine gets ten times that.
        self.assertLess(time.monotonic() - start, 10)


class Turns(v.TestCase):
    def test_priority_order(self):
        m = self.mediator()
        arrivals = [(1, 0), (2, 1), (3, 0), (4, 2), (5, 1), (6, 2)]
        devices = [v.Device(v.Client(m), vm_id=vm, priority=priority)
                   for vm, priority in arrivals]
        m.ask("pause", pool="A")
        for device, (vm, _) in zip(devices, arrivals):
            device.ring(v.add_inline([vm], [0]))
            m.vm(vm, state="waiting")
        m.ask("resume", pool="A")
        for device, (vm, _) in zip(devices, arrivals):
            self.assertEqual(device.finish(), (0, vm.to_bytes(4, "little")))
        v.wait_until("six turns are over",
                     lambda: len(m.ask("history", pool="A")["turns"]) == 6)
        turns = m.ask("history", pool="A")["turns"]
        self.assertEqual([turn["vm"] for turn in turns], [4, 6, 2, 5, 1, 3])
        for device in devices:
            device.close()

    def test_pools_do_not_wait_for_each_other(self):
        m = self.mediator("[pool A]\ndevices = 0\n[pool B]\ndevices = 1\n")
        with v.Device(v.Client(m), vm_id=1, pool="A") as a, \
                v.Device(v.Client(m), vm_id=2, pool="B") as b:
            m.ask("pause", pool="A")
            a.ring(v.add_inline([1], [2]))
            self.assertEqual(b.call(v.add_inline([3], [4])), (0, b"\7\0\0\0"))
            self.assertEqual(a.status(), N["VGPU_STATUS_BUSY"])
            m.ask("resume", pool="A")
            self.assertEqual(a.finish(), (0, b"\3\0\0\0"))

    def test_two_that_never_rest(self):
        """The turn changes hands thousands of times, and every answer is right."""
        m = self.mediator()
        with v.Device(v.Client(m), vm_id=1) as a, v.Device(v.Client(m), vm_id=2) as b:
            for i in range(1000):
                a.ring(v.add_inline([i], [1]))
                b.ring(v.add_inline([i], [2]))
                self.assertEqual(a.finish(), (0, (i + 1).to_bytes(4, "little")))
                self.assertEqual(b.finish(), (0, (i + 2).to_bytes(4, "little")))

    def test_worker_that_stops_is_ended(self):
        """A holder that never finishes, while somebody else is served, is ended at the limit."""
        m = self.mediator(mediator="turn-limit = 1")
        size = 256 * MIB
        with v.Device(v.Client(m), vm_id=1) as a, v.Device(v.Client(m), vm_id=2, shm=size) as b:
            m.ask("pause", pool="A")
            a.ring(v.add_inline([1], [2]))
            worker = m.vm(1, state="waiting")["worker_pid"]
            os.kill(worker, signal.SIGSTOP)
            m.ask("resume", pool="A")
            b.ring(v.add_inline([3], [4]))
            self.assertEqual(b.finish(), (0, b"\7\0\0\0"))
            start = time.monotonic()
            while a.status() == N["VGPU_STATUS_BUSY"] and time.monotonic() - start < v.PATIENCE:
                # So long that it is under way at most times.
                sums = v.add_shm(size // 16, size // 4, size // 2, 3 * (size // 4))
                self.assertEqual(b.call(sums)[0], 0)
            self.assertEqual(a.finish(), (error("TIMEOUT"), b""))
            self.assertEqual(a.call(v.add_inline([5], [6])), (0, b"\x0b\0\0\0"))


class Ends(v.TestCase):
    """What ends, and what those who go on see of it."""

    def setUp(self):
        self.m = self.mediator()

    def attach(self, **fields):
        device = v.Device(v.Client(self.m), **fields)
        self.addCleanup(device.close)
        self.m.vm(fields.get("vm_id", 1), state="idle")
        return device

    def kill_worker(self, vm_id=1):
        pid = self.m.vm(vm_id)["worker_pid"]
        os.kill(pid, signal.SIGKILL)
        v.wait_until("another worker", lambda: self.m.vm(vm_id)["worker_pid"] not in (0, pid))

    def test_idle_worker_killed(self):
        device = self.attach()
        generation = device.word("generation")
        self.kill_worker()
        self.assertEqual(device.call(v.add_inline([1], [2])), (0, b"\3\0\0\0"))
        self.assertEqual(device.word("generation"), generation + 1)

    def test_worker_killed_while_its_request_waits(self):
        device = self.attach()
        self.m.ask("pause", pool="A")
        device.ring(v.add_inline([1], [2]))
        self.m.vm(1, state="waiting")
        self.kill_worker()
        self.m.ask("resume", pool="A")
        self.assertEqual(device.finish(), (0, b"\3\0\0\0"))

    def run_and_kill(self, total):
        """A sum so long that it can be stopped while it runs, then killed; ERROR of its answer."""
        size = 1 << 28
        device = self.attach(vm_id=9, shm=size)
        started = (N["VGPU_JOURNAL_STARTED"], N["VGPU_JOURNAL_ONCE"])
        for _ in range(200):
            self.m.ask("pause", pool="A")
            device.ring(v.add_shm(size // 12, 0, size // 3 // 4 * 4, total(size)))
            worker = self.m.vm(9, state="waiting")["worker_pid"]
            self.m.ask("resume", pool="A")
            while device.word("journal.state") not in started and device.word("status") == 1:
                pass
            os.kill(worker, signal.SIGSTOP)
            v.wait_until("it has stopped", lambda: self.stopped(worker))
            if device.word("status") == 1 and device.word("journal.state") in started:
                os.kill(worker, signal.SIGKILL)
                return device.finish()[0]
            os.kill(worker, signal.SIGCONT)
            device.finish()
        raise AssertionError("the sum was too quick 200 times")

    @staticmethod
    def stopped(pid):
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "T"

    def test_worker_killed_while_it_runs(self):
        """Run again: the sum goes elsewhere, so that is safe."""
        self.assertEqual(self.run_and_kill(lambda size: size * 2 // 3 // 4 * 4), 0)

    def test_worker_killed_while_it_sums_in_place(self):
        """Not run again: half of the operand may be summed."""
        self.assertEqual(self.run_and_kill(lambda size: 0), error("WORKER_LOST"))

    def test_request_that_ends_every_worker(self):
        """After two of them it is answered with an error, and the next request is served."""
        device = self.attach()
        self.m.ask("pause", pool="A")
        device.ring(v.add_inline([1], [2]))
        for _ in range(2):
            self.m.vm(1, state="waiting")
            self.kill_worker()
        self.assertEqual(device.finish(), (error("WORKER_LOST"), b""))
        self.m.ask("resume", pool="A")
        self.assertEqual(device.call(v.add_inline([3], [4])), (0, b"\7\0\0\0"))

    def test_resets_in_a_row(self):
        """Each is done when its answer comes: a doorbell rung after that is not swallowed."""
        device = self.attach()
        for i in range(22):  # some beyond those at once, each of which waits longer
            device.client.send(v.message("RESET", serial=i))
            self.assertEqual(v.get(device.client.receive(), "vgpu_msg.serial"), i)
            self.assertEqual(device.status(), N["VGPU_STATUS_IDLE"])
            self.assertEqual(device.call(v.add_inline([i], [1])), (0, (i + 1).to_bytes(4, "little")))

    def test_others_notice_nothing(self):
        device, other = self.attach(vm_id=1), self.attach(vm_id=2)
        for i in range(7):  # each is followed by a longer pause
            self.kill_worker(1)
            self.assertEqual(other.call(v.add_inline([i], [1])), (0, (i + 1).to_bytes(4, "little")))
        self.assertEqual(device.call(v.add_inline([1], [2])), (0, b"\3\0\0\0"))

    def hand_over(self, device, vm_id=1):
        """What the stub does when a mediator is back."""
        client = v.Client(self.m)
        client.send(v.hello(vm_id=vm_id, shm=device.shm_size,
                            hello__flags=N["VGPU_HELLO_HANDOVER"]), device.fds)
        answer = client.receive()
        self.assertEqual(v.get(answer, "vgpu_msg.type"), N["VGPU_MSG_ATTACHED"])
        self.assertEqual(client.fds, [])
        device.client.close()
        device.client = client

    def test_mediator_killed_while_a_request_waits(self):
        device = self.attach()
        self.m.ask("pause", pool="A")
        device.ring(v.add_inline([1], [2]))
        self.m.vm(1, state="waiting")
        self.m.stop(signal.SIGKILL)
        self.assertEqual(device.client.receive(), b"")
        self.m.start()
        self.hand_over(device)
        self.assertEqual(device.finish(), (0, b"\3\0\0\0"))

    def test_workers_end_with_the_mediator(self):
        self.attach()
        worker = self.m.vm(1)["worker_pid"]
        self.m.stop(signal.SIGKILL)
        v.wait_until("the worker has ended", lambda: not os.path.exists(f"/proc/{worker}"))

    def test_sigterm_finishes_what_runs(self):
        size = 1 << 28
        device = self.attach(shm=size)
        device.ring(v.add_shm(size // 12, 0, size // 12 * 4, size // 12 * 8))
        self.m.vm(1)
        self.assertEqual(self.m.stop(signal.SIGTERM), 0)
        status, state = device.status(), device.word("journal.state")
        if status == N["VGPU_STATUS_BUSY"]:
            # It had not been started; then it is left for the next mediator.
            self.assertIn(state, (N["VGPU_JOURNAL_EMPTY"], N["VGPU_JOURNAL_ACCEPTED"]))
        else:
            self.assertEqual(status, N["VGPU_STATUS_COMPLETE"])

    def test_reset_drops_what_waits(self):
        device = self.attach()
        self.m.ask("pause", pool="A")
        device.ring(v.add_inline([1], [2]))
        self.m.vm(1, state="waiting")
        device.client.send(v.message("RESET", serial=42))
        answer = device.client.receive()
        self.assertEqual(v.get(answer, "vgpu_msg.type"), N["VGPU_MSG_RESET_DONE"])
        self.assertEqual(v.get(answer, "vgpu_msg.serial"), 42)
        self.assertEqual(device.status(), N["VGPU_STATUS_IDLE"])
        self.m.ask("resume", pool="A")
        self.assertEqual(device.call(v.add_inline([5], [6])), (0, b"\x0b\0\0\0"))

    def test_client_gone_ends_its_worker_within_a_second(self):
        device = v.Device(v.Client(self.m), vm_id=3)
        worker = self.m.vm(3)["worker_pid"]
        device.close()
        v.wait_until("the worker has ended", lambda: not os.path.exists(f"/proc/{worker}"))


class Sandbox(v.TestCase):
    def status(self, pid):
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            return dict(line.rstrip("\n").split(":\t", 1) for line in file)

    def test_what_a_worker_has_given_up(self):
        m = self.mediator()
        with v.Device(v.Client(m)):
            pid = m.vm(1, state="idle")["worker_pid"]
            status = self.status(pid)
            self.assertEqual(status["NoNewPrivs"], "1")
            self.assertEqual(status["Seccomp"], "2")
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                self.assertEqual(int(status[name], 16), 0, name)
            if os.geteuid() == 0:
                self.assertEqual(status["Uid"].split(), ["65534"] * 4)
                self.assertEqual(status["Groups"].strip(), "")
                self.assertEqual(os.listdir(f"/proc/{pid}/root"), [])
                self.assertNotEqual(os.readlink(f"/proc/{pid}/ns/net"),
                                    os.readlink("/proc/self/ns/net"))

    def test_stray_descriptors_are_closed(self):
        m = self.mediator()
        with v.Device(v.Client(m)):
            pid = m.vm(1, state="idle")["worker_pid"]
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            self.assertFalse([link for link in links if "pidfd" in link or "signalfd" in link])
            self.assertLessEqual(len(links), 12, links)


class Idle(v.TestCase):
    def test_an_idle_guest_costs_nothing(self):
        m = self.mediator()
        with v.Device(v.Client(m)) as device:
            for i in range(2000):
                device.call(v.add_inline([i], [1]))
            pid = m.vm(1)["worker_pid"]
            time.sleep(0.5)

            def ticks():
                with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
                return int(fields[11]) + int(fields[12])
            before = ticks()
            time.sleep(3)
            self.assertEqual(ticks(), before)


class Commands(v.TestCase):
    """The programs as people call them."""

    def setUp(self):
        self.m = self.mediator()

    def run_program(self, *arguments):
        return subprocess.run(arguments, capture_output=True, timeout=v.PATIENCE, check=False,
                              text=True)

    def vgpu(self, *arguments):
        return self.run_program(v.CLI, "--socket", self.m.socket, "--shm", "16", *arguments)

    def ctl(self, *arguments):
        return self.run_program(v.VGPUCTL, "--socket", self.m.control, *arguments)

    def test_add(self):
        for arguments, expected in ((["2", "3"], "5"), (["-2", "-3"], "-5"),
                                    (["2.5", "3"], "5.5"), (["--type", "float32", "1", "2"], "3"),
                                    (["2147483647", "1"], "-2147483648")):
            result = self.vgpu("add", *arguments)
            self.assertEqual((result.returncode, result.stdout), (0, expected + "\n"), arguments)
        for arguments in (["2"], ["a", "3"], ["2147483648", "1"], ["--type", "int8", "1", "2"],
                          ["--n", "0", "--check"], ["--n", "5"], ["--frobnicate"]):
            result = self.vgpu("add", *arguments)
            self.assertEqual(result.returncode, 2, arguments)
            self.assertTrue(result.stderr)

    def test_add_checked_in_pieces(self):
        """More than fits the shared memory of 16 MiB at once."""
        for kind in ("int32", "float32"):
            result = self.vgpu("add", "--n", "3000000", "--check", "--type", kind)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("3000000 " + kind + " sums, all correct", result.stdout)

    def write(self, name, text):
        path = os.path.join(self.m.dir.name, name)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        return path

    def test_add_files(self):
        a, b = self.write("a", "1,2,3\n4;5 6\n"), self.write("b", "10 20 30 40 50 60")
        result = self.vgpu("add", "--file", a, b)
        self.assertEqual((result.returncode, result.stdout), (0, "11,22,33\n44;55 66\n"))
        out = os.path.join(self.m.dir.name, "out")
        result = self.vgpu("add", "--file", a, b, "-o", out)
        self.assertEqual((result.returncode, result.stdout), (0, ""))
        with open(out, encoding="ascii") as file:
            self.assertEqual(file.read(), "11,22,33\n44;55 66\n")
        for text in ("1 2 3", "1 2 3 4 5 x", "", "1 2 3 4 5 6 7", "1,,2,3,4,5,6", ",1,2,3,4,5,6"):
            result = self.vgpu("add", "--file", a, self.write("c", text))
            self.assertEqual(result.returncode, 2, text)
            self.assertIn("c'", result.stderr)
        result = self.vgpu("add", "--file", a, "/nonexistent")
        self.assertEqual(result.returncode, 9)
        self.assertIn("/nonexistent", result.stderr)

    def test_no_mediator(self):
        result = self.run_program(v.CLI, "--socket", "/nonexistent", "info")
        self.assertEqual(result.returncode, 5)
        self.assertIn("/nonexistent", result.stderr)
        result = self.run_program(v.VGPUCTL, "--socket", "/nonexistent", "list")
        self.assertEqual(result.returncode, 3)

    def test_no_device(self):
        result = self.run_program(v.CLI, "info")
        self.assertEqual(result.returncode, 3)
        self.assertIn("1234:0003", result.stderr)

    def test_help_and_version(self):
        for program in (v.CLI, v.VGPUCTL, v.MEDIATOR, v.WORKER):
            result = self.run_program(program, "--help")
            self.assertEqual(result.returncode, 0)
            self.assertIn("usage:", result.stdout)
            self.assertRegex(self.run_program(program, "--version").stdout, r"^vgpu\S* \d+\.\d+")
            result = self.run_program(program, "--nonsense")
            self.assertEqual(result.returncode, 2)

    def test_vgpuctl(self):
        with v.Device(v.Client(self.m), vm_id=7, hello__name=b"seven"):
            self.m.vm(7, state="idle")
            self.assertRegex(self.ctl("list").stdout, r"\n7 +seven +A +medium +idle")
            self.assertIn('"name": "seven"', self.ctl("--json", "list").stdout.replace('":"', '": "'))
            self.assertIn("worker_pid", self.ctl("show", "7").stdout)
        self.assertEqual(self.ctl("show", "8").returncode, 1)
        self.assertEqual(self.ctl("history", "Q").returncode, 1)
        self.assertEqual(self.ctl("pause").returncode, 2)
        self.assertEqual(self.ctl("pause", "A").returncode, 0)
        self.assertIn("pool A is paused", self.ctl("list").stdout)

    def test_stranger_on_the_control_socket(self):
        import socket
        for garbage in (b"\n", b"{}\n", b"5\n", b"[]\n", b"{\"command\":7}\n", b"x" * 5000,
                        b"{\"command\":\"show\",\"vm\":\"x\"}\n", b"\0\0\n", b"{" * 500 + b"\n"):
            with socket.socket(socket.AF_UNIX) as control:
                control.settimeout(v.PATIENCE)
                control.connect(self.m.control)
                control.sendall(garbage)
                self.assertIn(b"error", control.recv(65536), garbage)


class Rest(v.TestCase):
    """Register mode gives its device back where nothing asks for it, and nobody notices."""

    def attach(self, rest):
        self.m = self.mediator(mediator=f"register-rest = {rest}")
        self.d = v.Device(v.Client(self.m), shm=MIB)
        self.addCleanup(self.d.close)
        return self.worker()

    def worker(self):
        return self.m.vm(1, state="idle")["worker_pid"]

    def device_info(self):
        code, info = self.d.call(v.request(N["VGPU_OP_DEVICE_INFO"]))
        self.assertEqual(code, error("NONE"))
        return info

    def test_asked_and_left(self):
        first = self.attach("300ms")
        echo = v.request(N["VGPU_OP_ECHO"]) + b"hello"
        self.assertEqual(self.d.call(echo), (error("NONE"), b"hello"))
        self.assertEqual(self.worker(), first, "an echo needs no device")
        info = self.device_info()
        second = self.worker()
        self.assertNotEqual(second, first, "nobody knew the device")
        code, back = self.d.call(v.add_inline([1], [2]))
        self.assertEqual((code, back), (error("NONE"), struct.pack("<i", 3)))
        self.assertEqual(self.worker(), second, "it had been asked a moment ago")
        third = v.wait_until("it rests", lambda: self.worker() not in (0, second) and self.worker())
        self.assertEqual(self.device_info(), info)
        self.assertEqual(self.worker(), third, "what the device is was told")
        self.assertEqual(self.d.call(v.add_inline([3], [4]))[1], struct.pack("<i", 7))
        vm = self.m.vm(1)
        self.assertEqual(vm["worker_failures"], 0)
        self.assertNotIn("exit code", self.m.read_log())

    def test_reset_at_rest(self):
        self.attach("10s")
        self.d.client.send(v.message("RESET", serial=7))
        self.assertEqual(v.get(self.d.client.receive(), "vgpu_msg.serial"), 7)
        self.assertEqual(self.d.call(v.add_inline([1], [2]))[1], struct.pack("<i", 3))

    def test_after_a_request_that_kills(self):
        """Two workers end on it, which is WORKER_LOST. The next request is another's, at rest too."""
        self.attach("300ms")
        self.m.ask("pause", pool="A")
        self.d.ring(v.add_inline([1], [2]))
        for _ in range(2):
            worker = self.m.vm(1, state="waiting")["worker_pid"]
            os.kill(worker, signal.SIGKILL)
            v.wait_until("it is gone", lambda: self.m.vms()[1]["worker_pid"] != worker)
        self.assertEqual(self.d.finish(), (error("WORKER_LOST"), b""))
        self.m.ask("resume", pool="A")
        for number in range(3):
            last = self.worker()
            v.wait_until("it rests", lambda: self.worker() not in (0, last))
            self.assertEqual(self.d.call(v.add_inline([number], [2])),
                             (error("NONE"), struct.pack("<i", number + 2)))

    def test_restart_with_a_request(self):
        """Rung while no mediator runs: answered by the next one, which begins at rest."""
        self.attach("10s")
        self.m.stop(signal.SIGKILL)
        self.d.ring(v.add_inline([5], [6]))
        self.m.start()
        client = v.Client(self.m)
        self.addCleanup(client.close)
        client.send(v.hello(shm=MIB, hello__flags=N["VGPU_HELLO_HANDOVER"]), self.d.fds)
        self.assertEqual(v.get(client.receive(), "vgpu_msg.type"), N["VGPU_MSG_ATTACHED"])
        self.assertEqual(self.d.finish()[1], struct.pack("<i", 11))

    def test_at_the_edge(self):
        """Requests that come when it is about to rest: each is done once."""
        self.attach("20ms")
        self.d.map[0:8] = struct.pack("<2i", 0, 1)
        for number in range(1, 121):
            time.sleep((15 + number % 10) / 1000)
            # In place: done twice, it would be seen.
            self.assertEqual(self.d.call(v.add_shm(1, 0, 4, 0))[0], error("NONE"))
            self.assertEqual(struct.unpack("<i", self.d.map[0:4])[0], number)
        self.assertGreater(self.m.vm(1)["worker_starts"], 5)
        self.assertEqual(self.m.vm(1)["worker_failures"], 0)


if __name__ == "__main__":
    v.main()
