"""From a feature map of few pixels to a picture: the 2-D half of HeadNeRF (Hong et al. 2022, section 3.3)."""
from __future__ import annotations

from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NeuralRenderer(nn.Module):
    """Doubles the size of a map again and again; a picture is made at every size, and added to what the smaller ones have.

    Each doubling: a convolution to four times the channels, a pixel shuffle beside a repeated copy, a binomial blur, another
    convolution. With `kernel` 1, as in the paper, a pixel sees its own cell and what blur brings from the next.

    Args:
        channels: of the feature map.
        widths: channels at the map's own size, at twice it, and so on; the picture has the size of the last.
        kernel: side of the convolutions, pixels, odd.
    """

    def __init__(self, channels: int = 256, widths: Sequence[int] = (256, 128, 64, 32), kernel: int = 1):
        super().__init__()
        layer = lambda a, b: nn.Conv2d(a, b, kernel, padding=kernel // 2)
        self.enter = nn.Conv2d(channels, widths[0], 1)
        self.grow = nn.ModuleList(layer(a, 4 * a) for a in widths[:-1])
        self.mix = nn.ModuleList(layer(a, b) for a, b in zip(widths, widths[1:]))
        self.pictures = nn.ModuleList(nn.Conv2d(width, 4, 1) for width in widths)
        line = torch.tensor([1.0, 2, 1]) / 4
        self.register_buffer("binomial", line[:, None] * line, persistent=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Colour [N, 3, H, W] in [0, 1] and a change of the opacity's logit [N, 1, H, W], of a feature map [N, C, h, w]."""
        x = F.leaky_relu(self.enter(features), 0.2)
        picture = self.pictures[0](x)
        for grow, mix, paint in zip(self.grow, self.mix, self.pictures[1:]):
            larger = F.pixel_shuffle(grow(x), 2) + F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.leaky_relu(mix(self.blur(F.leaky_relu(larger, 0.2))), 0.2)
            picture = F.interpolate(picture, scale_factor=2, mode="bilinear", align_corners=False) + paint(x)
        return torch.sigmoid(picture[:, :3].float()), picture[:, 3:].float()

    def blur(self, x: Tensor) -> Tensor:
        """[N, C, H, W] blurred by the binomial of 3 x 3, edges repeated."""
        kernel = self.binomial.to(x.dtype).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=x.shape[1])
