# SPDX-License-Identifier: MIT
"""What the wire, qtest and vm tests share: processes under test and the protocol's numbers.

The numbers come from the golden dump of the headers (tests/unit/abi.golden), so that a test
speaks the protocol that is checked in, not one of its own.

Environment:
  VGPU_OUT    the build tree (default build/out)
  VGPU_BUILD  the directory with qemu/ and guest/ (default build)
"""
import json
import mmap
import multiprocessing
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("VGPU_BUILD", os.path.join(TOP, "build"))
OUT = os.environ.get("VGPU_OUT", os.path.join(BUILD, "out"))
ACCEL = ("kvm" if os.environ.get("VGPU_TEST_KVM") else "tcg",)  # the first that works
QEMU = os.path.join(BUILD, "qemu/minimal/qemu-system-x86_64")

# Only a bound on what never happens: busy machines are slow.
PATIENCE = float(os.environ.get("VGPU_PATIENCE", "120"))

MEDIATOR = os.path.join(OUT, "mediator/vgpu-mediator")
KEEPER = os.path.join(OUT, "mediator/vgpu-keeper")
VGPUCTL = os.path.join(OUT, "mediator/vgpuctl")
WORKER = os.path.join(OUT, "worker/vgpu-worker")
CLI = os.path.join(OUT, "guest/vgpu")
SESSION_CHECK = os.path.join(OUT, "tests/session/session-check")
SESSION_LOAD = os.path.join(OUT, "tests/session/session-load")
KILL_AT = os.path.join(OUT, "tests/lib/kill-at")


def native_directory():
    """Where the system has NVIDIA's library; None where it has none. Users have no sbin in PATH."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    listed = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False,
                            env={**os.environ, "PATH": path}).stdout
    found = re.search(r"libcuda\.so\.1 .*=> (.*)/libcuda\.so\.1", listed)
    return found[1] if found else None



# What cuda-sweep compares with: NVIDIA's answers, and the differences that are meant.
SWEPT = ("--golden", os.path.join(TOP, "tests/cuda/sweep.golden"),
         "--known", os.path.join(TOP, "tests/cuda/sweep.known"))


def sanitizer(library):
    """What has to be loaded first where a library is instrumented and the program is not."""
    needed = subprocess.run(["ldd", library], text=True, check=True, capture_output=True).stdout
    found = re.search(r"lib[at]san\S* => (\S+)", needed)
    return {"LD_PRELOAD": found[1]} if found else {}


def _read_abi():
    numbers, fields, sizes = {}, {}, {}
    with open(os.path.join(TOP, "tests/unit/abi.golden"), encoding="ascii") as golden:
        for line in golden:
            words = line.split()
            if words[0] == "number":
                numbers[words[1]] = int(words[2], 0)
            elif words[0] == "field":
                fields[words[1]] = (int(words[2]), int(words[3]))
            elif words[0] == "size":
                sizes[words[1]] = int(words[2])
            elif words[0] == "error":
                numbers["VGPU_ERROR_" + words[2]] = int(words[1])
    return numbers, fields, sizes


N, FIELDS, SIZES = _read_abi()


# What a line of the mediator's and of its workers' log begins with.
LOG_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "


def wait_until(what, condition, patience=PATIENCE):
    """Polls until the condition holds and returns its value."""
    end = time.monotonic() + patience
    pause = 0.00005
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {patience} s for: {what}")
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


def put(buffer, field, value):
    """Stores a number or bytes in a field of a message, by its name in the dump."""
    offset, size = FIELDS[field]
    if isinstance(value, int):
        value = value.to_bytes(size, "little")
    buffer[offset:offset + len(value)] = value


def get(buffer, field):
    offset, size = FIELDS[field]
    return int.from_bytes(buffer[offset:offset + size], "little")


def text(buffer, field):
    offset, size = FIELDS[field]
    return bytes(buffer[offset:offset + size]).split(b"\0")[0].decode()


def message(kind, **fields):
    """An attach message; keywords are field names with '__' for '.'."""
    buffer = bytearray(N["VGPU_MSG_SIZE"])
    put(buffer, "vgpu_msg.magic", N["VGPU_MSG_MAGIC"])
    put(buffer, "vgpu_msg.version", N["VGPU_VERSION"])
    put(buffer, "vgpu_msg.type", N["VGPU_MSG_" + kind])
    for name, value in fields.items():
        put(buffer, "vgpu_msg." + name.replace("__", "."), value)
    return buffer


def hello(vm_id=1, pool="A", priority=1, shm=1 << 20, queues=0, **fields):
    return message("HELLO", **{
        "hello__vm_id": vm_id, "hello__pool": ord(pool), "hello__priority": priority,
        "hello__vectors": 1 + queues, "hello__queues": queues, "hello__shm_size": shm, **fields})


def descriptors(pid):
    """The number of open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def idle_descriptors(pid):
    """The same for a process that rests: what is about to be closed does not count."""
    least = descriptors(pid)
    for _ in range(20):
        time.sleep(0.01)
        least = min(least, descriptors(pid))
    return least


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def program(pid):
    """The name that a process has now; "" where there is none any more, or one that has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            name, rest = file.read().split("(", 1)[1].rsplit(")", 1)
    except OSError:
        return ""
    return "" if rest.split()[0] == "Z" else name


def gauges(pid):
    """What a mediator, whose only child starts it, has read the GPUs' sensors: none, or one."""
    def is_gauge(process):
        try:
            with open(f"/proc/{process}/cmdline", "rb") as file:
                return b"--gauge" in file.read().split(b"\0")
        except OSError:
            return False
    return [child for launcher in children(pid) for child in children(launcher) if is_gauge(child)]


