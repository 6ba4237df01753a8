"""How sure a mean over clips is, and whether two of them differ."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Sequence

import numpy as np

DRAWS = 2000
"""bootstrap samples"""
FLAT = 1e-9
"""differences smaller than this, against the figures' size, are rounding"""


@dataclass(frozen=True)
class Interval:
    """A mean over clips and its 95 % interval."""

    mean: float
    low: Optional[float]
    """None for a single clip, which says nothing of others"""
    high: Optional[float]
    clips: int


def interval(values: Sequence[Optional[float]], draws: int = DRAWS, seed: int = 0) -> Optional[Interval]:
    """Mean of the finite numbers among values, with the percentile bootstrap's 95 % interval (Efron 1979); None without any.

    The draws are the same for the same number of values, so that a figure does not change by itself.
    """
    known = np.array([value for value in values if value is not None and np.isfinite(value)], np.float64)
    if not len(known):
        return None
    mean = float(known.mean())
    if len(known) == 1:
        return Interval(mean, None, None, 1)
    drawn = known[np.random.default_rng(seed).integers(len(known), size=(draws, len(known)))].mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(mean, float(low), float(high), len(known))


@dataclass(frozen=True)
class Difference:
    """By how much a figure of one run lies above that of another, on the clips that both have."""

    change: Interval
    p: float
    """of Wilcoxon's signed rank test, two sided; 1 where nothing differs"""


def difference(values: dict[str, float], others: dict[str, float]) -> Optional[Difference]:
    """Compares {clip: figure} with another's, clip by clip; None where fewer than two clips are in both."""
    from scipy.stats import wilcoxon

    pairs = np.array([(values[clip], others[clip]) for clip in values if clip in others], np.float64).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(1)]
    if len(pairs) < 2:
        return None
    changes = pairs[:, 0] - pairs[:, 1]
    changes[abs(changes) < FLAT * abs(pairs).max()] = 0.0
    p = float(wilcoxon(changes).pvalue) if changes.any() else 1.0
    return Difference(interval(changes), p)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for so many tests (Holm 1979): the i-th smallest, from 0, times len - i, never falling, at most 1."""
    corrected, floor = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        floor = max(floor, min(1.0, ps[index] * (len(ps) - rank)))
        corrected[index] = floor
    return corrected
