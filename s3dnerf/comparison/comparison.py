"""Several runs against the first of them: which settings differ, and which figures."""
from __future__ import annotations

import csv
import io
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Optional, Sequence

from s3dnerf.comparison.benchmark import is_benchmark, ratio, read_benchmark
from s3dnerf.comparison.folder import is_log, read_evaluation, read_run_folder
from s3dnerf.comparison.run import Run, distinct
from s3dnerf.comparison.wandb_run import offline_file, read_offline, read_online
from s3dnerf.errors import InputError
from s3dnerf.significance import Difference, Interval, difference, holm

LEVEL = 0.05
"""corrected p below which a difference is called one"""
MORE = {"psnr", "ssim", "corr", "correlation", "auc", "iou", "csim", "accuracy", "within", "sync", "judge", "faces", "second", "reached"}
LESS = {"lmd", "lpips", "fid", "kid", "offset", "flicker", "error", "aue", "features", "loss", "seconds",
        "milliseconds", "megabytes", "waiting"}
NEITHER = {"lag", "spread", "rate", "ratio", "truth"}
"""words in figures' names by which more, or less, of it is better; one with none of them, or of the last, has an optimum of its
own (a spread ratio, an opacity, jitter)"""

Verdict = Literal["better", "worse", "differs", "same", "open"]


@dataclass(frozen=True)
class Cell:
    """A figure of a run, and how it stands to the first run's."""

    mean: Optional[Interval]
    change: Optional[Difference] = None
    """None for the first run, and without two clips in common"""
    p: Optional[float] = None
    """the change's, corrected for all tests of the comparison"""
    verdict: Verdict = "open"
    """open where nothing was tested"""
    ratio: Optional[float] = None
    """of a benchmark: how many times the first one's figure it is"""


@dataclass(frozen=True)
class Comparison:
    """Runs, of which the first is what the others are compared with."""

    runs: list[Run]
    """with distinct names"""
    settings: dict[str, list[Any]]
    """those in which runs differ, by dotted key: a value per run, None where a run does not have it"""
    figures: dict[str, list[Cell]]
    """by name, a cell per run"""

    def counts(self, index: int) -> dict[str, int]:
        """How many figures of a run have each verdict."""
        verdicts = [cells[index].verdict for cells in self.figures.values()]
        return {verdict: verdicts.count(verdict) for verdict in ("better", "worse", "differs", "same", "open")}


def read(paths: Sequence[str], cache: Path) -> list[Run]:
    """The runs of folders, reports, checkpoints, and entity/project/run of wandb, with names that tell them apart.

    InputError for fewer than two, for one that is given twice, and for what is none of these.
    """
    from s3dnerf.progress import Progress

    if len(paths) < 2:
        raise InputError(f"found {len(paths)} run to compare; give two or more: s3dnerf compare RUN RUN --output page.html")
    twice = [path for path in paths if list(paths).count(path) > 1]
    if twice:
        raise InputError(f"{twice[0]} is given twice; name every run once")
    runs, progress = [], Progress("reading", len(paths), "runs")
    for path in paths:
        runs.append(read_one(path, cache))
        progress.advance()
    progress.finish()
    return [replace(run, name=name) for run, name in zip(runs, distinct(runs))]


def read_one(path: str, cache: Path) -> Run:
    """A run, from whatever the path names."""
    place = Path(path)
    if place.suffix == ".wandb" and place.is_file():
        return read_offline(place)
    if place.suffix == ".json" and place.is_file():
        return read_benchmark(place) if is_benchmark(place) else read_evaluation(place)
    if place.is_dir() and not any(map(is_log, place.rglob("metrics.csv"))) and not (place / "figures.json").is_file():
        if (place / "report.json").is_file():
            return read_evaluation(place / "report.json")
        if log := offline_file(place):
            return read_offline(log)
    if place.exists():
        return read_run_folder(place)
    if re.fullmatch(r"[\w.-]+/[\w.-]+/[\w.-]+", path) and not place.parent.is_dir():  # else a folder's name is wrong
        return read_online(path, cache)
    raise InputError(f"no run {path}; expected the folder of a run, the JSON of an evaluation or a benchmark, or entity/project/run of wandb")


