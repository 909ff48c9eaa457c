#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The device without a guest: QEMU's qtest plays the processor. The mediator is the real one,
or this test itself where the mediator has to misbehave.

Tests: qemu/vgpu-stub*.c"""
import os
import signal
import socket
import struct
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402
from vgputest import N  # noqa: E402
from machine import (  # noqa: E402
    BAR0, BAR2, BAR4, BUSY, COMPLETE, IDLE, OFFLINE, RAM, STATUS, VM7, Device, Played)


class Identity(Device):
    def test_pci_identity(self):
        q = self.attached()
        self.assertEqual(q.config(0), N["VGPU_PCI_DEVICE_ID"] << 16 | N["VGPU_PCI_VENDOR_ID"])
        self.assertEqual(q.config(8), N["VGPU_PCI_CLASS"] << 16 | N["VGPU_PCI_REVISION"])
        for bar, size, flags in ((0x10, 4096, 0), (0x18, 16 << 20, 0xC)):
            q.set_config(bar, 0xFFFFFFFF)
            self.assertEqual(q.config(bar), (-size & 0xFFFFFFF0) | flags)

    def test_identity_registers(self):
        q = self.attached()
        for register, value in (("MAGIC", N["VGPU_MAGIC"]), ("VERSION", N["VGPU_VERSION"]),
                                ("POOL_ID", ord("A")), ("PRIORITY", 2), ("VM_ID", 7),
                                ("SHM_SIZE_LO", 16 << 20), ("SHM_SIZE_HI", 0),
                                ("NUM_QUEUES", 16), ("GENERATION", 1), ("ERROR", 0)):
            self.assertEqual(q.read(BAR0 + N["VGPU_REG_" + register]), value, register)
        self.assertEqual(q.read(BAR0 + N["VGPU_REG_FEATURES"]),
                         N["VGPU_FEATURE_SHM"] | N["VGPU_FEATURE_MSIX"] |
                         N["VGPU_FEATURE_QUEUES"] | N["VGPU_FEATURE_BACKEND_CPU"])

    def test_what_the_mediator_grants_is_shown(self):
        m = self.mediator("[pool A]\ndevices = 0\n[pool C]\ndevices = 1\n"
                          "[vm 7]\npool = C\nmax-priority = low\n")
        q = self.machine(f"path={m.socket}", "vm-id=7,priority=high").map()
        self.assertEqual(q.read(BAR0 + N["VGPU_REG_POOL_ID"]), ord("C"))
        self.assertEqual(q.read(BAR0 + N["VGPU_REG_PRIORITY"]), 0)


    def test_name_and_uuid_are_told(self):
        """And who they are counts: the section is the VM's by its name."""
        uuid = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
        m = self.mediator("[vm web01]\nmax-priority = low\n")
        q = self.machine(f"path={m.socket}", "vm-id=7,priority=high",
                         extra=("-name", "web01", "-uuid", uuid)).map()
        self.assertEqual(q.read(BAR0 + N["VGPU_REG_PRIORITY"]), 0)
        vm = m.vm(7)
        self.assertEqual((vm["name"], vm["uuid"]), ("web01", uuid))


class Dumps(Device):
    def test_shared_memory_is_no_guest_ram(self):
        """A dump of that leaves it out, and allocates nothing of it."""
        q = self.attached()
        mark = 0x5AA5F00D13572468
        q.write(RAM, mark, "q")
        q.write(BAR2 + (1 << 20), mark ^ 1, "q")
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "dump")
            q.execute("dump-guest-memory", paging=False, protocol="file:" + path)
            with open(path, "rb") as file:
                dump = file.read()
        self.assertTrue(struct.pack("<Q", mark) in dump)
        self.assertFalse(struct.pack("<Q", mark ^ 1) in dump)
        offset, = struct.unpack_from("<Q", dump, 32)
        size, count = struct.unpack_from("<HH", dump, 54)
        for i in range(count):
            kind, = struct.unpack_from("<I", dump, offset + i * size)
            address, length = struct.unpack_from("<Q8xQ", dump, offset + i * size + 24)
            self.assertFalse(kind == 1 and address < BAR2 + (16 << 20) and address + length > BAR2)


