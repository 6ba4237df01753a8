"""A multi-resolution grid of learned features, looked up at points (Müller et al. 2022; RAD-NeRF, section 3.2)."""
from __future__ import annotations

import math
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.networks.fused_grid import FusedLookup, fusable

PRIMES = (1, 2654435761, 805459861, 3674653429, 2097192037)
"""One per axis; a corner's place in a hashed level is the exclusive or of its coordinates times these."""


class GridEncoding(nn.Module):
    """Features of a point, one group per level: the corners of its cell, mixed by how near they are.

    A level is a grid of `resolution` cells along every axis. Where it has more corners than `entries`, several of them share
    one: by a hash ("hash"), or because the grid is laid over the table again and again ("tiled").

    Args:
        dimensions: of the points, up to 5.
        levels: how many grids.
        channels: features per level.
        base: cells along an axis of the coarsest level.
        finest: cells along an axis of the finest level; the levels between them are a geometric row.
        entries: most rows of one level's table, a power of two.
        kind: "hash" or "tiled".
    """

    def __init__(self, dimensions: int = 3, levels: int = 16, channels: int = 2, base: int = 16, finest: int = 2048,
                 entries: int = 2 ** 16, kind: str = "hash"):
        super().__init__()
        if kind not in ("hash", "tiled"):
            raise ValueError(f"found kind={kind!r}; expected hash or tiled")
        if entries & (entries - 1) or entries < 8:
            raise ValueError(f"found entries={entries}; expected a power of two, at least 8")
        self.dimensions, self.channels, self.kind, self.entries = dimensions, channels, kind, entries
        growth = math.log(finest / base) / max(1, levels - 1)
        self.resolutions = [math.ceil(round(base * math.exp(growth * level), 6)) for level in range(levels)]
        corners = [(cells + 1) ** dimensions for cells in self.resolutions]
        rows = [-(-min(entries, count) // 8) * 8 for count in corners]
        self.whole = sum(count <= entries for count in corners)
        """levels whose every corner has a row of its own; they come first"""
        self.table = nn.Parameter(torch.empty(sum(rows), channels).uniform_(-1e-4, 1e-4))
        cells = torch.tensor(self.resolutions)
        strides = torch.stack([(cells + 1) ** axis for axis in range(dimensions)], 1)
        if kind == "hash":
            strides[self.whole:] = torch.tensor(PRIMES[:dimensions])
        strides[self.whole:] &= entries - 1  # only these digits count; products stay within 32 bits
        self.register_buffer("cells", cells.int(), persistent=False)
        self.register_buffer("strides", strides.int(), persistent=False)
        self.register_buffer("starts", torch.tensor([0, *rows[:-1]]).cumsum(0).int(), persistent=False)

    @property
    def out_channels(self) -> int:
        """Features of a point."""
        return len(self.resolutions) * self.channels

    def forward(self, points: Tensor) -> Tensor:
        """Features [N, levels * channels], coarsest level first, of points [N, dimensions] in [0, 1] (clamped to it).

        Differentiable with respect to the table, and to the points where they ask for it.
        """
        if fusable(self, points):
            return FusedLookup.apply(points, self.table, self)
        # [axis, level, point]: long rows of memory, over which every operation is fast
        place = points.T.clamp(0, 1)[:, None] * self.cells[:, None]
        corner = torch.minimum(place.detach().int(), (self.cells - 1)[:, None])
        share = place - corner
        weights = outer(1 - share, share, torch.mul)
        found = Lookup.apply(self.table, self._rows(corner).flatten(0, 1), weights.flatten(0, 1))
        return found.view(len(self.resolutions), len(points), self.channels).transpose(0, 1).flatten(1)

    def _rows(self, corner: Tensor) -> Tensor:
        """Rows of the table [L, N, 2^D] of the corners of cells [D, L, N]."""
        strides = self.strides.T[..., None]
        low, high = corner * strides, (corner + 1) * strides
        own = outer(low[:, :self.whole], high[:, :self.whole], torch.add)
        low, high = low[:, self.whole:] & (self.entries - 1), high[:, self.whole:] & (self.entries - 1)
        hashed = self.kind == "hash"
        shared = outer(low, high, torch.bitwise_xor) if hashed else outer(low, high, torch.add) & (self.entries - 1)
        return torch.cat([own, shared]) + self.starts[:, None, None]


def outer(low: Tensor, high: Tensor, combine) -> Tensor:
    """All 2^D ways [*, 2^D] to take either `low` or `high`, each [D, *], along every axis, put together by `combine`."""
    ways = [low[0], high[0]]
    for below, above in zip(low[1:], high[1:]):
        ways = [combine(way, side) for way in ways for side in (below, above)]
    return torch.stack(ways, -1)


class Lookup(torch.autograd.Function):
    """Weighted sums of rows of a table: [N, C] from a table [V, C], rows [N, K] int32 and weights [N, K].

    On a CPU both ways are products with a sparse matrix, forward by torch, backward (its transpose) by SciPy: 3 and 5 times
    as fast there as `embedding_bag` and `index_add_`.
    """

    @staticmethod
    def forward(ctx, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(table, rows, weights)
        if table.is_cuda:
            return F.embedding_bag(rows, table, mode="sum", per_sample_weights=weights)
        matrix = torch.sparse_csr_tensor(_starts(rows), rows.reshape(-1), weights.reshape(-1).to(table.dtype),
                                         (len(rows), len(table)), check_invariants=False)
        return matrix @ table

    @staticmethod
    def backward(ctx, gradient: Tensor):
        table, rows, weights = ctx.saved_tensors
        for_table = for_weights = None
        if ctx.needs_input_grad[0]:
            for_table = _spread(gradient.contiguous(), rows, weights, len(table))
        if ctx.needs_input_grad[2]:
            for_weights = (table[rows.long()] * gradient[:, None]).sum(-1)
        return for_table, None, for_weights


def _starts(rows: Tensor) -> Tensor:
    return torch.arange(0, rows.numel() + 1, rows.shape[1], dtype=torch.int32, device=rows.device)


def _spread(gradient: Tensor, rows: Tensor, weights: Tensor, length: int) -> Tensor:
    """[length, C]: each of `gradient` [N, C], weighted, added to its rows."""
    if gradient.is_cuda:
        spread = (gradient[:, None] * weights[..., None]).flatten(0, 1)
        return gradient.new_zeros(length, gradient.shape[1]).index_add_(0, rows.reshape(-1), spread)
    from scipy.sparse import csc_matrix

    matrix = csc_matrix((weights.detach().reshape(-1).numpy(), rows.reshape(-1).numpy(), _starts(rows).numpy()),
                        shape=(length, len(rows)))
    return torch.from_numpy(matrix @ gradient.numpy())


with warnings.catch_warnings():  # torch tells once in a process that sparse matrices are young; here, unheard
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), (1, 1))
