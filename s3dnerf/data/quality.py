"""What makes a stretch of video fit to learn from: one shot, one face, large, sharp, turned to the camera."""
from __future__ import annotations

from typing import Sequence

import numpy as np

from s3dnerf.data.alignment import PATCH_PIXELS, Patch
from s3dnerf.data.detection import FaceSearch
from s3dnerf.data.tracking import MAX_ERROR, MAX_YAW, MIN_EYES, Track
from s3dnerf.face import EYE_CORNERS, RIGID
from s3dnerf.media import FPS, check_file

CUT_JUMP = 0.35
"""a shot ends where the rigid landmarks' mean jumps by more than this many eye distances from one frame to the next"""
CUT_LIKENESS = 0.6
"""a shot ends where one frame is less like the next, at 32 x 32 pixels, than this (1: the same)"""
MIN_SECONDS = 0.9
MAX_BLUR = 0.7
"""see `blur`: the development clips reach 0.6, shrunk ones 0.66; a Gaussian of 6 % of the eye distance lifts all to 0.77 or more"""
LOOK = FPS
"""other faces are looked for in every so many frames"""
BESIDE = 0.5
"""share of the person's width from which on another face counts"""
SOME = 0.1
"""share of the frames looked at in which another face may be"""
UNEVEN = 1.5
"""time between two frames, as a multiple of the usual, from which on a frame rate varies"""


def picture_shots(frames: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """First frame and end of every stretch of frames [H, W, 3] uint8 without a cut. The whole picture's brightness may change
    as it likes, its contrast by half."""
    import cv2

    small = np.stack([cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
                      for frame in frames]).reshape(len(frames), -1).astype(np.float64)
    small -= small.mean(1, keepdims=True)
    power = (small ** 2).sum(1)
    likeness = ((small[1:] * small[:-1]).sum(1) + 1024) / ((power[1:] + power[:-1]) / 2 + 1024)  # 1024: a grey level each
    edges = [0, *(np.flatnonzero(likeness < CUT_LIKENESS) + 1).tolist(), len(frames)]
    return list(zip(edges, edges[1:]))


def longest(shots: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The longest of stretches."""
    return max(shots, key=lambda shot: shot[1] - shot[0])


def longest_shot(track: Track) -> tuple[int, int]:
    """First frame and end of the longest stretch in which the face does not jump."""
    middle = track.landmarks[:, list(RIGID)].mean(1)
    eyes = np.linalg.norm(np.diff(track.landmarks[:, EYE_CORNERS], axis=1)[:, 0], axis=1)
    jumps = np.flatnonzero(np.linalg.norm(np.diff(middle, axis=0), axis=1) > CUT_JUMP * np.median(eyes)) + 1
    edges = [0, *jumps.tolist(), len(middle)]
    return longest(list(zip(edges, edges[1:])))


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


def blur(frames: Sequence[np.ndarray], landmarks: np.ndarray) -> float:
    """How blurred a face is in frames [H, W, 3] uint8 with landmarks [T, 478, 2], from 0 (sharp) to 1; the median of five.

    The share of the differences between neighbouring pixels that a further blur leaves over: it takes little from what is
    blurred already (Crete et al. 2007). The face is looked at no larger than 75 pixels between the eyes; there that blur reaches over 9 pixels, and
    in smaller faces over as much of them.
    """
    some = np.linspace(0, len(frames) - 1, min(5, len(frames))).round().astype(int)
    return float(np.median([_left_over(Patch.of(frames[index], landmarks[index]).pixels) for index in some]))


def _left_over(grey: np.ndarray) -> float:
    import cv2

    edge, reach = len(grey) // 5, 2 * round(4 * len(grey) / PATCH_PIXELS) + 1
    grey, shares = grey[edge:-edge, edge:-edge].astype(np.float32), []
    for axis, window in ((0, (1, reach)), (1, (reach, 1))):
        before, after = (np.abs(np.diff(image, axis=axis)) for image in (grey, cv2.blur(grey, window)))
        shares.append(1 - float(np.maximum(0, before - after).sum() / max(before.sum(), 1e-6)))
    return max(shares)


def others(widths: Sequence[float]) -> int:
    """How many of faces there are beside the widest, of half its width or more."""
    return sum(width > BESIDE * max(widths) for width in widths) - 1 if widths else 0


def company(frames: Sequence[np.ndarray]) -> str:
    """That frames [H, W, 3] uint8 show more than one person, in words; empty if they do not."""
    with FaceSearch() as search:
        looked = [others(search.widths(frame)) > 0 for frame in frames[LOOK // 2::LOOK]]
    if sum(looked) <= SOME * len(looked):
        return ""
    return f"two faces in {sum(looked)} of {len(looked)} frames looked at; expected one person: cut the other out of the picture"


def sample_rate(recording: str) -> int:
    """Samples per second of a file's sound; 0 where it has none."""
    import av

    with av.open(str(check_file(recording, "recording"))) as container:
        return container.streams.audio[0].rate if container.streams.audio else 0


def conversions(video: str) -> list[str]:
    """What reading a video changes (`media.read_frames`): its frame rate, and a picture that lies on its side."""
    import av

    with av.open(str(check_file(video, "video"))) as container:
        stream = container.streams.video[0]
        shown = next(container.decode(stream), None)
    turn = shown.rotation if shown else 0
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        times = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
        steps = np.diff(times) * float(stream.time_base)
    remarks = [f"the picture is turned by {abs(turn):.0f} degrees, as the file says"] if turn else []
    if not len(steps):
        return remarks
    low, usual, high = np.percentile(steps, (1, 50, 99))
    if high > UNEVEN * usual or low < usual / UNEVEN:
        remarks.append(f"the frame rate varies from {1 / high:.0f} to {1 / max(low, 1e-3):.0f}; converted to {FPS} by the "
                       "frames' times")
    elif abs(steps.mean() * FPS - 1) > 0.01:
        remarks.append(f"{1 / steps.mean():.3g} frames per second, converted to {FPS}")
    return remarks
