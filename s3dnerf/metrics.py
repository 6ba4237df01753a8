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


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of frames [N, 3, H, W] in [0, 1], mean over all (Wang et al. 2004, Gaussian window of 11)."""
    from kornia.metrics import ssim as similarity

    return similarity(image, target, window_size=11, max_val=1.0).mean()


def sharpness(images: Tensor, weights: Tensor) -> Tensor:
    """Energy [*] of the Laplacian of the luma of images [*, 3, H, W], mean under `weights` [*, 1, H, W]; to be divided by
    the recording's."""
    luma = (images * images.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(-3)
    inner = luma[..., 1:-1, 1:-1]
    around = luma[..., :-2, 1:-1] + luma[..., 2:, 1:-1] + luma[..., 1:-1, :-2] + luma[..., 1:-1, 2:]
    weights = weights[..., 0, 1:-1, 1:-1]
    return ((around - 4 * inner) ** 2 * weights).sum((-1, -2)) / weights.sum((-1, -2)).clamp_min(1e-6)


def landmark_distance(found: Tensor, truth: Tensor, eyes: Tensor) -> Tensor:
    """Mean distance [*] of landmarks [*, N, 2] to the true ones, percent of the eye distance [*]; nothing is centred (F-LMD
    with all 68 landmarks, M-LMD with the mouth's 20)."""
    return 100 * (found - truth).norm(dim=-1).mean(-1) / eyes


def sync_margin(cosine: Tensor, most: int = 7) -> Tensor:
    """By how much lips match the sound of their own time better than that of a typical other time.

    `cosine` [W, W] of every lips (row) and sound (column) of a clip: its mean at no shift, minus the median over the shifts
    of up to `most` windows either way. Lips that do not follow the sound score 0 on average (LSE-C takes the best shift in
    place of the true one, and does not).
    """
    most = min(most, len(cosine) - 1)
    means = torch.stack([cosine.diagonal(shift).mean() for shift in range(-most, most + 1)])
    return means[most] - means.median()
