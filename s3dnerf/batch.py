"""Many videos from one table: weights are loaded once, photos encoded once, and what fails does not stop the rest."""
from __future__ import annotations

import csv
import os
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from s3dnerf.errors import InputError, S3DNeRFError
from s3dnerf.media import check_file

TRIES = 3
"""times that a row is tried whose failure is not the user's mistake"""
PAUSE = 2.0
"""seconds before a row is tried again"""
IDENTITIES = 16
"""photos that are kept encoded"""
SUMMARY = ("row", "output", "status", "tries", "frames", "seconds", "message")
"""columns of the summary"""


class Speaker:
    """Carries out the options of `commands.speak`, one video after another; weights stay loaded.

    Args:
        identities: how many encoded photos are kept for the videos to come.
    """

    def __init__(self, identities: int = 0):
        self.identities, self.heads, self.seen = identities, {}, OrderedDict()

    def make(self, options: dict) -> dict:
        """Makes one video, and returns its statistics (`Statistics.as_dict`); raises what `TalkingHead.speak` and `save` raise."""
        from s3dnerf.commands.options import POSES, check_paths, chosen_marks, numbers, write_json

        options = dict(options)
        photo, pose, background, output = (options.pop(name) for name in ("photo", "pose", "background", "output"))
        sheet, report, split, engine = (options.pop(name) for name in ("sheet", "json", "split", "engine"))
        if split < 1:
            raise InputError(f"found --split {split}; expected 1 or more")
        check_paths({"--photo": photo, "--speech": options["speech"], "--drive": options["drive"],
                     "--pose": None if pose in POSES else pose, "--background": background if os.path.isfile(background) else None},
                    {"--output": output, "--json": report, "--sheet": sheet})
        marks = chosen_marks(*(options.pop(name) for name in ("label", "consent", "certificate", "key", "manifest", "unmarked")))
        view = numbers(options.pop("camera"))
        head, loading = self.head(options.pop("weights"), options.pop("device"), options.pop("identity_cache"))
        video = head.speak(self.identity(head, photo), camera=view, pose=pose, background=background, progress=True, **options)
        for remark in video.statistics.remarks:
            print(f"s3dnerf: note: {remark}", file=sys.stderr)
        video.statistics.stopwatch.add("load", loading)
        if split != 1 or engine != "local":
            from s3dnerf.splitting import SplitVideo

            video = SplitVideo(video, split, engine)
        statistics = video.save(output, sheet, progress=True, marks=marks).as_dict()
        if report is not None:
            write_json(statistics, report)
        print(f"{output}: {statistics['frames']} frames, {statistics['width']} x {statistics['height']}, "
              f"{statistics['quality']} quality, {statistics['frames_per_second_end_to_end']:.1f} frames per second end to end",
              flush=True)
        return statistics

    def head(self, weights: str, device: str, identity_cache: str = "off"):
        """The `TalkingHead` of weights on a device, and the seconds that loading took now."""
        begin = time.perf_counter()
        from s3dnerf.identities import IdentityFolder
        from s3dnerf.inference import TalkingHead

        settings = weights, device, identity_cache
        if settings not in self.heads:
            folder = IdentityFolder.users_own() if identity_cache == "auto" else identity_cache
            folder = None if identity_cache == "off" else folder
            self.heads[settings] = TalkingHead.load(weights, device, folder)
        return self.heads[settings], time.perf_counter() - begin

    def identity(self, head, photo: Optional[str]):
        """A photo as it is, or encoded where encoded ones are kept."""
        if photo is None or not self.identities:
            return photo
        name = head, Path(photo).resolve(), os.stat(photo).st_mtime_ns
        if name not in self.seen:
            self.seen[name] = head.identify(photo)
        self.seen.move_to_end(name)
        if len(self.seen) > self.identities:
            self.seen.popitem(last=False)
        return self.seen[name]


@dataclass
class Job:
    """A row of the table and what became of it."""

    row: int
    """line in the table, counted from 1 after the names of the columns"""
    output: str
    options: dict[str, str]
    """column -> what stands there, where anything does"""
    status: str = "waiting"
    """waiting, done, skipped (the output was there before), failed"""
    tries: int = 0
    frames: int = 0
    seconds: float = 0.0
    message: str = ""
    """why it failed"""


