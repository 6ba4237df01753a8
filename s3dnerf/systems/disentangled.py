"""Training of the disentangling head NeRF on whole frames of one recording."""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Optional

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from s3dnerf.data.person import REGIONS
from s3dnerf.losses import info_nce, velocity_error, weighted
from s3dnerf.models.disentangled import DisentangledHead, HeadCodes, HeadPicture
from s3dnerf.models.hub import DEFAULT
from s3dnerf.networks.code_extractor import FACTORS
from s3dnerf.networks.variation import Variation
from s3dnerf.systems.person import SURE, PersonSystem, in_box
from s3dnerf.types import PixelBatch, TensorRecord

TENTH = 0.1
"""of the range of colours: the unit in which they are compared"""
NEGATIVES = 10
"""frames whose expression is wrong, for every one whose is right"""


@dataclass(frozen=True)
class DisentangledObjective:
    """Weights of the terms of the loss; reconstruction 1, disentanglement 5 and velocity 10 are the paper's. Squared errors of
    colours are counted in tenths of their range: in whole ones, the extractor's codes would outweigh the picture.

    Args:
        colour: squared error of the frames, over what is behind the head.
        features: L1 between features of rendered and recorded frames, by the lip-sync expert's eyes (VGG's in the paper).
        mask: squared error of the opacity of the feature map's cells against the head mask; without it the head may vanish
            before it has been painted once.
        torso: squared error of the other pixels, torso over background.
        disentangle: squared distance of the extractor's codes of a head with exchanged codes to those of the pictures that
            the codes came from.
        velocity: see `losses.velocity_error`.
        lips: see `losses.info_nce`: expression codes of the lip module against those learned.
        mouth: factor on pixels of the mouth's box in `colour`.
        code: see `PersonObjective`.
        correlation: see `PersonObjective`.
    """

    colour: float = 1.0
    features: float = 0.5
    mask: float = 5.0
    torso: float = 1.0
    disentangle: float = 5.0
    velocity: float = 10.0
    lips: float = 0.2
    mouth: float = 4.0
    code: float = 0.01
    correlation: float = 0.005


@dataclass(frozen=True)
class Goal(TensorRecord):
    """What frames [F] are to look like."""

    image: Tensor
    """[F, 3, S, S] as recorded, the head under its variation."""
    recorded: Tensor
    """[F, 3, S, S]"""
    behind: Tensor
    """[F, 3, S, S] what is behind the head there."""
    plate: Tensor
    """[F, 3, S, S] the background plate."""
    head: Tensor
    """[F, 1, S, S] head mask."""


