#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Register mode, while workers and mediators are killed at random: each request is answered, once
and rightly. VGPU_KILLS is how often (default 100; a thousand take a minute).

Tests: worker/registers.c, mediator/vm.c, mediator/process.c, mediator/client.c"""
import os
import random
import select
import signal
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402
from vgputest import N  # noqa: E402

KILLS = int(os.environ.get("VGPU_KILLS", "100"))
ANSWERED = (N["VGPU_STATUS_COMPLETE"], N["VGPU_STATUS_ERROR"])


class Asker(v.Aside):
    """A VM that asks for one sum after the other, in a process of its own."""

    def __init__(self, mediator, vm):
        self.mediator, self.vm = mediator, vm
        super().__init__()

    def run(self):
        self.device = v.Device(v.Client(self.mediator), vm_id=self.vm)
        requests = errors = wrong = unanswered = 0
        longest = 0.0
        while not self.stop.is_set() and not unanswered:
            requests += 1
            number = requests & 0xFFFFFF
            start = time.monotonic()
            self.device.ring(v.add_inline([number], [number + 1]))
            unanswered = not self.answered(start + v.PATIENCE)
            longest = max(longest, time.monotonic() - start)
            if self.device.status() == N["VGPU_STATUS_ERROR"]:
                # Two workers have ended on it.
                errors += self.device.word("error") == N["VGPU_ERROR_WORKER_LOST"]
                wrong += self.device.word("error") != N["VGPU_ERROR_WORKER_LOST"]
            elif not unanswered:
                _, response = self.device.finish()
                wrong += struct.unpack("<i", response[-4:])[0] != 2 * number + 1
            self.begun.set()
        return requests, errors, wrong, unanswered, longest

    def answered(self, end):
        looks = 0
        while self.device.status() not in ANSWERED:
            looks += 1
            if looks % 100 == 0 and self.mediator_gone():
                self.hand_over()
            if time.monotonic() > end:
                return False
        return True

    def mediator_gone(self):
        """It says nothing to a VM that asks for nothing: what can be read is the end."""
        return bool(select.select([self.device.client.socket], [], [], 0)[0])

    def hand_over(self):
        """As the stub does, until there is one again."""
        self.device.client.close()
        while True:
            try:
                client = v.Client(self.mediator)
                client.send(v.hello(vm_id=self.vm, shm=self.device.shm_size,
                                    hello__flags=N["VGPU_HELLO_HANDOVER"]), self.device.fds)
                if v.get(client.receive(), "vgpu_msg.type") == N["VGPU_MSG_ATTACHED"]:
                    self.device.client = client
                    return
                client.close()
            except (OSError, IndexError, struct.error):
                pass
            time.sleep(0.002)


class Kills(v.TestCase):
    def setUp(self):
        self.m = self.mediator()
        self.dice = random.Random(1)

    def kill_all_the_time(self, askers, kill):
        askers = [Asker(self.m, vm) for vm in range(1, askers + 1)]
        self.addCleanup(lambda: [asker.process.kill() for asker in askers])
        for asker in askers:
            self.assertTrue(asker.begun.wait(v.PATIENCE))
        kills = 0
        while kills < KILLS:
            time.sleep(self.dice.uniform(0.0005, 0.06))
            kills += kill()
        requests, errors, wrong, unanswered, longest = zip(*[asker.end() for asker in askers])
        print(f"{sum(requests)} requests, {kills} kills, {sum(errors)} ended on two workers, "
              f"longest {1000 * max(longest):.0f} ms", file=sys.stderr)
        self.assertEqual((sum(wrong), sum(unanswered)), (0, 0))
        self.assertGreater(min(requests), 1)

    def test_workers(self):
        def kill():
            pid = self.m.vm(self.dice.randint(1, 5))["worker_pid"]
            try:
                if pid:
                    os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return False
            return pid != 0
        self.kill_all_the_time(5, kill)

    def test_mediator(self):
        def kill():
            self.m.stop(signal.SIGKILL)
            self.m.start()
            return True
        self.kill_all_the_time(3, kill)


if __name__ == "__main__":
    v.main()
