"""Runs out of the folders that training, ablations and evaluations leave."""
from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any, Optional

import yaml

from s3dnerf.comparison.run import Run, commit_of, curves_of, flattened, number, without_place
from s3dnerf.errors import InputError

VERSION = re.compile(r"version_(\d+)$")
RENDERING = re.compile(r"(.+)-step(\d+)-(speech\.mp4|regions\.png|recording\.mp4)$")


def read_run_folder(path: Path) -> Run:
    """A run of `s3dnerf fit`, of `s3dnerf train` (all its stages), a stage, or a variant of scripts/ablations.py.

    `path` is any folder above one run's logs (metrics.csv), or a checkpoint in it. InputError where there are none.
    """
    folder = path
    if path.is_file():
        folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    stages = log_folders(folder)
    measured = folder / "figures.json"
    ablation = read_clip_list(measured, "clips") if measured.is_file() else {}
    if not stages and not ablation:
        raise InputError(f"no log (metrics.csv), figures.json or wandb run in {path}; give the folder of a run, such as "
                         "runs/one_shot/version_0")
    several, curves, config, clips = len(stages) > 1, {}, {}, {}
    for stage, versions in stages.items():
        prefix = f"{stage}: " if several else ""
        curves |= curves_of(continued([read_csv(version / "metrics.csv") for version in versions]), prefix)
        config |= flattened({stage: settings(versions[-1])} if several else settings(versions[-1]))
        clips = merged(clips, newest_clips(versions, prefix))
    newest = [version for versions in stages.values() for version in versions]
    renderings = files_of([folder.parent / "recording", folder, *newest])
    return Run(str(path), "ablation" if ablation else "training", config=without_place(config, folder),
               commit=newest_commit(newest), curves=curves, clips=ablation or clips, videos=renderings["speech.mp4"],
               pictures=renderings["regions.png"], recordings=renderings["recording.mp4"])


def read_evaluation(path: Path) -> Run:
    """The report of `s3dnerf evaluate`; its protocol and networks are what is compared as the configuration. Videos (mp4)
    are taken from the folder that it names, or from its own."""
    content = read_json(path)
    if not isinstance(content, dict) or "clips" not in content or "protocol" not in content:
        raise InputError(f"{path} is no evaluation report; expected the JSON file that `s3dnerf evaluate` writes")
    rows = clip_rows(content["clips"], path)
    clips = {clip: {name: value for name, value in row.items() if name != "frames"} for clip, row in rows.items()}
    place = (path.parent / (content.get("generated") or "")).resolve()
    places = [path.parent, place.parent if place.is_file() else place]  # reports are sent away with videos beside them
    made = {clip: video for folder in places for clip in clips if (video := folder / f"{clip}.mp4").is_file()}
    config = flattened({name: content[name] for name in ("protocol", "networks") if name in content})
    known = {name for row in clips.values() for name, value in row.items() if value is not None}
    whole = {name: found["mean"] for name, found in content.get("means", {}).items() if name not in known}
    return Run(str(path), "evaluation", config=config, clips=clips, whole=whole, videos=made)


def log_folders(folder: Path) -> dict[str, list[Path]]:
    """The folders with a log, by stage ("" for a run without), versions in order. A run that ended before its first line of figures
    has a run.json alone."""
    found: dict[str, list[Path]] = {}
    logs = {path.parent for name in ("metrics.csv", "run.json") for path in folder.rglob(name) if is_log(path)}
    for log in sorted(logs, key=lambda log: (log.stat().st_mtime, str(log))):
        parts = [part for part in log.relative_to(folder).parts if not VERSION.match(part) and part != "log"]
        found.setdefault("/".join(parts), []).append(log)
    number_of = lambda path: int(match[1]) if (match := VERSION.search(path.name)) else 0
    return {stage: lasting(sorted(versions, key=number_of)) for stage, versions in found.items()}


def is_log(path: Path) -> bool:
    """Whether a metrics.csv or run.json is of a training: neither of a test, nor what `s3dnerf personalize` keeps of its command."""
    if path.name == "run.json":
        return "git" in read_json(path)
    with path.open(newline="", encoding="utf-8") as file:
        names = set(next(csv.reader(file), ())) - {"step", "epoch"}
    return not names or not all(name.startswith("test/") for name in names)


