#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Who gets the GPU, and how much of it: bands, shares, least shares, quotas and rates, with
sessions byte by byte that launch the built-in kernel `spin`. The limits are those of order, or so
wide that a busy machine keeps them.

Tests: worker/preempt.c, mediator/arbiter*.c, mediator/pool*.c, mediator/queue*.c, worker/interrupt.c,
worker/ledger.c, worker/ring-worker*.c"""
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402
from test_sessions import MIB, OK, TestCase, exists, gpu  # noqa: E402
from vgputest import Kernels, N  # noqa: E402

LOW, MEDIUM, HIGH = 0, 1, 2
FOR_EVER = 1000  # seconds
# As the body of a FENCE: the default stream.
NO_STREAM = bytes(16)


def keep_busy(kernels, seconds):
    """All of them for so long; how many each got done meanwhile."""
    for k in kernels:
        k.keep_busy()
    # From when each has been served on: their starts differ.
    v.wait_until("all are served", lambda: [k.keep_busy() for k in kernels] and
                 all(k.done > 0 for k in kernels))
    before = [k.count() for k in kernels]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for k in kernels:
            k.keep_busy()
        time.sleep(0.002)
    return [k.count() - then for k, then in zip(kernels, before)]


class Scheduler(TestCase):
    def queue(self, vm_id, priority=MEDIUM, number=0):
        """A VM with one open session."""
        return v.Queue(self.attach(vm_id=vm_id, priority=priority), number).open()

    def fill(self, queue, memory, slot=1):
        return queue.ask("FILL", v.cmd_fill(memory, 1, 1), slot)

    def serve(self, queue, memory):
        """One piece of work, from asking to its end."""
        self.assertEqual(queue.answer(self.fill(queue, memory)), OK)
        self.assertEqual(queue.call("SYNC"), OK)

    def history(self, pool="A"):
        """As vgpuctl tells it."""
        result = subprocess.run([v.VGPUCTL, "--socket", self.m.control, "--json", "history", pool],
                                capture_output=True, timeout=v.PATIENCE, check=False, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        return sorted(json.loads(result.stdout)["turns"], key=lambda turn: turn["turn"])

    def wait_turns(self, count):
        """The VMs in the order in which they were granted turns, once so many are over."""
        v.wait_until(f"{count} turns are over", lambda: len(self.history()) >= count)
        return [turn["vm"] for turn in self.history()]


class Bands(Scheduler):
    def test_high_before_medium_before_low(self):
        """Of a pool that was paused: whatever the order in which they asked."""
        self.make()
        arrivals = ((1, LOW), (2, HIGH), (3, MEDIUM), (4, LOW), (5, MEDIUM), (6, HIGH))
        for _ in range(3):
            queues = [self.queue(vm, priority) for vm, priority in arrivals]
            memory = [q.memory(4) for q in queues]
            before = len(self.history())
            self.m.ask("pause", pool="A")
            for (vm, _), q, address in zip(arrivals, queues, memory):
                self.fill(q, address)
                self.session_state(q, "waiting", vm)
            self.m.ask("resume", pool="A")
            self.assertEqual(self.wait_turns(before + 6)[before:], [2, 6, 3, 5, 1, 4])
            for q in queues:
                self.assertEqual(q.answer((1, q.sequence)), OK)
                self.detach(q.device)

    def test_first_come_first_served(self):
        """Within a band."""
        self.make()
        order = (4, 1, 7, 3, 8, 2, 6, 5)
        queues = {vm: self.queue(vm) for vm in range(1, 9)}
        memory = {vm: q.memory(4) for vm, q in queues.items()}
        self.m.ask("pause", pool="A")
        for vm in order:
            self.fill(queues[vm], memory[vm])
            self.session_state(queues[vm], "waiting", vm)
        self.m.ask("resume", pool="A")
        self.assertEqual(self.wait_turns(8), list(order))

    def test_higher_ones_do_not_wait_for_a_kernel_without_end(self):
        self.make()
        low = self.queue(1, LOW)
        others = [self.queue(2, MEDIUM), self.queue(3, HIGH)]
        memory = [q.memory(4) for q in others]
        kernel = Kernels(low, FOR_EVER)
        kernel.post()
        self.session_state(low, "running")
        for _ in range(10):
            for q, address in zip(others, memory):
                self.serve(q, address)
        self.assertEqual((low.state(), kernel.count()), ("RUNNING", 0))

    def test_higher_ones_do_not_wait_for_what_is_posted(self):
        """Ten seconds of it: they get between its kernels."""
        self.make()
        low, high = self.queue(1, LOW), self.queue(2, HIGH)
        memory = high.memory(4)
        before = Kernels(low, 0.02)
        for _ in range(60):
            before.post()
        for _ in range(500):
            low.post(before.launch)
        self.session_state(low, "running")
        behind = low.ask("FENCE", NO_STREAM, N["VGPU_SLOTS"])
        for _ in range(10):
            self.serve(high, memory)
        self.assertFalse(low.answered(behind))
        done = before.count()
        v.wait_until("it goes on", lambda: before.count() > done)

    def saturate(self, least_share):
        """A high VM with four seconds of work, and a low one with some; their kernels."""
        self.make(config=f"[pool A]\ndevices = 0\nleast-share = {least_share}\n")
        high, low = self.queue(1, HIGH), self.queue(2, LOW)
        much = Kernels(high, 0.01)
        little = Kernels(low, 0.01)
        for _ in range(340):
            high.post(much.launch)
        for _ in range(60):
            much.post()
        self.session_state(high, "running")
        for _ in range(60):
            little.post()
        # While the last but one is under way the high one wants the GPU for certain.
        almost = much.under_way[-2]
        v.wait_until("one is served", lambda: little.count() or high.answered(almost))
        return much, little, high.answered(almost)

    def test_least_share(self):
        """A low VM gets on beside a high one that always has work, and gets no more than that."""
        much, little, over = self.saturate("10%")
        self.assertFalse(over)
        v.wait_until("the high one is done", lambda: much.queue.answered(much.under_way[-2]))
        # Ten per cent of four seconds are forty kernels.
        self.assertLess(little.count(), 60)
        v.wait_until("the low one is done", lambda: little.count() == 60)

    def test_no_least_share(self):
        """The low VM comes after all of it."""
        _, little, over = self.saturate("0%")
        self.assertTrue(over)
        v.wait_until("the low one is done", lambda: little.count() == 60)


class Shares(Scheduler):
    def test_three_to_one(self):
        """What two VMs of a band get done in some seconds."""
        self.make(config="[vm 1]\nshare = 300\n[vm 2]\nshare = 100\n")
        three, one = keep_busy([Kernels(self.queue(vm), 0.002) for vm in (1, 2)], 5)
        self.assertGreater(three, 2 * one)
        self.assertLess(three, 4.5 * one)

    def test_sessions_share_what_their_vm_gets(self):
        """Eight sessions get no more than the one of another VM."""
        self.make()
        device = self.attach(vm_id=1)
        many = [Kernels(v.Queue(device, i).open(), 0.002) for i in range(8)]
        counts = keep_busy([*many, Kernels(self.queue(2), 0.002)], 5)
        self.assertLess(sum(counts[:8]), 2 * counts[8])
        self.assertGreater(sum(counts[:8]), counts[8] / 2)
        # And they share it fairly.
        self.assertGreater(min(counts[:8]), max(counts[:8]) / 3)

    def test_who_rests_saves_nothing(self):
        """A VM that comes after others have shared the GPU for long gets no more than they do."""
        self.make()
        first, second, rested = [Kernels(self.queue(vm), 0.002) for vm in (1, 2, 3)]
        keep_busy([first, second], 4)
        counts = keep_busy([first, second, rested], 3)
        self.assertLess(max(counts), 2 * min(counts))


class Preempted(Scheduler):
    """Work is taken off the GPU in the middle of a kernel, and goes on later."""

    def setUp(self):
        self.make(mediator="turn-limit = 2")

    def beside_endless(self, *bands):
        """A low session with a kernel without end, and others in these bands with memory."""
        hog = self.queue(1, LOW)
        kernel = Kernels(hog, FOR_EVER)
        kernel.post()
        self.session_state(hog, "running")
        others = [self.queue(2 + i, band) for i, band in enumerate(bands)]
        return hog, kernel, [(q, q.memory(4)) for q in others]

    def off(self, vm_id):
        """For how many of the VM's sessions it is so now."""
        return sum("off_seconds" in s for s in self.m.vm(vm_id)["sessions"])

    def submitted(self, vm_id):
        """Waits until the first session has work on the engine: who has a turn may have none yet."""
        v.wait_until("it is submitted",
                     lambda: self.m.vm(vm_id)["sessions"][0]["in_flight"] > 0)

    def test_nobody_waits_for_a_kernel_without_end(self):
        """Nor is it ended, though others have work for longer than the limit."""
        hog, kernel, others = self.beside_endless(LOW, MEDIUM, HIGH)
        start = time.monotonic()
        while time.monotonic() - start < 4:
            for q, address in others:
                self.serve(q, address)
        self.assertEqual((hog.state(), kernel.count()), ("RUNNING", 0))
        for q, _ in others:
            self.good(q)

    def test_a_moment_of_work_and_then_more(self):
        """What ends before the kernel is off keeps its turn, and works on without asking."""
        hog, _, ((other, memory),) = self.beside_endless(LOW)
        time.sleep(0.5)
        self.serve(other, memory)
        time.sleep(0.5)
        keep_busy([Kernels(other, 0.05)], 3)
        self.assertEqual(hog.state(), "RUNNING")

    def test_paused_vm(self):
        """Its kernel is off, its new sessions wait, others do not notice; then it goes on."""
        low, other = self.queue(1, LOW), self.queue(2, LOW)
        memory, mine = low.memory(4), other.memory(4)
        low.post(v.command("LAUNCH", v.cmd_launch(low.function("spin"), struct.pack("<Q", 3 * 10**9))))
        low.post(v.command("FILL", v.cmd_fill(memory, 7, 1)))
        ticket = low.ask("FENCE", bytes(16), 1)
        self.submitted(1)
        self.m.ask("pause", vm=1)
        self.session_state(low, "off")
        self.assertIs(self.m.vm(1)["paused"], True)
        late = v.Queue(low.device, 1).open()
        waiting = self.fill(late, late.memory(4))
        self.session_state(late, "waiting")
        for _ in range(20):
            self.serve(other, mine)
        time.sleep(3.5)  # longer than the kernel, and than turn-limit
        self.assertFalse(low.answered(ticket) or late.answered(waiting))
        top = subprocess.run([v.VGPUCTL, "--socket", self.m.control, "top", "--batch", "--count",
                              "1"], capture_output=True, timeout=v.PATIENCE, check=True, text=True)
        self.assertRegex(top.stdout, r"\n1 .* paused .*\n +queue 0 +off:[3-9]s ")
        self.m.ask("set", vm=1, key="priority", value="high")
        self.serve(other, mine)
        self.assertFalse(late.answered(waiting))
        self.m.ask("resume", vm=1)
        self.assertEqual(low.answer(ticket), OK)
        self.assertEqual(late.answer(waiting), OK)
        low.call("COPY", v.cmd_copy(low.address, memory, 4, "FROM_DEVICE"))
        self.assertEqual(low.call("SYNC"), OK)
        self.assertEqual(struct.unpack_from("<I", low.device.map, low.offset), (7,))
        self.assertIs(self.m.vm(1)["paused"], False)

    def copies_behind(self, hold):
        """A kernel and a copy behind it, while the kernel is held off and others copy for longer
        than the limit."""
        low, other = self.queue(1, LOW), self.queue(2, LOW)
        memory, mine = low.memory(4), other.memory(MIB)
        low.post(v.command("LAUNCH", v.cmd_launch(low.function("spin"), struct.pack("<Q", 10**9))))
        low.post(v.command("FILL", v.cmd_fill(memory, 9, 1)))
        low.post(v.command("COPY", v.cmd_copy(low.address, memory, 4, "FROM_DEVICE")))
        ticket = low.ask("FENCE", bytes(16), 1)
        self.session_state(low, "running")
        with hold():
            end = time.monotonic() + 3
            while time.monotonic() < end:
                other.call("COPY", v.cmd_copy(other.address, mine, MIB, "FROM_DEVICE"))
                self.assertEqual(other.call("SYNC"), OK)
            self.assertFalse(low.answered(ticket))
        self.assertEqual(low.answer(ticket), OK)
        self.assertEqual(struct.unpack_from("<I", low.device.map, low.offset), (9,))

    def test_copy_behind_a_kernel_that_is_off(self):
        @contextlib.contextmanager
        def pause():
            self.control("pause", vm=1)
            yield
            self.control("resume", vm=1)

        @contextlib.contextmanager
        def busy():
            high = self.queue(3, HIGH)
            kernels = Kernels(high, 0.02)
            thread = threading.Thread(target=lambda: [kernels.keep_busy(4) or time.sleep(0.005)
                                                      for _ in range(800)])
            thread.start()
            yield
            thread.join()

        self.copies_behind(pause)
        self.tearDown()
        self.setUp()
        self.copies_behind(busy)

    def test_history_of_what_was_off(self):
        """Waits are those for turns that were asked for."""
        low, high = self.queue(1, LOW), self.queue(2, HIGH)
        memory = high.memory(4)
        kernel = Kernels(low, 0.1)
        for _ in range(3):
            kernel.post()
        while kernel.count() < 3:
            self.serve(high, memory)
            time.sleep(0.01)
        self.assertGreater(self.m.vm(1)["preemptions"], 0)
        for turn in self.m.ask("history", pool="A")["turns"]:
            self.assertLess(turn["waited_seconds"], v.PATIENCE)

    def test_many_of_them(self):
        hogs = [v.Queue(self.attach(vm_id=1), 0).open()]
        hogs += [v.Queue(hogs[0].device, i).open() for i in range(1, 6)]
        for q in hogs:
            self.spin(q, FOR_EVER)
        other = self.queue(2, LOW)
        memory = other.memory(4)
        for _ in range(30):
            self.serve(other, memory)
        self.assertEqual([q.state() for q in hogs], ["RUNNING"] * 6)
        for q in hogs:
            q.close()
        self.good(other)

    def test_what_was_off_goes_on_and_is_right(self):
        """Kernels of 0.6 s of a low VM, with what comes behind each, beside a high one that comes
        and goes: off and on many times."""
        low, high = self.queue(1, LOW), self.queue(2, HIGH)
        memory, mine = low.memory(4096), high.memory(4)
        spin = v.command("LAUNCH", v.cmd_launch(low.function("spin"), struct.pack("<Q", 600000000)))
        tickets = []
        for i in range(6):
            low.post(spin)
            low.post(v.command("FILL", v.cmd_fill(memory + 4 * i, i + 1, 1)))
            tickets.append(low.ask("FENCE", bytes(16), i + 1))
        start, bursts = time.monotonic(), 0
        while not low.answered(tickets[-1]):
            for _ in range(5):
                self.serve(high, mine)
            bursts += 1
            time.sleep(0.005)
        self.assertGreater(time.monotonic() - start, 3.6)
        self.assertGreater(bursts, 50)
        low.call("COPY", v.cmd_copy(low.address, memory, 24, "FROM_DEVICE"))
        self.assertEqual(low.call("SYNC"), OK)
        self.assertEqual(struct.unpack_from("<6I", low.device.map, low.offset), (1, 2, 3, 4, 5, 6))

    def test_shares_do_not_depend_on_the_length_of_kernels(self):
        """One without end, and short ones: half for each."""
        self.queue(1, MEDIUM)
        hog, other = v.Queue(self.attach(vm_id=3)).open(), self.queue(2, MEDIUM)
        kernels = Kernels(other, 0.002)
        alone, = keep_busy([kernels], 3)
        self.spin(hog, FOR_EVER)
        done, = keep_busy([kernels], 3)
        self.assertGreater(done, alone * 0.30)
        self.assertLess(done, 3 / 0.002 * 0.60)

    def test_pause(self):
        """Stops what runs, and resume lets it go on."""
        q = self.queue(1)
        kernel = Kernels(q, 3)
        kernel.post()
        self.submitted(1)
        self.control("pause", pool="A")
        v.wait_until("it is off", lambda: self.off(1) == 1)
        time.sleep(1)
        self.assertEqual(kernel.count(), 0)
        self.control("resume", pool="A")
        v.wait_until("it is done", lambda: kernel.count() == 1)
        self.assertEqual(self.off(1), 0)
        self.good(q)

    def control(self, command, **arguments):
        self.assertIsNone(self.m.ask(command, **arguments).get("error"))

    def test_ends_while_off(self):
        """Closed, killed, detached: nobody minds, and nothing stays."""
        others = v.idle_descriptors(self.m.pid)
        for how in ("close", "kill", "detach"):
            hog, _, [(high, memory)] = self.beside_endless(HIGH)
            busy = Kernels(high, 0.02)
            v.wait_until("it is off", lambda: busy.keep_busy(4) or self.off(1) == 1)
            if how == "close":
                hog.close()
            elif how == "kill":
                os.kill(self.worker(hog), signal.SIGKILL)
                self.assertEqual(hog.end(), "LOST")
            hog.device.client.close()
            v.wait_until("VM 1 is gone", lambda: 1 not in self.m.vms())
            v.wait_until("the other is done", lambda: busy.count() == busy.posted)
            self.serve(high, memory)
            high.device.client.close()
            v.wait_until("all are gone", lambda: not self.m.vms())
        v.wait_until("nothing is left", lambda: v.idle_descriptors(self.m.pid) <= others)

    def test_max_kernel_does_not_count_the_time_that_it_is_off(self):
        self.make(mediator="turn-limit = 2", config="[vm 1]\nmax-kernel = 1s\n")
        low, high = self.queue(1, LOW), self.queue(2, HIGH)
        kernel, busy = Kernels(low, 0.5), Kernels(high, 0.02)
        busy.keep_busy()
        kernel.post()
        end = time.monotonic() + 3
        while time.monotonic() < end:
            busy.keep_busy()
        self.assertEqual(low.state(), "RUNNING")
        v.wait_until("it is done", lambda: kernel.count() == 1)

    def test_a_worker_that_does_not_obey(self):
        """It is passed, and ended at the limit."""
        hog, _, [(high, memory)] = self.beside_endless(HIGH)
        os.kill(self.worker(hog), signal.SIGSTOP)
        for _ in range(3):
            self.serve(high, memory)
        self.assertEqual(self.crowd_out(hog, high), "TIMEOUT")
        self.good(high)


