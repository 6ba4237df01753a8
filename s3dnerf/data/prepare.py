"""From raw videos to shards: convert, cut, track, refuse what is bad, and say why."""
from __future__ import annotations

import json
import pickle
import random
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Callable, Iterator, NamedTuple, Optional, Sequence

import numpy as np

from s3dnerf.data.engine import Engine, each_done
from s3dnerf.data.manifest import KEPT, clip_name, read_manifest
from s3dnerf.data.quality import (MAX_BLUR, MIN_SECONDS, blur, company, conversions, longest, longest_shot, picture_shots,
                                  refusal, sample_rate, track_slice)
from s3dnerf.data.shards import (TrackedClip, encode_info, encode_sample, encode_sound, write_people, write_shards,
                                 write_whole)
from s3dnerf.data.summary import Shown, summary_page, thumbnail
from s3dnerf.data.sync import FARTHEST, Matcher, SyncEstimate, SyncProfile, cut_sound, sync_profile
from s3dnerf.data.tracking import FaceTracker, Track, cut, mouth_masks, segment
from s3dnerf.errors import DatasetError, InputError
from s3dnerf.face import LANDMARKS_68
from s3dnerf.media import FPS, is_silent, read_frames, read_sound, video_info
from s3dnerf.progress import Progress

VERSION = 3
"""goes up when what is done to a clip changes: what was kept by an earlier one is then done again"""
REPORT = ("file", "piece", "status", "reason", "person", "frames", "reprojection_error", "yaw", "eyes", "blur", "focal",
          "sync_offset", "sync_confidence", "fps", "sample_rate", "remarks")


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
    sound: Optional[Path] = None
    """what it is heard in; None: in the file itself"""
    leader: Optional[Path] = None
    """result of another file that was recorded at once and heard in the same sound: its lips tell the offset"""


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
    picture: bytes = b""
    """JPEG of its face, or of what was there"""


def prepare(manifest: Path, videos: Path, output: Path, *, split: Optional[Sequence[str]] = None, size: int = 256,
            workers: Optional[int] = None, clips_per_shard: int = 100, max_seconds: float = 5.0,
            expert: Optional[Callable[[], Matcher]] = None, engine: Engine = "local") -> None:
    """Turns the clips of a manifest into shards, `output/SPLIT/SPLIT-000000.tar`, with a report of every clip (report.tsv)
    and a page to look at (summary.html).

    The manifest is a table (tab separated) with the columns file, person, split and source; files are relative to
    `videos`. It may have view, emotion, level and take, which are kept, and `sound` (the file that a clip is heard in) and
    `in_step_with` (the file, recorded at once, whose lips tell how far that sound is off).

    Finished clips are kept under `output/.work`, so that a run that was killed goes on where it stopped, and writes the same
    shards. With an `expert` (a function that can be pickled, called in every process) the sound of each recording that is
    out of step is moved, by as much in all of its clips. DatasetError for a manifest that cannot be used, or none of whose files is
    there, InputError for a number that makes no clips.
    """
    check_numbers(size, workers, clips_per_shard, max_seconds)
    rows, work = read_manifest(Path(manifest), split), Path(output).absolute() / ".work"  # workers may be in another folder
    if not any((Path(videos) / row["file"]).is_file() for row in rows):  # before shards of an earlier run are replaced by nothing
        raise DatasetError(f"none of the {len(rows)} files of {manifest} is in {videos}, not {rows[0]['file']} either; give --videos the "
                           "folder that they are relative to")
    jobs = make_jobs(rows, Path(videos).absolute(), work, size, max_seconds, expert)
    work.mkdir(parents=True, exist_ok=True)
    todo = [job for job in jobs if not job.done.exists()]
    progress = Progress("preparing", len(todo), "clips")
    for group in ([job for job in todo if not job.leader], [job for job in todo if job.leader]):  # leaders first
        for _ in each_done(run, group, engine, workers):
            progress.advance()
    progress.finish()
    for name in sorted({job.row["split"] for job in jobs}):
        assemble([job for job in jobs if job.row["split"] == name], Path(output) / name, name, clips_per_shard)


def check_numbers(size: int, workers: Optional[int], clips_per_shard: int, max_seconds: float) -> None:
    """InputError for a number that would end hours of work with no clips, or with clips that nobody can read."""
    if size < 16 or size % 4:
        raise InputError(f"found --size {size}; expected a multiple of 4, 16 or more")
    for name, value in (("--workers", workers), ("--clips-per-shard", clips_per_shard)):
        if value is not None and value < 1:
            raise InputError(f"found {name} {value}; expected 1 or more")
    if not max_seconds >= MIN_SECONDS:
        raise InputError(f"found --max-seconds {max_seconds}; expected {MIN_SECONDS} or more, the least that a clip lasts")


