#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Work that is taken off a GPU a thousand times is right, and ends while it is off leave nothing.

Skipped without a GPU; tests/wire/test_scheduler.py has the same on the cpu backend.

Tests: worker/backend-cuda/channels.c, worker/preempt.c, mediator/arbiter.c"""
import os
import signal
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402

LONG = os.path.join(v.OUT, "tests/session/session-long")
TIMES = 1000
ENDS = 100
AT_ONCE = 4
# Of the GPU's memory, that may come and go.
SLACK_MIB = 16


def memory_used():
    """MiB of the GPU."""
    return int(subprocess.run(
        ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
        capture_output=True, text=True, check=True).stdout)


class Long:
    """A session-long whose kernel runs."""

    def __init__(self, mediator, vm, seconds, *options):
        self.process = subprocess.Popen(
            [LONG, "--host", mediator.socket, "--vm-id", str(vm), *options, str(seconds)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        first = self.process.stdout.readline()
        if first != "running\n":
            self.process.kill()
            raise AssertionError(first + self.process.communicate()[0])

    def end(self):
        """Its exit code and what it said."""
        try:
            output = self.process.communicate(timeout=v.PATIENCE)[0]
        finally:
            self.process.kill()
        return self.process.returncode, output.strip()


class Preempt(unittest.TestCase):
    def setUp(self):
        found = v.probe().strip()
        if not (found.startswith("cuda ") and found.endswith("\npreempt")):
            self.skipTest("nothing can be taken off a GPU here: " + found)
        self.m = v.Mediator("", "backend = cuda")
        self.addCleanup(self.m.close)

    def off(self, vm):
        return "off_seconds" in self.m.vm(vm)["sessions"][0]

    def control(self, command, vm):
        self.assertIsNone(self.m.ask(command, vm=vm).get("error"))

    def take_off(self, vm):
        """Once its kernel is there: the program has only posted it."""
        v.wait_until("it runs", lambda: self.m.vm(vm)["sessions"][0]["in_flight"] > 0)
        self.control("pause", vm)
        v.wait_until("it is off", lambda: self.off(vm))

    def test_right_after_a_thousand_times(self):
        # Longer than all of it takes: it has the GPU for half of that time.
        long = Long(self.m, 1, 20)
        start = time.monotonic()
        for _ in range(TIMES):
            self.take_off(1)
            self.control("resume", 1)
            time.sleep(0.001)
        took = time.monotonic() - start
        times = self.m.vm(1)["preemptions"]
        code, output = long.end()
        print(f"off and on {times} times in {took:.1f} s, ended {time.monotonic() - start - took:.1f}"
              f" s later: {output}", file=sys.stderr)
        self.assertEqual((code, output), (0, "right"))
        self.assertGreaterEqual(times, TIMES)

    def end_one(self, vm, how):
        """A session that is off, and ends."""
        long = Long(self.m, vm, 30)
        self.take_off(vm)
        if how == "worker":
            os.kill(self.m.vm(vm)["sessions"][0]["worker_pid"], signal.SIGKILL)
            self.assertEqual(long.end()[0], 5)
        else:
            long.process.kill()
            long.end()
        v.wait_until("the VM is gone", lambda: vm not in self.m.vms())

    def test_ends_while_off(self):
        before = memory_used()
        errors = []

        def ends(vm):
            try:
                for i in range(ENDS // AT_ONCE):
                    self.end_one(vm, ("worker", "program")[(i + vm) % 2])
            except BaseException as error:  # pylint: disable=broad-except
                errors.append(error)
                raise

        start = time.monotonic()
        threads = [threading.Thread(target=ends, args=(vm,)) for vm in range(1, AT_ONCE + 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(errors, [])
        v.wait_until("the memory is back", lambda: memory_used() <= before + SLACK_MIB)
        print(f"{ENDS} ends in {time.monotonic() - start:.1f} s; {before} MiB of the GPU used before, "
              f"{memory_used()} after", file=sys.stderr)
        self.assertEqual(Long(self.m, 1, 0.1).end(), (0, "right"))

    def test_faults_after_off(self):
        before = memory_used()
        for _ in range(20):
            long = Long(self.m, 1, 0.1, "--fault")
            self.take_off(1)
            self.control("resume", 1)
            self.assertEqual(long.end(), (0, "fault"))
        v.wait_until("the memory is back", lambda: memory_used() <= before + SLACK_MIB)
        self.assertEqual(Long(self.m, 1, 0.1).end(), (0, "right"))


if __name__ == "__main__":
    v.main()
