"""Looks at a video of a person, to learn from or to follow: rate, rotation, cuts, faces, sound and whether it is in step."""
from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Callable, Iterator

import numpy as np

from s3dnerf.data.cropping import cut
from s3dnerf.data.detection import FaceDetector
from s3dnerf.data.prepare import refusal
from s3dnerf.data.quality import LOOK, conversions, others
from s3dnerf.data.recording import LEAST, RECOMMENDED, longest_stretch
from s3dnerf.data.sync import Matcher, SyncProfile, cut_sound, sync_profile
from s3dnerf.data.tracking import FaceTracker, Sightings, Track
from s3dnerf.doctor.finding import Finding, State, graded
from s3dnerf.doctor.sound import examine_samples
from s3dnerf.errors import InputError
from s3dnerf.media import FPS, is_silent, read_frames, read_sound, video_info
from s3dnerf.progress import counting

MOST_SECONDS = 60
"""of a video that are looked at"""
CROP = 256
"""pixels: side of the crops in which lips are compared with sound"""
PIECE, PIECES = 50, 6
"""frames of each stretch that is compared, and how many there are"""


def examine_video(path: str, matcher: Callable[[], Matcher]) -> list[Finding]:
    """What there is to say of a video's file; `matcher` loads what tells how well lips go with sound."""
    try:
        info, changes = video_info(path), conversions(path)
        told = f"{Path(path).name}, {info.width} x {info.height}, {info.fps:.4g} frames per second, {info.seconds:.1f} s"
        findings = [Finding("video", State.REPAIRED if changes else State.GOOD, "; ".join([told, *changes]))]
        seen, crowded = _look(path, min(info.seconds, MOST_SECONDS))
    except InputError as error:
        return [Finding("video", State.STOP, str(error))]
    first, last = longest_stretch(seen)
    if first == last:
        return [*findings, Finding("face", State.STOP, "none was found in any frame; use a video of a face that looks at the camera")]
    missing = sum(face is None for face in seen.landmarks)
    away = "`speak` needs a face throughout to follow a video: cut the rest out" if missing else ""
    findings.append(graded("face", f"in {len(seen) - missing} of {len(seen)} frames", careful=away))
    beside = "keep one person in the picture: the largest face is taken" if crowded else ""
    findings.append(graded("faces", f"another one in {crowded} of {-(-len(seen) // LOOK)} frames looked at", careful=beside))
    findings.append(_length(first, last, len(seen)))
    try:
        track = FaceTracker().fit(seen[first:last])
    except InputError as error:
        return [*findings, Finding("track", State.CAREFUL, str(error))]
    pose = f"head turned by {np.abs(track.yaw).max():.0f} degrees at most, eyes {track.unit.min():.0f} pixels apart at least"
    findings.append(graded("track", pose, careful=refusal(track)))
    return [*findings, *_sound(path, track, first, info.has_sound, matcher)]


def _look(path: str, seconds: float) -> tuple[Sightings, int]:
    """The largest face of every frame, and in how many of those looked at there is another one of about its size."""
    beside: list[int] = []
    with counting("looking at the video", max(1, round(seconds * FPS))) as advance, FaceDetector(still=True) as detector:

        def watched() -> Iterator[np.ndarray]:
            for index, frame in enumerate(islice(read_frames(path), MOST_SECONDS * FPS)):
                if index % LOOK == 0:
                    beside.append(others([np.ptp(face[:, 0]) for face in detector.faces(frame)]))
                yield frame
                advance()

        return FaceTracker().look(watched()), sum(map(bool, beside))


def _length(first: int, last: int, frames: int) -> Finding:
    """Whether there is enough in one piece to learn a person from."""
    seconds = (last - first) / FPS
    told = f"{seconds:.1f} s at a stretch with a face and without a cut"
    told += f", of {frames / FPS:.1f} s" if last - first < frames else ""
    if seconds < LEAST:
        return graded("cuts", told, careful=f"enough to follow; to learn a person from it needs {LEAST:.0f} s, better a minute")
    return graded("cuts", told, careful="a minute or more makes a better head" if seconds < min(RECOMMENDED, MOST_SECONDS) - 1 else "")


def _sound(path: str, track: Track, first: int, has_sound: bool, matcher: Callable[[], Matcher]) -> list[Finding]:
    """The sound track, and how far it is off the lips."""
    if not has_sound:
        return [Finding("sound", State.CAREFUL, "there is none; the video can be followed, but no person learned from it")]
    try:
        sound = read_sound(path)
    except InputError as error:
        return [Finding("sound", State.CAREFUL, str(error))]
    if is_silent(sound):
        return [Finding("sound", State.CAREFUL, "the track is silent; the video can be followed, but no person learned from it")]
    try:
        step = in_step(path, track, first, sound, matcher())
    except InputError as error:  # of a part that is too short
        step = Finding("sync", State.CAREFUL, f"not looked at: {error}")
    return [*examine_samples(sound), step]


def in_step(path: str, track: Track, first: int, sound: np.ndarray, match: Matcher) -> Finding:
    """Whether lips and sound go together, by a lip discriminator, in some stretches of a tracked part from frame `first` on."""
    count, profile, box = len(track.error), SyncProfile(), track.crop_box()
    begins = sorted(set(np.linspace(0, max(0, count - PIECE), PIECES).astype(int).tolist()))
    for begin in begins:
        frames = np.stack(list(islice(read_frames(path), first + begin, first + min(count, begin + PIECE))))
        landmarks = (track.landmarks[begin:begin + len(frames)] - (box.left, box.top)) * (CROP / box.side)
        profile += sync_profile(cut(frames, box, CROP), landmarks, cut_sound(sound, first + begin, len(frames)), match)
    estimate = profile.estimate()
    if not estimate.offset:
        return Finding("sync", State.GOOD, f"no sign that the sound is out of step (confidence {estimate.confidence:.2f}; 0.99 is "
                                           "one)")
    side = "late" if estimate.offset > 0 else "early"
    return Finding("sync", State.REPAIRED, f"the sound is {abs(estimate.offset) / FPS:.2f} s {side}; `prepare` and `personalize` move it, "
                   "`speak --drive` does not")
