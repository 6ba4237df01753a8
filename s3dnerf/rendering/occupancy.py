"""Volume rendering that looks only where something may be: an occupancy grid, packed samples, early stop (Müller et al.
2022; RAD-NeRF, section 3.4)."""
from __future__ import annotations

from typing import Callable, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.types import PackedColours, PackedSamples, PointSamples, Rays

PointField = Callable[[Tensor, Tensor, Tensor], PointSamples]
"""points [N, 3], directions [N, 3] and the numbers [N] of their rays -> what is there."""
DARK = 0.05
"""share of light below which a cell is in the dark"""
MOST = 10.0
"""density from which on a cell is occupied in any case"""


class OccupancyGrid(nn.Module):
    """The largest density that each cell of a box had lately, over whatever was said.

    A running maximum that decays: a cell that opens and shuts with speech stays occupied, one that has been empty for long
    is given up. Beside it the grid keeps, in the same way, how much light reached a cell: what lies behind an opaque surface
    is never seen, nor taught, and need not be looked at either. One cell more around those that light reached stays in, so
    that a surface can move and a mouth can open.

    Args:
        low: corner of the box, head frame.
        high: opposite corner.
        resolution: cells along every axis.
        decay: factor on a cell's value at each of its updates.
    """

    def __init__(self, low: Sequence[float], high: Sequence[float], resolution: int = 48, decay: float = 0.95):
        super().__init__()
        self.resolution, self.decay = resolution, decay
        self.register_buffer("low", torch.tensor(low), persistent=False)
        self.register_buffer("high", torch.tensor(high), persistent=False)
        self.register_buffer("density", torch.full((resolution,) * 3, 2 * MOST))
        self.register_buffer("light", torch.ones((resolution,) * 3))
        self.register_buffer("noted", torch.zeros((resolution,) * 3), persistent=False)

    def occupied(self) -> Tensor:
        """[G, G, G] bool (x, y, z): denser than the mean, or than `MOST`, and not in the dark."""
        known = self.density[self.density >= 0]
        mean = float(known.mean()) if known.numel() else MOST
        return (self.density > min(mean, MOST)) & (self.light > DARK)

    def centres(self) -> Tensor:
        """[G, G, G, 3] middles of the cells, head frame."""
        axis = (torch.arange(self.resolution, device=self.low.device) + 0.5) / self.resolution
        return self.low + torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1) * (self.high - self.low)

    def bounds(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Two corners [3] of the smallest box that holds some of the cells [G, G, G]; a point where there are none."""
        found = torch.nonzero(cells)
        if not len(found):
            return self.low, self.low
        size = (self.high - self.low) / self.resolution
        return self.low + found.amin(0) * size, self.low + (found.amax(0) + 1) * size

    def exclude(self, cells: Tensor) -> None:
        """Gives cells [G, G, G] up for good: no camera shows anything there."""
        self.density[cells] = -1.0

    def at(self, cells: Tensor, points: Tensor) -> Tensor:
        """Which of points [*, 3] lie in one of `cells` [G, G, G]; [*] bool."""
        index, inside = self._index(points)
        return cells.flatten()[index] & inside

    def _index(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Cell [*] of points [*, 3], as a place in the flattened grid, and whether they lie in the box at all."""
        place = (points - self.low) * (self.resolution / (self.high - self.low))
        inside = ((place >= 0) & (place < self.resolution)).all(-1)
        x, y, z = place.clamp(0, self.resolution - 1).long().unbind(-1)
        return (x * self.resolution + y) * self.resolution + z, inside

    @torch.no_grad()
    def note(self, points: Tensor, light: Tensor) -> None:
        """Notes that light [N, 1] reached points [N, 3]; counts at the next update."""
        self.noted.view(-1).scatter_reduce_(0, self._index(points)[0], light[:, 0], "amax")

    @torch.no_grad()
    def update(self, density: Callable[[Tensor], Tensor], share: float = 1.0) -> None:
        """Looks at a random `share` of the cells, each at a random point in it; `density` is of points [N, 3], [N, 1]."""
        self.light.copy_(torch.maximum(self.light * self.decay, widen(self.noted)))
        self.noted.zero_()
        chosen = (torch.rand_like(self.density) < share) & (self.density >= 0)
        if not chosen.any():
            return
        middles = self.centres()[chosen]
        jitter = (torch.rand_like(middles) - 0.5) * (self.high - self.low) / self.resolution
        found = torch.zeros_like(self.density)
        found[chosen] = density(middles + jitter)[:, 0]
        kept = torch.where(chosen, self.density * self.decay, self.density)
        self.density.copy_(torch.where(self.density >= 0, torch.maximum(kept, widen(found)), self.density))


def widen(values: Tensor) -> Tensor:
    """[G, G, G]: the largest of each cell and its six neighbours."""
    pool = lambda size: F.max_pool3d(values[None, None], size, 1, tuple(s // 2 for s in size))[0, 0]
    return torch.stack([pool((3, 1, 1)), pool((1, 3, 1)), pool((1, 1, 3))]).amax(0)


class PackedRenderer(nn.Module):
    """Steps along rays through a grid, and asks a field about occupied steps alone.

    While training, the steps of each ray begin at a random place, and all samples are asked for at once. Otherwise a ray is
    followed until almost nothing would shine through.

    Args:
        step: length of a step, head units.
        samples: most occupied steps per ray.
        together: samples of a ray that are asked for at once.
        rest: share of light below which a ray ends.
    """

    def __init__(self, step: float = 0.04, samples: int = 16, together: int = 4, rest: float = 1e-3):
        super().__init__()
        self.step, self.samples, self.together, self.rest = step, samples, together, rest

    def forward(self, rays: Rays, field: PointField, grid: OccupancyGrid) -> PackedColours:
        """Colours of rays [R]; rays that meet nothing are empty. A point counts for the ray that `field` is told."""
        count = len(rays.origins)
        samples = self.march(rays, grid)
        if self.training:
            return self._look(rays, field, samples, rays.origins.new_ones(count, 1), grid)[0]
        light = rays.origins.new_ones(count, 1)
        total = None
        for first in range(0, self.samples, self.together):
            near = (samples.rank >= first) & (samples.rank < first + self.together) & (light[samples.ray, 0] > self.rest)
            if total is not None and not near.any():
                break
            part, light = self._look(rays, field, samples[near], light)
            total = part if total is None else PackedColours(*(getattr(total, name) + getattr(part, name) for name in
                                                               ("colour", "opacity", "depth", "ambient")))
        return PackedColours(total.colour, total.opacity, total.depth / total.opacity.clamp_min(1e-4), total.ambient)

    @torch.no_grad()
    def march(self, rays: Rays, grid: OccupancyGrid) -> PackedSamples:
        """The occupied steps along rays [R], at most `samples` of each, from the box's front on."""
        cells = grid.occupied()
        near, far = box_crossing(rays, *grid.bounds(cells))
        meets = torch.nonzero(far[:, 0] > near[:, 0])[:, 0]
        near, far = near[meets], far[meets]
        steps = max(1, int(((far - near).amax() / self.step).ceil())) if len(near) else 1
        offset = torch.rand_like(near) if self.training else torch.full_like(near, 0.5)
        starts = near + (torch.arange(steps, device=near.device) + offset - 0.5) * self.step
        points = rays.origins[meets, None] + rays.directions[meets, None] * (starts + 0.5 * self.step)[..., None]
        found = grid.at(cells, points) & (starts + 0.5 * self.step < far)
        rank = found.cumsum(1) - 1
        row, number = torch.nonzero(found & (rank < self.samples), as_tuple=True)
        starts = starts[row, number][:, None]
        return PackedSamples(meets[row], rank[row, number], starts, torch.full_like(starts, self.step))

    def _look(self, rays: Rays, field: PointField, samples: PackedSamples, light: Tensor,
              grid: Optional[OccupancyGrid] = None) -> tuple[PackedColours, Tensor]:
        """What some samples add, given the light [R, 1] that reaches them; its depth is a sum. And the light behind them.
        A `grid` is told where light came to."""
        directions = rays.directions[samples.ray]
        middles = samples.starts + 0.5 * samples.length
        points = rays.origins[samples.ray] + directions * middles
        found = field(points, directions, samples.ray)
        reaches, weights = packed_weights(found.density, samples)
        weights = weights * light[samples.ray]
        if grid is not None:
            grid.note(points, reaches)
        total = lambda values: torch.zeros(len(light), values.shape[1], dtype=values.dtype, device=values.device).index_add(
            0, samples.ray, values)
        sums = total(torch.cat([weights * found.colour, weights, weights * middles, weights.detach() * found.ambient], -1))
        colour, opacity, depth, ambient = sums.split([3, 1, 1, 1], -1)
        return PackedColours(colour, opacity, depth, ambient), light - opacity


def box_crossing(rays: Rays, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Distances [R, 1] at which rays [R] enter and leave a box; equal for rays that miss it."""
    inverse = 1 / torch.where(rays.directions.abs() < 1e-9, torch.full_like(rays.directions, 1e-9), rays.directions)
    first, second = (low - rays.origins) * inverse, (high - rays.origins) * inverse
    near = torch.minimum(first, second).amax(-1, keepdim=True).clamp_min(1e-3)
    far = torch.maximum(first, second).amin(-1, keepdim=True)
    return near, torch.maximum(near, far)


def packed_weights(density: Tensor, samples: PackedSamples) -> tuple[Tensor, Tensor]:
    """Shares [N, 1] of the light at a ray's first sample: what reaches each sample, and what it adds; see
    `compositing.interval_weights`."""
    optical = density * samples.length
    before = torch.cumsum(optical.double(), 0) - optical
    first = torch.searchsorted(samples.ray, samples.ray)
    reaches = torch.exp(before[first] - before).to(density.dtype)
    return reaches, reaches * (1 - torch.exp(-optical))