class Registers(Device):
    def test_access_rules(self):
        """Every register and gap at every width and alignment."""
        q = self.attached()
        request = range(N["VGPU_REG_REQUEST"], N["VGPU_REG_REQUEST"] + N["VGPU_REQUEST_MAX"])
        writable = {N["VGPU_REG_REQUEST_LEN"], *request}
        special = {N["VGPU_REG_DOORBELL"], N["VGPU_REG_CONTROL"], N["VGPU_REG_QUEUE_CONTROL"]}
        offsets = [*range(0, 0x48), *range(0xFC, 0x104), *range(0x1FC, 0x204),
                   *range(0x2FC, 0x304), *range(0x3FC, 0x404), 0x4FC, 0x500, 0x600, 0x800, 0x840,
                   0x844, 0xFFC]
        bad = 0
        for offset in offsets:
            for size, letter in ((1, "b"), (2, "w"), (4, "l"), (8, "q")):
                if offset + size > 4096:
                    continue
                if size == 4 and offset % 4 == 0:
                    if offset in special:
                        continue
                    before = q.read(BAR0 + offset)
                    q.write(BAR0 + offset, 0xA5A5A5A5)
                    after = q.read(BAR0 + offset)
                    self.assertEqual(after, 0xA5A5A5A5 if offset in writable else before,
                                     hex(offset))
                else:
                    self.assertEqual(q.read(BAR0 + offset, letter), 0, f"{offset:#x} {letter}")
                    q.write(BAR0 + offset, (1 << 8 * size) - 1, letter)
                    bad += 2
        for offset in request[::4]:
            expected = q.read(BAR0 + offset)
            self.assertIn(expected, (0, 0xA5A5A5A5))
        self.assertEqual(q.property("bad-accesses"), bad)
        self.assertEqual(q.read(BAR0 + N["VGPU_REG_DOORBELL"]), 0)

    def test_what_lies_behind_bar0_is_out_of_reach(self):
        """The journal and the interrupt flag share a page with the registers, and so does the card,
        which is read and not written."""
        q = self.attached()
        q.call(v.add_inline([1], [2]))
        card = range(N["VGPU_REG_CARD"], N["VGPU_REG_CARD"] + N["VGPU_CARD_MAX"])
        for offset in range(0x800, 0x1000, 4):
            q.write(BAR0 + offset, 0xFFFFFFFF)
            if offset in card:
                self.assertNotEqual(q.read(BAR0 + offset), 0xFFFFFFFF)
            else:
                self.assertEqual(q.read(BAR0 + offset), 0)
        self.assertEqual(q.call(v.add_inline([1], [2])), (0, b"\3\0\0\0"))

    def test_buffers_and_doorbell(self):
        q = self.attached()
        self.assertEqual(q.call(v.add_inline([20], [22])), (0, b"\x2a\0\0\0"))
        self.assertEqual(q.call(v.request(99)), (N["VGPU_ERROR_BAD_OPCODE"], b""))
        count = N["VGPU_INLINE_MAX"]
        code, back = q.call(v.add_inline(range(count), range(count)))
        self.assertEqual(code, 0)
        self.assertEqual(struct.unpack(f"<{count}i", back), tuple(range(0, 2 * count, 2)))

    def test_status_is_busy_from_the_doorbell_on(self):
        """Never the last request's outcome after the next doorbell."""
        q = self.attached()
        for i in range(500):
            q.request(v.add_inline([i], [1]))
            q.ring()
            status = q.read(STATUS)
            if status == COMPLETE:
                self.assertEqual(q.read(BAR0 + N["VGPU_REG_RESPONSE"]), i + 1)
            else:
                self.assertEqual(status, BUSY)
            self.assertEqual(q.finish(), (0, (i + 1).to_bytes(4, "little")))

    def test_no_queues(self):
        q = self.attached(VM7 + ",queues=0")
        self.assertEqual(q.read(BAR0 + N["VGPU_REG_NUM_QUEUES"]), 0)
        self.assertEqual(q.read(BAR0 + N["VGPU_REG_FEATURES"]) & N["VGPU_FEATURE_QUEUES"], 0)
        q.control(0, 0)
        self.assertEqual(q.property("bad-accesses"), 0)
        self.assertEqual(q.call(v.add_inline([20], [22])), (0, b"\x2a\0\0\0"))

    def test_doorbell_without_ioeventfd(self):
        q = self.attached(VM7 + ",ioeventfd=off")
        self.assertEqual(q.call(v.add_inline([20], [22])), (0, b"\x2a\0\0\0"))

    def test_shared_memory(self):
        q = self.attached()
        for i in range(16):
            q.write(BAR2 + 4 * i, i)
            q.write(BAR2 + 4096 + 4 * i, 100 * i)
        self.assertEqual(q.call(v.add_shm(16, 0, 4096, (16 << 20) - 64)), (0, b""))
        for i in range(16):
            self.assertEqual(q.read(BAR2 + (16 << 20) - 64 + 4 * i), 101 * i)
        # The register page behind it is not part of BAR2.
        self.assertEqual(q.call(v.add_shm(16, 0, 4096, 16 << 20)), (N["VGPU_ERROR_BAD_RANGE"], b""))


