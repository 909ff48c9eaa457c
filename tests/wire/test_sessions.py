#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Ring mode through a real mediator and its workers: sessions opened and closed at bad moments,
claims and rings that cannot be, turns between sessions, and what others notice of it.

Tests: mediator/queue*.c, mediator/process*.c, mediator/client*.c, mediator/vm*.c,
worker/ring-worker*.c, worker/ring-session*.c, worker/ring.c, worker/command*.c,
guest/libvgpu/host*.c, guest/libvgpu/session*.c, guest/libvgpu/open.c, worker/worker.c"""
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402
from vgputest import N  # noqa: E402

# In a build with sanitizers: a worker's filter forbids the leak checker's process, and a worker
# that ends by itself would wait for that.
os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=0")

MIB = 1 << 20
RING = N["VGPU_RING_SIZE"]
# What eventfd(2) can count to.
EVENTFD_MAX = (1 << 64) - 2


def gpu(name):
    return N["VGPU_GPU_" + name]


OK = (0, b"")

# Commands with a slot's answer, or none: name, bytes of the body, whether a slot is a must.
COMMANDS = {
    "NOP": (0, False), "DEVICE_INFO": (0, True), "MEM_INFO": (0, True), "MEM_ALLOC": (16, True),
    "MEM_FREE": (16, True), "COPY": (48, False), "FILL": (48, False), "MODULE_LOAD": (16, True),
    "MODULE_BUILTIN": (0, True), "MODULE_UNLOAD": (16, True), "FUNCTION_GET": (16, True),
    "FUNCTION_PARAM": (16, True), "LAUNCH": (56, False), "STREAM_CREATE": (16, True),
    "STREAM_DESTROY": (16, False), "STREAM_WAIT": (16, False), "STREAM_SYNC": (16, True),
    "STREAM_QUERY": (16, True), "EVENT_CREATE": (16, True), "EVENT_DESTROY": (16, False),
    "EVENT_RECORD": (16, False), "EVENT_SYNC": (16, True), "EVENT_QUERY": (16, True),
    "EVENT_ELAPSED": (16, True), "SYNC": (0, True), "FENCE": (16, True), "CALL": (32, False),
    "PRINTED": (16, True),
}


def exists(pid):
    return os.path.exists(f"/proc/{pid}")


def ticks(pid):
    """Time on the processor, user and system, in clock ticks."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


class TestCase(v.TestCase):
    """Has a mediator, and devices that end with the test."""

    def make(self, mediator="", config=""):
        self.m = self.mediator(config, mediator)
        self.devices = []

    def attach(self, vm_id=1, shm=8 * MIB, queues=16, **fields):
        device = v.Device(v.Client(self.m), vm_id=vm_id, shm=shm, queues=queues, **fields)
        self.devices.append(device)
        self.addCleanup(self.detach, device)
        self.m.vm(vm_id, state="idle")
        return device

    def detach(self, device):
        if device in self.devices:
            self.devices.remove(device)
            device.close()

    def sessions(self, vm_id=1):
        """Those with a worker, by queue."""
        return {session["queue"]: session for session in self.m.vms()[vm_id]["sessions"]}

    def worker(self, queue, vm_id=1):
        return self.sessions(vm_id)[queue.number]["worker_pid"]

    def session_state(self, queue, state, vm_id=1):
        v.wait_until(f"queue {queue.number} of VM {vm_id} is {state}",
                     lambda: self.sessions(vm_id)[queue.number]["state"] == state)

    def spin(self, queue, seconds):
        """Posts a kernel that takes so long."""
        function = queue.function("spin")
        body = v.cmd_launch(function, struct.pack("<Q", int(seconds * 1e9)))
        queue.post(v.command("LAUNCH", body))

    def crowd_out(self, hog, other):
        """Why a session ends beside which another one has work all the time, in short kernels."""
        kernels = v.Kernels(other, 0.05)
        v.wait_until("the session ends", lambda: kernels.keep_busy(4) or hog.state() == "ENDED")
        v.wait_until("the other is done", lambda: kernels.count() == kernels.posted)
        return hog.status()[1]

    def good(self, queue, number=1):
        queue.good(number)

    def good_registers(self, device, number=40):
        self.assertEqual(device.call(v.add_inline([number], [2])),
                         (0, (number + 2).to_bytes(4, "little")))


class Served(TestCase):
    """One mediator, which has to be as before when a test is over."""

    def setUp(self):
        self.make()
        # The event loop keeps some descriptors (timers) that it makes when first needed.
        self.serve_one()
        v.wait_until("no worker is left", lambda: v.workers(self.m.pid) == [])
        self.idle = v.idle_descriptors(self.m.pid)

    def serve_one(self):
        device = self.attach(vm_id=999)
        self.good_registers(device)
        self.good(v.Queue(device, 15).open())
        self.detach(device)

    def tearDown(self):
        for device in list(self.devices):
            self.detach(device)
        self.m.ask("resume", pool="A")
        self.serve_one()
        v.wait_until("no descriptor is left", lambda: v.descriptors(self.m.pid) == self.idle)
        v.wait_until("no worker is left", lambda: v.workers(self.m.pid) == [])


