"""Training of AD-NeRF on the pixels of one recording."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from s3dnerf.models.ad_nerf import ADNeRF
from s3dnerf.models.hub import DEFAULT
from s3dnerf.systems.person import SURE, PersonSystem, entropy
from s3dnerf.types import Condition, PixelBatch


@dataclass(frozen=True)
class ADNeRFObjective:
    """Weights of the terms of the loss.

    Args:
        colour: squared error of the head's pixels in the second look, over what is behind the head.
        coarse: the same of the first look.
        torso: squared error of the other pixels in the second look, torso over background.
        torso_coarse: the same of the first look.
        entropy: entropy of the head's opacity, so that a ray is full or empty (not in the paper).
        features: see `PersonObjective`; here it is a figure alone, and 0 leaves it out.
        code: see `PersonObjective`.
        correlation: see `PersonObjective`.
    """

    colour: float = 1.0
    coarse: float = 1.0
    torso: float = 1.0
    torso_coarse: float = 1.0
    entropy: float = 1e-3
    features: float = 0.0
    code: float = 0.01
    correlation: float = 0.005


class ADNeRFSystem(PersonSystem):
    """Optimises an AD-NeRF on pixels of one recording (see `data.person.PersonDataModule`).

    Args:
        model: the person's head.
        objective: weights of the loss.
        optimizer: see `ModelSystem`.
        scheduler: see `ModelSystem`.
        train_only: see `ModelSystem`; the paper trains `head` and `attention`, then `torso`.
        init_from: see `ModelSystem`.
        attention_rate: see `PersonSystem`.
        lips_share: see `PersonSystem`.
        code_noise: see `PersonSystem`.
        code_frames: see `PersonSystem`.
        listener: see `PersonSystem`.
    """

    def __init__(self, model: ADNeRF, objective: ADNeRFObjective = ADNeRFObjective(),
                 optimizer: OptimizerCallable = torch.optim.Adam, scheduler: Optional[LRSchedulerCallable] = None,
                 train_only: Optional[list[str]] = None, init_from: Optional[dict[str, str]] = None,
                 attention_rate: float = 1.0, lips_share: float = 1.0, code_noise: float = 0.1, code_frames: int = 96,
                 listener: str = DEFAULT):
        super().__init__(model, objective, optimizer, scheduler, train_only, init_from, attention_rate=attention_rate,
                         lips_share=lips_share, code_noise=code_noise, code_frames=code_frames, listener=listener)

    def training_step(self, batch: PixelBatch, _index: int) -> Tensor:
        by_lips = self.model.by_lips and torch.rand(()) < self.lips_share
        terms = self.pixel_terms(batch, self.condition(batch.frame, by_lips))
        if self.model.by_lips and self.objective.code:
            terms |= self.code_terms()
        total = sum(getattr(self.objective, name) * value for name, value in terms.items())
        psnr = -10 * torch.log10(terms["colour"].detach())
        self.log_terms("train", terms | {"total": total, "psnr": psnr}, len(batch.frame))
        return total

    def pixel_terms(self, batch: PixelBatch, condition: Condition) -> dict[str, Tensor]:
        """The terms that compare rendered pixels with recorded ones. The head's last samples show the background plate at
        the head and its outline, elsewhere what the recording shows; the torso is looked at where the head is not."""
        frames, count = batch.pixels.shape[:2]
        owner = torch.arange(frames, device=self.device).repeat_interleave(count)
        pixels, goal, plate = (values.flatten(0, 1) for values in (batch.pixels, batch.colour, batch.background))
        head = self.model.head_layer(batch.cameras, condition, pixels, owner,
                                     torch.lerp(goal, plate, batch.free.flatten(0, 1)))
        away = torch.nonzero(batch.head.flatten() < SURE)[:, 0]
        torso = self.model.torso_layer(batch.cameras, condition, pixels[away], owner[away], plate[away])
        error = lambda found, wanted: (found - wanted).square().sum() / (3 * max(1, len(found)))
        return {"colour": error(head.colour, goal), "coarse": error(head.coarse, goal),
                "torso": error(torso.colour, goal[away]), "torso_coarse": error(torso.coarse, goal[away]),
                "entropy": entropy(1 - head.light, "ln")}
