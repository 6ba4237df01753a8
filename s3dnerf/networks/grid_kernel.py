"""The look-up of `GridEncoding` and its gradients, for Triton: rows, weights and sums without anything written in between.

A program takes a block of points at one level. The names and the rows are those of `grid_encoding.py`.
"""
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def corner_of(points, point, corner: tl.constexpr, strides, level, cells, start, shared, dimensions: tl.constexpr,
              entries: tl.constexpr, hashed: tl.constexpr, without: tl.constexpr):
    """Rows of one corner, and its weights; those are the product over all axes but `without` (-1: over all)."""
    row, weight = point * 0, point * 0.0 + 1.0
    for axis in tl.static_range(dimensions):
        place = tl.minimum(tl.maximum(tl.load(points + point * dimensions + axis), 0.0), 1.0) * cells
        low = tl.minimum(place.to(tl.int32), cells - 1)
        share = place - low
        side = (low + ((corner >> axis) & 1)) * tl.load(strides + level * dimensions + axis)
        if hashed:
            row = tl.where(shared, row ^ side, row + side)
        else:
            row += side
        if axis != without:
            weight *= share if (corner >> axis) & 1 else 1 - share
    return start + tl.where(shared, row & (entries - 1), row), weight


@triton.jit
def look_up_kernel(points, table, cells, strides, starts, out, count, whole, dimensions: tl.constexpr, channels: tl.constexpr,
                   levels: tl.constexpr, entries: tl.constexpr, hashed: tl.constexpr, block: tl.constexpr):
    """Features [N, levels * channels] of points [N, dimensions]; the grid is [blocks of points, levels]."""
    level, number = tl.program_id(1), tl.program_id(0) * block + tl.arange(0, block)
    point, channel = tl.minimum(number, count - 1), tl.arange(0, channels)[None]
    side, start = tl.load(cells + level), tl.load(starts + level)
    found = (point * 0.0)[:, None] + tl.zeros((1, channels), tl.float32)
    for corner in tl.static_range(2 ** dimensions):
        row, weight = corner_of(points, point, corner, strides, level, side, start, level >= whole, dimensions, entries, hashed, -1)
        found += weight[:, None] * tl.load(table + row[:, None] * channels + channel)
    tl.store(out + (point * levels + level)[:, None] * channels + channel, found, mask=(number < count)[:, None])


@triton.jit
def gradient_kernel(points, table, cells, strides, starts, given, for_table, for_points, count, whole, dimensions: tl.constexpr,
                    channels: tl.constexpr, levels: tl.constexpr, entries: tl.constexpr, hashed: tl.constexpr,
                    of_points: tl.constexpr, block: tl.constexpr):
    """Adds the gradients that `given` [N, levels * channels] has for the table, and, where asked for, for the points."""
    level, number = tl.program_id(1), tl.program_id(0) * block + tl.arange(0, block)
    point, channel = tl.minimum(number, count - 1), tl.arange(0, channels)[None]
    real = number < count
    side, start = tl.load(cells + level), tl.load(starts + level)
    got = tl.load(given + (point * levels + level)[:, None] * channels + channel)
    for corner in tl.static_range(2 ** dimensions):
        row, weight = corner_of(points, point, corner, strides, level, side, start, level >= whole, dimensions, entries, hashed, -1)
        tl.atomic_add(for_table + row[:, None] * channels + channel, weight[:, None] * got, mask=real[:, None])
        if of_points:
            value = tl.sum(got * tl.load(table + row[:, None] * channels + channel), 1) * side
            for axis in tl.static_range(dimensions):
                _, others = corner_of(points, point, corner, strides, level, side, start, level >= whole, dimensions, entries,
                                      hashed, axis)
                change = value * others if (corner >> axis) & 1 else -value * others
                place = tl.load(points + point * dimensions + axis)
                tl.atomic_add(for_points + point * dimensions + axis, change, mask=real & (place >= 0) & (place <= 1))
