"""Losses that compare the samples of a batch with each other: no means over rows, so they depend on who shares a batch."""

import torch
from torch import Tensor
from torch.nn import functional

from greedypipe.pipeline.precision import without_autocast


def similarity_loss(projected: Tensor, labels: Tensor, num_classes: int, *, over_space: bool) -> Tensor:
    """Similarity matching (Nokland & Eidnes, 1901.06656, "sim"): the mean squared difference between the cosine similarities
    of the samples and those of their one-hot labels; rows are mean-centred.

    Args:
        projected: [N, ...], of which the row of each sample is made.
        over_space: Whether a row is the standard deviation of each channel over space, and not all numbers.
        labels: Classes, int64 [N].

    Returns:
        0-dim fp32.
    """
    projected = projected.float()
    rows = projected.flatten(2).std(2) if over_space else projected.flatten(1)
    return functional.mse_loss(_similarity(rows), _label_similarity(labels, num_classes))


def supervised_contrast(rows: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss (Khosla et al., NeurIPS 2020, 2004.11362, equation 2), without its factor of temperatures.

    Samples of a class attract each other, all others repel. With the number of the sample as its class this is NT-Xent of
    several views (Chen et al., ICML 2020, 2002.05709).

    Args:
        rows: [N, F], of any length; only their directions count.
        classes: int64 [N].

    Returns:
        The mean over the rows that have another one of their class; 0 where there is none. 0-dim fp32.
    """
    with without_autocast(rows.device):
        directions = functional.normalize(rows.float(), dim=1)
        logits = directions @ directions.T / temperature
        itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        # Not minus infinity, which would give a single row the gradient nan.
        others = logits.masked_fill(itself, torch.finfo(logits.dtype).min)
        log_share = logits - others.logsumexp(1, keepdim=True)
        friends = (classes[:, None] == classes[None, :]) & ~itself
        count = friends.sum(1)
        each = -log_share.masked_fill(~friends, 0).sum(1) / count.clamp(min=1)
        return each.sum() / (count > 0).sum().clamp(min=1)


def _similarity(rows: Tensor) -> Tensor:
    """Cosine similarity [N, N] of the mean-centred rows [N, F]."""
    centred = functional.normalize(rows - rows.mean(1, keepdim=True), dim=1, eps=1e-8)
    with without_autocast(rows.device):
        return centred @ centred.T


def _label_similarity(labels: Tensor, num_classes: int) -> Tensor:
    """`_similarity` of the one-hot labels: 1 for equal classes, -1 / (classes - 1) otherwise."""
    same = labels[:, None] == labels[None, :]
    return torch.where(same, 1.0, -1.0 / (num_classes - 1))
