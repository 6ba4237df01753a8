"""Inception v3 as FID has it."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import Inception3
from torchvision.models.inception import InceptionA, InceptionC, InceptionE


class _Pooled:
    """An Inception block whose pooling branch is that of FID's network: averages that know no padding."""

    def pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(self.pool(x))]


class BlockA(_Pooled, InceptionA):
    """See `_Pooled`."""


class BlockC(_Pooled, InceptionC):
    """See `_Pooled`."""


class BlockE(_Pooled, InceptionE):
    """See `_Pooled`."""


class LastBlockE(BlockE):
    """The last one, which takes maxima."""

    def pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 1, 1)


class FIDInception(Inception3):
    """torchvision's network with the blocks and the 1008 classes of the TensorFlow one that FID is defined by; takes the
    weights of pytorch-fid and of torch-fidelity by their names. Initial values are whatever memory held."""

    def __init__(self):
        super().__init__(num_classes=1008, aux_logits=False, init_weights=False)
        for name, inputs, pooled in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
            setattr(self, f"Mixed_{name}", BlockA(inputs, pooled))
        for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            setattr(self, f"Mixed_{name}", BlockC(768, width))
        self.Mixed_7b, self.Mixed_7c, self.fc = BlockE(1280), LastBlockE(2048), torch.nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Features [N, 2048] after the last pooling, of images [N, 3, H, W] in [0, 1] of any size (pytorch-fid's way:
        bilinear to 299 x 299, then [-1, 1])."""
        return super().forward(2 * F.interpolate(images, size=(299, 299), mode="bilinear", align_corners=False) - 1)
