# SPDX-License-Identifier: MIT
"""CuPy's own kernels, a product, and a kernel in C++."""
from common import load

cupy = load("cupy")
a = cupy.arange(1000, dtype=cupy.float32)
assert float(a.sum()) == 499500
assert float((cupy.ones((128, 128)) @ cupy.ones((128, 128)))[0, 0]) == 128
double = cupy.RawKernel('extern "C" __global__ void f(float *x) { x[threadIdx.x] *= 2; }', "f")
double((1,), (32,), (a,))
assert float(a[3]) == 6 and float(a[32]) == 32
