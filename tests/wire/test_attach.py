#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Raw bytes on the attach socket of a real mediator: whoever misbehaves is told why, nothing
leaks, and the next client is served.

Tests: mediator/printable.c, mediator/client*.c, mediator/attach.c, mediator/listen.c,
mediator/main*.c, mediator/confine.c, mediator/mediator.c, mediator/vm*.c, mediator/config*.c,
common/fdmsg.c, common/log.c,
common/unixaddr.c"""
import ctypes
import fcntl
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402
from vgputest import N  # noqa: E402

# linux/fcntl.h
F_ADD_SEALS, F_GET_SEALS = 1033, 1034
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW = 1, 2, 4


def sealed_memfd(size, seals=F_SEAL_SHRINK | F_SEAL_GROW):
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    if seals:
        fcntl.fcntl(fd, F_ADD_SEALS, seals)
    return fd


class Attach(v.TestCase):
    def setUp(self):
        self.m = self.mediator()
        # The event loop keeps some descriptors (timers) that it makes when first needed.
        self.serve_one()
        v.wait_until("no worker is left", lambda: v.workers(self.m.pid) == [])
        self.idle = v.idle_descriptors(self.m.pid)

    def serve_one(self):
        with v.Device(v.Client(self.m), vm_id=999) as device:
            self.assertEqual(device.call(v.add_inline([20], [22])), (0, b"\x2a\0\0\0"))

    def tearDown(self):
        """Whatever a test did: the mediator lives, serves, and has let go of everything."""
        self.serve_one()
        v.wait_until("no descriptor is left", lambda: v.descriptors(self.m.pid) == self.idle)
        v.wait_until("no worker is left", lambda: v.workers(self.m.pid) == [])

    def refused(self, buffer, words, fds=()):
        with v.Client(self.m) as client:
            client.send(buffer, fds)
            answer = client.receive()
            self.assertEqual(v.get(answer, "vgpu_msg.type"), N["VGPU_MSG_REFUSED"])
            self.assertIn(words, v.text(answer, "vgpu_msg.refused.reason"))
            self.assertEqual(client.fds, [])
            # Then the mediator closes.
            self.assertEqual(client.receive(), b"")

    def test_attached(self):
        with v.Client(self.m) as client:
            answer = client.attach(vm_id=5, pool="A", priority=2, shm=1 << 21, serial=77)
            self.assertEqual(v.get(answer, "vgpu_msg.serial"), 77)
            self.assertEqual(v.get(answer, "vgpu_msg.attached.vm_id"), 5)
            self.assertEqual(v.get(answer, "vgpu_msg.attached.pool"), ord("A"))
            self.assertEqual(v.get(answer, "vgpu_msg.attached.priority"), 2)
            self.assertEqual(v.get(answer, "vgpu_msg.attached.shm_size"), 1 << 21)
            self.assertEqual(len(client.fds), 3)
            memfd = client.fds[0]
            self.assertEqual(os.fstat(memfd).st_size, (1 << 21) + N["VGPU_REGS_SIZE"])
            self.assertEqual(fcntl.fcntl(memfd, F_GET_SEALS),
                             F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

    def test_message_in_single_bytes(self):
        with v.Client(self.m) as client:
            for byte in v.hello(vm_id=6):
                client.send(bytes([byte]))
            self.assertEqual(v.get(client.receive(), "vgpu_msg.type"), N["VGPU_MSG_ATTACHED"])

    def test_guest_short_hello(self):
        for length in list(range(0, 256, 5)) + [255]:
            with v.Client(self.m) as client:
                client.send(v.hello()[:length])

    def test_guest_short_hello_with_descriptors(self):
        for length in (1, 100, 255):
            fds = [sealed_memfd(4096) for _ in range(3)]
            with v.Client(self.m) as client:
                client.send(v.hello(hello__flags=N["VGPU_HELLO_HANDOVER"])[:length], fds)
            for fd in fds:
                os.close(fd)

    def test_guest_long_hello(self):
        """Bytes behind a message are the next message."""
        with v.Client(self.m) as client:
            client.send(v.hello() + b"x" * 256)
            self.assertEqual(v.get(client.receive(), "vgpu_msg.type"), N["VGPU_MSG_ATTACHED"])
            self.assertEqual(v.get(client.receive(), "vgpu_msg.type"), N["VGPU_MSG_REFUSED"])

    def test_guest_wrong_magic(self):
        self.refused(v.message("HELLO", magic=0x12345678), "no vGPU stub")

    def test_guest_wrong_version(self):
        for major in (0, 1, 0xffff):
            buffer = v.hello()
            v.put(buffer, "vgpu_msg.version", major << 16)
            self.refused(buffer, f"protocol version {major}")

    def test_guest_unknown_type(self):
        for kind in (0, 12, 0xffffffff):
            buffer = v.hello()
            v.put(buffer, "vgpu_msg.type", kind)
            self.refused(buffer, f"unknown message type {kind}")

    def test_guest_message_of_the_mediators(self):
        for kind in ("ATTACHED", "REFUSED", "RESET_DONE", "STOPPED"):
            self.refused(v.message(kind), "unknown message type")

    def test_guest_reset_or_bye_first(self):
        self.refused(v.message("RESET"), "RESET before HELLO")
        self.refused(v.message("BYE"), "BYE before HELLO")

    def test_guest_two_hellos(self):
        with v.Client(self.m) as client:
            client.attach()
            client.send(v.hello(vm_id=2))
            answer = client.receive()
            self.assertIn("second HELLO", v.text(answer, "vgpu_msg.refused.reason"))

    def test_guest_wrong_sizes(self):
        for size in (0, 1, 4096, (1 << 20) - 1, (1 << 20) + 1, 3 << 20, 1 << 37, 1 << 63,
                     (1 << 64) - 1):
            self.refused(v.hello(shm=size), "power of two")
        self.refused(v.hello(shm=1 << 31), "'max-shm'")

    def test_guest_wrong_identity(self):
        self.refused(v.hello(vm_id=0), "VM id 0")
        self.refused(v.hello(pool="a"), "pool 97")
        self.refused(v.hello(pool="B"), "no pool B")
        self.refused(v.hello(priority=3), "priority 3")
        self.refused(v.hello(hello__vectors=0), "0 vectors")
        self.refused(v.hello(hello__queues=64), "64 queues")
        self.refused(v.hello(hello__flags=0x80), "flags 0x80")
        self.refused(v.hello(hello__name=b"x" * 64), "NUL")

    def test_guest_name_with_control_characters(self):
        with v.Client(self.m) as client:
            client.attach(vm_id=8, hello__name=b"evil\n\x1b[31m\xff")
            self.assertEqual(self.m.vm(8)["name"], "evil??[31m?")

    def test_name_beyond_ascii(self):
        """Kept as it is, but for what shows nothing or turns the line's direction."""
        for number, (said, shown) in enumerate((
                ("größe-東京", "größe-東京"), ("a\u202eb\u200bc\ufeff", "a" + 3 * "?" + "b" + 3 * "?" +
                 "c" + 3 * "?"), ("é" * 31, "é" * 31), ("\U0001f427", "\U0001f427")), 1):
            with v.Client(self.m) as client:
                client.attach(vm_id=number, hello__name=said.encode())
                self.assertEqual(self.m.vm(number)["name"], shown)
                table = subprocess.run([v.VGPUCTL, "--socket", self.m.control, "list"], text=True,
                                       check=True, capture_output=True,
                                       env={**os.environ, "LC_ALL": "C.UTF-8"}).stdout
                self.assertIn(f"{number:<10} " + shown[:14], table)
        with v.Client(self.m) as client:
            client.attach(vm_id=9, hello__name="東京".encode())
            table = subprocess.run([v.VGPUCTL, "--socket", self.m.control, "list"], text=True,
                                   check=True, capture_output=True,
                                   env={**os.environ, "LC_ALL": "C.UTF-8"}).stdout
            self.assertIn("\n9          東京" + " " * 12 + " A ", table)

    def test_guest_unasked_descriptors(self):
        event = os.eventfd(0)
        for count in (1, 3, 16):
            self.refused(v.hello(), f"{count} descriptors", [event] * count)
        for count in (17, 200):
            self.refused(v.hello(), "more than 16", [event] * count)
        os.close(event)

    def test_guest_handover_with_wrong_count(self):
        event = os.eventfd(0)
        for count in (0, 1, 2, 4, 16):
            self.refused(v.hello(hello__flags=N["VGPU_HELLO_HANDOVER"]), f"{count} descriptors",
                         [event] * count)
        os.close(event)

    def test_guest_handover_of_wrong_things(self):
        size = (1 << 20) + N["VGPU_REGS_SIZE"]
        good, events = sealed_memfd(size), [os.eventfd(0), os.eventfd(0)]
        null = os.open("/dev/null", os.O_RDWR)
        handover = v.hello(hello__flags=N["VGPU_HELLO_HANDOVER"])
        for seals in (0, F_SEAL_SHRINK, F_SEAL_GROW):
            fd = sealed_memfd(size, seals)
            self.refused(handover, "sealed", [fd, *events])
            os.close(fd)
        for wrong in (size - 1, size + 4096, 0):
            fd = sealed_memfd(wrong)
            self.refused(handover, "another size", [fd, *events])
            os.close(fd)
        self.refused(handover, "sealed", [events[0], *events])
        self.refused(handover, "neither memory nor an eventfd", [good, null, events[0]])
        self.refused(handover, "no eventfd", [good, events[0], good])
        for fd in (good, null, *events):
            os.close(fd)

    def test_guest_same_id_twice(self):
        with v.Device(v.Client(self.m), vm_id=3) as device:
            self.refused(v.hello(vm_id=3), "VM 3 is attached already")
            # The first one has noticed nothing.
            self.assertEqual(device.call(v.add_inline([1], [2]))[0], 0)
        # And gone, it makes room at once.
        with v.Device(v.Client(self.m), vm_id=3):
            pass

    def test_host_process_without_number(self):
        """It gets one: two of the same process number, as in two containers, are not in the way."""
        host = {"vm_id": 0, "hello__flags": N["VGPU_HELLO_HOST"]}
        first = 1000000 + os.getpid()
        with v.Client(self.m) as taken, v.Client(self.m) as one, v.Client(self.m) as other:
            taken.attach(vm_id=first + 1)
            ids = [v.get(client.attach(**host), "vgpu_msg.attached.vm_id")
                   for client in (one, other)]
            self.assertEqual(ids, [first, first + 2])
            self.assertEqual(sorted(self.m.vms()), [first, first + 1, first + 2])
        self.refused(v.hello(vm_id=0), "VM id 0")

    def test_guest_closes_at_every_step(self):
        v.Client(self.m).close()
        client = v.Client(self.m)
        client.send(v.hello())
        client.close()
        client = v.Client(self.m)
        client.attach()
        client.close()
        device = v.Device(v.Client(self.m))
        device.ring(v.add_inline([1], [2]))
        device.close()
        client = v.Client(self.m)
        client.attach()
        client.send(v.message("RESET"))
        client.close()
        client = v.Client(self.m)
        client.attach()
        client.send(v.message("BYE"))
        client.close()

    def test_guest_writes_garbage(self):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}", end=" ", file=sys.stderr)
        dice = random.Random(seed)
        for _ in range(300):
            buffer = v.hello() if dice.random() < 0.7 else bytearray(dice.randbytes(256))
            for _ in range(dice.randrange(4)):
                buffer[dice.randrange(len(buffer))] = dice.randrange(256)
            with v.Client(self.m) as client:
                client.send(buffer)
                kind = v.get(client.receive(), "vgpu_msg.type")
                self.assertIn(kind, (N["VGPU_MSG_ATTACHED"], N["VGPU_MSG_REFUSED"]))

    def test_guest_does_not_read(self):
        """Resets without end whose answers nobody takes: others are served all the same."""
        with v.Client(self.m) as client:
            client.attach(vm_id=4)
            client.socket.settimeout(0.2)
            try:
                for _ in range(5000):
                    client.send(v.message("RESET"))
            except (OSError, TimeoutError):
                pass
            with v.Device(v.Client(self.m), vm_id=5) as device:
                self.assertEqual(device.call(v.add_inline([1], [2]))[0], 0)

    def test_bye_and_back(self):
        with v.Client(self.m) as client:
            client.attach(vm_id=1)
            client.send(v.message("BYE"))
            client.attach(vm_id=2)
            self.assertEqual(list(self.m.vms()), [2])

    def test_bye_and_nothing_more(self):
        """Connections without a device do not keep others out."""
        m = self.mediator(mediator="max-vms = 2")
        clients = []
        for i in range(34):
            client = v.Client(m)
            clients.append(client)
            client.attach(vm_id=i + 1)
            client.send(v.message("BYE"))
            v.wait_until("it is detached", lambda: m.vms() == {})
        with v.Device(v.Client(m), vm_id=100) as device:
            self.assertEqual(device.call(v.add_inline([1], [2]))[0], 0)
            # The oldest had to go.
            self.assertEqual(bytes(clients[0].receive()), b"")
            clients[-1].attach(vm_id=101)
        for client in clients:
            client.close()

    def test_sixteen_at_once(self):
        devices = [v.Device(v.Client(self.m), vm_id=i + 1) for i in range(16)]
        for i, device in enumerate(devices):
            device.ring(v.add_inline([i], [100]))
        for i, device in enumerate(devices):
            self.assertEqual(device.finish(), (0, (i + 100).to_bytes(4, "little")))
            device.close()


