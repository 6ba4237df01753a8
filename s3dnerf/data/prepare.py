"""From raw videos to shards: convert, cut, track, refuse what is bad, and say why."""
from __future__ import annotations

import csv
import json
import os
import pickle
import random
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Callable, Iterator, NamedTuple, Optional, Sequence

import numpy as np

from s3dnerf.data.shards import (TrackedClip, encode_info, encode_sample, encode_sound, write_people, write_shards,
                                 write_whole)
from s3dnerf.data.sync import Matcher, SyncProfile, cut_sound, sync_profile
from s3dnerf.data.tracking import (MAX_ERROR, MAX_YAW, MIN_EYES, FaceTracker, Track, cut, mouth_masks, segment)
from s3dnerf.errors import DatasetError, InputError
from s3dnerf.face import EYE_CORNERS, LANDMARKS_68, RIGID
from s3dnerf.media import FPS, read_frames, read_sound
from s3dnerf.progress import Progress

CUT_JUMP = 0.35
"""a shot ends where the rigid landmarks' mean jumps by more than this many eye distances from one frame to the next"""
MIN_SECONDS = 0.9
REPORT = ("file", "piece", "status", "reason", "frames", "reprojection_error", "yaw", "eyes", "focal", "sync_offset",
          "sync_confidence")


@dataclass(frozen=True)
class Job:
    """One row of the manifest."""

    file: Path
    row: dict
    size: int
    max_seconds: float
    done: Path
    """where its result is kept until the shards are written"""
    expert: Optional[Callable[[], Matcher]] = None
    """makes what tells how well lips go with sounds; None leaves the sound where it is"""


class Piece(NamedTuple):
    """What became of a stretch of a file."""

    number: int
    fields: Optional[dict[str, bytes]]
    """of the sample; None if it was refused"""
    line: dict
    """of the report"""
    mesh: Optional[tuple[np.ndarray, int]] = None
    """sum of its meshes, and how many"""
    first: int = 0
    """its first frame in the file"""
    profile: Optional[SyncProfile] = None


def prepare(manifest: Path, videos: Path, output: Path, *, split: Optional[Sequence[str]] = None, size: int = 256,
            workers: Optional[int] = None, clips_per_shard: int = 100, max_seconds: float = 5.0,
            expert: Optional[Callable[[], Matcher]] = None) -> None:
    """Turns the clips of a manifest into shards, `output/SPLIT/SPLIT-000000.tar`, with a report of every clip.

    The manifest is a table (tab separated) with the columns file, person, split and source; files are relative to
    `videos`. Finished clips are kept under `output/.work`, so that a run that was killed goes on where it stopped, and
    writes the same shards. With an `expert` (a function that can be pickled, called in every process) the sound of each
    recording that is out of step is moved, by as much in all of its clips. DatasetError for a manifest that cannot be used.
    """
    rows = read_manifest(Path(manifest), split)
    work = Path(output) / ".work"
    work.mkdir(parents=True, exist_ok=True)
    how = f"{size}-{max_seconds:g}-{sha256(pickle.dumps(expert)).hexdigest()[:8]}"
    jobs = [Job(Path(videos) / row["file"], row, size, max_seconds,
                work / f"{row['split']}-{clip_name(row['file'])}-{how}.pkl", expert) for row in rows]
    todo = [job for job in jobs if not job.done.exists()]
    progress = Progress("preparing", len(todo), "clips")
    if todo:
        with get_context("spawn").Pool(min(workers or os.cpu_count() or 1, len(todo))) as pool:
            for _ in pool.imap_unordered(run, todo):
                progress.advance()
    progress.finish()
    for name in sorted({row["split"] for row in rows}):
        assemble([job for job in jobs if job.row["split"] == name], Path(output) / name, name, clips_per_shard)


def read_manifest(path: Path, split: Optional[Sequence[str]]) -> list[dict]:
    """The rows of the wanted splits; DatasetError if the file or a column is missing, names clash, or no row is left."""
    if not path.is_file():
        raise DatasetError(f"no manifest {path}; give a table with the columns file, person, split, source")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    missing = {"file", "person", "split", "source"} - set(rows[0] if rows else ())
    if missing:
        raise DatasetError(f"{path} has no column {', '.join(sorted(missing))}; expected file, person, split, source")
    chosen = [row for row in rows if split is None or row["split"] in split]
    if not chosen:
        raise DatasetError(f"{path} has no clip of split {', '.join(split or ())}; it has "
                           f"{', '.join(sorted({row['split'] for row in rows}))}")
    names = Counter((row["split"], clip_name(row["file"])) for row in chosen)
    (_, name), count = names.most_common(1)[0]
    if count > 1:
        raise DatasetError(f"{path} has {count} files that would all be called {name} in a split; rename one")
    return sorted(chosen, key=lambda row: row["file"])


def clip_name(file: str) -> str:
    """The name of a file's clips, from its whole path, so that `ann/001.mp4` and `bob/001.mp4` stay apart."""
    return str(Path(file).with_suffix("")).replace("/", "-").replace(".", "_")


