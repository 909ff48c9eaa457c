# SPDX-License-Identifier: MIT
"""A little of each part of PyTorch that uses CUDA in its own way."""
from common import load

torch = load("torch")
pinned = torch.randn(1 << 20).pin_memory()
device = pinned.to("cuda", non_blocking=True)
torch.cuda.synchronize()
assert torch.equal(device.cpu(), pinned)

x, side = torch.zeros(16, device="cuda"), torch.cuda.Stream()
with torch.cuda.stream(side):
    for _ in range(3):
        y = x * 2 + 1
torch.cuda.current_stream().wait_stream(side)
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    y = x * 2 + 1
x.fill_(3)
graph.replay()
assert y.tolist() == [7.0] * 16

q = torch.randn(2, 4, 128, 64, device="cuda")
attend = torch.nn.functional.scaled_dot_product_attention
assert torch.allclose(attend(q, q, q).cpu(), attend(q.cpu(), q.cpu(), q.cpu()), atol=2e-2)
convolve, image = torch.nn.Conv2d(3, 16, 3), torch.randn(2, 3, 32, 32)
assert torch.allclose(convolve.cuda()(image.cuda()).cpu(), convolve.cpu()(image), atol=2e-2)
signal = torch.randn(1000)
assert torch.allclose(torch.fft.fft(signal.cuda()).cpu(), torch.fft.fft(signal), atol=1e-2)
m = torch.randn(64, 64)
assert torch.allclose(torch.linalg.svdvals(m.cuda()).cpu(), torch.linalg.svdvals(m), atol=1e-2)
many = torch.randn(100000)
assert torch.equal(many.cuda().sort()[0].cpu(), many.sort()[0])
