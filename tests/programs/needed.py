# SPDX-License-Identifier: MIT
"""What `run` and `samples` need of the machine: said in a sentence where it is not there."""
import os
import sys

import vgputest as v


def asks_for_help():
    """Whether the head of the file is wanted, which says more than a list of options."""
    return any(argument in ("-h", "--help") for argument in sys.argv[1:])


def native_driver():
    """Where NVIDIA's library is."""
    folder = v.native_directory()
    if not folder:
        sys.exit("ldconfig knows no libcuda.so.1: this needs a GPU and NVIDIA's driver")
    return folder


def mediator():
    """A mediator with the GPU, for programs with large shared memory."""
    if not os.path.exists(os.path.join(v.OUT, "mediator/vgpu-mediator")):
        sys.exit(f"{v.OUT} has no mediator: build with scripts/build, or set VGPU_OUT")
    try:
        return v.Mediator("[defaults]\nmax-shm = 8G\n", "backend = cuda")
    except AssertionError as error:
        sys.exit(str(error))