def workers(pid):
    """Of a mediator, likewise: those that serve somebody."""
    started = [child for launcher in children(pid) for child in children(launcher)]
    return [worker for worker in started if worker not in gauges(pid)]


def probe():
    """What the worker finds to compute with, or why it could not be asked."""
    try:
        return subprocess.run([WORKER, "--probe"], capture_output=True, timeout=60, text=True,
                              check=False).stdout
    except OSError as error:
        return str(error)


def listens(path):
    """Whether a connection is taken: a socket's file is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


class Mediator:
    """A mediator of this test's own, with a configuration in a directory of its own."""

    def __init__(self, config="", mediator="", listen=None, keeper=False):
        self.dir = tempfile.TemporaryDirectory(prefix="vgpu-test-")
        self.socket = listen or os.path.join(self.dir.name, "attach")
        self.control = os.path.join(self.dir.name, "control")
        self.config = os.path.join(self.dir.name, "conf")
        self.log = os.path.join(self.dir.name, "log")
        with open(self.config, "w", encoding="ascii") as file:
            file.write(f"[mediator]\nlisten = {self.socket}\ncontrol = {self.control}\n"
                       f"worker = {WORKER}\nbackend = cpu\n{mediator}\n{config}\n")
        self.keeper = [KEEPER, "--start-limit", "0", "--"] if keeper else []
        self.process = None
        self.start()

    def start(self):
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen([*self.keeper, MEDIATOR, "--config", self.config,
                                             "--debug"], stdin=subprocess.DEVNULL, stderr=log)
        wait_until("the mediator listens", lambda: self.process.poll() is not None or
                   listens(self.control))
        if self.process.poll() is not None:
            raise AssertionError("the mediator ended: " + self.read_log())

    @property
    def pid(self):
        """The mediator's; that of a keeper's mediator is another one after each of its ends."""
        if not self.keeper:
            return self.process.pid
        return wait_until("a mediator", lambda: next(
            (pid for pid in children(self.process.pid) if program(pid) == "vgpu-mediator"), None))

    def read_log(self):
        with open(self.log, encoding="utf-8") as file:
            return file.read()

    def ask(self, command, **arguments):
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(PATIENCE)
            control.connect(self.control)
            control.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                piece = control.recv(65536)
                if not piece:
                    break
                answer += piece
        return json.loads(answer)

    def vms(self):
        return {vm["vm"]: vm for vm in self.ask("list")["vms"]}

    def vm(self, vm_id, **expected):
        """Waits until a VM is attached and in the expected state; its description."""
        def look():
            vm = self.vms().get(vm_id)
            if vm and all(vm[key] == value for key, value in expected.items()):
                return vm
            return None
        return wait_until(f"VM {vm_id} {expected}", look)

    def replace(self, how=signal.SIGKILL):
        """Ends a keeper's mediator; when, as soon as there is another, which may not answer yet."""
        pid = self.pid
        os.kill(pid, how)
        at = time.monotonic()
        wait_until("the next mediator", lambda: self.pid != pid)
        return at

    def stop(self, with_signal=signal.SIGTERM):
        """Ends it; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        code = self.process.wait(PATIENCE)
        if with_signal == signal.SIGKILL:
            # start() waits for it; a mediator that ends by itself takes it along.
            os.unlink(self.control)
        return code

    def close(self):
        self.stop()
        self.dir.cleanup()


class Aside:
    """Something that goes on in a process of its own until it is told to stop: run(), of others."""

    def __init__(self):
        self.begun, self.stop = multiprocessing.Event(), multiprocessing.Event()
        self.results, theirs = multiprocessing.Pipe(False)
        self.process = multiprocessing.Process(target=self.body, args=(theirs,))
        self.process.start()
        theirs.close()

    def body(self, results):
        results.send(self.run())
        self.linger()

    def linger(self):
        """What it does when its result is known."""

    def result(self):
        self.stop.set()
        if not self.results.poll(2 * PATIENCE):
            raise AssertionError("it does not end")
        return self.results.recv()

    def end(self):
        result = self.result()
        self.process.join(PATIENCE)
        return result


class Client:
    """Raw bytes on the attach socket."""

    def __init__(self, mediator):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(mediator.socket)
        self.fds = []

    def send(self, buffer, fds=()):
        if fds:
            socket.send_fds(self.socket, [bytes(buffer)], list(fds))
        else:
            self.socket.sendall(bytes(buffer))

    def receive(self):
        """A whole message, or what there was before the end of file."""
        buffer = b""
        while len(buffer) < N["VGPU_MSG_SIZE"]:
            piece, fds, _, _ = socket.recv_fds(self.socket, N["VGPU_MSG_SIZE"] - len(buffer), 16)
            self.fds += fds
            if not piece:
                break
            buffer += piece
        return bytearray(buffer)

    def attach(self, **fields):
        self.send(hello(**fields))
        answer = self.receive()
        if get(answer, "vgpu_msg.type") != N["VGPU_MSG_ATTACHED"]:
            raise AssertionError("refused: " + text(answer, "vgpu_msg.refused.reason"))
        return answer

    def take_fds(self, count=3):
        """The descriptors that came, which are `count`: those that FDS messages bring too."""
        while len(self.fds) < count:
            if get(self.receive(), "vgpu_msg.type") != N["VGPU_MSG_FDS"]:
                raise AssertionError(f"{len(self.fds)} descriptors came, not {count}")
        fds, self.fds = self.fds, []
        return fds

    def close(self):
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def may_trace():
    """Whether one process may watch another one here."""
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        with subprocess.Popen([KILL_AT, str(sleeper.pid), "100"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as killer:
            watching = killer.stdout.readline() == b"watching\n"
            killer.stdin.close()
            killer.stdin = None
        sleeper.kill()
    return watching


class Device:
    """What a host process sees after it has attached: shared memory, registers, doorbell."""

    def __init__(self, client, answer=None, fds=None, **fields):
        self.client = client
        self.answer = answer or client.attach(**fields)
        self.queues = get(self.answer, "vgpu_msg.attached.queues")
        self.fds = fds or client.take_fds(3 + 2 * self.queues)
        self.memfd, self.doorbell = self.fds[:2]
        self.irq = self.fds[2 + self.queues]
        self.shm_size = get(self.answer, "vgpu_msg.attached.shm_size")
        self.map = mmap.mmap(self.memfd, self.shm_size + N["VGPU_REGS_SIZE"])

    def word(self, name):
        offset, size = FIELDS["vgpu_regs_page." + name]
        offset += self.shm_size
        return int.from_bytes(self.map[offset:offset + size], "little")

    def set_word(self, name, value):
        offset, size = FIELDS["vgpu_regs_page." + name]
        offset += self.shm_size
        self.map[offset:offset + size] = value.to_bytes(size, "little")

    def card(self, name):
        """A number of the card that the host has stored; of another field its bytes."""
        start = self.shm_size + N["VGPU_REG_CARD"]
        offset, size = FIELDS["vgpu_card." + name]

        def read():
            whole = self.map[start:start + SIZES["vgpu_card"]]
            again = self.map[start:start + 4]
            return whole if whole[:4] == again != bytes(4) and not again[0] & 1 else None
        value = wait_until("a card", read)[offset:offset + size]
        return int.from_bytes(value, "little") if size <= 8 else value

    def ring(self, request, length=None):
        """Writes a request and rings, without waiting."""
        offset = self.shm_size + FIELDS["vgpu_regs_page.request"][0]
        self.map[offset:offset + len(request)] = request
        self.set_word("request_len", len(request) if length is None else length)
        os.eventfd_write(self.doorbell, 1)

    def status(self):
        """As the stub computes it, but for OFFLINE."""
        if select.select([self.doorbell], [], [], 0)[0]:
            return N["VGPU_STATUS_BUSY"]
        return self.word("status")

    def finish(self):
        """Waits for the answer; (ERROR, response)."""
        wait_until("an answer", lambda: self.status() in (N["VGPU_STATUS_COMPLETE"],
                                                          N["VGPU_STATUS_ERROR"]))
        if self.status() == N["VGPU_STATUS_ERROR"]:
            return self.word("error"), b""
        offset = self.shm_size + FIELDS["vgpu_regs_page.response"][0]
        return 0, self.map[offset:offset + self.word("response_len")]

    def call(self, request, length=None):
        self.ring(request, length)
        return self.finish()

    def close(self):
        self.map.close()
        for fd in self.fds:
            os.close(fd)
        self.client.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def queues_max(shm_size):
    """vgpu_queues_max() of protocol/vgpu-queue.h."""
    return min(N["VGPU_MAX_QUEUES"],
               (shm_size // 2 - N["VGPU_CONTROL_SIZE"]) // N["VGPU_QUEUE_SIZE"])


def arena_offset(shm_size, queues):
    """vgpu_arena_offset() of protocol/vgpu-queue.h."""
    align = 2 << 20 if shm_size >= 64 << 20 else 4096
    end = N["VGPU_CONTROL_SIZE"] + queues * N["VGPU_QUEUE_SIZE"]
    return (end + align - 1) // align * align


STATES = {N["VGPU_QUEUE_" + name]: name for name in ("FREE", "STARTING", "RUNNING", "ENDED")}
ENDS = {value: name[len("VGPU_QUEUE_END_"):] for name, value in N.items()
        if name.startswith("VGPU_QUEUE_END_")}


def command(opcode, body=b"", slot=0, sequence=0, length=None, reserved=0):
    """A command's bytes; `opcode` is a number or a name, the rest what the header shall say."""
    padded = body + bytes(-len(body) % N["VGPU_COMMAND_ALIGN"])
    header = struct.pack("<HHIII", N["VGPU_CMD_" + opcode] if isinstance(opcode, str) else opcode,
                         slot, 16 + len(padded) if length is None else length, sequence, reserved)
    return header + padded


