# SPDX-License-Identifier: MIT
"""PyTorch's multiprocessing: tensors of the GPU that go to another process and back, an event that
one process records and the other's stream waits for, and parameters that several processes train."""
from common import load

torch = load("torch")
mp = torch.multiprocessing

COUNT = 1 << 20
ROUNDS = 20


def double(inbox, outbox):
    for _ in range(ROUNDS):
        tensor = inbox.get()
        tensor += 1
        doubled = tensor * 2
        torch.cuda.synchronize()
        outbox.put(doubled)
        del tensor
    inbox.get()


def wait_and_sum(connection):
    tensor, handle = connection.recv()
    event = torch.cuda.Event.from_ipc_handle(torch.device("cuda:0"), handle)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        stream.wait_event(event)
        total = tensor.sum()
    stream.synchronize()
    connection.send(float(total))
    connection.recv()


def train(model, steps):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    target = torch.ones(16, 4, device="cuda")
    for _ in range(steps):
        optimizer.zero_grad()
        ((model(torch.ones(16, 8, device="cuda")) - target) ** 2).mean().backward()
        optimizer.step()
    torch.cuda.synchronize()


def tensors():
    inbox, outbox = mp.Queue(), mp.Queue()
    child = mp.Process(target=double, args=(inbox, outbox))
    child.start()
    for i in range(ROUNDS):
        tensor = torch.full((COUNT,), float(i), device="cuda")
        inbox.put(tensor)
        doubled = outbox.get(timeout=120)
        assert float(doubled.mean()) == 2 * (i + 1), f"doubled in round {i}"
        assert float(tensor.mean()) == i + 1, f"changed in place in round {i}"
        del doubled
    inbox.put(None)
    child.join(60)
    assert child.exitcode == 0, "the child's end"


def events():
    here, there = mp.Pipe()
    child = mp.Process(target=wait_and_sum, args=(there,))
    child.start()
    event = torch.cuda.Event(interprocess=True)
    tensor = torch.zeros(COUNT, device="cuda")
    torch.cuda.synchronize()
    torch.cuda._sleep(500_000_000)
    tensor += 1
    event.record()
    here.send((tensor, event.ipc_handle()))
    assert here.recv() == COUNT, "what was done before the event"
    here.send(None)
    child.join(60)
    assert child.exitcode == 0, "the child's end"


def parameters():
    model = torch.nn.Linear(8, 4).cuda()
    model.share_memory()
    children = [mp.Process(target=train, args=(model, 200)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0, "a trainer's end"
    error = float((model(torch.ones(16, 8, device="cuda")) - 1).abs().max())
    assert error < 0.05, f"trained by two processes: {error}"


if __name__ == "__main__":
    mp.set_start_method("spawn")
    tensors()
    events()
    parameters()