class Endless(Scheduler):
    """Where work cannot be taken off the GPU."""

    def others_go_on(self, stops):
        """Of every band, beside a kernel without end, which is ended at the limit."""
        self.make(mediator="turn-limit = 2\npreempt = no")
        hog = self.queue(1, MEDIUM)
        others = [self.queue(2 + priority, priority) for priority in (LOW, MEDIUM, HIGH)]
        memory = [q.memory(4) for q in others]
        kernel = Kernels(hog, FOR_EVER)
        kernel.post()
        self.session_state(hog, "running")
        worker = self.worker(hog)
        if stops:
            os.kill(worker, signal.SIGSTOP)
        for q, address in zip(others, memory):
            for _ in range(3):
                self.serve(q, address)
        self.assertEqual((hog.state(), kernel.count()), ("RUNNING", 0))
        self.assertEqual(self.crowd_out(hog, others[1]), "TIMEOUT")
        v.wait_until("its worker has ended", lambda: not exists(worker))
        for q in (*others, hog.open()):
            self.good(q)

    def test_others_go_on(self):
        """Its worker yields the turn."""
        self.others_go_on(False)

    def test_others_go_on_beside_a_worker_that_stops(self):
        """It says nothing more."""
        self.others_go_on(True)

    def test_many_of_them(self):
        """Each is passed after a moment; all are ended, and nobody else is."""
        self.make(mediator="turn-limit = 2\npreempt = no")
        device, other = self.attach(vm_id=1), self.queue(2, LOW)
        hogs = [v.Queue(device, i).open() for i in range(6)]
        for q in hogs:
            self.spin(q, FOR_EVER)
        self.assertEqual([self.crowd_out(q, other) for q in hogs], ["TIMEOUT"] * 6)
        self.good(other)

    def test_max_kernel(self):
        """The session ends, what it owes is answered, and its VM's others are unharmed."""
        self.make(config="[vm 1]\nmax-kernel = 2s\n")
        device, stranger = self.attach(vm_id=1), self.queue(2)
        long, other = v.Queue(device, 0).open(), v.Queue(device, 1).open()
        self.spin(stranger, FOR_EVER)
        many = Kernels(other, 0.02)
        for _ in range(60):
            many.post()
        self.spin(long, FOR_EVER)
        pending = [long.ask("SYNC", slot=1), long.ask("FENCE", NO_STREAM, 2)]
        for ticket in pending:
            self.assertEqual(long.answer(ticket), (gpu("LAUNCH_TIMEOUT"), b""))
        self.assertEqual(long.end(), "TIMEOUT")
        self.assertIn("longer than the VM's max-kernel", self.m.read_log())
        v.wait_until("the others are done", lambda: many.count() == 60)
        self.assertEqual((other.state(), stranger.state()), ("RUNNING", "RUNNING"))
        self.good(long.open())

    def test_max_kernel_is_for_each(self):
        """Many may take longer than the limit in all."""
        self.make(config="[vm 1]\nmax-kernel = 1s\n")
        many = Kernels(self.queue(1), 0.04)
        for _ in range(100):
            many.queue.post(many.launch)
        many.post()
        v.wait_until("all are done", lambda: many.queue.state() != "RUNNING" or many.count() == 1)
        self.assertEqual(many.queue.status()[:2], ("RUNNING", "NONE"))


