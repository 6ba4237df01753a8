"""Public lists of talking heads on the web: which video, which spans of it, and where in the picture the head is."""
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from s3dnerf.errors import InputError

FILES = {"links": "_video_url.txt", "spans": "_annotion_time.txt", "boxes": "_crop_wh.txt", "heights": "_resolution.txt"}
"""endings of a subset's lists, spelled as they are published; a fifth, `_crop_ratio.txt`, is not needed"""


@dataclass(frozen=True)
class Span:
    """A stretch of a video that shows one head."""

    name: str
    """of its clip, without ending"""
    begin: float
    """seconds"""
    end: float
    """seconds"""
    box: Optional[tuple[int, int, int, int]]
    """left, top, width and height in pixels of the listed height; None where the lists have none"""


@dataclass(frozen=True)
class Link:
    """A video of the lists."""

    name: str
    """subset and name"""
    address: str
    height: Optional[int]
    """lines of the picture that boxes are given in"""
    spans: tuple[Span, ...]


def read_lists(folder: Path, subsets: list[str]) -> list[Link]:
    """The videos of subsets, in the lists' order. InputError for a list that is missing, or a line that makes no sense.

    A line is a name and its values, separated by spaces: `Radio11 LINK`, `Radio11.mp4 00:30-01:00 01:30-02:30`,
    `Radio11.mp4 720`, and for its clips `Radio11_0.mp4 LEFT WIDTH TOP HEIGHT`.
    """
    links = []
    for subset in subsets:
        tables = {what: _table(folder / f"{subset}{ending}") for what, ending in FILES.items()}
        for name, (address, *_) in tables["links"].items():
            spans = [_span(folder / f"{subset}{FILES['spans']}", word) for word in tables["spans"].get(name, [])]
            clips = tuple(Span(f"{subset}_{name}_{number:03d}", *span, _box(tables["boxes"].get(f"{name}_{number}", [])))
                          for number, span in enumerate(spans))
            height = (tables["heights"].get(name) or [""])[0]
            links.append(Link(f"{subset}_{name}", address, int(height) if height.isdigit() else None, clips))
    return links


def _table(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        raise InputError(f"no list {path}; give --lists the folder that holds the data set's text files")
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for row in rows:
        if len(row) < 2:
            raise InputError(f"{path} has a line {row[0]!r} without a value; take the list as it is published")
    return {row[0].removesuffix(".mp4"): row[1:] for row in rows}


def _span(path: Path, word: str) -> tuple[float, float]:
    match = re.fullmatch(r"((?:\d+:)?\d+:\d+)-((?:\d+:)?\d+:\d+)", word)
    begin, end = (_seconds(part) for part in match.groups()) if match else (0, 0)
    if begin >= end:
        raise InputError(f"{path} has a span {word!r}; expected MINUTES:SECONDS-MINUTES:SECONDS, the later one last")
    return begin, end


def _seconds(clock: str) -> float:
    total = 0.0
    for part in clock.split(":"):
        total = 60 * total + float(part)
    return total


def _box(words: list[str]) -> Optional[tuple[int, int, int, int]]:
    """Left, top, width, height; None unless there are four numbers."""
    if len(words) != 4 or not all(word.lstrip("-").isdigit() for word in words):
        return None
    left, width, top, height = map(int, words)
    return left, top, width, height
