"""What is known of a run, wherever it was kept."""
from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

from s3dnerf.significance import Interval, interval

Point = tuple[float, float]
"""step, value"""
INTERVAL = "interval/"
"""prefix of the columns of a log that hold the bounds of validation figures"""


@dataclass(frozen=True)
class Run:
    """A run that is to be compared. What its source does not know is empty."""

    source: str
    """where it was read from"""
    kind: str
    """training, ablation, wandb, evaluation, or benchmark"""
    name: str = ""
    """what it calls itself"""
    config: dict[str, Any] = field(default_factory=dict)
    """dotted key to scalar or list"""
    commit: str = ""
    """git commit, with a + where files were changed since"""
    curves: dict[str, list[Point]] = field(default_factory=dict)
    """by name, such as val/psnr or train/total, in order of steps"""
    clips: dict[str, dict[str, Optional[float]]] = field(default_factory=dict)
    """clip to figure to value, of the newest validation or the evaluation"""
    whole: dict[str, float] = field(default_factory=dict)
    """figures of all clips together, such as FID"""
    videos: dict[str, Path] = field(default_factory=dict)
    """clip to video with sound"""
    pictures: dict[str, Path] = field(default_factory=dict)
    """clip to picture of where speech reaches"""
    recordings: dict[str, Path] = field(default_factory=dict)
    """clip to what was recorded, with sound"""

    @property
    def figures(self) -> list[str]:
        """Names of what was measured: of clips, or else the last values of the validation's curves."""
        of_clips = dict.fromkeys(name for row in self.clips.values() for name, value in row.items() if value is not None)
        return [*of_clips, *self.whole] or list(self.validation)

    @property
    def validation(self) -> dict[str, list[Point]]:
        """The curves of validation figures, by the figures' names."""
        return {name.replace("val/", "", 1): curve for name, curve in self.curves.items() if "val/" in name and curve}

    def mean(self, figure: str) -> Optional[Interval]:
        """A figure's mean over clips with its interval; else that of all clips together, or the curve's last value."""
        found = interval([row.get(figure) for row in self.clips.values()])
        curve = None if self.clips else self.validation.get(figure)
        last = self.whole.get(figure, curve[-1][1] if curve else None)
        return found or (None if last is None else Interval(last, None, None, 0))

    def values(self, figure: str) -> dict[str, float]:
        """A figure of every clip that has it."""
        return {clip: row[figure] for clip, row in self.clips.items() if row.get(figure) is not None}

    @property
    def steps(self) -> Optional[int]:
        """Training steps that the log reaches."""
        trained = [curve[-1][0] for name, curve in self.curves.items() if "train/" in name and curve]
        return int(max(trained)) + 1 if trained else None


def flattened(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key: `init_args` is left out, a class stands under the name of what it fills, and entries of a
    list of classes under their names."""
    if isinstance(content, dict) and content:
        flat = {}
        for key, value in content.items():
            inner = prefix if key in ("init_args", "class_path") else f"{prefix}.{key}" if prefix else str(key)
            flat |= {inner: str(value).split(".")[-1]} if key == "class_path" else flattened(value, inner)
        return flat
    if isinstance(content, list) and content and all(isinstance(entry, dict) for entry in content):
        named = [(str(entry.get("class_path", index)).split(".")[-1], entry) for index, entry in enumerate(content)]
        return {key: value for name, entry in named for key, value in flattened(entry, f"{prefix}.{name}").items()}
    return {prefix: content} if prefix else {}


def without_place(config: dict[str, Any], place: Path) -> dict[str, Any]:
    """Settings in which paths below a run's own folder begin with RUN, since every run has a folder of its own."""
    names = sorted({str(place), str(place.resolve())}, key=len, reverse=True)

    def told(value: Any) -> Any:
        if isinstance(value, str):
            for name in names:
                value = value.replace(name, "RUN")
        return value

    return {key: told(value) for key, value in config.items()}


def number(text: Any) -> Optional[float]:
    """A finite number out of a cell of a table; None for anything else."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def curves_of(rows: Sequence[dict[str, Any]], prefix: str = "") -> dict[str, list[Point]]:
    """Columns of a log, whose rows have a `step`, as curves; of several values at a step the last one counts."""
    curves: dict[str, dict[float, float]] = {}
    for row in rows:
        step = number(row.get("step"))
        for name, cell in row.items():
            value = number(cell)
            if "/" in name and step is not None and value is not None:
                curves.setdefault(prefix + name, {})[step] = value
    return {name: sorted(points.items()) for name, points in curves.items()}


def commit_of(about: Optional[dict[str, Any]]) -> str:
    """A git commit in a word: its first ten digits, and + where files were changed since."""
    return f"{about['commit'][:10]}{'+' if about.get('dirty') else ''}" if about and about.get("commit") else ""


def distinct(runs: Sequence[Run]) -> Iterator[str]:
    """A name for every run: its own where nobody else has it, or else the parts of its path in which it differs."""
    own, parts = [run.name for run in runs], [run.source.rstrip("/").split("/") for run in runs]
    for end in (0, -1):
        while min(map(len, parts)) > 1 and len({path[end] for path in parts}) == 1:
            parts = [path[1:] if end == 0 else path[:-1] for path in parts]
    for number_, (name, path) in enumerate(zip(own, parts), 1):
        place = "/".join(path[-3:])
        repeated = sum(other == path for other in parts) > 1
        yield name if name and own.count(name) == 1 else f"{place} ({number_})" if repeated else place