class Sockets(v.TestCase):
    def test_abstract_name(self):
        name = f"@vgpu-test-{os.getpid()}"
        m = self.mediator(listen=name)
        m.socket = "\0" + name[1:]
        with v.Device(v.Client(m)) as device:
            self.assertEqual(device.call(v.add_inline([1], [2]))[0], 0)

    def listener(self, directory):
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(os.path.join(directory, "other"))
        listener.listen()
        return listener

    def test_inherited_descriptor(self):
        m = self.mediator()
        m.stop()
        listener = self.listener(m.dir.name)
        self.serve(m, ["--listen-fd", str(listener.fileno())], pass_fds=[listener.fileno()])

    def test_socket_activation(self):
        """As systemd does it: descriptor 3, LISTEN_FDS and LISTEN_PID."""
        m = self.mediator()
        m.stop()
        listener = self.listener(m.dir.name)
        shell = f"exec 3<&{listener.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\""
        self.serve(m, [], ["sh", "-c", shell], pass_fds=[listener.fileno()])

    def serve(self, m, arguments, before=(), **keywords):
        process = subprocess.Popen([*before, v.MEDIATOR, "--config", m.config, *arguments],
                                   stderr=subprocess.DEVNULL, **keywords)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        m.socket = os.path.join(m.dir.name, "other")
        v.wait_until("it serves", lambda: v.listens(m.control))
        with v.Device(v.Client(m)) as device:
            self.assertEqual(device.call(v.add_inline([1], [2]))[0], 0)

    def test_readiness_is_notified(self):
        """And all else that systemd is told, while the system call filter is there."""
        m = self.mediator()
        m.stop()
        with open(m.config, "a", encoding="ascii") as file:
            file.write("[vm 3]\nuser = root\n")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            path = os.path.join(m.dir.name, "notify")
            notify.bind(path)
            notify.settimeout(v.PATIENCE)
            process = subprocess.Popen([v.MEDIATOR, "--config", m.config],
                                       env={**os.environ, "NOTIFY_SOCKET": path,
                                            "WATCHDOG_USEC": "400000"},
                                       stderr=subprocess.DEVNULL)
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            def expect(words):
                told = b""
                while words not in told:
                    told = notify.recv(4096)
            expect(b"READY=1")
            expect(b"WATCHDOG=1")
            process.send_signal(signal.SIGHUP)
            expect(b"RELOADING=1")
            expect(b"READY=1")
            process.send_signal(signal.SIGTERM)
            expect(b"STOPPING=1")
            self.assertEqual(process.wait(v.PATIENCE), 0)

    def status(self, pid):
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)

    def test_mediator_is_confined(self):
        """No rights, no new ones, a filter, of each of its threads; the launcher has them."""
        m = self.mediator()
        v.wait_until("it is ready", lambda: "ready at" in m.read_log())
        for thread in os.listdir(f"/proc/{m.pid}/task"):
            status = self.status(thread)
            # None but CAP_SYS_RESOURCE.
            self.assertEqual((int(status["CapEff"], 16) | int(status["CapPrm"], 16)) & ~(1 << 24), 0)
            self.assertEqual(status["NoNewPrivs"], "1")
            if not v.sanitizer(v.MEDIATOR):
                self.assertEqual(status["Seccomp"], "2")
        launcher, = v.children(m.pid)
        self.assertEqual(self.status(launcher)["CapEff"], self.status(os.getpid())["CapEff"])
        self.assertEqual(sorted(map(int, os.listdir(f"/proc/{launcher}/fd"))),
                         [0, 1, 2, 3, 4])  # the socket, and what it waits by

    def test_who_reaches_the_socket(self):
        """Those whom the configuration names, as it is now; not everybody for the sake of one."""
        m = self.mediator("users = 4321\n[vm 5]\nuser = 5432\n")
        os.chmod(m.dir.name, 0o711)

        def reaches(user):
            code = ("import os, socket, sys\n"
                    f"os.setgroups([]); os.setgid({user}); os.setuid({user})\n"
                    "try:\n"
                    f"    socket.socket(socket.AF_UNIX).connect({m.socket!r})\n"
                    "except PermissionError:\n"
                    "    sys.exit(9)\n")
            return subprocess.run([sys.executable, "-c", code], check=False).returncode

        if os.getuid() != 0:
            self.skipTest("needs root to be somebody else")
        v.wait_until("it is ready", lambda: "ready at" in m.read_log())
        if "has no access lists" in m.read_log():
            self.skipTest("no access lists in this file system")
        self.assertEqual([reaches(user) for user in (0, 4321, 5432, 6543)], [0, 0, 0, 9])
        with open(m.config, encoding="ascii") as file:
            text = file.read().replace("users = 4321", "users = 6543, 6543, root")
        with open(m.config, "w", encoding="ascii") as file:
            file.write(text)
        m.process.send_signal(signal.SIGHUP)
        v.wait_until("it was taken over", lambda: "was read again" in m.read_log())
        self.assertEqual([reaches(user) for user in (0, 4321, 5432, 6543)], [0, 9, 0, 0])
        with open(m.config, "w", encoding="ascii") as file:
            file.write(text.replace("users = 6543, 6543, root", "").replace("user = 5432", ""))
        m.process.send_signal(signal.SIGHUP)
        v.wait_until("it was taken over", lambda: m.read_log().count("was read again") == 2)
        self.assertEqual([reaches(user) for user in (0, 4321, 5432, 6543)], [0, 9, 9, 9])

    def reload(self, m, times=1):
        m.process.send_signal(signal.SIGHUP)
        v.wait_until("it was taken over", lambda: m.process.poll() is not None or
                     m.read_log().count("was read again") == times)
        self.assertIsNone(m.process.poll())

    def test_large_configurations(self):
        """What libraries do for the sake of many has to be allowed."""
        m = self.mediator()
        with open(m.config, "a", encoding="ascii") as file:
            file.write("".join(f"[vm {i}]\nuser = {1000 + i}\n" for i in range(1, 400)))
        self.reload(m)
        parts = os.path.join(m.dir.name, "conf.d")
        os.mkdir(parts)
        for i in range(200):
            with open(os.path.join(parts, f"{i}.conf"), "w", encoding="ascii") as file:
                file.write(f"[vm {1000 + i}]\nshare = 200\n")
        self.reload(m, 2)
        with v.Device(v.Client(m), vm_id=1100) as device:
            self.assertEqual(device.call(v.add_inline([1], [2]))[0], 0)

    def test_standard_descriptors_closed(self):
        for closed in ("2>&-", "0<&-", "<&- >&- 2>&-"):
            m = self.mediator()
            m.stop()
            process = subprocess.Popen(["sh", "-c", f'exec "$@" {closed}', "sh", v.MEDIATOR,
                                        "--config", m.config], stderr=subprocess.DEVNULL)
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            v.wait_until("it serves", lambda: v.listens(m.control) or process.poll() is not None)
            with v.Device(v.Client(m)) as device:
                self.assertEqual(device.call(v.add_inline([1], [2]))[0], 0)
            self.assertIsNone(process.poll())

    def test_files_out_of_sight(self):
        """What a reload reads lies beside the configuration, where the kernel has Landlock."""
        landlock = ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)
        if landlock < 1:
            self.skipTest("no Landlock in this kernel")
        m = self.mediator()
        parts = os.path.join(m.dir.name, "conf.d")
        os.mkdir(parts)
        with tempfile.TemporaryDirectory() as other:
            with open(os.path.join(other, "part"), "w", encoding="ascii") as file:
                file.write("[vm 9]\nshare = 300\n")
            os.symlink(os.path.join(other, "part"), os.path.join(parts, "a.conf"))
            m.process.send_signal(signal.SIGHUP)
            v.wait_until("it was read", lambda: "is not taken over" in m.read_log())
        self.assertIn("Permission denied", m.read_log())
        os.unlink(os.path.join(parts, "a.conf"))
        with open(os.path.join(parts, "b.conf"), "w", encoding="ascii") as file:
            file.write("[vm 9]\nshare = 300\n")
        m.process.send_signal(signal.SIGHUP)
        v.wait_until("it was taken over", lambda: "was read again" in m.read_log())

    def test_second_mediator_is_refused(self):
        m = self.mediator()
        second = subprocess.run([v.MEDIATOR, "--config", m.config], capture_output=True,
                                timeout=v.PATIENCE, check=False)
        self.assertEqual(second.returncode, 1)
        self.assertIn(b"another mediator is serving it", second.stderr)
        with v.Device(v.Client(m)):
            pass

    def test_end_leaves_what_others_serve(self):
        """A path that was removed and is another process's by now is not removed at the end."""
        m = self.mediator()
        os.unlink(m.socket)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(m.socket)
            other.listen(1)
            m.stop()
            self.assertTrue(os.path.exists(m.socket))
            self.assertFalse(os.path.exists(m.control))

    def test_stranger_connects_and_says_nothing(self):
        m = self.mediator()
        with v.Client(m):
            time.sleep(0.1)
            with v.Device(v.Client(m)):
                pass


