#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""STOP and CONTINUE: register mode comes to rest, and goes on, whatever happens in between.

Tests: mediator/vm.c, mediator/queue.c, mediator/chores.c, mediator/client.c"""
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402
from vgputest import N  # noqa: E402

BUSY, COMPLETE = N["VGPU_STATUS_BUSY"], N["VGPU_STATUS_COMPLETE"]
LOADED = N["VGPU_CONTINUE_LOADED"]
SHM = 64 << 20
KILLS = int(os.environ.get("VGPU_KILLS", "12"))
STEP = int(os.environ.get("VGPU_POINT_STEP", "7"))


class TestCase(v.TestCase):
    heard = serial = 0  # of the last STOPPED; of the last message

    def attach(self, mediator="", keeper=False, **fields):
        self.m = self.mediator(mediator=mediator, keeper=keeper)
        self.device = v.Device(v.Client(self.m), vm_id=1, **fields)
        self.addCleanup(self.device.close)

    def send(self, kind, **fields):
        self.serial += 1
        self.device.client.send(v.message(kind, serial=self.serial, **fields))
        return self.serial

    def hear(self, kind, serial):
        """What two mediators say may come again: a STOPPED that was heard before."""
        answer = self.device.client.receive()
        while (v.get(answer, "vgpu_msg.type") == N["VGPU_MSG_STOPPED"] and
               0 < v.get(answer, "vgpu_msg.serial") <= self.heard):
            answer = self.device.client.receive()
        self.assertEqual(v.get(answer, "vgpu_msg.type"), N["VGPU_MSG_" + kind])
        self.assertEqual(v.get(answer, "vgpu_msg.serial"), serial)
        if kind == "STOPPED":
            self.heard = serial

    def stop(self):
        self.hear("STOPPED", self.send("STOP"))

    def says_nothing(self):
        self.assertEqual(select.select([self.device.client.socket], [], [], 0)[0], [])

    def in_place(self, number, count=1):
        """a += b: twice would be seen."""
        self.device.map[:4 * count] = struct.pack("<I", number) * count
        self.device.map[SHM // 2:SHM // 2 + 4 * count] = struct.pack("<I", 1000) * count
        self.device.ring(v.add_shm(count, 0, SHM // 2, 0))
        self.sum = struct.pack("<I", number + 1000) * count

    def right(self):
        self.assertEqual(self.device.finish(), (0, b""))
        self.assertEqual(self.device.map[:len(self.sum)], self.sum)

    def was_heard(self):
        return not select.select([self.device.doorbell], [], [], 0)[0]

    def works(self, number=1):
        self.assertEqual(self.device.call(v.add_inline([number], [1])),
                         (0, struct.pack("<I", number + 1)))


class Stop(TestCase):
    def test_nothing_to_do(self):
        self.attach()
        self.works()
        self.stop()
        vm = self.m.vm(1)
        self.assertEqual((vm["state"], vm["worker_pid"]), ("stopped", 0))
        # Nobody hears this now.
        self.device.ring(v.add_inline([5], [6]))
        time.sleep(0.2)
        self.assertFalse(self.was_heard())
        self.assertEqual(self.device.word("status"), COMPLETE)
        self.send("CONTINUE")
        self.assertEqual(self.device.finish(), (0, b"\x0b\0\0\0"))
        self.assertEqual(self.m.vm(1)["registers"]["worker_failures"], 0)

    def test_request_that_waits(self):
        self.attach(shm=SHM)
        self.m.ask("pause", pool="A")
        self.in_place(1)
        self.m.vm(1, state="waiting")
        self.stop()
        self.assertEqual(self.device.status(), BUSY)
        self.assertTrue(self.was_heard())
        self.m.ask("resume", pool="A")
        time.sleep(0.1)
        self.assertEqual(self.device.status(), BUSY)
        self.send("CONTINUE")
        self.right()

    def test_request_that_runs(self):
        """It is done when STOPPED comes, or has not begun."""
        self.attach(shm=SHM)
        done = 0
        for number in range(20):
            self.in_place(number, 4 << 20)
            # Not by the status: a short request can be done between two looks at it.
            v.wait_until("it was heard", self.was_heard)
            time.sleep(0.001 * (number % 4))
            self.stop()
            done += self.device.status() == COMPLETE
            before = self.device.map[:16 << 20]
            time.sleep(0.02)
            self.assertEqual(self.device.map[:16 << 20], before)
            self.send("CONTINUE")
            self.right()
        self.assertGreater(done, 0)
        self.assertEqual(self.m.vm(1)["registers"]["worker_failures"], 0)

    def test_over_and_over(self):
        """Also before the worker that CONTINUE brings is there, and while one still finishes."""
        self.attach()
        for number in range(30):
            self.device.ring(v.add_inline([number], [1]))
            serials = []
            for _ in range(number % 3 + 1):
                serials.append(self.send("STOP"))
                self.send("CONTINUE")
            serials.append(self.send("STOP"))
            heard = 0
            while heard != serials[-1]:
                answer = self.device.client.receive()
                self.assertEqual(v.get(answer, "vgpu_msg.type"), N["VGPU_MSG_STOPPED"])
                heard = v.get(answer, "vgpu_msg.serial")
                self.assertIn(heard, serials)
            self.assertEqual(self.m.vm(1)["worker_pid"], 0)
            self.send("CONTINUE")
            self.assertEqual(self.device.finish(), (0, struct.pack("<I", number + 1)))
        self.assertEqual(self.m.vm(1)["registers"]["worker_failures"], 0)

    def test_continue_without_stop(self):
        self.attach()
        for flags in (0, LOADED, 0xffffffff):
            self.send("CONTINUE", go_on__flags=flags)
            self.works()
        self.says_nothing()
        self.assertEqual(self.m.vm(1)["worker_starts"], 1)

    def test_worker_is_killed(self):
        self.attach(shm=SHM)
        self.m.ask("pause", pool="A")
        for number in range(4):
            self.in_place(number)
            pid = self.m.vm(1, state="waiting")["worker_pid"]
            os.kill(pid, signal.SIGSTOP)
            serial = self.send("STOP")
            time.sleep(0.02)
            self.says_nothing()
            os.kill(pid, signal.SIGKILL)
            self.hear("STOPPED", serial)
            self.send("CONTINUE")
            self.m.vm(1, state="waiting")
            self.m.ask("resume", pool="A")
            self.right()
            self.m.ask("pause", pool="A")

    def test_reset(self):
        """Before STOP, and while it stands: the request is not saved."""
        self.attach(shm=SHM)
        self.m.ask("pause", pool="A")
        for before in (True, False):
            self.in_place(1)
            self.m.vm(1, state="waiting")
            if not before:
                self.stop()
            reset = self.send("RESET")
            stop = self.send("STOP") if before else None
            self.hear("RESET_DONE", reset)
            if before:
                self.hear("STOPPED", stop)
            v.wait_until("it stands", lambda: self.m.vm(1)["worker_pid"] == 0)
            self.assertEqual(self.device.status(), N["VGPU_STATUS_IDLE"])
            self.send("CONTINUE")
            self.m.vm(1, state="idle")
        self.m.ask("resume", pool="A")
        self.works()

    def test_turn_limit(self):
        """A request that others could wait for no longer is answered before it stands."""
        self.attach(mediator="turn-limit = 1")
        self.m.ask("pause", pool="A")
        self.device.ring(v.add_inline([1], [2]))
        os.kill(self.m.vm(1, state="waiting")["worker_pid"], signal.SIGSTOP)
        self.m.ask("resume", pool="A")
        serial = self.send("STOP")
        with v.Device(v.Client(self.m), vm_id=2, shm=256 << 20) as other:
            quarter = 64 << 20
            while not select.select([self.device.client.socket], [], [], 0)[0]:
                # So long that it is under way at most times.
                sums = v.add_shm(quarter // 4, quarter, 2 * quarter, 3 * quarter)
                self.assertEqual(other.call(sums)[0], 0)
        self.hear("STOPPED", serial)
        self.assertEqual(self.device.finish(), (N["VGPU_ERROR_TIMEOUT"], b""))
        self.send("CONTINUE")
        self.works()

    def test_session_that_is_ending(self):
        """STOPPED comes when nobody has the VM's memory any more."""
        self.attach(queues=3, shm=SHM)
        queue = v.Queue(self.device).open()
        memory = queue.memory(1 << 30)  # to give it back takes a while
        self.assertEqual(queue.call("FILL", v.cmd_fill(memory, 7, 1 << 28)), (0, b""))
        self.assertEqual(queue.call("SYNC"), (0, b""))
        worker = self.m.vm(1)["sessions"][0]["worker_pid"]
        reset = self.send("RESET", reset__flags=N["VGPU_RESET_QUEUES"])
        stop = self.send("STOP")
        self.hear("RESET_DONE", reset)
        self.hear("STOPPED", stop)
        self.assertFalse(v.program(worker))
        self.assertEqual(queue.state(), "FREE")

    def test_session_that_is_open(self):
        """It is no reason to wait: a client that says STOP then has its own."""
        self.attach(queues=1)
        queue = v.Queue(self.device).open()
        self.stop()
        self.assertEqual(queue.call("SYNC"), (0, b""))

    def test_mediator_that_stops(self):
        """It starts no worker for CONTINUE or RESET, and so waits for none."""
        self.attach()
        self.stop()
        with v.Device(v.Client(self.m), vm_id=2) as other:
            self.m.ask("pause", pool="A")
            other.ring(v.add_inline([1], [2]))
            worker = self.m.vm(2, state="waiting")["worker_pid"]
            os.kill(worker, signal.SIGSTOP)
            self.m.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            self.send("CONTINUE")
            self.send("RESET")
            time.sleep(0.2)
            os.kill(worker, signal.SIGCONT)
            self.assertEqual(self.m.process.wait(v.PATIENCE), 0)
        self.assertNotIn("requests still run", self.m.read_log())

    def test_exclusive(self):
        """Its GPU is its own meanwhile, also for the next mediator."""
        self.m = self.mediator(config="[pool A]\ndevices = 0 1\nexclusive = yes\n", keeper=True)
        self.device = v.Device(v.Client(self.m), vm_id=1)
        self.addCleanup(self.device.close)
        self.works()
        self.stop()
        with v.Device(v.Client(self.m), vm_id=2) as other:
            self.assertEqual(self.m.vm(2)["gpu"], 1)
            for _ in range(2):
                client = v.Client(self.m)
                client.send(v.hello(vm_id=3))
                self.assertIn("no GPU of pool A is free",
                              v.text(client.receive(), "vgpu_msg.refused.reason"))
                client.close()
                self.m.replace()
            self.send("CONTINUE")
            self.works()
            self.assertEqual(self.m.vm(1)["gpu"], 0)
            self.assertEqual(other.call(v.add_inline([1], [2])), (0, b"\3\0\0\0"))
        # One that is gone keeps nothing.
        self.stop()
        self.device.client.close()
        v.wait_until("it is gone", lambda: 1 not in self.m.vms())
        with v.Device(v.Client(self.m), vm_id=3):
            self.assertEqual(self.m.vm(3)["gpu"], 0)

    def test_on_and_on(self):
        """Who stops and continues without end has ever fewer workers started, as with resets."""
        self.attach()
        before = self.m.vm(1)["worker_starts"]
        end = time.monotonic() + 4
        while time.monotonic() < end:
            self.stop()
            self.send("CONTINUE")
            time.sleep(0.002)
        # 80, if each were started after the usual pause.
        self.assertLess(self.m.vm(1)["worker_starts"] - before, 40)

    def test_detached_while_it_stands(self):
        self.attach()
        self.stop()
        self.device.client.send(v.message("BYE"))
        v.wait_until("it is gone", lambda: self.m.vms() == {})
        self.device.client.send(v.hello(vm_id=1, hello__flags=N["VGPU_HELLO_HANDOVER"]),
                                self.device.fds)
        self.hear("ATTACHED", 0)
        self.works()


