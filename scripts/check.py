# SPDX-License-Identifier: MIT
"""Runs the test layers, one after another, and adds up what passed and failed.

A layer is a command whose output ends with "N passed, N failed" (", N skipped"), Meson's
summary, or nothing: then its exit code counts as one test. Output is shown when a layer
fails; all of it is in build/check-LAYER.log.
"""
import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(TOP, "build")
# Debian's own python3 and meson, whatever else is installed.
ENV = {**os.environ, "PATH": "/usr/bin:/bin:/usr/sbin:/sbin:" + os.environ.get("PATH", "")}
PY = "/usr/bin/python3 -B"
FUZZ_SECONDS = 20
# What hangs has failed. The longest takes 10 minutes of two idle cores.
LAYER_SECONDS = 2400


# What compares times: it has the processors to itself.
TIMED = ("scheduler", "attacks", "neighbours")


def names_of(layer):
    """The test files that a layer's folder has."""
    return sorted(name[len("test_"):-len(".py")]
                  for name in os.listdir(os.path.join(TOP, "tests", layer))
                  if name.startswith("test_") and name.endswith(".py"))


def files(layer, *names, side_by_side=False):
    """
    The command that runs a layer's test files: those named, or all that its folder has. All of
    them run, also after one that failed; side by side, those of TIMED come first and alone.
    """
    names = names or names_of(layer)
    alone = [name for name in names if name in TIMED or not side_by_side]
    commands = {name: f"{PY} tests/{layer}/test_{name}.py" for name in names}
    parts = [commands[name] for name in alone]
    if side_by_side:
        others = "' '".join(commands[name] for name in names if name not in alone)
        parts.append(f"printf '%s\\n' '{others}' | tests/lib/side-by-side")
    return "{ failed=0; " + " ".join(part + " || failed=1;" for part in parts) + " test $failed = 0; }"


# What a sanitizer is to see: the others kill, crash and measure processes that it watches. The
# longest first.
SANITIZED = files("wire", "scheduler", "sessions", "sharing", "cuda", "stop", "graphs", "requests",
                  "attach", "control", side_by_side=True)
# Two files are for the layer "poison"; the others:
PLAIN_GUESTS = [name for name in names_of("vm") if name not in ("guests", "sessions")]

# name, what it does, command. Later layers use what earlier ones built. Warnings of instrumented
# builds are not errors: gcc gives false ones there.
LAYERS = (
    ("format", "clang-format leaves the sources as they are",
     "git ls-files '*.c' '*.h' | grep -v -e ^qemu/ -e ^guest/driver/ -e vgpu-former.c | "
     "xargs clang-format --dry-run --Werror"),
    # Without ccache: it keeps no call graphs, which the house layer reads.
    ("build", "our programs, gcc, warnings are errors", "CCACHE_DISABLE=1 scripts/build"),
    ("house", "names, imports, circles, line lengths, stack, which test is about which file",
     "tests/house/check-house && tests/house/check-stack && tests/house/test-table --check"),
    ("unit", "modules by themselves", "meson test -C build/out --no-rebuild"),
    ("wire", "raw bytes at the mediator and worker", files("wire", side_by_side=True)),
    ("api", "the generator, and the specification against an installed cuda.h",
     f"{PY} tests/api/test_api.py"),
    ("install", "programs outside the tree against what is installed", "tests/install/check-install"),
    ("clang", "our programs and the fuzz targets, clang",
     "CC=clang scripts/build build/fuzz -Dfuzz=true -Db_sanitize=address,undefined "
     "-Db_lundef=false"),
    ("tidy", "clang-tidy finds nothing",
     "git ls-files 'common/*.c' 'worker/*.c' 'mediator/*.c' 'guest/*.c' | grep -v ^guest/driver/ | "
     "xargs -P 2 -n 8 clang-tidy -p build/fuzz --quiet"),
    ("fuzz", f"hostile bytes, {FUZZ_SECONDS} s a target",
     f"tests/fuzz/run build/fuzz {FUZZ_SECONDS}"),
    # Poisoned: bytes that are shared are overwritten once they are copied.
    ("asan", "unit and wire tests under ASan and UBSan, poisoned",
     "scripts/build build/asan -Dwerror=false -Dpoison=true -Db_sanitize=address,undefined && "
     "meson test -C build/asan --no-rebuild && export VGPU_OUT=$PWD/build/asan && " + SANITIZED),
    ("tsan", "unit tests under TSan, but for those of one thread that take long",
     "scripts/build build/tsan -Dwerror=false -Db_sanitize=thread && "
     "meson test -C build/tsan --no-rebuild --no-suite simulation"),
    ("qemu", "the minimal QEMU 7.2 with the device", "qemu/build-minimal"),
    ("guest", "what test guests boot from", "scripts/guest-image"),
    ("qtest", "the device without a guest", files("qtest")),
    ("vm", "real guests", files("vm", *PLAIN_GUESTS)),
    ("demo", "what the README shows first", "./demo"),
    ("poison", "more real guests, whose shared bytes are overwritten once they are copied",
     "scripts/build build/poison -Dpoison=true && "
     f'export VGPU_OUT=$PWD/build/poison && {files("vm", "guests", "sessions")}'),
    ("driver", "the guest driver for Debian's kernel and the newest", "tests/driver/check-driver"),
    ("gpu", "a real GPU, where there is one", files("gpu")),
    ("preload", "the device for the distribution's own QEMU", "tests/qemu/check-preload"),
    ("qemu10", "the device against QEMU 10", "tests/qemu/check-qemu10"),
    ("packaging", "the distribution's package and the RPM fragment", "tests/qemu/check-packaging"),
)


