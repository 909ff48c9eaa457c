#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The CUDA driver API by libcuda.so.1: the semantic tests against a real mediator, and what a
program sees that finds no device, or loses it.

Tests: guest/libcuda/state/unload.c, guest/libcuda/calls/library.c, guest/libvgpu/host*.c"""
import os
import re
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402

# In a build with sanitizers: what the check leaves to the end of its processes is no leak.
os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"

CHECK = os.path.join(v.OUT, "tests/cuda/cuda-check")
SWEEP = os.path.join(v.OUT, "tests/cuda/cuda-sweep")
LIBRARY = os.path.join(v.OUT, "guest/libcuda")
OURS = os.path.join(LIBRARY, "libcuda.so.1")


def environment(**more):
    plain = {name: value for name, value in os.environ.items() if not name.startswith("VGPU_")}
    return {**plain, "LD_LIBRARY_PATH": LIBRARY, **more}


def python(program, mediator):
    """A program that has the library in `c`."""
    begin = ("import ctypes, sys\n"
             f"c = ctypes.CDLL({OURS!r})\n")
    return subprocess.Popen([sys.executable, "-c", begin + program], text=True,
                            env=environment(VGPU_HOST=mediator.socket, **v.sanitizer(OURS)),
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


BEGIN = ("x, p = ctypes.c_void_p(), ctypes.c_uint64()\n"
         "assert c.cuInit(0) == 0 and c.cuDevicePrimaryCtxRetain(ctypes.byref(x), 0) == 0\n"
         "assert c.cuCtxSetCurrent(x) == 0\n")


class Cuda(v.TestCase):
    def run_check(self, *names, **more):
        result = subprocess.run([CHECK, *names], env=environment(**more), text=True, check=False,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                timeout=10 * v.PATIENCE)
        return result.returncode, result.stdout

    def names(self):
        return subprocess.run([CHECK, "--list"], env=environment(), text=True, check=True,
                              capture_output=True).stdout.split()

    def test_semantics(self):
        """All of cuda-check that needs no GPU; what is skipped says why."""
        m = self.mediator()
        code, output = self.run_check(VGPU_HOST=m.socket)
        self.assertEqual(code, 0, output)
        passed = re.search(r"^(\d+) passed, 0 failed, (\d+) skipped$", output, re.M)
        self.assertTrue(passed, output)
        self.assertEqual(int(passed[1]) + int(passed[2]), len(self.names()))
        self.assertGreater(int(passed[1]), 150)
        v.wait_until("all sessions are gone", lambda: not m.vms())

    def test_sweep(self):
        """NULL, zero and unknown values are answered as by NVIDIA's library, where there is no GPU."""
        m = self.mediator()
        # Sanitizers end a program that asks for too much, which some cases do.
        options = os.environ["ASAN_OPTIONS"] + ":allocator_may_return_null=1"
        result = subprocess.run([SWEEP, "--jobs", "4", "--without-gpu", *v.SWEPT],
                                env=environment(VGPU_HOST=m.socket, ASAN_OPTIONS=options,
                                                TSAN_OPTIONS="allocator_may_return_null=1"),
                                text=True, check=False,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                timeout=10 * v.PATIENCE)
        self.assertEqual(result.returncode, 0, result.stdout)
        compared = re.search(r"^(\d+) cases compared, 0 different", result.stdout, re.M)
        self.assertGreater(int(compared[1]), 1700)

    def test_sanitized(self):
        """A program with ThreadSanitizer runs, and it finds nothing."""
        program = os.path.join(v.OUT, "tests/cuda/sanitized")
        if not os.path.exists(program):
            self.skipTest("this build has a sanitizer itself, or the compiler has none")
        m = self.mediator()
        # At random, addresses can be such as older sanitizers do not know.
        fixed = ["setarch", "-R"]
        if subprocess.run([*fixed, "true"], check=False, capture_output=True).returncode != 0:
            fixed = []
        result = subprocess.run([*fixed, program], env=environment(VGPU_HOST=m.socket),
                                capture_output=True, text=True, check=False, timeout=v.PATIENCE)
        self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_crowd(self):
        """Where the mediator has too many connections of the user's, the program waits its turn."""
        m = self.mediator(mediator="max-vms = 4")
        crowd = [v.Client(m) for _ in range(18)]
        for client in crowd:
            self.addCleanup(client.close)
        with python(BEGIN, m) as process:
            v.wait_until("it was turned away", lambda: "too many connections" in m.read_log())
            self.assertIsNone(process.poll())
            for client in crowd:
                client.close()
            _, errors = process.communicate(timeout=v.PATIENCE)
        self.assertEqual((process.returncode, errors), (0, ""))

    def test_max_kernel(self):
        """It holds for kernels, not for a stream that waits for the program."""
        m = self.mediator("[defaults]\nmax-kernel = 500ms\n")
        code, output = self.run_check("long_host_function", VGPU_HOST=m.socket)
        self.assertEqual(code, 0, output)
        code, output = self.run_check("long_host_function", VGPU_HOST=m.socket,
                                      VGPU_PRIORITY="huge")
        self.assertIn("no device: VGPU_PRIORITY is low, medium or high", output)

    def test_visible_devices(self):
        """As NVIDIA's driver reads the variable; for a list without a device nothing is started."""
        m = self.mediator()
        program = ("n = ctypes.c_int(-1)\n"
                   "print(c.cuInit(0), c.cuDeviceGetCount(ctypes.byref(n)), n.value)\n")
        for value, expected in (("0", "0 0 1"), ("0,7", "0 0 1"), ("0,0", "101 3 -1"),
                                ("1", "100 3 -1"), ("", "100 3 -1"), ("-1", "100 3 -1"),
                                ("GPU-123", "100 3 -1")):
            os.environ["CUDA_VISIBLE_DEVICES"] = value
            self.addCleanup(os.environ.pop, "CUDA_VISIBLE_DEVICES", None)
            before = m.read_log().count(": attached to pool")
            with python(program, m) as process:
                output, errors = process.communicate(timeout=v.PATIENCE)
            self.assertEqual((output, errors), (expected + "\n", ""), value)
            self.assertEqual(m.read_log().count(": attached to pool") - before,
                             int(value not in ("", "-1")), value)

    def test_tables_without_a_device(self):
        """They are handed out, no session is opened for each, and what needs one says so."""
        m = self.mediator()
        os.environ["CUDA_VISIBLE_DEVICES"] = "1"
        self.addCleanup(os.environ.pop, "CUDA_VISIBLE_DEVICES", None)
        program = (
            "def table(text):\n"
            "    t = ctypes.POINTER(ctypes.c_void_p)()\n"
            "    assert c.cuGetExportTable(ctypes.byref(t), bytes.fromhex(text)) == 0\n"
            "    return t\n"
            "table('6bd5fb6c5bf4e74a8987d93912fd9df9')\n"
            "test = table('d4082055bde6704b8d34ba123c66e1f2')\n"
            "places = table('1734dc26800d47458726c0f1e7dd8bca')\n"
            "a, b = ctypes.c_void_p(), (ctypes.c_uint64 * 2)()\n"
            "get = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(places[4])\n"
            "ask = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint, ctypes.c_uint64,\n"
            "                       ctypes.c_void_p)(test[1])\n"
            "print(c.cuInit(0), get(ctypes.byref(a), b), ask(1, 2, b))\n")
        with python(program, m) as process:
            output, errors = process.communicate(timeout=v.PATIENCE)
        self.assertEqual((output, errors), ("100 3 3\n", ""))
        self.assertEqual(m.read_log().count(": attached to pool"), 2)

    def test_no_mediator(self):
        """cuInit() says what it says where there is no card."""
        code, output = self.run_check("known_name", VGPU_HOST="@vgpu-test-nobody-is-there")
        self.assertEqual(code, 1, output)
        self.assertIn("CUDA_ERROR_NO_DEVICE", output)
        self.assertIn("no device: ", output)

    def test_no_stub(self):
        code, output = self.run_check("known_name")
        self.assertEqual(code, 1, output)
        self.assertIn("CUDA_ERROR_NO_DEVICE", output)

    def test_loses_its_device(self):
        """A killed mediator is an error that stays, not a hang."""
        m = self.mediator()
        program = BEGIN + (
            "print('open', flush=True)\n"
            "sys.stdin.readline()\n"
            "print(c.cuMemAlloc_v2(ctypes.byref(p), ctypes.c_size_t(64)), c.cuCtxSynchronize())\n")
        with python(program, m) as process:
            self.assertEqual(process.stdout.readline(), "open\n")
            m.stop(signal.SIGKILL)
            output, errors = process.communicate("\n", timeout=v.PATIENCE)
        self.assertEqual(output, "46 46\n", errors)
        self.assertIn("MEDIATOR", errors)

    def test_unload(self):
        """dlclose() ends the session."""
        m = self.mediator()
        program = BEGIN + (
            "print('open', flush=True)\n"
            "sys.stdin.readline()\n"
            "import _ctypes\n"
            "_ctypes.dlclose(c._handle)\n"
            "print('unloaded', flush=True)\n"
            "sys.stdin.readline()\n")
        with python(program, m) as process:
            self.assertEqual(process.stdout.readline(), "open\n")
            self.assertEqual(len(m.vms()), 1)
            process.stdin.write("\n")
            process.stdin.flush()
            self.assertEqual(process.stdout.readline(), "unloaded\n")
            v.wait_until("its session is gone", lambda: not m.vms())
            _, errors = process.communicate("\n", timeout=v.PATIENCE)
        self.assertEqual(process.returncode, 0, errors)

    def test_load_again(self):
        """Loaded, used and unloaded again and again: no descriptor and no mapping stays."""
        m = self.mediator()
        program = (
            "import _ctypes, os\n"
            "name = c._name\n"
            "def cycle():\n"
            "    c = ctypes.CDLL(name)\n"
            "    x, p, s = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_void_p()\n"
            "    assert c.cuInit(0) == 0\n"
            "    assert c.cuDevicePrimaryCtxRetain(ctypes.byref(x), 0) == 0\n"
            "    assert c.cuCtxSetCurrent(x) == 0\n"
            "    assert c.cuMemAlloc_v2(ctypes.byref(p), ctypes.c_size_t(1 << 20)) == 0\n"
            "    assert c.cuStreamCreate(ctypes.byref(s), 0) == 0\n"
            "    _ctypes.dlclose(c._handle)\n"
            "def stays():\n"
            "    maps = open('/proc/self/maps').read()\n"
            "    assert 'libcuda' not in maps, maps\n"
            "    return len(os.listdir('/proc/self/fd')), maps.count('\\n')\n"
            "_ctypes.dlclose(c._handle)\n"
            "cycle()\n"
            "files, mappings = stays()\n"
            "for _ in range(10): cycle()\n"
            "more_files, more_mappings = stays()\n"
            "print(more_files - files, more_mappings - mappings < 10)\n")
        with python(program, m) as process:
            output, errors = process.communicate(timeout=v.PATIENCE)
        self.assertEqual(output, "0 True\n", errors)

    def leave(self, program, mediator):
        """
        The program, with its session, leaves by exit(): that hangs up, and keeps what threads may
        use. It prints more than the pipe has room for, and waits there, behind all destructors.
        """
        program += ("libc, size = ctypes.CDLL(None), ctypes.c_size_t(1 << 20)\n"
                    "room = ctypes.create_string_buffer(1 << 20)\n"
                    "libc.setvbuf(ctypes.c_void_p.in_dll(libc, 'stdout'), room, 0, size)\n"
                    "libc.printf(b'%s', b'x' * (1 << 19))\n"
                    "sys.stdin.readline()\n"
                    "libc.exit(7)\n")
        with python(program, mediator) as process:
            v.wait_until("the session is there", mediator.vms)
            process.stdin.write("\n")
            process.stdin.flush()
            v.wait_until("it has ended", lambda: not mediator.vms())
            files = f"/proc/{process.pid}/fd"
            self.assertTrue(any("socket:" in os.readlink(os.path.join(files, file))
                                for file in os.listdir(files)), "threads may use the socket")
            _, errors = process.communicate(timeout=v.PATIENCE)
        self.assertEqual(process.returncode, 7, errors)

    def test_exit_in_a_call(self):
        """exit() while threads are in calls: they end with the process, and nothing crashes."""
        m = self.mediator()
        program = BEGIN + (
            "import threading\n"
            "def work():\n"
            "    c.cuCtxSetCurrent(x)\n"
            "    p = ctypes.c_uint64()\n"
            "    while c.cuMemAlloc_v2(ctypes.byref(p), ctypes.c_size_t(64)) == 0:\n"
            "        c.cuMemFree_v2(p)\n"
            "    while True: c.cuCtxSynchronize()\n"
            "for _ in range(4): threading.Thread(target=work, daemon=True).start()\n")
        self.leave(program, m)

    def test_exit_from_a_namespace(self):
        """As test_exit_in_a_call(), for a library that dlmopen() has loaded."""
        if v.sanitizer(OURS):
            self.skipTest("a namespace of its own has no sanitizer's library")
        m = self.mediator()
        program = (
            "name = c._name.encode()\n"
            "import _ctypes\n"
            "_ctypes.dlclose(c._handle)\n"
            "libc = ctypes.CDLL(None)\n"
            "libc.dlmopen.restype = ctypes.c_void_p\n"
            "handle = libc.dlmopen(ctypes.c_long(-1), name, 2)\n"
            "c = ctypes.CDLL(None, handle=handle)\n" + BEGIN)
        self.leave(program, m)

    def test_memory_quota(self):
        """Total and free memory are the quota's, and beyond it there is none."""
        m = self.mediator("[defaults]\nmemory = 64M\n")
        program = BEGIN + (
            "f, t, d = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_size_t()\n"
            "c.cuDeviceTotalMem_v2(ctypes.byref(d), 0)\n"
            "c.cuMemGetInfo_v2(ctypes.byref(f), ctypes.byref(t))\n"
            "size, heap = ctypes.c_size_t(60 << 20), ctypes.c_size_t(60 << 20)\n"
            "print(d.value, t.value, f.value, c.cuMemAlloc_v2(ctypes.byref(p), size),\n"
            "      c.cuMemAlloc_v2(ctypes.byref(p), size), c.cuCtxSetLimit(2, heap))\n")
        with python(program, m) as process:
            output, errors = process.communicate(timeout=v.PATIENCE)
        size = 64 << 20
        self.assertEqual(output, f"{size} {size} {size} 0 2 2\n", errors)

    def test_array_quota(self):
        """Arrays count in the tiles and blocks that a GPU has of them, and come back."""
        m = self.mediator("[defaults]\nmemory = 64M\n")
        # Width, height, depth in elements of four floats, and how much counts in MiB.
        shapes = ((131072, 0, 0, 16), (131072, 1, 0, 16), (4096, 65, 0, 8), (4096, 129, 0, 16),
                  (1024, 8, 3, .5), (4096, 1, 17, 16))
        program = BEGIN + (
            "class Shape(ctypes.Structure):\n"
            "    _fields_ = [(n, ctypes.c_size_t) for n in 'whd'] + "
            "[(n, ctypes.c_uint) for n in ('format', 'channels', 'flags')]\n"
            "f, t = ctypes.c_size_t(), ctypes.c_size_t()\n"
            "def free():\n"
            "    c.cuMemGetInfo_v2(ctypes.byref(f), ctypes.byref(t))\n"
            "    return f.value\n"
            f"for w, h, d, mib in {shapes}:\n"
            "    before = free()\n"
            "    a = ctypes.c_void_p()\n"
            "    r = c.cuArray3DCreate_v2(ctypes.byref(a), "
            "ctypes.byref(Shape(w, h, d, 0x20, 4, 0)))\n"
            "    counted = (before - free()) / (1 << 20)\n"
            "    r = r or c.cuArrayDestroy(a) or int(free() != before)\n"
            "    print(r, 'right' if counted == mib else (w, h, d, counted))\n")
        with python(program, m) as process:
            output, errors = process.communicate(timeout=v.PATIENCE)
        self.assertEqual(output, "0 right\n" * len(shapes), errors)


if __name__ == "__main__":
    v.main()
