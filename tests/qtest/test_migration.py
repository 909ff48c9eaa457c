#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The device is saved, loaded and migrated: between two mediators, which are two hosts, and with a
mediator that the test plays. VGPU_MIGRATIONS is how many with a request in flight (default 10; a
hundred take a minute).

Tests: qemu/vgpu-stub*.c, mediator/vm.c, mediator/client.c"""
import os
import random
import struct
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402
from vgputest import N  # noqa: E402
from machine import (BAR0, BAR2, BUSY, CLOSE, COMPLETE, IDLE, OFFLINE, OPEN, RAM,  # noqa: E402
                     STATUS, VM7, Device, Played)

MIGRATIONS = int(os.environ.get("VGPU_MIGRATIONS", "10"))
RUNNING, ENDED = N["VGPU_QUEUE_RUNNING"], N["VGPU_QUEUE_ENDED"]
CONTROL = BAR0 + N["VGPU_REG_CONTROL"]


class Migrating(Device):
    def target(self, device=VM7, mediator=None, **keywords):
        """Waits for a VM to come; with a mediator that is another host's."""
        mediator = mediator or self.mediator()
        q = self.machine(f"path={mediator.socket},reconnect=1", device,
                         extra=("-incoming", "defer"), **keywords)
        q.host = mediator
        v.wait_until("attached", lambda: q.property("state") == "attached")
        return q

    def start(self, q, target, **parameters):
        directory = tempfile.TemporaryDirectory(prefix="vgpu-test-")
        self.addCleanup(directory.cleanup)
        uri = "unix:" + os.path.join(directory.name, "migration")
        target.execute("migrate-incoming", uri=uri)
        if parameters:
            q.execute("migrate-set-parameters", **parameters)
        q.execute("migrate", uri=uri)

    def ended(self, q):
        return q.qmp.wait_migrated()

    def migrate(self, q, target):
        """To there; the machine here is gone then."""
        self.start(q, target)
        self.assertEqual(self.ended(q), "completed")
        v.wait_until("it runs", lambda: target.execute("query-status")["running"])
        q.close()

    def error_of(self, q):
        q.process.wait(v.PATIENCE)
        return q.process.stderr.read().decode()