def make_jobs(rows: list[dict], videos: Path, work: Path, size: int, max_seconds: float,
              expert: Optional[Callable[[], Matcher]]) -> list[Job]:
    """The jobs of a manifest's rows. Results are called after all that they depend on."""
    names = {}
    for row in rows:
        files = [_stamp(videos / row[name]) for name in ("file", "sound", "in_step_with") if row.get(name)]
        how = sha256(pickle.dumps((VERSION, size, float(max_seconds), sorted(row.items()), expert, files))).hexdigest()[:12]
        names[row["split"], row["file"]] = work / f"{row['split']}-{clip_name(row['file'])}-{how}.pkl"
    front = lambda row: names.get((row["split"], row.get("in_step_with"))) if row.get("in_step_with") != row["file"] else None
    return [Job(videos / row["file"], row, size, max_seconds, names[row["split"], row["file"]], expert,
                videos / row["sound"] if row.get("sound") else None, front(row)) for row in rows]


def _stamp(path: Path) -> Optional[tuple[int, int]]:
    """What tells that a file is another one than before; None where it is missing."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def run(job: Job) -> None:
    """Tracks one file and keeps its samples and report lines; a bad file is a line of the report."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    results, sound, told = [], np.zeros(0, np.float32), {}
    try:
        sound = read_sound(job.sound or job.file)
        told = {"fps": f"{video_info(job.file).fps:.4g}", "sample_rate": sample_rate(job.sound or job.file),
                "remarks": "; ".join(conversions(str(job.file)))}
        for piece in pieces(job, sound):
            results.append(piece)
    except InputError as error:
        results.append(Piece(0, None, report(job, 0, reason=by_name(job, str(error)))))
    results = [piece._replace(line=piece.line | told | {"remarks": "; ".join(
        filter(None, (told.get("remarks"), piece.line["remarks"])))}) for piece in results]
    if job.expert is not None:
        results = in_step(results, sound, offset(job, results))
    write_whole(job.done, pickle.dumps(results))


def by_name(job: Job, words: str) -> str:
    """Words with files called as the manifest calls them, the same wherever the videos lie."""
    for path, name in ((job.file, "file"), (job.sound, "sound")):
        words = words.replace(str(path), job.row[name]) if path else words
    return words


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
    start, whole = number * round(job.max_seconds * FPS), len(frames)
    heard = cut_sound(sound, start, whole)
    refused = lambda reason, *found: Piece(number, None, report(job, number, *found, reason=reason),
                                           picture=thumbnail(frames, *found[:1]))
    if whole < MIN_SECONDS * FPS:
        return refused(f"lasts {whole / FPS:.2f} s; expected {MIN_SECONDS} s or more")
    if is_silent(heard):
        return refused("the sound is silent; expected speech")
    begin, end = longest(picture_shots(frames))
    frames = frames[begin:end]
    try:
        track = FaceTracker().track(frames)
    except InputError as error:
        return refused(str(error))
    first, last = longest_shot(track)
    track, frames = track_slice(track, first, last), frames[first:last]
    reason, first, softness = refusal(track), begin + first, blur(frames, track.landmarks)
    if not reason and (crowd := company(frames)):
        return refused(crowd)  # with the whole picture, which shows them
    if not reason and softness > MAX_BLUR:
        reason = f"blur {softness:.2f}; expected at most {MAX_BLUR}: use a recording that is in focus and was not enlarged"
    if reason:
        return refused(reason, track, softness)
    line = report(job, number, track, softness)
    if len(frames) < whole:
        line["remarks"] = f"a cut: took {len(frames) / FPS:.2f} of {whole / FPS:.2f} s, from {first / FPS:.2f} s on"
    first += start
    clip = make_clip(job, number, frames, track, cut_sound(sound, first, len(frames)))
    clip.info["first"] = first
    return Piece(number, encode_sample(clip), line, (clip.mesh.sum(0, dtype=np.float64), len(clip.mesh)), first,
                 profile(job, clip, track), thumbnail(frames, track))


def profile(job: Job, clip: TrackedClip, track: Track) -> Optional[SyncProfile]:
    """What a clip says about how far its sound is off; None where that is not asked, or another file tells."""
    if job.expert is None or job.leader is not None:
        return None
    box = track.crop_box()
    landmarks = (track.landmarks - (box.left, box.top)) * (job.size / box.side)
    return sync_profile(clip.frames, landmarks, clip.speech, job.expert())


