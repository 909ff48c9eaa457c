#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What one VM does to others: attacks, one after the other, beside a session and a VM in register
mode whose every byte is checked. VGPU_ATTACK_SECONDS is how long each goes on (default 0.4).

What an attacker gets out of it for himself is not looked at: his sessions may end, and his
connections be closed.

Tests: mediator/client.c, mediator/vm.c, mediator/queue.c, mediator/process.c, mediator/launcher.c,
mediator/confine.c, worker/ring*.c, worker/command.c, worker/registers.c"""
import array
import ctypes
import math
import os
import random
import select
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402
from vgputest import N  # noqa: E402

SECONDS = float(os.environ.get("VGPU_ATTACK_SECONDS", "0.4"))
MIB = 1 << 20
OK = (N["VGPU_GPU_SUCCESS"], b"")
SESSION_VM, REGISTER_VM, ATTACKER = 1, 2, 100
# What an attack may run into.
LOST = (OSError, AssertionError, IndexError, struct.error, ValueError)
FALLOC_PUNCH_HOLE = 3  # with FALLOC_FL_KEEP_SIZE


# Victims --------------------------------------------------------------------------------------

def session_job(mediator):
    """Bytes to the device, there, and back; whether they are right."""
    device = v.Device(v.Client(mediator), vm_id=SESSION_VM, shm=4 * MIB, queues=1)
    q = v.Queue(device).open()
    memory, dice = q.memory(16384), random.Random(7)

    def job():
        data = dice.randbytes(16384)
        device.map[q.offset:q.offset + 16384] = data
        good = True
        for body in (v.cmd_copy(memory, q.address, 16384, "TO_DEVICE"),
                     v.cmd_copy(memory + 8192, memory, 4096, "ON_DEVICE"),
                     v.cmd_copy(q.address + 32768, memory, 16384, "FROM_DEVICE")):
            good = q.call("COPY", body) == OK and good
        good = q.call("SYNC") == OK and good
        expected = data[:8192] + data[:4096] + data[12288:]
        return good and device.map[q.offset + 32768:q.offset + 49152] == expected
    return job


def register_job(mediator):
    device = v.Device(v.Client(mediator), vm_id=REGISTER_VM)
    dice = random.Random(8)

    def job():
        numbers = [dice.randrange(-1 << 30, 1 << 30) for _ in range(16)]
        error, response = device.call(v.add_inline(numbers[:8], numbers[8:]))
        sums = [a + b for a, b in zip(numbers[:8], numbers[8:])]
        return not error and response.endswith(array.array("i", sums).tobytes())
    return job


class Process(v.Aside):
    def __init__(self, work, *arguments):
        self.work, self.arguments = work, arguments
        super().__init__()

    def run(self):
        return self.work(self.begun, self.stop, *self.arguments)


def victim(begun, stop, mediator, prepare):
    """(when and for how many ms each job, how many were wrong)."""
    job = prepare(mediator)
    jobs, wrong = [], 0
    while not stop.is_set():
        start = time.monotonic()
        wrong += not job()
        jobs.append((start, 1000 * (time.monotonic() - start)))
        begun.set()
    return jobs, wrong


# Attackers: each does one thing, again and again ----------------------------------------------

class Attacker:
    def __init__(self, mediator, dice):
        self.mediator, self.dice = mediator, dice
        self.vm = ATTACKER

    def client(self):
        return v.Client(self.mediator)

    def device(self, **fields):
        """As a VM of its own; the ones before may be about to go."""
        self.vm += 1
        return v.Device(self.client(), **{"vm_id": self.vm, "shm": 4 * MIB, "queues": 4, **fields})

    def queue(self):
        return v.Queue(self.device()).open()

    def number(self):
        """One that is at an edge, mostly."""
        return self.dice.choice((0, 1, 3, 1 << 12, (1 << 31) - 1, 1 << 32, 1 << 47, (1 << 63) - 1,
                                 (1 << 64) - 1, (1 << 64) - 4096, self.dice.getrandbits(64)))

    def again(self, step):
        """`step` with a session, which is opened anew when it is spoilt."""
        q = self.queue()

        def once():
            nonlocal q
            try:
                step(q)
            except LOST:
                q.device.close()
                q = self.queue()
        return once


def in_session(step):
    """An attack by the commands of a session."""
    return lambda a: a.again(lambda q: step(a, q))


def any_command(a, q, opcode=None, length=None):
    body = struct.pack("<6Q", *[a.number() for _ in range(6)])[:8 * a.dice.randrange(7)]
    q.post(v.command(a.dice.randrange(32) if opcode is None else opcode, body,
                     a.dice.randrange(80), length=length))


def reopen(q):
    """What was spoilt ends, mostly."""
    v.wait_until("it has ended", lambda: q.state() == "ENDED", 1)
    q.open()


def random_bytes(a, q):
    q.put(a.dice.randbytes(4096))
    q.push(a.dice.randrange(4096))
    reopen(q)


def wrong_lengths(a, q):
    any_command(a, q, "NOP", a.dice.choice((0, 4, 15, 17, 1 << 16, (1 << 32) - 8)))
    reopen(q)


def wild_tail(a, q):
    q.push(a.dice.choice((1 << 31, (1 << 32) - 8, 12, N["VGPU_RING_SIZE"] + 8)))
    reopen(q)


def near_the_end_of_addresses(a, q):
    q.call(a.dice.choice(("MEM_ALLOC", "MEM_FREE")), struct.pack("<QQ", a.number(), 0))
    q.call("FILL", v.cmd_fill(a.number(), 1, a.number(), a.dice.choice((1, 2, 4, 3))))
    q.call("COPY", v.cmd_copy(a.number(), a.number(), a.number(), "TO_DEVICE"))


def forged_handles(a, q):
    for opcode in ("STREAM_DESTROY", "EVENT_DESTROY", "MODULE_UNLOAD", "STREAM_QUERY"):
        q.call(opcode, struct.pack("<QQ", 0x100000000 * a.dice.randrange(4) + a.dice.randrange(9), 0))


def stream_storm(_, q):
    stream = q.value("STREAM_CREATE", bytes(8))
    q.call("STREAM_DESTROY", struct.pack("<Q", stream))


def event_storm(_, q):
    event = q.value("EVENT_CREATE", bytes(8))
    q.call("EVENT_RECORD", struct.pack("<QQ", event, 0))
    q.call("EVENT_DESTROY", struct.pack("<Q", event))


def memory_storm(a, q):
    address = q.memory(a.dice.randrange(1, MIB))
    q.call("MEM_FREE", struct.pack("<QQ", address, 0))


def kernel(seconds):
    def step(_, q):
        q.call("LAUNCH", v.cmd_launch(q.function("spin"), struct.pack("<Q", int(seconds * 1e9))))
    return step


def image_storm(a, q):
    size = a.dice.randrange(16, 8192)
    q.device.map[q.offset:q.offset + size] = b"\x7fELF" + a.dice.randbytes(size - 4)
    q.call("MODULE_LOAD", struct.pack("<QQ", q.address, size))


def call_storm(a, q):
    q.call("CALL", a.dice.randbytes(8 * a.dice.randrange(1, 16)))


def doorbell_storm(_, q):
    for _ in range(100):
        os.eventfd_write(q.doorbell, 1)


def open_and_close(a):
    device, number = a.device(), 0

    def once():
        nonlocal number
        number = (number + 1) % 4
        q = v.Queue(device, number)
        q.clear()
        q.claim()
        q.send("OPEN")
        q.send("CLOSE")
    return once


def wrong_claims(a):
    device = a.device()

    def once():
        q = v.Queue(device, a.dice.randrange(4))
        if q.state() in ("FREE", "ENDED"):
            q.begin(**{a.dice.choice(("arena_address", "arena_offset", "arena_size", "reserved")):
                       a.number()})
            v.wait_until("it is decided", lambda: q.state() in ("ENDED", "RUNNING"), 1)
            q.close()
    return once


def register_storm(a):
    device = a.device()

    def once():
        device.ring(a.dice.randbytes(a.dice.randrange(1, 256)), a.dice.choice((0, 4, 256, 1 << 31)))
        time.sleep(0.0002)
    return once


def register_page(a):
    """All of it is scribbled over while a request runs."""
    device = a.device()

    def once():
        device.ring(v.add_inline([1] * 8, [2] * 8))
        device.map[device.shm_size:device.shm_size + 4096] = a.dice.randbytes(4096)
    return once


def holes(a):
    device = a.device(shm=64 * MIB)

    def once():
        device.map[a.dice.randrange(device.shm_size)] = 1
        LIBC.fallocate(device.memfd, FALLOC_PUNCH_HOLE, ctypes.c_long(0),
                       ctypes.c_long(device.shm_size + 4096))
        v.Queue(device, a.dice.randrange(4)).send(9)
    return once


def hello_and_bye(a):
    client = a.client()

    def once():
        nonlocal client
        try:
            client.attach(vm_id=ATTACKER)
            client.send(v.message("BYE"))
        except LOST:
            client.close()
            client = a.client()
    return once


def resets(a):
    device = a.device()

    def once():
        device.client.send(v.message("RESET"))
        # It is answered, which nobody waits for.
        if select.select([device.client.socket], [], [], 0)[0]:
            device.client.receive()
        time.sleep(0.0002)
    return once


def never_reads(a):
    devices = [a.device() for _ in range(4)]

    def once():
        for device in devices:
            device.client.socket.setblocking(False)
            try:
                device.client.send(v.message("RESET"))
            except BlockingIOError:
                time.sleep(0.001)
    return once


def half_messages(a):
    def once():
        client = a.client()
        client.send(v.hello(vm_id=ATTACKER)[:a.dice.randrange(1, N["VGPU_MSG_SIZE"])])
        client.close()
    return once


def random_messages(a):
    def once():
        client = a.client()
        client.send(bytes(v.hello(vm_id=ATTACKER)[:8]) + a.dice.randbytes(N["VGPU_MSG_SIZE"] - 8))
        client.close()
    return once


def foreign_descriptors(a):
    pipes = os.pipe()

    def once():
        client = a.client()
        client.send(v.hello(vm_id=ATTACKER, hello__flags=N["VGPU_HELLO_HANDOVER"]),
                    [pipes[a.dice.randrange(2)]] * 3)
        client.close()
    return once


def silent_connections(a):
    waiting = []

    def once():
        waiting.append(a.client())
        if len(waiting) > 64:
            waiting.pop(0).close()
    return once


def control_nonsense(a):
    def once():
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(a.mediator.control)
            control.sendall(a.dice.choice((b'{"command":', b"[[[[" * 99, b'{"command":"set","vm":-1}\n',
                                           a.dice.randbytes(200) + b"\n")))
        time.sleep(0.005)  # its users are not kept from keeping each other out
    return once


def killed_programs(a):
    """Host processes with a session that end without a word."""
    def once():
        pid = os.fork()
        if pid == 0:
            try:
                a.vm += os.getpid() % 10000
                a.queue().nop()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
    return once


LIBC = ctypes.CDLL(None)
ATTACKS = {
    "random bytes in a ring": in_session(random_bytes),
    "any command, any slot": in_session(any_command),
    "wrong lengths of commands": in_session(wrong_lengths),
    "a tail beyond the ring": in_session(wild_tail),
    "sizes and addresses near 2^64": in_session(near_the_end_of_addresses),
    "forged handles": in_session(forged_handles),
    "streams come and go": in_session(stream_storm),
    "events come and go": in_session(event_storm),
    "memory comes and goes": in_session(memory_storm),
    "kernels without end": in_session(kernel(1000)),
    "kernels of no length": in_session(kernel(0)),
    "images that are none": in_session(image_storm),
    "calls of the API that are none": in_session(call_storm),
    "doorbells": in_session(doorbell_storm),
    "sessions open and close": open_and_close,
    "claims that are wrong": wrong_claims,
    "requests that are none": register_storm,
    "a register page that changes": register_page,
    "holes in the memory": holes,
    "HELLO and BYE": hello_and_bye,
    "RESETs": resets,
    "RESETs, and nothing is read": never_reads,
    "half of a HELLO": half_messages,
    "messages at random": random_messages,
    "descriptors that are others": foreign_descriptors,
    "connections that say nothing": silent_connections,
    "questions that are none": control_nonsense,
    "programs that are killed": killed_programs,
}


def attack(begun, stop, mediator, name, seed):
    """How often it was tried."""
    attacker, times, step = Attacker(mediator, random.Random(seed)), 0, None
    wait = v.wait_until
    # Nobody is to wait long for what does not come.
    v.wait_until = lambda what, condition, patience=1: wait(what, condition, min(patience, 0.3))
    while not stop.is_set():
        times += 1
        try:
            step = step or ATTACKS[name](attacker)
            step()
        except LOST:
            step = None
            time.sleep(0.001)
        begun.set()
    return times


def p99(values):
    return sorted(values)[math.ceil(0.99 * len(values)) - 1] if values else math.nan


class Neighbours(v.TestCase):
    def test_attacks(self):
        m = self.mediator("[defaults]\nmemory = 64M\n", "max-vms = 200")
        victims = [Process(victim, m, prepare) for prepare in (session_job, register_job)]
        self.addCleanup(lambda: [one.process.kill() for one in victims])
        for one in victims:
            self.assertTrue(one.begun.wait(v.PATIENCE))
        spans, longest = {}, 0
        for seed, name in enumerate(["nothing", *ATTACKS]):
            attackers = [Process(attack, m, name, 2 * seed + i) for i in range(2)
                         ] if name in ATTACKS else []
            self.addCleanup(lambda all_of_them: [one.process.kill() for one in all_of_them],
                            attackers)
            for one in attackers:
                self.assertTrue(one.begun.wait(v.PATIENCE), name)
            start = time.monotonic()
            while time.monotonic() < start + SECONDS:
                asked = time.monotonic()
                m.vms()
                longest = max(longest, time.monotonic() - asked)
                time.sleep(0.02)
            spans[name] = start, time.monotonic(), sum(one.end() for one in attackers)
        results = [one.end() for one in victims]
        for name, (start, end, times) in spans.items():
            told = [p99([ms for at, ms in jobs if start <= at < end]) for jobs, _ in results]
            print(f"{name:31} {times:7} times; p99 of a session {told[0]:7.1f} ms, in register mode "
                  f"{told[1]:7.1f}", file=sys.stderr)
        print(f"{sum(len(jobs) for jobs, _ in results)} jobs; an answer of the mediator's took "
              f"{1000 * longest:.0f} ms at most", file=sys.stderr)
        self.assertEqual([wrong for _, wrong in results], [0, 0])
        self.assertLess(longest, 10)
        self.assertEqual(m.stop(), 0)


if __name__ == "__main__":
    v.main()
