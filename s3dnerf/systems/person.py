"""Training of one person's head on the pixels of one recording."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from s3dnerf.data.person import REGIONS
from s3dnerf.losses import weighted
from s3dnerf.metrics import correlation, psnr, spread_ratio
from s3dnerf.models.hub import DEFAULT, load_lip_sync, load_model
from s3dnerf.models.person import Person
from s3dnerf.networks.speech_attention import neighbours
from s3dnerf.systems.base import ModelSystem
from s3dnerf.types import Condition, PackedColours, PixelBatch

LAYERS = 4
"""layers of the expert that compare pictures: down to an eighth of the resolution"""
SURE = 0.05
"""share of the head mask below which a pixel shows the torso or the background"""


@dataclass(frozen=True)
class PersonObjective:
    """Weights of the terms of the loss, and where the paper and its code differ, which of them is meant.

    Args:
        colour: squared error of the head's pixels, over what is behind the head.
        torso: squared error of the other pixels, torso over background.
        opacity: opacity of the head outside its mask, of the torso outside its own, and what shines through where the person
            is: colours alone let both paint the background behind them, and a shirt like the background be left to it.
        entropy: entropy of the opacity of head and torso, so that a ray is full or empty.
        entropy_log: "ln" as in the paper (which has 1e-3 for the weight), or "log2" as in its code (1e-4).
        dynamic: size of what speech does on rays outside the lower face. (The paper has 0.1, on a sum over all samples of a
            ray; with thousands of steps in place of 200 000 that silences speech before it is heard.)
        dynamic_ramp: let that weight grow from 0 over the whole training, as in the code, not the paper.
        features: L1 between features of the rendered and the recorded patch (patches only), by the lip-sync expert's eyes.
        lips: squared error of a patch's pixels.
        code: squared error of the lip code that speech is heard to say, against the tracked one.
        correlation: 1 - correlation of the opening that this code implies.
    """

    colour: float = 1.0
    torso: float = 1.0
    opacity: float = 0.03
    entropy: float = 1e-3
    entropy_log: str = "ln"
    dynamic: float = 1e-2
    dynamic_ramp: bool = True
    features: float = 0.02
    lips: float = 1.0
    code: float = 0.01
    correlation: float = 0.005

    def __post_init__(self):
        if self.entropy_log not in ("ln", "log2"):
            raise ValueError(f"found entropy_log={self.entropy_log!r}; expected ln or log2")


class PersonSystem(ModelSystem):
    """Optimises a RAD-NeRF on pixels of one recording (see `data.person.PersonDataModule`).

    Args:
        model: the person's head.
        objective: weights of the loss.
        optimizer: see `ModelSystem`; its rate is that of the nets.
        scheduler: see `ModelSystem`.
        train_only: see `ModelSystem`.
        init_from: see `ModelSystem`.
        grid_rate: factor on the rate for the grids.
        attention_rate: factor on the rate for the speech attention.
        lips_share: share of steps in which tracked lips, not speech, say what is seen; they render sharper lips than speech,
            which says less, can. Only with a code of 12 numbers; 0 is the paper's way.
        code_noise: standard deviation of what is added to tracked lip codes, so that few frames do not tell themselves apart
            by them.
        code_frames: frames per step from which speech is taught the lip code.
        body_share: share of steps in which the torso is told its own motion; in the others it goes by the head's pose.
        listener: weights whose speech encoder and lip-sync expert the model hears with.
        update_every: steps between two looks at the occupancy grid; none where a patch is looked at, so that a stage on patches, which
            moves little, keeps the cells of the one before.
        update_share: share of its cells that are looked at.
    """

    def __init__(self, model: Person, objective: PersonObjective = PersonObjective(),
                 optimizer: OptimizerCallable = torch.optim.Adam, scheduler: Optional[LRSchedulerCallable] = None,
                 train_only: Optional[list[str]] = None, init_from: Optional[dict[str, str]] = None, grid_rate: float = 5.0,
                 attention_rate: float = 1.0, lips_share: float = 1.0, code_noise: float = 0.1,
                 code_frames: int = 96, body_share: float = 0.6, listener: str = DEFAULT, update_every: int = 16,
                 update_share: float = 0.25):
        super().__init__(model, optimizer, scheduler, train_only, init_from)
        self.save_hyperparameters()
        self.objective, self.lips_share, self.code_noise, self.code_frames = objective, lips_share, code_noise, code_frames
        self.body_share = body_share
        self.rates = {"grid": grid_rate, "attention": attention_rate}
        self.update_every, self.update_share = update_every, update_share
        if model.listener is not None and not init_from:
            model.listener.load_state_dict(load_model(listener).speech.state_dict())
        if model.ear is not None and not init_from:
            model.ear.load_state_dict(load_lip_sync(listener).sound.state_dict())
        self.expert = load_lip_sync(DEFAULT).requires_grad_(False) if objective.features else None

    def setup(self, stage: str) -> None:
        """Takes the recording over from the data module: what is heard in it, and what is seen without learning."""
        data = self.trainer.datamodule
        self.video, self.learned, self.boxes = data.video, data.learned, data.boxes
        first = not int(self.model.seen)
        if first:
            self.model.adopt(self.video, self.learned)
        self.heard = self.model.listen(self.video.mel.to(self.device))
        self.lips, self.eyes = (codes.to(self.device) for codes in self.model.lip_codes(self.video.mesh.to(self.device)))
        self.body = self.video.body.to(self.device)
        attention, told = self.model.attention, (self.heard[:self.learned], self.lips[:self.learned])
        if first and attention.linear:
            attention.fit(*told)
        self.read = None
        if attention.parts:
            self.read = torch.cat([attention.left_out(*told), attention.frame_codes(self.heard[self.learned:])])

    def hear(self, frame: Tensor) -> Tensor:
        """Speech codes [F, K] of recorded frames [F]. What compares a window with known ones knows those of learned frames: these
        are heard by one to whom their part of the recording is new (`SpeechAttention.left_out`)."""
        if self.read is None:
            return self.model.hear(self.heard, frame)
        return self.model.attention.attend(neighbours(self.read, frame))

    def on_fit_start(self) -> None:
        """See `ModelSystem`."""
        super().on_fit_start()
        self.on_validation_start()

    def on_validation_start(self) -> None:
        """Brings what the recording holds to the device, to which the model has been moved since `setup`."""
        brought = (values.to(self.device) for values in (self.heard, self.lips, self.eyes, self.body))
        self.heard, self.lips, self.eyes, self.body = brought
        self.read = None if self.read is None else self.read.to(self.device)

    on_test_start = on_validation_start

    def configure_optimizers(self):
        """Grids, and some parts of the model, have rates of their own (`rates`)."""
        groups = {kind: [] for kind in ("", *self.rates)}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                kind = "grid" if name.endswith(".table") else name.split(".")[0]
                groups[kind if kind in groups else ""].append(parameter)
        groups = {kind: parameters for kind, parameters in groups.items() if parameters}
        optimizer = self.optimizer([{"params": parameters} for parameters in groups.values()])
        for kind, group in zip(groups, optimizer.param_groups):
            group["lr"] *= self.rates.get(kind, 1.0)
        return self.scheduled(optimizer)

    def training_step(self, batch: PixelBatch, _index: int) -> Tensor:
        by_lips = self.model.by_lips and torch.rand(()) < self.lips_share
        condition = self.condition(batch.frame, by_lips)
        if self.global_step % self.update_every == 0 and not batch.patch:
            some = torch.randint(self.learned, (64,), device=self.device)
            with torch.no_grad():
                self.model.grid.update(self.model.density_of(self.condition(some, by_lips)), self.update_share)
        head, torso, torso_colour = self.model.look(batch.cameras, condition, batch.pixels)
        terms = self.picture_terms(batch, head, torso, torso_colour)
        if self.model.by_lips and self.objective.code:
            terms |= self.code_terms()
        total = sum(getattr(self.objective, name) * value for name, value in terms.items())
        self.log_terms("train", terms | {"total": total, "psnr": -10 * torch.log10(terms["colour"].detach())}, len(batch.frame))
        return total

    def condition(self, frame: Tensor, by_lips: bool) -> Condition:
        """What recorded frames [F] were under: lips as tracked or as heard, eyes and torso as tracked, and their own
        appearance."""
        code = self.lips[frame] if by_lips else self.hear(frame)
        if self.training and by_lips:
            code = code + self.code_noise * torch.randn_like(code)
        told = not self.training or torch.rand(()) < self.body_share
        return Condition(code, self.eyes[frame], torch.where(frame < self.learned, frame, -1), self.body[frame] if told else None)

    def picture_terms(self, batch: PixelBatch, head: PackedColours, torso: Tensor, torso_colour: Tensor) -> dict[str, Tensor]:
        """The terms that compare rendered pixels with recorded ones. Behind the head and its outline lies the background plate,
        elsewhere what the recording shows, so that a pixel of the torso asks the head for nothing but to be empty."""
        goal, behind = batch.colour.flatten(0, 1), batch.background.flatten(0, 1)
        mask, chest, person, still = (part.flatten(0, 1) for part in (batch.head, batch.torso, batch.person, batch.still))
        image = head.colour + (1 - head.opacity) * torch.lerp(goal, behind, batch.free.flatten(0, 1))
        below = torso * torso_colour + (1 - torso) * behind
        seen = (mask < SURE).float()
        ramp = (self.global_step + 1) / max(1, self.trainer.max_steps) if self.objective.dynamic_ramp else 1.0
        error = (image - goal) ** 2
        terms = {"colour": error.mean(), "opacity": (head.opacity * (1 - mask)).mean(),
                 "entropy": entropy(head.opacity, self.objective.entropy_log), "dynamic": ramp * (head.ambient * still).mean()}
        if self.model.torso is not None:
            terms["torso"] = weighted((below - goal) ** 2, seen)
            through = (1 - head.opacity.detach()) * (1 - torso) * person
            terms["opacity"] = terms["opacity"] + (torso * (1 - chest) * seen + through).mean()
            terms["entropy"] = terms["entropy"] + entropy(torso, self.objective.entropy_log)
        if batch.patch:
            terms["lips"] = terms["colour"]
            if self.expert is not None:
                picture = lambda rows: rows.view(len(batch.frame), batch.patch, batch.patch, 3).permute(0, 3, 1, 2)
                terms["features"] = self.feature_error(picture(image), picture(goal))
        return terms

    def feature_error(self, made: Tensor, real: Tensor) -> Tensor:
        """Mean L1 between what the first layers of the lip-sync expert see in pictures [N, 3, h, w]: the project's own
        stand-in for LPIPS, whose network is not installed."""
        layers, total = self.expert.lips[:LAYERS], 0.0
        made, real = made * 2 - 1, real * 2 - 1
        for layer in layers:
            made, real = layer(made), layer(real)
            total = total + (made - real).abs().mean()
        return total / len(layers)

    def code_terms(self) -> dict[str, Tensor]:
        """Errors of the lip code that is heard, over frames of the whole recording."""
        some = torch.randint(self.learned, (self.code_frames,), device=self.device)
        found, goal = self.hear(some), self.lips[some]
        spread = self.model.face_code.spread.sqrt()
        return {"code": ((found - goal) ** 2 * spread / spread.mean()).mean(),
                "correlation": 1 - correlation(self.model.opening(found), self.model.opening(goal))}

    @torch.no_grad()
    def validation_step(self, frame: Tensor, index: int) -> None:
        """Figures of held-out frames, driven by their speech and, where they can be, by their lips."""
        frame = frame.to(self.device)
        terms = self.held_out_figures(frame, "")
        if self.model.by_lips:
            terms |= self.held_out_figures(frame, "lips_", by_lips=True)
            if index == 0:  # they are about all held-out frames at once
                learned = torch.arange(self.learned, device=self.device)
                self.model.match_spread(self.hear(learned), self.lips[:self.learned])
                terms |= self.code_figures()
        self.log_terms("val", terms, 1)

    def held_out_figures(self, frame: Tensor, prefix: str, by_lips: bool = False) -> dict[str, Tensor]:
        """PSNR of whole frames, heads and mouths."""
        rendering = self.model.render(self.video.cameras[frame.cpu()].to(self.device), self.condition(frame, by_lips))
        goal = self.video.frames[frame.cpu()].to(self.device).permute(0, 3, 1, 2) / 255
        head = F.interpolate(self.video.head[frame.cpu()].float()[:, None].to(self.device), size=goal.shape[-2:])
        mouth = in_box(self.boxes[frame.cpu(), REGIONS.index("mouth")].to(self.device), goal.shape[-1])
        image = rendering.image.clamp(0, 1)
        figures = {f"{prefix}psnr": psnr(image, goal), f"{prefix}head_psnr": psnr(image, goal, head),
                   f"{prefix}mouth_psnr": psnr(image, goal, mouth)}
        if self.expert is not None:
            figures[f"{prefix}mouth_features"] = self.feature_error(*(picture * mouth for picture in (image, goal)))
        return figures

    def code_figures(self) -> dict[str, Tensor]:
        """How well speech tells the opening of the lips, over all held-out frames."""
        rest = torch.arange(self.learned, len(self.lips), device=self.device)
        found, goal = self.model.opening(self.hear(rest)), self.model.opening(self.lips[rest])
        return {"opening_correlation": correlation(found, goal), "mouth_gain": torch.tensor(self.model.mouth_gain),
                "opening_spread": spread_ratio(found, goal) * self.model.mouth_gain}

    test_step = validation_step


def in_box(box: Tensor, size: int) -> Tensor:
    """[T, 1, size, size]: 1 at pixels within boxes [T, 4]."""
    middle = torch.arange(size, device=box.device) + 0.5
    columns = (middle > box[:, :1]) & (middle < box[:, 2:3])
    rows = (middle > box[:, 1:2]) & (middle < box[:, 3:4])
    return (rows[:, :, None] & columns[:, None]).float()[:, None]


def entropy(opacity: Tensor, log: str) -> Tensor:
    """Mean entropy of opacities [N, 1], in nats ("ln") or bits ("log2")."""
    share = opacity.clamp(1e-5, 1 - 1e-5)
    nats = -(share * share.log() + (1 - share) * (1 - share).log()).mean()
    return nats / math.log(2) if log == "log2" else nats
