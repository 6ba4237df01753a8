"""Where the camera goes, frame by frame: to one side, or along a path that a file describes."""
from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import numpy as np
import torch
from torch import Tensor

from s3dnerf.errors import InputError
from s3dnerf.geometry import orbit, rigid_inverse, rotation_from_euler
from s3dnerf.media import FPS, PathLike, check_file
from s3dnerf.poses import bounce, smoothed
from s3dnerf.types import Cameras, TensorRecord

SAFE_ORBIT, MAX_ORBIT = 20.0, 45.0
"""degrees of the camera away from the photo's up to which the picture is good, and that are allowed"""
MAX_ZOOM = 4.0
LIMITS = {**dict.fromkeys(("yaw", "pitch", "roll"), (-MAX_ORBIT, MAX_ORBIT)), "zoom": (1.0, MAX_ZOOM)}
MAX_SECONDS = 3600.0
FORMAT = '{"fps": 25, "frames": [{"yaw": 10}, ...]} or {"keys": [{"time": 0}, {"time": 2, "yaw": 10, "zoom": 1.2}, ...]}'


@dataclass(frozen=True)
class CameraPath(TensorRecord):
    """Where the camera is, frame by frame, against where the picture was taken; played back and forth.

    A file of it is JSON: `{"fps": 25, "frames": [{...}, ...]}`, an entry per frame at any constant rate, or
    `{"keys": [{"time": 0, ...}, ...]}`, entries at ascending times in seconds. An entry has any of yaw, pitch, roll (0 where
    they are left out) and zoom (1). Between entries the path is smooth, does not overshoot, and rests at both ends.
    """

    yaw: Tensor
    """[P] degrees around the head, to the right"""
    pitch: Tensor
    """[P] degrees around the head, up"""
    roll: Tensor
    """[P] degrees about the line to the head; the head leans clockwise in the picture"""
    zoom: Tensor
    """[P] how much larger everything is shown than it is, 1 or more"""

    @classmethod
    def fixed(cls, camera: Sequence[float]) -> "CameraPath":
        """A camera that stays at (yaw, pitch) or (yaw, pitch, zoom). InputError for anything else."""
        numbers = tuple(camera)
        if len(numbers) not in (2, 3) or not all(math.isfinite(angle) and abs(angle) <= MAX_ORBIT for angle in numbers[:2]):
            raise InputError(f"found camera {','.join(map(str, numbers))}; expected two angles, right and up, of at most "
                             f"{MAX_ORBIT:.0f} degrees, and a zoom where wanted, such as 20,0 or 0,0,1.5")
        zoom = numbers[2] if len(numbers) == 3 else 1.0
        if not 1 <= zoom <= MAX_ZOOM:
            raise InputError(f"found zoom {zoom:g}; expected 1, as it is, to {MAX_ZOOM:.0f}: nothing is known beyond the edge")
        return cls(*torch.tensor([numbers[0], numbers[1], 0.0, zoom])[:, None])

    @classmethod
    def read(cls, path: PathLike) -> "CameraPath":
        """The path of a JSON file, at 25 fps. InputError, with what is wrong and where, for a file that is none."""
        name, (times, values) = Path(path).name, _entries(check_file(path, "camera path"))
        if len(times) > 1 and np.diff(times).min() <= 0:
            late = int(np.argmin(np.diff(times) > 0)) + 1
            raise InputError(f"{name}: key {late} is at {times[late]:g} s, after {times[late - 1]:g} s; expected ascending "
                             "times")
        from scipy.interpolate import PchipInterpolator

        held = np.concatenate([[times[0] - 1], times, [times[-1] + 1]])  # it rests before and after
        curve = PchipInterpolator(held, np.concatenate([values[:1], values, values[-1:]]))
        shown = np.arange(math.floor(times[-1] * FPS + 1e-6) + 1) / FPS
        return cls(*torch.from_numpy(curve(np.clip(shown, times[0], times[-1])).T.copy()).float())

    def shifted(self, other: "CameraPath") -> "CameraPath":
        """This path as seen from a `fixed` one. InputError where both together go too far."""
        moved = CameraPath(self.yaw + other.yaw, self.pitch + other.pitch, self.roll + other.roll, self.zoom * other.zoom)
        if moved.largest_turn > MAX_ORBIT or moved.zoom.max() > MAX_ZOOM:
            raise InputError(f"the camera and its path together reach {moved.largest_turn:.0f} degrees and zoom "
                             f"{float(moved.zoom.max()):.1f}; expected at most {MAX_ORBIT:.0f} degrees and {MAX_ZOOM:.0f}")
        return moved

    def smoothed(self, seconds: float) -> "CameraPath":
        """See `poses.smoothed`."""
        return self.map(lambda values: smoothed(values, seconds))

    @property
    def largest_turn(self) -> float:
        """Degrees, of any of the angles."""
        return float(torch.cat([self.yaw, self.pitch, self.roll]).abs().max())

    def at(self, first: int, count: int) -> "CameraPath":
        """The frames [count] from `first` on."""
        return self[torch.from_numpy(bounce(first, count, len(self.yaw)))]

    def around(self, cameras: Cameras) -> Cameras:
        """Cameras [P], each moved around the head; zoom is left to the picture (`paste.zoomed`)."""
        yaw, pitch, roll = (torch.deg2rad(angle) for angle in (self.yaw, self.pitch, self.roll))
        head = rigid_inverse(orbit(cameras, -yaw, pitch).camera_to_world)
        zero = torch.zeros_like(roll)
        turned = torch.cat([rotation_from_euler(zero, zero, roll) @ head[:, :3, :3], head[:, :3, 3:]], -1)
        return Cameras(rigid_inverse(torch.cat([turned, head[:, 3:]], 1)), cameras.intrinsics)