def lasting(versions: list[Path]) -> list[Path]:
    """The versions of a run without those that a later one, which began anew, has replaced."""
    kept, begun = [], 0.0
    for version in versions:
        steps = [step for row in read_csv(version / "metrics.csv") if (step := number(row.get("step"))) is not None]
        if kept and steps and min(steps) <= begun:
            kept = []
        if steps and (not kept or not begun):
            begun = min(steps)
        kept.append(version)
    return kept


def continued(logs: list[list[dict[str, str]]]) -> list[dict[str, str]]:
    """The rows of a run's logs: one that begins later than the first one goes on with it, from its own first step; one that does
    not began anew, and takes its place."""
    rows: list[dict[str, str]] = []
    first = lambda log: min((step for row in log if (step := number(row.get("step"))) is not None), default=0.0)
    for log in logs:
        goes_on = rows and log and first(log) > first(rows)
        rows = [row for row in rows if goes_on and (number(row.get("step")) or 0.0) < first(log)] + log if log else rows
    return rows


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_json(path: Path) -> Any:
    """The content of a JSON file; InputError for one that is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}); write it again") from None


def settings(version: Path) -> dict:
    """What a run was told to do: its config.yaml, or else what the logger kept of it."""
    for name in ("config.yaml", "hparams.yaml"):
        if (version / name).is_file():
            try:
                content = yaml.safe_load((version / name).read_text(encoding="utf-8"))
            except yaml.YAMLError:  # hparams.yaml may name Python objects
                continue
            if isinstance(content, dict):
                return content
    return {}


def newest_clips(versions: list[Path], prefix: str) -> dict[str, dict[str, Optional[float]]]:
    """The figures of every clip in the newest validation of a run's logs."""
    rows = next(filter(None, (read_csv(version / "clips.csv") for version in reversed(versions))), [])
    last = max((int(row["step"]) for row in rows), default=0)
    return {row["clip"]: {prefix + name: number(cell) for name, cell in row.items() if name not in ("step", "clip")}
            for row in rows if int(row["step"]) == last}


def read_clip_list(path: Path, key: str) -> dict[str, dict[str, Optional[float]]]:
    """The rows under a key of a JSON file, by clip; empty where it has none (the figures of `s3dnerf train`)."""
    content = read_json(path)
    return clip_rows(content[key], path) if isinstance(content, dict) and key in content else {}


def clip_rows(rows: list[dict[str, Any]], path: Path) -> dict[str, dict[str, Optional[float]]]:
    """Rows with a `clip` and figures, by clip; InputError for rows without one."""
    if not all(isinstance(row, dict) and "clip" in row for row in rows):
        raise InputError(f"{path}: found a row without the name of its clip; expected 'clip' in each: measure again")
    return {str(row["clip"]): {name: number(value) for name, value in row.items() if name != "clip"} for row in rows}


def merged(clips: dict, more: dict) -> dict:
    """Two tables of figures by clip in one."""
    return {clip: clips.get(clip, {}) | more.get(clip, {}) for clip in [*clips, *(clip for clip in more if clip not in clips)]}


def newest_commit(versions: list[Path]) -> str:
    """The commit of the newest log that knows one."""
    known = [path for version in versions if (path := version / "run.json").is_file()]
    return commit_of(read_json(known[-1]).get("git")) if known else ""


def files_of(folders: list[Path]) -> dict[str, dict[str, Path]]:
    """What LogRenderings, or scripts/ablations.py, left in folders: by ending, the newest of every clip."""
    found: dict[str, dict[str, tuple[int, Path]]] = {"speech.mp4": {}, "regions.png": {}, "recording.mp4": {}}
    for folder in folders:
        for path in sorted((folder / "renderings").glob("*")):
            if match := RENDERING.match(path.name):
                step, known = int(match[2]), found[match[3]].get(match[1])
                if known is None or step >= known[0]:
                    found[match[3]][match[1]] = (step, path)
    return {ending: {clip: path for clip, (_, path) in files.items()} for ending, files in found.items()}