class Queue:
    """A command queue of a Device, byte by byte; nothing is mapped where its claim says."""

    # Of the arena, where libvgpu has its own too.
    ADDRESS = 0x200000000000

    def __init__(self, device, number=0, address=ADDRESS, size=1 << 16):
        self.device = device
        self.number = number
        self.address = address
        self.size = size
        # Parts of the arena side by side.
        self.offset = arena_offset(device.shm_size, device.queues) + number * size
        self.base = N["VGPU_CONTROL_SIZE"] + number * N["VGPU_QUEUE_SIZE"]
        self.doorbell = device.fds[2 + number]
        self.irq = device.fds[3 + device.queues + number]
        self.tail = self.sequence = 0

    # The header and the slots.

    def word(self, name):
        offset, size = FIELDS["vgpu_queue." + name]
        offset += self.base
        return int.from_bytes(self.device.map[offset:offset + size], "little")

    def set_word(self, name, value):
        offset, size = FIELDS["vgpu_queue." + name]
        offset += self.base
        self.device.map[offset:offset + size] = value.to_bytes(size, "little")

    def slot(self, slot):
        """(sequence, result, payload) as they are now."""
        offset = self.base + FIELDS["vgpu_queue.slots"][0] + 192 * (slot - 1)
        sequence, result, length = struct.unpack_from("<III", self.device.map, offset)
        return sequence, result, self.device.map[offset + 16:offset + 16 + length]

    # Opening and closing.

    def status(self):
        """(state, reason, count), the first two by name."""
        offset = self.device.shm_size + FIELDS["vgpu_regs_page.queue_status"][0] + 4 * self.number
        word = int.from_bytes(self.device.map[offset:offset + 4], "little")
        return STATES[word & 0xff], ENDS[word >> 8 & 0xff], word >> 16

    def state(self):
        return self.status()[0]

    def claim(self, **fields):
        """Writes the claim; keywords say it otherwise."""
        claim = bytearray(32)
        for name, value in {"arena_address": self.address, "arena_offset": self.offset,
                            "arena_size": self.size, "reserved": 0, **fields}.items():
            put(claim, "vgpu_claim." + name, value)
        self.device.map[32 * self.number:32 * self.number + 32] = bytes(claim)

    def clear(self):
        """As before every OPEN: the header and the slots."""
        start = FIELDS["vgpu_queue.ring"][0]
        self.device.map[self.base:self.base + start] = bytes(start)
        self.tail = 0

    def send(self, action):
        """A QUEUE message; `action` is a name or a number."""
        self.device.client.send(message(
            "QUEUE", queue__queue=self.number,
            queue__action=N["VGPU_QUEUE_" + action] if isinstance(action, str) else action))

    def wait_state(self, *states):
        return wait_until(f"queue {self.number} is {states}",
                          lambda: self.state() in states and self.status())

    def begin(self, **claim):
        """Asks for a session without waiting for it; is none running."""
        self.clear()
        self.claim(**claim)
        count = self.status()[2]
        self.send("OPEN")
        wait_until("OPEN is counted", lambda: self.status()[2] != count)

    def open(self, **claim):
        """Opens a session, which has to succeed."""
        self.begin(**claim)
        status = self.wait_state("RUNNING", "ENDED")
        if status[0] != "RUNNING":
            raise AssertionError(f"queue {self.number} did not open: {status}")
        return self

    def close(self):
        self.send("CLOSE")
        return self.wait_state("FREE")

    def good(self, number=1):
        """Memory, work and answers, there and back; all of it has to be right."""
        done, memory = (N["VGPU_GPU_SUCCESS"], b""), self.memory(4096)
        for opcode, body in (("FILL", cmd_fill(memory, number, 1024)),
                             ("COPY", cmd_copy(self.address, memory, 4096, "FROM_DEVICE")),
                             ("SYNC", b"")):
            if self.call(opcode, body) != done:
                raise AssertionError(f"{opcode} has failed")
        if self.device.map[self.offset:self.offset + 4096] != struct.pack("<I", number) * 1024:
            raise AssertionError("wrong bytes")
        if self.call("MEM_FREE", struct.pack("<QQ", memory, 0)) != done:
            raise AssertionError("MEM_FREE has failed")

    def end(self):
        """Waits until the session ends by itself; why."""
        return self.wait_state("ENDED")[1]

    # Commands.

    def put(self, data, at=None):
        """Stores bytes in the ring, at the tail, without posting them."""
        at = self.tail if at is None else at
        ring, size = self.base + FIELDS["vgpu_queue.ring"][0], N["VGPU_RING_SIZE"]
        first = min(len(data), size - at % size)
        self.device.map[ring + at % size:ring + at % size + first] = data[:first]
        self.device.map[ring:ring + len(data) - first] = data[first:]

    def push(self, count, ring=True):
        """Posts so many bytes, whatever they are; rings whether the worker sleeps or not."""
        self.tail = (self.tail + count) % (1 << 32)
        self.set_word("tail", self.tail)
        if ring:
            os.eventfd_write(self.doorbell, 1)

    def post(self, data, ring=True):
        """Bytes in the ring as they are, but for a PAD where a command would cross its end."""
        left = -self.tail % N["VGPU_RING_SIZE"]
        pad = left if left < len(data) else 0
        wait_until("room in the ring", lambda: self.taken(N["VGPU_RING_SIZE"] - len(data) - pad))
        if pad:
            self.put(command("PAD", length=pad))
        self.put(data, self.tail + pad)
        self.push(pad + len(data), ring)

    def taken(self, left=0):
        """Whether the worker has left no more than so many bytes."""
        return (self.tail - self.word("head")) % (1 << 32) <= left

    def ask(self, opcode, body=b"", slot=1, ring=True):
        """Posts a command with a slot; what answer() takes."""
        self.sequence += 1
        self.post(command(opcode, body, slot, self.sequence), ring)
        return slot, self.sequence

    def answered(self, ticket):
        return self.slot(ticket[0])[0] == ticket[1]

    def answer(self, ticket):
        """(result, payload), or an error when the session ends instead."""
        wait_until("an answer", lambda: self.answered(ticket) or self.state() != "RUNNING")
        if not self.answered(ticket):
            raise AssertionError(f"no answer: {self.status()}")
        return self.slot(ticket[0])[1:]

    def call(self, opcode, body=b"", slot=1):
        return self.answer(self.ask(opcode, body, slot))

    def value(self, opcode, body=b""):
        """The value that a command returns; it has to succeed."""
        result, payload = self.call(opcode, body)
        if result != N["VGPU_GPU_SUCCESS"]:
            raise AssertionError(f"{opcode}: {result}")
        return struct.unpack_from("<Q", payload)[0]

    def nop(self):
        """Whether the worker is there and answers."""
        return self.call("NOP") == (N["VGPU_GPU_SUCCESS"], b"")

    def memory(self, size):
        """Device memory; its address."""
        return self.value("MEM_ALLOC", struct.pack("<QQ", size, 0))

    def function(self, name):
        module = self.value("MODULE_BUILTIN")
        return self.value("FUNCTION_GET", struct.pack("<QQ", module, len(name)) + name.encode())


