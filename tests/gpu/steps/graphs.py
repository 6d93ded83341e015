"""Step 2: a step as two graphs, forward and learn, equals the same step without, bit by bit, while another thread polls.

With torch alone, so that a failure here is not the product's: dropout seeded from outside before each graph, batch
normalisation, a rate in a tensor, fused SGD, clipping.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from tests.gpu.facts import Facts, Setting

ROWS, STEPS, WARM_UP = 64, 12, 3
States = tuple[Tensor, list[Tensor]]
"""All losses, and what has been learned."""


def run(found: Facts, setting: Setting) -> None:
    if setting.pretend:
        return
    import tests.gpu.deterministic  # noqa: F401

    torch.cuda.set_device(0)
    eager = _trained(as_graphs=False)
    found.attempt("eager equals eager", lambda: _compare(eager, _trained(as_graphs=False)))
    found.attempt("graphs equal eager", lambda: _compare(eager, _trained(as_graphs=True)))
    found.attempt("captured while a thread polls", partial(_beside_a_thread, eager))


def _compare(expected: States, found: States) -> None:
    assert torch.equal(expected[0], found[0]), f"losses {expected[0].tolist()} and {found[0].tolist()}"
    assert all(map(torch.equal, expected[1], found[1])), "the losses are equal, the parameters are not"


def _beside_a_thread(eager: States) -> None:
    """What a link's thread does meanwhile: `query`, which the strictest capture mode forbids in all threads."""
    with _polling():
        _compare(eager, _trained(as_graphs=True))


@contextlib.contextmanager
def _polling() -> Iterator[None]:
    ended, event = threading.Event(), torch.cuda.Event()
    event.record()
    failures: list[Exception] = []

    def poll() -> None:
        torch.cuda.set_device(0)
        try:
            while not ended.wait(1e-4):
                event.query()
        except RuntimeError as error:
            failures.append(error)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert not failures, failures


class _Net:
    """A block in small, with all that it computes on."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Dropout(0.2), nn.MaxPool2d(2)
        ).cuda()
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(32 * 256, 10)).cuda()
        self.parameters = [*self.layers.parameters(), *self.head.parameters()]
        self.rate = torch.tensor(0.1, device="cuda")
        self.optimizer = torch.optim.SGD(self.parameters, self.rate, momentum=0.9, fused=True)
        self.x, self.labels = _batch(0)
        self.h = self.loss = torch.empty(0)

    def forward(self) -> None:
        self.h = self.layers(self.x)

    def learn(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
        loss = nn.functional.cross_entropy(self.head(self.h), self.labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimizer.step()
        self.loss = loss.detach()


def _batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    images = torch.rand(ROWS, 3, 32, 32, generator=generator)
    return images.cuda(), torch.randint(0, 10, (ROWS,), generator=generator).cuda()


def _trained(*, as_graphs: bool) -> States:
    net, losses = _Net(), []
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(0)
    again: dict[str, Callable[[], None]] = {"forward": net.forward, "learn": net.learn}
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for step in range(STEPS):
            net.rate.fill_(0.1 / (1 + step))
            for mine, given in zip((net.x, net.labels), _batch(step), strict=True):
                mine.copy_(given)
            for number, act in enumerate(("forward", "learn")):
                if as_graphs and step == WARM_UP:
                    again[act] = _captured(again[act], pool, stream)
                torch.cuda.default_generators[0].manual_seed(1000 * number + step)
                again[act]()
            losses.append(net.loss.clone())
        stream.synchronize()
    state = [*net.layers.state_dict().values(), *net.head.state_dict().values()]
    return torch.stack(losses), [value.clone() for value in state]


def _captured(work: Callable[[], None], pool: tuple[int, int], stream: torch.cuda.Stream) -> Callable[[], None]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        work()
    return graph.replay
