"""Figures of quality. Pure functions of tensors; what needs a network takes it as an argument."""
from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

EDGE_BLOCK, EDGE_SHARE = 64, 0.002
"""side of CPBD's blocks, and the share of edge pixels above which one is looked at"""


def psnr(image: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """`frame_psnr`, averaged over frames."""
    return frame_psnr(image, target, weights).mean()


def frame_psnr(image: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """-10 log10 of the mean squared error [*] of each frame [*, 3, H, W] in [0, 1]; torchmetrics, for whole frames.

    `weights` [*, 1, H, W] restricts it to a region. Equal images give 100 dB.
    """
    if weights is None:
        from torchmetrics.functional.image import peak_signal_noise_ratio

        return peak_signal_noise_ratio(image, target, data_range=1.0, reduction="none", dim=(-3, -2, -1)).clamp_max(100)
    mean = ((image - target) ** 2 * weights).sum((-1, -2, -3)) / (3 * weights.sum((-1, -2, -3))).clamp_min(1e-6)
    return -10 * torch.log10(mean.clamp_min(1e-10))


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


def ssim(image: Tensor, target: Tensor, window: int = 7) -> Tensor:
    """Structural similarity [N] of frames [N, 3, H, W] in [0, 1] (Wang et al. 2004), under a uniform window and with samples'
    covariance, over the places where the window lies within the frame: scikit-image's default."""
    a, b = image.double(), target.double()
    near = lambda x: F.avg_pool2d(x, window, 1)
    mean_a, mean_b, count = near(a), near(b), window ** 2
    var_a, var_b, both = (count / (count - 1) * (near(x * y) - p * q) for x, y, p, q in
                          ((a, a, mean_a, mean_a), (b, b, mean_b, mean_b), (a, b, mean_a, mean_b)))
    light = (2 * mean_a * mean_b + 1e-4) / (mean_a ** 2 + mean_b ** 2 + 1e-4)
    return (light * (2 * both + 9e-4) / (var_a + var_b + 9e-4)).mean((1, 2, 3)).float()


def ssim_gaussian(image: Tensor, target: Tensor, sigma: float = 1.5) -> Tensor:
    """The same under a Gaussian window (11 x 11 for 1.5), as most papers' code has it; values differ from those of `ssim`."""
    from torchmetrics.functional.image import structural_similarity_index_measure as similarity

    return similarity(image, target, sigma=sigma, data_range=1.0, reduction="none").reshape(len(image))


def sharpness(images: Tensor, weights: Tensor) -> Tensor:
    """Energy [*] of the Laplacian of the luma of images [*, 3, H, W], mean under `weights` [*, 1, H, W]; to be divided by
    the recording's."""
    luma = (images * images.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(-3)
    inner = luma[..., 1:-1, 1:-1]
    around = luma[..., :-2, 1:-1] + luma[..., 2:, 1:-1] + luma[..., 1:-1, :-2] + luma[..., 1:-1, 2:]
    weights = weights[..., 0, 1:-1, 1:-1]
    return ((around - 4 * inner) ** 2 * weights).sum((-1, -2)) / weights.sum((-1, -2)).clamp_min(1e-6)


def landmark_distance(found: Tensor, truth: Tensor, eyes: Tensor) -> Tensor:
    """`mean_distance`, percent of the eye distance [*]."""
    return 100 * mean_distance(found, truth) / eyes


def mean_distance(found: Tensor, truth: Tensor) -> Tensor:
    """Mean distance [*] of landmarks [*, N, 2] to the true ones; nothing is centred (F-LMD with all 68 landmarks, M-LMD with
    the mouth's 20: each is divided by its own number)."""
    return (found - truth).norm(dim=-1).mean(-1)


def centred_distance(found: Tensor, truth: Tensor) -> Tensor:
    """`mean_distance` [*] of landmarks [*, N, 2], both from their own centroid in each frame (RAD-NeRF's LMD, of the mouth)."""
    return mean_distance(found - found.mean(-2, keepdim=True), truth - truth.mean(-2, keepdim=True))


def jerk(points: Tensor) -> Tensor:
    """Mean size of the third difference over time of points [T, N, 2], per frame cubed; NaN for fewer than four frames."""
    return points.diff(n=3, dim=0).norm(dim=-1).mean()


def flicker(image: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean absolute difference [T - 1] between the change from frame to frame of images [T, 3, H, W] and of the true ones,
    under `weights` [T, 1, H, W]."""
    change = (image.diff(dim=0) - target.diff(dim=0)).abs().mean(1, keepdim=True)
    return (change * weights[1:]).sum((1, 2, 3)) / weights[1:].sum((1, 2, 3)).clamp_min(1e-6)


def blinks(opening: Tensor, closed: float = 0.5) -> int:
    """How many times the opening of the eyes [T] goes below `closed` of its median."""
    shut = opening < closed * opening.median()
    return int((shut[1:] & ~shut[:-1]).sum() + shut[0])


def action_unit_error(found: Tensor, truth: Tensor) -> Tensor:
    """Squared difference of intensities [T, U] of action units, mean over frames, *sum* over units."""
    return ((found - truth) ** 2).mean(0).sum()


def shift_distances(lips: Tensor, sound: Tensor, most: int = 15) -> Tensor:
    """Mean Euclidean distance [2 * most + 1] of embeddings of lips [W, E] to those of the sound so many windows later, from
    -most to most; beyond its ends the sound is zeros (SyncNet's `calc_pdist`)."""
    padded, count = F.pad(sound, (0, 0, most, most)), len(lips)
    return torch.stack([F.pairwise_distance(lips, padded[i:i + count]).mean() for i in range(2 * most + 1)])


def sync_scores(distances: Tensor) -> tuple[float, float, int]:
    """Sync-C (median less least), Sync-D (least) and the offset of mean distances [2 * most + 1] by shift. The offset is
    SyncNet's: positive where the sound comes early, lips at t going with the sound at t - offset."""
    least, place = distances.min(0)
    return (distances.median() - least).item(), least.item(), len(distances) // 2 - int(place)


def frechet_distance(found: Tensor, truth: Tensor) -> float:
    """FID of features [N, C] and [M, C], by torchmetrics."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    if len(found) + len(truth) < truth.shape[1]:  # they lie in a smaller space, in which distances are the same
        basis = torch.linalg.qr(torch.cat([found, truth]).double().T).Q
        found, truth = found.double() @ basis, truth.double() @ basis
    return _of_features(FrechetInceptionDistance(feature=Features(truth.shape[1]), sync_on_compute=False), found, truth)


def kernel_distance(found: Tensor, truth: Tensor, subset: int = 100) -> float:
    """KID of features [N, C] and [M, C], by torchmetrics, over 100 subsets of so many; repeatable."""
    from torchmetrics.image.kid import KernelInceptionDistance

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        size = min(subset, len(found), len(truth))
        return _of_features(KernelInceptionDistance(feature=Features(truth.shape[1]), subset_size=size, sync_on_compute=False),
                            found, truth)


class Features(torch.nn.Identity):
    """Stands where torchmetrics has its network: what it is given are features already."""

    def __init__(self, size: int):
        super().__init__()
        self.num_features = size


def _of_features(metric, found: Tensor, truth: Tensor) -> float:
    metric.set_dtype(torch.float64)
    metric.update(truth.double(), real=True)
    metric.update(found.double(), real=False)
    value = metric.compute()
    return float(value[0] if isinstance(value, tuple) else value)


def sync_margin(cosine: Tensor, most: int = 7) -> Tensor:
    """By how much lips match the sound of their own time better than that of a typical other time.

    `cosine` [W, W] of every lips (row) and sound (column) of a clip: its mean at no shift, minus the median over the shifts
    of up to `most` windows either way. Lips that do not follow the sound score 0 on average (LSE-C takes the best shift in
    place of the true one, and does not).
    """
    most = min(most, len(cosine) - 1)
    means = torch.stack([cosine.diagonal(shift).mean() for shift in range(-most, most + 1)])
    return means[most] - means.median()


def cpbd(luma: np.ndarray) -> float | None:
    """Share of the edges of an image [H, W] in [0, 255] at which blur is not noticed (Narvekar and Karam 2011); None where
    there are no edges, or the image is smaller than a block.

    An edge is a vertical one of Sobel's, in a block of 64 x 64 of which Canny marks more than 0.2 %. Its width is the way
    along the row from its darkest to its brightest neighbour (Marziliano). P(blur) = 1 - exp(-(width / noticed) ** 3.6) is at
    most 63 % where the width is at most the just noticed one: 5 pixels in blocks of a contrast up to 50, else 3.
    """
    import cv2

    luma = luma.astype(np.float64).round()  # as files have it; tails below a grey level are no part of an edge
    widths = edge_widths(luma)
    marks = canny(luma)
    sharp = total = 0
    for top in range(0, luma.shape[0] - EDGE_BLOCK + 1, EDGE_BLOCK):
        for left in range(0, luma.shape[1] - EDGE_BLOCK + 1, EDGE_BLOCK):
            block = slice(top, top + EDGE_BLOCK), slice(left, left + EDGE_BLOCK)
            if marks[block].mean() > EDGE_SHARE:
                found = widths[block][widths[block] > 0]
                sharp += int((found <= (5 if int(np.ptp(luma[block])) <= 50 else 3)).sum())
                total += len(found)
    return sharp / total if total else None


def canny(luma: np.ndarray) -> np.ndarray:
    """Edges [H, W], bool, of an image [H, W] in [0, 255] smoothed by 1 pixel: those that reach a slope which 70 % of the image
    does not have, and what goes on from them down to 0.4 of it (MATLAB's own thresholds)."""
    import cv2

    smooth = cv2.GaussianBlur(luma, (0, 0), 1.0).round()
    slopes = [cv2.Sobel(smooth, cv2.CV_16S, *way) for way in ((1, 0), (0, 1))]
    high = max(1.0, float(np.percentile(np.hypot(*(slope.astype(float) for slope in slopes)), 70)))
    return cv2.Canny(*slopes, 0.4 * high, high, L2gradient=True) > 0


def edge_widths(luma: np.ndarray) -> np.ndarray:
    """Widths [H, W], pixels, of the vertical edges of an image [H, W]; 0 where there is none."""
    import cv2

    power = cv2.Sobel(luma, cv2.CV_64F, 1, 0) ** 2
    edge, inner = np.zeros(luma.shape, bool), power[1:-1, 1:-1]
    edge[1:-1, 1:-1] = (inner > 4 * power.mean()) & (inner >= power[1:-1, :-2]) & (inner > power[1:-1, 2:])
    along_y, along_x = np.gradient(luma)
    edge &= np.abs(along_y) < np.tan(np.pi / 8) * np.abs(along_x)  # of eight directions, the two along the row
    widths = np.zeros(luma.shape)
    for sign in (1, -1):
        ways = _rises(sign * luma) + _rises(-sign * luma[:, ::-1])[:, ::-1]
        widths = np.where(edge & (sign * along_x > 0), ways, widths)
    return widths


def _rises(values: np.ndarray) -> np.ndarray:
    """[H, W] pixels to the left of each place of [H, W] over which values only rise towards it; 1 at least."""
    run, runs = np.ones(len(values)), np.ones(values.shape)
    for column in range(2, values.shape[1]):
        run = np.where(values[:, column - 1] > values[:, column - 2], run + 1, 1)
        runs[:, column] = run
    return runs