class Loaded(TestCase):
    def word(self, queue, state, reason, count):
        offset = self.device.shm_size + N["VGPU_REG_QUEUE_STATUS"] + 4 * queue
        word = N["VGPU_QUEUE_" + state] | N["VGPU_QUEUE_END_" + reason] << 8 | count << 16
        self.device.map[offset:offset + 4] = struct.pack("<I", word)

    def test_counts_go_on(self):
        self.attach(queues=3)
        queues = [v.Queue(self.device, i) for i in range(3)]
        for queue in queues[:2]:
            queue.open()
            queue.close()
            queue.wait_state("FREE")
        self.stop()
        self.word(0, "FREE", "NONE", 70)
        self.word(1, "RUNNING", "NONE", 65535)
        self.word(2, "ENDED", "TIMEOUT", 9)
        self.send("CONTINUE", go_on__flags=LOADED)
        v.wait_until("its end", lambda: queues[1].status() == ("ENDED", "MEDIATOR", 65535))
        self.assertEqual(queues[0].status(), ("FREE", "NONE", 70))
        self.assertEqual(queues[2].status(), ("ENDED", "TIMEOUT", 9))
        for queue, count in zip(queues, (71, 0, 10)):
            queue.send("CLOSE")
            v.wait_until("it counts", lambda queue=queue, count=count:
                         queue.status() == ("FREE", "NONE", count))
        queues[1].open()
        self.assertEqual(queues[1].call("SYNC"), (0, b""))

    def test_guest_lies_about_open_queues(self):
        """One that runs goes on, and its state is what it was."""
        self.attach(queues=2)
        queue = v.Queue(self.device, 0).open()
        self.stop()
        self.word(0, "FREE", "NONE", 7)
        self.word(1, "RUNNING", "NONE", 7)
        self.send("CONTINUE", go_on__flags=LOADED)
        v.wait_until("it is told", lambda: queue.status() == ("RUNNING", "NONE", 1))
        self.assertEqual(queue.call("SYNC"), (0, b""))
        queue.close()
        self.assertEqual(queue.wait_state("FREE"), ("FREE", "NONE", 2))


