"""Changes of a picture's light and colours that are known: what illumination and albedo codes are taught by."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from s3dnerf.types import TensorRecord

GREY = (0.299, 0.587, 0.114)
"""share of red, green and blue in how bright a colour is"""
PALETTE = 64
"""fixed changes that there are"""


@dataclass(frozen=True)
class Variation(TensorRecord):
    """How pictures are changed, [N]."""

    gain: Tensor
    """[N] factor on brightness in the picture's middle."""
    slope: Tensor
    """[N, 2] how much that factor grows from the middle to the right and to the lower edge."""
    hue: Tensor
    """[N] radians that colours are turned around grey."""
    saturation: Tensor
    """[N] factor on their distance from grey."""

    @classmethod
    def none(cls, count: int) -> "Variation":
        """`count` times no change."""
        return cls(torch.ones(count), torch.zeros(count, 2), torch.zeros(count), torch.ones(count))

    @classmethod
    def drawn(cls, count: int, draw: Optional[torch.Generator] = None) -> "Variation":
        """`count` changes at random."""
        even = lambda *size: 2 * torch.rand(*size, generator=draw) - 1
        return cls(torch.exp(0.5 * even(count)), 0.4 * even(count, 2), 1.2 * even(count), torch.exp(0.7 * even(count)))

    @classmethod
    def palette(cls, albedo: Tensor, illumination: Tensor) -> "Variation":
        """The fixed changes of numbers [N] below 64: 0 is none; each number above is always the same one."""
        known, none = cls.drawn(PALETTE, torch.Generator().manual_seed(7)), cls.none(PALETTE)
        known = cls(*(torch.cat([getattr(none, name)[:1], getattr(known, name)[1:]])
                      for name in ("gain", "slope", "hue", "saturation")))
        light, skin = known[illumination.cpu()], known[albedo.cpu()]
        return cls(light.gain, light.slope, skin.hue, skin.saturation).to(albedo.device)

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] under the change, in [0, 1]: colours first, light on top."""
        grey = (images * images.new_tensor(GREY)[:, None, None]).sum(1, keepdim=True)
        wide = lambda values: values[:, None, None, None]
        colour = torch.einsum("nij,njhw->nihw", turns_around_grey(self.hue), images - grey) * wide(self.saturation)
        y, x = (torch.linspace(-1, 1, size, device=images.device) for size in images.shape[-2:])
        light = wide(self.gain) * (1 + wide(self.slope[:, 0]) * x + wide(self.slope[:, 1]) * y[:, None])
        return ((grey + colour) * light).clamp(0, 1)


def turns_around_grey(angle: Tensor) -> Tensor:
    """[N, 3, 3] rotations of colour space around the grey axis by angles [N], radians (Rodrigues)."""
    axis = angle.new_full((3,), 1 / math.sqrt(3))
    zero = angle.new_zeros(())
    cross = torch.stack([zero, -axis[2], axis[1], axis[2], zero, -axis[0], -axis[1], axis[0], zero]).view(3, 3)
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return cosine * torch.eye(3, device=angle.device) + sine * cross + (1 - cosine) * axis[:, None] * axis