class Interrupts(Device):
    def test_msix(self):
        q = self.attached()
        q.msix(on=True)
        q.call(v.request(N["VGPU_OP_ECHO"]))
        v.wait_until("the interrupt", lambda: q.read(RAM) == 0xABCD)
        q.msix(on=False)
        q.call(v.request(N["VGPU_OP_ECHO"]))
        self.assertEqual(q.read(RAM), 0)

    def test_masked_vector_is_pending(self):
        q = self.attached()
        q.msix(on=True, masked=True)
        q.call(v.request(N["VGPU_OP_ECHO"]))
        v.wait_until("the pending bit", lambda: q.read(BAR4 + 0x800) & 1)
        self.assertEqual(q.read(RAM), 0)
        q.write(BAR4 + 12, 0)
        self.assertEqual(q.read(RAM), 0xABCD)

    def test_kvm_takes_the_eventfds(self):
        """With KVM the kernel signals doorbell and interrupt: it accepts their setting up."""
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            self.skipTest("no /dev/kvm")
        m = self.mediator()
        q = self.machine(f"path={m.socket}", VM7, accel="kvm", extra=("-S",)).map()
        m.vm(7, state="idle")
        for _ in range(3):
            q.msix(on=True, masked=True)
            q.read(BAR4 + 0x800)
            q.msix(on=True)
            q.msix(on=True, masked=True)
            q.write(BAR4 + 12, 0)
            self.assertEqual(q.call(v.add_inline([1], [2])), (0, b"\3\0\0\0"))
            q.msix(on=False)
        q.process.terminate()
        q.process.wait(v.PATIENCE)
        self.assertNotIn("vgpu-stub", q.process.stderr.read().decode())


