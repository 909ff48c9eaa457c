#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Memory and events that sessions share, byte by byte: who gets what by a key, how much of the VM's
memory that is, and what is left when one of them ends.

Tests: worker/sharing*.c, mediator/queue*.c, mediator/vm*.c, mediator/exports*.c"""
import os
import random
import signal
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402
from vgputest import N  # noqa: E402

os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=0")

MIB = 1 << 20
SHARED = 3 * MIB  # bytes of the memory that is shared
SUCCESS, INVALID_VALUE, OUT_OF_MEMORY = 0, 1, 2
INVALID_CONTEXT, INVALID_HANDLE, NOT_READY = 201, 400, 600
KILLS = int(os.environ.get("VGPU_KILLS", "40"))
# Calls of api/private.api.
(EXPORT, IMPORT, CLOSE, EVENT, EVENT_EXPORT, EVENT_IMPORT, EVENT_DROP, EVENT_NUMBER, ANNOUNCE,
 RECORD, WAIT, QUERY) = range(48, 60)


def call(q, number, *arguments):
    """(result, words of the answer); arguments are numbers, or bytes."""
    packed = b"".join(a if isinstance(a, bytes) else struct.pack("<Q", a) for a in arguments)
    result, payload = q.call("CALL", struct.pack("<IIQIIQ", number, len(packed), 0, 0, 0, 0) + packed)
    return result, struct.unpack(f"<{len(payload) // 8}Q", payload) if result == SUCCESS else ()


class Sharing(v.TestCase):
    def setUp(self):
        self.m = self.mediator("[defaults]\nmemory = 32M\n")

    def device(self, vm_id=1, queues=3):
        device = v.Device(v.Client(self.m), vm_id=vm_id, queues=queues, shm=8 * MIB)
        self.addCleanup(device.close)
        return device

    def good(self, q, number, *arguments):
        result, words = call(q, number, *arguments)
        self.assertEqual(result, SUCCESS)
        return words

    def key(self, q, address):
        return struct.pack("<QQ", *self.good(q, EXPORT, address))

    def event_key(self, q, event):
        return struct.pack("<QQ", *self.good(q, EVENT_EXPORT, event))

    def used(self, vm_id=1):
        return self.m.vm(vm_id)["memory_used"]

    def fill(self, q, address, value):
        self.assertEqual(q.call("FILL", v.cmd_fill(address, value, SHARED // 4)), (SUCCESS, b""))
        self.assertEqual(q.call("SYNC"), (SUCCESS, b""))

    def word(self, q, address):
        """The word that is there, by way of the arena."""
        q.call("COPY", v.cmd_copy(q.address, address, 4, "FROM_DEVICE"))
        self.assertEqual(q.call("SYNC"), (SUCCESS, b""))
        return struct.unpack_from("<I", q.device.map, q.offset)[0]

    def two(self):
        """Two sessions of a VM; the second has the memory of the first."""
        device = self.device()
        q, p = v.Queue(device, 0).open(), v.Queue(device, 1).open()
        address = q.memory(SHARED)
        key = self.key(q, address)
        there, size = self.good(p, IMPORT, key)
        self.assertEqual(size, SHARED)
        return q, address, key, p, there

    def test_both_have_one_memory(self):
        q, address, _, p, there = self.two()
        self.fill(q, address, 5)
        self.assertEqual(self.word(p, there), 5)
        self.fill(p, there, 6)
        self.assertEqual(self.word(q, address), 6)
        self.assertEqual(self.used(), SHARED)

    def test_memory_counts_until_nobody_has_it(self):
        q, address, key, p, there = self.two()
        self.assertEqual(q.call("MEM_FREE", struct.pack("<QQ", address, 0)), (SUCCESS, b""))
        self.assertEqual(self.used(), SHARED)
        # Nobody else gets it now.
        self.assertEqual(call(v.Queue(q.device, 2).open(), IMPORT, key)[0], INVALID_VALUE)
        # And there is that much less for the VM.
        result, _ = q.call("MEM_ALLOC", struct.pack("<QQ", 30 * MIB, 0))
        self.assertEqual(result, OUT_OF_MEMORY)
        self.assertEqual(self.good(p, CLOSE, there), (0,))
        self.assertEqual(self.used(), 0)
        q.memory(30 * MIB)

    def test_exporter_that_is_killed(self):
        q, _, _, p, there = self.two()
        q.memory(MIB)
        self.kill(q)
        v.wait_until("the memory is as much", lambda: self.used() == SHARED)
        self.fill(p, there, 9)
        self.assertEqual(self.word(p, there), 9)
        self.assertEqual(self.good(p, CLOSE, there), (0,))
        v.wait_until("nothing is left", lambda: self.used() == 0)

    def test_importer_that_is_killed(self):
        q, address, _, p, _ = self.two()
        self.kill(p)
        self.assertEqual(self.used(), SHARED)
        q.call("MEM_FREE", struct.pack("<QQ", address, 0))
        v.wait_until("nothing is left", lambda: self.used() == 0)

    def test_both_are_killed(self):
        for first in 0, 1:
            q, _, _, p, _ = self.two()
            for queue in (q, p) if first == 0 else (p, q):
                self.kill(queue)
            v.wait_until("nothing is left", lambda: self.used() == 0)
            q.device.client.close()
            v.wait_until("the VM is gone", lambda: not self.m.vms())

    def kill(self, q):
        session = [s for s in self.m.vm(1)["sessions"] if s["queue"] == q.number]
        os.kill(session[0]["worker_pid"], signal.SIGKILL)
        self.assertEqual(q.end(), "LOST")

    def test_a_key_is_good_in_its_vm_alone(self):
        q, _, key, _, _ = self.two()
        stranger = v.Queue(self.device(2)).open()
        self.assertEqual(call(stranger, IMPORT, key)[0], INVALID_VALUE)
        self.assertEqual(call(stranger, IMPORT, bytes(16))[0], INVALID_VALUE)
        self.assertEqual(call(stranger, EVENT_IMPORT, self.event_key(q, self.good(q, EVENT)[0]))[0],
                         INVALID_VALUE)
        self.assertEqual(call(q, IMPORT, key)[0], INVALID_CONTEXT)
        for byte in range(16):
            wrong = bytearray(key)
            wrong[byte] ^= 1
            self.assertEqual(call(q, IMPORT, bytes(wrong))[0], INVALID_VALUE)

    def test_what_is_no_allocation(self):
        q = v.Queue(self.device()).open()
        address = q.memory(SHARED)
        for wrong in 0, 1, address + 4096, q.address:
            self.assertEqual(call(q, EXPORT, wrong)[0], INVALID_VALUE)
            self.assertEqual(call(q, CLOSE, wrong)[0], INVALID_VALUE)
        self.assertEqual(call(q, CLOSE, address)[0], INVALID_VALUE)
        # Once more is the same key.
        self.assertEqual(self.key(q, address), self.key(q, address))

    def test_imported_memory_is_not_freed(self):
        _, _, key, p, there = self.two()
        self.assertEqual(self.good(p, IMPORT, key), (there, SHARED))
        self.assertNotEqual(p.call("MEM_FREE", struct.pack("<QQ", there, 0))[0], SUCCESS)
        self.assertEqual(self.good(p, CLOSE, there), (1,))
        self.assertEqual(self.word(p, there), 0)
        self.assertEqual(self.good(p, CLOSE, there), (0,))
        self.assertEqual(call(p, CLOSE, there)[0], INVALID_VALUE)
        self.assertEqual(self.used(), SHARED)

    def events(self):
        """An event that two sessions have; a stream of each."""
        device = self.device()
        q, p = v.Queue(device, 0).open(), v.Queue(device, 1).open()
        event, = self.good(q, EVENT)
        other, = self.good(p, EVENT_IMPORT, self.event_key(q, event))
        streams = [s.value("STREAM_CREATE", struct.pack("<IIQ", 1, 0, 0)) for s in (q, p)]
        return q, event, streams[0], p, other, streams[1]

    def test_event_is_seen_by_both(self):
        q, event, stream, p, other, _ = self.events()
        self.assertEqual(self.good(p, EVENT_NUMBER, other), (0, 1))
        number, = self.good(q, ANNOUNCE, event)
        self.assertEqual(self.good(p, EVENT_NUMBER, other), (number, 0))
        self.assertEqual(call(p, QUERY, other, number)[0], NOT_READY)
        self.assertEqual(call(q, RECORD, stream, event, number)[0], SUCCESS)
        self.assertEqual(q.call("STREAM_SYNC", struct.pack("<QQ", stream, 0)), (SUCCESS, b""))
        self.assertEqual(self.good(p, EVENT_NUMBER, other), (number, 1))
        self.assertEqual(call(p, QUERY, other, number)[0], SUCCESS)

    def test_stream_waits_for_another_session(self):
        q, event, stream, p, other, waits = self.events()
        number, = self.good(p, ANNOUNCE, other)
        self.assertEqual(call(q, WAIT, stream, event, number)[0], SUCCESS)
        self.assertEqual(q.call("STREAM_QUERY", struct.pack("<QQ", stream, 0))[0], NOT_READY)
        self.assertEqual(call(p, RECORD, waits, other, number)[0], SUCCESS)
        self.assertEqual(q.call("STREAM_SYNC", struct.pack("<QQ", stream, 0)), (SUCCESS, b""))

    def test_records_that_were_not_announced(self):
        q, event, stream, _, _, _ = self.events()
        number, = self.good(q, ANNOUNCE, event)
        for wrong in number + 1, number + 1024, number | 1 << 63, 1, (1 << 64) - 1:
            self.assertEqual(call(q, RECORD, stream, event, wrong)[0], INVALID_VALUE)
        self.assertEqual(call(q, RECORD, stream, stream, number)[0], INVALID_HANDLE)
        self.assertEqual(call(q, RECORD, stream, event, number)[0], SUCCESS)

    def test_so_many_records_on_their_way(self):
        """Then there is none left, until one of them has happened."""
        q, event, stream, p, other, _ = self.events()
        numbers = [self.good(q, ANNOUNCE, event)[0] for _ in range(1024)]
        self.assertEqual(len({number & 1023 for number in numbers}), 1024)
        self.assertEqual(call(p, ANNOUNCE, other)[0], NOT_READY)
        self.assertEqual(call(q, RECORD, stream, event, numbers[7])[0], SUCCESS)
        self.assertEqual(q.call("STREAM_SYNC", struct.pack("<QQ", stream, 0)), (SUCCESS, b""))
        again, = self.good(p, ANNOUNCE, other)
        self.assertEqual(again & 1023, numbers[7] & 1023)
        self.assertGreater(again, numbers[7])

    def test_no_more_events_than_there_are(self):
        q = v.Queue(self.device()).open()
        events = [self.good(q, EVENT)[0] for _ in range(1024)]
        self.assertEqual(call(q, EVENT)[0], OUT_OF_MEMORY)
        self.assertEqual(call(q, EVENT_DROP, events[5])[0], SUCCESS)
        self.good(q, EVENT)

    def test_event_whose_exporter_is_gone(self):
        q, event, _, p, other, stream = self.events()
        key = self.event_key(q, event)
        self.kill(q)
        number, = self.good(p, ANNOUNCE, other)
        self.assertEqual(call(p, RECORD, stream, other, number)[0], SUCCESS)
        self.assertEqual(p.call("STREAM_SYNC", struct.pack("<QQ", stream, 0)), (SUCCESS, b""))
        self.assertEqual(call(p, QUERY, other, number)[0], SUCCESS)
        self.assertEqual(call(p, EVENT_IMPORT, key)[0], INVALID_VALUE)

    def test_nothing_of_it_stays(self):
        """Neither in the mediator nor in the importer, whose exporters come and go."""
        device = self.device()
        p = v.Queue(device, 1).open()
        worker = self.m.vm(1)["sessions"][0]["worker_pid"]
        before = None
        for _ in range(6):
            q = v.Queue(device, 0).open()
            event, = self.good(q, EVENT)
            other, = self.good(p, EVENT_IMPORT, self.event_key(q, event))
            there, _ = self.good(p, IMPORT, self.key(q, q.memory(SHARED)))
            self.good(p, CLOSE, there)
            self.assertEqual(call(p, EVENT_DROP, other)[0], SUCCESS)
            q.close()
            with open(f"/proc/{worker}/maps", encoding="ascii") as maps:
                now = (len(maps.readlines()), v.idle_descriptors(self.m.pid), v.descriptors(worker))
            before = before or now
        self.assertEqual(now, before)

    def test_many_of_an_ended_exporter(self):
        """So many that libc sorts them in another way, which asks the system for its memory."""
        device = self.device()
        p, q = v.Queue(device, 1).open(), v.Queue(device, 0).open()
        for _ in range(200):
            self.good(p, IMPORT, self.key(q, q.memory(4096)))
        q.close()
        self.assertTrue(p.nop())

    def test_host_memory_of_an_ended_exporter(self):
        """What nobody else has of it is the host's again, though an importer lives on."""
        def shmem():
            with open("/proc/meminfo", encoding="ascii") as file:
                return int(next(line for line in file if line.startswith("Shmem:")).split()[1]) >> 10
        device = self.device()
        p = v.Queue(device, 1).open()
        before = shmem()
        for _ in range(12):
            q = v.Queue(device, 0).open()
            address = q.memory(28 * MIB)
            q.call("FILL", v.cmd_fill(address, 1, 7 * MIB))
            self.good(p, EVENT_IMPORT, self.event_key(q, self.good(q, EVENT)[0]))
            self.good(p, IMPORT, self.key(q, q.memory(4096)))
            q.close()
            v.wait_until("the memory is back", lambda: self.used() < MIB)
        v.wait_until("the host's memory too", lambda: shmem() - before < 3 * 28)

    def test_close_after_a_lost_context(self):
        """The memory is still had, and counts."""
        q, address, _, p, there = self.two()
        self.assertEqual(q.call("MEM_FREE", struct.pack("<QQ", address, 0)), (SUCCESS, b""))
        p.call("FILL", v.cmd_fill(1 << 50, 1, 1))
        self.assertEqual(p.call("SYNC")[0], N["VGPU_GPU_ILLEGAL_ADDRESS"])
        self.assertEqual(call(p, CLOSE, there)[0], N["VGPU_GPU_ILLEGAL_ADDRESS"])
        self.assertEqual(self.used(), SHARED)
        p.close()
        v.wait_until("nothing is left", lambda: self.used() == 0)

    def test_freed_and_closed_at_once(self):
        """No byte is lost, whichever the mediator hears of first."""
        device = self.device()
        for i in range(40):
            q = v.Queue(device, i % 3).open()
            address = q.memory(SHARED)
            self.key(q, address)
            os.kill(self.m.pid, signal.SIGSTOP)
            q.call("MEM_FREE", struct.pack("<QQ", address, 0))
            q.send("CLOSE")
            os.kill(self.m.pid, signal.SIGCONT)
            q.wait_state("FREE")
        v.wait_until("nothing is left", lambda: self.used() == 0)

    def test_records_of_who_is_killed(self):
        """They count as happened, and their words are free."""
        q, event, stream, p, other, _ = self.events()
        for _ in range(1000):
            self.good(p, ANNOUNCE, other)
        number, = self.good(p, ANNOUNCE, other)
        self.assertEqual(call(q, WAIT, stream, event, number)[0], SUCCESS)
        self.assertEqual(q.call("STREAM_QUERY", struct.pack("<QQ", stream, 0))[0], NOT_READY)
        self.kill(p)
        self.assertEqual(q.call("STREAM_SYNC", struct.pack("<QQ", stream, 0)), (SUCCESS, b""))
        self.assertEqual(len({self.good(q, ANNOUNCE, event)[0] & 1023 for _ in range(1024)}), 1024)

    def test_records_of_an_exporter_that_is_killed(self):
        q, event, _, p, other, stream = self.events()
        number, = self.good(q, ANNOUNCE, event)
        self.assertEqual(call(p, WAIT, stream, other, number)[0], SUCCESS)
        self.kill(q)
        self.assertEqual(p.call("STREAM_SYNC", struct.pack("<QQ", stream, 0)), (SUCCESS, b""))

    def test_session_that_ends_while_a_stream_waits(self):
        q, event, stream, p, other, _ = self.events()
        number, = self.good(p, ANNOUNCE, other)
        self.assertEqual(call(q, WAIT, stream, event, number)[0], SUCCESS)
        q.post(v.command(0xffff, bytes(16), slot=99))
        self.assertEqual(q.end(), "BAD_RING")

    def test_room_comes_back(self):
        """More than fits waits for another session; nobody waits for it, and it goes on."""
        q, event, stream, p, other, waits = self.events()
        address = q.memory(4096)
        number, = self.good(p, ANNOUNCE, other)
        self.assertEqual(call(q, WAIT, stream, event, number)[0], SUCCESS)
        for i in range(1500):
            q.post(v.command("FILL", v.cmd_fill(address, i, 1, stream=stream)), ring=i == 0)
        self.assertEqual(call(p, RECORD, waits, other, number)[0], SUCCESS)
        v.wait_until("all is taken", q.taken)
        self.assertEqual(q.call("SYNC"), (SUCCESS, b""))
        self.assertEqual(self.word(q, address), 1499)

    def test_host_processes_of_one_user(self):
        """Each is a VM of its own, and each counts what it has."""
        q, p = (v.Queue(v.Device(v.Client(self.m), vm_id=0, queues=1, shm=8 * MIB,
                                 hello__flags=N["VGPU_HELLO_HOST"])).open() for _ in range(2))
        for queue in q, p:
            self.addCleanup(queue.device.close)
        numbers = sorted(self.m.vms())
        key = self.key(q, q.memory(SHARED))
        large = self.key(q, q.memory(20 * MIB))
        there, _ = self.good(p, IMPORT, key)
        self.fill(p, there, 4)
        self.assertEqual(sorted(self.used(n) for n in numbers), [SHARED, 20 * MIB + SHARED])
        p.memory(16 * MIB)
        self.assertEqual(call(p, IMPORT, large)[0], OUT_OF_MEMORY)
        self.good(p, CLOSE, there)
        self.assertEqual(sorted(self.used(n) for n in numbers), [16 * MIB, 20 * MIB + SHARED])


