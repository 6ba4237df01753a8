"""From lists of links to clips with sound: fetched, cut where the lists say, and an account of what could not be got."""
from __future__ import annotations

import csv
import io
import shutil
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Callable, Optional

import numpy as np

from s3dnerf.data.link_lists import Link, Span, read_lists
from s3dnerf.data.quality import conversions
from s3dnerf.data.recipe import Recipe, holds_sound, list_clips
from s3dnerf.data.shards import write_whole
from s3dnerf.data.sync import cut_sound
from s3dnerf.errors import DependencyError, InputError
from s3dnerf.media import FPS, VideoWriter, read_frames, read_sound, video_info
from s3dnerf.progress import Progress

Fetch = Callable[[str, Path, Optional[int]], list[Path]]
"""address, folder, and lines of the picture that are wanted (None: as many as there are) to the files that were fetched into
the folder: one with picture and sound, or one of each. Raises `LinkError` for a link that leads nowhere"""
QUALITY = 12
"""x264's crf of the clips"""


class LinkError(InputError):
    """A link that leads nowhere."""


@dataclass(frozen=True)
class Got:
    """What became of one span of the lists."""

    clip: str
    status: str
    """got, dead link, no sound, too short, unreadable, or not listed"""
    reason: str = ""
    address: str = ""
    seconds: float = 0.0
    """that the lists promise"""
    width: int = 0
    """pixels of the clip"""
    height: int = 0
    remarks: str = ""


def download(recipe: Path, lists: Path, output: Path, fetch: Optional[Fetch] = None) -> None:
    """Fetches the videos of a recipe's lists, writes `output/NAME.mp4` for every span, `output/coverage.tsv`, which says of
    every span what became of it, and `output/manifest.tsv` for preparation.

    Goes on past links that lead nowhere. Clips that are there are not made again, so a run that was killed goes on where
    it stopped; dead links are tried again. InputError for lists that cannot be read, or where nothing could be got.
    """
    plan = Recipe.read(recipe)
    if not plan.lists:
        raise InputError(f"{recipe} names no lists to download from; {recipe.with_name('README.md')} tells how to get the set, and "
                         "`s3dnerf manifest` lists what you have")
    links, fetch = read_lists(lists, plan.lists), fetch or youtube()
    output.mkdir(parents=True, exist_ok=True)
    progress, found = Progress("downloading", len(links), "videos"), []
    for link in links:
        found += one_video(link, output, plan.margin, fetch)
        progress.advance()
        write_coverage(found, output / "coverage.tsv")
    progress.finish()
    had = [one for one in found if one.status == "got"]
    others = Counter(one.status for one in found if one.status != "got")
    hours = [sum(one.seconds for one in some) / 3600 for some in (had, found)]
    print(f"{plan.name}: {len(had)} of {len(found)} clips, {hours[0]:.2f} of {hours[1]:.2f} hours"
          + "".join(f"; {count} {status}" for status, count in others.most_common()) + f" (see {output / 'coverage.tsv'})")
    if not had:
        raise InputError(f"nothing could be got of {len(links)} videos, {found[0].reason}; see {output / 'coverage.tsv'}")
    list_clips(recipe, output, output / "manifest.tsv")


def one_video(link: Link, output: Path, margin: float, fetch: Fetch) -> list[Got]:
    """What became of the spans of a video."""
    if not link.spans:
        return [Got(link.name, "not listed", "the lists have no span for it", link.address)]
    told = lambda status, reason="": [Got(span.name, status, reason, link.address, span.end - span.begin) for span in link.spans]
    notes, folder = output / ".done" / f"{link.name}.tsv", output / ".raw" / link.name
    if notes.is_file():
        found = read_coverage(notes)
        if all((output / f"{one.clip}.mp4").is_file() for one in found if one.status == "got"):
            return found
    folder.mkdir(parents=True, exist_ok=True)
    try:
        files = fetch(link.address, folder, link.height)
        heard = [path for path in files if holds_sound(path)] or (video_info(files[0]) and [])
        found = told("no sound", "the video has no sound track")
        if heard:
            found = cut_clips(link, next((path for path in files if path not in heard), heard[0]), heard[0], output, margin)
        notes.parent.mkdir(exist_ok=True)
        write_coverage(found, notes)
    except LinkError as error:
        found = told("dead link", str(error))
    except InputError as error:
        found = told("unreadable", str(error))
    shutil.rmtree(folder)  # what an interruption leaves there is taken up again
    return found


