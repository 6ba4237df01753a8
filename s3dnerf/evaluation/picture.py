"""Figures of pictures, frame by frame, on the full frame and in the boxes of face and mouth; and features for FID."""
from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Optional

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s3dnerf import metrics
from s3dnerf.evaluation.boxes import boxes
from s3dnerf.evaluation.footage import Footage
from s3dnerf.evaluation.networks import Networks
from s3dnerf.evaluation.protocol import Protocol

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Chunk:
    """Some consecutive frames of a clip, and the recorded ones."""

    made: np.ndarray
    """[N, H, W, 3] uint8"""
    true: np.ndarray
    """[N, H, W, 3] uint8"""
    first: int
    """number of the first one"""


class PictureFigures:
    """Gathers the figures of one clip."""

    def __init__(self, made: Footage, true: Footage, networks: Networks, protocol: Protocol):
        self.networks, self.protocol, self.boxes = networks, protocol, boxes(true, protocol)
        self.values, self.features, self.before = defaultdict(list), defaultdict(list), None

    @torch.inference_mode()
    def add(self, chunk: Chunk) -> None:
        """Looks at some more frames."""
        for region in ("", *self.boxes):
            made, true = (frames if not region else self.boxes[region].cut(frames, chunk.first)
                          for frames in (chunk.made, chunk.true))
            self._look(made, true, region)
        self._flicker(chunk)

    def _look(self, made: np.ndarray, true: np.ndarray, region: str) -> None:
        image, target = tensor(made), tensor(true)
        note = lambda name, values: self.values[name + region].extend(float(x) for x in values)
        note("psnr", metrics.frame_psnr(image, target))
        note("ssim", metrics.ssim(image, target, self.protocol.ssim_window))
        note("ssim_gaussian", metrics.ssim_gaussian(image, target, self.protocol.ssim_gaussian_sigma))
        everywhere = torch.ones_like(target[:, :1])
        note("sharpness", metrics.sharpness(image, everywhere))
        note("sharpness_truth", metrics.sharpness(target, everywhere))
        for name, frames in (("cpbd", made), ("cpbd_truth", true)):
            found = (metrics.cpbd(frame @ np.array(LUMA)) for frame in frames)
            note(name, [share for share in found if share is not None])
        device = self.networks.device
        if self.networks.alexnet is not None:
            pair = (enlarged(x, self.protocol.lpips_least).to(device) * 2 - 1 for x in (image, target))
            note("lpips", self.networks.alexnet(*pair).flatten())
        if self.networks.inception is not None:
            for name, frames in (("made", image), ("true", target)):
                self.features[name + region].append(self.networks.inception(frames.to(device)).cpu().numpy())

    def _flicker(self, chunk: Chunk) -> None:
        """Of the chunk and the frame before it."""
        made, true = chunk.made, chunk.true
        if self.before is not None:
            made, true = np.concatenate([self.before[0], made]), np.concatenate([self.before[1], true])
        outside = torch.ones(len(made), 1, *made.shape[1:3])
        if "_face" in self.boxes:
            box, start = self.boxes["_face"], chunk.first + len(chunk.made) - len(made)
            for mask, (left, top) in zip(outside, box.corners[start:start + len(made)]):
                mask[:, top:top + box.side, left:left + box.side] = 0
        if len(made) > 1:
            self.values["flicker"].extend((255 * metrics.flicker(tensor(made), tensor(true), outside)).tolist())
        self.before = chunk.made[-1:], chunk.true[-1:]

    def figures(self) -> dict[str, Optional[float]]:
        """Means over the clip's frames."""
        found = {name: float(np.mean(values)) if values else None for name, values in self.values.items()}
        for region in ("", *self.boxes):
            truth = found.pop(f"sharpness_truth{region}")
            found[f"sharpness{region}"] = found[f"sharpness{region}"] / truth if truth > 1e-9 else None
            found[f"cpbd_truth{region}"] = found.get(f"cpbd_truth{region}")
        return found


def tensor(frames: np.ndarray) -> Tensor:
    """[N, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).float() / 255


def enlarged(images: Tensor, least: int) -> Tensor:
    """Images whose shorter side is `least` pixels or more."""
    side = min(images.shape[-2:])
    return images if side >= least else F.interpolate(images, scale_factor=least / side, mode="bilinear", align_corners=False)

