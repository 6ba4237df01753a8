"""Runs out of the files that `s3dnerf benchmark` writes, and what the page says of them."""
from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Optional, Sequence

from s3dnerf.comparison.folder import read_json
from s3dnerf.comparison.run import Run, flattened

SPEEDS = {"frames_per_second_rendering": "rendering: frames per second", "frames_per_second_after_loading":
          "after loading: frames per second", "frames_per_second_end_to_end": "end to end: frames per second",
          "first_frame_seconds": "first frame: seconds", "total_seconds": "end to end: seconds",
          "images_per_second": "training: images per second", "loader_share": "training: share of waiting",
          "giga_operations_per_step": "training: GFLOP per step", "share_of_peak": "training: share of peak reached"}
"""what a report says by itself, and the figures' names"""
FRAME = {"giga_operations": "GFLOP", "megabytes": "megabytes", "share": "share of roofline reached"}
SETTINGS = ("quality", "frames", "width", "height", "weights", "device", "workers", "parameters", "steps", "precision")


def is_benchmark(path: Path) -> bool:
    """Whether a JSON file is one that `s3dnerf benchmark` wrote."""
    content = read_json(path)
    return isinstance(content, dict) and "machine" in content and ("stages" in content or "images_per_second" in content)


def read_benchmark(path: Path) -> Run:
    """The stages, speeds and memory of a benchmark of `speak` or of training; the machine's are its settings."""
    report = read_json(path)
    figures = {name: report[key] for key, name in SPEEDS.items() if key in report}
    for stage in report.get("stages", ()):
        figures[f"{stage['name']}: milliseconds per frame"] = stage["milliseconds"]
        figures[f"{stage['name']}: share of roofline reached"] = stage["share"]
    figures |= {f"a frame: {name}": report["frame"][key] for key, name in FRAME.items() if "frame" in report}
    figures |= {f"training, {name}: seconds": value for name, value in report.get("seconds", {}).items() if "stages" not in report}
    figures |= {f"memory of {name[:-3]}: megabytes": value for name, value in report["memory"].items()}
    config = flattened({name: report[name] for name in (*SETTINGS, "machine") if name in report})
    return Run(str(path), "benchmark", path.stem, config, whole={name: value for name, value in figures.items() if value is not None})


def ratio(run: Run, first: Run, figure: str) -> Optional[float]:
    """How many times the first benchmark's figure this one's is; None where that says nothing."""
    if run.kind != "benchmark" or first.kind != "benchmark" or not first.whole.get(figure) or figure not in run.whole:
        return None
    return run.whole[figure] / first.whole[figure]


def pace(run: Run, first: Run) -> str:
    """What was measured, and how much faster than in the first benchmark, in words."""
    what = "frames" if "end to end: frames per second" in run.whole else "steps"
    threads = run.config.get("machine.threads")
    told = f"{run.config.get(what)} {what} on {run.config.get('machine.name')}, {threads} thread{'' if threads == 1 else 's'}"
    for figure, word in (("end to end: frames per second", "end to end"), ("training: images per second", "in images per second")):
        found = ratio(run, first, figure)
        if found is not None and run is not first:
            return f"{escape(told)}; {found:.2f} times as fast as the first, {word}"
    return escape(told)


def machines_differ(runs: Sequence[Run]) -> bool:
    """Whether benchmarks were measured on different machines, or by other numbers of threads."""
    return len({(run.config.get("machine.name"), run.config.get("machine.threads")) for run in runs if run.kind == "benchmark"}) > 1