class Resets(Device):
    def reset(self, q):
        q.write(BAR0 + N["VGPU_REG_CONTROL"], N["VGPU_CONTROL_RESET"])
        v.wait_until("the reset", lambda: q.read(BAR0 + N["VGPU_REG_CONTROL"]) == 0)

    def test_control_reset_drops_a_waiting_request(self):
        q = self.attached()
        self.leave_waiting(q)
        self.reset(q)
        self.assertEqual(q.read(STATUS), IDLE)
        self.m.ask("resume", pool="A")
        self.assertEqual(q.call(v.add_inline([3], [4])), (0, b"\7\0\0\0"))

    def test_resets_without_end(self):
        q = self.attached()
        for _ in range(200):
            q.write(BAR0 + N["VGPU_REG_CONTROL"], 0xFFFFFFFF)
        v.wait_until("the reset", lambda: q.read(BAR0 + N["VGPU_REG_CONTROL"]) == 0)
        self.assertEqual(q.call(v.add_inline([3], [4])), (0, b"\7\0\0\0"))

    def test_system_reset(self):
        q = self.attached()
        self.leave_waiting(q)
        q.reboot()
        q.wait_status(IDLE)
        self.m.ask("resume", pool="A")
        self.assertEqual(q.read(BAR0 + N["VGPU_REG_REQUEST_LEN"]), 0)
        self.assertEqual(q.call(v.add_inline([3], [4])), (0, b"\7\0\0\0"))

    def test_reset_at_start_leaves_the_worker_alone(self):
        q = self.attached()
        self.assertEqual(q.read(BAR0 + N["VGPU_REG_GENERATION"]), 1)
        self.assertEqual(self.m.vm(7)["worker_starts"], 1)


class Mediators(Device):
    def test_absent_at_start(self):
        m = self.mediator()
        m.stop()
        q = self.machine(f"path={m.socket},reconnect=1", VM7).map()
        self.assertEqual(q.read(STATUS), OFFLINE)
        self.assertEqual(q.read(BAR2), 0)
        q.write(BAR2, 5)
        self.assertEqual(q.read(BAR2), 0)
        self.assertEqual(q.read(BAR0 + N["VGPU_REG_FEATURES"]), N["VGPU_FEATURE_MSIX"])
        q.request(v.add_inline([1], [2]))
        q.ring()
        m.start()
        q.wait_status(IDLE)  # what was rung while offline was ignored
        self.assertEqual(q.call(v.add_inline([1], [2])), (0, b"\3\0\0\0"))

    def away_and_back(self, chardev):
        q = self.attached() if chardev is None else chardev
        q.write(BAR2 + 64, 0x12345678)
        q.call(v.add_inline([1], [2]))
        self.m.stop(signal.SIGKILL)
        q.wait_status(OFFLINE)
        self.assertEqual(q.read(BAR0 + N["VGPU_REG_VM_ID"]), 7)
        q.ring()
        self.assertEqual(q.read(STATUS), OFFLINE)
        self.m.start()
        q.wait_status(COMPLETE)  # the last answer is still there
        self.assertEqual(q.read(BAR0 + N["VGPU_REG_RESPONSE"]), 3)
        self.assertEqual(q.read(BAR2 + 64), 0x12345678)
        v.wait_until("another worker", lambda: q.read(BAR0 + N["VGPU_REG_GENERATION"]) == 2)
        self.assertEqual(q.call(v.add_inline([3], [4])), (0, b"\7\0\0\0"))

    def test_away_and_back(self):
        self.away_and_back(None)

    def test_away_and_back_without_reconnect(self):
        """The device looks for the mediator itself when the chardev does not."""
        self.m = self.mediator()
        q = self.machine(f"path={self.m.socket}", VM7).map()
        q.wait_status(IDLE)
        self.away_and_back(q)

    def test_request_survives_the_mediator(self):
        q = self.attached()
        self.leave_waiting(q)
        self.m.stop(signal.SIGKILL)
        q.wait_status(OFFLINE)
        self.m.start()
        q.wait_status(BUSY, COMPLETE)
        self.assertEqual(q.finish(), (0, b"\3\0\0\0"))

    def test_reset_while_offline_is_done_later(self):
        q = self.attached()
        self.leave_waiting(q)
        self.m.stop(signal.SIGKILL)
        q.wait_status(OFFLINE)
        q.write(BAR0 + N["VGPU_REG_CONTROL"], N["VGPU_CONTROL_RESET"])
        self.assertEqual(q.read(BAR0 + N["VGPU_REG_CONTROL"]), N["VGPU_CONTROL_RESET"])
        self.m.start()
        q.wait_status(IDLE)

    def test_inherited_descriptor(self):
        """No path at all: what a chroot hides does not matter."""
        self.m = self.mediator()
        client = socket.socket(socket.AF_UNIX)
        client.connect(self.m.socket)
        q = self.machine(f"fd={client.fileno()}", VM7,
                         pass_fds=[client.fileno()]).map()
        client.close()
        self.assertEqual(q.call(v.add_inline([1], [2])), (0, b"\3\0\0\0"))
        self.m.stop()
        q.wait_status(OFFLINE)

    def test_worker_killed(self):
        q = self.attached()
        os.kill(self.m.vm(7, state="idle")["worker_pid"], signal.SIGKILL)
        self.assertEqual(q.call(v.add_inline([1], [2])), (0, b"\3\0\0\0"))

    def test_qemu_gone_ends_its_worker(self):
        q = self.attached()
        worker = self.m.vm(7)["worker_pid"]
        q.process.kill()
        v.wait_until("the worker has ended", lambda: not os.path.exists(f"/proc/{worker}"))
        self.assertEqual(self.m.vms(), {})


