"""Vector-quantised outputs, after the quantised replay of Belilovsky et al. (2106.06401), whose quantiser is not published.

Every position of a map (token, vector) is replaced by the nearest vector of a codebook, in each group of channels by one of
its own. The codebook follows the outputs by exponential averages (van den Oord et al., NeurIPS 2017, 1711.00937, appendix
A.1). Outputs of early training may move away from all its vectors but one; so a vector that has long been nobody's nearest
begins anew at an output of the batch (Dhariwal et al., *Jukebox*, 2005.00341, section 3.1). Numbers of vectors travel, and
with every message the codebook that they mean: it may be read late, or twice, and its receiver keeps no state.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from greedypipe.pipeline.batch import TensorSpec
from greedypipe.pipeline.codecs.interface import Codec
from greedypipe.pipeline.precision import Precision
from greedypipe.pipeline.randomness import derive_seed

CODES, BOOK = "codes", "book"
SMOOTHING: Final = 1e-5
"""Of the counts by which sums are divided (Laplace), so that a vector that nobody uses stays finite."""
IDLE_SHARES: Final = 20
"""A vector begins anew once so many times the codebook's size has been quantised without it: with an equal share it would
have been chosen so often."""
VECTORS_AT_ONCE: Final = 16384
"""Compared with the codebook at a time, which bounds the memory."""


@dataclass(frozen=True)
class VectorForm:
    """Codes [rows, positions, groups], and one codebook [1, groups, codes, channels / groups] for all rows.

    Attributes:
        shape: Of the output, without rows.
    """

    codes: int
    groups: int
    shape: tuple[int, ...]
    precision: Precision

    @property
    def channels(self) -> int:
        """Of the output: the first dimension of maps, the last of tokens and vectors."""
        return self.shape[0] if len(self.shape) == 3 else self.shape[-1]

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        positions = torch.Size(self.shape).numel() // self.channels
        numbers = torch.uint8 if self.codes <= 256 else torch.int16
        book = (self.groups, self.codes, self.channels // self.groups)
        return (
            TensorSpec(CODES, (positions, self.groups), numbers),
            TensorSpec(BOOK, book, self.precision.activation_dtype, per_row=False),
        )

    def vectors(self, h: Tensor) -> Tensor:
        """[rows, *shape] to fp32 [groups, rows * positions, channels / groups]."""
        last = h.permute(0, 2, 3, 1) if len(self.shape) == 3 else h
        return last.reshape(-1, self.groups, self.channels // self.groups).transpose(0, 1).float().contiguous()

    def decode(self, *tensors: Tensor) -> Tensor:
        """From codes and codebook to the output, in the precision's layout."""
        codes, book = tensors
        begins = torch.arange(self.groups, device=codes.device) * self.codes
        x = book.flatten(0, 2).index_select(0, (codes.long() + begins).flatten())
        if len(self.shape) == 3:
            _, height, width = self.shape
            return self.precision.canonical(x.view(codes.shape[0], height, width, self.channels).permute(0, 3, 1, 2))
        return self.precision.canonical(x.view(codes.shape[0], *self.shape))


def vector_form(codes: int, groups: int, shape: tuple[int, ...], precision: Precision) -> VectorForm:
    """The form of quantised outputs of a shape."""
    return VectorForm(codes, groups, shape, precision)


def nearest(vectors: Tensor, book: Tensor) -> Tensor:
    """The number of the nearest vector of the codebook, the smallest of several: int64 [groups, vectors]."""
    return torch.baddbmm((book * book).sum(2)[:, None], vectors, book.transpose(1, 2), alpha=-2).argmin(2)


