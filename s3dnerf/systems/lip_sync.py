"""Training of the lip-sync discriminator on real clips."""
from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from s3dnerf.errors import DatasetError
from s3dnerf.face import LIPS, FaceCode
from s3dnerf.geometry import project
from s3dnerf.losses import rows_of_all
from s3dnerf.metrics import auc
from s3dnerf.networks.lip_sync import HARD_SHIFT, LipSyncDiscriminator, centred, contrastive_loss, crop_lips
from s3dnerf.systems.base import ModelSystem
from s3dnerf.types import Clip

MAX_SHIFT = 7
"""frames by which sound is shifted at most when the best match is looked for"""


class LipSyncSystem(ModelSystem):
    """Teaches a discriminator to tell lips with their own sound from lips with a sound of the same clip, shifted.

    Linear probes read the tracked lip code off what both branches have found in a frame, in training only: they show
    branches that see few people where the lips are, what they do, and what of it is heard, long before sync alone would.

    Validation figures, on clips of other people: `auc`, the probability that lips match their own sound better than one
    of the same clip three frames away or more, all windows together, and `auc_clip`, the mean over clips; `offset`, the mean
    distance, in frames, of the best matching sound from the true one, `offset_median`, `offset_within_1`, and `offset_lag`,
    its mean with sign (positive: the sound that matches comes late).

    Args:
        model: the discriminator.
        optimizer: see `ModelSystem`.
        scheduler: see `ModelSystem`.
        init_from: see `ModelSystem`.
        code_weight: weight of the probes' errors; 0 does without.

    Raises:
        DatasetError: for clips too short to hold a sound that is out of step.
    """

    def __init__(self, model: LipSyncDiscriminator, optimizer: OptimizerCallable = torch.optim.AdamW,
                 scheduler: Optional[LRSchedulerCallable] = None, init_from: Optional[dict[str, str]] = None,
                 code_weight: float = 10.0):
        super().__init__(model, optimizer, scheduler, None, init_from)
        self.save_hyperparameters()
        self.code_weight, self.face_code = code_weight, FaceCode()
        self.seen, self.heard = (nn.Linear(model.arguments["channels"], FaceCode.size - 1) for _ in range(2))

    def inputs(self, clip: Clip) -> tuple[Tensor, Tensor]:
        """Crops [B, T, 3, 48, 96] and mel windows [B, T, 80, 40] of a clip; disturbed in training."""
        frames, least = clip.frames.shape[1], self.model.frames + HARD_SHIFT
        if frames < least:
            raise DatasetError(f"found clips of {frames} frames; expected {least} consecutive ones or more: raise "
                               "data.frames")
        landmarks = project(clip.mesh, clip.cameras)[0]
        if not self.training:
            return crop_lips(clip.frames, landmarks), clip.mel
        return augment_lips(crop_lips(clip.frames, jitter_box(landmarks))), augment_sound(clip.mel)

    def training_step(self, clip: Clip, _index: int) -> Tensor:
        crops, mel = self.inputs(clip)
        lips, sound = self.model.lip_features(crops), self.model.sound_features(mel)
        # wrong sounds are those of all processes
        pair = [rows_of_all(found) for found in (self.model.embed_lips(lips), self.model.embed_sound(sound))]
        terms = {"contrast": contrastive_loss(*pair, self.model.temperature.exp().clamp_max(50))}
        if self.code_weight:
            code = centred(self.face_code.relative(clip.mesh, clip.mean_mesh[:, None])[..., :-1], 1)
            terms |= {name: self.code_weight * F.smooth_l1_loss(centred(probe(found), 1), code)
                      for name, probe, found in (("seen", self.seen, lips), ("heard", self.heard, sound))}
        total = sum(terms.values())
        self.log_terms("train", terms | {"total": total}, len(clip.keys))
        return total

    def on_validation_epoch_start(self) -> None:
        self.found: list[tuple[Tensor, Tensor, int]] = []

    def validation_step(self, clip: Clip, _index: int) -> None:
        cosine = self.model(*self.inputs(clip))[0]
        index = torch.arange(len(cosine), device=cosine.device)
        right, wrong = cosine.diagonal().contiguous(), cosine[(index[:, None] - index).abs() >= HARD_SHIFT]
        offset = best_offset(cosine)
        self.found.append((right.cpu(), wrong.cpu(), int(offset)))
        self.terms = {"auc_clip": auc(right, wrong), "offset": offset.abs().float(), "offset_lag": offset.float()}

    def on_validation_epoch_end(self) -> None:
        right, wrong, offsets = zip(*self.gathered(self.found))
        signed = torch.tensor(offsets).float()
        offsets = signed.abs()
        self.log_terms("val", {"auc": auc(torch.cat(right), torch.cat(wrong)),
                               "auc_clip": torch.stack([auc(*pair) for pair in zip(right, wrong)]).mean(),
                               "offset": offsets.mean(), "offset_median": offsets.median(),
                               "offset_within_1": (offsets <= 1).float().mean(), "offset_lag": signed.mean()}, 1)
        super().on_validation_epoch_end()

    on_test_epoch_start, test_step, on_test_epoch_end = on_validation_epoch_start, validation_step, on_validation_epoch_end


