#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Graphs, gates and memory that is freed at leisure, as a hostile guest would use them: raw bytes
to real workers. The numbers of the calls are those of api/private.api and api/stream.api.

Tests: worker/exec-graph*.c, worker/api-host*.c, worker/api-memory*.c"""
import os
import random
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402
from vgputest import N  # noqa: E402

# In a build with sanitizers: a worker's filter forbids the leak checker's process.
os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=0")

MIB = 1 << 20
MAX = (1 << 64) - 1
IMAGE_BEGIN, IMAGE_WRITE = 6, 7
GRAPH_MAKE, GRAPH_UPDATE, GRAPH_LAUNCH, GRAPH_DESTROY, MEMORY_DROP = 16, 17, 18, 19, 20
WAIT_VALUE, WAIT_EQUAL = 619, 1
NOTHING, KERNEL, COPY, FILL, GATE = range(5)
SUCCESS, VALUE, MEMORY, HANDLE, UNSUPPORTED = (
    N["VGPU_GPU_" + name] for name in
    ("SUCCESS", "INVALID_VALUE", "OUT_OF_MEMORY", "INVALID_HANDLE", "NOT_SUPPORTED"))


def words(*numbers):
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def call_body(number, arguments):
    body = words(*arguments)
    return struct.pack("<IIQIIQ", number, len(body), 0, 0, 0, 0) + body


def node(kind, body=b"", follows=(), reserved=0, size=None):
    behind = struct.pack(f"<{len(follows)}I", *follows)
    behind += bytes(-len(behind) % 8) + body
    return struct.pack("<IIII", kind, 16 + len(behind) if size is None else size, len(follows),
                       reserved) + behind


def kernel(function, params, grid=1, attributes=0):
    return (v.cmd_launch(function, b"", len(params))[:16] +
            struct.pack("<IIIIIIIIQ", grid, 1, 1, 32, 1, 1, 0, len(params), attributes) +
            params)


def copy(to, source, width, kind, height=1, depth=1, pitch=None, reserved=0):
    pitch = width if pitch is None else pitch
    return struct.pack("<9QII", to, pitch, height, source, pitch, height, width, height, depth,
                       kind, reserved)


def fill(to, width, value, element=4, height=1, pitch=0):
    return struct.pack("<QQQQII", to, pitch, width, height, value, element)


class Graphs(v.TestCase):
    def make(self, config="", vm_ids=(1,)):
        """A session of each VM; the first one is self.q."""
        self.m = self.mediator(config)
        self.queues = []
        for vm_id in vm_ids:
            device = v.Device(v.Client(self.m), vm_id=vm_id, shm=8 * MIB, queues=4)
            self.addCleanup(device.close)
            self.m.vm(vm_id, state="idle")
            self.queues.append(v.Queue(device).open())
        self.q = self.queues[0]

    def call(self, number, *arguments):
        return self.q.call("CALL", call_body(number, arguments))

    def post(self, number, *arguments):
        self.q.post(v.command("CALL", call_body(number, arguments)))

    def sync(self):
        return self.q.call("SYNC")[0]

    def store(self, data, offset=0):
        offset += self.q.offset
        self.q.device.map[offset:offset + len(data)] = data

    def load(self, size, offset=0):
        offset += self.q.offset
        return self.q.device.map[offset:offset + size]

    def graph(self, *nodes, count=None, graph=None):
        """(result, graph); an update where a graph is given. By way of the arena's second half."""
        half, data = self.q.size // 2, b"".join(nodes)
        self.store(data, half)
        self.assertEqual(self.call(IMAGE_BEGIN, len(data))[0], SUCCESS)
        self.assertEqual(self.call(IMAGE_WRITE, 0, self.q.address + half, len(data))[0], SUCCESS)
        count = len(nodes) if count is None else count
        if graph is not None:
            return self.call(GRAPH_UPDATE, graph, count)[0], graph
        result, payload = self.call(GRAPH_MAKE, count)
        return result, struct.unpack("<Q", payload)[0] if payload else 0

    def fills(self, memory, value):
        """Nodes that fill memory by both ways there are and bring it back."""
        function = self.q.function("fill")
        return (node(FILL, fill(memory, 100, value)),
                node(KERNEL, kernel(function, words(memory + 400, 100) +
                                    struct.pack("<Q", value + 1))),
                node(NOTHING, follows=(0, 1)),
                node(COPY, copy(self.q.address, memory, 400, N["VGPU_COPY_FROM_DEVICE"], 2),
                     follows=(2,)))

    def test_work(self):
        """Launches before an update do what it was before, those behind what it is now."""
        self.make()
        memory = self.q.memory(4096)
        _, graph = self.graph(*self.fills(memory, 5))
        self.post(GRAPH_LAUNCH, graph, 0)
        self.assertEqual(self.sync(), SUCCESS)
        self.assertEqual(self.load(800), struct.pack("<I", 5) * 100 + struct.pack("<I", 6) * 100)
        self.assertEqual(self.graph(*self.fills(memory, 8), graph=graph)[0], SUCCESS)
        # One that fails changes nothing.
        self.assertEqual(self.graph(node(FILL, fill(memory, 0, 1)), graph=graph)[0], VALUE)
        self.post(GRAPH_LAUNCH, graph, 0)
        self.assertEqual(self.sync(), SUCCESS)
        self.assertEqual(self.load(800), struct.pack("<I", 8) * 100 + struct.pack("<I", 9) * 100)

    def test_images_that_cannot_be(self):
        self.make()
        inside, beyond = self.q.address, self.q.address + self.q.size
        memory, function = self.q.memory(4096), self.q.function("spin")
        back, forth = N["VGPU_COPY_FROM_DEVICE"], N["VGPU_COPY_TO_DEVICE"]
        none, spin = node(NOTHING), kernel(function, words(0))
        wrong = (
            node(NOTHING, follows=(0,)), node(NOTHING, reserved=1), node(NOTHING, size=0),
            node(NOTHING, size=24), node(NOTHING, size=(1 << 32) - 8), node(NOTHING, bytes(8)),
            node(KERNEL, kernel(function, words(0), grid=0)), node(KERNEL, spin[:-8]),
            node(KERNEL, kernel(function, b"", attributes=MAX >> 32)),
            node(COPY, copy(memory, inside, 8, 0)), node(COPY, copy(memory, inside, 8, 4)),
            node(COPY, copy(memory, inside, 8, forth, reserved=1)),
            node(COPY, copy(memory, inside, 8, forth, depth=0)),
            node(COPY, copy(memory, beyond - 8, 9, forth)),
            node(COPY, copy(inside - 1, memory, 1, back)),
            node(COPY, copy(beyond - 16, memory, 8, back, 2, pitch=16)),
            node(COPY, copy(inside, memory, 8, back, 2, pitch=MAX - 7)),
            node(COPY, copy(inside, memory, 8, back, 1 << 32, 1 << 32)),
            node(COPY, copy(memory, memory, MAX, 3, 2)), node(FILL, fill(memory, 1, 0, element=3)),
            node(FILL, fill(memory + 1, 1, 0)), node(FILL, fill(memory, 1 << 62, 0)),
            node(FILL, fill(memory, 4, 0, height=1 << 60, pitch=16)), node(GATE, words(beyond)),
            node(GATE, words(inside + 2)), node(GATE, words(inside - 4)), node(GATE))
        for number, (wanted, count, *nodes) in enumerate((
                (VALUE, 2, none), (VALUE, 1, none, none), (VALUE, MAX >> 32, none),
                (VALUE, 2, none, node(NOTHING, follows=(MAX >> 32,))),
                (VALUE, 1, struct.pack("<IIII", NOTHING, 16, MAX >> 32, 0)),
                (UNSUPPORTED, 1, node(5)), (UNSUPPORTED, 1, node(MAX >> 32)),
                (HANDLE, 1, node(KERNEL, kernel(0, words(0)))),
                (HANDLE, 1, node(KERNEL, kernel(function + (1 << 32), words(0)))),
                *((VALUE, 1, one) for one in wrong))):
            self.assertEqual(self.graph(*nodes, count=count), (wanted, 0), number)
        # What is on the edge is good, an image is for one graph, and none is none.
        self.assertEqual(self.graph(node(GATE, words(beyond - 4)),
                                    node(COPY, copy(memory, beyond - 8, 8, forth)))[0], SUCCESS)
        self.assertEqual(self.call(GRAPH_MAKE, 1)[0], VALUE)

    def test_any_bits(self):
        """Images with some bits turned over are refused or are graphs; the worker stays."""
        self.make()
        rng, results = random.Random(2), set()
        good = b"".join(self.fills(self.q.memory(4096), 1)) + node(GATE, words(self.q.address))
        for _ in range(400):
            image = bytearray(good)
            for _ in range(rng.choice((1, 1, 2, 8))):
                image[rng.randrange(len(image))] ^= 1 << rng.randrange(8)
            result, graph = self.graph(bytes(image), count=5)
            results.add(result)
            if graph:
                self.post(GRAPH_DESTROY, graph)
        self.assertEqual(self.sync(), SUCCESS)
        self.assertEqual(results, {SUCCESS, VALUE, HANDLE, UNSUPPORTED})
        self.assertEqual(self.q.status(), ("RUNNING", "NONE", 1))

    def test_handles(self):
        """One that was destroyed is none, however often that is said."""
        self.make()
        _, graph = self.graph(node(NOTHING))
        self.post(GRAPH_DESTROY, graph)
        self.assertEqual(self.sync(), SUCCESS)
        other = self.graph(node(NOTHING))[1] ^ 1 << 32
        for handle in (graph, 0, MAX, other, self.q.function("spin")):
            for number, arguments in ((GRAPH_LAUNCH, (handle, 0)), (GRAPH_DESTROY, (handle,))):
                self.post(number, *arguments)
                self.assertEqual(self.sync(), HANDLE)
            self.assertEqual(self.graph(node(NOTHING), graph=handle)[0], HANDLE)

    def test_gate_in_a_graph(self):
        """It stands there until the guest lets it on; another VM's session goes on."""
        self.make(vm_ids=(1, 2))
        memory = self.q.memory(4096)
        _, graph = self.graph(node(GATE, words(self.q.address + 1024)), *self.fills(memory, 3))
        self.store(bytes(800))
        self.post(GRAPH_LAUNCH, graph, 0)
        self.post(GRAPH_DESTROY, graph)
        v.wait_until("it is at the gate", lambda: self.load(4, 1024) == struct.pack("<I", 1))
        kernels = v.Kernels(self.queues[1], 0.001)
        for _ in range(50):
            kernels.post()
        v.wait_until("the other is done", lambda: kernels.count() == 50)
        self.assertEqual(self.load(800), bytes(800))
        self.store(struct.pack("<I", 2), 1024)
        self.assertEqual(self.sync(), SUCCESS)
        self.assertEqual(self.load(4, 1024), bytes(4))
        self.assertEqual(self.load(400), struct.pack("<I", 3) * 100)

    def test_max_kernel(self):
        """It does not hold for a gate, but for a kernel behind one, and for one in a graph."""
        self.make("[defaults]\nmax-kernel = 500ms\n", vm_ids=(1, 2))
        for q, in_graph in zip(self.queues, (False, True)):
            self.q = q
            function = q.function("spin")
            _, graph = self.graph(node(KERNEL, kernel(function, words(10 ** 12))))
            self.store(bytes(4))
            self.post(WAIT_VALUE, 0, q.address, 1, WAIT_EQUAL)
            time.sleep(1.5)
            self.assertTrue(q.nop())
            q.post(v.command(*(("CALL", call_body(GRAPH_LAUNCH, (graph, 0))) if in_graph else
                               ("LAUNCH", v.cmd_launch(function, words(10 ** 12))))))
            self.store(struct.pack("<I", 1))
            self.assertEqual(q.end(), "TIMEOUT")

    def test_dropped_memory_is_the_vms_until_it_is_free(self):
        """Whatever is dropped, how often: no more than the quota, not for a moment, and no less."""
        self.make("[defaults]\nmemory = 64M\n")
        other = v.Queue(self.q.device, 1).open()
        memory = self.q.memory(48 * MIB)
        self.store(bytes(4))
        self.post(WAIT_VALUE, 0, self.q.address, 1, WAIT_EQUAL)
        for address in (memory, memory, memory + 512, 0, MAX):
            self.post(MEMORY_DROP, address)
        self.assertTrue(self.q.nop())
        self.assertEqual(other.call("MEM_ALLOC", words(17 * MIB, 0))[0], MEMORY)
        self.store(struct.pack("<I", 1))
        self.sync()
        v.wait_until("it is free",
                     lambda: other.call("MEM_ALLOC", words(64 * MIB, 0))[0] == SUCCESS)
        self.assertEqual(self.q.call("MEM_ALLOC", words(1, 0))[0], MEMORY)
        self.assertEqual(self.m.vms()[1]["memory_used"], 64 * MIB)


if __name__ == "__main__":
    v.main()
