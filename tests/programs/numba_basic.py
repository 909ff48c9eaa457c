# SPDX-License-Identifier: MIT
"""A kernel in Python."""
import numpy

from common import load

if not hasattr(numpy, "row_stack"):
    numpy.row_stack = numpy.vstack  # removed by NumPy 2.0, and wanted by some releases of Numba
numba = load("numba")
from numba import cuda  # noqa: E402


@cuda.jit
def add_one(values):
    values[cuda.grid(1)] += 1


values = cuda.to_device(numpy.zeros(64, numpy.float32))
add_one[2, 32](values)
assert values.copy_to_host().sum() == 64