class FalseMediators(Played):
    """A mediator that breaks the rules; QEMU goes on with a device offline."""

    def play(self, answers, device="vm-id=7,shm=1M,queues=0"):
        """Starts QEMU and sends it our answers, until it hangs up; the machine."""
        q = self.plug(device)
        for buffer, fds in answers:
            try:
                self.send(buffer, fds)
            except BrokenPipeError:
                break
        return q

    def fails(self, answers, words, **keywords):
        q = self.play(answers, **keywords)
        q.process.wait(v.PATIENCE)
        self.assertEqual(q.process.returncode, 1)
        self.assertIn(words, q.process.stderr.read().decode())

    def test_mediator_good(self):
        q = self.play([(self.answer(), self.descriptors())]).map()
        self.assertEqual(q.read(STATUS), IDLE)
        q.ring()
        self.assertEqual(q.read(STATUS), BUSY)
        self.assertEqual(os.eventfd_read(self.doorbells[0]), 1)

    def test_mediator_refuses(self):
        self.fails([(v.message("REFUSED", refused__reason=b"not on a Sunday"), [])],
                   "the mediator refused VM 7: not on a Sunday")

    def test_mediator_wrong_version(self):
        buffer = self.answer()
        own = N["VGPU_VERSION"] >> 16
        v.put(buffer, "vgpu_msg.version", (own + 1) << 16)
        self.fails([(buffer, [])], f"no mediator of protocol version {own}")

    def test_mediator_unsealed_memory(self):
        fds = self.descriptors(memfd=self.memfd(seals=0))
        self.fails([(self.answer(), fds)], "not sealed")

    def test_mediator_short_memory(self):
        fds = self.descriptors(memfd=self.memfd(size=1 << 20))
        self.fails([(self.answer(), fds)], "has 1048576 bytes")

    def test_mediator_wrong_descriptors(self):
        for count in (0, 1, 2, 4, 16):
            fds = [0] * count
            self.fails([(self.answer(), fds)], f"sent {count} descriptors")

    def test_mediator_wrong_sizes(self):
        for fields, words in (({"attached__shm_size": 2 << 20}, "2097152 bytes"),
                              ({"attached__vectors": 2}, "2 vectors"),
                              ({"attached__queues": 1}, "1 queues")):
            self.fails([(self.answer(**fields), self.descriptors())], words)

    def test_mediator_ignores_the_queues(self):
        self.fails([(self.answer(), self.descriptors())], "0 queues and 1 vectors, not 1048576, 3",
                   device="vm-id=7,shm=1M")

    def test_mediator_miscounts_later_descriptors(self):
        """Each message brings as many as it can."""
        for later in ([15, 11], [16, 10], [16, 12], [0, 11]):
            messages = self.messages(20, 8 << 20)
            messages[1:] = [(buffer, [0] * count) for (buffer, _), count
                            in zip(messages[1:], later)]
            sent = 16 + (later[0] if later[0] < 16 else sum(later))
            self.fails(messages, f"sent {sent} descriptors, not {32 if later[0] < 16 else 43}",
                       device="vm-id=7,shm=8M,queues=20")

    def test_mediator_refuses_between_descriptors(self):
        messages = self.messages(20, 8 << 20)
        messages[1] = (v.message("REFUSED", refused__reason=b"changed my mind"), [])
        self.fails(messages[:2], "changed my mind", device="vm-id=7,shm=8M,queues=20")

    def test_mediator_sends_descriptors_of_another_device(self):
        """They are closed, and do not count."""
        q = self.plug("vm-id=7,shm=8M,queues=20", extra=("-S",))
        before = v.descriptors(q.process.pid)
        for buffer, fds in self.messages(20, 8 << 20):
            self.send(v.message("FDS"), [0] * 16, serial=12345)
            self.send(buffer, fds)
            self.send(v.message("FDS"), [0] * 16, serial=12345)
        q.map().wait_status(IDLE)
        # Ours, one more for BAR2, and what the monitor and the main loop may have.
        self.assertLess(v.descriptors(q.process.pid) - before, 43 + 16)

    def test_mediator_pauses_between_descriptors(self):
        """QEMU starts all the same, after a second, and takes the others later."""
        messages = self.messages(20, 8 << 20)
        q = self.play(messages[:2], device="vm-id=7,shm=8M,queues=20").map()
        self.assertEqual(q.read(STATUS), OFFLINE)
        self.assertEqual(q.property("state"), "attaching")
        self.send(*messages[2])
        q.wait_status(IDLE)

    def test_mediator_dies_between_descriptors(self):
        q = self.serve("vm-id=7,shm=8M,queues=20")
        before = None
        for _ in range(4):
            for message in self.messages(20, 8 << 20)[:2]:
                self.send(*message)
            v.wait_until("attaching", lambda: q.property("state") == "attaching")
            self.ours.close()
            self.assertEqual(self.accept(), [])
            before = before or v.descriptors(q.process.pid)
        self.assertLessEqual(v.descriptors(q.process.pid), before)
        self.grant(q)
    def test_mediator_silent(self):
        """QEMU starts all the same, after a second, and hears the answer later."""
        start = time.monotonic()
        q = self.play([]).map()
        self.assertEqual(q.read(STATUS), OFFLINE)
        self.assertGreater(time.monotonic() - start, 0.9)
        self.send(self.answer(), self.descriptors())
        q.wait_status(IDLE)

    def test_mediator_stops_midway(self):
        """One byte of an answer must not make QEMU wait for the rest."""
        q = self.plug("vm-id=7,shm=1M,queues=0")
        self.ours.sendall(b"V")
        self.assertEqual(q.map().read(STATUS), OFFLINE)

    def test_mediator_sends_single_bytes(self):
        q = self.play([], device="vm-id=7,shm=8M,queues=20").map()
        for buffer, fds in self.messages(20, 8 << 20):
            v.put(buffer, "vgpu_msg.serial", v.get(self.hello, "vgpu_msg.serial"))
            for i, byte in enumerate(buffer):
                socket.send_fds(self.ours, [bytes([byte])], fds if i == 0 else [])
        q.wait_status(IDLE)