class Hosts(Migrating):
    def in_place(self, q, number):
        """a += b in the shared memory: twice would be seen."""
        q.write(BAR2 + 4096, number)
        q.write(BAR2 + 8192, 1000)
        q.request(v.add_shm(1, 4096, 8192, 4096))
        q.ring()

    def open_and_end(self, q, count):
        """There is no claim, so that no session can start; its end, which stays to be seen."""
        ended = ENDED | N["VGPU_QUEUE_END_BAD_CLAIM"] << 8 | count << 16
        q.control(3, OPEN)
        v.wait_until("its end", lambda: q.read(q.queue("STATUS", 3)) == ended)
        return ended

    def test_requests_in_flight(self):
        """Answered once each, whether they wait, have just come, run or are done."""
        dice = random.Random(1)
        q = self.attached()
        q.host = self.m
        waited = 0
        for number in range(MIGRATIONS):
            target = self.target()
            waits = number % 3 == 0
            if waits:
                q.host.ask("pause", pool="A")
            self.in_place(q, number)
            if waits:
                q.host.vm(7, state="waiting")
            else:
                time.sleep(dice.choice((0, 0, 0.0002, 0.001, 0.01)))
            waited += q.read(STATUS) == BUSY
            self.migrate(q, target)
            q = target
            self.assertEqual(q.finish(), (0, b""))
            self.assertEqual(q.read(BAR2 + 4096), number + 1000)
            self.assertEqual(q.call(v.add_inline([number], [1])), (0, struct.pack("<I", number + 1)))
        print(f"{waited} of {MIGRATIONS} requests were on their way", file=sys.stderr)
        self.assertGreater(waited, 0)

    def test_all_of_it_comes_along(self):
        q, target = self.attached(), self.target()
        q.msix(True, vectors=2)
        far = (16 << 20) - 4
        for place, value in ((4096, 0x12345678), (4 << 20, 1), (far, 0xfedcba98)):
            q.write(BAR2 + place, value)
        self.assertEqual(q.call(v.add_inline([5], [6])), (0, b"\x0b\0\0\0"))
        generation = q.read(BAR0 + N["VGPU_REG_GENERATION"])
        ended = self.open_and_end(q, 1)
        self.migrate(q, target)
        for place, value in ((4096, 0x12345678), (4 << 20, 1), (far, 0xfedcba98), (8 << 20, 0)):
            self.assertEqual(target.read(BAR2 + place), value)
        self.assertEqual(target.read(STATUS), COMPLETE)
        self.assertEqual(target.read(BAR0 + N["VGPU_REG_RESPONSE"]), 11)
        self.assertEqual(target.read(target.queue("STATUS", 3)), ended)
        v.wait_until("a worker", lambda:
                     target.read(BAR0 + N["VGPU_REG_GENERATION"]) == generation + 1)
        # All vectors were raised once; now by an answer.
        v.wait_until("an interrupt", lambda: target.read(RAM + 4) == 0xABCE)
        target.write(RAM, 0)
        self.assertEqual(target.call(v.add_inline([1], [2])), (0, b"\3\0\0\0"))
        v.wait_until("an interrupt", lambda: target.read(RAM) == 0xABCD)
        # The count goes on where it was.
        target.control(3, CLOSE)
        v.wait_until("it is free", lambda: target.read(target.queue("STATUS", 3)) == 2 << 16)
        self.open_and_end(target, 3)

    def test_it_goes_on_where_the_other_host_does_not_take_it(self):
        q, target = self.attached(), self.target("vm-id=8,shm=16M")
        self.m.ask("pause", pool="A")
        self.in_place(q, 1)
        self.m.vm(7, state="waiting")
        self.start(q, target)
        self.assertIn("the device's vm-id differs", self.error_of(target))
        self.assertEqual(self.ended(q), "completed")  # it has been sent, says QEMU
        self.m.vm(7, state="stopped")
        self.m.ask("resume", pool="A")
        self.assertEqual(q.read(STATUS), BUSY)
        q.execute("cont")
        self.assertEqual(q.finish(), (0, b""))
        self.assertEqual(q.read(BAR2 + 4096), 1001)
        self.assertEqual(self.m.vm(7)["registers"]["worker_failures"], 0)

    def test_without_a_mediator(self):
        """Where the guest has never had one, it can go anywhere."""
        nobody = "path=/nonexistent/socket,reconnect=1"
        for target, status in ((self.machine(nobody, VM7, extra=("-incoming", "defer")), OFFLINE),
                               (self.target(), IDLE)):
            q = self.machine(nobody, VM7).map()
            self.assertEqual(q.read(STATUS), OFFLINE)
            self.migrate(q, target)
            target.wait_status(status)
        self.assertEqual(target.call(v.add_inline([1], [2])), (0, b"\3\0\0\0"))

    def test_no_mediator_there(self):
        q = self.attached()
        target = self.machine("path=/nonexistent/socket,reconnect=1", VM7,
                              extra=("-incoming", "defer"))
        self.start(q, target)
        self.assertIn("start the mediator first", self.error_of(target))

    def test_no_mediator_here(self):
        q = self.attached()
        self.m.stop()
        q.wait_status(OFFLINE)
        with self.assertRaisesRegex(AssertionError, "VM 7 cannot be saved or migrated: no mediator"):
            q.execute("migrate", uri="exec:cat >/dev/null")
        self.m.start()
        q.wait_status(IDLE)
        q.execute("migrate", uri="exec:cat >/dev/null")
        self.assertEqual(self.ended(q), "completed")

    def test_only_migratable(self):
        q, target = self.attached(extra=("-only-migratable",)), self.target()
        self.migrate(q, target)
        self.assertEqual(target.call(v.add_inline([1], [2])), (0, b"\3\0\0\0"))

    def disk(self):
        """A qcow2 image for snapshots, made by QEMU itself."""
        directory = tempfile.TemporaryDirectory(prefix="vgpu-test-")
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, "disk")
        q = self.machine(plug=False)

        def job(**options):
            q.execute("blockdev-create", **{"job-id": "make", "options": options})
            v.wait_until("the job's end", lambda: q.execute("query-jobs")[0]["status"] ==
                         "concluded")
            self.assertNotIn("error", q.execute("query-jobs")[0])
            q.execute("job-dismiss", id="make")
        job(driver="file", filename=path, size=0)
        q.execute("blockdev-add", **{"node-name": "file", "driver": "file", "filename": path})
        job(driver="qcow2", file="file", size=1 << 20)
        q.close()
        return "-drive", f"if=none,format=qcow2,file={path}"

    def test_snapshot(self):
        q = self.attached(extra=self.disk())
        q.write(BAR2 + 4096, 1)
        self.assertEqual(q.call(v.add_inline([1], [2])), (0, b"\3\0\0\0"))
        self.open_and_end(q, 1)
        self.m.ask("pause", pool="A")
        self.in_place(q, 7)
        self.m.vm(7, state="waiting")
        self.assertEqual(q.hmp("savevm one"), "")
        self.m.ask("resume", pool="A")
        self.assertEqual(q.finish(), (0, b""))
        for count in (2, 3):
            q.write(BAR2 + 4096, 5)
            q.write(BAR2 + (9 << 20), 5)
            self.open_and_end(q, count)
        for _ in range(2):
            self.assertEqual(q.hmp("loadvm one"), "")
            self.assertEqual(q.finish(), (0, b""))
            self.assertEqual(q.read(BAR2 + 4096), 1007)
            self.assertEqual(q.read(BAR2 + (9 << 20)), 0)
            self.assertEqual(q.read(q.queue("STATUS", 3)) >> 16, 1)
            self.open_and_end(q, 2)
        self.assertEqual(self.m.vm(7)["registers"]["worker_failures"], 0)

    def load_slowly(self, target, saved, meanwhile):
        """Its state comes in two parts: the second when the device has begun to take it."""
        cut = saved.index(b"vgpu-stub") + 600
        directory = tempfile.TemporaryDirectory(prefix="vgpu-test-")
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, "fifo")
        os.mkfifo(path)
        target.execute("migrate-incoming", uri=f"exec:cat {path}")
        with open(path, "wb", buffering=0) as fifo:
            fifo.write(saved[:cut])
            time.sleep(0.3)
            meanwhile()
            v.wait_until("attached", lambda: target.property("state") == "attached")
            target.host.vm(7, state="idle")
            fifo.write(saved[cut:])
        v.wait_until("it runs", lambda: target.execute("query-status")["running"])

    def test_mediator_that_comes_while_it_is_loaded(self):
        """For the first time, or another one: its worker has seen another page."""
        q = self.attached()
        self.open_and_end(q, 1)
        self.m.ask("pause", pool="A")
        self.in_place(q, 7)
        self.m.vm(7, state="waiting")
        with tempfile.NamedTemporaryFile() as file:
            q.execute("migrate", uri=f"exec:cat >{file.name}")
            self.assertEqual(self.ended(q), "completed")
            saved = file.read()
        for again in (False, True):
            mediator = self.mediator()
            if again:
                target = self.target(mediator=mediator)
            else:
                mediator.stop()
                target = self.machine(f"path={mediator.socket},reconnect=1", VM7,
                                      extra=("-incoming", "defer"))
                target.host = mediator

            def meanwhile(mediator=mediator, target=target):
                mediator.stop()
                v.wait_until("offline", lambda: target.property("state") == "offline")
                mediator.start()
            self.load_slowly(target, saved, meanwhile)
            self.assertEqual(target.finish(), (0, b""))
            self.assertEqual(target.read(BAR2 + 4096), 1007)
            self.open_and_end(target, 2)

    def test_snapshot_of_a_sleeping_machine(self):
        """It goes on when it is woken, of which QEMU 7.2 tells no device but by a reset."""
        q = self.attached(extra=self.disk())
        # The power management of q35: its ports, and S3 with the sleep's enable bit.
        q.set_config(0x40, 0x601, slot=31)
        q.set_config(0x44, 0x80, slot=31)
        q.command("outw 0x604 0x2401")
        v.wait_until("it sleeps", lambda: q.execute("query-status")["status"] == "suspended")
        self.assertEqual(q.hmp("savevm one"), "")
        q.execute("system_wakeup")
        v.wait_until("it runs", lambda: q.execute("query-status")["running"])
        q.map().wait_status(IDLE)
        self.assertEqual(q.call(v.add_inline([1], [2])), (0, b"\3\0\0\0"))

    def test_snapshot_over_an_open_session(self):
        """What was open is ended first, and then nobody writes to what is loaded."""
        q = self.attached(extra=self.disk(), device="vm-id=7,shm=64M,queues=4")
        self.assertEqual(q.hmp("savevm one"), "")
        claim = bytearray(32)
        arena = v.arena_offset(64 << 20, 4)
        for name, value in (("arena_address", v.Queue.ADDRESS), ("arena_offset", arena),
                            ("arena_size", 1 << 16)):
            v.put(claim, "vgpu_claim." + name, value)
        for _ in range(3):
            for i in range(0, 32, 4):
                q.write(BAR2 + i, struct.unpack_from("<I", claim, i)[0])
            q.control(0, OPEN)
            v.wait_until("it runs", lambda: q.read(q.queue("STATUS", 0)) == RUNNING | 1 << 16)
            worker = self.m.vm(7)["sessions"][0]["worker_pid"]
            self.assertEqual(q.hmp("loadvm one"), "")
            self.assertFalse(v.program(worker))
            v.wait_until("it is as it was", lambda: q.read(q.queue("STATUS", 0)) == 0)

    def test_reset_while_it_stands(self):
        """What is saved then is a VM that was reset."""
        q, target = self.attached(), self.target()
        self.leave_waiting(q)
        q.execute("stop")
        q.execute("system_reset")
        self.migrate_paused(q, target)
        self.assertEqual(target.map().read(STATUS), IDLE)
        self.assertEqual(target.call(v.add_inline([3], [4])), (0, b"\7\0\0\0"))

    def migrate_paused(self, q, target):
        self.start(q, target)
        self.assertEqual(self.ended(q), "completed")
        q.close()
        target.execute("cont")


