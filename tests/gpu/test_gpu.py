#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The cuda backend on a real GPU: results equal to the cpu backend's bit for bit, for host
processes and for guests, and what happens when its worker is killed. Skipped without a GPU.

Tests: worker/backend-cuda/, mediator/probe.c"""
import os
import random
import signal
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402
from vgputest import N  # noqa: E402

SESSION_CHECK = os.path.join(v.OUT, "tests/session/session-check")

INT32, FLOAT32 = N["VGPU_TYPE_INT32"], N["VGPU_TYPE_FLOAT32"]
# Zeros, the smallest and largest of each kind, infinities, NaNs with payloads.
EDGES = (0, 0x80000000, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x3F800000, 0x7F7FFFFF, 0xFF7FFFFF,
         0x7F800000, 0xFF800000, 0x7FC00000, 0x7FC00001, 0x7F800001, 0xFFFFFFFF, 0x7FFFFFFF)


class Gpu(v.TestCase):
    def setUp(self):
        if not v.probe().startswith("cuda "):
            self.skipTest("no GPU: " + v.probe().strip())
        self.m = self.mediator(mediator="backend = cuda")

    def both(self, size):
        """The same device twice: on the GPU and on the CPU."""
        cpu = self.mediator()
        for mediator in (self.m, cpu):
            device = v.Device(v.Client(mediator), shm=size)
            self.addCleanup(device.close)
            yield device

    def test_device_info(self):
        self.assertTrue(self.m.ask("list")["gpu"])
        result = subprocess.run([v.CLI, "--socket", self.m.socket, "info"], capture_output=True,
                                text=True, timeout=v.PATIENCE, check=False)
        print(result.stdout, file=sys.stderr)
        self.assertIn("capability", result.stdout)

    def test_inline_sums_equal_the_cpus(self):
        gpu, cpu = self.both(1 << 20)
        dice = random.Random(1)
        pairs = [(a, b) for a in EDGES for b in EDGES]
        pairs += [(dice.getrandbits(32), dice.getrandbits(32)) for _ in range(3000)]
        for kind in (INT32, FLOAT32):
            for i in range(0, len(pairs), N["VGPU_INLINE_MAX"]):
                part = pairs[i:i + N["VGPU_INLINE_MAX"]]
                request = v.request(N["VGPU_OP_ADD_INLINE"], kind, len(part), struct.pack(
                    f"<{2 * len(part)}I", *(a for a, _ in part), *(b for _, b in part)))
                answer = gpu.call(request)
                self.assertEqual(answer[0], 0)
                self.assertEqual(answer, cpu.call(request))

    def test_long_sums_equal_the_cpus(self):
        """Across several chunks, with a ragged end, at odd offsets, and in place."""
        size = 1 << 28
        gpu, cpu = self.both(size)
        dice = random.Random(2)
        block = dice.randbytes(1 << 20)
        for device in (gpu, cpu):
            for at in range(0, size, len(block)):
                device.map[at:at + len(block)] = block[at >> 12:] + block[:at >> 12]
        third = size // 3 // 4 * 4
        for kind in (INT32, FLOAT32):
            for count, a, b, total in ((third // 4, 0, third, 2 * third), (1, 4, 8, 12),
                                       (4 << 20, 4, third + 4, 2 * third + 4),
                                       ((4 << 20) + 1, 12, third + 8, 2 * third + 20),
                                       ((9 << 20) + 77, 0, third, 0), (5000001, 0, third, third)):
                for device in (gpu, cpu):
                    self.assertEqual(device.call(v.add_shm(count, a, b, total, kind)), (0, b""))
                self.assertTrue(gpu.map[:size] == cpu.map[:size], (kind, count, a, b, total))

    def test_requests_of_guests(self):
        """Real guests before a real GPU, in the order of their priorities."""
        guests = {vm: self.guest(self.m, vm, priority)
                  for vm, priority in ((1, "high"), (2, "medium"), (3, "low"))}
        for guest in guests.values():
            guest.wait_boot()
        self.m.ask("pause", pool="A")
        for vm in (3, 2, 1):
            guests[vm].send(f"vgpu add {vm} 100; vgpu add 1.5 2.25")
            self.m.vm(vm, state="waiting")
        self.m.ask("resume", pool="A")
        for vm, guest in guests.items():
            self.assertEqual(guest.finish(), (0, f"{vm + 100}\n3.75\n"))
        turns = self.m.ask("history", pool="A")["turns"]
        self.assertEqual([turn["vm"] for turn in turns][:3], [1, 2, 3])
        for kind in ("int32", "float32"):
            code, output = guests[1].run(f"vgpu add --n 10000000 --check --type {kind}")
            print(output.strip(), file=sys.stderr)
            self.assertEqual(code, 0, output)
        print(guests[1].run("vgpu info; vgpu bench --n 10000000")[1], file=sys.stderr)

    def test_worker_killed(self):
        gpu, _ = self.both(1 << 20)
        other = v.Device(v.Client(self.m), vm_id=2)
        self.addCleanup(other.close)
        for i in range(3):
            os.kill(self.m.vm(1, state="idle")["worker_pid"], signal.SIGKILL)
            start = time.monotonic()
            self.assertEqual(gpu.call(v.add_inline([i], [1])), (0, (i + 1).to_bytes(4, "little")))
            print(f"answered {time.monotonic() - start:.2f} s after the kill", file=sys.stderr)
            self.assertEqual(other.call(v.add_inline([i], [2])), (0, (i + 2).to_bytes(4, "little")))

    def test_sandbox(self):
        with v.Device(v.Client(self.m), vm_id=5):
            pid = self.m.vm(5, state="idle")["worker_pid"]
            with open(f"/proc/{pid}/status", encoding="ascii") as file:
                status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
            self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))
            self.assertEqual(int(status["CapEff"], 16), 0)

    def check_sessions(self, code, output):
        print(output, file=sys.stderr)
        self.assertEqual(code, 0, output)
        self.assertRegex(output, r"(?m)^\d+ passed, 0 failed")

    def test_sessions_of_a_host_process(self):
        result = subprocess.run([SESSION_CHECK, "--host", self.m.socket], capture_output=True,
                                text=True, timeout=10 * v.PATIENCE, check=False)
        self.check_sessions(result.returncode, result.stdout)

    def test_sessions_of_a_guest(self):
        """Without the guest driver, then with it."""
        guest = self.guest(self.m, 1)
        guest.wait_boot()
        self.check_sessions(*guest.run("session-check", 10 * v.PATIENCE))
        self.check_sessions(*guest.run("insmod /vgpu.ko && session-check", 10 * v.PATIENCE))

    def sessions(self):
        return [session for vm in self.m.vms().values() for session in vm["sessions"]]

    def test_four_processes_in_two_guests(self):
        """Each multiplies matrices with a kernel of its own; one is killed midway."""
        guests = [self.guest(self.m, vm) for vm in (1, 2)]
        for guest in guests:
            guest.wait_boot()
        guests[0].run("matmul --rounds 1000 >/tmp/victim 2>&1 & echo $! >/tmp/pid")
        others = [(guests[0], "a"), (guests[1], "b"), (guests[1], "c")]
        for guest, name in others:
            guest.run(f"(matmul --rounds 5; echo done) >/tmp/{name} 2>&1 &")
        v.wait_until("all four compute", lambda: len(
            [session for session in self.sessions() if session["requests"] > 20]) == 4)
        guests[0].run("kill -9 $(cat /tmp/pid)")
        for guest, name in others:
            v.wait_until("its products", lambda g=guest, n=name: "done" in g.run(f"cat /tmp/{n}")[1],
                         10 * v.PATIENCE)
            output = guest.run(f"cat /tmp/{name}")[1]
            print(output.strip(), file=sys.stderr)
            self.assertRegex(output, "5 products of 2048 x 2048 right")
        # Without the guest driver its queue is found when somebody looks.
        self.assertEqual(guests[0].run("cat /tmp/victim; vgpu reap"), (0, "1\n"))
        v.wait_until("no session is left", lambda: not self.sessions())


if __name__ == "__main__":
    v.main()