def compared(runs: list[Run]) -> Comparison:
    """The comparison of runs with the first. Every test of it counts in the correction."""
    names = list(dict.fromkeys(figure for run in runs for figure in run.figures))
    changes = {(name, index): difference(run.values(name), runs[0].values(name))
               for name in names for index, run in enumerate(runs) if index}
    tested = [key for key, change in changes.items() if change is not None]
    corrected = dict(zip(tested, holm([changes[key].p for key in tested])))
    figures = {}
    for name in names:
        figures[name] = [Cell(run.mean(name), change := changes.get((name, index)), p := corrected.get((name, index)),
                              verdict(name, change, p), ratio(run, runs[0], name) if index else None)
                         for index, run in enumerate(runs)]
    keys = sorted({key for run in runs for key in run.config})
    settings = {key: [run.config.get(key) for run in runs] for key in keys}
    differing = {key: values for key, values in settings.items() if any(value != values[0] for value in values)}
    return Comparison(runs, differing, {name: cells for name, cells in figures.items() if any(cell.mean for cell in cells)})


def verdict(figure: str, change: Optional[Difference], p: Optional[float]) -> Verdict:
    """What a corrected test says of a change."""
    if change is None or p is None:
        return "open"
    if p >= LEVEL:
        return "same"
    sign = better(figure) * change.change.mean
    return "differs" if sign == 0 else "better" if sign > 0 else "worse"


def better(figure: str) -> int:
    """1 where more of a figure is better, -1 where less is, 0 where neither is known."""
    words = set(re.split(r"[^a-z]+", figure.rsplit(": ", 1)[-1].lower()))
    judged = bool(words & {"sync", "judge"})
    if words & NEITHER or (judged and "offset" in words):  # that offset has a sign
        return 0
    if judged and "d" in words:
        return -1
    return 1 if words & MORE else -1 if words & LESS else 0


def rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The table of figures, a row per run and figure, as the CSV has it."""
    table = []
    for figure, cells in comparison.figures.items():
        for run, cell in zip(comparison.runs, cells):
            mean, change = cell.mean, cell.change.change if cell.change else None
            table.append({"run": run.name, "figure": figure, "clips": mean.clips if mean else 0,
                          "mean": mean.mean if mean else None, "low": mean.low if mean else None,
                          "high": mean.high if mean else None, "paired_clips": change.clips if change else None,
                          "change": change.mean if change else None, "change_low": change.low if change else None,
                          "change_high": change.high if change else None, "p": cell.change.p if cell.change else None,
                          "p_holm": cell.p, "verdict": cell.verdict if cell.change else "", "ratio": cell.ratio})
    return table


def as_csv(comparison: Comparison) -> str:
    """The rows as text."""
    table, text = rows(comparison), io.StringIO()
    writer = csv.DictWriter(text, list(table[0]) if table else ["run", "figure"])
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def compare(paths: Sequence[str], output: Path, push: Optional[str] = None, embed: float = 30.0) -> Comparison:
    """Writes the page, and the CSV beside it, and sends both to wandb where asked; see `commands.compare`."""
    from s3dnerf.comparison.page import Media, page
    from s3dnerf.comparison.push import pushed, target_of
    from s3dnerf.data.shards import write_whole

    if push is not None:
        target_of(push)  # told before the work
    with tempfile.TemporaryDirectory() as cache:
        comparison = compared(read(paths, Path(cache)))
        write_whole(output, page(comparison, Media(output, embed, Path(cache))).encode())
    write_whole(output.with_suffix(".csv"), as_csv(comparison).encode())
    if push is not None:
        pushed(comparison, output, push)
    return comparison
