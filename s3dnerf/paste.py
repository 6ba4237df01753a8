"""From renderings of the crop to the frames of the video: the crop itself, or the photo with the head put back."""
from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s3dnerf.data.tracking import CropBox
from s3dnerf.types import Rendering

LONG_SIDE = 1080
"""larger photos are shrunk to this, pixels"""
FEATHER = 0.03
"""share of the crop, along its border, over which it fades into the photo"""


def shrink(photo: np.ndarray, box: CropBox, longest: int = LONG_SIDE) -> tuple[np.ndarray, CropBox]:
    """A photo [H, W, 3] uint8 whose long side is at most `longest` pixels, and where a square of it lies now."""
    from PIL import Image

    factor = longest / max(photo.shape[:2])
    if factor >= 1:
        return photo, box
    height, width = (max(2, round(side * factor)) for side in photo.shape[:2])
    small = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0))
    return small, CropBox(box.left * factor, box.top * factor, box.side * factor)


class FaceFrame:
    """The square crop, as it was rendered. `region` is where in the frame the head is, rows and columns."""

    def __init__(self, size: int):
        self.width = self.height = size
        self.region = slice(0, size), slice(0, size)

    def frames(self, rendering: Rendering) -> np.ndarray:
        """[T, size, size, 3] uint8 of a rendering [1, T]."""
        return to_bytes(rendering.image[0])


class FullFrame:
    """The photo with the moving head put back at the photo's own resolution.

    The rendering says, for every pixel, where in the photo it looks (`Rendering.source`); the photo itself, not its
    resampled crop, is looked up there, and what the model adds to its own look-up (the inside of the mouth,
    super-resolution) is added on top. Where the rendering equals the crop, the frame equals the photo.

    Args:
        photo: [H, W, 3] uint8.
        box: where the crop was cut out; it may reach beyond the photo.
        device: where frames are put together.

    Attributes: `width`, `height`, and `region`, the rows and columns of the frame that change.
    """

    def __init__(self, photo: np.ndarray, box: CropBox, device: torch.device):
        self.photo, (self.height, self.width) = photo, photo.shape[:2]
        self.box = box
        left, right = max(0, math.floor(box.left)), min(self.width, math.ceil(box.left + box.side))
        top, bottom = max(0, math.floor(box.top)), min(self.height, math.ceil(box.top + box.side))
        self.region = slice(top, bottom), slice(left, right)
        part = np.ascontiguousarray(photo[self.region])
        self.part = torch.from_numpy(part).to(device).permute(2, 0, 1)[None].float() / 255
        x = (torch.arange(left, right, device=device) + 0.5 - box.left) * (2 / box.side) - 1
        y = (torch.arange(top, bottom, device=device) + 0.5 - box.top) * (2 / box.side) - 1
        self.places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
        rise = ((1 - self.places.abs()) / (2 * FEATHER)).clamp(0, 1)
        self.fade = (rise * rise * (3 - 2 * rise)).prod(-1)[:, None]
        self.own = torch.stack(torch.meshgrid(_centres(right - left, device), _centres(bottom - top, device),
                                              indexing="xy"), -1)[None]

    def frames(self, rendering: Rendering) -> np.ndarray:
        """[T, H, W, 3] uint8 of a rendering [1, T]."""
        source, painted = rendering.source[0], rendering.painted[0]
        height, width = source.shape[-2:]
        own = torch.stack(torch.meshgrid(_centres(width, source.device), _centres(height, source.device), indexing="xy"))
        shift = self._read(source - own).permute(0, 2, 3, 1)
        shift = shift * shift.new_tensor([self.box.side / self.part.shape[-1], self.box.side / self.part.shape[-2]])
        # bicubic: between pixels, bilinear look-up loses a third of the fine detail
        moved = F.grid_sample(self.part.expand(len(shift), -1, -1, -1), self.own + shift, mode="bicubic",
                              padding_mode="border", align_corners=False)
        added = self._read(rendering.image[0] - rendering.warped[0] * (1 - painted))
        head = moved * (1 - self._read(painted)) + added
        pasted = self.part + self.fade * (head - self.part)
        frames = np.repeat(self.photo[None], len(pasted), 0)
        frames[:, self.region[0], self.region[1]] = to_bytes(pasted)
        return frames

    def _read(self, maps: Tensor) -> Tensor:
        """Maps [T, C, h, w] of the crop at the pixels of the photo, [T, C, rows, columns]."""
        if self.box.side < maps.shape[-1]:  # reading a large map at few places would alias
            side = max(1, round(self.box.side))
            maps = F.interpolate(maps, (side, side), mode="bilinear", align_corners=False, antialias=True)
        places = self.places.expand(len(maps), -1, -1, -1)
        return F.grid_sample(maps, places, mode="bilinear", padding_mode="border", align_corners=False)


def _centres(count: int, device: torch.device) -> Tensor:
    """[count] pixel centres in [-1, 1]."""
    return (torch.arange(count, device=device) + 0.5) * (2 / count) - 1


def to_bytes(images: Tensor) -> np.ndarray:
    """[T, H, W, 3] uint8 of images [T, 3, H, W] in [0, 1]."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