def run(job: Job) -> None:
    """Tracks one file and keeps its samples and report lines; a bad file is a line of the report."""
    import torch

    torch.set_num_threads(1)
    results, sound = [], np.zeros(0, np.float32)
    try:
        sound = read_sound(job.file)
        for piece in pieces(job, sound):
            results.append(piece)
    except InputError as error:
        results.append(Piece(0, None, report(job, 0, reason=str(error))))
    if job.expert is not None:
        results = in_step(results, sound)
    write_whole(job.done, pickle.dumps(results))


def pieces(job: Job, sound: np.ndarray) -> Iterator[Piece]:
    """Every stretch of at most `max_seconds`."""
    length, number, frames = round(job.max_seconds * FPS), 0, []
    for frame in read_frames(job.file):
        frames.append(frame)
        if len(frames) == length:
            yield one_piece(job, number, frames, sound)
            number, frames = number + 1, []
    if len(frames) >= MIN_SECONDS * FPS or number == 0:
        yield one_piece(job, number, frames, sound)


def one_piece(job: Job, number: int, frames: list[np.ndarray], sound: np.ndarray) -> Piece:
    """The sample of a stretch, or why there is none; `sound` is that of the whole file."""
    if len(frames) < MIN_SECONDS * FPS:
        reason = f"lasts {len(frames) / FPS:.2f} s; expected {MIN_SECONDS} s or more"
        return Piece(number, None, report(job, number, reason=reason))
    try:
        track = FaceTracker().track(frames)
    except InputError as error:
        return Piece(number, None, report(job, number, reason=str(error)))
    first, last = longest_shot(track)
    track, frames = track_slice(track, first, last), frames[first:last]
    reason = refusal(track)
    line = report(job, number, track, reason)
    if reason:
        return Piece(number, None, line)
    first += number * round(job.max_seconds * FPS)
    clip = make_clip(job, number, frames, track, cut_sound(sound, first, len(frames)))
    profile = None
    if job.expert is not None:
        box = track.crop_box()
        landmarks = (track.landmarks - (box.left, box.top)) * (job.size / box.side)
        profile = sync_profile(clip.frames, landmarks, clip.speech, job.expert())
    return Piece(number, encode_sample(clip), line, (clip.mesh.sum(0, dtype=np.float64), len(clip.mesh)), first, profile)


def in_step(found: list[Piece], sound: np.ndarray) -> list[Piece]:
    """The pieces of a file with their sound where its lips are, and the estimate, which is one for all, told."""
    estimate = sum((piece.profile for piece in found if piece.profile), SyncProfile()).estimate()
    told = {"sync_offset": estimate.offset, "sync_confidence": estimate.confidence}
    moved = []
    for piece in found:
        if piece.fields is not None:
            info = json.loads(piece.fields["json"]) | told
            fields = piece.fields | {"json": encode_info(info)}
            if estimate.offset:
                fields |= encode_sound(cut_sound(sound, piece.first + estimate.offset, info["n_frames"]))
            piece = piece._replace(fields=fields, line=piece.line | told)
        moved.append(piece)
    return moved


def longest_shot(track: Track) -> tuple[int, int]:
    """First frame and end of the longest stretch without a cut."""
    middle = track.landmarks[:, list(RIGID)].mean(1)
    eyes = np.linalg.norm(np.diff(track.landmarks[:, EYE_CORNERS], axis=1)[:, 0], axis=1)
    jumps = np.flatnonzero(np.linalg.norm(np.diff(middle, axis=0), axis=1) > CUT_JUMP * np.median(eyes)) + 1
    edges = [0, *jumps.tolist(), len(middle)]
    return max(zip(edges, edges[1:]), key=lambda shot: shot[1] - shot[0])


def track_slice(track: Track, first: int, last: int) -> Track:
    """Frames `first` to `last` of a track."""
    part = slice(first, last)
    return Track(track.landmarks[part], track.rotations[part], track.translations[part], track.focal, track.size,
                 track.error[part])


def refusal(track: Track) -> str:
    """Why a tracked piece is not good enough; empty if it is."""
    if len(track.error) < MIN_SECONDS * FPS:
        return f"cuts leave {len(track.error) / FPS:.2f} s; expected {MIN_SECONDS} s or more"
    if np.abs(track.yaw).max() > MAX_YAW:
        return f"turned away by {np.abs(track.yaw).max():.0f} degrees; expected at most {MAX_YAW:.0f}"
    if track.unit.min() < MIN_EYES:
        return f"{track.unit.min():.0f} pixels between the eyes; expected {MIN_EYES:.0f} or more"
    if track.error.mean() > MAX_ERROR:
        return f"reprojection error {track.error.mean():.1f} %; expected at most {MAX_ERROR:.1f} %"
    return ""


