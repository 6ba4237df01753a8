"""The patch discriminator: is this piece of a picture a recording or a rendering?"""
from __future__ import annotations

from typing import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches (Isola et al. 2017); every layer has spectral norm 1, which keeps its slope bounded.

    Args:
        channels: of the layers, each of which halves the resolution.
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 128)):
        super().__init__()
        sizes = (3, *channels)
        self.layers = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in zip(sizes, sizes[1:]))
        self.verdict = spectral_norm(nn.Conv2d(sizes[-1], 1, 3, padding=1))

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Verdicts [N, 1, H / 8, W / 8], large for recordings, and the features of every layer, of images [N, 3, H, W]."""
        x, features = images * 2 - 1, []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.verdict(x), features

    def frozen(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The same, with gradients for the images alone."""
        values = {name: value.detach() for name, value in (*self.named_parameters(), *self.named_buffers())}
        return functional_call(self, values, (images,))


def hinge_loss(real: Tensor, made: Tensor) -> Tensor:
    """What the discriminator minimises: verdicts on recordings above 1, on renderings below -1 (Lim and Ye 2017)."""
    return F.relu(1 - real).mean() + F.relu(1 + made).mean()


def feature_distance(made: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Mean L1 between features of a rendering and of the recording (Wang et al. 2018, feature matching)."""
    return sum(F.l1_loss(a, b) for a, b in zip(made, real)) / len(made)