class Quotas(Scheduler):
    def allocate(self, *queues):
        """By turns, a MiB each, until there is none; how many."""
        count = 0
        while True:
            result, _ = queues[count % len(queues)].call("MEM_ALLOC", struct.pack("<QQ", MIB, 0))
            if result != 0:
                self.assertEqual(result, gpu("OUT_OF_MEMORY"))
                return count
            count += 1

    def test_memory(self):
        """Of all sessions of a VM together; what a session has goes with it, however it ends."""
        self.make(config="[vm 1]\nmemory = 16M\n")
        device, stranger = self.attach(vm_id=1), self.queue(2)
        first, second = v.Queue(device, 0).open(), v.Queue(device, 1).open()
        self.assertEqual(struct.unpack("<QQ", first.call("MEM_INFO")[1]), (16 * MIB, 16 * MIB))
        kept = first.memory(4 * MIB)
        self.assertEqual(second.call("MEM_ALLOC", struct.pack("<QQ", 12 * MIB + 1, 0))[0],
                         gpu("OUT_OF_MEMORY"))
        self.assertEqual(self.allocate(first, second), 12)
        for q in (first, second):
            self.assertEqual(struct.unpack("<QQ", q.call("MEM_INFO")[1]), (0, 16 * MIB))
            self.assertEqual(q.call("MEM_ALLOC", struct.pack("<QQ", 1, 0))[0],
                             gpu("OUT_OF_MEMORY"))
        self.assertEqual((self.m.vms()[1]["memory_used"], self.m.vms()[1]["memory_limit"]),
                         (16 * MIB, 16 * MIB))
        self.assertNotEqual(stranger.memory(64 * MIB), 0)
        # Freed.
        self.assertEqual(first.call("MEM_FREE", struct.pack("<QQ", kept, 0)), OK)
        self.assertEqual(self.allocate(second), 4)
        # Killed: the second had six MiB, and then four.
        os.kill(self.worker(second), signal.SIGKILL)
        self.assertEqual(second.end(), "LOST")
        self.assertEqual(self.allocate(first), 10)
        # Closed.
        second.open()
        self.assertEqual(self.allocate(second), 0)
        first.close()
        self.assertEqual(self.allocate(second), 16)
        second.close()
        self.assertEqual(self.m.vms()[1]["memory_used"], 0)

    def test_memory_asked_for_at_once(self):
        """Sessions that allocate at the same time do not get more than there is."""
        self.make(config="[vm 1]\nmemory = 16M\n")
        device = self.attach(vm_id=1)
        queues = [v.Queue(device, i).open() for i in range(4)]
        for _ in range(20):
            tickets = [(q, q.ask("MEM_ALLOC", struct.pack("<QQ", MIB, 0), slot=i + 1, ring=False))
                       for i in range(8) for q in queues]
            for q in queues:
                os.eventfd_write(q.doorbell, 1)
            got = [(q, *q.answer(ticket)) for q, ticket in tickets]
            self.assertEqual(sum(result == 0 for _, result, _ in got), 16)
            self.assertEqual(self.m.vms()[1]["memory_used"], 16 * MIB)
            for q, result, payload in got:
                if result == 0:
                    self.assertEqual(q.call("MEM_FREE", payload + bytes(8), slot=9), OK)
            self.assertEqual(self.m.vms()[1]["memory_used"], 0)

    def test_sessions(self):
        self.make(config="[vm 1]\nsessions = 2\n")
        device, stranger = self.attach(vm_id=1), self.attach(vm_id=2)
        first, second, third = [v.Queue(device, i) for i in range(3)]
        first.open()
        second.open()
        for _ in range(3):
            third.begin()
            self.assertEqual(third.end(), "QUOTA")
        for i in range(3):
            v.Queue(stranger, i).open()
        # An open one is counted once.
        first.send("OPEN")
        self.good(first)
        first.close()
        self.good(third.open())
        os.kill(self.worker(second), signal.SIGKILL)
        self.assertEqual(second.end(), "LOST")
        self.good(first.open())
        second.begin()
        self.assertEqual(second.end(), "QUOTA")
        # Register mode is no session.
        self.good_registers(device)

    def test_commands(self):
        """Pieces of work under way, of all sessions: what is posted beyond them waits."""
        self.make(config="[vm 1]\ncommands = 6\n")
        device = self.attach(vm_id=1)
        kernels = []
        for number in range(2):
            # The first is alone on the GPU at first, and nothing else limits it.
            kernels.append(Kernels(v.Queue(device, number).open(), 0.01))
            for k in kernels:
                for _ in range(60):
                    k.post()
            most = 0
            while any([k.count() < k.posted for k in kernels]):
                most = max(most, sum(s["in_flight"] for s in self.sessions(1).values()))
                self.assertLessEqual(most, 6)
                self.assertEqual([k.queue.state() for k in kernels], ["RUNNING"] * len(kernels))
            self.assertGreater(most, 1)


