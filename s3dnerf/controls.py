"""What a user may set of a video, whatever model makes it: checked before anything is computed."""
from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Optional, Sequence, Union

import numpy as np
import torch
from torch import Tensor

from s3dnerf.camera_path import CameraPath
from s3dnerf.errors import InputError
from s3dnerf.media import PathLike, read_image
from s3dnerf.poses import Blinks, FixedEyes

MAX_OPENING, MAX_RATE = 1.5, 60.0
"""of fixed eyes, 1 as usual; blinks a minute"""
MAX_SMOOTH = 2.0
"""seconds"""


@dataclass(frozen=True)
class Controls:
    """The options of `inference.TalkingHead.speak`, which tells what they mean. InputError for one that cannot be used."""

    frame: Optional[str] = None
    pose: PathLike = "natural"
    drive: Optional[PathLike] = None
    mouth_gain: Optional[float] = None
    camera: Sequence[float] = (0.0, 0.0)
    eyes: Union[str, float] = "keep"
    background: PathLike = "keep"
    smooth: float = 0.0
    seed: int = 0

    def __post_init__(self):
        if self.frame not in (None, "full", "face"):
            raise InputError(f"found frame {self.frame!r}; expected full or face")
        if self.mouth_gain is not None and not (math.isfinite(self.mouth_gain) and 0 <= self.mouth_gain <= 10):
            raise InputError(f"found mouth gain {self.mouth_gain}; expected a number from 0 (still) to 10, about 1")
        if not (math.isfinite(self.smooth) and 0 <= self.smooth <= MAX_SMOOTH):
            raise InputError(f"found smooth {self.smooth}; expected seconds from 0 to {MAX_SMOOTH:g}, such as 0.08")
        if self.seed < 0:
            raise InputError(f"found seed {self.seed}; expected 0 or more")
        self.path, self.backdrop, self.eyes_over(1)

    @property
    def recordings(self) -> list[str]:
        """The videos that have to be tracked."""
        follows = None if self.on_its_own or self.along_path else str(self.pose)
        return sorted({name for name in (follows, self.drive and str(self.drive)) if name})

    @property
    def on_its_own(self) -> bool:
        """Whether the pose is none that a file tells."""
        return str(self.pose) in ("still", "natural")

    @property
    def along_path(self) -> bool:
        """Whether the pose is a camera path, before which the head keeps still."""
        return Path(self.pose).suffix.lower() == ".json"

    @cached_property
    def path(self) -> CameraPath:
        """Where the camera goes."""
        fixed = CameraPath.fixed(self.camera)
        return CameraPath.read(self.pose).smoothed(self.smooth).shifted(fixed) if self.along_path else fixed

    @cached_property
    def backdrop(self) -> Optional[np.ndarray]:
        """[h, w, 3] uint8 that replaces the background, of any size; None where it is kept."""
        text = str(self.background)
        if text == "keep":
            return None
        if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
            return np.frombuffer(bytes.fromhex(text[1:]), np.uint8)[None, None]
        if not Path(text).exists():
            raise InputError(f"found background {text}; expected keep, a colour such as #00ff00, or an image")
        return read_image(text)

    @property
    def fixed_eyes(self) -> bool:
        """Whether the eyes stay as wide as a number says."""
        return isinstance(self.eyes_over(1), FixedEyes)

    def eyes_over(self, frames: int) -> Union[FixedEyes, Blinks, None]:
        """How wide the eyes are in a video of so many frames; None where the pose decides."""
        text = str(self.eyes).strip()
        if text == "keep":
            return None
        number = re.fullmatch(r"(\d+\.?\d*|\.\d+)(/min)?", text)
        if number is None or float(number[1]) > (MAX_RATE if number[2] else MAX_OPENING):
            raise InputError(f"found eyes {text}; expected keep, an opening from 0, shut, to 1, as usual (at most "
                             f"{MAX_OPENING}), or blinks such as 15/min (at most {MAX_RATE:.0f})")
        if number[2]:
            return Blinks(np.random.default_rng(self.seed), frames, float(number[1]))
        return FixedEyes(float(number[1]))


def filling(picture: np.ndarray, width: int, height: int) -> Tensor:
    """[3, height, width] in [0, 1] of a picture [h, w, 3] uint8, scaled to fill and cut evenly."""
    from PIL import Image, ImageOps

    fitted = ImageOps.fit(Image.fromarray(np.ascontiguousarray(picture)), (width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(fitted).copy()).permute(2, 0, 1) / 255