class Survives(TestCase):
    """The mediator is killed in between."""

    def test_before_it_says_that_it_was_loaded(self):
        """What was filled in is not overwritten by what the mediator had there."""
        self.attach(keeper=True, queues=2)
        queues = [v.Queue(self.device, i) for i in range(2)]
        queues[0].open()
        queues[0].close()
        queues[0].wait_state("FREE")
        self.stop()
        offset = self.device.shm_size + N["VGPU_REG_QUEUE_STATUS"]
        word = N["VGPU_QUEUE_ENDED"] | N["VGPU_QUEUE_END_TIMEOUT"] << 8 | 70 << 16
        self.device.map[offset:offset + 8] = struct.pack("<II", word, word)
        self.m.replace()
        self.m.vm(1)
        self.send("CONTINUE", go_on__flags=LOADED)
        self.works()
        self.assertEqual([queue.status() for queue in queues], [("ENDED", "TIMEOUT", 70)] * 2)

    def test_killed_as_it_says_stopped(self):
        """
        At moments of that; at each with VGPU_POINT_STEP=1. What is filled in right behind STOPPED
        stays, whoever has said it.
        """
        if not v.may_trace():
            self.skipTest("no process may watch another one here")
        self.attach(keeper=True, queues=1)
        queue = v.Queue(self.device)
        queue.open()
        queue.close()
        queue.wait_state("FREE")
        offset = self.device.shm_size + N["VGPU_REG_QUEUE_STATUS"]
        for point in range(random.randrange(1, 1 + STEP), 1000, STEP):
            count = 60000 + point
            word = N["VGPU_QUEUE_ENDED"] | N["VGPU_QUEUE_END_TIMEOUT"] << 8 | count << 16
            pid = self.m.pid
            killer = subprocess.Popen([v.KILL_AT, str(pid), str(point)], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True)
            self.assertEqual(killer.stdout.readline(), "watching\n")
            self.stop()
            self.device.map[offset:offset + 4] = struct.pack("<I", word)
            time.sleep(0.05)
            killer.stdin.close()
            killed = killer.stdout.readline() == "killed\n"
            killer.stdout.close()
            self.assertEqual(killer.wait(), 0)
            if killed:
                v.wait_until("the next mediator", lambda pid=pid: self.m.pid != pid)
                self.m.vm(1)
            self.assertEqual(queue.status(), ("ENDED", "TIMEOUT", count))
            self.send("CONTINUE", go_on__flags=LOADED)
            self.works()
            self.assertEqual(queue.status(), ("ENDED", "TIMEOUT", count))
            if not killed:
                break
        self.assertGreater(point, 5)

    def test_it_stands_on(self):
        self.attach(keeper=True, shm=SHM)
        self.m.ask("pause", pool="A")
        self.in_place(1)
        self.m.vm(1, state="waiting")
        self.stop()
        self.m.replace()
        self.assertEqual(self.m.vm(1)["state"], "stopped")
        self.m.ask("resume", pool="A")
        time.sleep(0.1)
        self.assertEqual(self.device.status(), BUSY)
        self.stop()
        self.send("CONTINUE")
        self.right()

    def test_killed_at_random(self):
        """Each STOP is answered, twice perhaps, and each request once."""
        self.attach(keeper=True, shm=SHM)
        dice = random.Random(1)
        for number in range(KILLS):
            self.in_place(number, dice.choice((1, 1 << 20)))
            time.sleep(dice.choice((0, 0.002)))
            if number % 4 == 3:
                self.m.replace()
            serial = self.send("STOP")
            time.sleep(dice.choice((0, 0.0005, 0.005, 0.02)))
            self.m.replace()
            self.hear("STOPPED", serial)
            vm = self.m.vm(1)
            self.assertEqual((vm["state"], vm["worker_pid"]), ("stopped", 0))
            if number % 3 == 0:
                self.m.replace()
            self.send("CONTINUE")
            if number % 2 == 0:
                self.m.replace()
            self.right()


if __name__ == "__main__":
    v.main()
