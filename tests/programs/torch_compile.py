# SPDX-License-Identifier: MIT
"""A function that torch.compile makes a kernel of."""
from common import load

torch = load("torch")


def wave(x):
    return torch.sin(x) + torch.cos(x) * 2


x = torch.randn(4096, device="cuda")
assert torch.allclose(torch.compile(wave)(x), wave(x), atol=1e-5)
