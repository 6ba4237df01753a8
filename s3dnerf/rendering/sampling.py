"""Where a ray is looked at: stratified intervals, and intervals drawn where the first pass found something."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from s3dnerf.precision import single_precision
from s3dnerf.types import Rays, Samples


@single_precision
def stratified_samples(rays: Rays, count: int, perturb: bool) -> Samples:
    """`count` equal intervals from near to far of rays [*, R], each looked at in its middle, or anywhere in it if `perturb`."""
    edges = torch.linspace(0, 1, count + 1, device=rays.near.device, dtype=rays.near.dtype)[:, None]
    edges = rays.near[..., None, :] + (rays.far - rays.near)[..., None, :] * edges
    starts, ends = edges[..., :-1, :], edges[..., 1:, :]
    share = torch.rand_like(starts) if perturb else 0.5
    return Samples(starts, ends, starts + (ends - starts) * share)


@torch.no_grad()
@single_precision
def importance_distances(samples: Samples, weights: Tensor, count: int, perturb: bool) -> Tensor:
    """`count` distances [*, R, count, 1] per ray, ascending, dense where `weights` [*, R, S, 1] are large; no gradient.

    The weights are widened to their neighbours (maximum, then mean, of two) and raised by 0.01, so that thin surfaces and
    empty rays stay reachable (EG3D, section on two-pass importance sampling); the distances are quantiles of the
    piecewise constant density over the intervals, drawn one per equal share of probability.
    """
    leading, bins = weights.shape[:-2], weights.shape[-2]
    flat = weights.reshape(-1, 1, bins)
    wide = F.max_pool1d(F.pad(flat, (1, 1), mode="replicate"), 2, 1)
    pdf = (F.avg_pool1d(wide, 2, 1) + 0.01).squeeze(1)
    cdf = torch.cumsum(pdf / pdf.sum(-1, keepdim=True), -1)
    cdf = torch.cat([torch.zeros_like(cdf[:, :1]), cdf], -1)
    rank = torch.arange(count, device=cdf.device, dtype=cdf.dtype)
    quantiles = (rank + (torch.rand(len(cdf), count, device=cdf.device, dtype=cdf.dtype) if perturb else 0.5)) / count
    quantiles = quantiles.expand(len(cdf), count).contiguous()
    upper = torch.searchsorted(cdf, quantiles, right=True).clamp(1, bins)
    below, above = cdf.gather(-1, upper - 1), cdf.gather(-1, upper)
    share = ((quantiles - below) / (above - below).clamp_min(1e-8)).clamp(0, 1)
    starts = samples.starts.reshape(-1, bins).gather(-1, upper - 1)
    ends = samples.ends.reshape(-1, bins).gather(-1, upper - 1)
    return (starts + (ends - starts) * share).reshape(*leading, count, 1)


@single_precision
def merge_samples(samples: Samples, distances: Tensor) -> tuple[Samples, Tensor]:
    """All points of both passes in one ascending row of intervals that touch, and the order [*, R, S + N, 1] that sorts them.

    `order` indexes the concatenation of `samples.middles` and `distances` [*, R, N, 1]. The intervals cover exactly what
    `samples` covered: neighbouring points share an edge half-way between them, so no point is evaluated twice.
    """
    middles, order = torch.cat([samples.middles, distances], -2).sort(dim=-2)
    between = (middles[..., 1:, :] + middles[..., :-1, :]) / 2
    starts = torch.cat([samples.starts[..., :1, :], between], -2)
    ends = torch.cat([between, samples.ends[..., -1:, :]], -2)
    return Samples(starts, ends, middles), order