def count(output, code):
    """(passed, failed, skipped) as the output tells it."""
    passed = failed = skipped = found = 0
    for match in re.finditer(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", output, re.M):
        passed, failed = passed + int(match[1]), failed + int(match[2])
        skipped += int(match[3] or 0)
        found += 1
    for match in re.finditer(r"^(Ok|Fail|Timeout|Skipped): +(\d+)", output, re.M):
        number = int(match[2])
        passed += number if match[1] == "Ok" else 0
        failed += number if match[1] in ("Fail", "Timeout") else 0
        skipped += number if match[1] == "Skipped" else 0
        found += 1
    if not found:
        passed = 1 if code == 0 else 0
    if code != 0 and failed == 0:
        failed = 1
    return passed, failed, skipped


def run_layer(name, what, command):
    start = time.monotonic()
    print(f"{name:<10} {what} ...", flush=True)
    path = os.path.join(BUILD, f"check-{name}.log")
    # A file and no pipe: its end would be awaited for ever where a process was left behind.
    with open(path, "wb") as log, \
            subprocess.Popen(["bash", "-c", "set -e -o pipefail; " + command], cwd=TOP, env=ENV,
                             stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                             start_new_session=True) as process:
        try:
            code = process.wait(LAYER_SECONDS)
        except subprocess.TimeoutExpired:
            code = 1
            log.write(f"\nnot done after {LAYER_SECONDS} s, and ended: the line above tells what "
                      "hangs, or run its command alone\n".encode())
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    with open(path, encoding="utf-8", errors="replace") as log:
        output = log.read()
    result = count(output, code)
    if result[1]:
        # unittest tells of failures between a rule and its count; others at their end.
        print("".join(re.findall(r"^={70}\n.*?^Ran \d+ test.*?\n", output, re.M | re.S))[-12000:]
              or output[-12000:])
    print(f"{name:<10} {result[0]} passed, {result[1]} failed" +
          (f", {result[2]} skipped" if result[2] else "") +
          f" in {time.monotonic() - start:.0f} s", flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="layers: " + " ".join(layer[0] for layer in LAYERS))
    parser.add_argument("layers", nargs="*", help="only these")
    arguments = parser.parse_args()
    unknown = set(arguments.layers) - {layer[0] for layer in LAYERS}
    if unknown:
        parser.error(f"unknown layer: {' '.join(sorted(unknown))}")
    os.makedirs(BUILD, exist_ok=True)
    total, failed = [0, 0, 0], []
    for layer in LAYERS:
        if not arguments.layers or layer[0] in arguments.layers:
            result = run_layer(*layer)
            total = [sum(pair) for pair in zip(total, result)]
            if result[1]:
                failed.append(layer[0])
    if failed:
        print("failed: " + " ".join(failed))
    print(f"{total[0]} passed, {total[1]} failed, {total[2]} skipped")
    return 1 if total[1] else 0


if __name__ == "__main__":
    sys.exit(main())