def report(job: Job, piece: int, track: Optional[Track] = None, reason: str = "") -> dict:
    """One line of the report."""
    line = dict.fromkeys(REPORT, "") | {"file": job.row["file"], "piece": piece, "reason": reason,
                                        "status": "rejected" if reason else "accepted"}
    if track is not None:
        line |= {"frames": len(track.error), "reprojection_error": f"{track.error.mean():.2f}",
                 "yaw": f"{track.yaw.min():.0f}..{track.yaw.max():.0f}", "eyes": f"{track.unit.mean():.0f}",
                 "focal": f"{track.focal / track.crop_box().side:.2f}"}
    return line


def make_clip(job: Job, piece: int, frames: list[np.ndarray], track: Track, sound: np.ndarray) -> TrackedClip:
    """The sample of an accepted piece."""
    box, size = track.crop_box(), job.size
    crops = cut(frames, box, size)
    head, torso = segment(crops, track, box, size)
    mouth = mouth_masks(track.landmarks, box, size)
    cameras = track.cameras(box, size)
    rows = [cameras.camera_to_world.flatten(1).numpy(), (cameras.intrinsics.numpy() / [[size], [size], [1]]).reshape(-1, 9)]
    landmarks = (track.landmarks[:, list(LANDMARKS_68)] - (box.left, box.top)) * (size / box.side)
    key = f"{clip_name(job.row['file'])}-{piece:03d}"
    info = {"dataset": job.row["source"], "person": job.row["person"], "clip": key, "file": job.row["file"],
            "crop": [box.left, box.top, box.side], "focal": track.focal, "view": job.row.get("view"),
            "emotion": job.row.get("emotion"), "level": job.row.get("level"), "sync_offset": None,
            "sync_confidence": None, "reprojection_error": float(track.error.mean())}
    return TrackedClip(key, crops, sound.astype(np.float32), np.concatenate(rows, 1).astype(np.float32),
                       landmarks.astype(np.float32), track.mesh().astype(np.float32), np.stack([head, torso, mouth], 1),
                       background_plate(crops, head | torso), info)


def background_plate(crops: np.ndarray, person: np.ndarray) -> np.ndarray:
    """[S, S, 3] each pixel from the frame in which the person is farthest from it, in-painted where none is free.

    `person` [T, S/4, S/4]. A pixel is free in a frame if the person is at least two mask cells away.
    """
    import cv2

    size = crops.shape[1]
    some = slice(None, None, max(1, len(crops) // 10))
    distance = np.stack([cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3) for mask in person[some]])
    distance = np.stack([cv2.resize(row, (size, size), interpolation=cv2.INTER_LINEAR) for row in distance])
    plate = np.take_along_axis(crops[some], distance.argmax(0)[None, ..., None], 0)[0]
    hidden = (distance.max(0) < 2).astype(np.uint8)
    small = cv2.resize(plate, (size // 4, size // 4), interpolation=cv2.INTER_AREA)
    filled = cv2.inpaint(small, cv2.resize(hidden, (size // 4, size // 4), interpolation=cv2.INTER_NEAREST), 3,
                         cv2.INPAINT_TELEA)
    filled = cv2.resize(filled, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.where(hidden[..., None] > 0, filled, plate)


def assemble(jobs: list[Job], folder: Path, name: str, clips_per_shard: int) -> None:
    """Writes the shards of a split from the finished clips, mixed in a fixed order, with report, index and mean faces."""
    lines, keys, people, seconds = [], [], {}, 0.0
    for job in jobs:
        for piece in pickle.loads(job.done.read_bytes()):
            lines.append(piece.line)
            if piece.fields is not None:
                keys.append((job, piece.number))
                total, count = people.get(job.row["person"], (0, 0))
                people[job.row["person"]] = (total + piece.mesh[0], count + piece.mesh[1])
                seconds += piece.mesh[1] / FPS
    random.Random(0).shuffle(keys)
    folder.mkdir(parents=True, exist_ok=True)
    shards = write_shards(samples(keys), folder, name, clips_per_shard)
    write_people(people, folder)
    index = {"clips": len(keys), "people": len(people), "seconds": round(seconds, 2), "shards": [path.name for path in shards]}
    write_whole(folder / "index.json", json.dumps(index, indent=1).encode())
    table = "\n".join("\t".join(str(line[column]) for column in REPORT) for line in lines)
    write_whole(folder / "report.tsv", ("\t".join(REPORT) + "\n" + table + "\n").encode())
    reasons = Counter(line["reason"].split(";")[0] for line in lines if line["reason"])
    moved = {line["file"] for line in lines if line["sync_offset"]}
    print(f"{name}: {len(keys)} clips of {len(people)} people, {seconds / 60:.1f} minutes; {sum(reasons.values())} "
          f"rejected, {len(moved)} recordings brought into step with their sound (see {folder / 'report.tsv'})")


def samples(keys: list[tuple[Job, int]]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and fields of finished pieces, read one file at a time."""
    for job, wanted in keys:
        for piece in pickle.loads(job.done.read_bytes()):
            if piece.number == wanted:
                yield json.loads(piece.fields["json"])["clip"], piece.fields