def _entries(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Times [N] in seconds and values [N, 4] of a file."""
    name = path.name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{name} is no JSON ({error}); expected {FORMAT}") from None
    kinds = [kind for kind in ("frames", "keys") if isinstance(content, dict) and isinstance(content.get(kind), list)]
    kind = kinds[0] if kinds else None
    known = {"frames": {"fps", "frames"}, "keys": {"keys"}}.get(kind, set())
    if kind is None or not content[kind] or set(content) - known:
        raise InputError(f"{name} is no camera path; expected {FORMAT}")
    what = kind[:-1]
    rows = [_row(entry, f"{name}: {what} {number}", timed=kind == "keys") for number, entry in enumerate(content[kind])]
    if kind == "keys":
        return np.array([entry["time"] for entry in content[kind]], float), np.array(rows)
    fps = content.get("fps", FPS)
    _check(fps, f"{name}: fps", 1, 240)
    _check(len(rows) / fps, f"{name}: its length in seconds", 0, MAX_SECONDS)
    return np.arange(len(rows)) / fps, np.array(rows)


def _row(entry, place: str, timed: bool) -> list[float]:
    """Yaw, pitch, roll and zoom of an entry, checked."""
    known = {**LIMITS, **({"time": (0.0, MAX_SECONDS)} if timed else {})}
    if not isinstance(entry, dict) or set(entry) - set(known) or (timed and "time" not in entry):
        found = ", ".join(map(str, entry)) if isinstance(entry, dict) else type(entry).__name__
        raise InputError(f"{place} has {found or 'nothing'}; expected {'time and ' if timed else ''}any of "
                         f"{', '.join(LIMITS)}")
    for key, value in entry.items():
        _check(value, f"{place}: {key}", *known[key])
    return [float(entry.get(key, 1.0 if key == "zoom" else 0.0)) for key in LIMITS]


def _check(value, what: str, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise InputError(f"{what} is {json.dumps(value)[:40]}; expected a number from {least:g} to {most:g}")