class PlayedMediator(Migrating, Played):
    def grant(self, *arguments, **keywords):
        flags = N["VGPU_ATTACHED_STOPS"]
        answer = self.answer
        self.answer = lambda *more: answer(*more, attached__flags=flags)
        return super().grant(*arguments, **keywords)

    def set_status(self, queue, state, count=0):
        offset = N["VGPU_REG_QUEUE_STATUS"] + 4 * queue
        self.page[offset:offset + 4] = struct.pack("<I", state | count << 16)

    def refused(self, q, words):
        with self.assertRaisesRegex(AssertionError, words):
            q.execute("migrate", uri="exec:cat >/dev/null")

    def test_older_mediator(self):
        q = Played.grant(self, self.plug("vm-id=7,shm=8M,queues=20"))
        self.refused(q, "of an older release than this device")

    def test_older_mediator_is_replaced(self):
        """The next one says what it can; the connection is the same."""
        q = Played.grant(self, self.plug("vm-id=7,shm=8M,queues=20"))
        self.refused(q, "of an older release")
        self.send(self.answer(20, 8 << 20), serial=5)  # the answer to somebody else
        self.send(self.answer(20, 8 << 20, attached__flags=N["VGPU_ATTACHED_STOPS"]), serial=0)
        v.wait_until("it was read", self.all_read)
        q.execute("migrate", uri="exec:cat >/dev/null")
        self.send(v.message("STOPPED"), serial=self.expect("STOP"))
        self.assertEqual(self.ended(q), "completed")

    def test_open_queues(self):
        """It is said which; they need not be there for long once they are closed."""
        q = self.with_queues()
        for queue in (3, 17):
            q.control(queue, OPEN)
            self.expect("QUEUE", queue__queue=queue)
        self.refused(q, r"VM 7 cannot be saved or migrated: programs.*\(queues: 3, 17\)")
        self.set_status(3, RUNNING, 1)
        self.set_status(17, ENDED, 1)
        q.read(q.queue("STATUS", 17))
        self.refused(q, r"\(queues: 3\)")
        q.control(3, CLOSE)
        self.expect("QUEUE", queue__queue=3)
        self.set_status(3, 0, 2)
        q.read(q.queue("STATUS", 3))
        q.execute("migrate", uri="exec:cat >/dev/null")
        self.send(v.message("STOPPED"), serial=self.expect("STOP"))
        self.assertEqual(self.ended(q), "completed")
        q.execute("cont")
        self.expect("CONTINUE", go_on__flags=0)

    def test_queue_ends_by_itself(self):
        """Nobody reads a register."""
        q = self.with_queues()
        q.control(3, OPEN)
        self.expect("QUEUE")
        self.set_status(3, RUNNING, 1)
        self.refused(q, r"\(queues: 3\)")
        self.set_status(3, ENDED, 1)
        end = time.monotonic() + v.PATIENCE
        while True:
            try:
                q.execute("migrate", uri="exec:cat >/dev/null")
                break
            except AssertionError as error:
                self.assertIn("queues: 3", str(error))
                self.assertLess(time.monotonic(), end)
                time.sleep(0.1)
        self.send(v.message("STOPPED"), serial=self.expect("STOP"))
        self.assertEqual(self.ended(q), "completed")

    def test_queue_is_opened_meanwhile(self):
        """The migration fails, and the VM goes on."""
        q, target = self.with_queues(), self.target("vm-id=7,shm=8M,queues=20")
        self.start(q, target, **{"max-bandwidth": 1})
        v.wait_until("it has begun", lambda: q.execute("query-migrate")["status"] == "active")
        q.control(3, OPEN)
        self.expect("QUEUE", queue__queue=3)
        self.set_status(3, RUNNING, 1)
        q.execute("migrate-set-parameters", **{"max-bandwidth": 1 << 30})
        self.assertEqual(self.ended(q), "failed")
        v.wait_until("it runs", lambda: q.execute("query-status")["running"])
        self.expect_nothing()
        q.execute("quit")
        self.assertIn("programs in the guest use the GPU (queues: 3)", self.error_of(q))

    def test_queue_is_being_closed(self):
        """That is awaited."""
        q = self.with_queues(extra=("-only-migratable",))
        q.control(3, OPEN)
        self.expect("QUEUE", queue__queue=3)
        q.execute("migrate", uri="exec:cat >/dev/null")
        time.sleep(0.2)
        self.set_status(3, ENDED, 1)
        self.send(v.message("STOPPED"), serial=self.expect("STOP"))
        self.assertEqual(self.ended(q), "completed")

    def test_answers_in_pieces_and_others_before(self):
        q = self.with_queues()
        q.write(CONTROL, N["VGPU_CONTROL_RESET"])
        reset = self.expect("RESET")
        q.execute("migrate", uri="exec:cat >/dev/null")
        stop = self.expect("STOP")
        self.send(v.message("STOPPED"), serial=stop + 1000)
        self.send(v.message("RESET_DONE"), serial=reset)
        message = v.message("STOPPED")
        v.put(message, "vgpu_msg.serial", stop)
        for byte in bytes(message):
            self.ours.sendall(bytes([byte]))
            time.sleep(0.0005)
        self.assertEqual(self.ended(q), "completed")
        self.assertEqual(q.read(CONTROL), 0)

    def test_no_answer(self):
        """It fails by and by, and the VM goes on."""
        q = self.with_queues()
        q.execute("migrate", uri="exec:cat >/dev/null")
        self.expect("STOP")
        self.assertEqual(self.ended(q), "failed")
        self.expect("CONTINUE", go_on__flags=0)
        q.execute("quit")
        self.assertIn("its request has not ended within 5 s", self.error_of(q))

    def test_answer_that_comes_too_late(self):
        """A part in time, the rest and more behind it: it is told apart."""
        q = self.with_queues()
        for _ in range(3):
            q.execute("migrate", uri="exec:cat >/dev/null")
            message = v.message("STOPPED")
            v.put(message, "vgpu_msg.serial", self.expect("STOP"))
            self.ours.sendall(bytes(message)[:100])
            self.assertEqual(self.ended(q), "failed")
            self.ours.sendall(bytes(message)[100:] + bytes(message))
            self.expect("CONTINUE")
        q.execute("migrate", uri="exec:cat >/dev/null")
        self.send(v.message("STOPPED"), serial=self.expect("STOP"))
        self.assertEqual(self.ended(q), "completed")

    def test_mediator_dies_meanwhile(self):
        q = self.with_queues()
        q.execute("migrate", uri="exec:cat >/dev/null")
        self.expect("STOP")
        self.ours.close()
        self.assertEqual(self.ended(q), "failed")
        q.wait_status(OFFLINE)
        q.execute("quit")
        self.assertIn("the mediator went away", self.error_of(q))

    def test_damaged_state(self):
        """What was saved is another's: it is looked at."""
        q = self.with_queues()
        with tempfile.NamedTemporaryFile() as file:
            self.page[0x340:0x344] = b"mark"
            q.write(BAR2 + 4096, 0x31415926)
            q.execute("migrate", uri=f"exec:cat >{file.name}")
            self.send(v.message("STOPPED"), serial=self.expect("STOP"))
            self.assertEqual(self.ended(q), "completed")
            saved = file.read()
        piece = struct.pack(">QI", 4096, 4096)
        place = saved.index(piece + b"\x26\x59\x41\x31")
        for offset, length in ((8 << 20, 4096), ((8 << 20) - 4096, 8192), (4096, 0),
                               ((1 << 64) - 4096, 8192), (1 << 63, 1 << 31)):
            with tempfile.NamedTemporaryFile() as file:
                file.write(saved[:place] + struct.pack(">QI", offset, length) +
                           saved[place + len(piece):])
                file.flush()
                target = self.target("vm-id=7,shm=8M,queues=20")
                target.execute("migrate-incoming", uri=f"exec:cat {file.name}")
                self.assertIn(f"what was saved has {length} bytes at offset {offset} of a memory "
                              f"of {8 << 20}", self.error_of(target))


if __name__ == "__main__":
    v.main()
