# SPDX-License-Identifier: MIT
"""What the tests of the device share: a QEMU whose processor is qtest, and a mediator to play."""
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402
from vgputest import N  # noqa: E402

SLOT = 4
BAR0, BAR2, BAR4 = 0xE0000000, 0xD0000000, 0xE0010000
RAM = 0x1000  # where the test's MSI-X messages land
STATUS = BAR0 + N["VGPU_REG_STATUS"]
IDLE, BUSY, COMPLETE = N["VGPU_STATUS_IDLE"], N["VGPU_STATUS_BUSY"], N["VGPU_STATUS_COMPLETE"]
ERROR, OFFLINE = N["VGPU_STATUS_ERROR"], N["VGPU_STATUS_OFFLINE"]
OPEN, CLOSE = N["VGPU_QUEUE_OPEN"], N["VGPU_QUEUE_CLOSE"]
VM7 = "vm-id=7,shm=16M"


class Machine:
    """A QEMU whose processor is the test."""

    def __init__(self, chardev=None, device="vm-id=7", extra=(), pass_fds=(), plug=True,
                 accel="qtest"):
        self.qtest, theirs = socket.socketpair()
        self.qmp = v.Monitor(lambda: self.process.stderr.read())
        arguments = [v.QEMU, "-M", "q35", "-m", "64", "-accel", accel, "-nodefaults",
                     "-no-user-config", "-display", "none",
                     "-L", os.path.join(v.BUILD, "guest/firmware"),
                     "-chardev", f"socket,id=qtest,fd={theirs.fileno()}",
                     "-qtest", "chardev:qtest", "-qtest-log", "/dev/null",
                     *self.qmp.options, *extra]
        if chardev:
            arguments += ["-chardev", "socket,id=mediator," + chardev]
        if plug:
            arguments += ["-device", f"vgpu-stub,id=gpu,chardev=mediator,addr={SLOT},{device}"]
        self.process = subprocess.Popen(
            arguments, pass_fds=(theirs.fileno(), self.qmp.theirs.fileno(), *pass_fds),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        theirs.close()
        self.qmp.theirs.close()
        self.qtest.settimeout(v.PATIENCE)
        self.buffer = b""

    def _line(self):
        while b"\n" not in self.buffer:
            piece = self.qtest.recv(65536)
            if not piece:
                raise AssertionError("QEMU ended: " + self.process.stderr.read().decode())
            self.buffer += piece
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line

    def command(self, text):
        self.qtest.sendall(text.encode() + b"\n")
        while True:
            line = self._line().decode().split()
            if line[0] == "OK":
                return int(line[1], 0) if len(line) > 1 else 0
            if line[0] != "IRQ":
                raise AssertionError(f"{text}: {line}")

    def execute(self, name, **arguments):
        """A QMP command."""
        return self.qmp.execute(name, **arguments)

    def wait_event(self, name):
        self.qmp.wait_event(name)

    def hmp(self, text):
        return self.execute("human-monitor-command", **{"command-line": text})

    def read(self, address, size="l"):
        return self.command(f"read{size} {address:#x}")

    def write(self, address, value, size="l"):
        self.command(f"write{size} {address:#x} {value:#x}")

    def config(self, register, slot=SLOT, bus=0):
        self.command(f"outl 0xcf8 {0x80000000 | bus << 16 | slot << 11 | register:#x}")
        return self.command("inl 0xcfc")

    def set_config(self, register, value, slot=SLOT, bus=0):
        self.command(f"outl 0xcf8 {0x80000000 | bus << 16 | slot << 11 | register:#x}")
        self.command(f"outl 0xcfc {value:#x}")

    def map(self, slot=SLOT, bus=0):
        """Does the firmware's work."""
        for register, address in ((0x10, BAR0), (0x18, BAR2), (0x1C, 0), (0x20, BAR4)):
            self.set_config(register, address, slot, bus)
        self.set_config(4, 6, slot, bus)
        return self

    def msix(self, on, masked=False, vectors=1):
        """Vector N stores 0xabcd + N at RAM + 4 * N: there is no interrupt controller to ask."""
        for i in range(vectors):
            for offset, value in ((0, RAM + 4 * i), (4, 0), (8, 0xABCD + i), (12, int(masked))):
                self.write(BAR4 + 16 * i + offset, value)
            self.write(RAM + 4 * i, 0)
        capability = self.config(0x34) & 0xFF
        while self.config(capability) & 0xFF != 0x11:
            capability = self.config(capability) >> 8 & 0xFF
        self.set_config(capability, int(on) << 31)

    def request(self, body):
        for i in range(0, len(body), 4):
            self.write(BAR0 + N["VGPU_REG_REQUEST"] + i, struct.unpack_from("<I", body, i)[0])
        self.write(BAR0 + N["VGPU_REG_REQUEST_LEN"], len(body))

    def ring(self):
        self.write(BAR0 + N["VGPU_REG_DOORBELL"], 1)

    def queue(self, register, queue):
        """The address of a queue's DOORBELL, STATUS or CONTROL."""
        return BAR0 + N["VGPU_REG_QUEUE_" + register] + 4 * queue

    def control(self, queue, action):
        self.write(self.queue("CONTROL", queue), action)

    def reboot(self):
        self.execute("system_reset")
        self.wait_event("RESET")
        self.map()

    def property(self, name):
        return self.execute("qom-get", path="/machine/peripheral/gpu", property=name)

    def finish(self):
        """Waits for the answer as a guest does: while busy."""
        v.wait_until("an answer", lambda: self.read(STATUS) != BUSY)
        if self.read(STATUS) == ERROR:
            return self.read(BAR0 + N["VGPU_REG_ERROR"]), b""
        length = self.read(BAR0 + N["VGPU_REG_RESPONSE_LEN"])
        words = [self.read(BAR0 + N["VGPU_REG_RESPONSE"] + i) for i in range(0, length, 4)]
        return 0, struct.pack(f"<{len(words)}I", *words)

    def call(self, body):
        self.request(body)
        self.ring()
        return self.finish()

    def wait_status(self, *wanted):
        v.wait_until(f"STATUS {wanted}", lambda: self.read(STATUS) in wanted)

    def close(self):
        self.qtest.close()
        self.qmp.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(v.PATIENCE)
        self.process.stderr.close()


class Device(v.TestCase):
    def machine(self, *arguments, **keywords):
        machine = Machine(*arguments, **keywords)
        self.addCleanup(machine.close)
        return machine

    def attached(self, device=VM7 + ",pool=A,priority=high", **keywords):
        """A mapped device with the real mediator behind it."""
        self.m = self.mediator()
        machine = self.machine(f"path={self.m.socket},reconnect=1", device, **keywords).map()
        machine.wait_status(IDLE)
        # The worker has started up: GENERATION and FEATURES are its own.
        self.m.vm(7, state="idle")
        return machine

    def leave_waiting(self, q):
        """A request whose turn does not come before the pool is resumed."""
        self.m.ask("pause", pool="A")
        q.request(v.add_inline([1], [2]))
        q.ring()
        self.m.vm(7, state="waiting")

    def failing(self, device, chardev=None, plug=True, words=""):
        m = self.mediator()
        machine = self.machine(chardev or f"path={m.socket}", device, plug=plug)
        machine.process.wait(v.PATIENCE)
        self.assertEqual(machine.process.returncode, 1)
        self.assertIn(words, machine.process.stderr.read().decode())


class Played(Device):
    """The test is the mediator: it sees each message and has the other end of each descriptor."""

    def plug(self, device, **keywords):
        """Starts QEMU on a connection to us that nothing can replace."""
        self.ours, theirs = socket.socketpair()
        self.addCleanup(self.ours.close)
        q = self.machine(f"fd={theirs.fileno()}", device, pass_fds=[theirs.fileno()], **keywords)
        theirs.close()
        self.hello, _ = self.receive("HELLO")
        return q

    def serve(self, device):
        """Starts QEMU, which connects to us again and again."""
        directory = tempfile.TemporaryDirectory(prefix="vgpu-test-")
        self.addCleanup(directory.cleanup)
        self.server = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.server.close)
        self.server.settimeout(v.PATIENCE)
        self.server.bind(os.path.join(directory.name, "attach"))
        self.server.listen(1)
        q = self.machine(f"path={self.server.getsockname()},reconnect=1", device)
        self.accept()
        return q

    def accept(self):
        """The next connection; the descriptors that its HELLO brings."""
        self.ours, _ = self.server.accept()
        self.addCleanup(self.ours.close)
        self.hello, fds = self.receive("HELLO")
        return fds

    def hang_up(self, q):
        self.ours.close()
        q.wait_status(OFFLINE)

    def receive(self, kind):
        self.ours.settimeout(v.PATIENCE)
        buffer, fds = b"", []
        while len(buffer) < N["VGPU_MSG_SIZE"]:
            left = N["VGPU_MSG_SIZE"] - len(buffer)
            piece, more, _, _ = socket.recv_fds(self.ours, left, N["VGPU_MSG_FDS_MAX"])
            self.assertTrue(piece, "QEMU has hung up")
            buffer += piece
            fds += more
        for fd in fds:
            self.addCleanup(os.close, fd)
        self.assertEqual(v.get(buffer, "vgpu_msg.type"), N["VGPU_MSG_" + kind])
        return buffer, fds

    def expect(self, kind, **fields):
        """The next message, with these fields; its serial."""
        buffer, _ = self.receive(kind)
        for name, value in fields.items():
            self.assertEqual(v.get(buffer, "vgpu_msg." + name.replace("__", ".")), value, name)
        return v.get(buffer, "vgpu_msg.serial")

    def expect_nothing(self):
        """What a register's handler sends is there when the access is over."""
        self.assertEqual(select.select([self.ours], [], [], 0)[0], [])

    def send(self, buffer, fds=(), serial=None):
        if serial is None:
            serial = v.get(self.hello, "vgpu_msg.serial")
        v.put(buffer, "vgpu_msg.serial", serial)
        socket.send_fds(self.ours, [bytes(buffer)], fds)

    def all_read(self):
        """Whether QEMU has read, and with that acted upon, all that we sent."""
        return fcntl.ioctl(self.ours, termios.TIOCOUTQ, bytes(4)) == bytes(4)

    def answer(self, queues=0, shm=1 << 20, **fields):
        return v.message("ATTACHED", **{
            "attached__vm_id": 7, "attached__pool": 65, "attached__vectors": 1 + queues,
            "attached__queues": queues, "attached__shm_size": shm, **fields})

    def memfd(self, shm=1 << 20, size=None, seals=6):
        fd = os.memfd_create("t", os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size or shm + N["VGPU_REGS_SIZE"])
        fcntl.fcntl(fd, 1033, seals)
        self.addCleanup(os.close, fd)
        return fd

    def eventfd(self):
        fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.addCleanup(os.close, fd)
        return fd

    def descriptors(self, queues=0, memfd=None):
        """All that a mediator hands over, in order."""
        self.doorbells = [self.eventfd() for _ in range(1 + queues)]
        self.irqs = [self.eventfd() for _ in range(1 + queues)]
        return [memfd or self.memfd(), *self.doorbells, *self.irqs]

    def messages(self, queues, shm):
        """(message, descriptors) that attach a device for the first time."""
        memfd = self.memfd(shm)
        self.page = mmap.mmap(memfd, N["VGPU_REGS_SIZE"], offset=shm)
        self.addCleanup(self.page.close)
        fds = self.descriptors(queues, memfd)
        most = N["VGPU_MSG_FDS_MAX"]
        return [(v.message("FDS") if i else self.answer(queues, shm), fds[i:i + most])
                for i in range(0, len(fds), most)]

    def grant(self, q, queues=20, shm=8 << 20):
        """Answers the HELLO of a device."""
        for buffer, fds in self.messages(queues, shm):
            self.send(buffer, fds)
        q.map().wait_status(IDLE)
        return q

    def grant_again(self, q, queues=20, shm=8 << 20):
        """Answers the HELLO of one that has its descriptors."""
        self.send(self.answer(queues, shm))
        v.wait_until("attached", lambda: q.property("state") == "attached")

    def with_queues(self, queues=20, shm=8 << 20, device="", **keywords):
        """An attached device."""
        q = self.plug(f"vm-id=7,shm={shm},queues={queues}{device}", **keywords)
        return self.grant(q, queues, shm)

    def set_status(self, queue, state="FREE", count=0, end=0):
        word = N["VGPU_QUEUE_" + state] | end << 8 | count << 16
        struct.pack_into("<I", self.page, N["VGPU_REG_QUEUE_STATUS"] + 4 * queue, word)
        return word

    def rung(self):
        """Which doorbells were rung since the last look."""
        ready = select.select(self.doorbells, [], [], 0)[0]
        for fd in ready:
            os.eventfd_read(fd)
        return [self.doorbells.index(fd) for fd in ready]