class Rates(Scheduler):
    RATE = 60

    def most(self, start):
        """As many may have been, since `start`: at that rate, and a few at once by each worker."""
        return self.RATE * (time.monotonic() - start) + 2 * 16 + 2

    def test_doorbells(self):
        """A flood is heard at the rate, and what was rung for is done."""
        self.make(config=f"[vm 1]\ndoorbell-rate = {self.RATE}\n")
        start = time.monotonic()
        device, other = self.attach(vm_id=1), self.queue(2)
        q = v.Queue(device).open()
        rung = 0
        while time.monotonic() < start + 3:
            os.eventfd_write(q.doorbell, 1)
            os.eventfd_write(device.doorbell, 1)
            rung += 2
            time.sleep(0.0005)
        self.assertLess(self.m.vms()[1]["doorbells"], self.most(start))
        self.assertGreater(rung, 2 * self.most(start))
        for i in range(20):
            # Each sleeps in between, and needs its doorbell.
            v.wait_until("the worker sleeps", lambda: q.word("parked") % 2 == 1)
            self.assertTrue(q.nop())
            self.good_registers(device, i)
        self.assertLess(self.m.vms()[1]["doorbells"], self.most(start))
        # Nobody else is held up: this takes hundreds.
        before = self.m.vms()[2]["doorbells"]
        for _ in range(300):
            v.wait_until("the worker sleeps", lambda: other.word("parked") % 2 == 1)
            self.assertTrue(other.nop())
        self.assertGreater(self.m.vms()[2]["doorbells"], before + 200)

    def test_interrupts(self):
        """Of many answers that all want one: at the rate, and the last of them is told."""
        self.make(config=f"[vm 1]\ninterrupt-rate = {self.RATE}\n")
        start = time.monotonic()
        device = self.attach(vm_id=1)
        q = v.Queue(device).open()
        q.set_word("waiting", 1)
        answers = 0
        while time.monotonic() < start + 3:
            self.assertTrue(q.nop())
            device.call(v.add_inline([1], [2]))
            answers += 2
        self.assertGreater(answers, 2 * self.most(start))
        self.assertLess(self.m.vms()[1]["interrupts"], self.most(start))
        for _ in range(20):
            while v.select.select([q.irq], [], [], 0)[0]:
                os.eventfd_read(q.irq)
            self.assertTrue(q.nop())
            v.wait_until("its interrupt", lambda: v.select.select([q.irq], [], [], 0)[0])
        self.assertLess(self.m.vms()[1]["interrupts"], self.most(start))


