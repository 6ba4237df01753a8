"""The look-up of `GridEncoding` in one kernel each way (`grid_kernel.py`)."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from s3dnerf.device import kernels_work

BLOCK = 128
"""points that a program looks up, at one level"""


def fusable(grid: nn.Module, points: Tensor) -> bool:
    """Whether the kernel takes a grid's points: on a GPU, in single precision, channels a power of two."""
    return points.is_cuda and known(grid, points) and kernels_work(points.device)


def known(grid: nn.Module, points: Tensor) -> bool:
    """The same wherever they are."""
    return (points.dtype == grid.table.dtype == torch.float32 and grid.channels & (grid.channels - 1) == 0 and len(points) > 0)


class FusedLookup(torch.autograd.Function):
    """Features [N, levels * channels] of points [N, D] in a grid whose table is given; as `GridEncoding.forward`. Gradients are
    added up in no fixed order."""

    @staticmethod
    def forward(ctx, points: Tensor, table: Tensor, grid: nn.Module, block: int = BLOCK) -> Tensor:
        from s3dnerf.networks.grid_kernel import look_up_kernel

        points, table = points.contiguous(), table.contiguous()
        ctx.save_for_backward(points, table)
        ctx.grid, ctx.block = grid, block
        found = points.new_empty(len(points), grid.out_channels)
        look_up_kernel[_programs(points, grid, block)](
            points, table, grid.cells, grid.strides, grid.starts, found, len(points), grid.whole, *_shape(grid), block)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        from s3dnerf.networks.grid_kernel import gradient_kernel

        (points, table), grid = ctx.saved_tensors, ctx.grid
        for_table, of_points = torch.zeros_like(table), ctx.needs_input_grad[0]
        for_points = torch.zeros_like(points) if of_points else None
        gradient_kernel[_programs(points, grid, ctx.block)](
            points, table, grid.cells, grid.strides, grid.starts, gradient.contiguous(), for_table,
            for_points if of_points else for_table, len(points), grid.whole, *_shape(grid), of_points, ctx.block)
        return for_points, for_table, None, None


def _programs(points: Tensor, grid: nn.Module, block: int) -> tuple[int, int]:
    return -(-len(points) // block), len(grid.resolutions)


def _shape(grid: nn.Module) -> tuple[int, int, int, int, bool]:
    """What kernels are compiled for."""
    return grid.dimensions, grid.channels, len(grid.resolutions), grid.entries, grid.kind == "hash"
