"""From renderings of the crop to the frames of the video: the crop itself, or the photo with the head put back."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s3dnerf.data.cropping import CropBox, cut
from s3dnerf.data.detection import selfie_segmentation
from s3dnerf.device import constant
from s3dnerf.types import Rendering, TensorRecord

LONG_SIDE = 1080
"""larger photos are shrunk to this, pixels"""
FEATHER = 0.03
"""share of the crop, along its border, over which it fades into the photo"""
MATTE = (0.4, 0.9)
"""what the segmentation network says of pixels of which nothing and all is shown before another background"""


@dataclass(frozen=True)
class Backdrop(TensorRecord):
    """What takes the place of a photo's background."""

    picture: Tensor
    """[3, H, W]"""
    person: Tensor
    """[1, H, W] in [0, 1]: how much of each pixel of the photo is a person, in front of it."""


def shrink(photo: np.ndarray, box: CropBox, longest: int = LONG_SIDE) -> tuple[np.ndarray, CropBox]:
    """A photo [H, W, 3] uint8 whose long side is at most `longest` pixels, and where a square of it lies now."""
    from PIL import Image

    factor = longest / max(photo.shape[:2])
    if factor >= 1:
        return photo, box
    height, width = (max(2, round(side * factor)) for side in photo.shape[:2])
    small = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0))
    return small, CropBox(box.left * factor, box.top * factor, box.side * factor)


def person_matte(picture: np.ndarray) -> np.ndarray:
    """[H, W] float32 in [0, 1]: how much of each pixel of a picture [H, W, 3] uint8 is a person."""
    with selfie_segmentation() as segmentation:
        mask = segmentation.process(np.ascontiguousarray(picture)).segmentation_mask
    # what is only half a person shows the old background, so that the edge is drawn inwards
    return np.clip((mask - MATTE[0]) / (MATTE[1] - MATTE[0]), 0, 1).astype(np.float32)


