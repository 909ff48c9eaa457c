# SPDX-License-Identifier: MIT
"""Runs commands side by side and shows how far they are.

Each is given a weight, the seconds that it takes of one idle processor. What is done of it is read
from its log, where ninja counts there, and guessed from the time otherwise. On a terminal one line
is kept up to date; elsewhere a line comes now and then.
"""
import os
import re
import signal
import subprocess
import sys
import time

LINE_SECONDS = 30  # between lines, where they are not written over each other


class Failed(Exception):
    """A step has; the text is for people."""


class Step:
    def __init__(self, name, command, log, weight, after=(), ninja=None):
        self.name, self.command, self.log, self.weight = name, command, log, weight
        self.after = after  # names of steps that it needs
        self.ninja = ninja or log  # the log in which ninja counts, if it does
        self.process = None
        self.began = 0.0
        self.done = False

    def start(self, folder):
        os.makedirs(os.path.dirname(self.log), exist_ok=True)
        self.began = time.monotonic()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.command, cwd=folder, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=subprocess.STDOUT,
                                            start_new_session=True)

    def tail(self, size):
        """The end of the log that ninja counts in; only what this run has written."""
        try:
            if os.stat(self.ninja).st_mtime < time.time() - (time.monotonic() - self.began) - 1:
                return ""
            with open(self.ninja, "rb") as log:
                log.seek(max(os.fstat(log.fileno()).st_size - size, 0))
                return log.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def part(self):
        """How much of it is done, 0 to 1."""
        if self.done or not self.process:
            return float(self.done)
        counts = re.findall(r"(?m)^\[(\d+)/(\d+)\]", self.tail(4096))
        if counts:
            return int(counts[-1][0]) / max(int(counts[-1][1]), 1)
        # As if it had a processor to itself; it never gets to its end.
        spent = (time.monotonic() - self.began) / self.weight
        return spent / (1 + spent)

    def kill(self):
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def duration(seconds):
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _end_of(path, lines=15):
    with open(path, encoding="utf-8", errors="replace") as log:
        return "".join("  " + line for line in log.readlines()[-lines:])


def _show(steps, began, last, terminal):
    """Writes how far all is; when, where that was not now."""
    whole = sum(step.weight for step in steps)
    part = sum(step.weight * step.part() for step in steps) / whole
    spent = time.monotonic() - began
    # At the beginning nothing is known of how fast this machine is.
    left = f", about {duration(spent * (1 - part) / part)} left" if spent > 5 and part > 0.03 else ""
    running = ", ".join(step.name for step in steps if step.process and not step.done)
    if terminal:
        print(f"\r\033[K{100 * part:3.0f} %{left}: {running}", end="", file=sys.stderr, flush=True)
    elif time.monotonic() - last >= LINE_SECONDS:
        print(f"{100 * part:3.0f} %{left}: {running}", file=sys.stderr, flush=True)
    else:
        return last
    return time.monotonic()


def run(steps, folder):
    """All of them; raises Failed with the first that fails, and ends the others."""
    terminal = sys.stderr.isatty()
    began = last = time.monotonic()
    try:
        while not all(step.done for step in steps):
            done = {step.name for step in steps if step.done}
            for step in steps:
                if not step.process and done.issuperset(step.after):
                    step.start(folder)
                elif step.process and not step.done and step.process.poll() is not None:
                    if step.process.returncode != 0:
                        raise Failed(f"{step.name} has failed; the log is {step.log} and ends so:\n"
                                     f"{_end_of(step.log)}What was done before it is kept: when "
                                     "that is mended, run the same command again.")
                    step.done = True
            last = _show(steps, began, last, terminal)
            time.sleep(0.2)
    finally:
        for step in steps:
            step.kill()
        if terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
    print(f"built in {duration(time.monotonic() - began)}", file=sys.stderr, flush=True)
