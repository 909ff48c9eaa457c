# SPDX-License-Identifier: MIT
"""NVIDIA's libraries by way of CuPy: cuFFT, cuRAND, cuSOLVER, cuSPARSE."""
from common import load

cupy = load("cupy")
import cupyx.scipy.sparse as sparse  # noqa: E402

a = cupy.zeros(1000, dtype=cupy.complex64)
a[1] = 1
assert float(cupy.abs(cupy.abs(cupy.fft.fft(a)) - 1).max()) < 1e-4
numbers = cupy.random.rand(10000)
assert 0.4 < float(numbers.mean()) < 0.6
assert abs(float(cupy.linalg.svd(cupy.ones((8, 8)))[1][0]) - 8) < 1e-6
assert float(cupy.linalg.eigvalsh(cupy.diag(cupy.arange(4.0)))[3]) == 3
assert float((sparse.csr_matrix(cupy.eye(5)) @ cupy.ones(5)).sum()) == 5