class Configuration(v.TestCase):
    def test_peer_credentials(self):
        """Another user's process is refused, by the user that the kernel names."""
        if os.geteuid() != 0:
            self.skipTest("needs root to become another user")
        m = self.mediator("[vm 2]\nuser = nobody\n", "users = root")
        os.chmod(m.dir.name, 0o755)
        code = ("import sys; sys.path.insert(0, sys.argv[1]); import vgputest as v\n"
                "class M: socket = sys.argv[2]\n"
                "for vm in 1, 2:\n"
                "    c = v.Client(M); c.send(v.hello(vm_id=vm)); a = c.receive()\n"
                "    print(v.get(a, 'vgpu_msg.type'), v.text(a, 'vgpu_msg.refused.reason'))\n")
        output = subprocess.run(["/usr/bin/python3", "-B", "-c", code,
                                 os.path.join(v.TOP, "tests/lib"), m.socket],
                                user=65534, capture_output=True, timeout=v.PATIENCE, check=False)
        lines = output.stdout.decode().splitlines()
        self.assertEqual(len(lines), 2, output.stderr.decode())
        self.assertTrue(lines[0].startswith(f"{N['VGPU_MSG_REFUSED']} user 65534 may not"))
        self.assertTrue(lines[1].startswith(str(N["VGPU_MSG_ATTACHED"])))

    def test_limits(self):
        m = self.mediator("[pool A]\ndevices = 0\n[pool B]\ndevices = 1\n"
                          "[vm 1]\npool = B\nmax-priority = low\nmax-shm = 1M\n")
        with v.Client(m) as client:
            answer = client.attach(vm_id=1, pool="A", priority=2)
            self.assertEqual(v.get(answer, "vgpu_msg.attached.pool"), ord("B"))
            self.assertEqual(v.get(answer, "vgpu_msg.attached.priority"), 0)
        with v.Client(m) as client:
            client.send(v.hello(vm_id=1, shm=1 << 21))
            self.assertIn("'max-shm' is 1 MiB",
                          v.text(client.receive(), "vgpu_msg.refused.reason"))

    def test_mistakes_are_named(self):
        m = self.mediator()
        m.stop()
        with open(m.config, "a", encoding="ascii") as file:
            file.write("[vm 1]\ncolour = red\n")
        for arguments in ([], ["--check-config"]):
            result = subprocess.run([v.MEDIATOR, "--config", m.config, *arguments],
                                    capture_output=True, timeout=v.PATIENCE, check=False)
            self.assertEqual(result.returncode, 2)
            # On a terminal nobody wants to know when; in a log everybody.
            self.assertRegex(result.stderr.decode(),
                             rf"^{'' if arguments else v.LOG_TIME}vgpu-mediator: error: "
                             rf"{re.escape(m.config)}:\d+: ")
            self.assertIn(b"unknown key 'colour'", result.stderr)

    def test_wrong_paths(self):
        result = subprocess.run([v.MEDIATOR, "--config", "/nonexistent"], capture_output=True,
                                timeout=v.PATIENCE, check=False)
        self.assertEqual(result.returncode, 2)
        self.assertIn(b"/nonexistent", result.stderr)
        m = self.mediator()
        m.stop()
        with open(m.config, "a", encoding="ascii") as file:
            file.write("[mediator]\nworker = /nonexistent\nbackend = auto\n")
        result = subprocess.run([v.MEDIATOR, "--config", m.config], capture_output=True,
                                timeout=v.PATIENCE, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"cannot run the worker '/nonexistent'", result.stderr)
        result = subprocess.run([v.MEDIATOR, "--config", m.config, "--check-config"],
                                capture_output=True, timeout=v.PATIENCE, check=False)
        self.assertEqual(result.returncode, 2)
        self.assertEqual(result.stderr.decode(), "vgpu-mediator: error: section [mediator]: key 'worker' "
                         "is '/nonexistent', must be the path of the program vgpu-worker\n")


if __name__ == "__main__":
    v.main()
