# SPDX-License-Identifier: MIT
"""A product, a compiled function, a gradient."""
from common import load

jax = load("jax")
numpy = jax.numpy
assert jax.devices()[0].platform == "gpu", jax.devices()
x = numpy.ones((256, 256))
assert float((x @ x)[0, 0]) == 256
assert abs(float(jax.jit(lambda v: numpy.sin(v).sum())(x)) - 55146.6) < 1
assert float(jax.grad(lambda v: (v ** 2).sum())(x)[0, 0]) == 2