class Gpus(Scheduler):
    def workers(self):
        """How many each GPU of the pool has."""
        return [one["workers"] for one in self.m.ask("list")["pools"][0]["gpus"]]

    def test_sessions_go_where_the_fewest_are(self):
        self.make(config="[pool A]\ndevices = 0 1\n")
        device = self.attach(vm_id=1)
        self.assertEqual(self.workers(), [1, 0])
        self.assertEqual(self.m.vms()[1]["registers"]["gpu"], 0)
        queues = [v.Queue(device, i).open() for i in range(7)]
        self.assertEqual([self.sessions()[i]["gpu"] for i in range(7)], [1, 0, 1, 0, 1, 0, 1])
        self.assertEqual(self.workers(), [4, 4])
        for q in queues:
            self.good(q)
        # Two have gone from GPU 1: the next two go there, whoever's they are.
        queues[0].close()
        queues[2].close()
        self.assertEqual(self.workers(), [4, 2])
        other = self.attach(vm_id=2)
        v.Queue(other).open()
        self.assertEqual((self.m.vms()[2]["registers"]["gpu"], self.sessions(2)[0]["gpu"]), (1, 1))
        self.assertEqual(self.workers(), [4, 4])
        self.detach(device)
        v.wait_until("they are gone", lambda: self.workers() == [0, 2])

    def test_gpus_do_not_wait_for_each_other(self):
        self.make(config="[pool A]\ndevices = 0 1\nleast-share = 0%\n")
        hog = self.queue(1, HIGH)
        other = self.attach(vm_id=2, priority=LOW)
        pair = [v.Queue(other, i).open() for i in range(2)]
        beside, = [q for q in pair
                   if self.sessions(2)[q.number]["gpu"] != self.sessions(1)[0]["gpu"]]
        memory = beside.memory(4)
        kernels = Kernels(hog, 0.01)
        for _ in range(300):
            hog.post(kernels.launch)
        end = hog.ask("FENCE", NO_STREAM)
        self.session_state(hog, "running")
        for _ in range(10):
            self.serve(beside, memory)
        self.assertFalse(hog.answered(end))

    def refuse(self, vm_id):
        """The mediator's sentence to a VM that it does not take."""
        with v.Client(self.m) as client:
            client.send(v.hello(vm_id=vm_id, shm=8 * MIB, queues=16))
            answer = client.receive()
            self.assertEqual(v.get(answer, "vgpu_msg.type"), N["VGPU_MSG_REFUSED"])
            return v.text(answer, "vgpu_msg.refused.reason")

    def test_exclusive(self):
        """A GPU serves one VM at a time, and the next one when that has gone."""
        self.make(config="[pool A]\ndevices = 0 1\nexclusive = yes\n")
        first = self.attach(vm_id=1)
        second = self.attach(vm_id=2)
        reason = ("no GPU of pool A is free: each is drained, or serves another VM of an exclusive "
                  "pool; 'vgpuctl list' shows them")
        self.assertEqual(self.refuse(3), reason)
        for device in (first, second):
            for i in range(4):
                self.good(v.Queue(device, i).open())
        self.assertEqual({s["gpu"] for s in self.sessions(1).values()}, {0})
        self.assertEqual({s["gpu"] for s in self.sessions(2).values()}, {1})
        self.assertEqual(self.refuse(3), reason)
        self.detach(first)
        v.wait_until("it is gone", lambda: 1 not in self.m.vms())
        # It takes the GPU that is free, and the other stays where it is.
        third = self.attach(vm_id=3)
        self.good(v.Queue(third).open())
        self.assertEqual(self.sessions(3)[0]["gpu"], 0)
        self.good(v.Queue(second, 5).open())
        self.assertEqual(self.refuse(1), reason)

    def test_exclusive_keeps_to_one(self):
        """A VM has one GPU of an exclusive pool; the other is another's."""
        self.make(config="[pool A]\ndevices = 0 1\nexclusive = yes\n")
        first = self.attach(vm_id=1)
        self.good(v.Queue(first).open())
        self.assertEqual(self.workers(), [2, 0])
        second = self.attach(vm_id=2)
        self.good(v.Queue(second).open())
        self.assertEqual(self.workers(), [2, 2])
        self.assertIn("no GPU of pool A is free", self.refuse(3))


if __name__ == "__main__":
    v.main()
