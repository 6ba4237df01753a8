"""Pre-training of the code extractor on one recording: pictures that share one factor and nothing else."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from s3dnerf.models.disentangled import DisentangledHead
from s3dnerf.models.hub import DEFAULT
from s3dnerf.networks.code_extractor import FACTORS, contrast
from s3dnerf.networks.variation import Variation
from s3dnerf.systems.person import PersonSystem
from s3dnerf.types import PersonVideo, PixelBatch, TensorRecord

APART = 12
"""frames that two frames are apart at least whose alike lips make them partners"""
CANDIDATES = 200
"""frames among which the one with the most alike lips is looked for"""


@dataclass(frozen=True)
class ContrastObjective:
    """Weights of the terms of the loss.

    Args:
        contrast: see `networks.code_extractor.contrast`.
        features: see `PersonObjective`; there is nothing that it could compare, and it stays 0.
    """

    contrast: float = 1.0
    features: float = 0.0


@dataclass(frozen=True)
class Scenes(TensorRecord):
    """What pictures of a head are made of, [N]; the factors are drawn one by one."""

    frame: Tensor
    """[N] whole numbers: the recorded frame, whose expression it has."""
    shape: Tensor
    """[N, 2] how much wider the head is drawn than it is, and how much more so above than below: its identity."""
    place: Tensor
    """[N, 3] shift across the picture and logarithm of a zoom, which belong to no factor."""
    variation: Variation
    """[N] albedo (hue and saturation) and illumination (gain and slope)."""


class CodeExtractorSystem(PersonSystem):
    """Teaches the extractor of a `DisentangledHead` by contrast: a picture and its partner share one factor and differ in
    all others; beside them stand partners of other pictures, and those of its own partners that share another factor.

    The expression is shared by frames far apart in the recording whose tracked lips are alike, so that the head's pose
    does not tell; albedo and illumination by the same change of colours or light; the identity by how the head is
    stretched, because there is but one person.

    Args:
        model: the person's head; `train_only: [extractor]` leaves the rest of it as it is.
        objective: weights of the loss.
        optimizer: see `ModelSystem`.
        scheduler: see `ModelSystem`.
        train_only: see `ModelSystem`.
        init_from: see `ModelSystem`.
        listener: see `PersonSystem`.
    """

    def __init__(self, model: DisentangledHead, objective: ContrastObjective = ContrastObjective(),
                 optimizer: OptimizerCallable = torch.optim.Adam, scheduler: Optional[LRSchedulerCallable] = None,
                 train_only: Optional[list[str]] = None, init_from: Optional[dict[str, str]] = None,
                 listener: str = DEFAULT):
        super().__init__(model, objective, optimizer, scheduler, train_only, init_from, listener=listener)

    def training_step(self, batch: PixelBatch, _index: int) -> Tensor:
        logits = self.logits(batch.frame, torch.arange(self.learned, device=self.device))
        terms = {"contrast": -torch.log_softmax(logits, -1)[..., 0].mean()}
        self.log_terms("train", terms | {"total": terms["contrast"], "accuracy": right(logits).mean()}, len(batch.frame))
        return self.objective.contrast * terms["contrast"]

    def logits(self, frame: Tensor, among: Tensor) -> Tensor:
        """[4, N, 1 + M] what the extractor says of pictures of frames [N], with partners `among` frames [T]; see
        `contrast`."""
        anchors = self.drawn(frame)
        partners = [self.partner(anchors, factor, among) for factor in FACTORS]
        pictures = torch.cat([scene_pictures(self.video, scenes) for scenes in (anchors, *partners)])
        codes = self.model.extractor(pictures.to(self.device)).unflatten(0, (len(FACTORS) + 1, -1))
        rows = []
        for number in range(len(FACTORS)):
            own, others = codes[:, :, number], [other for other in range(len(FACTORS)) if other != number]
            rows.append(contrast(own[0], own[1 + number], torch.stack([own[1 + other] for other in others], 1)))
        return torch.stack(rows)

    def drawn(self, frame: Tensor) -> Scenes:
        """Scenes of frames [N], their other factors at random."""
        even = lambda *size: 2 * torch.rand(len(frame), *size) - 1
        return Scenes(frame.cpu(), 0.2 * even(2), 0.08 * even(3), Variation.drawn(len(frame)))

    def partner(self, scenes: Scenes, factor: str, among: Tensor) -> Scenes:
        """Scenes that share one factor with others, and nothing else."""
        some = among[torch.randint(len(among), (len(scenes.frame),))]
        new = self.drawn(self.alike(scenes.frame, among) if factor == "expression" else some)
        shape = scenes.shape if factor == "identity" else new.shape
        light, skin = (scenes.variation if factor == name else new.variation for name in ("illumination", "albedo"))
        return Scenes(new.frame, shape, new.place, Variation(light.gain, light.slope, skin.hue, skin.saturation))

    def alike(self, frame: Tensor, among: Tensor) -> Tensor:
        """[N] for each of frames [N] one elsewhere in the recording, of `among` [T], whose tracked lips are most alike."""
        some = among[torch.randint(len(among), (min(CANDIDATES, len(among)),))].to(self.device)
        frame = frame.to(self.device)
        distance = torch.cdist(self.lips[frame], self.lips[some])
        near = (frame[:, None] - some).abs() < min(APART, len(among) // 4)
        return some[distance.masked_fill(near, torch.inf).argmin(1)].cpu()

    @torch.no_grad()
    def validation_step(self, frame: Tensor, index: int) -> None:
        """How often the partner is found, over all held-out frames at once."""
        if index:
            return
        rest = torch.arange(self.learned, len(self.lips), device=self.device)
        found = right(self.logits(rest[torch.linspace(0, len(rest) - 1, min(len(rest), 24)).long()], rest)).mean(1)
        self.log_terms("val", dict(zip(FACTORS, found)) | {"accuracy": found.mean()}, 1)

    test_step = validation_step


def right(logits: Tensor) -> Tensor:
    """[*] 1 where the first of the last dimension is the largest."""
    return (logits.argmax(-1) == 0).float()


def scene_pictures(video: PersonVideo, scenes: Scenes) -> Tensor:
    """Pictures [N, 3, S, S] of heads over black."""
    goal = video.frames[scenes.frame].permute(0, 3, 1, 2) / 255
    mask = video.head[scenes.frame].float()[:, None]
    mask = F.interpolate(mask, size=goal.shape[-2:], mode="bilinear", align_corners=False)
    pictures = torch.cat([scenes.variation(goal) * mask, mask], 1)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, goal.shape[-1])] * 2, indexing="ij")
    zoom = torch.exp(scenes.place[:, 2])[:, None, None]
    wider = torch.exp(scenes.shape[:, 0])[:, None, None] * (1 + scenes.shape[:, 1, None, None] * y)
    places = torch.stack([x / (zoom * wider), y.expand(len(goal), -1, -1) / zoom], -1) + scenes.place[:, None, None, :2]
    return F.grid_sample(pictures, places, align_corners=False)[:, :3]