class Plugging(Device):
    def test_hot_plug_and_unplug(self):
        self.m = self.mediator()
        # On the root bus of q35 nothing can be plugged; behind a port it can.
        q = self.machine(f"path={self.m.socket},reconnect=1", plug=False,
                         extra=("-device", "pcie-root-port,id=port1,addr=5,chassis=1"))
        idle = None
        for _ in range(3):
            q.execute("device_add", driver="vgpu-stub", id="gpu", bus="port1",
                      chardev="mediator", queues=40, **{"vm-id": 7, "shm": 16 << 20})
            # Bus numbers, memory windows and memory decoding of the port.
            q.set_config(0x18, 0x00010100, slot=5)
            q.set_config(0x20, 0xE010E000, slot=5)
            q.set_config(0x24, 0xDFF1D001, slot=5)
            q.set_config(4, 6, slot=5)
            q.map(slot=0, bus=1)
            q.wait_status(IDLE)
            self.assertEqual(q.call(v.add_inline([20], [22])), (0, b"\x2a\0\0\0"))
            q.execute("device_del", id="gpu")
            # A reset completes the unplugging that no guest acknowledges.
            q.execute("system_reset")
            q.wait_event("DEVICE_DELETED")
            v.wait_until("the mediator has let it go", lambda: self.m.vms() == {})
            # The first round makes what QEMU keeps.
            idle = idle or v.descriptors(q.process.pid)
        v.wait_until("no descriptor is left", lambda: v.descriptors(q.process.pid) <= idle)

    def test_two_devices(self):
        m = self.mediator()
        q = self.machine(f"path={m.socket}", VM7, extra=(
            "-chardev", f"socket,id=other,path={m.socket}",
            "-device", "vgpu-stub,chardev=other,addr=6,vm-id=8,shm=16M,queues=0")).map()
        self.assertEqual(sorted(m.vms()), [7, 8])
        self.assertEqual(q.call(v.add_inline([20], [22])), (0, b"\x2a\0\0\0"))


