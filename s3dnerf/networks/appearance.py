"""The hierarchical facial appearance encoder: one tri-plane per scale from a single masked photo."""
from __future__ import annotations

from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s3dnerf.errors import InputError


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside an identity; no normalisation, which would wash identity out of the features."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class HierarchicalAppearanceEncoder(nn.Module):
    """A feature pyramid over the masked source face; every level becomes a tri-plane (S3D-NeRF, appearance encoder).

    The planes lie in the frame of the source camera, so the xy plane of each scale is aligned with the photo's pixels.
    Scale i has planes of H / (stride * 2^i) pixels.

    Args:
        channels: width of each of the scales, finest first.
        plane_channels: channels of each plane.
        blocks: residual blocks per scale.
        backbone: name of a timm model to take the pyramid's features from, in place of the built-in convolutions.
            It must offer `features_only` with one level per scale at strides 4, 8, 16, ...
        backbone_weights: file of weights for the backbone (a timm checkpoint or safetensors); None starts at random.
        stride: pixels of the photo per cell of the finest plane: 4, or 2 without a backbone.

    Raises:
        InputError: for another stride.
    """

    def __init__(self, channels: Sequence[int] = (24, 48, 64, 96), plane_channels: int = 12, blocks: int = 1,
                 backbone: str | None = None, backbone_weights: str | None = None, stride: int = 4):
        super().__init__()
        if stride not in ((4,) if backbone else (2, 4)):
            raise InputError(f"found stride={stride} for the tri-planes; expected 4, or 2 where there is no backbone")
        channels = tuple(channels)
        self.plane_channels = plane_channels
        self.backbone = _timm_backbone(backbone, backbone_weights, len(channels)) if backbone else None
        if self.backbone is None:
            self.stem = nn.Conv2d(6 * 4, channels[0], 3, stride // 2, 1)
            self.down = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip(channels, channels[1:]))
        else:
            widths = self.backbone.feature_info.channels()
            self.adapt = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, channels))
        self.refine = nn.ModuleList(nn.Sequential(*(ResidualBlock(c) for _ in range(blocks))) for c in channels)
        self.merge = nn.ModuleList(nn.Conv2d(a + b, a, 3, padding=1) for a, b in zip(channels, channels[1:]))
        self.planes = nn.ModuleList(nn.Sequential(nn.SiLU(), nn.Conv2d(c, 3 * plane_channels, 3, padding=1)) for c in channels)

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Tri-planes [B, 3, C, H / (stride * 2^i), ...] of photos [B, 3, H, W] with masks [B, 1, H, W]."""
        levels = [refine(level) for refine, level in zip(self.refine, self._pyramid(image * mask, mask))]
        top = levels[-1]
        merged = [top]
        for level, merge in zip(levels[-2::-1], list(self.merge)[::-1]):
            above = F.interpolate(merged[0], size=level.shape[-2:], mode="bilinear", align_corners=False)
            merged.insert(0, level + merge(torch.cat([level, above], 1)))
        return tuple(head(level).unflatten(1, (3, self.plane_channels)) for head, level in zip(self.planes, merged))

    def _pyramid(self, face: Tensor, mask: Tensor) -> list[Tensor]:
        if self.backbone is not None:
            mean, std = face.new_tensor([[0.485], [0.456], [0.406]]), face.new_tensor([[0.229], [0.224], [0.225]])
            return [adapt(x) for adapt, x in zip(self.adapt, self.backbone((face - mean[..., None]) / std[..., None]))]
        y, x = torch.meshgrid(torch.linspace(-1, 1, face.shape[-2], device=face.device, dtype=face.dtype),
                              torch.linspace(-1, 1, face.shape[-1], device=face.device, dtype=face.dtype), indexing="ij")
        place = torch.stack([x, y]).expand(len(face), -1, -1, -1)
        levels = [self.stem(F.pixel_unshuffle(torch.cat([face * 2 - 1, mask, place], 1), 2))]
        for down in self.down:
            levels.append(down(F.silu(levels[-1])))
        return levels


def _timm_backbone(name: str, weights: str | None, levels: int) -> nn.Module:
    """A timm feature extractor with `levels` outputs that starts at stride 4."""
    import timm

    options = {} if weights is None else {"pretrained": True, "pretrained_cfg_overlay": {"file": weights}}
    model = timm.create_model(name, features_only=True, **options)
    strides = model.feature_info.reduction()
    if 4 not in strides or len(strides) - strides.index(4) < levels:
        raise ValueError(f"found timm model {name} with strides {strides}; expected {levels} levels from stride 4 on")
    first = strides.index(4)
    return timm.create_model(name, features_only=True, out_indices=tuple(range(first, first + levels)), **options)
