#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What NVIDIA's runtime library asks of a driver, all the way to a stand-in for the driver that the
worker loads, and what it is told where there is none.

Tests: worker/backend-cuda/self-test.c, worker/backend-cuda/tensor.c, guest/libcuda/calls/tables.c,
guest/libcuda/calls/tensor.c, guest/libcuda/calls/library-tables.c, guest/libcuda/calls/library.c,
guest/libcuda/state/place.c, worker/printed.c, worker/backend-cuda/printing.c, guest/libvgpu/printed.c"""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402

# In a build with sanitizers: what is left to the end of the process is no leak.
os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"

RUNTIME = os.path.join(v.OUT, "tests/stand-in/stand-in-runtime")
DRIVER = os.path.join(v.OUT, "tests/stand-in/stand-in-driver.so")


class StandIn(v.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="vgpu-test-")
        self.addCleanup(folder.cleanup)
        os.symlink(DRIVER, os.path.join(folder.name, "libcuda.so.1"))
        self.driver = folder.name
        self.slots = os.path.join(folder.name, "slots")
        before = dict(os.environ)
        self.addCleanup(lambda: (os.environ.clear(), os.environ.update(before)))

    def with_driver(self, **environment):
        """A mediator whose workers find the stand-in."""
        os.environ.update(environment, LD_LIBRARY_PATH=self.driver)
        mediator = self.mediator(mediator="backend = cuda")
        del os.environ["LD_LIBRARY_PATH"]
        return mediator

    def run_runtime(self, mediator, *arguments):
        plain = {name: value for name, value in os.environ.items() if not name.startswith("VGPU_")}
        return subprocess.run([RUNTIME, *arguments], env={**plain, "VGPU_HOST": mediator.socket},
                              text=True, check=False, capture_output=True, timeout=2 * v.PATIENCE)

    def sessions(self, mediator):
        return mediator.read_log().count(": attached to pool")

    def test_self_test(self):
        """Right for the process, its threads, and the addresses that they see."""
        m = self.with_driver()
        result = self.run_runtime(m)
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))
        self.assertEqual(self.sessions(m), 1)

    def test_another_worker(self):
        """Where the driver's addresses are taken, the next worker may have others."""
        m = self.with_driver(STAND_IN_SLOTS=self.slots)
        for _ in range(3):
            result = self.run_runtime(m, "taken", "0")
            self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))
        self.assertGreater(self.sessions(m), 3)

    def test_no_place(self):
        """A program that has something everywhere goes on without."""
        m = self.with_driver(STAND_IN_SLOTS=self.slots)
        result = self.run_runtime(m, "taken", "0", "1", "2")
        self.assertEqual((result.returncode, result.stdout), (3, ""), result.stderr)
        self.assertEqual(result.stderr, "libcuda (vGPU): NVIDIA's runtime library (cudart) cannot "
                         "be served: this process has something at the addresses of its tables\n")
        self.assertEqual(self.sessions(m), 5)

    def test_unload(self):
        """What was put at the driver's addresses goes with the library that put it there."""
        m = self.with_driver()
        program = (
            "import _ctypes, ctypes, sys\n"
            "def executable():\n"
            "    return [l for l in open('/proc/self/maps') if ' r-xp ' in l and '/' not in l]\n"
            "before = executable()\n"
            "for _ in range(3):\n"
            "    c = ctypes.CDLL(sys.argv[1])\n"
            "    assert c.cuInit(0) == 0\n"
            "    during = executable()\n"
            "    _ctypes.dlclose(c._handle)\n"
            "print(len(during) > len(before), executable() == before)\n")
        library = os.path.join(v.OUT, "guest/libcuda/libcuda.so.1")
        result = subprocess.run([sys.executable, "-c", program, library], text=True, check=False,
                                env={**os.environ, "VGPU_HOST": m.socket, **v.sanitizer(library)},
                                capture_output=True, timeout=2 * v.PATIENCE)
        self.assertEqual((result.stdout, result.stderr), ("True True\n", ""))

    def test_what_kernels_print(self):
        """Their program prints it, before what it prints itself, and nothing of it is in the log."""
        m = self.with_driver()
        for _ in range(2):
            result = self.run_runtime(m, "launch", "print")
            self.assertEqual((result.returncode, result.stdout, result.stderr),
                             (0, "a line of a kernel\nsynchronised: 0\n", ""))
        self.assertNotIn("a line of", m.read_log())

    def test_much_that_kernels_print(self):
        """More than a pipe holds, or a slot, and in order."""
        result = self.run_runtime(self.with_driver(), "launch", "flood")
        lines = [f"line {i} of many" for i in range(20000)] + ["synchronised: 0"]
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(result.stdout.splitlines(), lines)

    def test_failed_assertion(self):
        m = self.with_driver()
        result = self.run_runtime(m, "launch", "assert")
        self.assertEqual((result.returncode, result.stdout, result.stderr),
                         (0, "synchronised: 710\n", "kernel.cu:7: assertion failed\n"))
        self.assertNotIn("assertion failed", m.read_log())

    def test_no_driver(self):
        result = self.run_runtime(self.mediator())
        self.assertEqual((result.returncode, result.stdout), (3, ""), result.stderr)
        self.assertEqual(result.stderr, "libcuda (vGPU): NVIDIA's runtime library (cudart) cannot "
                         "be served: the host has no NVIDIA driver, or a mediator older than this "
                         "library\n")


if __name__ == "__main__":
    v.main()