def photo_matte(photo: np.ndarray, box: CropBox) -> np.ndarray:
    """`person_matte` of a photo, made of its own and, where the head is, of the crop's, which is finer."""
    import cv2

    side = max(64, round(box.side))
    places = [(np.arange(length, dtype=np.float32) + 0.5 - start) * (side / box.side) - 0.5
              for length, start in ((photo.shape[1], box.left), (photo.shape[0], box.top))]
    x, y = np.meshgrid(*places)
    near = cv2.remap(person_matte(cut(photo[None], box, side)[0]), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    share = [np.clip((1 - np.abs((axis + 0.5) * (2 / side) - 1)) / (2 * FEATHER), 0, 1) for axis in (x, y)]
    share = share[0] * share[1]
    return near * share + person_matte(photo) * (1 - share)


def zoomed(frames: np.ndarray, zoom: Tensor, region: tuple[slice, slice]) -> np.ndarray:
    """Frames [T, H, W, 3] uint8, each `zoom` [T] times as large (1 or more) about the middle of `region`, which stays where it
    is, and cut to the same size."""
    import cv2

    x, y = ((part.start + part.stop) / 2 for part in region[::-1])
    size = frames.shape[2], frames.shape[1]
    matrices = [np.array([[z, 0, (x - 0.5) * (1 - z)], [0, z, (y - 0.5) * (1 - z)]]) for z in zoom.tolist()]
    return np.stack([cv2.warpAffine(frame, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
                     if matrix[0, 0] != 1 else frame for frame, matrix in zip(frames, matrices)])


class FaceFrame:
    """The square crop, as it was rendered. `region` is where in the frame the head is, rows and columns.

    Args:
        size: pixels.
        backdrop: what is shown behind the person, of the crop's size; None is what is there.
    """

    def __init__(self, size: int, backdrop: Optional[Backdrop] = None):
        self.width = self.height = size
        self.region = slice(0, size), slice(0, size)
        self.backdrop = backdrop

    def frames(self, rendering: Rendering) -> np.ndarray:
        """[T, size, size, 3] uint8 of a rendering [1, T]."""
        return self.placed(self.shown(rendering).cpu().numpy())

    def shown(self, rendering: Rendering) -> Tensor:
        """What of the frames changes, [T, size, size, 3] uint8, where it was rendered."""
        image = rendering.image[0]
        if self.backdrop is not None:
            # each pixel is as much of the person as the place of the photo that it shows
            person = self.backdrop.person.expand(len(image), -1, -1, -1)
            person = F.grid_sample(person, rendering.source[0].permute(0, 2, 3, 1), padding_mode="border", align_corners=False)
            image = torch.lerp(self.backdrop.picture, image, person)
        return as_bytes(image)

    def placed(self, shown: np.ndarray) -> np.ndarray:
        """The frames, of what is `shown`."""
        return shown


class FullFrame:
    """The photo with the moving head put back at the photo's own resolution.

    The rendering says, for every pixel, where in the photo it looks (`Rendering.source`); the photo itself, not its
    resampled crop, is looked up there, and what the model adds to its own look-up (the inside of the mouth,
    super-resolution) is added on top. Where the rendering equals the crop, the frame equals the photo.

    Args:
        photo: [H, W, 3] uint8.
        box: where the crop was cut out; it may reach beyond the photo.
        device: where frames are put together.
        backdrop: what is shown behind the person, of the photo's size; None is what is there.

    Attributes: `width`, `height`, and `region`, the rows and columns of the frame that change.
    """

    def __init__(self, photo: np.ndarray, box: CropBox, device: torch.device, backdrop: Optional[Backdrop] = None):
        self.photo, (self.height, self.width) = photo, photo.shape[:2]
        self.box, self.backdrop = box, None
        left, right = max(0, math.floor(box.left)), min(self.width, math.ceil(box.left + box.side))
        top, bottom = max(0, math.floor(box.top)), min(self.height, math.ceil(box.top + box.side))
        self.region = slice(top, bottom), slice(left, right)
        self.part = _as_image(photo[self.region]).to(device)[None]
        if backdrop is not None:
            whole = torch.lerp(backdrop.picture, _as_image(photo).to(device), backdrop.person)
            self.photo = to_bytes(whole[None])[0]
            self.backdrop = backdrop.map(lambda x: x[None, :, self.region[0], self.region[1]])
        x = (torch.arange(left, right, device=device) + 0.5 - box.left) * (2 / box.side) - 1
        y = (torch.arange(top, bottom, device=device) + 0.5 - box.top) * (2 / box.side) - 1
        self.places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
        rise = ((1 - self.places.abs()) / (2 * FEATHER)).clamp(0, 1)
        self.fade = (rise * rise * (3 - 2 * rise)).prod(-1)[:, None]
        self.own = torch.stack(torch.meshgrid(_centres(right - left, device), _centres(bottom - top, device),
                                              indexing="xy"), -1)[None]

    def frames(self, rendering: Rendering) -> np.ndarray:
        """[T, H, W, 3] uint8 of a rendering [1, T]."""
        return self.placed(self.shown(rendering).cpu().numpy())

    def shown(self, rendering: Rendering) -> Tensor:
        """What of the frames changes, [T, rows, columns, 3] uint8 of the `region`, where it was rendered."""
        source, painted = rendering.source[0], rendering.painted[0]
        height, width = source.shape[-2:]
        own = torch.stack(torch.meshgrid(_centres(width, source.device), _centres(height, source.device), indexing="xy"))
        shift = self._read(source - own).permute(0, 2, 3, 1)
        shift = shift * constant((self.box.side / self.part.shape[-1], self.box.side / self.part.shape[-2]), shift)
        # bicubic: between pixels, bilinear look-up loses a third of the fine detail
        moved = F.grid_sample(self.part.expand(len(shift), -1, -1, -1), self.own + shift, mode="bicubic",
                              padding_mode="border", align_corners=False)
        added = self._read(rendering.image[0] - rendering.warped[0] * (1 - painted))
        head = moved * (1 - self._read(painted)) + added
        pasted = self.part + self.fade * (head - self.part)
        if self.backdrop is not None:
            own = self.backdrop.person
            there = F.grid_sample(own.expand(len(shift), -1, -1, -1), self.own + shift, padding_mode="border",
                                  align_corners=False)
            pasted = torch.lerp(self.backdrop.picture, pasted, own + self.fade * (there - own))
        return as_bytes(pasted)

    def placed(self, shown: np.ndarray) -> np.ndarray:
        """The frames, of what is `shown`."""
        frames = np.repeat(self.photo[None], len(shown), 0)
        frames[:, self.region[0], self.region[1]] = shown
        return frames

    def _read(self, maps: Tensor) -> Tensor:
        """Maps [T, C, h, w] of the crop at the pixels of the photo, [T, C, rows, columns]."""
        if self.box.side < maps.shape[-1]:  # reading a large map at few places would alias
            side = max(1, round(self.box.side))
            maps = F.interpolate(maps, (side, side), mode="bilinear", align_corners=False, antialias=True)
        places = self.places.expand(len(maps), -1, -1, -1)
        return F.grid_sample(maps, places, mode="bilinear", padding_mode="border", align_corners=False)


def _as_image(picture: np.ndarray) -> Tensor:
    """[3, H, W] in [0, 1] of a picture [H, W, 3] uint8."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def _centres(count: int, device: torch.device) -> Tensor:
    """[count] pixel centres in [-1, 1]."""
    return (torch.arange(count, device=device) + 0.5) * (2 / count) - 1


def as_bytes(images: Tensor) -> Tensor:
    """[T, H, W, 3] uint8 of images [T, 3, H, W] in [0, 1], where they are."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def to_bytes(images: Tensor) -> np.ndarray:
    """The same in the program's memory."""
    return as_bytes(images).cpu().numpy()
