"""Where the pixels of a frame look, in the photo and elsewhere."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from s3dnerf.geometry import project
from s3dnerf.networks.deformation import FACE_CENTRE, FACE_HALF, smooth
from s3dnerf.networks.super_resolution import resize
from s3dnerf.types import Cameras

BORDER = 0.06
"""The outer share of the frame over which the head fades into the photo, so that a crop can be put back unseen."""


def face_window_of(cameras: Cameras, height: int, width: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom pixel of the part of images of cameras [B, T] that shows the face box, outside which
    landmarks carry nothing; never empty. All of the image on a device that would have to be waited for."""
    if cameras.intrinsics.device.type != "cpu":
        return 0, 0, width, height
    centre, half = cameras.intrinsics.new_tensor(FACE_CENTRE), cameras.intrinsics.new_tensor(FACE_HALF)
    corners = centre + half * torch.cartesian_prod(*[half.new_tensor([-1.0, 1.0])] * 3)
    pixels, _ = project(corners.expand(*cameras.intrinsics.shape[:2], -1, -1), cameras)
    low, high = pixels.flatten(0, 2).amin(0).floor().long().tolist(), pixels.flatten(0, 2).amax(0).ceil().long().tolist()
    left, top = min(max(low[0], 0), width - 1), min(max(low[1], 0), height - 1)
    return left, top, max(left + 1, min(high[0], width)), max(top + 1, min(high[1], height))


def look_up(images: Tensor, places: Tensor, mode: str = "bilinear") -> Tensor:
    """Images [N, 3, H, W] read at places [N, 2, h, w] in [-1, 1]; outside the border it repeats. Between pixels, "bilinear"
    loses a third of the fine detail, "bicubic" a tenth."""
    return F.grid_sample(images, places.permute(0, 2, 3, 1), mode=mode, padding_mode="border", align_corners=False)


def person_at(person: Tensor, places: Tensor) -> Tensor:
    """[N, 1, h, w]: 0 at places [N, 2, h, w] in [-1, 1] where a photo with masks `person` [N, 1, H, W] shows background, 1
    where it shows the person, and a pixel or two beyond the outline too."""
    return (3 * look_up(person, places)).clamp_max(1.0)


def part(shift: Tensor, whole: Tensor, shares: Tensor) -> Tensor:
    """What is left of a motion `whole` [N, 2, h, w], of which `shift` is one part and a turn the rest, when only `shares`
    [N, 2, h, w] of the one and of the other are taken."""
    return shares[:, :1] * shift + shares[:, 1:] * (whole - shift)


def border_fade(places: Tensor) -> Tensor:
    """[N, 1, h, w]: 1 inside the frame, falling smoothly to 0 over its outer `BORDER`; `places` [N, 2, h, w] in [-1, 1]."""
    return smooth((1 - places.abs()) / (2 * BORDER)).prod(1, keepdim=True)


def with_inside(warped: Tensor, inside: Tensor, colour: Tensor, weight: Tensor) -> Tensor:
    """The inside of the mouth over the warped photo; `colour` [N, 3, h, w] is already weighted by `weight` [N, 1, h, w]."""
    height, width = warped.shape[-2:]
    plain = resize(colour, height, width) / (resize(weight, height, width) + 0.05)
    return torch.lerp(warped, plain, inside)


def repeated(images: Tensor, frames: int) -> Tensor:
    """Images [B, C, H, W], each `frames` times, [B * frames, C, H, W]; of one photo, nothing is copied."""
    return images[:, None].expand(-1, frames, -1, -1, -1).flatten(0, 1)


def rests(cameras: Cameras) -> bool:
    """Whether cameras [B, T] stay where they are over several frames; never on a device that would have to be waited for."""
    still = lambda values: values.shape[1] > 1 and values.device.type == "cpu" and bool((values == values[:, :1]).all())
    return still(cameras.camera_to_world) and still(cameras.intrinsics)
