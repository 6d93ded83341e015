"""Every method with feedback as a complete sequential program of its own, written from its equations; delays from 1 on.

They share no code with what they judge. `f` are the layers of the blocks and `a` their heads, the last of which is the
network's classifier; `data` is a list of (images, labels). Where a head does not drive the layers it is a probe.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

Data = Sequence[tuple[Tensor, Tensor]]
Modules = Sequence[nn.Module]
Optimizers = Sequence[torch.optim.Optimizer]
Loss = Callable[[Tensor, Tensor], Tensor]
Lost = Callable[[int, int], bool]
"""Whether block k drops what comes about batch b."""
ce = functional.cross_entropy


@contextmanager
def still(module: nn.Module) -> Iterator[None]:
    """Running statistics stay as they are."""
    norms = [one for one in module.modules() if isinstance(one, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    yield
    for norm, (momentum, count) in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.num_batches_tracked.copy_(count)


def replay(module: nn.Module, x: Tensor) -> Tensor:
    with still(module):
        return module(x)


def nothing_is_lost(k: int, b: int) -> bool:
    return False


def step(*optimizers: torch.optim.Optimizer) -> None:
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def leaf(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_()


def dgl(f: Modules, a: Modules, opt: Optimizers, data: Data) -> None:
    for x, y in data:
        for k in range(len(f)):
            h = f[k](x)
            ce(a[k](h), y).backward()
            step(opt[k])
            x = h.detach()


def accumulated_dgl(f: Modules, a: Modules, opt: Optimizers, data: Data, n: int) -> None:
    """A step follows the mean gradient of n batches."""
    for t, (x, y) in enumerate(data):
        for k in range(len(f)):
            h = f[k](x)
            ce(a[k](h), y).backward()
            if t % n == n - 1:
                for parameter in (*f[k].parameters(), *a[k].parameters()):
                    assert parameter.grad is not None
                    parameter.grad = parameter.grad / n
                step(opt[k])
            x = h.detach()


def greedy(f: Modules, a: Modules, opt: Optimizers, data: Data, S: int) -> None:
    """One block after another, each for S batches."""
    for t, (image, y) in enumerate(data):
        x = image
        for k in range(len(f)):
            if t < k * S:
                break
            if t < (k + 1) * S:
                f[k].train()
                ce(a[k](f[k](x)), y).backward()
                step(opt[k])
                break
            with torch.no_grad():
                x = f[k].eval()(x)


def back_propagation(f: Modules, a: Modules, opt: Optimizers, data: Data) -> None:
    for x, y in data:
        for module in f:
            x = module(x)
        ce(a[-1](x), y).backward()
        step(*opt)


def delayed_gradient(
    f: Modules, a: Modules, opt: Optimizers, probe: Optimizers, data: Data, D: int, *, graphs: bool, shrink: float = 1.0
) -> None:
    K, T = len(f), len(data)
    lag = [D * (K - 1 - k) for k in range(K)]
    X: Any = {}
    H: Any = {}
    W: Any = {}
    G: Any = {}
    for t in range(T + lag[0]):
        for k in range(K):
            if t < T and k < K - 1:
                X[k, t] = leaf(data[t][0] if k == 0 else H[k - 1, t])
                if graphs:
                    W[k, t] = {name: leaf(value) for name, value in f[k].named_parameters()}
                    H[k, t] = functional_call(f[k], W[k, t], (X[k, t],))
                else:
                    with torch.no_grad():
                        H[k, t] = f[k](X[k, t])
                ce(a[k](H[k, t].detach()), data[t][1]).backward()
                step(probe[k])
            b = t - lag[k]
            if not 0 <= b < T:
                continue
            if k == K - 1:
                x = leaf(H[k - 1, b])
                ce(a[k](f[k](x)), data[b][1]).backward()
                G[k - 1, b] = x.grad
            else:
                g = G.pop((k, b)) if shrink == 1 else shrink * G.pop((k, b))
                if graphs:
                    gx, *gw = torch.autograd.grad(H[k, b], [X[k, b], *W[k, b].values()], g)
                    for parameter, gradient in zip(f[k].parameters(), gw, strict=True):
                        parameter.grad = gradient
                else:
                    replay(f[k], X[k, b]).backward(g)
                    gx = X[k, b].grad
                G[k - 1, b] = gx
            step(opt[k])


def dni(f: Modules, a: Modules, s: Modules, opt: Optimizers, aux: Optimizers, probe: Optimizers, data: Data, D: int) -> None:
    K = len(f)
    H: Any = {}
    G: Any = {}
    for t, (image, y) in enumerate(data):
        x = image
        for k in range(K):
            x = leaf(x)
            h = f[k](x)
            if k == K - 1:
                ce(a[k](h), y).backward()
                step(opt[k])
            else:
                H[k, t] = h.detach()
                with torch.no_grad():
                    g = s[k](H[k, t], y)
                h.backward(g)
                ce(a[k](H[k, t]), y).backward()
                b = t - D
                if b >= 0:
                    guess = s[k](H.pop((k, b)), data[b][1])
                    (((guess - G.pop((k, b))) ** 2).sum() / len(guess)).backward()
                    step(aux[k])
                step(opt[k], probe[k])
            G[k - 1, t] = x.grad
            x = h


def local_critic(f: Modules, a: Modules, opt: Optimizers, aux: Optimizers, data: Data, D: int) -> None:
    K = len(f)
    H: Any = {}
    L: Any = {}
    for t, (image, y) in enumerate(data):
        x = image
        for k in range(K):
            h = f[k](x)
            if k == K - 1:
                losses = ce(a[k](h), y, reduction="none")
                losses.mean().backward()
            else:
                at = h.detach().requires_grad_()
                losses = ce(a[k](at), y, reduction="none")
                h.backward(torch.autograd.grad(losses.mean(), at)[0])
                H[k, t] = h.detach()
                b = t - D
                if b >= 0:
                    own = ce(a[k](H.pop((k, b))), data[b][1], reduction="none")
                    (own - L.pop((k + 1, b))).abs().mean().backward()
                    step(aux[k])
            L[k, t] = losses.detach()
            step(opt[k])
            x = h.detach()


def last_gradient(f: Modules, a: Modules, opt: Optimizers, data: Data, D: int, w: float) -> None:
    K = len(f)
    X: Any = {}
    E: Any = {}
    for t, (image, y) in enumerate(data):
        x = image
        for k in range(K):
            X[k, t] = x
            h = f[k](x)
            z = a[k](h)
            loss = ce(z, y)
            if k == K - 1:
                E[t] = torch.autograd.grad(loss, z, retain_graph=True)[0]
                loss.backward()
            else:
                ((1 - w) * loss).backward()
                b = t - D * (K - 1 - k)
                if b >= 0:
                    with still(a[k]):
                        late = a[k](replay(f[k], X.pop((k, b))))
                    late.backward(w * E[b])
            step(opt[k])
            x = h.detach()


def dfa(f: Modules, a: Modules, B: Sequence[Tensor], opt: Optimizers, probe: Optimizers, data: Data, D: int) -> None:
    K, T = len(f), len(data)
    lag = [D * (K - 1 - k) for k in range(K)]
    X: Any = {}
    E: Any = {}
    h = data[0][0]
    for t in range(T + lag[0]):
        for k in range(K):
            if t < T:
                x, y = (data[t][0] if k == 0 else h, data[t][1])
                if k == K - 1:
                    z = a[k](f[k](x))
                    loss = ce(z, y)
                    E[t] = torch.autograd.grad(loss, z, retain_graph=True)[0]
                    loss.backward()
                    step(opt[k])
                    continue
                X[k, t] = x
                with torch.no_grad():
                    h = f[k](x)
            b = t - lag[k]
            if k < K - 1 and 0 <= b < T:
                o = replay(f[k], X.pop((k, b)))
                o.backward((E[b] @ B[k]).view_as(o))
                step(opt[k])
            if t < T and k < K - 1:
                ce(a[k](h), data[t][1]).backward()
                step(probe[k])


def dtp(
    f: Modules,
    a: Modules,
    g: Sequence[nn.Module | None],
    opt: Optimizers,
    aux: Sequence[torch.optim.Optimizer | None],
    probe: Optimizers,
    data: Data,
    D: int,
    rate: float,
    noisy: Callable[[int, int, Tensor], Tensor],
) -> None:
    """`noisy(k, t, x)` perturbs the input of block k in turn t."""
    K, T = len(f), len(data)
    lag = [D * (K - 1 - k) for k in range(K)]
    X: Any = {}
    G: Any = {}
    h = data[0][0]
    for t in range(T + lag[0]):
        for k in range(K):
            if t < T:
                x, y = (data[t][0] if k == 0 else h, data[t][1])
                if k == K - 1:
                    x = leaf(x)
                    ce(a[k](f[k](x)), y).backward()
                    step(opt[k])
                    assert x.grad is not None
                    G[k - 1, t] = x.detach() - rate * len(y) * x.grad
                    continue
                X[k, t] = x
                with torch.no_grad():
                    h = f[k](x)
                if (inverse := g[k]) is not None:
                    c = noisy(k, t, x)
                    with torch.no_grad():
                        fc = replay(f[k], c)
                    ((inverse(fc) - c) ** 2).flatten(1).sum(1).mean().backward()
            b = t - lag[k]
            if k < K - 1 and 0 <= b < T:
                o, target = replay(f[k], X[k, b]), G.pop((k, b))
                if (inverse := g[k]) is not None:
                    with torch.no_grad():
                        G[k - 1, b] = X[k, b] + (inverse(target) - inverse(o))
                ((o - target) ** 2).flatten(1).sum(1).mean().backward()
                step(opt[k])
            if t < T and k < K - 1:
                ce(a[k](h), data[t][1]).backward()
                step(probe[k])
                if (other := aux[k]) is not None:
                    step(other)


def overlap(f: Modules, local: Sequence[Loss], opt: Optimizers, data: Data, D: int, w: float) -> None:
    """`local[k]` gives the own loss of block k by its activation and the labels."""
    K = len(f)
    X: Any = {}
    G: Any = {}
    for t, (image, y) in enumerate(data):
        x = image
        for k in range(K):
            X[k, t] = x = leaf(x)
            h = f[k](x)
            local[k](h, y).backward()
            G[k - 1, t], x.grad = x.grad, None
            b = t - D
            if k < K - 1 and b >= 0:
                replay(f[k], X.pop((k, b))).backward(w * G.pop((k, b)))
            step(opt[k])
            x = h


def late_chain(
    f: Modules, a: Modules, opt: Optimizers, data: Data, D: int, w: float, *, graphs: bool, lost: Lost = nothing_is_lost
) -> None:
    K = len(f)
    X: Any = {}
    H: Any = {}
    W: Any = {}
    own: Any = {}
    G: Any = {}
    for t, (image, y) in enumerate(data):
        x = image
        for k in range(K):
            X[k, t] = x = leaf(x)
            if graphs:
                W[k, t] = {name: leaf(value) for name, value in f[k].named_parameters()}
                H[k, t] = functional_call(f[k], W[k, t], (x,))
                at = leaf(H[k, t])
                ce(a[k](at), y).backward()
                gx, *gw = torch.autograd.grad(H[k, t], [x, *W[k, t].values()], at.grad, retain_graph=True)
                for parameter, gradient in zip(f[k].parameters(), gw, strict=True):
                    parameter.grad = gradient
                own[k, t] = gx
            else:
                H[k, t] = f[k](x)
                ce(a[k](H[k, t]), y).backward()
                own[k, t], x.grad = x.grad, None
            b = t - D * (K - 1 - k)
            if k == K - 1:
                G[k - 1, t] = own[k, t]
            elif b >= 0 and lost(k, b):
                G[k - 1, b] = own[k, b]
            elif b >= 0:
                g = w * G.pop((k, b))
                if graphs:
                    gx, *gw = torch.autograd.grad(H[k, b], [X[k, b], *W[k, b].values()], g)
                    for parameter, gradient in zip(f[k].parameters(), gw, strict=True):
                        parameter.grad = parameter.grad + gradient
                else:
                    replay(f[k], X[k, b]).backward(g)
                    gx = X[k, b].grad
                G[k - 1, b] = own[k, b] + gx
            step(opt[k])
            x = H[k, t]


def overlap_weights(
    f: Modules, a: Modules, ahead: Modules, opt: Optimizers, data: Data, D: int, w: float, every: int
) -> None:
    """`ahead[k]` begins as a copy of the layers and the head of block k + 1."""
    K = len(f)
    P: Any = {}
    for t, (image, y) in enumerate(data):
        x = image
        for k in range(K):
            h = f[k](x)
            if t % every == 0:
                P[k, t] = [parameter.detach().clone() for parameter in (*f[k].parameters(), *a[k].parameters())]
            loss = ce(a[k](h), y)
            if k < K - 1:
                if (k + 1, t - D) in P:
                    for p, q in zip(ahead[k].parameters(), P[k + 1, t - D], strict=True):
                        p.data.copy_(q)
                loss = loss + w * ce(ahead[k](h), y)
            loss.backward()
            step(opt[k])
            x = h.detach()


def man(
    f: Modules,
    a: Modules,
    first: Modules,
    bias: Modules,
    average: Modules,
    opt: Optimizers,
    data: Data,
    D: int,
    m: float,
    every: int,
    scale: Sequence[Tensor] | None = None,
) -> None:
    """`first[k]` is the first layer of block k; `bias[k]` and `average[k]` begin as copies of `first[k + 1]`."""
    K = len(f)
    P: Any = {}
    for t, (image, y) in enumerate(data):
        x = image
        for k in range(K):
            h = f[k](x)
            if t % every == 0:
                P[k, t] = [parameter.detach().clone() for parameter in first[k].parameters()]
            if k == K - 1:
                z = h
            elif scale is None:
                z = bias[k](h) + average[k](h)
            else:
                z = scale[k] * bias[k](h) + (2 - scale[k]) * average[k](h)
            ce(a[k](z), y).backward()
            if k < K - 1 and (k + 1, t - D) in P:
                with torch.no_grad():
                    for p, q in zip(average[k].parameters(), P[k + 1, t - D], strict=True):
                        p.mul_(m**every).add_(q, alpha=1 - m**every)
            step(opt[k])
            for parameter in average[k].parameters() if k < K - 1 else ():
                parameter.grad = None
            x = h.detach()


def copies(modules: Modules) -> list[nn.Module]:
    """Deep copies, for a program that starts where blocks do."""
    return [copy.deepcopy(module) for module in modules]
