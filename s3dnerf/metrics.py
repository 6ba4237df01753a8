"""Figures of quality. Pure functions of tensors; what needs a network takes it as an argument."""
from __future__ import annotations

import torch
from torch import Tensor


def psnr(image: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """-10 log10 of the mean squared error of each frame [*, 3, H, W] in [0, 1], averaged over frames.

    `weights` [*, 1, H, W] restricts it to a region. Equal images give 100 dB.
    """
    error = (image - target) ** 2
    if weights is None:
        mean = error.mean((-1, -2, -3))
    else:
        mean = (error * weights).sum((-1, -2, -3)) / (3 * weights.sum((-1, -2, -3))).clamp_min(1e-6)
    return (-10 * torch.log10(mean.clamp_min(1e-10))).mean()


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation [*] of rows [*, N]; 0 where either is constant."""
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)).clamp_min(1e-8)


def spread_ratio(a: Tensor, b: Tensor) -> Tensor:
    """Standard deviation of a row [N] over that of another."""
    return a.std() / b.std().clamp_min(1e-8)


def auc(right: Tensor, wrong: Tensor) -> Tensor:
    """Area under the ROC curve: the probability that one of `right` [N] exceeds one of `wrong` [M]; ties count half."""
    ordered = wrong.sort().values
    below = torch.searchsorted(ordered, right, right=False)
    equal = torch.searchsorted(ordered, right, right=True) - below
    return ((below + equal / 2.0) / len(wrong)).float().mean()