def cmd_copy(to, source, size, kind, stream=0):
    return struct.pack("<QQQQIIQ", to, source, size, stream, N["VGPU_COPY_" + kind], 0, 0)


def cmd_fill(address, value, count, width=4, stream=0):
    return struct.pack("<QQQIIQQ", address, count, stream, value, width, 0, 1)


def cmd_launch(function, params, param_bytes=None, attributes=0):
    return struct.pack("<QQIIIIIIIIQ", function, 0, 1, 1, 1, 32, 1, 1, 0,
                       len(params) if param_bytes is None else param_bytes, attributes) + params


class Kernels:
    """Kernels of one length, each with a fence behind it that tells when it is done."""

    def __init__(self, queue, seconds):
        self.queue = queue
        self.launch = command("LAUNCH", cmd_launch(
            queue.function("spin"), struct.pack("<Q", int(seconds * 1e9))))
        self.under_way = []
        self.done = 0
        self.posted = 0

    def post(self):
        self.queue.post(self.launch, ring=False)
        slot = self.posted % N["VGPU_SLOTS"] + 1
        self.under_way.append(self.queue.ask("FENCE", bytes(16), slot))
        self.posted += 1

    def count(self):
        """How many are done."""
        while self.under_way and self.queue.answered(self.under_way[0]):
            self.under_way.pop(0)
            self.done += 1
        return self.done

    def keep_busy(self, depth=16):
        self.count()
        while len(self.under_way) < depth:
            self.post()


