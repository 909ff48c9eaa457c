# SPDX-License-Identifier: MIT
"""A DataLoader's processes and its thread for pinned memory; and a child that may not use CUDA."""
import os

from common import load

torch = load("torch")
data = torch.utils.data.TensorDataset(torch.arange(512.0))
torch.zeros(1, device="cuda")
total = 0
for (part,) in torch.utils.data.DataLoader(data, batch_size=64, num_workers=2, pin_memory=True):
    assert part.is_pinned()
    total += part.cuda(non_blocking=True).sum().item()
assert total == 511 * 256, total
child = os.fork()
if child == 0:
    try:
        torch.zeros(1, device="cuda").add_(1).item()
    except RuntimeError:
        os._exit(3)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
assert torch.ones(4, device="cuda").sum().item() == 4