class Sessions(Served):
    """Opening and closing."""

    def test_session_check(self):
        """The whole program that says what a session promises, by the mediator's socket."""
        result = subprocess.run([v.SESSION_CHECK, "--host", self.m.socket], capture_output=True,
                                timeout=v.PATIENCE, check=False, text=True)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        counts = re.search(r"^(\d+) passed, 0 failed, \d+ skipped$", result.stdout, re.M)
        self.assertTrue(counts, result.stdout)
        self.assertGreaterEqual(int(counts[1]), 16)

    def test_status_words(self):
        """State, reason and count at every step of open, close and reopen."""
        q = v.Queue(self.attach(), 3)
        self.assertEqual(q.status(), ("FREE", "NONE", 0))
        q.open()
        self.assertEqual(q.status(), ("RUNNING", "NONE", 1))
        worker = self.worker(q)
        self.good(q)
        # Opening what is open, and what is no action, is counted and changes nothing.
        for count, action in enumerate(("OPEN", 0, 3, 0xffffffff), 2):
            q.send(action)
            v.wait_until("it is counted", lambda: q.status()[2] == count)
            self.assertEqual(q.status()[:2], ("RUNNING", "NONE"))
        self.assertEqual(self.worker(q), worker)
        self.assertTrue(q.nop())
        self.assertEqual(q.close(), ("FREE", "NONE", 6))
        q.send("CLOSE")
        v.wait_until("it is counted", lambda: q.status() == ("FREE", "NONE", 7))
        q.send(9)
        v.wait_until("it is counted", lambda: q.status() == ("FREE", "NONE", 8))
        q.open()
        self.assertEqual(q.status(), ("RUNNING", "NONE", 9))
        self.assertNotEqual(self.worker(q), worker)
        # Nobody else's count has moved.
        self.assertEqual({v.Queue(q.device, i).status() for i in range(16) if i != 3},
                         {("FREE", "NONE", 0)})

    def test_close_ends_the_worker(self):
        """FREE says that it is gone, and with it all that it had."""
        q = v.Queue(self.attach()).open()
        free = struct.unpack("<QQ", q.call("MEM_INFO")[1])[0]
        memory = q.memory(MIB)
        stream = q.value("STREAM_CREATE", bytes(16))
        self.assertEqual(struct.unpack("<QQ", q.call("MEM_INFO")[1])[0], free - MIB)
        self.spin(q, 1000)
        worker = self.worker(q)
        q.close()
        self.assertFalse(exists(worker))
        self.assertEqual(self.sessions(), {})
        q.open()
        self.assertEqual(struct.unpack("<QQ", q.call("MEM_INFO")[1])[0], free)
        self.assertEqual(q.call("STREAM_SYNC", struct.pack("<QQ", stream, 0))[0],
                         gpu("INVALID_HANDLE"))
        self.assertEqual(q.call("MEM_FREE", struct.pack("<QQ", memory, 0))[0],
                         gpu("INVALID_VALUE"))

    def test_a_hundred_one_after_another(self):
        q = v.Queue(self.attach())
        for i in range(100):
            self.assertTrue(q.open().nop())
            self.assertEqual(q.status()[2], 2 * i + 1)
            q.close()

    def test_all_queues_at_once(self):
        device = self.attach(shm=32 * MIB, queues=64)
        queues = [v.Queue(device, i) for i in range(64)]
        for q in queues:
            q.begin()
        for q in queues:
            self.assertEqual(q.wait_state("RUNNING", "ENDED"), ("RUNNING", "NONE", 1))
        for i, q in enumerate(queues):
            self.good(q, i + 1)
        self.assertEqual(len({s["worker_pid"] for s in self.sessions().values()}), 64)
        for q in queues[::2]:
            q.send("CLOSE")
        for q in queues[::2]:
            q.wait_state("FREE")
        for q in queues[1::2]:
            self.assertTrue(q.nop())

    def test_guest_goes_with_open_sessions(self):
        """Idle, working, starting: their workers go too."""
        device = self.attach(vm_id=5)
        queues = [v.Queue(device, i).open() for i in range(4)]
        self.spin(queues[1], 1000)
        queues[2].ask("FILL", v.cmd_fill(queues[2].memory(16), 1, 4))
        v.Queue(device, 4).begin()
        workers = v.workers(self.m.pid)
        self.assertGreaterEqual(len(workers), 5)
        self.detach(device)
        v.wait_until("all workers are gone", lambda: not any(map(exists, workers)))
        self.assertEqual(self.m.vms(), {})

    def test_guest_closes_what_starts(self):
        """And opens it again at once: the last word counts."""
        q = v.Queue(self.attach())
        q.claim()
        for _ in range(50):
            q.send("OPEN")
            q.send("CLOSE")
        q.send("OPEN")
        v.wait_until("all are counted", lambda: q.status()[2] == 101)
        q.wait_state("RUNNING")
        self.assertTrue(q.nop())

    def test_guest_storms(self):
        """OPEN and CLOSE a thousand times in a row: others attach and open meanwhile."""
        storm = v.Queue(self.attach(vm_id=1))
        storm.claim()
        messages = [bytes(v.message("QUEUE", queue__queue=0,
                                    queue__action=N["VGPU_QUEUE_" + action]))
                    for action in ("OPEN", "CLOSE")]

        def send():
            for _ in range(1000):
                storm.device.client.socket.sendall(b"".join(messages))
        thread = threading.Thread(target=send)
        thread.start()
        served = 0
        while served < 3 or thread.is_alive():
            other = self.attach(vm_id=2)
            self.good_registers(other)
            self.good(v.Queue(other, served % 16).open())
            self.detach(other)
            v.wait_until("it is gone", lambda: 2 not in self.m.vms())
            served += 1
        thread.join()
        v.wait_until("all are counted", lambda: storm.status()[2] == 2000)
        storm.wait_state("FREE")
        self.assertTrue(storm.open().nop())

    def test_worker_killed(self):
        device = self.attach()
        q, other = v.Queue(device, 0).open(), v.Queue(device, 1).open()
        for count in (1, 2, 3):
            os.kill(self.worker(q), signal.SIGKILL)
            self.assertEqual(q.end(), "LOST")
            self.assertEqual(q.status()[2], count)
            # It is not started again by itself.
            self.assertNotIn(0, self.sessions())
            self.good(other, count)
            self.good_registers(device, count)
            self.good(q.open())
        # An ended one can be closed as well.
        os.kill(self.worker(q), signal.SIGKILL)
        self.assertEqual(q.end(), "LOST")
        self.assertEqual(q.close(), ("FREE", "NONE", 5))

    def test_worker_killed_while_it_works(self):
        q = v.Queue(self.attach()).open()
        self.spin(q, 1000)
        self.session_state(q, "running")
        os.kill(self.worker(q), signal.SIGKILL)
        self.assertEqual(q.end(), "LOST")
        # The turn is free.
        other = v.Queue(self.attach(vm_id=2)).open()
        self.good(other)
        self.good(q.open())

    def test_control_lists_sessions(self):
        device = self.attach(vm_id=7)
        queues = [v.Queue(device, i).open() for i in (2, 9)]
        self.m.ask("pause", pool="A")
        queues[0].ask("FILL", v.cmd_fill(queues[0].memory(16), 1, 4))
        self.session_state(queues[0], "waiting", 7)
        result = subprocess.run([v.VGPUCTL, "--socket", self.m.control, "--json", "list"],
                                capture_output=True, timeout=v.PATIENCE, check=False, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        vm, = json.loads(result.stdout)["vms"]
        self.assertEqual((vm["vm"], vm["queues"]), (7, 16))
        self.assertEqual([(s["queue"], s["state"], s["device"]) for s in vm["sessions"]],
                         [(2, "waiting", "CPU"), (9, "idle", "CPU")])
        self.assertTrue(all(exists(s["worker_pid"]) for s in vm["sessions"]))
        self.m.ask("resume", pool="A")
        for q in queues:
            q.close()
        self.assertEqual(self.m.vms()[7]["sessions"], [])

    def test_idle_sessions_cost_nothing(self):
        """
        After work: neither worker nor mediator polls for ten seconds. A hundredth of the time may go
        to what the mediator does each second, its VMs' cards; polling would take all of it.
        """
        q = v.Queue(self.attach()).open()
        self.good(q)
        for _ in range(500):
            q.call("NOP")
        v.wait_until("the worker sleeps", lambda: q.word("parked") % 2 == 1)
        processes = (self.worker(q), self.m.pid, self.m.vms()[1]["worker_pid"])
        before = [ticks(pid) for pid in processes]
        time.sleep(10)
        after = [ticks(pid) for pid in processes]
        for now, then in zip(after, before):
            self.assertLessEqual(now, then + 10)
        self.assertTrue(q.nop())

    def test_reset_with_and_without_queues(self):
        """A process's reset leaves sessions alone; that of the guest ends them."""
        device = self.attach()
        queues = [v.Queue(device, i).open() for i in range(3)]
        workers = [self.worker(q) for q in queues]

        def reset(serial, **fields):
            device.client.send(v.message("RESET", serial=serial, **fields))
            answer = device.client.receive()
            self.assertEqual(v.get(answer, "vgpu_msg.type"), N["VGPU_MSG_RESET_DONE"])
            self.assertEqual(v.get(answer, "vgpu_msg.serial"), serial)
        reset(1)
        self.assertEqual([q.status() for q in queues], [("RUNNING", "NONE", 1)] * 3)
        for q, worker in zip(queues, workers):
            self.assertTrue(q.nop())
            self.assertEqual(self.worker(q), worker)
        os.kill(workers[2], signal.SIGKILL)
        self.assertEqual(queues[2].end(), "LOST")
        reset(2, reset__flags=N["VGPU_RESET_QUEUES"])
        for q, worker in zip(queues, workers):
            # Not counted: nobody has asked for it at the queue.
            self.assertEqual(q.wait_state("FREE"), ("FREE", "NONE", 1))
            self.assertFalse(exists(worker))
        self.good_registers(device)
        self.good(queues[0].open())


class Claims(Served):
    def test_guest_wrong_claims(self):
        """What cannot be a part of the arena ends with BAD_CLAIM, and hurts nobody."""
        shm, queues = 8 * MIB, 25
        device = self.attach(shm=shm, queues=queues)
        first = v.arena_offset(shm, queues)
        page, top = 4096, 1 << 64
        wrong = [
            {"arena_size": 0}, {"arena_size": page + 1}, {"arena_size": page - 1},
            {"arena_size": shm}, {"arena_size": shm - first + page}, {"arena_size": top - page},
            {"arena_size": 1 << 63}, {"arena_offset": 0}, {"arena_offset": page},
            {"arena_offset": first - page}, {"arena_offset": first + 1},
            {"arena_offset": first + 2048}, {"arena_offset": shm}, {"arena_offset": shm - page},
            {"arena_offset": top - page, "arena_size": 2 * page},
            {"arena_offset": top - page, "arena_size": page}, {"arena_address": 0},
            {"arena_address": 1}, {"arena_address": v.Queue.ADDRESS + 2048},
            {"arena_address": 1 << 63}, {"arena_address": top - page},
            {"arena_address": (1 << 63) - page}, {"reserved": 1}, {"reserved": 1 << 63},
        ]
        sessions = [v.Queue(device, i, size=2 * page) for i in range(queues)]
        witness = sessions[len(wrong)].open()
        for q, claim in zip(sessions, wrong):
            q.begin(**claim)
        for q, claim in zip(sessions, wrong):
            self.assertEqual(q.wait_state("RUNNING", "ENDED"), ("ENDED", "BAD_CLAIM", 1), claim)
        self.assertIn("claim on the shared memory is wrong", self.m.read_log())
        self.good(witness)
        self.good_registers(device)
        # With a good claim the same queues are good.
        for q in sessions[:3]:
            self.good(q.open())

    def test_good_claims(self):
        """The smallest, the last page, all there is, overlapping ones; low and high addresses."""
        shm = 8 * MIB
        device = self.attach(shm=shm)
        first = v.arena_offset(shm, 16)
        for number, claim in enumerate((
                {"arena_size": 4096}, {"arena_offset": shm - 4096, "arena_size": 4096},
                {"arena_offset": first, "arena_size": shm - first},
                {"arena_offset": first, "arena_size": shm - first},
                {"arena_address": 0x10000, "arena_size": 4096},
                {"arena_address": 0x3fffffe00000})):
            self.assertTrue(v.Queue(device, number).open(**claim).nop())

    def test_guest_address_beyond_user_space(self):
        q = v.Queue(self.attach())
        q.begin(arena_address=1 << 62)
        self.assertEqual(q.end(), "ADDRESS")
        self.good(q.open())

    def test_guest_claim_changes_afterwards(self):
        """It is read once, at the start."""
        q = v.Queue(self.attach()).open()
        q.claim(arena_address=0, arena_offset=0, arena_size=0, reserved=7)
        self.good(q)


class AddressInUse(TestCase):
    def test_guest_address_of_the_workers_stack(self):
        """Wherever the kernel put it: the part covers all places that it chooses from."""
        self.make(config="[defaults]\nmax-shm = 64G\n")
        # The stack's end is less than 16 GiB below the end of user space.
        shm, end = 32 << 30, (1 << 47) - 4096
        device = self.attach(shm=shm, queues=2)
        size = shm - v.arena_offset(shm, 2)
        q = v.Queue(device, 0, address=end - size, size=size)
        other = v.Queue(device, 1)
        other.offset = q.offset
        other.open()
        for count in (1, 2):
            q.begin()
            self.assertEqual(q.end(), "ADDRESS")
            self.assertEqual(q.status()[2], count)
        self.assertTrue(other.nop())
        # Another address is all that is wanted.
        self.assertTrue(q.open(arena_address=v.Queue.ADDRESS).nop())


class Rings(Served):
    """What a process may and may not write to its queue."""

    def end_each(self, cases):
        """Each case breaks a session of its own, by a function of its queue; others go on."""
        device = self.attach()
        witness = v.Queue(device, 15).open()
        cases = list(cases)
        for start in range(0, len(cases), 15):
            part = [(name, breaks, v.Queue(device, i))
                    for i, (name, breaks) in enumerate(cases[start:start + 15])]
            for _, _, q in part:
                q.begin()
            for name, breaks, q in part:
                self.assertEqual(q.wait_state("RUNNING", "ENDED")[0], "RUNNING", name)
                breaks(q)
            for name, _, q in part:
                reason = v.wait_until(f"the end of {name}",
                                      lambda q=q: q.state() == "ENDED" and q.status()[1])
                self.assertEqual(reason, "BAD_RING", name)
            self.good(witness)
            self.good_registers(device)
        self.assertEqual(len(self.sessions()), 1)
        # As many lines as a VM may cause.
        self.assertEqual(self.m.read_log().count("what the ring holds is no command"),
                         min(len(cases), 50))
        self.good(v.Queue(device, 0).open())

    def test_guest_broken_tails(self):
        def push(count):
            return lambda q: q.push(count)
        self.end_each((f"tail {count}", push(count))
                      for count in (1, 8, 15, 17, RING + 1, RING + 16, 2 * RING, 1 << 31,
                                    (1 << 32) - 16, (1 << 32) - 1))

    def test_guest_tail_goes_back(self):
        def back(q):
            for _ in range(10):
                q.call("NOP")
            q.push((1 << 32) - 16)
        self.end_each([("tail back", back)])

    def test_guest_broken_headers(self):
        def post(data, posted=None):
            def broken(q):
                q.put(data)
                q.push(len(data) if posted is None else posted)
            return broken
        cases = {f"length {length}": post(v.command("NOP", length=length), 4096)
                 for length in (0, 1, 15, 17, 24, 4096 + 16, N["VGPU_COMMAND_MAX"] + 16, RING,
                                1 << 31, (1 << 32) - 16, (1 << 32) - 1)}
        cases.update({
            "longer than posted": post(v.command("NOP", length=32), 16),
            "longer than any command": post(v.command(99, length=N["VGPU_COMMAND_MAX"] + 16),
                                            RING),
            "reserved": post(v.command("NOP", reserved=1)),
            "slot 65": post(v.command("NOP", slot=65)),
            "slot 65535": post(v.command("NOP", slot=65535)),
            "pad in the middle": post(v.command("PAD")),
            "pad with a slot": post(v.command("PAD", length=RING, slot=1), RING),
            "pad longer than the ring": post(v.command("PAD", length=RING + 16), RING),
            "pad longer than posted": post(v.command("PAD", length=RING), RING - 16),
        })
        self.end_each(cases.items())

    def test_guest_command_across_the_end(self):
        def across(q):
            for _ in range(3):
                q.post(v.command(99, bytes(N["VGPU_COMMAND_MAX"] - 16)))
            v.wait_until("these are taken", q.taken)
            left = RING - q.tail
            self.assertLess(left, 16384)
            q.put(v.command(99, bytes(left)))
            q.push(left + 16)
        self.end_each([("across", across)])

    def test_guest_wrong_lengths(self):
        """A unit less or more than what the opcode takes."""
        def post(name, size, slot=1):
            return lambda q: q.post(v.command(name, bytes(size), slot))
        cases = []
        for name, (size, _) in COMMANDS.items():
            if size >= 16:
                cases.append((name + " short", post(name, size - 16)))
            cases.append((name + " long", post(name, size + 32)))
        self.assertEqual(len(COMMANDS), N["VGPU_COMMAND_COUNT"] - 1)
        self.end_each(cases)

    def test_guest_wants_no_answer(self):
        """Where there has to be one."""
        def post(name, size):
            return lambda q: q.post(v.command(name, bytes(size)))
        self.end_each((name, post(name, size)) for name, (size, slot) in COMMANDS.items() if slot)

    def test_guest_wrong_lengths_inside(self):
        """Lengths in a body that are not those of the command."""
        def launch(**fields):
            return lambda q: q.post(v.command("LAUNCH", v.cmd_launch(1, bytes(32), **fields)))

        def name(length, data):
            return lambda q: q.post(v.command("FUNCTION_GET",
                                              struct.pack("<QQ", 1, length) + data, 1))
        limit = N["VGPU_NAME_MAX"]
        self.end_each((
            ("fewer parameters", launch(param_bytes=0)),
            ("more parameters", launch(param_bytes=64)),
            ("too many parameters", launch(param_bytes=N["VGPU_PARAMS_MAX"] + 1)),
            ("most parameters", launch(param_bytes=(1 << 32) - 1)),
            ("attributes that are not there", launch(attributes=1)),
            ("too many attributes", launch(attributes=N["VGPU_ATTRIBUTES_MAX"] + 1)),
            ("most attributes", launch(attributes=(1 << 64) - 1)),
            ("shorter name", name(16, bytes(32))), ("longer name", name(33, bytes(32))),
            ("too long a name", name(limit, bytes(limit))),
            ("longest name", name((1 << 64) - 1, bytes(32))),
            ("overflow", name((1 << 64) - 16, bytes(0)))))

    def test_guest_uses_a_slot_twice(self):
        """While the first answer is still to come."""
        def twice(opcode):
            def broken(q):
                self.spin(q, 1000)
                q.ask("SYNC", slot=5)
                q.post(v.command(opcode, bytes(COMMANDS.get(opcode, (0,))[0]), 5))
            return broken
        self.end_each((f"{opcode}", twice(opcode)) for opcode in ("NOP", "SYNC", "MEM_INFO", 99))

    def test_guest_unknown_opcode(self):
        """NOT_SUPPORTED, whatever its length: a newer guest asks what this host can do."""
        q = v.Queue(self.attach()).open()
        for opcode in (N["VGPU_COMMAND_COUNT"], 99, 0x8000, 0xffff):
            for size in (0, 16, N["VGPU_COMMAND_MAX"] - 16):
                self.assertEqual(q.call(opcode, bytes(size)), (gpu("NOT_SUPPORTED"), b""))
        # Without a slot the next synchronising command tells, once; a fence does not.
        q.post(v.command(99))
        self.assertTrue(q.nop())
        self.assertEqual(q.call("FENCE", bytes(16)), OK)
        self.assertEqual(q.call("SYNC"), (gpu("NOT_SUPPORTED"), b""))
        self.assertEqual(q.call("SYNC"), OK)

    def test_guest_wrong_arguments(self):
        """They fail their command alone."""
        q = v.Queue(self.attach()).open()
        memory = q.memory(4096)
        end = q.address + q.size
        copies = [v.cmd_copy(memory, start, size, "TO_DEVICE") for start, size in (
            (q.address - 1, 16), (end - 15, 16), (end, 1), (0, 16), (q.address, q.size + 1),
            (q.address, (1 << 64) - 1), (q.address + 16, (1 << 64) - q.address),
            (1 << 63, 16), (memory, 16))]
        copies += [v.cmd_copy(start, memory, 16, "FROM_DEVICE")
                   for start in (q.address - 8, end - 8, 0, memory)]
        good = v.cmd_copy(memory, q.address, 16, "TO_DEVICE")
        for offset, byte in ((32, 0), (32, 4), (33, 1), (40, 1), (47, 1)):
            copies.append(good[:offset] + bytes([byte]) + good[offset + 1:])
        for body in copies:
            self.assertEqual(q.call("COPY", body)[0], gpu("INVALID_VALUE"), body.hex())
        for body in (v.cmd_fill(memory, 1, 1, 3), v.cmd_fill(memory, 1, 1, 0),
                     v.cmd_fill(memory + 1, 1, 1, 2), v.cmd_fill(memory, 1, (1 << 64) - 1)):
            self.assertEqual(q.call("FILL", body)[0], gpu("INVALID_VALUE"), body.hex())
        for opcode in ("COPY", "FILL"):
            body = bytearray(good if opcode == "COPY" else v.cmd_fill(memory, 1, 1))
            struct.pack_into("<Q", body, 24 if opcode == "COPY" else 16, 77)
            self.assertEqual(q.call(opcode, bytes(body))[0], gpu("INVALID_HANDLE"))
        for image, size in ((q.address, 0), (q.address + 1, 4), (end, 4), (q.address, q.size + 4),
                            (q.address, 1 << 40), (0, 4), ((1 << 64) - 4, 4)):
            self.assertEqual(q.call("MODULE_LOAD", struct.pack("<QQ", image, size))[0],
                             gpu("INVALID_VALUE"))
        self.assertEqual(q.call("COPY", good), OK)
        self.good(q)

    def test_guest_fills_the_ring(self):
        """To the last byte, with one store of the tail; again and again."""
        q = v.Queue(self.attach()).open()
        q.call("NOP")
        for i in range(20):
            commands = b"".join(v.command("NOP", slot=n % 64 + 1, sequence=RING * i + n)
                                for n in range(RING // 16))
            q.put(commands)
            q.push(RING)
            v.wait_until("all are taken", q.taken)
            for n in range(RING // 16 - 64, RING // 16):
                slot = (n % 64 + 1, RING * i + n)
                self.assertEqual(q.answer(slot), OK)
        requests = self.sessions()[0]["requests"]
        self.assertEqual(requests, 1 + 20 * RING // 16)

    def test_guest_fills_the_ring_while_work_waits(self):
        q = v.Queue(self.attach()).open()
        memory = q.memory(4)
        self.m.ask("pause", pool="A")
        q.post(v.command("FILL", v.cmd_fill(memory, 0, 1)))
        self.session_state(q, "waiting")
        v.wait_until("the first is taken", q.taken)
        size, last = len(v.command("FILL", v.cmd_fill(memory, 0, 1))), 0
        while True:
            left = -q.tail % RING
            pad = left if left < size else 0
            if not q.taken(RING - pad - size):
                break
            if pad:
                q.put(v.command("PAD", length=pad))
                q.push(pad)
            last += 1
            q.put(v.command("FILL", v.cmd_fill(memory, last, 1)))
            q.push(size)
        self.assertFalse(q.taken(RING - 2 * size))
        self.m.ask("resume", pool="A")
        v.wait_until("all are taken", q.taken)
        self.assertEqual(q.call("COPY", v.cmd_copy(q.address, memory, 4, "FROM_DEVICE")), OK)
        self.assertEqual(q.call("SYNC"), OK)
        self.assertEqual(q.device.map[q.offset:q.offset + 4], struct.pack("<I", last))

    def test_count_of_bytes_wraps(self):
        """Past 2^32 bytes, in commands as long as can be."""
        q = v.Queue(self.attach()).open()
        long = N["VGPU_COMMAND_MAX"]
        lap = b"".join(v.command(99, bytes(long - 16)) for _ in range(RING // long))
        lap += v.command(99, bytes(RING - len(lap) - 16))
        while q.tail + RING < 1 << 32:
            q.put(lap)
            q.push(RING, ring=q.word("parked") % 2 == 1)
            while not q.taken():
                self.assertEqual(q.state(), "RUNNING")
                if q.word("parked") % 2 == 1:
                    os.eventfd_write(q.doorbell, 1)
        self.assertEqual(q.tail + RING, 1 << 32)
        q.put(lap)
        q.push(RING)
        self.assertEqual(q.tail, 0)
        v.wait_until("all are taken", q.taken)
        self.assertTrue(q.nop())
        self.assertEqual(q.word("head"), 16)

    def test_guest_never_reads_its_slots(self):
        """Nor takes its interrupts, whose counter is full: the worker waits for nobody."""
        q = v.Queue(self.attach()).open()
        q.set_word("waiting", 1)
        os.eventfd_write(q.irq, EVENTFD_MAX)
        for i in range(50):
            q.post(b"".join(v.command("NOP", slot=n % 64 + 1, sequence=i) for n in range(2048)))
        self.assertTrue(q.nop())
        self.assertEqual(os.eventfd_read(q.irq), EVENTFD_MAX)
        # Now there is room, and the interrupt comes.
        self.assertTrue(q.nop())
        v.wait_until("the interrupt", lambda: os.eventfd_read(q.irq) > 0)

    def test_guest_floods_doorbells(self):
        device, other = self.attach(vm_id=1), self.attach(vm_id=2)
        q, witness = v.Queue(device).open(), v.Queue(other).open()
        os.eventfd_write(q.doorbell, EVENTFD_MAX)
        v.wait_until("the worker has cleared it", lambda: q.nop() and not v.select.select(
            [q.doorbell], [], [], 0)[0])
        for i in range(20):
            for doorbell in (q.doorbell, device.doorbell, device.fds[2 + 9]):
                for _ in range(2000):
                    os.eventfd_write(doorbell, 1)
            self.good(witness, i + 1)
            self.good_registers(other, i)
        self.assertTrue(q.nop())
        self.assertEqual(v.Queue(device, 9).status(), ("FREE", "NONE", 0))

    def test_doorbell_rung_once_for_much(self):
        """What is posted while the worker is awake needs no doorbell; what comes later does."""
        q = v.Queue(self.attach()).open()
        for _ in range(50):
            v.wait_until("the worker sleeps", lambda: q.word("parked") % 2 == 1)
            ticket = q.ask("NOP", ring=False)
            self.assertFalse(q.answered(ticket))
            os.eventfd_write(q.doorbell, 1)
            self.assertEqual(q.answer(ticket), OK)

    def test_guest_throws_random_bytes(self):
        """At header, slots, ring and claim while the worker reads them: its session ends for that
        reason and for no other, and nobody else notices."""
        seed = random.randrange(1 << 32)
        print(f"seed {seed}", end=" ", file=sys.stderr)
        dice = random.Random(seed)
        other = self.attach(vm_id=2)
        witness = v.Queue(other).open()
        device = self.attach(vm_id=1)
        neighbour = v.Queue(device, 1).open()
        q = v.Queue(device).open()
        worker = self.m.vms()[2]["worker_pid"]
        commands = [v.command(name, bytes(size), 1 + i)
                    for i, (name, (size, _)) in enumerate(COMMANDS.items())]
        reasons = set()
        end = time.monotonic() + 2
        i = 0
        while time.monotonic() < end:
            i += 1
            if q.state() == "ENDED":
                reasons.add(q.status()[1])
                q.begin(**({} if i % 20 else {
                    dice.choice(("arena_address", "arena_offset", "arena_size")):
                        dice.getrandbits(dice.randrange(65)) & ~4095}))
                q.wait_state("RUNNING", "ENDED")
                continue
            self.throw(dice, q, commands)
            if i % 200 == 0:
                self.good(witness, i)
                self.good_registers(other, i)
                self.assertTrue(neighbour.nop())
        self.assertIn("BAD_RING", reasons)
        self.assertLessEqual(reasons, {"BAD_RING", "BAD_CLAIM", "ADDRESS"})
        self.assertEqual(self.m.vms()[2]["worker_pid"], worker)
        self.assertEqual(self.m.vms()[1]["worker_starts"], 1)
        q.close()
        self.good(q.open())

    @staticmethod
    def throw(dice, q, commands):
        """Changes some bytes of what is mostly good, or just some bytes."""
        if dice.random() < 0.9:
            data = bytearray(b"".join(dice.choices(commands, k=dice.randrange(1, 40))))
            for _ in range(dice.choice((0, 0, 0, 1, 1, 3))):
                data[dice.randrange(len(data))] = dice.getrandbits(8)
            q.put(bytes(data))
            q.push(len(data))
            for _ in range(dice.randrange(4)):
                q.put(dice.randbytes(dice.randrange(1, 17)), q.tail - dice.randrange(1, 600))
        else:
            at = q.base + dice.choice((0, dice.randrange(128), dice.randrange(1 << 14),
                                       dice.randrange(N["VGPU_QUEUE_SIZE"] - 4096)))
            data = dice.randbytes(dice.choice((1, 4, 16, 4096)))
            q.device.map[at:at + len(data)] = data
            os.eventfd_write(q.doorbell, 1)


class Turns(TestCase):
    def two(self, **fields):
        return [v.Queue(self.attach(vm_id=vm, **fields)).open() for vm in (1, 2)]

    def test_two_that_never_rest(self):
        """Work is always under way in both: both get on, and what they compute is right."""
        self.make()
        queues = self.two()
        memory = [q.memory(4) for q in queues]
        tickets = ([], [])
        for i in range(1500):
            for q, address, under_way in zip(queues, memory, tickets):
                under_way.append(q.ask("FILL", v.cmd_fill(address, i, 1), slot=i % 8 + 1))
                if len(under_way) == 8:
                    self.assertEqual(q.answer(under_way.pop(0)), OK)
        for q, address in zip(queues, memory):
            q.post(v.command("COPY", v.cmd_copy(q.address, address, 4, "FROM_DEVICE")))
            self.assertEqual(q.call("SYNC", slot=9), OK)
            self.assertEqual(q.device.map[q.offset:q.offset + 4], struct.pack("<I", 1499))
        turns = self.m.ask("history", pool="A")["turns"]
        self.assertEqual({turn["vm"] for turn in turns}, {1, 2})

    def test_guest_floods_the_gpu(self):
        """Its ring is never empty; the other's few commands come through, and the flood goes on."""
        self.make()
        flood, other = self.two()
        memory = flood.memory(1 << 16)
        batch = v.command("FILL", v.cmd_fill(memory, 1, 1 << 14)) * 80
        stop = threading.Event()
        posted = []

        def run():
            while not stop.is_set():
                flood.post(batch)
                posted.append(80)
        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(stop.set)
        for i in range(20):
            self.good(other, i + 1)
        before = len(posted)
        v.wait_until("the flood goes on", lambda: len(posted) > before + 10)
        stop.set()
        thread.join()
        self.assertEqual(flood.call("SYNC"), OK)

    def test_paused_pool(self):
        """Holds up work, of sessions that had a turn too, and nothing else."""
        self.make()
        device = self.attach()
        q, other = v.Queue(device, 0).open(), v.Queue(device, 1).open()
        self.good(q)
        memory = q.memory(4)
        self.m.ask("pause", pool="A")
        for _ in range(20):
            self.assertTrue(q.nop())
            self.assertEqual(q.call("MEM_INFO")[0], 0)
            self.assertEqual(q.call("SYNC"), OK)
        turns = self.m.ask("history", pool="A")["turns"]
        event, stream = [q.value(kind + "_CREATE", bytes(16)) for kind in ("EVENT", "STREAM")]
        ticket = q.ask("FILL", v.cmd_fill(memory, 1, 1))
        q.post(v.command("EVENT_RECORD", struct.pack("<QQ", event, 0)))
        # What is posted behind it waits too, where it has to do with it.
        behind = [q.ask("SYNC", slot=2), q.ask("FENCE", bytes(16), 3),
                  q.ask("FILL", v.cmd_fill(memory, 2, 1, stream=stream), 4)]
        self.session_state(q, "waiting")
        for _ in range(20):
            self.assertTrue(other.nop())
            self.assertEqual(q.call("NOP", slot=9), OK)
            self.assertEqual(q.call("STREAM_QUERY", bytes(16), 9)[0], gpu("NOT_READY"))
            self.assertEqual(q.call("EVENT_QUERY", struct.pack("<QQ", event, 0), 9)[0],
                             gpu("NOT_READY"))
            self.assertEqual(q.call("MEM_INFO", slot=9)[0], 0)
        self.assertFalse(any(map(q.answered, [ticket, *behind])))
        self.assertEqual(self.m.ask("history", pool="A")["turns"], turns)
        self.m.ask("resume", pool="A")
        for late in (ticket, *behind):
            self.assertEqual(q.answer(late), OK)

    def test_close_while_it_waits(self):
        """What waited is forgotten, and the queue for the turn goes on."""
        self.make()
        first, second = self.two()
        memory = [q.memory(4) for q in (first, second)]
        self.m.ask("pause", pool="A")
        for vm, (q, address) in enumerate(zip((first, second), memory), 1):
            q.ask("FILL", v.cmd_fill(address, 1, 1))
            self.session_state(q, "waiting", vm)
        first.close()
        self.m.ask("resume", pool="A")
        self.assertEqual(second.answer((1, second.sequence)), OK)
        self.good(first.open())

    def test_priority_order(self):
        """Sessions wait in their VM's class, by arrival."""
        self.make()
        arrivals = [(1, 0), (2, 2), (3, 1), (4, 2), (5, 0)]
        queues = [v.Queue(self.attach(vm_id=vm, priority=priority)).open()
                  for vm, priority in arrivals]
        memory = [q.memory(4) for q in queues]
        self.m.ask("pause", pool="A")
        tickets = []
        for q, (vm, _), address in zip(queues, arrivals, memory):
            tickets.append(q.ask("FILL", v.cmd_fill(address, vm, 1)))
            self.session_state(q, "waiting", vm)
        self.m.ask("resume", pool="A")
        for q, ticket in zip(queues, tickets):
            self.assertEqual(q.answer(ticket), OK)
        v.wait_until("five turns are over",
                     lambda: len(self.m.ask("history", pool="A")["turns"]) == 5)
        turns = self.m.ask("history", pool="A")["turns"]
        self.assertEqual([turn["vm"] for turn in turns], [2, 4, 3, 1, 5])

    def test_guest_keeps_the_gpu(self):
        """A kernel without end: at the limit it is ended for who waits, and with it its session."""
        self.make(mediator="turn-limit = 1\npreempt = no")
        hog, other = self.two()
        memory = other.memory(4)
        self.spin(hog, 1000)
        self.session_state(hog, "running")
        # Nobody waits: it may, and so it may when others have had what they wanted.
        for _ in range(2):
            time.sleep(1.5)
            self.assertEqual(hog.state(), "RUNNING")
            ticket = other.ask("FILL", v.cmd_fill(memory, 1, 1))
            self.assertEqual(other.answer(ticket), OK)
        self.assertEqual(self.crowd_out(hog, other), "TIMEOUT")
        self.assertIn("a turn of more than 1000 ms", self.m.read_log())
        self.good(other)
        self.good_registers(hog.device)
        self.good(hog.open())

    def test_guest_keeps_the_gpu_from_register_mode(self):
        self.make(mediator="turn-limit = 1\npreempt = no")
        size = 256 * MIB
        device = self.attach(shm=size)
        hog = v.Queue(device).open()
        self.spin(hog, 1000)
        self.session_state(hog, "running")
        start = time.monotonic()
        while hog.state() == "RUNNING" and time.monotonic() - start < v.PATIENCE:
            # So long that it is under way at most times.
            sums = v.add_shm(size // 16, size // 4, size // 2, 3 * (size // 4))
            self.assertEqual(device.call(sums)[0], 0)
        self.assertEqual(hog.end(), "TIMEOUT")

    def test_guest_opens_again_at_the_limit(self):
        """OPEN right behind the end: the new session is not taken for the old one."""
        self.make(mediator="turn-limit = 1\npreempt = no")
        hog, other = self.two()
        for _ in range(2):
            self.spin(hog, 1000)
            self.session_state(hog, "running")
            self.assertEqual(self.crowd_out(hog, other), "TIMEOUT")
            self.good(hog.open())

    def test_worker_that_stops(self):
        """Stopped by somebody in its turn: the same end, and others go on."""
        self.make(mediator="turn-limit = 1")
        stopped, other = self.two()
        self.spin(stopped, 1000)
        self.session_state(stopped, "running")
        os.kill(self.worker(stopped), signal.SIGSTOP)
        self.good(other)
        self.assertEqual(self.crowd_out(stopped, other), "TIMEOUT")


class Messages(Served):
    """QUEUE and FDS on the attach socket."""

    def refused(self, client, words):
        answer = client.receive()
        self.assertEqual(v.get(answer, "vgpu_msg.type"), N["VGPU_MSG_REFUSED"])
        self.assertIn(words, v.text(answer, "vgpu_msg.refused.reason"))
        self.assertEqual(client.receive(), b"")

    def test_guest_queue_that_does_not_exist(self):
        for queues, queue in ((0, 0), (1, 1), (3, 3), (3, 64), (3, 0xffffffff)):
            with v.Device(v.Client(self.m), vm_id=9, queues=queues) as device:
                worker = self.m.vm(9)["worker_pid"]
                device.client.send(v.message("QUEUE", queue__queue=queue, queue__action=1))
                self.refused(device.client, f"queue {queue} of a device with {queues}")
            v.wait_until("it is gone", lambda: not exists(worker))

    def test_guest_queue_before_hello(self):
        with v.Client(self.m) as client:
            client.send(v.message("QUEUE", queue__queue=0, queue__action=1))
            self.refused(client, "QUEUE before HELLO")

    def test_guest_queue_after_bye(self):
        with v.Device(v.Client(self.m), queues=1) as device:
            v.Queue(device).open()
            device.client.send(v.message("BYE"))
            device.client.send(v.message("QUEUE", queue__queue=0, queue__action=2))
            self.refused(device.client, "QUEUE before HELLO")

    def test_guest_queue_with_descriptors(self):
        event = os.eventfd(0)
        self.addCleanup(os.close, event)
        with v.Client(self.m) as client:
            client.attach(queues=1)
            client.send(v.message("QUEUE", queue__queue=0, queue__action=1), [event] * 3)
            self.refused(client, "descriptors came with a message that has none")

    def test_guest_too_many_queues(self):
        for shm, queues in ((MIB, 4), (8 * MIB, 29), (16 * MIB, 57)):
            self.assertEqual(v.queues_max(shm), queues - 1)
            with v.Client(self.m) as client:
                client.send(v.hello(shm=shm, queues=queues))
                self.refused(client, f"{queues} queues do not fit")
            with v.Device(v.Client(self.m), shm=shm, queues=queues - 1) as device:
                self.assertTrue(v.Queue(device, queues - 2, size=4096).open().nop())
            v.wait_until("it is gone", lambda: self.m.vms() == {})
        with v.Client(self.m) as client:
            client.send(v.hello(shm=64 * MIB, queues=65))
            self.refused(client, "65 queues")

    def pieces(self, client, counts, fds, queues=64):
        """A handover whose descriptors come in so many pieces."""
        hello = v.hello(shm=32 * MIB, queues=queues, hello__flags=N["VGPU_HELLO_HANDOVER"])
        for i, count in enumerate(counts):
            client.send(v.message("FDS") if i else hello, fds[:count])
            fds = fds[count:]

    def test_guest_hands_over_in_wrong_pieces(self):
        with v.Device(v.Client(self.m), vm_id=9, shm=32 * MIB, queues=64) as device:
            fds = device.fds
            self.assertEqual(len(fds), 131)
            for counts, words in (((15,), "15 descriptors"), ((16, 15), "15 descriptors"),
                                  ((16, 0), "0 descriptors"), ((16,) * 8 + (2,), "2 descriptors"),
                                  ((16,) * 8 + (4,), "4 descriptors")):
                with v.Client(self.m) as client:
                    self.pieces(client, counts, fds + fds)
                    self.refused(client, words)
            with v.Client(self.m) as client:
                self.pieces(client, (16, 16), fds)
                client.send(v.message("QUEUE", queue__queue=0, queue__action=1))
                self.refused(client, "QUEUE before HELLO")
            with v.Client(self.m) as client:
                self.pieces(client, (16, 16, 16), fds)
                client.send(v.hello())
                self.refused(client, "second HELLO")

    def test_guest_goes_between_pieces(self):
        with v.Device(v.Client(self.m), vm_id=9, shm=32 * MIB, queues=64) as device:
            for pieces in range(1, 9):
                with v.Client(self.m) as client:
                    self.pieces(client, (16,) * pieces, device.fds)

    def test_guest_fds_unasked(self):
        with v.Client(self.m) as client:
            client.send(v.message("FDS"))
            self.refused(client, "FDS without a HELLO")
        with v.Client(self.m) as client:
            client.attach()
            client.send(v.message("FDS"))
            self.refused(client, "FDS without a HELLO")


class Ends(TestCase):
    """The mediator goes, with sessions open."""

    def setUp(self):
        self.make()

    def hand_over(self, device, vm_id=1):
        """What the stub does when a mediator is back."""
        client = v.Client(self.m)
        fds = device.fds
        client.send(v.hello(vm_id=vm_id, shm=device.shm_size, queues=device.queues,
                            hello__flags=N["VGPU_HELLO_HANDOVER"]), fds[:16])
        for start in range(16, len(fds), 16):
            client.send(v.message("FDS"), fds[start:start + 16])
        answer = client.receive()
        self.assertEqual(v.get(answer, "vgpu_msg.type"), N["VGPU_MSG_ATTACHED"],
                         v.text(answer, "vgpu_msg.refused.reason"))
        self.assertEqual(client.fds, [])
        device.client.close()
        device.client = client

    def test_mediator_killed(self):
        """A handover of 64 queues: what ran has ended, everything else is as it was."""
        device = self.attach(shm=32 * MIB, queues=64)
        running = [v.Queue(device, i).open() for i in (0, 17, 63)]
        free, lost = v.Queue(device, 5).open(), v.Queue(device, 6).open()
        free.close()
        os.kill(self.worker(lost), signal.SIGKILL)
        self.assertEqual(lost.end(), "LOST")
        self.spin(running[1], 1000)
        workers = v.workers(self.m.pid)
        self.m.stop(signal.SIGKILL)
        v.wait_until("the workers have ended", lambda: not any(map(exists, workers)))
        self.assertEqual(running[0].status(), ("RUNNING", "NONE", 1))
        self.m.start()
        self.hand_over(device)
        for q in running:
            self.assertEqual(q.status(), ("ENDED", "MEDIATOR", 1))
        self.assertEqual(free.status(), ("FREE", "NONE", 2))
        self.assertEqual(lost.status(), ("ENDED", "LOST", 1))
        self.assertEqual(v.Queue(device, 7).status(), ("FREE", "NONE", 0))
        self.assertEqual(self.m.vm(1)["sessions"], [])
        for q in (*running, free, lost):
            count = q.status()[2]
            self.good(q.open())
            self.assertEqual(q.status(), ("RUNNING", "NONE", count + 1))
        self.good_registers(device)

    def test_launcher_killed(self):
        """Without what starts workers the mediator is of no use: it says so, and ends."""
        q = v.Queue(self.attach()).open()
        worker, (launcher,) = self.worker(q), v.children(self.m.pid)
        os.kill(launcher, signal.SIGKILL)
        self.assertEqual(self.m.process.wait(v.PATIENCE), 1)
        self.assertIn("the process that starts workers has ended", self.m.read_log())
        v.wait_until("the worker has ended", lambda: not exists(worker))
        self.m.start()

    def test_mediator_killed_while_a_session_starts(self):
        """STARTING has ended too, whenever it comes to it."""
        device = self.attach()
        queues = [v.Queue(device, i) for i in range(16)]
        for q in queues:
            q.clear()
            q.claim()
            q.send("OPEN")
        v.wait_until("one is counted", lambda: any(q.status()[2] for q in queues))
        self.m.stop(signal.SIGKILL)
        # Children on their way to be workers have its sockets until then.
        v.wait_until("nobody listens", lambda: not v.listens(self.m.socket))
        self.m.start()
        before = [q.status() for q in queues]
        self.hand_over(device)
        for q, (state, _, count) in zip(queues, before):
            self.assertEqual(q.status(), ("FREE", "NONE", 0) if state == "FREE" else
                             ("ENDED", "MEDIATOR", count))
        for q in queues:
            self.good(q.open())

    def test_reset_after_a_handover(self):
        """Ends that an earlier mediator has left go with the guest."""
        device = self.attach()
        q = v.Queue(device).open()
        self.m.stop(signal.SIGKILL)
        self.m.start()
        self.hand_over(device)
        self.assertEqual(q.status(), ("ENDED", "MEDIATOR", 1))
        device.client.send(v.message("RESET", serial=3, reset__flags=N["VGPU_RESET_QUEUES"]))
        self.assertEqual(v.get(device.client.receive(), "vgpu_msg.serial"), 3)
        self.assertEqual(q.status(), ("FREE", "NONE", 1))

    def test_sigterm(self):
        """With sessions that rest, work without end, wait and start: it ends, and says so."""
        device, other = self.attach(vm_id=1), self.attach(vm_id=2)
        queues = [v.Queue(device, i).open() for i in range(3)]
        waiting = v.Queue(other).open()
        memory = waiting.memory(4)
        self.spin(queues[1], 1000)
        self.session_state(queues[1], "running")
        # Otherwise it would be let in beside the kernel once patience is over.
        self.m.ask("pause", pool="A")
        waiting.ask("FILL", v.cmd_fill(memory, 1, 1))
        self.session_state(waiting, "waiting", 2)
        free = v.Queue(device, 4).open()
        free.close()
        workers = v.workers(self.m.pid)
        starting = v.Queue(device, 3)
        starting.begin()
        self.assertEqual(self.m.stop(signal.SIGTERM), 0)
        for q in (*queues, starting, waiting):
            self.assertEqual(q.status()[:2], ("ENDED", "MEDIATOR"), q.number)
        self.assertEqual(free.status(), ("FREE", "NONE", 2))
        self.assertFalse(any(map(exists, workers)))
        self.m.start()
        self.hand_over(device)
        self.good(queues[0].open())

    def test_program_sees_the_mediator_go(self):
        """A libvgpu program on the host: its session has ended, with that reason."""
        with subprocess.Popen([v.SESSION_LOAD, "--host", self.m.socket, "0"], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as load:
            self.assertEqual(load.stdout.readline(), "open\n")
            self.m.stop(signal.SIGKILL)
            output, errors = load.communicate(timeout=v.PATIENCE)
        self.assertRegex(output, r"^\d+ rounds: ENDED MEDIATOR\n$")
        self.assertEqual(load.returncode, 3)
        self.assertIn("mediator", errors)

    def test_programs_beside_each_other(self):
        """Four compute and check; one is killed, another's worker, the other two notice nothing."""
        command = [v.SESSION_LOAD, "--host", self.m.socket, "--vm-id"]
        loads = [subprocess.Popen([*command, str(vm), "0"], text=True, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE) for vm in (1, 2, 3, 4)]
        for load in loads:
            self.addCleanup(load.communicate)
            self.addCleanup(load.kill)
            self.assertEqual(load.stdout.readline(), "open\n")
        worker = self.sessions(1)[0]["worker_pid"]
        self.assertNotEqual(worker, 0)
        loads[0].kill()
        v.wait_until("its worker has ended", lambda: not exists(worker))
        os.kill(self.sessions(2)[0]["worker_pid"], signal.SIGKILL)
        output, _ = loads[1].communicate(timeout=v.PATIENCE)
        self.assertRegex(output, r"rounds: ENDED LOST\n$")
        for vm in (3, 4):
            before = self.sessions(vm)[0]["requests"]
            v.wait_until("it goes on", lambda: self.sessions(vm)[0]["requests"] > before + 50)
        for load in loads[2:]:
            load.terminate()
            output, errors = load.communicate(timeout=v.PATIENCE)
            self.assertRegex(output, r"^[1-9]\d* rounds: OK\n$")
            self.assertEqual((load.returncode, errors), (0, ""))


if __name__ == "__main__":
    v.main()