def offset(job: Job, found: list[Piece]) -> SyncEstimate:
    """How far the sound of a file is off, from all of its pieces or those of its leader."""
    if job.leader is not None:
        found = pickle.loads(job.leader.read_bytes())
    return sum((piece.profile for piece in found if piece.profile), SyncProfile()).estimate()


def in_step(found: list[Piece], sound: np.ndarray, estimate: SyncEstimate) -> list[Piece]:
    """The pieces of a file with their sound where its lips are, and the estimate, which is one for all, told; refused
    where it is as far off as can be told, for it may be farther."""
    told = {"sync_offset": estimate.offset, "sync_confidence": estimate.confidence}
    lost = {}
    if abs(estimate.offset) >= FARTHEST:
        side = "late" if estimate.offset > 0 else "early"
        lost = {"status": "rejected", "reason": f"the sound is {FARTHEST} frames or more too {side}; expected fewer: bring it into "
                "step first"}
    moved = []
    for piece in found:
        if piece.fields is not None:
            info = json.loads(piece.fields["json"]) | told
            fields = piece.fields | {"json": encode_info(info)}
            if estimate.offset:
                fields |= encode_sound(cut_sound(sound, piece.first + estimate.offset, info["n_frames"]))
            piece = piece._replace(fields=None if lost else fields, line=piece.line | told | lost)
        moved.append(piece)
    return moved


def report(job: Job, piece: int, track: Optional[Track] = None, blur: float = 0.0, reason: str = "") -> dict:
    """One line of the report."""
    line = dict.fromkeys(REPORT, "") | {"file": job.row["file"], "person": job.row["person"], "piece": piece,
                                        "reason": reason, "status": "rejected" if reason else "accepted"}
    if track is not None:
        line |= {"frames": len(track.error), "reprojection_error": f"{track.error.mean():.2f}",
                 "yaw": f"{track.yaw.min():.0f}..{track.yaw.max():.0f}", "eyes": f"{track.unit.mean():.0f}",
                 "focal": f"{track.focal / track.crop_box().side:.2f}", "blur": f"{blur:.2f}"}
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
            # rounded: how a processor splits its sums shows in the last digits
            "crop": [round(side, 6) for side in (box.left, box.top, box.side)], "focal": round(track.focal, 6), "sync_offset": None,
            "sync_confidence": None, "reprojection_error": round(float(track.error.mean()), 6)}
    info |= {name: job.row.get(name) for name in KEPT}
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
    """Writes the shards of a split from the finished clips, mixed in a fixed order, with report, page, index and mean
    faces."""
    shown, keys, people, seconds = [], [], {}, 0.0
    for job in jobs:
        for piece in pickle.loads(job.done.read_bytes()):
            shown.append(Shown(piece.line, piece.picture))
            if piece.fields is not None:
                keys.append((job, piece.number))
                total, count = people.get(job.row["person"], (0, 0))
                people[job.row["person"]] = (total + piece.mesh[0], count + piece.mesh[1])
                seconds += piece.mesh[1] / FPS
    random.Random(0).shuffle(keys)
    folder.mkdir(parents=True, exist_ok=True)
    shards = write_shards(samples(keys), folder, name, clips_per_shard)
    write_people(people, folder)
    index = {"clips": len(keys), "people": len(people), "seconds": round(seconds, 2),
             "shards": [path.name for path in shards]}
    write_whole(folder / "index.json", json.dumps(index, indent=1).encode())
    lines = [one.line for one in shown]
    table = "\n".join("\t".join(str(line[column]) for column in REPORT) for line in lines)
    write_whole(folder / "report.tsv", ("\t".join(REPORT) + "\n" + table + "\n").encode())
    write_whole(folder / "summary.html", summary_page(name, shown).encode())
    refused = sum(line["status"] == "rejected" for line in lines)
    moved = {line["file"] for line in lines if line["sync_offset"]}
    print(f"{name}: {len(keys)} clips of {len(people)} people, {seconds / 60:.1f} minutes; {refused} rejected, {len(moved)} "
          "recordings brought into step with their sound (before training, look at "
          f"{folder / 'summary.html'})")


def samples(keys: list[tuple[Job, int]]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and fields of finished pieces, read one file at a time."""
    for job, wanted in keys:
        for piece in pickle.loads(job.done.read_bytes()):
            if piece.number == wanted:
                yield json.loads(piece.fields["json"])["clip"], piece.fields
