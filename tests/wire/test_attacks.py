#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What keeps the mediator from everybody else, tried by users who may attach: it goes on. How long
anything has kept it is printed; the limits here are wide, for busy machines.

Tests: mediator/chores.c, mediator/control*.c, mediator/client.c, mediator/vm.c, common/fdmsg.c, mediator/main.c"""
import ctypes
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest.mock

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402

LINGER = int(v.PATIENCE)  # seconds
FALLOC_PUNCH_HOLE = 3  # with FALLOC_FL_KEEP_SIZE, without which there is none


def slow_socket(seconds):
    """One whose last close() lingers: what it has sent is not taken by the other end."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sender = socket.create_connection(listener.getsockname())
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    taker, _ = listener.accept()
    listener.close()
    sender.setblocking(False)
    try:
        while True:
            sender.send(bytes(1 << 16))
    except BlockingIOError:
        pass
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
    return sender, taker


class Attacks(v.TestCase):
    def setUp(self):
        self.m = self.mediator(mediator="max-vms = 64")
        self.longest = 0

    def look(self):
        """Asks the mediator, and keeps how long that took."""
        start = time.monotonic()
        vms = self.m.vms()
        self.longest = max(self.longest, time.monotonic() - start)
        return vms

    def tell(self):
        print(f"{self._testMethodName}: an answer took {1000 * self.longest:.0f} ms at most",
              file=sys.stderr)

    def test_no_memory(self):
        """Answers that there is no memory for are none, or say so; the mediator goes on."""
        if v.sanitizer(v.MEDIATOR):
            self.skipTest("a sanitizer ends a program that has no memory")
        clients = [v.Client(self.m) for _ in range(12)]
        for number, client in enumerate(clients, 1):
            self.addCleanup(client.close)
            client.attach(vm_id=number)
        before = resource.prlimit(self.m.pid, resource.RLIMIT_AS)
        answered = 0
        for kib in (0, 4, 16, 64, 128, 256, 1024):
            with open(f"/proc/{self.m.pid}/statm", encoding="ascii") as file:
                size = int(file.read().split()[0]) * mmap.PAGESIZE
            resource.prlimit(self.m.pid, resource.RLIMIT_AS, (size + (kib << 10), before[1]))
            for _ in range(3):
                with socket.socket(socket.AF_UNIX) as control:
                    control.settimeout(v.PATIENCE)
                    control.connect(self.m.control)
                    control.sendall(b'{"command":"list"}\n')
                    try:
                        answered += control.recv(1 << 16) != b""
                    except ConnectionError:
                        pass
        resource.prlimit(self.m.pid, resource.RLIMIT_AS, before)
        self.assertEqual(len(self.look()), len(clients), self.m.read_log()[-2000:])

    def test_no_descriptors(self):
        """VMs that there are no descriptors for are refused; those that are attached have some."""
        self.m.stop()
        wrapper = os.path.join(self.m.dir.name, "mediator")
        with open(wrapper, "w", encoding="ascii") as file:
            file.write(f'#!/bin/sh\nulimit -n 400\nexec {v.MEDIATOR} "$@"\n')
        os.chmod(wrapper, 0o755)
        with unittest.mock.patch.object(v, "MEDIATOR", wrapper):
            self.m.start()
        clients, why = [], ""
        while not why and len(clients) < 100:
            client = v.Client(self.m)
            self.addCleanup(client.close)
            clients.append(client)
            client.send(v.hello(vm_id=len(clients)))
            answer = client.receive()
            if len(answer) < v.N["VGPU_MSG_SIZE"]:
                why = "closed"
            elif v.get(answer, "vgpu_msg.type") != v.N["VGPU_MSG_ATTACHED"]:
                why = v.text(answer, "vgpu_msg.refused.reason")
        self.assertRegex(why, "closed|no descriptors left.*LimitNOFILE")
        self.assertGreater(len(clients), 5)
        worker = self.m.vm(1, state="idle")["worker_pid"]
        os.kill(worker, signal.SIGKILL)
        v.wait_until("the next worker serves",
                     lambda: self.m.vm(1, state="idle")["worker_pid"] not in (0, worker))

    def test_silent_connections(self):
        """One user's, as many as they can be, leave room for another's."""
        if os.geteuid() != 0:
            self.skipTest("needs root to become another user")
        m = self.mediator(mediator="max-vms = 16\nusers = root, nobody")
        os.chmod(m.dir.name, 0o755)
        code = ("import socket, sys, time\n"
                "held = []\n"
                "print('begun', flush=True)\n"
                "while True:\n"
                "    try:\n"
                "        s = socket.socket(socket.AF_UNIX)\n"
                "        s.settimeout(1)\n"
                "        s.connect(sys.argv[1])\n"
                "        held.append(s)\n"
                "    except OSError:\n"
                "        held = held[100:]\n"
                "    time.sleep(0.005)\n"
                "    if len(held) > 500: held = held[100:]\n")
        with subprocess.Popen(["/usr/bin/python3", "-c", code, m.socket], user=65534,
                              stdout=subprocess.PIPE) as hoarder:
            try:
                hoarder.stdout.readline()
                time.sleep(1)
                for number in range(1, 9):
                    client = v.Client(m)
                    self.addCleanup(client.close)
                    client.attach(vm_id=number)
            finally:
                hoarder.kill()

    def test_slow_close(self):
        """A descriptor that nobody asked for, and whose close() takes long."""
        takers = []
        for kind, whole in (("QUEUE", True), ("RESET", True), ("QUEUE", False)):
            with v.Client(self.m) as client:
                client.attach()
                sender, taker = slow_socket(LINGER)
                takers.append(taker)
                message = bytes(v.message(kind))
                # Without its last byte, and with the sender's own copy closed before that comes.
                socket.send_fds(client.socket, [message[:-1]], [sender.fileno()] * 40)
                sender.close()
                if whole:
                    client.send(message[-1:])
                self.look()
            v.wait_until("it is gone", lambda: not self.look())
        self.tell()
        self.assertLess(self.longest, LINGER / 2)
        for taker in takers:
            taker.close()

    def test_slow_close_unaccepted(self):
        """What a connection that is not taken has in it is closed with it, like what was not read."""
        takers, full = [], [v.Client(self.m) for _ in range(48)]
        for client in full:
            self.addCleanup(client.close)
        # Meanwhile all is sent and closed here: the mediator's is the last close() of each.
        os.kill(self.m.pid, signal.SIGSTOP)
        for _ in range(70):
            senders = [slow_socket(LINGER) for _ in range(3)]
            takers += [taker for _, taker in senders]
            direct, inside, waits = (sender for sender, _ in senders)
            # One inside another, and one in a connection that waits in the backlog of another.
            pair = socket.socketpair()
            socket.send_fds(pair[0], [b"x"], [inside.fileno()])
            listener, waiting = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
            listener.bind("")
            listener.listen(1)
            waiting.connect(listener.getsockname())
            socket.send_fds(waiting, [b"x"], [waits.fileno()])
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(self.m.socket)
                socket.send_fds(client, [b"x"], [direct.fileno(), pair[1].fileno(),
                                                 listener.fileno()])
                for part in (direct, inside, waits, *pair, waiting, listener):
                    part.close()
        os.kill(self.m.pid, signal.SIGCONT)
        for _ in range(20):
            self.look()
            time.sleep(0.02)
        self.tell()
        self.assertLess(self.longest, LINGER / 2)
        # No thread lingers either, so that what others close is closed too.
        for client in full:
            client.close()
        start = time.monotonic()
        v.wait_until("all is closed", lambda: v.descriptors(self.m.pid) < 40)
        self.assertLess(time.monotonic() - start, LINGER / 2)
        for taker in takers:
            taker.close()

    def test_resets_and_away(self):
        """Thousands of RESETs are in the socket when their sender goes."""
        for _ in range(10):
            client = v.Client(self.m)
            client.attach(vm_id=len(self.look()) + 1)
            client.socket.setblocking(False)
            for _ in range(400):
                try:
                    client.send(v.message("RESET"))
                except BlockingIOError:
                    break
            self.look()
            self.addCleanup(client.close)
            client.socket.close()
        v.wait_until("all are gone", lambda: not self.look())
        self.tell()

    def test_reset_is_answered(self):
        """The last of many, and then one more; each is done when that is told."""
        with v.Client(self.m) as client:
            client.attach()
            for number in range(1, 40):
                client.send(v.message("RESET", serial=number))
            last = 0
            while last < 39:
                answer = client.receive()
                self.assertEqual(v.get(answer, "vgpu_msg.type"), v.N["VGPU_MSG_RESET_DONE"])
                serial = v.get(answer, "vgpu_msg.serial")
                self.assertGreater(serial, last)
                last = serial
            client.send(v.message("RESET", serial=40))
            self.assertEqual(v.get(client.receive(), "vgpu_msg.serial"), 40)
            starts = self.m.vm(1)["worker_starts"]
            self.assertLess(starts, 20, "RESETs that wait are one")
        self.tell()

    def test_holes(self):
        """Punched in the VM's memory all the time, while its queues are opened and closed."""
        shm, queues, rounds = 256 << 20, 4, 100
        with v.Device(v.Client(self.m), shm=shm, queues=queues) as device:
            over = threading.Event()

            def punch():
                libc = ctypes.CDLL(None)
                while not over.is_set():
                    for page in range(0, shm, 1 << 16):
                        device.map[page] = 1
                    libc.fallocate64(device.memfd, FALLOC_PUNCH_HOLE, ctypes.c_int64(0),
                                     ctypes.c_int64(shm + v.N["VGPU_REGS_SIZE"]))

            def act(queue, action):
                device.client.send(v.message("QUEUE", queue__queue=queue,
                                             queue__action=v.N["VGPU_QUEUE_" + action]))

            puncher = threading.Thread(target=punch)
            puncher.start()
            try:
                for _ in range(rounds):
                    for queue in range(queues):
                        act(queue, "OPEN")
                        act(queue, "CLOSE")
                    self.look()
            finally:
                over.set()
                puncher.join()
            # What holes have swallowed is lost; what is stored from here on stays, in its order.
            for queue in range(queues):
                act(queue, "CLOSE")
            words = v.FIELDS["vgpu_regs_page.queue_status"][0] + shm
            expected = struct.pack("<I", v.N["VGPU_QUEUE_FREE"] | (2 * rounds + 1) << 16) * queues
            v.wait_until("all queues are free", lambda: device.map[words:words + 4 * queues] ==
                         expected)
        v.wait_until("it is gone", lambda: not self.look())
        self.tell()
        self.assertLess(self.longest, LINGER / 2)


if __name__ == "__main__":
    v.main()
