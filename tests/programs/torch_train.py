# SPDX-License-Identifier: MIT
"""Matrix products, and a small network that learns."""
from common import load

torch = load("torch")
x = torch.randn(512, 512, device="cuda")
exact = x.cpu().double() @ x.cpu().double()
assert (x @ x).cpu().double().sub(exact).norm() / exact.norm() < 1e-3
y = x.bfloat16()
assert (y @ y).cpu().double().sub(exact).norm() / exact.norm() < 3e-2
net = torch.nn.Sequential(torch.nn.Linear(128, 256), torch.nn.GELU(), torch.nn.Linear(256, 10)).cuda()
optimizer = torch.optim.AdamW(net.parameters(), fused=True)
given, wanted = torch.randn(64, 128, device="cuda"), torch.randint(0, 10, (64,), device="cuda")
losses = []
for _ in range(40):
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = torch.nn.functional.cross_entropy(net(given), wanted)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0] / 2, losses