def request(opcode, kind=0, count=0, operands=b""):
    return struct.pack("<IIQ", opcode, kind, count) + operands


def add_inline(a, b):
    return request(N["VGPU_OP_ADD_INLINE"], N["VGPU_TYPE_INT32"], len(a),
                   struct.pack(f"<{2 * len(a)}i", *a, *b))


def add_shm(count, a, b, total, kind=None):
    return request(N["VGPU_OP_ADD_SHM"], kind or N["VGPU_TYPE_INT32"], count,
                   struct.pack("<QQQ", a, b, total))


class Monitor:
    """QMP, over a descriptor that QEMU inherits: it is started with `options` and `theirs`."""

    def __init__(self, stderr=lambda: b""):
        self.ours, self.theirs = socket.socketpair()
        self.ours.settimeout(PATIENCE)
        self.options = ("-chardev", f"socket,id=qmp,fd={self.theirs.fileno()}",
                        "-mon", "chardev=qmp,mode=control")
        self.stderr = stderr
        self.buffer = b""
        self.events = []
        self.greeted = False

    def _read(self):
        while b"\n" not in self.buffer:
            piece = self.ours.recv(65536)
            if not piece:
                raise AssertionError("QEMU ended: " + self.stderr().decode())
            self.buffer += piece
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def execute(self, name, **arguments):
        """The answer's value; an error is raised, with its description."""
        if not self.greeted:
            self._read()
            self.greeted = True
            self.execute("qmp_capabilities")
        self.ours.sendall(json.dumps({"execute": name, "arguments": arguments}).encode())
        while True:
            answer = self._read()
            if "error" in answer:
                raise AssertionError(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]
            self.events.append(answer["event"])

    def wait_event(self, name):
        while name not in self.events:
            self.events.append(self._read()["event"])
        self.events.clear()

    def wait_migrated(self):
        """How the migration that was begun has ended."""
        ends = "completed", "failed"
        return wait_until("the migration's end", lambda: next(
            (end for end in ends if self.execute("query-migrate")["status"] == end), None))

    def close(self):
        self.ours.close()


