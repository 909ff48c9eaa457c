# SPDX-License-Identifier: MIT
"""attach_preloaded.py QEMU OBJECT: the distribution's QEMU with the preloaded device attaches."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import vgputest as v  # noqa: E402


def main():
    mediator = v.Mediator()
    qemu = subprocess.Popen(
        [sys.argv[1], "-M", "q35", "-accel", "tcg", "-S", "-nodefaults", "-display", "none",
         "-chardev", f"socket,id=m,path={mediator.socket}",
         "-device", "vgpu-stub,chardev=m,vm-id=7,pool=A,priority=high,shm=16M"],
        env={**os.environ, "LD_PRELOAD": sys.argv[2]}, stdin=subprocess.DEVNULL)
    try:
        vm = mediator.vm(7, state="idle")
        assert vm["priority"] == "high", vm
    finally:
        qemu.kill()
        qemu.wait()
        mediator.close()


if __name__ == "__main__":
    main()
