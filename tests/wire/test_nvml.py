#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What libnvidia-ml.so.1 and vgpu info tell of the GPU, from the host's management library, here a
stand-in, to a program; and what becomes of it when that library or the mediator ends.

Tests: worker/gauge.c, worker/backend-cuda/nvml.c, mediator/cards.c, guest/libvgpu/watch.c,
guest/libvgpu/environment.c, guest/libnvml/*.c, guest/cli/info.c"""
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402

# In a build with sanitizers: what is left to the end of the process is no leak.
os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"

LIBRARY = os.path.join(v.OUT, "guest/libnvml/libnvidia-ml.so.1")
MIB = 1 << 20

# A program that has the library in `n`, its first device in `d`, and asks for what it is told.
PROGRAM = """
import ctypes, json, sys
n = ctypes.CDLL(sys.argv[1])
n.nvmlErrorString.restype = ctypes.c_char_p
d = ctypes.c_void_p()
def number(name, *arguments):
    value = ctypes.c_uint(0xdead)
    r = getattr(n, name)(d, *arguments, ctypes.byref(value))
    return value.value if r == 0 else -r
def text(name, *first):
    value = ctypes.create_string_buffer(128)
    r = getattr(n, name)(*first, value, 128)
    return value.value.decode() if r == 0 else -r
def words(name, count, first=0, kind=ctypes.c_uint64):
    value = (kind * count)(first)
    r = getattr(n, name)(d, ctypes.byref(value))
    return list(value) if r == 0 else -r
def begin():
    r = n.nvmlInit_v2()
    if r == 0:
        r = n.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(d))
    return r
"""


class Nvml(v.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="vgpu-test-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        for name, library in (("driver", "libcuda.so.1"), ("nvml", "libnvidia-ml.so.1")):
            os.symlink(os.path.join(v.OUT, f"tests/stand-in/stand-in-{name}.so"),
                       os.path.join(self.folder, library))

    def with_gpu(self, sensors, config="", **environment):
        """A mediator whose gauge and workers find the stand-ins."""
        before = dict(os.environ)
        os.environ.update(environment, LD_LIBRARY_PATH=self.folder)
        try:
            return self.mediator(config, mediator=f"backend = cuda\nsensors = {sensors}")
        finally:
            os.environ.clear()
            os.environ.update(before)

    def program(self, mediator, lines, **environment):
        plain = {name: value for name, value in os.environ.items() if not name.startswith("VGPU_")}
        if mediator:
            plain["VGPU_HOST"] = mediator.socket
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM + lines, LIBRARY], text=True,
            env={**plain, **v.sanitizer(LIBRARY), **environment},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def tell(self, mediator, expression, **environment):
        """What a program finds out; it begins and ends the library."""
        program = self.program(mediator, "assert begin() == 0\n"
                               f"print(json.dumps({expression}))\n"
                               "assert n.nvmlShutdown() == 0\n", **environment)
        out, err = program.communicate(timeout=v.PATIENCE)
        self.assertEqual((program.returncode, err), (0, ""))
        return json.loads(out)

    def told(self, mediator, expression, expected):
        """The same, as soon as the gauge has said so."""
        v.wait_until(f"{expression} is {expected}",
                     lambda: self.tell(mediator, expression) == expected)

    def info(self, mediator):
        out = subprocess.run([v.CLI, "--socket", mediator.socket, "info", "--json"], text=True,
                             check=True, capture_output=True, timeout=v.PATIENCE).stdout
        return json.loads(out)

    # Facts and sensors ----------------------------------------------------------------------

    def test_facts(self):
        """What a card is everybody may know, also where the sensors are the host's."""
        m = self.with_gpu("host", "[defaults]\nmemory = 300M")
        self.told(m, "text('nvmlDeviceGetName', d)", "stand-in")
        self.assertEqual(self.tell(m, "text('nvmlDeviceGetUUID', d)"),
                         "GPU-5a5a5a5a-5a5a-5a5a-5a5a-5a5a5a5a5a5a")
        self.assertEqual(self.tell(m, "text('nvmlSystemGetDriverVersion')"), "555.42.01")
        self.assertEqual(self.tell(m, "words('nvmlDeviceGetMemoryInfo', 3)"),
                         [300 * MIB, 300 * MIB, 0])
        self.assertEqual(self.tell(m, "number('nvmlDeviceGetNumGpuCores')"), 16896)
        self.assertEqual(self.tell(m, "number('nvmlDeviceGetMaxClockInfo', 3)"), 1003)
        self.assertEqual(self.tell(m, "number('nvmlDeviceGetPowerManagementDefaultLimit')"), 700000)
        pci = "(ctypes.c_char * 68)(), n.nvmlDeviceGetPciInfo_v3"
        self.assertEqual(self.tell(m, f"[(n.nvmlDeviceGetPciInfo_v3(d, p), p[36:48].decode()) "
                                      f"for p, _ in [({pci})]]"), [[0, "00000000:01:"]])
        for sensor in ("nvmlDeviceGetTemperature', 0", "nvmlDeviceGetPowerUsage'",
                       "nvmlDeviceGetClockInfo', 0", "nvmlDeviceGetEnforcedPowerLimit'"):
            self.assertEqual(self.tell(m, f"number('{sensor})"), -3, sensor)

    def test_name_of_the_operators(self):
        """In NVML, CUDA and register mode; the pool's, and the host's own figures have the card's."""
        m = self.with_gpu("host", "[pool A]\ndevices = 0\ngpu-name = A part of a card\n")
        self.told(m, "text('nvmlDeviceGetName', d)", "A part of a card")
        info = self.info(m)
        self.assertEqual(info["name"], "A part of a card")
        device = v.Device(v.Client(m), vm_id=7, shm=8 * MIB, queues=1)
        self.addCleanup(device.close)
        v.Queue(device, 0).open()
        self.assertEqual(m.vm(7)["sessions"][0]["device"], "A part of a card")
        self.assertIn(b"A part of a card\0", device.call(v.request(v.N["VGPU_OP_DEVICE_INFO"]))[1])
        self.assertEqual(m.vm(7)["device"], "A part of a card")
        self.assertIn("stand-in", m.ask("list")["computes_on"])

    def test_sensors(self):
        """Guests see them where the configuration says so, and from then on."""
        m = self.with_gpu("guests")
        self.told(m, "number('nvmlDeviceGetTemperature', 0)", 41)
        self.assertEqual(self.tell(m, "number('nvmlDeviceGetPowerUsage')"), 76500)
        self.assertEqual(self.tell(m, "number('nvmlDeviceGetEnforcedPowerLimit')"), 650000)
        self.assertEqual(self.tell(m, "[number('nvmlDeviceGetClockInfo', i) for i in range(5)]"),
                         [300, 301, 302, 0, -2])
        self.assertEqual(self.tell(m, "number('nvmlDeviceGetPerformanceState')"), 2)
        # It has no fan, and counts no energy.
        self.assertEqual(self.tell(m, "number('nvmlDeviceGetFanSpeed')"), -3)
        info = self.info(m)
        self.assertEqual((info["temperature"], info["power"], info["name"]), (41, 76.5, "stand-in"))
        with open(m.config, encoding="utf-8") as file:
            config = file.read()
        with open(m.config, "w", encoding="utf-8") as file:
            file.write(config.replace("sensors = guests", "sensors = host"))
        m.ask("reload")
        self.told(m, "number('nvmlDeviceGetTemperature', 0)", -3)
        self.assertNotIn("temperature", self.info(m))

    def test_metrics(self):
        """The operator's side of the same."""
        path = os.path.join(self.folder, "metrics")
        m = self.with_gpu(f"host\nmetrics = {path}", STAND_IN_NVML="busy")

        def page():
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(v.PATIENCE)
                client.connect(path)
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return b"".join(iter(lambda: client.recv(65536), b"")).decode()
        text = v.wait_until("the gauge has spoken",
                            lambda: (lambda p: "vgpu_gpu_power_watts" in p and p)(page()))
        gpu = '{pool="A",gpu="0"}'
        for line in ('vgpu_gpu_info{pool="A",gpu="0",name="stand-in",uuid="GPU-5a5a5a5a-5a5a-5a5a-'
                     '5a5a-5a5a5a5a5a5a",bus="0000:01:00.0",driver="555.42.01"} 1',
                     f"vgpu_gpu_memory_total_bytes{gpu} 1073741824",
                     f"vgpu_gpu_memory_used_bytes{gpu} 314572800",
                     f"vgpu_gpu_temperature_celsius{gpu} 41", f"vgpu_gpu_power_watts{gpu} 76.5",
                     f"vgpu_gpu_power_limit_watts{gpu} 650", f"vgpu_gpu_clock_hertz{gpu} 301000000"):
            self.assertIn("\n" + line + "\n", text)
        self.assertNotIn("vgpu_gpu_busy_ratio", text)
        self.assertEqual(m.ask("reload").get("error"), None)

    def test_off(self):
        """Then there is no process that reads them, once the facts are told."""
        m = self.with_gpu("off")
        self.told(m, "number('nvmlDeviceGetNumGpuCores')", 16896)
        v.wait_until("the gauge has ended", lambda: not v.gauges(m.pid))
        self.assertNotIn("has ended", m.read_log())
        self.assertEqual(self.tell(m, "number('nvmlDeviceGetNumGpuCores')"), 16896)

    def test_library_that_crashes(self):
        """Its process is another than the mediator, which says so, and tells what it knows."""
        m = self.with_gpu("guests", STAND_IN_NVML="end")
        v.wait_until("the gauge has ended",
                     lambda: "the process that reads the GPUs' sensors has ended" in m.read_log())
        self.told(m, "number('nvmlDeviceGetTemperature', 0)", -3)
        self.assertEqual(self.tell(m, "number('nvmlDeviceGetNumGpuCores')"), 16896)

    def test_library_that_hangs(self):
        """What CUDA says is told before it is asked, and its process ends with the mediator."""
        m = self.with_gpu("guests", STAND_IN_NVML="hang")
        self.told(m, "text('nvmlDeviceGetName', d)", "stand-in")
        self.assertEqual(self.tell(m, "number('nvmlDeviceGetNumGpuCores')"), -3)
        gauge, = v.gauges(m.pid)
        m.stop(signal.SIGKILL)
        v.wait_until("its end", lambda: not v.program(gauge))

    def test_killed_gauge(self):
        """Whenever it is killed, the sensors are not told any more, and the facts are."""
        m = self.with_gpu("guests")
        self.told(m, "number('nvmlDeviceGetTemperature', 0)", 41)
        os.kill(v.gauges(m.pid)[0], signal.SIGKILL)
        self.told(m, "number('nvmlDeviceGetTemperature', 0)", -3)
        self.assertEqual(self.tell(m, "number('nvmlDeviceGetNumGpuCores')"), 16896)
        self.assertIn("has ended (signal 9)", m.read_log())

    def test_gpu_that_has_gone(self):
        """A gauge that finds none is no reason to call it the CPU."""
        gauge, size = os.memfd_create("gauge"), v.N["VGPU_GAUGE_PAGE_SIZE"]
        os.truncate(gauge, size)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def place():
            os.dup2(theirs.fileno(), v.N["VGPU_WORKER_FD_LINK"])
            os.dup2(gauge, v.N["VGPU_WORKER_FD_GAUGE"])
        with ours, theirs:
            code = subprocess.run([v.WORKER, "--gauge", "--backend", "cuda", "--sensors"],
                                  preexec_fn=place, close_fds=False, check=False,
                                  stderr=subprocess.DEVNULL, timeout=v.PATIENCE).returncode
        self.assertEqual(code, 1)
        self.assertEqual(os.pread(gauge, size, 0), bytes(size))
        os.close(gauge)

    def test_library_that_does_not_start(self):
        m = self.with_gpu("guests", STAND_IN_NVML="init")
        self.told(m, "text('nvmlDeviceGetName', d)", "stand-in")
        self.assertEqual(self.tell(m, "number('nvmlDeviceGetNumGpuCores')"), -3)
        self.assertIn("NVIDIA's management library does not start (error 18)", m.read_log())

    def test_own_library(self):
        """A host on which the guests' library is installed as if it were NVIDIA's."""
        os.unlink(os.path.join(self.folder, "libnvidia-ml.so.1"))
        os.symlink(LIBRARY, os.path.join(self.folder, "libnvidia-ml.so.1"))
        if v.sanitizer(LIBRARY):
            self.skipTest("the worker would need its sanitizer twice")
        m = self.with_gpu("guests")
        self.told(m, "text('nvmlDeviceGetName', d)", "stand-in")
        self.assertIn("is vGPU's own, which is for guests", m.read_log())

    def test_own_libcuda(self):
        """The same of the other library: the log does not blame NVIDIA's driver."""
        os.unlink(os.path.join(self.folder, "libcuda.so.1"))
        library = os.path.join(v.OUT, "guest/libcuda/libcuda.so.1")
        os.symlink(library, os.path.join(self.folder, "libcuda.so.1"))
        if v.sanitizer(library):
            self.skipTest("the worker would need its sanitizer twice")
        result = subprocess.run([v.WORKER, "--probe"], text=True, check=True, capture_output=True,
                                env={**os.environ, "LD_LIBRARY_PATH": self.folder},
                                timeout=v.PATIENCE)
        self.assertRegex(result.stdout, "^cpu the libcuda.so.1 that is found is vGPU's own")

    # Use ------------------------------------------------------------------------------------

    def test_cpu(self):
        m = self.mediator()
        self.told(m, "text('nvmlDeviceGetName', d)", "CPU")
        self.assertEqual(self.tell(m, "words('nvmlDeviceGetMemoryInfo', 3)"),
                         [1024 * MIB, 1024 * MIB, 0])
        self.assertEqual(self.tell(m, "number('nvmlDeviceGetTemperature', 0)"), -3)

    def test_use_of_a_vm(self):
        """Memory and time, of all and of each session, in the VM's own page and in no other's."""
        m = self.mediator("[defaults]\nmemory = 64M")
        one, other = (self.device(m, vm_id=i, queues=2) for i in (7, 8))
        v.wait_until("there is a card", lambda: one.card("facts").startswith(b"CPU\0"))
        self.assertEqual((one.card("size"), one.card("memory_total"), one.card("memory_used")),
                         (v.SIZES["vgpu_card"], 64 * MIB, 0))
        queue = v.Queue(one, 1).open()
        queue.memory(5 * MIB + 1)
        v.wait_until("its memory is told", lambda: one.card("memory_used") >= 5 * MIB)

        def session(number):
            return struct.unpack_from("<II", one.card("session"), 8 * number)
        self.assertGreaterEqual(session(1)[0] * v.N["VGPU_CARD_UNIT"], 5 * MIB)
        self.assertEqual(session(0), (0, 0))
        v.wait_until("it rests", lambda: session(1)[1] == 0)
        kernels = v.Kernels(queue, 0.2)

        def busy():
            kernels.keep_busy(2)
            return session(1)[1] > 300
        v.wait_until("it is busy", busy)
        self.assertGreater(struct.unpack_from("<I", one.card("busy_permille"))[0], 300)
        self.assertEqual((other.card("memory_used"), other.card("busy_permille")[:4]), (0, bytes(4)))
        queue.close()
        v.wait_until("all is given back",
                     lambda: one.card("memory_used") == 0 and session(1) == (0, 0))

    def device(self, mediator, **fields):
        device = v.Device(v.Client(mediator), **fields)
        self.addCleanup(device.close)
        return device

    def test_next_mediator(self):
        """Its card comes in the place of the last one's, as another one."""
        m = self.mediator(keeper=True)
        device = self.device(m, vm_id=7)
        v.wait_until("there is a card", lambda: device.card("facts").startswith(b"CPU\0"))
        before = device.card("sequence")
        m.replace()
        v.wait_until("the next one's", lambda: device.card("sequence") != before)
        self.assertTrue(device.card("facts").startswith(b"CPU\0"))

    # Errors -----------------------------------------------------------------------------------

    def test_more_calls(self):
        """Those of more than one value, with arguments as programs give them."""
        m = self.with_gpu("guests")
        self.told(m, "number('nvmlDeviceGetTemperature', 0)", 41)
        self.assertEqual(self.tell(m, """(lambda w, t, p, f, b, e, q: [
            [n.nvmlDeviceGetTemperatureV(d, ctypes.byref(t)), t[2]],
            [n.nvmlDeviceGetTemperatureV(d, ctypes.byref((ctypes.c_uint * 3)(7, 0, 0)))],
            [n.nvmlDeviceGetPciInfoExt(d, ctypes.byref(p)), p[2], p[6], p[7]],
            [n.nvmlDeviceGetFieldValues(d, 2, ctypes.byref(f)), f[7], f[8], f[17]],
            [n.nvmlDeviceGetP2PStatus(d, d, 0, ctypes.byref(w)), w.value],
            [n.nvmlDeviceGetCpuAffinity(d, 2, ctypes.byref(b)), b[0] & 1],
            [n.nvmlEventSetCreate(ctypes.byref(e)),
             n.nvmlDeviceRegisterEvents(d, ctypes.c_uint64(8), e),
             n.nvmlDeviceRegisterEvents(d, ctypes.c_uint64(8), None),
             n.nvmlEventSetWait_v2(e, ctypes.byref(b), 1), n.nvmlEventSetFree(e)],
            [n.nvmlDeviceGetProcessUtilization(d, None, ctypes.byref(q), ctypes.c_uint64(0))],
            [n.nvmlInitWithFlags(1), n.nvmlShutdown()],
            [n.nvmlDeviceGetCudaComputeCapability(d, ctypes.byref(w), ctypes.byref(q)), w.value],
            ])(ctypes.c_uint(), (ctypes.c_uint * 3)(12 | 1 << 24, 0, 0),
               (ctypes.c_uint * 16)(64 | 1 << 24), (ctypes.c_uint * 20)(186, 0, 0, 0, 0, 0, 0, 0, 0,
               0, 1), (ctypes.c_ulong * 2)(), ctypes.c_void_p(), ctypes.c_uint(0))"""),
            [[0, 41], [25], [0, 1, 3, 2], [0, 0, 76500, 3], [0, 0], [0, 1],
             [0, 0, 2, 10, 0], [6], [0, 0], [0, 9]])

    def test_fork(self):
        """A child goes on, also while other threads are in the library as it is made."""
        m = self.mediator()
        program = self.program(m, """
import os, threading, time
assert begin() == 0
end = time.monotonic() + 2
def work():
    while time.monotonic() < end:
        assert number('nvmlDeviceGetIndex') == 0
threads = [threading.Thread(target=work) for _ in range(2)]
[t.start() for t in threads]
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(number('nvmlDeviceGetIndex'))
    assert os.waitpid(child, 0)[1] == 0
[t.join() for t in threads]
""")
        self.assertEqual(program.communicate(timeout=v.PATIENCE), ("", ""))
        self.assertEqual(program.returncode, 0)

    def test_environment(self):
        """A typing error is no default, for either library."""
        m = self.mediator()
        for name, value in (("VGPU_VM_ID", "4294967297"), ("VGPU_VM_ID", " -1"),
                            ("VGPU_SHM_MIB", "9" * 30), ("VGPU_POOL", "a"), ("VGPU_POOL", "AB"),
                            ("VGPU_PRIORITY", "urgent")):
            program = self.program(m, "print(begin())", **{name: value})
            out, err = program.communicate(timeout=v.PATIENCE)
            self.assertEqual(out, "9\n", (name, value))
            self.assertIn("no device: VGPU_", err)
        self.assertEqual(self.tell(m, "number('nvmlDeviceGetIndex')", VGPU_ADDRESS="",
                                   VGPU_POOL=""), 0)

    def test_wrong_use(self):
        m = self.mediator()
        program = self.program(m, """
answers = [n.nvmlShutdown(), n.nvmlDeviceGetCount_v2(ctypes.byref(ctypes.c_uint())),
           n.nvmlDeviceSetComputeMode(d, 1)]
assert begin() == 0 and n.nvmlInit() == 0
v = ctypes.c_uint()
answers += [n.nvmlDeviceGetCount_v2(None), n.nvmlDeviceGetHandleByIndex_v2(1, ctypes.byref(d)),
            n.nvmlDeviceGetIndex(None, ctypes.byref(v)), n.nvmlDeviceGetIndex(d, None),
            n.nvmlDeviceGetIndex(ctypes.c_void_p(d.value + 8), ctypes.byref(v)),
            n.nvmlDeviceGetName(d, ctypes.create_string_buffer(4), 3),
            n.nvmlDeviceGetMemoryInfo_v2(d, ctypes.byref((ctypes.c_uint64 * 5)(1))),
            n.nvmlDeviceSetComputeMode(d, 1),
            n.nvmlDeviceGetHandleByUUID(b"GPU-1", ctypes.byref(d)),
            n.nvmlDeviceGetHandleByPciBusId_v2(b"00:00.0", ctypes.byref(d)),
            n.nvmlDeviceGetHandleByPciBusId_v2(b"00:01.0", ctypes.byref(d)),
            n.nvmlDeviceGetHandleByPciBusId_v2(b"00:00.7", ctypes.byref(d)),
            n.nvmlDeviceGetHandleByPciBusId_v2(b"0000:00:00.0x", ctypes.byref(d)),
            n.nvmlSystemGetProcessName(1 << 30, ctypes.create_string_buffer(9), 9),
            n.nvmlShutdown(), n.nvmlShutdown(), n.nvmlShutdown()]
print(json.dumps(answers), n.nvmlErrorString(3).decode(), n.nvmlErrorString(12345).decode())
""")
        out, err = program.communicate(timeout=v.PATIENCE)
        self.assertEqual((out, err), ("[1, 1, 1, 2, 2, 2, 2, 2, 7, 25, 3, 6, 0, 6, 2, 2, 6, 0, 0, 1] "
                                      "Not Supported Unknown Error\n", ""))

    def test_no_mediator(self):
        """None to begin with is no driver, and one that goes is a GPU that is lost."""
        m = self.mediator()
        program = self.program(m, "assert begin() == 0\n"
                               "print(number('nvmlDeviceGetIndex'), flush=True)\n"
                               "sys.stdin.readline()\n"
                               "while number('nvmlDeviceGetIndex') == 0:\n"
                               "    pass\n"
                               "print(number('nvmlDeviceGetIndex'))\n")
        self.assertEqual(program.stdout.readline(), "0\n")
        m.stop(signal.SIGKILL)
        self.assertEqual(program.communicate("\n", timeout=v.PATIENCE)[0], "-15\n")
        program = self.program(m, "print(begin())")
        out, err = program.communicate(timeout=v.PATIENCE)
        self.assertEqual(out, "9\n")
        self.assertIn("libnvidia-ml (vGPU): no device: cannot reach the mediator", err)

    def test_names(self):
        """All that the list has is there, and it has what NVIDIA's release 580 exports."""
        wanted = set()
        with open(os.path.join(v.TOP, "guest/libnvml/calls.list"), encoding="utf-8") as file:
            for line in file:
                words = line.split()
                if len(words) > 1 and not line.startswith("#"):
                    wanted.add(words[1])
        library = ctypes.CDLL(LIBRARY) if not v.sanitizer(LIBRARY) else None
        self.assertEqual(len(wanted), 403)
        if library:
            self.assertEqual([name for name in sorted(wanted) if not hasattr(library, name)], [])

    def test_table_of_functions(self):
        """docs/nvml.md ends with what is made of calls.list."""
        folder = os.path.join(v.TOP, "guest/libnvml")
        made = os.path.join(self.folder, "made")
        subprocess.run([os.path.join(folder, "generate.py"), "nvml.md", made,
                        os.path.join(folder, "calls.list")], check=True, timeout=v.PATIENCE)
        with open(made, encoding="utf-8") as file, \
                open(os.path.join(v.TOP, "docs/nvml.md"), encoding="utf-8") as page:
            self.assertEqual(page.read().split("## All functions\n\n")[1], file.read())

    def test_header(self):
        """Values and sizes are those of NVIDIA's header, where there is one."""
        nvcc = shutil.which("nvcc")
        headers = [path for path in (nvcc and os.path.join(os.path.dirname(nvcc), "../include/nvml.h"),
                                     "/usr/include/nvml.h") if path and os.path.exists(path)]
        if not headers:
            self.skipTest("no nvml.h")
        with open(os.path.join(v.TOP, "guest/libnvml/nvml-types.h"), encoding="utf-8") as file:
            types = file.read()
        wanted = (re.findall(r"^ +(NVML_\w+) = (\d+),", types, re.M) +
                  re.findall(r"^#define (NVML_\w+) (\d+)u", types, re.M) +
                  [(f"sizeof({name})", size) for name, size in
                   re.findall(r"sizeof\((nvml\w+)\) == (\d+)", types)
                   if name != "nvmlPciInfo_v2_t"])
        # Names of our own, or of another release's.
        own = ("NVML_VERSION", "NVML_NO_INSTANCE", "NVML_VALUE_TYPE_UNSIGNED_INT",
               "NVML_VALUE_TYPE_UNSIGNED_LONG_LONG", "sizeof(nvmlProcessInfo_v1_t)")
        source = "#include <nvml.h>\n" + "".join(
            f"_Static_assert({name} == {value}, \"{name}\");\n" for name, value in wanted
            if name not in own)
        result = subprocess.run(["cc", "-xc", "-fsyntax-only", "-I", os.path.dirname(headers[0]),
                                 "-"], input=source, text=True, check=False, capture_output=True,
                                timeout=v.PATIENCE)
        self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_private_table(self):
        """What nvidia-smi gets its processes from; an id that nobody knows is no table."""
        m = self.mediator()
        self.assertEqual(self.tell(m, """(lambda t, p: [
            n.nvmlInternalGetExportTable(ctypes.byref(p), b"x" * 16),
            n.nvmlInternalGetExportTable(ctypes.byref(p), bytes.fromhex(
                "c4fe3e6cc98f6c4ea327ee696e12f7c4")),
            ctypes.cast(p, t).contents[0],
            ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(
                ctypes.cast(p, t).contents[213])(d, ctypes.byref(ctypes.c_uint(0))),
            ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.cast(p, t).contents[1])()
            ])(ctypes.POINTER(ctypes.c_uint64 * 300), ctypes.c_void_p())"""),
            [6, 0, 8192, 0, 3])


if __name__ == "__main__":
    v.main()
