"""How the head moves and how wide the eyes are, frame by frame: not at all, on their own, or as in a recording."""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s3dnerf.data.tracking import Track
from s3dnerf.face import eye_opening, shut_opening
from s3dnerf.geometry import rigid_inverse, rotation_from_euler
from s3dnerf.media import FPS
from s3dnerf.types import Cameras, TensorRecord

CLOSED = 0.005
"""lid distance that an eye is asked for to be shut, head units, safely below `face.shut_opening`"""
NECK = 1.2
"""distance from the head frame's origin down to the joint about which a head tilts, head units"""
LARGE_TURN = 25.0
"""degrees from the photo's pose beyond which the picture suffers"""
BLINKS = 15.0
"""a minute, of a head that moves on its own"""


@dataclass(frozen=True)
class Sway(TensorRecord):
    """Where a head has moved to since the first frame."""

    rotation: Tensor
    """[*, 3, 3] about the camera's axes"""
    shift: Tensor
    """[*, 2] across the image (x right, y down), in head units at the first frame's distance"""
    distance: Tensor
    """[*] from the camera, as a multiple of the first frame's"""


def move(camera: Cameras, sway: Sway) -> Cameras:
    """Cameras [T] that see a head, which `camera` [] saw, after it has moved by `sway` [T]."""
    pose = rigid_inverse(camera.camera_to_world)
    start = pose[:3, 3]
    depth = start[2] * sway.distance
    place = (start[:2] + sway.shift) / start[2]
    moved = torch.eye(4, dtype=pose.dtype, device=pose.device).repeat(len(depth), 1, 1)
    moved[:, :3, :3] = sway.rotation @ pose[:3, :3]
    moved[:, :2, 3] = place * depth[:, None]
    moved[:, 2, 3] = depth
    return Cameras(rigid_inverse(moved), camera.intrinsics.expand(len(depth), 3, 3))


def bounce(first: int, count: int, length: int) -> np.ndarray:
    """[count] which of `length` frames is shown at frames `first` on, played forwards, backwards, forwards ..."""
    if length == 1:
        return np.zeros(count, int)
    phase = np.arange(first, first + count) % (2 * length - 2)
    return np.minimum(phase, 2 * length - 2 - phase)


def reach(seconds: float) -> int:
    """Frames to either side that a Gaussian of so many seconds' standard deviation takes in."""
    return math.ceil(3 * seconds * FPS)


def smoothed(sequence: Tensor, seconds: float) -> Tensor:
    """A sequence [T, *] of frames, averaged under a Gaussian of so many seconds' standard deviation; its ends are repeated,
    and 0 leaves it as it is."""
    if seconds == 0:
        return sequence
    far = reach(seconds)
    weights = torch.softmax(-(torch.arange(-far, far + 1, device=sequence.device) / (seconds * FPS)) ** 2 / 2, 0)
    rows = F.pad(sequence.reshape(len(sequence), -1).T[:, None], (far, far), mode="replicate")
    return F.conv1d(rows, weights.to(rows)[None, None])[:, 0].T.reshape(sequence.shape)


def smoothed_rotations(rotations: Tensor, seconds: float) -> Tensor:
    """Rotations [T, 3, 3], `smoothed` and put back onto the rotation group."""
    if seconds == 0:
        return rotations
    u, _, vt = torch.linalg.svd(smoothed(rotations, seconds))
    return u @ vt


class StillHead:
    """Neither the head nor the eyes move."""

    def sway(self, first: int, count: int) -> Sway:
        """[count] frames from `first` on."""
        return Sway(torch.eye(3).repeat(count, 1, 1), torch.zeros(count, 2), torch.ones(count))

    def eyes(self, first: int, count: int, opening: float) -> Tensor:
        """[count] change of the eye opening, in tenths of a head unit, of eyes that are `opening` head units wide."""
        return torch.zeros(count)


class FixedEyes:
    """Eyes that stay as wide as they are.

    Args:
        share: of what is usual, 0 shut, 1 as usual.
    """

    def __init__(self, share: float):
        self.share = share

    def eyes(self, first: int, count: int, opening: float) -> Tensor:
        """[count] change of the eye opening, in tenths of a head unit, of eyes that are `opening` head units wide."""
        return torch.full((count,), (self.share - 1) * max(0.0, opening - CLOSED) / 0.1)


