"""A person whose own video was learned from, speaking: where the head is, frame by frame, and what is behind it."""
from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import numpy as np
import torch
from torch import Tensor

from s3dnerf.data.tracking import Track
from s3dnerf.errors import InputError
from s3dnerf.geometry import orbit, rigid_inverse
from s3dnerf.media import read_image
from s3dnerf.models.rad_nerf import RADNeRF
from s3dnerf.paste import to_bytes
from s3dnerf.poses import CLOSED, bounce
from s3dnerf.types import Cameras, Condition


@dataclass(frozen=True)
class PersonPath:
    """Where a head is and how wide its eyes are, frame by frame, played back and forth."""

    cameras: Cameras
    """[P] that see it"""
    eyes: Tensor
    """[P] eye opening, as in `types.Condition`"""

    @classmethod
    def natural(cls, model: RADNeRF) -> "PersonPath":
        """The head motion and the blinks of the recording that the model was learned from."""
        return cls(Cameras(model.path, model.intrinsics.expand(len(model.path), 3, 3)), model.path_eyes)

    @classmethod
    def still(cls, model: RADNeRF) -> "PersonPath":
        """Neither the head nor the eyes move."""
        return cls(Cameras(model.path[:1], model.intrinsics[None]), model.path_eyes.median()[None])

    @classmethod
    def recorded(cls, model: RADNeRF, track: Track) -> "PersonPath":
        """The head motion and the blinks of a tracked recording, brought to the model's own focal length and frame."""
        size = model.image_size
        seen, own = track.cameras(track.crop_box(), size), model.intrinsics.cpu()
        head = rigid_inverse(seen.camera_to_world)
        place = head[:, :3, 3]
        pixel = place[:, :2] / place[:, 2:] * seen.intrinsics[:, [0, 1], [0, 1]] + seen.intrinsics[:, :2, 2]
        depth = place[:, 2:] * own[0, 0] / seen.intrinsics[:, :1, 0]
        shift = (pixel - own[:2, 2]) / own[[0, 1], [0, 1]] * depth
        head = head.clone()
        head[:, :3, 3] = torch.cat([shift, depth], -1)
        eyes = model.lip_codes(torch.from_numpy(track.mesh()).to(model.path.device))[1][:, 0]
        return cls(Cameras(rigid_inverse(head), own.expand(len(head), 3, 3)), eyes)

    def at(self, first: int, count: int) -> tuple[Cameras, Tensor]:
        """Cameras and eye openings [count] of the frames from `first` on."""
        shown = torch.from_numpy(bounce(first, count, len(self.eyes)))
        return self.cameras.map(lambda x: x.cpu()[shown]), self.eyes.cpu()[shown]


def followed_lips(model: RADNeRF, track: Track, count: int, gain: Optional[float] = None) -> Tensor:
    """[count, 12] lip codes of a tracked recording, played back and forth. InputError for a model whose code has no meaning."""
    if not model.by_lips:
        raise InputError("these weights know no lip code and cannot be driven by lips; leave --drive out")
    codes = model.lip_codes(torch.from_numpy(track.mesh()).to(model.path.device))[0]
    return codes[torch.from_numpy(bounce(0, count, len(codes)))] * (1.0 if gain is None else gain)


class PersonScene:
    """A learned person who speaks; see `inference.Scene`.

    Args:
        model: the person.
        code: [T, K] speech code of every frame.
        path: where the head is.
        statistics: notes where the time goes (`inference.Statistics`).
        camera: degrees that the camera goes around the head, to the right and up.
        eyes: how wide the eyes are, from 0, shut, to 1, as usual; None leaves them to the path.
        background: [3, S, S] what is behind the person; None is what was recorded there.
    """

    def __init__(self, model: RADNeRF, code: Tensor, path: PersonPath, statistics, camera: tuple[float, float] = (0.0, 0.0),
                 eyes: Optional[float] = None, background: Optional[Tensor] = None):
        self.model, self.code, self.path, self.statistics, self.eyes = model, code, path, statistics, eyes
        self.background = background
        self.width = self.height = model.image_size
        self.region = slice(0, self.height), slice(0, self.width)
        self.turn = [torch.tensor(math.radians(angle)) for angle in (-camera[0], camera[1])]

    def frames(self, first: int, count: int) -> np.ndarray:
        """See `inference.Scene`."""
        device = self.code.device
        with self.statistics.stage("motion"):
            cameras, eyes = self.path.at(first, count)
            cameras = orbit(cameras, *self.turn)
            if self.eyes is not None:
                eyes = torch.full_like(eyes, eye_code(self.model, self.eyes))
            condition = Condition(self.code[first:first + count], eyes[:, None].to(device),
                                  torch.full((count,), -1, device=device))
        with self.statistics.stage("render"):
            rendering = self.model.render(cameras.to(device), condition, self.background)
        with self.statistics.stage("composite"):
            return to_bytes(rendering.image)


def eye_code(model: RADNeRF, share: float) -> float:
    """The eye opening, as in `types.Condition`, of eyes that are open to a share of what is usual."""
    shut = (CLOSED - 0.12) / 0.1
    return shut + share * (float(model.path_eyes.median()) - shut)


def read_background(background: Union[str, Path], size: int) -> Optional[Tensor]:
    """[3, size, size] of "#rrggbb" or an image, cut to a square; None for "keep". InputError for anything else."""
    text = str(background)
    if text == "keep":
        return None
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        colour = torch.tensor([int(text[i:i + 2], 16) / 255 for i in (1, 3, 5)])
        return colour[:, None, None].expand(3, size, size)
    if not Path(text).exists():
        raise InputError(f"found background {text}; expected keep, a colour such as #00ff00, or an image")
    from PIL import Image, ImageOps

    picture = ImageOps.fit(Image.fromarray(read_image(text)), (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 255