class Properties(Device):
    def test_bad_properties_are_named(self):
        self.failing("vm-id=0", words="property 'vm-id' is missing")
        self.failing("vm-id=1,pool=a", words="property 'pool' is 'a'")
        self.failing("vm-id=1,pool=AB", words="property 'pool' is 'AB'")
        self.failing("vm-id=1,priority=urgent", words="property 'priority' is 'urgent'")
        self.failing("vm-id=1,shm=3M", words="property 'shm' is 3145728 bytes")
        self.failing("vm-id=1,shm=512K", words="property 'shm' is 524288 bytes")
        self.failing("vm-id=1,queues=65", words="'queues' is 65, must be at most 64 with")
        self.failing("vm-id=1,shm=1M,queues=4",
                     words="'queues' is 4, must be at most 3 with 'shm' of 1 MiB")

    def test_refusal_stops_qemu_with_its_reason(self):
        self.failing("vm-id=1,shm=4G", words="the mediator refused VM 1")
        self.failing("vm-id=1,pool=Z", words="there is no pool Z on this host")

    def test_chardev_is_missing(self):
        machine = self.machine(plug=False, extra=("-device", "vgpu-stub,vm-id=1"))
        machine.process.wait(v.PATIENCE)
        self.assertIn("property 'chardev' is missing", machine.process.stderr.read().decode())

    def test_info_qtree(self):
        q = self.attached()
        tree = q.hmp("info qtree")
        for words in ('dev: vgpu-stub, id "gpu"', "vm-id = 7", 'pool = "A"', 'priority = "high"',
                      "shm = 16777216", "queues = 16"):
            self.assertIn(words, tree)
        self.assertEqual(q.property("state"), "attached")

    def test_trace_events(self):
        log = os.path.join(self.mediator().dir.name, "trace")
        q = self.attached(extra=("--trace", "enable=vgpu_stub_*", "-D", log))
        q.read(BAR0 + 1, "b")

        def traced():
            with open(log, encoding="ascii") as file:
                text = file.read()
            return "vgpu_stub_attached VM 7 pool A" in text and "vgpu_stub_bad_access" in text
        v.wait_until("both events are in the log", traced)


if __name__ == "__main__":
    v.main()