class Blinks:
    """Eyes that blink at random times, from one blink to the next between half and one and a half times the mean.

    Args:
        draw: where the times come from.
        frames: how many there will be.
        rate: blinks a minute; 0 for none.
    """

    lids = (0.10, 0.04, 0.14)
    """seconds that lids close, are closed and open"""

    def __init__(self, draw: np.random.Generator, frames: int, rate: float = BLINKS):
        gaps = draw.uniform(0.5, 1.5, math.ceil(frames / FPS * rate / 30) + 2)
        self.times = np.cumsum(gaps) * 60 / rate if rate else np.full(1, math.inf)

    def eyes(self, first: int, count: int, opening: float) -> Tensor:
        """[count] change of the eye opening, in tenths of a head unit, of eyes that are `opening` head units wide."""
        time = np.arange(first, first + count)[:, None] / FPS - self.times
        closes, closed, opens = self.lids
        share = np.where(time < 0, 1 + time / closes, 1 - (time - closed) / opens).clip(0, 1).max(1)
        depth = max(0.0, opening - CLOSED) / 0.1
        return torch.from_numpy(-depth * share * share * (3 - 2 * share)).float()


class NaturalHead:
    """Small slow movements, sums of a few sines of random phase, and a blink every 2 to 6 seconds.

    Frame 0 is the photo's pose; the movement grows to its full size within two seconds. Frames depend on their number
    and the seed alone.

    Args:
        seed: of the movement and of the blinks.
        frames: how many there will be.
    """

    angles = (1.2, 1.8, 0.9)
    """degrees of pitch, yaw and roll: standard deviation"""
    path = 0.012
    """head units across the image: standard deviation"""

    def __init__(self, seed: int, frames: int):
        draw = np.random.default_rng(seed)
        self.rates = np.exp(draw.uniform(math.log(0.06), math.log(0.45), (5, 6)))
        self.phases = draw.uniform(0, 2 * math.pi, (5, 6))
        self.blinks = Blinks(draw, frames)

    def sway(self, first: int, count: int) -> Sway:
        """[count] frames from `first` on."""
        time = np.arange(first, first + count) / FPS
        slow = self.rates ** -0.5
        slow = slow / np.sqrt((slow ** 2).sum(1, keepdims=True) / 2)
        waves = (slow[..., None] * np.sin(2 * math.pi * self.rates[..., None] * time + self.phases[..., None])).sum(1)
        rise = np.clip(time / 2, 0, 1)
        waves = torch.from_numpy(waves * rise * rise * (3 - 2 * rise)).float()
        pitch, yaw, roll = (waves[i] * math.radians(self.angles[i]) for i in range(3))
        shift = self.path * waves[3:].T
        shift = shift + torch.stack([NECK * roll.sin(), torch.zeros(count)], -1)  # it tilts about the neck
        return Sway(rotation_from_euler(pitch, yaw, roll), shift, torch.ones(count))

    def eyes(self, first: int, count: int, opening: float) -> Tensor:
        """[count] change of the eye opening, in tenths of a head unit, of eyes that are `opening` head units wide."""
        return self.blinks.eyes(first, count, opening)


class RecordedHead:
    """The head of a tracked recording, from the photo's pose on, played back and forth; its blinks too.

    Args:
        track: the recording's head.
        smooth: seconds over which its motion, not its blinks, is `smoothed`.
    """

    def __init__(self, track: Track, smooth: float = 0.0):
        turn = track.rotations @ track.rotations[0].T
        place = track.translations[:, :2] / track.translations[:, 2:]
        depth = track.translations[:, 2]
        as_tensor = lambda x: torch.from_numpy(np.ascontiguousarray(x)).float()
        self.path = Sway(smoothed_rotations(as_tensor(turn), smooth),
                         smoothed(as_tensor((place - place[0]) * depth[0]), smooth),
                         smoothed(as_tensor(depth / depth[0]), smooth))
        opening = eye_opening(torch.from_numpy(track.mesh()))
        usual = opening.median().clamp_min(1e-3)
        self.openings = ((opening - shut_opening(usual)) / (usual - shut_opening(usual))).float()

    @property
    def largest_turn(self) -> float:
        """Degrees between the first frame's pose and the one farthest from it."""
        trace = self.path.rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
        return float(torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1))).max())

    def sway(self, first: int, count: int) -> Sway:
        """[count] frames from `first` on."""
        return self.path[torch.from_numpy(bounce(first, count, len(self.openings)))]

    def eyes(self, first: int, count: int, opening: float) -> Tensor:
        """[count] change of the eye opening, in tenths of a head unit, of eyes that are `opening` head units wide."""
        shares = self.openings[torch.from_numpy(bounce(first, count, len(self.openings)))]
        change = (shares - 1) * (opening - shut_opening(torch.tensor(opening))) / 0.1
        return change.clamp(-max(0.0, opening - CLOSED) / 0.1, 0.2)
