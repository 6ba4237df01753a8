"""Pictures as encoders take them: brightness at full size, colour at half of it (YUV 4:2:0, BT.601, limited range).

A picture of H x W pixels is [3 H / 2, W] uint8: brightness from 16 to 235, then the two planes of colour. Made where a picture was
rendered, it has half the bytes to be fetched, and neither watermark nor encoder has to convert it.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

BRIGHTNESS = (65.481 / 255, 128.553 / 255, 24.966 / 255)
BLUENESS = (-37.797 / 255, -74.203 / 255, 112 / 255)
REDNESS = (112 / 255, -93.786 / 255, -18.214 / 255)
"""shares of red, green and blue, from 0 to 255 (ITU-R BT.601-7, section 2.5)"""
EXACT = 0x42002  # swscale's BILINEAR, FULL_CHR_H_INT and ACCURATE_RND: its quick way to RGB is a grey level too dark
BLACK, GREY, SPAN = 16, 128, 219 / 255
"""brightness of black, colour of grey, and levels of brightness per level of grey"""


def planar(pictures: "Tensor") -> "Tensor":
    """[T, 3 H / 2, W] uint8 of pictures [T, H, W, 3] uint8 RGB, H and W even, where they are; colour is the mean of four pixels."""
    import torch

    from s3dnerf.device import constant

    values = pictures.float()
    share = lambda shares: (values * constant(shares, values)).sum(-1)
    count, height, width = pictures.shape[:3]
    mean = lambda plane: plane.view(count, height // 2, 2, width // 2, 2).mean((2, 4))
    brightness = BLACK + share(BRIGHTNESS)
    colour = [GREY + mean(share(shares)) for shares in (BLUENESS, REDNESS)]
    rows = torch.cat([brightness.flatten(1), *(plane.flatten(1) for plane in colour)], 1)
    return rows.round().clamp(0, 255).to(torch.uint8).view(count, height * 3 // 2, width)


def is_planar(frame: np.ndarray) -> bool:
    """Whether a frame is one of these, and not [H, W, 3] RGB."""
    return frame.ndim == 2


def picture_of(frame: np.ndarray, pad: tuple):
    """What an encoder takes (`av.VideoFrame`), of a frame [H, W, 3] uint8 RGB, grown by `pad` (as of `numpy.pad`), or of a planar
    one."""
    import av

    if is_planar(frame):
        return av.VideoFrame.from_ndarray(frame, format="yuv420p")
    if any(side[1] for side in pad):
        frame = np.pad(frame, pad, mode="edge")
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return picture.reformat(format="yuv420p", dst_colorspace="ITU601", dst_color_range="MPEG", interpolation=EXACT)
