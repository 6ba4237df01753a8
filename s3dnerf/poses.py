"""How the head moves and when the eyes blink, frame by frame: not at all, on its own, or as in a recording."""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from s3dnerf.data.tracking import Track
from s3dnerf.face import eye_opening
from s3dnerf.geometry import rigid_inverse, rotation_from_euler
from s3dnerf.media import FPS
from s3dnerf.types import Cameras, TensorRecord

CLOSED = 0.02
"""lid distance of a closed eye, head units"""
NECK = 1.2
"""distance from the head frame's origin down to the joint about which a head tilts, head units"""
LARGE_TURN = 25.0
"""degrees from the photo's pose beyond which the picture suffers"""


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


class StillHead:
    """Neither the head nor the eyes move."""

    def sway(self, first: int, count: int) -> Sway:
        """[count] frames from `first` on."""
        return Sway(torch.eye(3).repeat(count, 1, 1), torch.zeros(count, 2), torch.ones(count))

    def eyes(self, first: int, count: int, opening: float) -> Tensor:
        """[count] change of the eye opening, in tenths of a head unit, of eyes that are `opening` head units wide."""
        return torch.zeros(count)


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
    blink = (0.10, 0.04, 0.14)
    """seconds that lids close, are closed and open"""

    def __init__(self, seed: int, frames: int):
        draw = np.random.default_rng(seed)
        self.rates = np.exp(draw.uniform(math.log(0.06), math.log(0.45), (5, 6)))
        self.phases = draw.uniform(0, 2 * math.pi, (5, 6))
        gaps = draw.uniform(2.0, 6.0, int(frames / FPS / 2) + 2)
        self.blinks = np.cumsum(gaps)

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
        time = np.arange(first, first + count)[:, None] / FPS - self.blinks
        closes, closed, opens = self.blink
        share = np.where(time < 0, 1 + time / closes, 1 - (time - closed) / opens).clip(0, 1).max(1)
        depth = max(0.0, opening - CLOSED) / 0.1
        return torch.from_numpy(-depth * share * share * (3 - 2 * share)).float()


class RecordedHead:
    """The head of a tracked recording, from the photo's pose on, played back and forth; its blinks too."""

    def __init__(self, track: Track):
        turn = track.rotations @ track.rotations[0].T
        place = track.translations[:, :2] / track.translations[:, 2:]
        depth = track.translations[:, 2]
        as_tensor = lambda x: torch.from_numpy(np.ascontiguousarray(x)).float()
        self.path = Sway(as_tensor(turn), as_tensor((place - place[0]) * depth[0]), as_tensor(depth / depth[0]))
        opening = eye_opening(torch.from_numpy(track.mesh()))
        self.openings = (opening - opening.median()).float() / 0.1

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
        shown = self.openings[torch.from_numpy(bounce(first, count, len(self.openings)))]
        return shown.clamp(-max(0.0, opening - CLOSED) / 0.1, 0.2)
