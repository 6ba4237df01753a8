"""All figures of pairs of videos, and the report."""
from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Iterator, Optional, Sequence

import numpy as np
import torch

from s3dnerf import metrics
from s3dnerf.errors import InputError
from s3dnerf.evaluation.action_units import unit_figures
from s3dnerf.evaluation.faces import LEAST, IdentityFigures, landmark_figures
from s3dnerf.evaluation.figures import CLIP_FIGURES, FIGURES
from s3dnerf.evaluation.footage import Footage, read_footage
from s3dnerf.evaluation.networks import Networks
from s3dnerf.evaluation.picture import Chunk, PictureFigures
from s3dnerf.evaluation.protocol import REGIONS, Protocol
from s3dnerf.evaluation.report import Report
from s3dnerf.evaluation.sync import SyncFigures
from s3dnerf.media import CONTAINERS, FPS, video_info
from s3dnerf.progress import Progress
from s3dnerf.significance import interval

CHUNK = 8
"""frames that are looked at together"""
VIDEOS = (*CONTAINERS, ".webm", ".avi", ".mpg")
SLACK = 2
"""frames by which two videos of a pair may differ without a remark"""


@dataclass(frozen=True)
class Row:
    """What was found of one clip."""

    clip: str
    frames: int
    """that were compared"""
    figures: dict[str, Optional[float]]
    """every one of `CLIP_FIGURES`; None where it could not be had"""
    features: dict[str, np.ndarray] = field(default_factory=dict)
    """Inception's, by made or true and region"""
    remarks: tuple[str, ...] = ()


class Suite:
    """The figures under one protocol, with the networks that there are."""

    def __init__(self, networks: Networks, protocol: Protocol = Protocol()):
        self.networks, self.protocol = networks, protocol

    def measure(self, made: Footage, true: Footage, units: Optional[tuple[Path, Path]] = None) -> Row:
        """The figures of one clip; `units` are the tables of OpenFace for the video and for the recording.

        InputError for frames of different sizes where nothing is aligned.
        """
        count, remarks = min(len(made), len(true)), []
        if abs(len(made) - len(true)) > SLACK:
            remarks.append(f"{made.name}: {len(made)} frames against {len(true)} of the recording; the first {count} are "
                           "compared")
        made, true = self._alike(made.first(count), true.first(count))
        gatherers = [kind(made, true, self.networks, self.protocol)
                     for kind in (PictureFigures, IdentityFigures, SyncFigures)]
        for chunk in chunks(made, true):
            for gatherer in gatherers:
                gatherer.add(chunk)
        found = landmark_figures(made, true, self.protocol)
        for gatherer in gatherers:
            found |= gatherer.figures()
        found |= {} if units is None else unit_figures(*units)
        if min(made.seen.sum(), true.seen.sum()) < LEAST:
            remarks.append(f"{made.name}: a face in {made.seen.sum()} frames of the video and {true.seen.sum()} of the recording; "
                           "figures of faces are missing")
        features = {name: np.concatenate(parts) for name, parts in gatherers[0].features.items()}
        return Row(made.name, count, {name: _plain(found.get(name)) for name in CLIP_FIGURES}, features, tuple(remarks))

    def _alike(self, made: Footage, true: Footage) -> tuple[Footage, Footage]:
        """Both as the protocol wants them."""
        if self.protocol.align == "face":
            return made.aligned(self.protocol.aligned_size), true.aligned(self.protocol.aligned_size)
        if made.size != true.size:
            raise InputError(f"{made.name}: found a video of {made.size[1]} x {made.size[0]} and a recording of {true.size[1]} x "
                             f"{true.size[0]}; expected the same square of both: cut the recording as the video is, or give "
                             "--align face")
        return made, true

    def report(self, rows: Sequence[Row], units: bool = False) -> Report:
        """Means over clips, each clip once, in the order of their names; `units` says whether OpenFace's tables were given."""
        rows = sorted({row.clip: row for row in rows}.values(), key=lambda row: row.clip)
        means = {}
        for name in CLIP_FIGURES:
            values = [row.figures[name] for row in rows if row.figures[name] is not None]
            if values:
                means[name] = asdict(interval(values, self.protocol.bootstrap, self.protocol.seed))
        means |= self._of_all_frames(rows)
        missing = {name: self._why(name, units) for name in FIGURES if name not in means}
        remarks = [remark for row in rows for remark in row.remarks] + self._remarks(rows, means)
        return Report(self.protocol, self.networks.about, rows, means, missing, remarks)

    def _of_all_frames(self, rows: Sequence[Row]) -> dict:
        """FID and KID of each region."""
        found = {}
        for region in REGIONS:
            made, true = ([row.features[name + region] for row in rows if name + region in row.features]
                          for name in ("made", "true"))
            if made and min(sum(map(len, made)), sum(map(len, true))) > 1:
                pair = [torch.from_numpy(np.concatenate(parts)) for parts in (made, true)]
                figures = metrics.frechet_distance(*pair), metrics.kernel_distance(*pair, self.protocol.kid_subset)
                for name, value in zip(("fid", "kid"), figures):
                    found[name + region] = {"mean": value, "low": None, "high": None, "clips": len(made)}
        return found

    def _why(self, name: str, units: bool) -> str:
        """Why a figure is missing from all clips."""
        network = FIGURES[name].network
        if network in self.networks.missing:
            return self.networks.missing[network]
        if network == "action_units" and not units:
            return "needs OpenFace's output: --openface-generated and --openface-truth name folders of its CSV files"
        if network in ("syncnet", "judge"):
            return "no clip has sound, a face and frames enough"
        if name.startswith("cpbd"):
            return "no region of 64 x 64 pixels with an edge"
        return "no clip shows a face in enough frames"

    def _remarks(self, rows: Sequence[Row], means: dict) -> list[str]:
        """What a reader should know before comparing these figures with others."""
        said, frames, least = [], sum(row.frames for row in rows), self.protocol
        if "fid" in means and frames < least.fid_least:
            said.append(f"FID of {frames} frames per side says little, expected {least.fid_least} or more; look at KID")
        short = sum(row.frames < least.sync_least for row in rows)
        if "sync_c" in means and short:
            said.append(f"{short} of {len(rows)} clips have fewer than {least.sync_least} frames, which SyncNet's own pipeline "
                        "leaves out: Sync-C and Sync-D of these cannot be compared with published ones")
        if "sync_c" in means:
            said.append("SyncNet's crop is around the 68 landmarks in place of S3FD's box; look at the recording's own figures")
        return said