def speak_batch(options: dict, table: str, make: Optional[Callable[[dict], dict]] = None) -> int:
    """Makes the videos of a table; see docs/batch.md.

    Args:
        options: of `commands.speak`, for what the table has no column or an empty cell.
        table: CSV whose columns are options of `speak`; `output` is one of them.
        make: what makes a video of options; None is `Speaker.make`.

    Returns:
        1 where a row failed, else 0.

    Raises:
        InputError: for a table that cannot be read, an unknown column, rows without an output or with the same one.
    """
    jobs = read_jobs(table)
    summary = Path(table).with_suffix(".summary.csv")
    make = make or Speaker(IDENTITIES).make
    begin = time.monotonic()
    for done, job in enumerate(jobs):
        print(f"s3dnerf: row {job.row} of {len(jobs)}: {job.output}{_left(jobs[:done], len(jobs) - done)}", file=sys.stderr, flush=True)
        try:
            carry_out(job, options, make)
        finally:
            write_summary(jobs, summary)
        if job.status == "failed":
            print(f"s3dnerf: row {job.row}: {job.message}", file=sys.stderr, flush=True)
    counts = ", ".join(f"{sum(job.status == status for job in jobs)} {status}" for status in ("done", "skipped", "failed"))
    print(told(jobs), f"{counts}, in {time.monotonic() - begin:.0f} s; {summary}", sep="\n")
    return int(any(job.status == "failed" for job in jobs))


def read_jobs(table: str) -> list[Job]:
    """The rows of a table. InputError where it is no such table, names a column that is no option, or an output twice or never."""
    import inspect

    from s3dnerf.commands import speak

    known = set(inspect.signature(speak).parameters) - {"batch"}
    try:
        with check_file(table, "table").open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{table} is no table that can be read ({error}); expected CSV, UTF-8, its first line the columns") from None
    if not rows:
        raise InputError(f"{table} has no rows; expected columns such as photo,speech,output in the first line, and a video in "
                         "each other")
    names = {name: (name or "").strip().lstrip("-").replace("-", "_") for name in rows[0]}
    if wrong := [str(name) for name, plain in names.items() if plain not in known]:
        raise InputError(f"{table} has the column {wrong[0]!r}, which is no option of speak; expected some of "
                         f"{', '.join(sorted(name.replace('_', '-') for name in known))}")
    jobs, outputs = [], {}
    for row, cells in enumerate(rows, 1):
        given = {names[name]: cell.strip() for name, cell in cells.items() if name in names and cell and cell.strip()}
        output = given.get("output")
        if output is None:
            raise InputError(f"row {row} of {table} names no output; give every row its own")
        if Path(output).resolve() in outputs:
            raise InputError(f"rows {outputs[Path(output).resolve()]} and {row} of {table} have the same output {output}; give every "
                             "row its own")
        outputs[Path(output).resolve()] = row
        jobs.append(Job(row, output, given))
    return jobs


def carry_out(job: Job, options: dict, make: Callable[[dict], dict]) -> None:
    """Makes the video of a row, in several tries unless it is the user who must mend it; notes how it went."""
    from s3dnerf.cli import parse

    if Path(job.output).is_file():
        job.status = "skipped"
        return
    begin = time.monotonic()
    for job.tries in range(1, TRIES + 1):
        try:
            row = parse("speak", [f"--{name}={value}" for name, value in job.options.items()], options)
            row.pop("batch")
            job.frames = make(row)["frames"]
            job.status, job.message = "done", ""
            break
        except S3DNeRFError as error:
            job.status, job.message = "failed", str(error)
            break
        except Exception as error:  # memory, a driver, a disk: the next try, or the next row, may fare better
            job.status, job.message = "failed", f"{type(error).__name__}: {' '.join(str(error).split())}"
            if job.tries < TRIES:
                time.sleep(PAUSE)
    job.seconds = time.monotonic() - begin


def write_summary(jobs: list[Job], path: Path) -> None:
    """Writes the summary as CSV, a line for each row; it appears whole."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(SUMMARY)
        writer.writerows(_cells(job) for job in jobs)
    os.replace(part, path)


def told(jobs: list[Job]) -> str:
    """The summary as a table to be read."""
    lines = [SUMMARY, *(tuple(map(str, _cells(job))) for job in jobs)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(SUMMARY) - 1)]
    return "\n".join("  ".join([*(cell.ljust(width) for cell, width in zip(line, widths)), line[-1]]).rstrip() for line in lines)


def _cells(job: Job) -> tuple:
    return job.row, job.output, job.status, job.tries, job.frames, f"{job.seconds:.1f}", job.message


def _left(before: list[Job], rest: int) -> str:
    """How long the rest may take, from the videos made so far."""
    made = [job.seconds for job in before if job.status == "done"]
    return f", about {rest * sum(made) / len(made):.0f} s left" if made else ""