def cut_clips(link: Link, video: Path, heard: Path, output: Path, margin: float) -> list[Got]:
    """Writes the spans of a video at 25 fps, cut at decoded frames, with their sound."""
    info, sound, remarks = video_info(video), read_sound(heard), conversions(str(video))
    if link.height and link.height != info.height:
        remarks.append(f"{info.height} lines; the lists promise {link.height}")
    frames, found = {span.name: (round(span.begin * FPS), round(span.end * FPS)) for span in link.spans}, []
    boxes = {span.name: place(span, link.height, (info.height, info.width), margin) for span in link.spans}
    count = 0
    with ExitStack() as stack:
        writers: dict[str, VideoWriter] = {}
        for count, picture in enumerate(read_frames(video), 1):
            for name, (first, last) in frames.items():
                left, top, width, height = boxes[name]
                if count - 1 == first:
                    part = cut_sound(sound, first, last - first)
                    writers[name] = stack.enter_context(VideoWriter(output / f"{name}.mp4", width, height, sound=part,
                                                                    crf=QUALITY))
                if first < count <= last:
                    writers[name].write(np.ascontiguousarray(picture[top:top + height, left:left + width]))
            if count >= max(last for _, last in frames.values()):
                break
    for span in link.spans:
        first, last = frames[span.name]
        late = [f"ends after {(count - first) / FPS:.1f} of {(last - first) / FPS:.1f} s"] if first < count < last else []
        status = ("got", "") if count > first else ("too short", f"the video ends after {count / FPS:.1f} s; the span begins at "
                                                    f"{span.begin:.0f} s")
        found.append(Got(span.name, *status, link.address, span.end - span.begin, *boxes[span.name][2:],
                         "; ".join(remarks + late)))
    return found


def place(span: Span, listed: Optional[int], size: tuple[int, int], margin: float) -> tuple[int, int, int, int]:
    """Left, top, width and height, even, of a span's box in a picture (height, width): grown by a factor around its middle, and
    resized where the picture has other than the listed lines. Where there is no box, the whole picture."""
    if span.box is None:
        return 0, 0, size[1], size[0]
    scale = size[0] / listed if listed else 1.0
    left, top, width, height = (value * scale for value in span.box)
    x = [round(min(max(edge, 0), size[1])) for edge in (left - width * (margin - 1) / 2, left + width * (margin + 1) / 2)]
    y = [round(min(max(edge, 0), size[0])) for edge in (top - height * (margin - 1) / 2, top + height * (margin + 1) / 2)]
    if x[1] - x[0] < 2 or y[1] - y[0] < 2:
        return 0, 0, size[1], size[0]
    return x[0], y[0], (x[1] - x[0]) // 2 * 2, (y[1] - y[0]) // 2 * 2


def youtube() -> Fetch:
    """Fetches with yt-dlp, picture and sound as two files where they come apart, so that nothing has to join them.
    DependencyError where it is not installed."""
    try:
        import yt_dlp
    except ImportError:
        raise DependencyError("downloading needs yt-dlp; run `pip install 's3dnerf[download]'`") from None

    def fetch(address: str, folder: Path, height: Optional[int]) -> list[Path]:
        fits = f"[height<={height}]" if height else ""
        options = {"format": f"(bv{fits},ba)/b{fits}/b", "outtmpl": str(folder / "%(format_id)s.%(ext)s"), "quiet": True,
                   "no_warnings": True, "noprogress": True, "noplaylist": True, "retries": 3, "logger": _Silent()}
        try:
            with yt_dlp.YoutubeDL(options) as loader:
                loader.download([address])
        except yt_dlp.utils.DownloadError as error:
            raise LinkError(" ".join(str(error).removeprefix("ERROR: ").split())) from None
        return sorted(path for path in folder.iterdir() if path.suffix not in (".part", ".ytdl"))

    return fetch


class _Silent:
    """yt-dlp's messages, which say nothing that its exception does not."""

    def debug(self, message: str) -> None:
        pass

    warning = error = debug


def write_coverage(found: list[Got], path: Path) -> None:
    """Writes one line per span; the file appears whole."""
    table = io.StringIO()
    writer = csv.DictWriter(table, [one.name for one in fields(Got)], delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(one) for one in found)
    write_whole(path, table.getvalue().encode())


def read_coverage(path: Path) -> list[Got]:
    """What `write_coverage` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [Got(**row | {"seconds": float(row["seconds"]), "width": int(row["width"]), "height": int(row["height"])})
            for row in rows]