def _plain(value: Optional[float]) -> Optional[float]:
    return None if value is None or not np.isfinite(value) else float(value)


def chunks(made: Footage, true: Footage) -> Iterator[Chunk]:
    """Both, side by side, some frames at a time."""
    pairs, first = zip(made.frames(), true.frames()), 0
    while part := list(islice(pairs, CHUNK)):
        yield Chunk(np.stack([pair[0] for pair in part]), np.stack([pair[1] for pair in part]), first)
        first += len(part)


def find_pairs(generated: str, truth: str) -> list[tuple[Path, Path]]:
    """Videos and recordings of the same base name, in the order of their names; or the two files.

    InputError where there are none, a video has no recording, or two files of a folder have the same base name.
    """
    made, true = Path(generated), Path(truth)
    if made.is_file() and true.is_file():
        return [(made, true)]
    for option, folder in (("--generated", made), ("--truth", true)):
        if not folder.is_dir():
            raise InputError(f"found {option} {folder}, which is no folder{' like the other' if folder.is_file() else ''}; give "
                             "two folders, or two files")
    videos, recordings = videos_of(made), videos_of(true)
    if not videos:
        raise InputError(f"no video in {made}; expected files that end in {', '.join(VIDEOS)}")
    alone = sorted(videos.keys() - recordings.keys())
    if alone:
        raise InputError(f"{len(alone)} of {len(videos)} videos have no recording of their name in {true}, such as {alone[0]}; "
                         "name the recordings like the videos")
    return [(videos[name], recordings[name]) for name in sorted(videos)]


def videos_of(folder: Path) -> dict[str, Path]:
    """The videos of a folder by base name. InputError for two of the same one."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in VIDEOS and found.setdefault(path.stem, path) != path:
            raise InputError(f"{folder} has {found[path.stem].name} and {path.name}; expected one video of each base name")
    return found


def left_out(truth: str, pairs: Sequence[tuple[Path, Path]]) -> list[str]:
    """A remark where recordings of a folder have no video: means without the clips that failed flatter."""
    names = videos_of(Path(truth)) if Path(truth).is_dir() else {}
    alone = sorted(names.keys() - {recording.stem for _, recording in pairs})
    return [f"{len(alone)} of {len(names)} recordings have no video of their name, such as {alone[0]}; they are left out"] if alone else []


def evaluate_files(suite: Suite, generated: str, truth: str, openface_generated: Optional[str] = None,
                   openface_truth: Optional[str] = None) -> Report:
    """The report of two folders, or two files. InputError for what cannot be read or paired."""
    if (openface_generated is None) != (openface_truth is None):
        raise InputError("found one of --openface-generated and --openface-truth; give both, or none")
    pairs, units = find_pairs(generated, truth), openface_generated is not None
    tables = [(Path(openface_generated, f"{made.stem}.csv"), Path(openface_truth, f"{made.stem}.csv")) if units else None
              for made, _ in pairs]
    lengths = [sum(round(video_info(path).seconds * FPS) for path in pair) for pair in pairs]
    rows, progress = [], Progress("evaluating", sum(lengths), "frames")
    for (made, true), table, length in zip(pairs, tables, lengths):
        rows.append(suite.measure(read_footage(made), read_footage(true), table))
        progress.advance(length)
    progress.finish()
    report = suite.report(rows, units)
    return replace(report, remarks=[*left_out(truth, pairs), *report.remarks])
