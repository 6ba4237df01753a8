"""Curves of several runs as inline SVG, which needs no script to be seen."""
from __future__ import annotations

import json
import math
from dataclasses import dataclass
from html import escape
from typing import Optional, Sequence

import numpy as np

from s3dnerf.comparison.run import INTERVAL, Point, Run

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 28
MOST = 300
"""points of a curve that are drawn; of more, neighbours are averaged"""
COLOURS = 8
"""of runs, in page.css; the ninth run has the first one's again"""
SMOOTHED = 40
"""points from which on a curve is drawn smoothed, with the raw one pale behind it"""


@dataclass(frozen=True)
class Frame:
    """What of the plane a chart shows."""

    left: float
    right: float
    bottom: float
    top: float

    def x(self, value: float) -> float:
        """Pixels from the left."""
        return LEFT + (value - self.left) / (self.right - self.left) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        return HEIGHT - BOTTOM - (value - self.bottom) / (self.top - self.bottom) * (HEIGHT - TOP - BOTTOM)


def chart(name: str, runs: Sequence[Run]) -> str:
    """A figure element with the curve of every run that has one of that name, and the bounds of its interval."""
    curves = [(index, thinned(run.curves[name])) for index, run in enumerate(runs) if run.curves.get(name)]
    bands = [(index, found) for index, run in enumerate(runs) if (found := band(name, run))]
    frame = framed([point for _, curve in curves for point in curve], [point for _, found in bands for point in found])
    marks = [area(index, found, frame) for index, found in bands]
    for index, curve in curves:
        if len(curve) >= SMOOTHED:
            marks += [line(index, curve, frame, "raw"), line(index, smoothed(curve), frame)]
        else:
            marks.append(line(index, curve, frame))
    told = "; ".join(f"{runs[index].name} ends at {short(curve[-1][1])}" for index, curve in curves)
    data = [{"name": runs[index].name, "points": [[x, float(f"{y:.5g}")] for x, y in curve]} for index, curve in curves]
    return (f'<figure class="chart"><figcaption>{escape(name)}</figcaption>'
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{name}: {told}")}" '
            f'data-frame="{frame.left},{frame.right},{frame.bottom},{frame.top}" data-curves="{escape(json.dumps(data))}">'
            f'{axes(frame)}{"".join(marks)}<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/></svg>'
            '<output class="tip" hidden></output></figure>')


def band(name: str, run: Run) -> list[tuple[float, float, float]]:
    """Step, lower and upper bound of a validation figure where the log has them."""
    stem = name.replace("val/", INTERVAL, 1)
    low, high = (dict(run.curves.get(f"{stem}_{bound}", [])) for bound in ("low", "high"))
    return [(step, low[step], high[step]) for step in sorted(low) if step in high]


def framed(points: Sequence[Point], bounds: Sequence[tuple[float, float, float]]) -> Frame:
    """A frame around points and bounds, with some air above and below."""
    steps = [point[0] for point in points]
    values = [point[1] for point in points] + [value for bound in bounds for value in bound[1:]]
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    first, last = min(steps), max(steps)
    return Frame(first - (0.5 if first == last else 0), last + (0.5 if first == last else 0), low - air, high + air)


def thinned(curve: Sequence[Point]) -> list[Point]:
    """A curve of at most `MOST` points."""
    if len(curve) <= MOST:
        return list(curve)
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in np.array_split(np.array(curve), MOST)]


def smoothed(curve: Sequence[Point]) -> list[Point]:
    """An exponential average over about a twentieth of the curve, unbiased at its beginning."""
    keep, total, weight, found = 1 - 1 / max(2.0, len(curve) / 20), 0.0, 0.0, []
    for step, value in curve:
        total, weight = keep * total + value, keep * weight + 1
        found.append((step, total / weight))
    return found


def line(index: int, curve: Sequence[Point], frame: Frame, kind: str = "") -> str:
    """A curve; one of a single point is a dot."""
    points = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in curve)
    if len(curve) == 1:
        x, y = points.split(",")
        return f'<circle class="run{index % COLOURS}" cx="{x}" cy="{y}" r="4"/>'
    return f'<polyline class="run{index % COLOURS} {kind}" points="{points}"/>'


def area(index: int, bounds: Sequence[tuple[float, float, float]], frame: Frame) -> str:
    """The region between bounds; for a single step a bar."""
    if len(bounds) == 1:
        step, low, high = bounds[0]
        x = frame.x(step)
        return f'<line class="run{index % COLOURS}" x1="{x:.1f}" x2="{x:.1f}" y1="{frame.y(low):.1f}" y2="{frame.y(high):.1f}"/>'
    outline = [(step, low) for step, low, _ in bounds] + [(step, high) for step, _, high in reversed(bounds)]
    points = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in outline)
    return f'<polygon class="run{index % COLOURS}" points="{points}"/>'


def axes(frame: Frame) -> str:
    """Grid lines with their values, steps below."""
    parts = []
    for value in ticks(frame.bottom, frame.top, 5):
        y = frame.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                     f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>')
    for value in ticks(frame.left, frame.right, 5):
        if value == int(value):
            parts.append(f'<text x="{frame.x(value):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{int(value):,}</text>')
    return "".join(parts)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between two others, at most so many and one."""
    size = (high - low) / most
    power = 10.0 ** math.floor(math.log10(size))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= size * 0.999)
    return [float(f"{number * step:.12g}") for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def short(value: Optional[float]) -> str:
    """A number in four digits; a dash for none."""
    if value is None:
        return "–"
    if value and abs(value) < 1e-3:
        return f"{value:.2g}"
    digits = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{min(digits, 4)}f}" if abs(value) < 1e5 else f"{value:.3g}"
