"""What a video of one person holds that can be learned from: which stretch of it, and what had to be converted."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

import numpy as np

from s3dnerf.data.detection import FaceDetector
from s3dnerf.data.quality import CUT_JUMP, LOOK, SOME, conversions, others, refusal
from s3dnerf.data.tracking import MAX_GAP, FaceTracker, Sightings, Track
from s3dnerf.errors import InputError
from s3dnerf.face import EYE_CORNERS, RIGID
from s3dnerf.media import FPS, SAMPLES_PER_FRAME, read_frames, read_sound, video_info
from s3dnerf.progress import counting

LEAST, RECOMMENDED = 10.0, 60.0
"""seconds with a face and without a cut that a person's video must have, and should have"""
TAIL = 0.5
"""seconds of picture without sound at the end that need no remark"""


@dataclass(frozen=True)
class Recording:
    """The stretch of a person's video that is learned from."""

    track: Track
    """of its frames"""
    first: int
    """its first frame in the video, at 25 fps"""
    last: int
    """the frame after its last one"""
    seconds: float
    """of the whole video"""
    sound: np.ndarray
    """[N] of the whole video, at 16 kHz"""
    remarks: list[str]
    """what was converted or left out"""


def read_recording(video: str) -> Recording:
    """Finds the longest stretch of a video that shows one face without a cut, and follows it.

    Only small patches of the frames are kept. InputError, with what to do, for a video without sound or with a silent one,
    that is too short or leaves too little, that shows two people, and whose face is too small or turned away.
    """
    name, sound = Path(video).name, read_sound(video, allow_silence=False)
    told = video_info(video).seconds
    if 0 < told < LEAST:
        raise InputError(f"{name} lasts {told:.1f} s; expected {LEAST:.0f} s or more, better a minute: record one person who "
                         "speaks to the camera")
    remarks, beside = conversions(video), {}
    with counting("tracking", max(1, round(told * FPS))) as advance, FaceDetector(still=True) as detector:
        seen = FaceTracker().look(_watched(read_frames(video), advance, detector, beside))
    heard = min(len(seen), len(sound) // SAMPLES_PER_FRAME)
    if len(seen) - heard > TAIL * FPS:
        remarks.append(f"the sound ends after {heard / FPS:.1f} of {len(seen) / FPS:.1f} s; the rest was left out")
    if heard < LEAST * FPS <= len(seen):
        raise InputError(f"{name} has sound for {heard / FPS:.1f} of {len(seen) / FPS:.1f} s; expected {LEAST:.0f} s or more: record "
                         "picture and sound together")
    first, last = longest_stretch(seen[:heard])
    missing = sum(face is None for face in seen.landmarks)
    if (last - first) / FPS < LEAST:
        raise InputError(f"{name} has {(last - first) / FPS:.1f} s at most with a face and without a cut (no face in {missing} "
                         f"of {len(seen)} frames); expected {LEAST:.0f} s or more, better a minute: record one person who "
                         "speaks to the camera, in one take")
    if last - first < heard:
        remarks.append(f"took the longest stretch with a face and without a cut: {(last - first) / FPS:.1f} of "
                       f"{len(seen) / FPS:.1f} s, from {first / FPS:.1f} s on")
    remarks += _alone(name, [count for frame, count in beside.items() if first <= frame < last])
    if round((last - first) / FPS) < RECOMMENDED:
        remarks.append(f"{(last - first) / FPS:.0f} s of speech; a minute or more makes better lips")
    track = FaceTracker().fit(seen[first:last])
    if reason := refusal(track):
        raise InputError(f"{name}: {reason}; record a face that looks at the camera and fills a third of the picture")
    return Recording(track, first, last, len(seen) / FPS, sound, remarks)


def longest_stretch(seen: Sightings) -> tuple[int, int]:
    """First frame and end of the longest stretch in which a face is never missing for more than a few frames and does not
    jump; (0, 0) where there is no face at all."""
    times = np.flatnonzero([face is not None for face in seen.landmarks])
    if not len(times):
        return 0, 0
    faces = np.stack([seen.landmarks[time] for time in times])
    eyes = np.linalg.norm(np.diff(faces[:, EYE_CORNERS], axis=1)[:, 0], axis=1)
    jumps = np.linalg.norm(np.diff(faces[:, list(RIGID)].mean(1), axis=0), axis=1) > CUT_JUMP * np.median(eyes)
    breaks = np.flatnonzero(jumps | (np.diff(times) > MAX_GAP + 1)) + 1
    edges = [0, *breaks.tolist(), len(times)]
    stretches = [(int(times[begin]), int(times[end - 1]) + 1) for begin, end in zip(edges, edges[1:])]
    return max(stretches, key=lambda stretch: stretch[1] - stretch[0])


def _watched(frames: Iterator[np.ndarray], advance: Callable[[], None], detector: FaceDetector,
             beside: dict[int, int]) -> Iterator[np.ndarray]:
    """The frames as they come; notes, by frame, how many faces beside the largest there are in some of them."""
    for index, frame in enumerate(frames):
        if index % LOOK == 0:
            beside[index] = others([np.ptp(face[:, 0]) for face in detector.faces(frame)])
        yield frame
        advance()


def _alone(name: str, beside: list[int]) -> list[str]:
    """A remark where another face is seen now and then; InputError where it stays."""
    count = sum(other > 0 for other in beside)
    if count > SOME * len(beside):
        raise InputError(f"{name} shows two people in {count} of {len(beside)} frames looked at, and whose voice it is cannot "
                         "be told: cut the other one out of the picture, or record one person alone")
    told = f"another face in {count} of {len(beside)} frames looked at; the one that is there throughout was taken"
    return [told] if count else []
