"""From a video of one person to a shard of one long clip."""
from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Callable, Iterator

import numpy as np

from s3dnerf.data.prepare import Job, clip_name, make_clip
from s3dnerf.data.recording import read_recording
from s3dnerf.data.shards import encode_sample, write_people, write_shards, write_whole
from s3dnerf.media import FPS, SAMPLES_PER_FRAME, read_frames
from s3dnerf.progress import counting


def prepare_person(video: str, folder: Path, size: int = 256) -> list[str]:
    """Tracks the person of a video and writes one shard with its longest shot; returns remarks for the user.

    The crops are kept in memory. Nothing is done where the shard is there already. InputError for a video that cannot be
    used; see `recording.read_recording`.
    """
    if (folder / "index.json").is_file():
        return []
    found = read_recording(video)
    track, first, last, whole, remarks = found.track, found.first, found.last, found.seconds, found.remarks
    seconds = (last - first) / FPS
    sound = found.sound[first * SAMPLES_PER_FRAME:last * SAMPLES_PER_FRAME]
    row = {"file": Path(video).name, "person": clip_name(Path(video).name), "source": "person"}
    job = Job(Path(video), row, size, whole, folder)
    with counting("cropping", last) as advance:
        clip = make_clip(job, 0, islice(_counted(video, advance), first, last), track, sound)
    clip = replace(clip, background=median_plate(clip.frames, clip.masks[:, 0] | clip.masks[:, 1]))
    write_shards([(clip.key, encode_sample(clip))], folder, "person")
    write_people({row["person"]: (clip.mesh.sum(0, dtype=np.float64), len(clip.mesh))}, folder)
    write_whole(folder / "index.json", json.dumps({"clips": 1, "people": 1, "seconds": round(seconds, 2)}).encode())
    return remarks


def median_plate(frames: np.ndarray, person: np.ndarray) -> np.ndarray:
    """[S, S, 3] uint8: the median of what is seen at each pixel of `frames` [T, S, S, 3] while the person [T, S/4, S/4] is a
    mask cell or more away; in-painted where that never is."""
    import cv2

    size, some = frames.shape[1], slice(None, None, max(1, len(frames) // 120))
    wide = [cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) for mask in person[some]]
    hidden = np.stack([cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST) for mask in wide]) > 0
    plate = np.ma.median(np.ma.masked_array(frames[some], np.repeat(hidden[..., None], 3, 3)), 0).filled(0).astype(np.uint8)
    never = hidden.all(0).astype(np.uint8)
    half = (size // 2, size // 2)
    shrunk = cv2.resize(plate, half, interpolation=cv2.INTER_NEAREST)
    filled = cv2.inpaint(shrunk, cv2.resize(never, half, interpolation=cv2.INTER_NEAREST), 3, cv2.INPAINT_TELEA)
    return np.where(never[..., None] > 0, cv2.resize(filled, (size, size), interpolation=cv2.INTER_LINEAR), plate)


def _counted(video: str, advance: Callable[[], None]) -> Iterator[np.ndarray]:
    for frame in read_frames(video):
        yield frame
        advance()