class VectorQuantiser(Codec):
    """The codec of one block.

    The codebook begins with vectors of the first batch, chosen by the seed; where it has room for all of them, that batch is
    given out exactly. It is used first and follows afterwards, by averages of how many vectors chose a code, and of their
    sum.

    Args:
        seed: Of the run, and the block's index.
    """

    def __init__(self, form: VectorForm, decay: float, seed: tuple[int, int], device: torch.device) -> None:
        self._form = form
        self._decay = decay
        self._seed = seed
        self._device = device
        self._book: Tensor | None = None
        self._counts = self._sums = self._idle = torch.empty(0)
        self._updates = 0

    @torch.no_grad()
    def give_out(self, h: Tensor, *, learns: bool = False) -> Tensor:
        """See `Codec.give_out`."""
        codes_spec, book_spec = self._form.specs
        with torch.autocast(h.device.type, enabled=False):
            vectors = self._form.vectors(h)
            book = self._drawn(vectors) if self._book is None else self._book
            parts = vectors.split(VECTORS_AT_ONCE, 1)
            chosen = [nearest(part, book) for part in parts]
            if learns:
                self._learn(book, list(zip(parts, chosen, strict=True)))
                self._revive(vectors)
        codes = torch.cat(chosen, 1).t().reshape(len(h), *codes_spec.shape).to(codes_spec.dtype)
        self.packed = {CODES: codes, BOOK: book.to(book_spec.dtype)[None]}
        return self._form.decode(*self.packed.values())

    def as_module(self) -> nn.Module:
        """See `Codec.as_module`."""
        assert self._book is not None, "it has never learned"
        return _Quantise(self._form, self._book)

    def state_dict(self) -> dict[str, Any]:
        """See `Codec.state_dict`; empty before the first batch."""
        if self._book is None:
            return {}
        averages = {"book": self._book, "counts": self._counts, "sums": self._sums}
        return {**averages, "idle": self._idle, "updates": self._updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Codec.load_state_dict`."""
        if not state or state["book"].shape != self._form.specs[1].shape:
            return
        self._book, self._counts, self._sums, self._idle = (
            state[name].to(self._device, copy=True) for name in ("book", "counts", "sums", "idle")
        )
        self._updates = state["updates"]

    def _drawn(self, vectors: Tensor) -> Tensor:
        """As many vectors of a batch as the codebook has, in their order; again from the first where there are too few."""
        generator = torch.Generator().manual_seed(derive_seed(*self._seed, "codebook", self._updates))
        chosen = torch.randperm(vectors.shape[1], generator=generator)[: self._form.codes].sort().values
        chosen = chosen[torch.arange(self._form.codes) % len(chosen)]
        return vectors[:, chosen.to(vectors.device)].contiguous()

    def _learn(self, book: Tensor, assigned: list[tuple[Tensor, Tensor]]) -> None:
        if self._book is None:
            self._counts, self._sums = torch.ones(book.shape[:2], device=book.device), book
            self._idle = torch.zeros_like(self._counts)
        counts, sums = torch.zeros_like(self._counts), torch.zeros_like(book)
        for vectors, chosen in assigned:
            # Products, since CUDA adds to scattered places in no fixed order.
            ones = one_hot(chosen, self._form.codes).float()
            counts += ones.sum(1)
            sums += ones.transpose(1, 2) @ vectors
        self._updates += 1
        self._idle = torch.where(counts > 0, 0, self._idle + counts.sum(1, keepdim=True))
        self._counts = self._decay * self._counts + (1 - self._decay) * counts
        self._sums = self._decay * self._sums + (1 - self._decay) * sums
        total = self._counts.sum(1, keepdim=True)
        smoothed = (self._counts + SMOOTHING) / (total + self._form.codes * SMOOTHING) * total
        self._book = self._sums / smoothed[:, :, None]

    def _revive(self, vectors: Tensor) -> None:
        """Puts outputs of this batch in the place of vectors that have been idle for too long."""
        assert self._book is not None
        is_idle = self._idle >= IDLE_SHARES * self._form.codes
        new = self._drawn(vectors)
        self._book, self._sums = (torch.where(is_idle[:, :, None], new, old) for old in (self._book, self._sums))
        self._counts = torch.where(is_idle, 1, self._counts)
        self._idle = torch.where(is_idle, 0, self._idle)


class _Quantise(nn.Module):
    """A quantiser that has learned."""

    book: Tensor

    def __init__(self, form: VectorForm, book: Tensor) -> None:
        super().__init__()
        self._form = form
        self.register_buffer("book", book)

    def forward(self, h: Tensor) -> Tensor:
        vectors = self._form.vectors(h)
        codes = nearest(vectors, self.book).t().reshape(h.shape[0], *self._form.specs[0].shape)
        return self._form.decode(codes, self.book.to(h.dtype)[None])