class Guest:
    """A real guest: QEMU with the stub, a Debian kernel, a shell on the serial line."""

    def __init__(self, mediator, vm_id, priority="medium", pool="A", shm="256M", memory=256,
                 extra=(), device="", pass_fds=(), reboot=False, kernel="",
                 image="initramfs.cpio", qemu=QEMU, environment=None, accel=ACCEL, plug=True):
        self.name = f"guest{vm_id}"
        guest = os.path.join(BUILD, "guest")
        arguments = [
            qemu, "-L", os.path.join(guest, "firmware"), "-M", "q35",
            *(word for name in accel for word in ("-accel", name)), "-cpu", "max", "-m", str(memory),
            "-nodefaults", "-no-user-config", *([] if reboot else ["-no-reboot"]), "-display", "none", "-name", self.name,
            "-serial", "stdio", "-kernel", os.path.join(guest, "vmlinux"),
            "-initrd", os.path.join(guest, image),
            # Emulated on a busy machine, timers look broken and everything stuck.
            "-append", "console=ttyS0 quiet nokaslr no_timer_check nowatchdog " + kernel,
            "-chardev", f"socket,id=mediator,path={mediator.socket},reconnect=1",
            *(["-device", f"vgpu-stub,chardev=mediator,vm-id={vm_id},pool={pool},"
                          f"priority={priority},shm={shm}{device}"] if plug else []), *extra]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, pass_fds=pass_fds,
                                        env=environment)
        self.buffer = b""
        self.count = 0

    def _read_until(self, pattern, patience):
        end = time.monotonic() + patience
        while True:
            match = re.search(pattern, self.buffer, re.S)
            if match:
                self.buffer = self.buffer[match.end():]
                return match
            ready, _, _ = select.select([self.process.stdout], [], [],
                                        max(end - time.monotonic(), 0))
            piece = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not piece:
                # No error text of a QEMU that still runs: reading it would wait for its end.
                error = b""
                if self.process.poll() is not None:
                    error = self.process.stderr.read()
                raise AssertionError(f"{self.name}: no {pattern!r} in {self.buffer!r}; {error!r}")
            self.buffer += piece

    def wait_boot(self, patience=PATIENCE):
        self._read_until(rb"guest ready\r?\n", patience)

    def send(self, command):
        """Starts a command; finish() waits for it."""
        self.count += 1
        line = f"( {command} ) </dev/null 2>&1; echo \"[$?:{self.count}]\"\n"
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()

    def finish(self, patience=PATIENCE):
        """The exit code and output of the command that send() started."""
        match = self._read_until(rb"(.*?)\[(\d+):%d\]\r?\n" % self.count, patience)
        output = match.group(1).decode(errors="replace").replace("\r\n", "\n")
        return int(match.group(2)), output

    def run(self, command, patience=PATIENCE):
        self.send(command)
        return self.finish(patience)

    def good(self, command):
        """The output of a command that has to succeed."""
        code, output = self.run(command)
        if code != 0:
            raise AssertionError(f"{self.name}: {command}: {code}: {output}")
        return output

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


class TestCase(unittest.TestCase):
    """A test with a mediator of its own unless it makes one itself."""

    def mediator(self, *arguments, **keywords):
        mediator = Mediator(*arguments, **keywords)
        self.addCleanup(mediator.close)
        return mediator

    def guest(self, *arguments, **keywords):
        guest = Guest(*arguments, **keywords)
        self.addCleanup(guest.kill)
        return guest


def main():
    """Runs the calling module's tests, or those that the command line names, and adds up."""
    module = sys.modules["__main__"]
    loader = unittest.defaultTestLoader
    suite = (loader.loadTestsFromNames(sys.argv[1:], module) if len(sys.argv) > 1 else
             loader.loadTestsFromModule(module))
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    skipped = len(result.skipped)
    # A test whose clean-up fails too counts once.
    failed = len({test.id() for test, _ in result.failures + result.errors})
    print(f"{result.testsRun - failed - skipped} passed, {failed} failed, {skipped} skipped")
    raise SystemExit(1 if failed else 0)
