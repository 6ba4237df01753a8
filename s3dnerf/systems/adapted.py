"""Adapting the one-shot model to one person."""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Optional

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from s3dnerf.data.person import REGIONS
from s3dnerf.losses import edge_error, reduced, weighted
from s3dnerf.metrics import psnr
from s3dnerf.models.adapted import AdaptedHead
from s3dnerf.models.hub import DEFAULT, load_model
from s3dnerf.systems.person import PersonSystem, in_box
from s3dnerf.types import Condition, PixelBatch, Rendering, Window


@dataclass(frozen=True)
class AdaptedObjective:
    """Weights of the terms of the loss.

    Args:
        photometric: L1 of the frames' pixels, weighed by what they show.
        edges: L1 of the finite differences, weighed the same way.
        raw: L1 of the volume-rendered colour of both passes.
        bending: how unevenly the photo is shifted (`PhotoBasis.bending`), so that what few frames show tears nothing.
        head: weight of the head's pixels over that of the others.
        mouth: weight of the mouth's box, on top of that.
        features: see `PersonObjective`; here it is a figure alone, and 0 leaves it out.
        code: see `PersonObjective`.
        correlation: see `PersonObjective`.
    """

    photometric: float = 1.0
    edges: float = 0.3
    raw: float = 0.2
    bending: float = 0.003
    head: float = 4.0
    mouth: float = 10.0
    features: float = 0.0
    code: float = 0.01
    correlation: float = 0.005


class AdaptedSystem(PersonSystem):
    """Adapts the one-shot model to a recording (see `data.person_windows.PersonWindowModule`).

    Args:
        model: the person's head; it is given the weights of the one-shot model, unless it starts from others.
        objective: weights of the loss.
        optimizer: see `ModelSystem`.
        scheduler: see `ModelSystem`.
        train_only: see `ModelSystem`.
        init_from: see `ModelSystem`.
        plane_rate: factor on the rate for the tri-planes and the photo's basis.
        trust_rate: factor on the rate for the trust in the person's own reading of speech.
        plate_steps: steps over which the background plate takes the place of the photo's background.
        full_stride: pixels per ray in whole frames.
        lips_share: see `PersonSystem`.
        code_noise: see `PersonSystem`.
        code_frames: see `PersonSystem`.
        one_shot: weights of the one-shot model that is adapted.
    """

    def __init__(self, model: AdaptedHead, objective: AdaptedObjective = AdaptedObjective(),
                 optimizer: OptimizerCallable = torch.optim.Adam, scheduler: Optional[LRSchedulerCallable] = None,
                 train_only: Optional[list[str]] = None, init_from: Optional[dict[str, str]] = None, plane_rate: float = 5.0,
                 trust_rate: float = 10.0, plate_steps: int = 50, full_stride: int = 8, lips_share: float = 1.0,
                 code_noise: float = 0.1, code_frames: int = 96, one_shot: str = DEFAULT):
        super().__init__(model.started_from(load_model(one_shot)), objective, optimizer, scheduler, train_only, init_from,
                         lips_share=lips_share, code_noise=code_noise, code_frames=code_frames, listener=one_shot)
        self.rates = {"planes": plane_rate, "basis": plane_rate, "trust": trust_rate}
        self.plate_steps, self.full_stride = plate_steps, full_stride

    def condition(self, frame: Tensor, by_lips: bool) -> Condition:
        """See `PersonSystem`; speech brings its tokens."""
        found = super().condition(frame, by_lips)
        return found if by_lips else replace(found, code=self.model.speech_code(self.heard, frame))

    def training_step(self, batch: PixelBatch, _index: int) -> Tensor:
        self.model.plate.fill_(min(1.0, self.global_step / self.plate_steps))
        condition = self.condition(batch.frame, bool(torch.rand(()) < self.lips_share))
        window = Window(*(batch.pixels[:1, 0, axis] - 0.5 for axis in (0, 1)), batch.patch, batch.patch)
        whole = batch.patch == self.model.image_size
        rendering = self.model.look(batch.cameras, condition, window, self.full_stride if whole else self.model.stride)
        terms = self.picture_terms(batch, rendering[0]) | self.code_terms()
        total = sum(getattr(self.objective, name) * value for name, value in terms.items())
        error = {"psnr": psnr(rendering.image.detach(), shaped(batch.colour, batch.patch))}
        self.log_terms("train", terms | {"total": total} | error, len(batch.frame))
        return total

    def picture_terms(self, batch: PixelBatch, rendering: Rendering) -> dict[str, Tensor]:
        """The terms that compare rendered windows [F] with recorded ones."""
        goal, head = (shaped(rows, batch.patch) for rows in (batch.colour, batch.head))
        left, top = (batch.pixels[0, 0] - 0.5).long().tolist()
        mouth = in_box(self.boxes[batch.frame.cpu(), REGIONS.index("mouth")].to(self.device), self.model.image_size)
        mouth = mouth[..., top:top + batch.patch, left:left + batch.patch]
        weights = 1 + (self.objective.head - 1) * head + self.objective.mouth * mouth
        small = reduced(goal[None], *rendering.raw.shape[-2:])[0]
        return {"photometric": weighted((rendering.image - goal).abs(), weights),
                "edges": edge_error(rendering.image, goal, weights),
                "raw": ((rendering.raw - small).abs() + (rendering.coarse - small).abs()).mean(),
                "bending": self.model.basis.bending()}


def shaped(rows: Tensor, side: int) -> Tensor:
    """Pixels [F, side * side, C], row by row, as pictures [F, C, side, side]."""
    return rows.unflatten(1, (side, side)).permute(0, 3, 1, 2)