def best_offset(cosine: Tensor) -> Tensor:
    """The shift, -7 to 7 frames, at which the sound matches the lips of a clip best on average.

    `cosine` [W, W] of every lips (row) and sound (column) of a clip; shifts that leave fewer than three pairs are left out.
    """
    most = min(MAX_SHIFT, max(len(cosine) - 3, 1))
    means = torch.stack([cosine.diagonal(shift).mean() for shift in range(-most, most + 1)])
    return means.argmax() - most


def uniform(like: Tensor, *size: int) -> Tensor:
    """Random numbers in [-1, 1) on the device of `like`."""
    return 2 * torch.rand(*size, device=like.device) - 1


def jitter_box(landmarks: Tensor) -> Tensor:
    """Landmarks [B, T, 478, 2] scaled by 12 % and moved by 5 % of the eye distance at most, the same way in all T frames."""
    batch = len(landmarks)
    centre = landmarks[:, :, list(LIPS)].mean((1, 2), keepdim=True)
    eyes = (landmarks[:, :, 33] - landmarks[:, :, 263]).norm(dim=-1).mean(1)[:, None, None, None]
    scaled = (landmarks - centre) * (1 + 0.12 * uniform(landmarks, batch, 1, 1, 1))
    return scaled + centre + 0.05 * eyes * uniform(landmarks, batch, 1, 1, 2)


def augment_lips(lips: Tensor) -> Tensor:
    """Crops [B, T, 3, 48, 96] with brightness, contrast, colour and sharpness changed, and mirrored by half."""
    batch = len(lips)
    mirrored = torch.where(uniform(lips, batch, 1, 1, 1, 1) < 0, lips.flip(-1), lips)
    soft = F.avg_pool2d(mirrored.flatten(0, 1), 3, 1, 1, count_include_pad=False).unflatten(0, lips.shape[:2])
    blurred = torch.lerp(mirrored, soft, 0.25 + 0.75 * uniform(lips, batch, 1, 1, 1, 1))
    paled = torch.lerp(blurred.mean(2, keepdim=True), blurred, 0.7 + 0.6 * uniform(lips, batch, 1, 1, 1, 1))
    middle = paled.mean((1, 2, 3, 4), keepdim=True)
    contrast = 1 + 0.3 * uniform(lips, batch, 1, 1, 1, 1)
    colour = 1 + 0.3 * uniform(lips, batch, 1, 3, 1, 1)
    shift = 0.1 * uniform(lips, batch, 1, 1, 1, 1)
    return torch.addcmul(middle * (1 - contrast) * colour + shift, paled, contrast * colour).clamp(0, 1)


def augment_sound(mel: Tensor) -> Tensor:
    """Mel windows [B, T, 80, 40] with noise, another level and tilt of the spectrum, and up to 11 neighbouring bands blanked
    per clip."""
    batch, _, bands, _ = mel.shape
    level, tilt = (0.4 * torch.randn(batch, 1, 1, 1, device=mel.device) for _ in range(2))
    slope = torch.linspace(-1, 1, bands, device=mel.device)[:, None]
    noise = 0.2 * (1 + uniform(mel, batch, 1, 1, 1))
    noisy = mel + noise * torch.randn_like(mel) + level + tilt * slope
    first = torch.randint(0, bands - 10, (batch, 1), device=mel.device)
    last = first + torch.randint(0, 12, (batch, 1), device=mel.device)
    band = torch.arange(bands, device=mel.device)
    blank = (band >= first) & (band < last)
    return noisy.masked_fill(blank[:, None, :, None], -2.0)
