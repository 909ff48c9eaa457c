#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What a session does to itself, and what its neighbour notices of it: nothing.

A victim computes all the time in a VM of its own, while session-fault provokes one fault after the
other in another. On a real GPU, skipped without one; and those faults that there are without a GPU
on the cpu backend, where the victim's times are told but not judged.

Tests: worker/backend-cuda/, worker/backend-cpu/, worker/ring-worker*.c"""
import math
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402

SESSION_FAULT = os.path.join(v.OUT, "tests/session/session-fault")
SESSION_VICTIM = os.path.join(v.OUT, "tests/session/session-victim")
VM, VICTIM_VM = 7, 8
SKIPPED = 77
WINDOW_NS = 100_000_000  # after a fault, in which the victim may be slower
NEW_SESSION_MS = 2000
QUIET_S = 3
PAUSE_S = 0.3  # between two faults, and more than a window


def p99(samples):
    """In microseconds; of (start, duration) in ns."""
    if not samples:
        return math.nan
    times = sorted(duration for _, duration in samples)
    return times[math.ceil(0.99 * len(times)) - 1] / 1000


class Faults:
    """For both backends."""

    def setUp(self):
        if self.gpu and not v.probe().startswith("cuda "):
            self.skipTest("no GPU: " + v.probe().strip())
        self.m = self.mediator(f"[vm {VM}]\nmax-kernel = 500ms", f"backend = {self.backend}")
        self.names = subprocess.run([SESSION_FAULT, "--list"], capture_output=True, text=True,
                                    check=True).stdout.split()
        self.names.remove("none")

    def native(self, name):
        """The error that CUDA itself has for it, or None."""
        try:
            result = subprocess.run([SESSION_FAULT, "--native", name], capture_output=True,
                                    text=True, timeout=v.PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            print(f"{name}: CUDA itself has no answer", file=sys.stderr)
            return None
        number = re.fullmatch(r"native (\d+)\n", result.stdout)
        # 0 would be no fault: a GPU that lets it pass.
        return number and number[1] != "0" and int(number[1]) or None

    def start_victim(self):
        self.log = os.path.join(self.m.dir.name, "victim")
        self.victim = subprocess.Popen(
            [SESSION_VICTIM, "--host", self.m.socket, "--vm-id", str(VICTIM_VM), "--log", self.log,
             "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(self.end_victim)
        self.assertEqual(self.victim.stdout.readline(), "open\n")

    def end_victim(self):
        """What it said in the end; nothing after the first time."""
        if self.victim.poll() is None:
            self.victim.send_signal(signal.SIGTERM)
        try:
            return self.victim.communicate(timeout=v.PATIENCE)[0]
        except ValueError:
            return ""
        finally:
            self.victim.kill()

    def provoke(self, name, expected=None):
        """Exit code and output of session-fault."""
        arguments = ["--expect", str(expected)] if expected else []
        with subprocess.Popen(
                [SESSION_FAULT, "--host", self.m.socket, "--vm-id", str(VM), *arguments, name],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                if name == "killed":
                    self.assertEqual(process.stdout.readline(), "kill\n")
                    os.kill(self.m.vm(VM)["sessions"][0]["worker_pid"], signal.SIGKILL)
                output = process.communicate(timeout=v.PATIENCE)[0]
            finally:
                process.kill()
        time.sleep(PAUSE_S)
        return process.returncode, output

    def suffer_all(self, natives):
        """Each fault once; [(name, when provoked, when seen)]."""
        told = []
        for name in self.names:
            with self.subTest(name):
                code, output = self.provoke(name, natives.get(name))
                if code == SKIPPED and not self.gpu:
                    continue
                print(f"{name}: native {natives.get(name) or '-'}: "
                      + output.strip().replace("\n", " / "), file=sys.stderr)
                found = re.search(r"provoked (\d+) seen (\d+) ", output)
                self.assertTrue(found, output)
                told.append((name, int(found[1]), int(found[2])))
                self.assertEqual(code, 0, output)
                if self.gpu:
                    ms = float(re.search(r"new session after (.+) ms", output)[1])
                    self.assertLessEqual(ms, NEW_SESSION_MS)
        return told

    def judge(self, marks, told):
        """The victim's times: quiet, beside sessions that come and go, and beside faults."""
        with open(self.log, encoding="ascii") as file:
            samples = [tuple(map(int, line.split())) for line in file]
        quiet, control, faulty = (
            [sample for sample in samples if start <= sample[0] < end]
            for start, end in zip(marks, marks[1:]))
        windows = [(provoked, (seen if name == "endless" else provoked) + WINDOW_NS)
                   for name, provoked, seen in told]
        outside = [(start, ns) for start, ns in faulty
                   if not any(start < end and start + ns > begin for begin, end in windows)]
        print(f"victim: p99 {p99(quiet):.1f} us by itself ({len(quiet)} jobs), {p99(control):.1f} "
              f"beside sessions without faults ({len(control)}), {p99(outside):.1f} beside faults "
              f"outside of {WINDOW_NS // 1000000} ms ({len(outside)} of {len(faulty)}), "
              f"{p99(outside) / p99(control):.2f} of that without", file=sys.stderr)
        for (name, *_), (begin, end) in zip(told, windows):
            worst = max((ns for start, ns in faulty if start < end and start + ns > begin),
                        default=0)
            print(f"victim: {worst / 1e6:.2f} ms at most around {name}", file=sys.stderr)
        if self.gpu:
            self.assertLessEqual(p99(outside), 1.25 * p99(control))

    def test_faults_beside_a_victim(self):
        natives = {name: self.native(name) for name in self.names}
        self.start_victim()
        marks = [time.monotonic_ns()]
        time.sleep(QUIET_S)
        marks.append(time.monotonic_ns())
        # As many sessions that come and go as there will be faults: they cost the driver time too.
        for _ in self.names:
            code, output = self.provoke("none")
            self.assertEqual(code, 0, output)
        marks.append(time.monotonic_ns())
        told = self.suffer_all(natives)
        marks.append(time.monotonic_ns())
        output = self.end_victim()
        print("victim: " + output.strip(), file=sys.stderr)
        self.assertEqual(self.victim.returncode, 0, output)
        self.assertRegex(output, r"(?m)^\d{2,} jobs, 0 wrong bytes, 0 errors")
        self.judge(marks, told)


class OnTheGpu(Faults, v.TestCase):
    backend, gpu = "cuda", True


class OnTheCpu(Faults, v.TestCase):
    backend, gpu = "cpu", False


if __name__ == "__main__":
    v.main()
