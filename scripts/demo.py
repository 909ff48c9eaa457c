# SPDX-License-Identifier: MIT
"""The demonstration behind ./demo: builds what it needs, and then three guests, high, medium and
low, each add vectors from files. The pool is paused until all have asked, low first, so that the
order in which they are served is the mediator's choice and not chance."""
import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
import steps as todo  # noqa: E402
import vgputest as v  # noqa: E402

GUESTS = ((1, "high"), (2, "medium"), (3, "low"))
LENGTH = 500
OBJECT = os.path.join(v.BUILD, "qemu/vgpu-stub.so")


class Trouble(Exception):
    """What went wrong, and what to do; for people."""


def say(line):
    print(line, flush=True)


def build(quick):
    """What is not there yet. The weights are seconds of one idle processor."""
    log = os.path.join(v.BUILD, "demo-{}.log").format
    steps = [todo.Step("vgpu", ["scripts/build", "--demo"], log("vgpu"), 40,
                       ninja=os.path.join(v.BUILD, "out.log")),
             todo.Step("the guests' image", ["scripts/guest-image", "--demo"], log("guest"), 15,
                       after=["vgpu"])]
    if quick:
        steps.append(todo.Step("the device for the installed QEMU", ["qemu/build-preload"],
                               log("preload"), 60))
    else:
        steps.append(todo.Step("QEMU", ["qemu/build-minimal"], log("qemu"), 460,
                               ninja=os.path.join(v.BUILD, "qemu/minimal.log")))
    say("building vgpu, " + ("the device for the installed QEMU" if quick else "QEMU with the device") +
        " and an image for the guests ...")
    todo.run(steps, TOP)


def check_backend(backend):
    """Before guests are booted: what was asked for may not be there."""
    if backend != "cuda":
        return
    probe = subprocess.run([v.WORKER, "--probe"], capture_output=True, text=True, check=False,
                           timeout=v.PATIENCE)
    if not probe.stdout.startswith("cuda"):
        why = (probe.stdout.splitlines() or probe.stderr.splitlines() or ["it cannot be found out"])[0]
        raise Trouble(f"this host has no GPU to compute on: {why.removeprefix('cpu ')}\n"
                      "Without 'cuda' the same is shown with the CPU.")


def qemu_of(quick):
    """The program, its environment, and where its firmware is."""
    if not quick:
        return {}
    return {"qemu": shutil.which("qemu-system-x86_64"),
            "environment": {**os.environ, "LD_PRELOAD": OBJECT}}

def write_vectors(guest, vm):
    """Two files of numbers in the guest; the sums that should come out."""
    guest.run(f"seq {vm} {vm} {vm * LENGTH} | tr '\\n' , >/tmp/a.csv; "
              f"seq 1000 {vm + 1} {1000 + (vm + 1) * (LENGTH - 1)} | tr '\\n' , >/tmp/b.csv")
    return [vm * (i + 1) + 1000 + (vm + 1) * i for i in range(LENGTH)]


def show_table(turns, asked, results):
    say("")
    say("served   VM   priority   asked as   waited      ran         result")
    for served, turn in enumerate(turns, 1):
        vm = turn["vm"]
        say(f"{served:>6}   {vm:>2}   {turn['priority']:<8}   "
            f"{asked.index(vm) + 1:>8}   {turn['waited_seconds'] * 1e3:7.1f} ms   "
            f"{turn['ran_seconds'] * 1e3:6.3f} ms   {results[vm]}")
    say("")


def computing(mediator):
    """The last three turns on what computes, not those on what copies; None before."""
    turns = [turn for turn in mediator.ask("history", pool="A")["turns"]
             if turn["engine"] == "compute"]
    return turns[-3:] if len(turns) >= 3 else None


def run(mediator, guests):
    computes = mediator.ask("list")
    say("A GPU is used: " + computes["computes_on"] if computes["gpu"] else
        "No GPU is used: requests are computed on " + computes["computes_on"])
    start = time.monotonic()
    for vm, guest in guests.items():
        guest.wait_boot()
        say(f"guest {vm} has booted after {time.monotonic() - start:.1f} s")
    expected = {vm: write_vectors(guest, vm) for vm, guest in guests.items()}
    say(f"each guest adds two files of {LENGTH} numbers; low asks first, then medium, then high")
    mediator.ask("pause", pool="A")
    asked = sorted(guests, reverse=True)
    for vm in asked:
        guests[vm].send("vgpu add --file /tmp/a.csv /tmp/b.csv")
        mediator.vm(vm, state="waiting")
    mediator.ask("resume", pool="A")
    results = {}
    for vm, guest in guests.items():
        code, output = guest.finish()
        sums = [int(word) for word in output.replace(",", " ").split()] if code == 0 else output
        results[vm] = f"{LENGTH} sums, all right" if sums == expected[vm] else f"WRONG: {output}"
    turns = v.wait_until("all turns are over", lambda: computing(mediator))
    show_table(turns, asked, results)
    code, output = guests[1].run("vgpu add --n 10000000 --check")
    say("guest 1, vgpu add --n 10000000 --check: " + output.strip())
    if computes["gpu"] and guests[1].run("test -x /bin/vadd-nvcc")[0] == 0:
        code, output = guests[1].run("LD_LIBRARY_PATH=/lib vadd-nvcc", 10 * v.PATIENCE)
        say("guest 1, a program built by nvcc: " + ("right" if code == 0 else output.strip()))
    good = (code == 0 and [turn["vm"] for turn in turns] == [1, 2, 3] and
            all(result.endswith("right") for result in results.values()))
    say("Order and sums are right." if good else "Something is WRONG, see above.")
    return 0 if good else 1


def demonstrate(arguments):
    mediator = v.Mediator(mediator=f"backend = {arguments.backend}")
    guests = {}
    try:
        say("booting three guests from Debian's kernel ...")
        for vm, priority in GUESTS:
            guests[vm] = v.Guest(mediator, vm, priority, image="initramfs-demo.cpio",
                                 accel=("kvm", "tcg") if os.access("/dev/kvm", os.W_OK) else ("tcg",),
                                 **qemu_of(arguments.quick))
        return run(mediator, guests)
    except AssertionError as error:
        # What a test would show. The mediator's log goes with its folder.
        path = os.path.join(v.BUILD, "demo-mediator.log")
        shutil.copy(mediator.log, path)
        raise Trouble(f"{error}\nThe mediator's log is {path}.") from error
    finally:
        for guest in guests.values():
            with contextlib.suppress(OSError):
                guest.kill()
        mediator.close()


def main():
    parser = argparse.ArgumentParser(prog="demo")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("backend", choices=("auto", "cpu", "cuda"), nargs="?", default="auto")
    arguments = parser.parse_args()
    # What builds is to end with this: a closed terminal says so by the one, a service by the other.
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        build(arguments.quick)
        check_backend(arguments.backend)
        return demonstrate(arguments)
    except (Trouble, todo.Failed, AssertionError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; what was built is kept", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
