"""From the rendered feature map and the warped photo to the final frame."""
from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.networks.appearance import ResidualBlock


class SuperResolution(nn.Module):
    """Adds what is missing to the base image: the photo warped by the rendered source coordinate, with the rendered inside
    of the mouth in place of the photo's.

    It sees the rendered features, the base and the photo as it was, and works at a quarter, at half and, if it is to, at the
    whole of the output's resolution. It gets no speech: what moves must come through the field.

    Args:
        feature_channels: rendered feature channels.
        coarse_width: channels at a quarter of the resolution.
        fine_width: channels at half of it.
        full_width: channels at all of it; None ends at half of it, with four pixels from every cell.
    """

    def __init__(self, feature_channels: int = 16, coarse_width: int = 48, fine_width: int = 32,
                 full_width: int | None = None):
        super().__init__()
        self.enter = nn.Conv2d(feature_channels + 3, coarse_width, 3, padding=1)
        self.coarse = ResidualBlock(coarse_width)
        self.join = nn.Conv2d(coarse_width + 3 * 12 + 3, fine_width, 3, padding=1)
        self.fine = ResidualBlock(fine_width)
        self.full = None
        if full_width is not None:
            self.full = nn.Sequential(nn.Conv2d(fine_width + 9, full_width, 3, padding=1), ResidualBlock(full_width))
        self.leave = nn.Conv2d(full_width or fine_width, 3 if full_width else 12, 3, padding=1)
        nn.init.normal_(self.leave.weight, std=1e-3)
        nn.init.zeros_(self.leave.bias)

    def forward(self, features: Tensor, inside: Tensor, opacity: Tensor, motion: Tensor, base: Tensor,
                warped: Tensor, photo: Tensor) -> Tensor:
        """Residual [N, 3, H, W] to be added to `base` [N, 3, H, W].

        `features` [N, C, h, w], `opacity` and `motion` [N, 1, h, w] as rendered, `inside` [N, 1, H, W]; `warped` [N, 3, H, W]
        is the photo looked up at the source coordinate, `photo` [N, 3, H, W] the photo as it is.
        H and W must be multiples of 4.
        """
        height, width = base.shape[-2:]
        rendered = torch.cat([features, resize(inside, *features.shape[-2:]), opacity, motion], 1)
        x = self.coarse(self.enter(resize(rendered, height // 4, width // 4)))
        maps = [resize(x, height // 2, width // 2) for x in (inside, opacity, motion)]
        pictures = torch.cat([base, photo, warped], 1)
        x = torch.cat([resize(F.silu(x), height // 2, width // 2), F.pixel_unshuffle(pictures, 2), *maps], 1)
        x = F.silu(self.fine(self.join(x)))
        if self.full is None:
            return F.pixel_shuffle(self.leave(x), 2)
        return self.leave(F.silu(self.full(torch.cat([resize(x, height, width), pictures], 1))))

class HalfSuperResolution(nn.Module):
    """The same in bfloat16, channels last: for processors that reckon in it, where it takes less than half the time.

    Args:
        exact: what is copied.
    """

    def __init__(self, exact: SuperResolution):
        super().__init__()
        self.copied = copy.deepcopy(exact).to(torch.bfloat16, memory_format=torch.channels_last)

    def forward(self, *maps: Tensor) -> Tensor:
        """See `SuperResolution`; single precision comes in and goes out."""
        return self.copied(*(x.to(torch.bfloat16, memory_format=torch.channels_last) for x in maps)).float()


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resize of [N, C, h, w]."""
    if images.shape[-2:] == (height, width):
        return images
    return F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