class OverMediators(Sharing):
    """All of that, while one mediator after the other is killed."""

    def setUp(self):
        self.m = self.mediator("[defaults]\nmemory = 32M\n", keeper=True)
        self.calls = self.kills = 0

    def good(self, q, number, *arguments):
        self.calls += 1
        if self.calls % 2 == 0 and self.kills < 20:
            self.kills += 1
            self.m.replace()
        return super().good(q, number, *arguments)

    def used(self, vm_id=1):
        self.m.replace()
        return super().used(vm_id)

    def test_killed_at_random(self):
        """While sessions share, and give back: nothing is lost, and the account is exact."""
        dice = random.Random(1)
        device = self.device()
        q, p = v.Queue(device, 0).open(), v.Queue(device, 1).open()
        stop = threading.Event()
        rounds, wrong = [0], []

        def share():
            try:
                while not stop.is_set():
                    address = q.memory(SHARED)
                    key = struct.pack("<QQ", *call(q, EXPORT, address)[1])
                    event, = call(q, EVENT)[1]
                    other, = call(p, EVENT_IMPORT, struct.pack("<QQ", *call(q, EVENT_EXPORT,
                                                                            event)[1]))[1]
                    there, _ = call(p, IMPORT, key)[1]
                    rounds[0] += 1
                    self.fill(q, address, rounds[0])
                    seen = self.word(p, there)
                    ends = [q.call("MEM_FREE", struct.pack("<QQ", address, 0))[0],
                            call(q, EVENT_DROP, event)[0], call(p, EVENT_DROP, other)[0],
                            call(p, CLOSE, there)[0]]
                    if seen != rounds[0] or any(ends):
                        wrong.append((rounds[0], seen, ends))
            except Exception as error:  # pylint: disable=broad-except
                wrong.append((rounds[0], repr(error)))
        sharer = threading.Thread(target=share)
        sharer.start()
        kills = 0
        while kills < KILLS or (rounds[0] < 10 and not wrong):
            time.sleep(dice.uniform(0.001, 0.3))
            self.m.replace()
            kills += 1
        stop.set()
        sharer.join(v.PATIENCE)
        self.assertEqual(wrong, [])
        print(f"{rounds[0]} rounds, {kills} mediators", file=sys.stderr)
        for queue in q, p:
            self.assertEqual(queue.status(), ("RUNNING", "NONE", 1))
            queue.close()
        v.wait_until("the account is exact", lambda: self.used() == 0)


if __name__ == "__main__":
    v.main()
