#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Command queues as far as the device has to do with them; the test plays the mediator.

Tests: qemu/vgpu-stub*.c"""
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402
from vgputest import N  # noqa: E402
from machine import BAR0, BAR4, CLOSE, OPEN, RAM, Played  # noqa: E402


class Queues(Played):
    """Attach, doorbells, interrupts and registers of command queues."""

    def test_as_many_as_fit(self):
        for device, queues in (("", 16), (",shm=1M", 3), (",shm=4M", 14), (",shm=8M", 16),
                               (",shm=32M,queues=64", 64), (",queues=0", 0)):
            q = self.plug("vm-id=7" + device)
            self.assertEqual(v.get(self.hello, "vgpu_msg.hello.queues"), queues)
            self.assertEqual(v.get(self.hello, "vgpu_msg.hello.vectors"), 1 + queues)
            q.close()

    def test_none_before_the_first_attach(self):
        q = self.serve("vm-id=7,shm=8M").map()
        self.assertEqual(q.read(BAR0 + N["VGPU_REG_NUM_QUEUES"]), 0)
        self.assertEqual(q.read(BAR0 + N["VGPU_REG_FEATURES"]), N["VGPU_FEATURE_MSIX"])
        self.assertEqual(q.read(q.queue("STATUS", 3)), 0)
        q.write(q.queue("DOORBELL", 3), 1)
        q.control(3, OPEN)
        self.assertEqual(q.property("bad-accesses"), 0)
        self.grant(q, queues=16)
        self.expect_nothing()
        self.assertEqual(self.rung(), [])

    def test_number_and_feature(self):
        q = self.with_queues(64, shm=32 << 20)
        self.assertEqual(q.read(BAR0 + N["VGPU_REG_NUM_QUEUES"]), 64)
        self.assertEqual(q.read(BAR0 + N["VGPU_REG_FEATURES"]), N["VGPU_FEATURE_SHM"] |
                         N["VGPU_FEATURE_MSIX"] | N["VGPU_FEATURE_QUEUES"])

    def ring_all(self, q, queues):
        self.assertEqual(self.rung(), [])
        q.ring()
        self.assertEqual(self.rung(), [0])
        for queue in range(queues):
            q.write(q.queue("DOORBELL", queue), queue)
            self.assertEqual(self.rung(), [1 + queue])
            self.assertEqual(q.read(q.queue("DOORBELL", queue)), 0)
        if queues < 64:
            q.write(q.queue("DOORBELL", queues), 1)
            self.assertEqual(self.rung(), [])

    def test_each_queue_has_its_doorbell(self):
        self.ring_all(self.with_queues(64, shm=32 << 20), 64)

    def test_doorbells_without_ioeventfd(self):
        self.ring_all(self.with_queues(20, device=",ioeventfd=off"), 20)

    def test_doorbells_end_while_offline(self):
        for device in ("", ",ioeventfd=off"):
            q = self.with_queues(20, device=device)
            self.hang_up(q)
            for queue in range(20):
                q.write(q.queue("DOORBELL", queue), 1)
            self.assertEqual(self.rung(), [])
            q.close()

    def signal_all(self, q, irqs):
        q.msix(on=True, vectors=len(irqs))
        for i, irq in enumerate(irqs):
            os.eventfd_write(irq, 1)
            v.wait_until("the interrupt", lambda: q.read(RAM + 4 * i) == 0xABCD + i)

    def test_each_queue_has_its_vector(self):
        q = self.with_queues(64, shm=32 << 20)
        self.signal_all(q, self.irqs)
        q.msix(on=True, masked=True, vectors=65)
        for i in (0, 1, 31, 64):
            os.eventfd_write(self.irqs[i], 1)
            v.wait_until("the pending bit",
                         lambda: q.read(BAR4 + 0x800 + i // 32 * 4) >> i % 32 & 1)
            self.assertEqual(q.read(RAM + 4 * i), 0)
            q.write(BAR4 + 16 * i + 12, 0)
            self.assertEqual(q.read(RAM + 4 * i), 0xABCD + i)

    def test_kvm_takes_all_eventfds(self):
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            self.skipTest("no /dev/kvm")
        q = self.with_queues(64, shm=32 << 20, accel="kvm", extra=("-S",))
        for _ in range(3):
            q.msix(on=True, masked=True, vectors=65)
            # Nothing but this look takes the signal of a masked vector.
            os.eventfd_write(self.irqs[64], 1)
            self.assertEqual(q.read(BAR4 + 0x808), 1)
            q.msix(on=True, vectors=65)
            self.ring_all(q, 64)
            q.msix(on=False, vectors=65)
        q.process.terminate()
        q.process.wait(v.PATIENCE)
        self.assertNotIn("vgpu-stub", q.process.stderr.read().decode())

    def test_handover(self):
        """The next mediator gets what the first one gave, each in its place."""
        q = self.serve("vm-id=7,shm=32M,queues=64")
        self.grant(q, 64, 32 << 20)
        self.set_status(5, "RUNNING", count=1)
        self.hang_up(q)
        fds = self.accept()
        self.assertEqual(v.get(self.hello, "vgpu_msg.hello.flags"), N["VGPU_HELLO_HANDOVER"])
        self.assertEqual(len(fds), N["VGPU_MSG_FDS_MAX"])
        while len(fds) < N["VGPU_ATTACH_FDS_MAX"]:
            buffer, more = self.receive("FDS")
            self.assertEqual(v.get(buffer, "vgpu_msg.serial"),
                             v.get(self.hello, "vgpu_msg.serial"))
            self.assertEqual(len(more), min(16, N["VGPU_ATTACH_FDS_MAX"] - len(fds)))
            fds += more
        self.expect_nothing()
        self.assertEqual(os.fstat(fds[0]).st_size, (32 << 20) + N["VGPU_REGS_SIZE"])
        for i in range(65):
            os.eventfd_write(fds[1 + i], 1)
            self.assertEqual(self.rung(), [i])
        self.signal_all(q, fds[66:])
        self.grant_again(q, 64, 32 << 20)
        self.ring_all(q, 64)
        self.assertEqual(q.read(q.queue("STATUS", 5)), N["VGPU_QUEUE_RUNNING"] | 1 << 16)

    def test_status_is_the_page_s(self):
        q = self.with_queues(20)
        words = [self.set_status(i, "ENDED", count=i << 8, end=i % 9) for i in range(64)]
        seen = [q.read(q.queue("STATUS", i)) for i in range(64)]
        self.assertEqual(seen, words[:20] + [0] * 44)
        q.write(q.queue("STATUS", 3), 5)
        self.assertEqual(q.read(q.queue("STATUS", 3)), words[3])
        self.hang_up(q)
        self.assertEqual(q.read(q.queue("STATUS", 3)), words[3])

    def test_open_and_close(self):
        q = self.with_queues(20)
        for count, (queue, action) in enumerate(((0, OPEN), (19, OPEN), (0, CLOSE), (0, OPEN))):
            q.control(queue, action)
            self.expect("QUEUE", queue__queue=queue, queue__action=action, serial=0)
            self.set_status(queue, "RUNNING" if action == OPEN else "FREE", count=count + 1)
            self.assertEqual(q.read(q.queue("CONTROL", queue)), 0)
        self.assertEqual(q.property("bad-accesses"), 0)

    def test_guest_asks_for_nonsense(self):
        q = self.with_queues(20)
        for value in (0, 3, 0x101, 0xFFFFFFFF):
            q.control(3, value)
        self.assertEqual(q.property("bad-accesses"), 4)
        for queue in (20, 21, 63, 64, 127):
            q.control(queue, OPEN)
        self.assertEqual(q.property("bad-accesses"), 4)
        self.expect_nothing()

    def test_guest_floods_queue_control(self):
        """One message a queue at a time; the others are dropped, and no write waits for us."""
        q = self.with_queues(20)
        for count in (7, 8, 0xFFFF, 0):
            self.set_status(3, count=count)
            for _ in range(200):
                q.control(3, OPEN)
            self.expect("QUEUE", queue__queue=3, queue__action=OPEN)
            self.expect_nothing()
            # Another queue is not kept waiting.
            q.control(4, CLOSE)
            self.expect("QUEUE", queue__queue=4, queue__action=CLOSE)
            self.set_status(4, count=count)

    def test_control_while_offline_is_ignored(self):
        q = self.serve("vm-id=7,shm=1M,queues=3")
        self.grant(q, 3, 1 << 20)
        q.control(1, OPEN)
        self.expect("QUEUE", queue__queue=1)
        self.hang_up(q)
        q.control(1, OPEN)
        q.control(2, OPEN)
        self.accept()
        self.grant_again(q, 3, 1 << 20)
        self.expect_nothing()
        # What the first mediator did not come to do may be asked of the second.
        q.control(1, OPEN)
        self.expect("QUEUE", queue__queue=1, queue__action=OPEN)

    def test_real_mediator_acts_and_counts(self):
        """There is no claim in the shared memory, so no session can start."""
        q = self.attached()
        ended = N["VGPU_QUEUE_ENDED"] | N["VGPU_QUEUE_END_BAD_CLAIM"] << 8
        for queue, count in ((15, 1), (0, 1), (15, 2)):
            q.control(queue, OPEN)
            v.wait_until("its end", lambda: q.read(q.queue("STATUS", queue)) == ended | count << 16)
        q.reboot()
        v.wait_until("it is free", lambda: q.read(q.queue("STATUS", 15)) & 0xFFFF == 0)
        v.wait_until("the reset", lambda: q.read(BAR0 + N["VGPU_REG_CONTROL"]) == 0)
        before = q.read(q.queue("STATUS", 15))
        q.control(15, CLOSE)
        v.wait_until("the count", lambda: q.read(q.queue("STATUS", 15)) == before + (1 << 16))

    def test_trace_event(self):
        with tempfile.NamedTemporaryFile("r", encoding="ascii") as log:
            q = self.with_queues(20, extra=("--trace", "enable=vgpu_stub_queue", "-D", log.name))
            q.control(3, CLOSE)
            v.wait_until("it is in the log", lambda: "vgpu_stub_queue VM 7 queue 3 action 2" in
                         open(log.name, encoding="ascii").read())


class QueueResets(Played):
    """Register mode's reset leaves the queues alone; that of the guest does not."""

    def reset(self, q):
        q.write(BAR0 + N["VGPU_REG_CONTROL"], N["VGPU_CONTROL_RESET"])

    def resetting(self, q):
        return q.read(BAR0 + N["VGPU_REG_CONTROL"]) == N["VGPU_CONTROL_RESET"]

    def done(self, q, serial):
        self.send(v.message("RESET_DONE"), serial=serial)
        v.wait_until("the reset", lambda: not self.resetting(q))

    def test_control_spares_the_queues(self):
        q = self.with_queues()
        self.set_status(3, "RUNNING", count=1)
        self.reset(q)
        self.done(q, self.expect("RESET", reset__flags=0))

    def test_reboot_with_nothing_to_end(self):
        q = self.with_queues()
        self.set_status(3, "FREE", count=2)
        q.reboot()
        self.expect_nothing()
        self.assertFalse(self.resetting(q))

    def test_reboot_ends_the_queues(self):
        q = self.with_queues()
        for state in ("STARTING", "RUNNING", "ENDED"):
            self.set_status(19, state, count=1)
            q.reboot()
            serial = self.expect("RESET", reset__flags=N["VGPU_RESET_QUEUES"])
            self.expect_nothing()
            self.assertTrue(self.resetting(q))
            self.set_status(19, "FREE", count=1)
            self.done(q, serial)
        # The next reset of register mode has nothing of that left.
        self.reset(q)
        self.expect("RESET", reset__flags=0)

    def test_reboot_ends_a_queue_that_is_being_opened(self):
        """Our page still says FREE: we have not come to it."""
        q = self.with_queues()
        q.control(3, OPEN)
        self.expect("QUEUE", queue__queue=3)
        q.reboot()
        self.expect("RESET", reset__flags=N["VGPU_RESET_QUEUES"])

    def test_reboot_with_a_request_ends_the_queues_too(self):
        q = self.with_queues()
        q.request(v.add_inline([1], [2]))
        q.reboot()
        self.expect("RESET", reset__flags=N["VGPU_RESET_QUEUES"])
        self.assertEqual(q.read(BAR0 + N["VGPU_REG_REQUEST_LEN"]), 0)

    def test_reboot_during_a_reset_of_register_mode(self):
        """The answer to the second RESET counts."""
        q = self.with_queues()
        self.set_status(3, "RUNNING", count=1)
        self.reset(q)
        first = self.expect("RESET", reset__flags=0)
        q.reboot()
        second = self.expect("RESET", reset__flags=N["VGPU_RESET_QUEUES"])
        self.send(v.message("RESET_DONE"), serial=first)
        v.wait_until("QEMU has read that", self.all_read)
        self.assertTrue(self.resetting(q))
        self.done(q, second)

    def test_reboot_after_reboot(self):
        """A second RESET is needed only for a queue opened behind the first."""
        q = self.with_queues()
        self.set_status(3, "RUNNING", count=1)
        q.reboot()
        self.expect("RESET", reset__flags=N["VGPU_RESET_QUEUES"])
        q.reboot()
        self.expect_nothing()
        q.control(4, OPEN)
        self.expect("QUEUE", queue__queue=4)
        q.reboot()
        self.done(q, self.expect("RESET", reset__flags=N["VGPU_RESET_QUEUES"]))

    def test_queue_message_during_a_reset(self):
        """It has no answer, and does not take that of the RESET away."""
        q = self.with_queues()
        self.reset(q)
        serial = self.expect("RESET", reset__flags=0)
        q.control(3, OPEN)
        self.expect("QUEUE", queue__queue=3, serial=0)
        self.done(q, serial)

    def test_reboot_while_offline(self):
        """Asked for at the next attach, with what a pending reset was for."""
        q = self.serve("vm-id=7,shm=1M,queues=3")
        self.grant(q, 3, 1 << 20)
        self.set_status(2, "RUNNING", count=1)
        self.hang_up(q)
        self.reset(q)
        q.reboot()
        self.assertTrue(self.resetting(q))
        self.accept()
        self.grant_again(q, 3, 1 << 20)
        self.done(q, self.expect("RESET", reset__flags=N["VGPU_RESET_QUEUES"]))
        self.expect_nothing()


if __name__ == "__main__":
    v.main()