class DisentangledSystem(PersonSystem):
    """Optimises a `DisentangledHead` on frames of one recording (see `data.person_frames.PersonFrameModule`).

    Args:
        model: the person's head, its extractor already taught (`CodeExtractorSystem`); it stays as it is.
        objective: weights of the loss.
        optimizer: see `ModelSystem`.
        scheduler: see `ModelSystem`.
        train_only: see `ModelSystem`.
        init_from: see `ModelSystem`.
        attention_rate: see `PersonSystem`.
        lips_share: share of steps in which the lip module, told tracked lips, says the expression, not the frames' own
            learned codes.
        speech_share: share in which it is told the speech.
        variant_share: share of steps in which frames are learned under changed albedo and illumination.
        exchange_every: steps from one exchange of codes to the next.
        torso_pixels: pixels per frame and step that the torso is learned from.
        code_noise: see `PersonSystem`.
        code_frames: see `PersonSystem`.
        listener: see `PersonSystem`.
    """

    def __init__(self, model: DisentangledHead, objective: DisentangledObjective = DisentangledObjective(),
                 optimizer: OptimizerCallable = torch.optim.Adam, scheduler: Optional[LRSchedulerCallable] = None,
                 train_only: Optional[list[str]] = None, init_from: Optional[dict[str, str]] = None,
                 attention_rate: float = 1.0, lips_share: float = 0.7, speech_share: float = 0.0,
                 variant_share: float = 0.25, exchange_every: int = 2, torso_pixels: int = 2048,
                 code_noise: float = 0.1, code_frames: int = 96, listener: str = DEFAULT):
        super().__init__(model, objective, optimizer, scheduler, train_only, init_from, attention_rate=attention_rate,
                         lips_share=lips_share, code_noise=code_noise, code_frames=code_frames, listener=listener)
        self.speech_share, self.variant_share = speech_share, variant_share
        self.exchange_every, self.torso_pixels = exchange_every, torso_pixels
        model.extractor.requires_grad_(False)

    def training_step(self, batch: PixelBatch, _index: int) -> Tensor:
        variant = self.drawn_variant() if torch.rand(()) < self.variant_share else torch.zeros(2, dtype=torch.long)
        codes, goal = self.codes(batch.frame, variant), self.goal(batch, variant)
        head = self.model.picture(batch.cameras, codes)
        terms = self.picture_terms(batch, head, goal) | self.torso_terms(batch, goal)
        if self.global_step % self.exchange_every == 0:
            terms["disentangle"] = self.exchange_error(batch, codes, goal)
        if self.model.by_lips:
            terms |= self.code_terms() if self.objective.code else {}
        terms["lips"] = self.lip_error()
        total = sum(getattr(self.objective, name) * value for name, value in terms.items())
        error = ((head.opacity * head.colour + (1 - head.opacity) * goal.behind - goal.image) ** 2).mean().detach()
        self.log_terms("train", terms | {"total": total, "psnr": -10 * torch.log10(error)}, len(batch.frame))
        return total

    # what is rendered, and what it is to look like -------------------------------------------------------------------------

    def drawn_variant(self) -> Tensor:
        """[2] numbers of an albedo and of an illumination at random, 0 among them."""
        return torch.randint(1 + self.model.variants, (2,))

    def drawn_changes(self) -> Tensor:
        """[3] whether expression, albedo and illumination are exchanged."""
        return torch.rand(3) < 0.5

    def codes(self, frame: Tensor, variant: Tensor) -> HeadCodes:
        """Codes of recorded frames [F] under a variant [2]: expressions as learned, or as the lip module has them of tracked
        lips or of speech."""
        chance = torch.rand(())
        by_lips = self.model.by_lips and chance < self.lips_share
        heard = not by_lips and chance < self.lips_share + self.speech_share
        albedo, illumination = (number.expand(len(frame)).to(self.device) for number in variant)
        codes = self.model.codes(self.condition(frame, by_lips), albedo, illumination)
        return codes if by_lips or heard else replace(codes, expression=self.model.learned_expressions(frame))

    def goal(self, batch: PixelBatch, variant: Tensor) -> Goal:
        """What a batch of whole frames is to look like under a variant [2]."""
        shaped = lambda rows: rows.unflatten(1, (batch.patch, batch.patch)).permute(0, 3, 1, 2)
        recorded, plate, head, free = map(shaped, (batch.colour, batch.background, batch.head, batch.free))
        image = recorded
        if variant.any():
            albedo, illumination = (number.expand(len(recorded)) for number in variant)
            changed = Variation.palette(albedo, illumination).to(recorded.device)(recorded)
            image = torch.lerp(recorded, changed, head)
        return Goal(image, recorded, torch.lerp(recorded, plate, free), plate, head)

    # terms -----------------------------------------------------------------------------------------------------------------

    def picture_terms(self, batch: PixelBatch, head: HeadPicture, goal: Goal) -> dict[str, Tensor]:
        """The terms that compare rendered heads with recorded ones, and how they change from the first frame of a pair to
        the second."""
        image = head.opacity * head.colour + (1 - head.opacity) * goal.behind
        mouth = in_box(self.boxes[batch.frame.cpu(), REGIONS.index("mouth")].to(self.device), batch.patch)
        pairs = lambda x: x.unflatten(0, (2, -1)).transpose(0, 1)
        terms = {"colour": weighted(((image - goal.image) / TENTH) ** 2, 1 + (self.objective.mouth - 1) * mouth),
                 "mask": ((head.cells - F.adaptive_avg_pool2d(goal.head, head.cells.shape[-1])) ** 2).mean(),
                 "velocity": velocity_error(pairs(image) / TENTH, pairs(goal.image) / TENTH, pairs(goal.head).amax(1))}
        if self.expert is not None:
            terms["features"] = self.feature_error(image, goal.image)
        return terms

    def torso_terms(self, batch: PixelBatch, goal: Goal) -> dict[str, Tensor]:
        """The torso over the background, at some of the pixels where the head is not."""
        frames, size = len(batch.frame), batch.patch
        chosen = torch.randint(size * size, (frames, self.torso_pixels), device=self.device)
        pick = lambda maps: maps.flatten(2).transpose(1, 2).gather(1, chosen[..., None].expand(-1, -1, maps.shape[1]))
        opacity, colour = self.model.torso_at(batch.cameras, pick(batch.pixels.transpose(1, 2)))
        error = ((torch.lerp(pick(goal.plate), colour, opacity) - pick(goal.recorded)) / TENTH) ** 2
        return {"torso": weighted(error, (pick(goal.head) < SURE).float())}

    def exchange_error(self, batch: PixelBatch, codes: HeadCodes, goal: Goal) -> Tensor:
        """Heads of the first frames of pairs with an expression, an albedo or an illumination of elsewhere: the extractor is
        to read off them what it reads off the pictures where each code is from."""
        count = len(batch.frame) // 2
        own = goal.image[:count] * goal.head[:count]
        variant, changes = self.drawn_variant().to(self.device), self.drawn_changes()
        frame = torch.randint(self.learned, (count,), device=self.device)
        other, mask = self.recorded(frame)
        albedo, light = (number.expand(count) for number in variant)
        changed = Variation.palette(albedo, light).to(self.device)(goal.recorded[:count]) * goal.head[:count]
        sources = [own, other * mask if changes[0] else own, changed if changes[1] else own, changed if changes[2] else own]
        mixed = codes[:count]
        elsewhere = self.model.codes(self.condition(frame, self.model.by_lips), albedo, light)
        taken = [name for name, change in zip(("expression", "albedo", "illumination"), changes) if change]
        mixed = replace(mixed, **{name: getattr(elsewhere, name) for name in taken})
        head = self.model.picture(batch.cameras[:count], mixed)
        found = self.model.extractor(head.colour * head.opacity)
        with torch.no_grad():
            read = self.model.extractor(torch.cat(sources)).unflatten(0, (len(FACTORS), count))
            wanted = torch.stack([read[number, :, number] for number in range(len(FACTORS))], 1)
        return ((found - wanted) ** 2).mean()

    def recorded(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Recorded frames [F, 3, S, S] and their head masks [F, 1, S, S]."""
        images = self.video.frames[frame.cpu()].to(self.device).permute(0, 3, 1, 2) / 255
        mask = self.video.head[frame.cpu()].float()[:, None].to(self.device)
        return images, F.interpolate(mask, size=images.shape[-2:], mode="bilinear", align_corners=False)

    def lip_error(self) -> Tensor:
        """How well the lip module's expression, of speech and of tracked lips, tells a frame from others."""
        frame = torch.randint(self.learned, (self.code_frames,), device=self.device)
        wrong = (frame[:, None] + torch.randint(1, self.learned, (len(frame), NEGATIVES), device=self.device)) % self.learned
        right = self.model.learned_expressions(frame)
        told = [self.hear(frame)] + ([self.lips[frame]] if self.model.by_lips else [])
        others = self.model.learned_expressions(wrong)
        return sum(info_nce(self.model.lip_module(code), right, others) for code in told) / len(told)
