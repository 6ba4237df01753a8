"""From a video of one person to a shard of one long clip."""
from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Callable, Iterator, Optional

import numpy as np

from s3dnerf.data.person import BODY, torso_motion
from s3dnerf.data.prepare import Job, clip_name, make_clip
from s3dnerf.data.recording import read_recording
from s3dnerf.data.shards import TrackedClip, encode_sample, write_people, write_shards, write_whole
from s3dnerf.data.sync import FARTHEST, Matcher, SyncProfile, cut_sound, sync_profile
from s3dnerf.data.tracking import Track
from s3dnerf.media import FPS, read_frames
from s3dnerf.progress import counting

TOGETHER = 250
"""frames that are looked at at once to bring the sound into step"""


def prepare_person(video: str, folder: Path, size: int = 256,
                   expert: Optional[Callable[[], Matcher]] = None) -> list[str]:
    """Tracks the person of a video and writes one shard with its longest shot; returns remarks for the user.

    The crops are kept in memory. Nothing is done where the shard is there already. `expert` makes what tells how far the
    sound is off; it is then brought into step. InputError for a video that cannot be used; see `recording.read_recording`.
    """
    if (folder / "index.json").is_file():
        return []
    found = read_recording(video)
    track, sound, first, count = found.track, found.sound, found.first, found.last - found.first
    remarks = list(found.remarks)
    row = {"file": Path(video).name, "person": clip_name(Path(video).name), "source": "person"}
    job = Job(Path(video), row, size, found.seconds, folder)
    with counting("cropping", found.last) as advance:
        frames = islice(_counted(video, advance), first, found.last)
        clip = make_clip(job, 0, frames, track, cut_sound(sound, first, count))
    if expert is not None:
        offset = sound_offset(clip, track, expert())
        remarks += [f"the sound is {abs(offset) / FPS:.2f} s {'late' if offset > 0 else 'early'}; moved"] if offset else []
        clip = replace(clip, speech=cut_sound(sound, first + offset, count), info=clip.info | {"sync_offset": offset})
    clip = replace(clip, background=median_plate(clip.frames, clip.masks[:, 0] | clip.masks[:, 1]))
    write_shards([(clip.key, encode_sample(clip))], folder, "person")
    np.save(folder / BODY, torso_motion(clip))
    write_people({row["person"]: (clip.mesh.sum(0, dtype=np.float64), len(clip.mesh))}, folder)
    write_whole(folder / "index.json", json.dumps({"clips": 1, "people": 1, "seconds": round(count / FPS, 2)}).encode())
    return remarks


def sound_offset(clip: TrackedClip, track: Track, match: Matcher) -> int:
    """Frames by which the sound of a clip is late, early if negative; 0 if that is not sure."""
    box = track.crop_box()
    landmarks = (track.landmarks - (box.left, box.top)) * (len(clip.frames[0]) / box.side)
    parts = [slice(first, first + TOGETHER) for first in range(0, len(clip.frames), TOGETHER)]
    profile = SyncProfile()
    for part in parts:
        frames = clip.frames[part]
        if len(frames) > 2 * FARTHEST:
            profile += sync_profile(frames, landmarks[part], cut_sound(clip.speech, part.start, len(frames)), match)
    return profile.estimate().offset


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
