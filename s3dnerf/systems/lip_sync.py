"""Training of the lip-sync discriminator on real clips."""
from __future__ import annotations

from typing import Optional

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from s3dnerf.geometry import project
from s3dnerf.metrics import auc
from s3dnerf.networks.lip_sync import LipSyncDiscriminator, contrastive_loss, crop_lips, sync_windows
from s3dnerf.systems.base import ModelSystem
from s3dnerf.types import Clip

MAX_SHIFT = 7


class LipSyncSystem(ModelSystem):
    """Teaches a discriminator to tell lips with their own sound from lips with a sound of the same clip, shifted.

    Validation gives the area under the ROC curve with negatives of the same clip at least three frames away, and how far,
    in frames, the best matching sound lies from the true one.

    Args:
        model: the discriminator.
        optimizer: see `ModelSystem`.
        scheduler: see `ModelSystem`.
        init_from: see `ModelSystem`.
    """

    def __init__(self, model: LipSyncDiscriminator, optimizer: OptimizerCallable = torch.optim.Adam,
                 scheduler: Optional[LRSchedulerCallable] = None, init_from: Optional[dict[str, str]] = None):
        super().__init__(model, optimizer, scheduler, None, init_from)
        self.save_hyperparameters()

    def embeddings(self, clip: Clip) -> tuple[Tensor, Tensor]:
        """Embeddings of lips and sound, [B, W, E], of every five-frame window of a clip."""
        lips = crop_lips(clip.frames, project(clip.mesh, clip.cameras)[0])
        mel = clip.mel
        if self.training:
            lips, mel = augment_lips(lips), mel + 0.2 * torch.randn_like(mel)
        stacked, sound = sync_windows(lips, mel)
        shape = (len(clip.keys), -1)
        return self.model.embed_lips(stacked).unflatten(0, shape), self.model.embed_sound(sound).unflatten(0, shape)

    def training_step(self, clip: Clip, _index: int) -> Tensor:
        lips, sound = self.embeddings(clip)
        total = contrastive_loss(lips, sound, self.model.temperature.exp().clamp_max(50))
        self.log_terms("train", {"total": total}, len(clip.keys))
        return total

    def on_validation_epoch_start(self) -> None:
        self.right, self.wrong, self.offsets = [], [], []

    def validation_step(self, clip: Clip, _index: int) -> None:
        lips, sound = self.embeddings(clip)
        cosine = (lips @ sound.transpose(1, 2))[0]
        index = torch.arange(len(cosine), device=cosine.device)
        apart = (index[:, None] - index).abs()
        self.right.append(cosine.diagonal())
        self.wrong.append(cosine[(apart >= 3) & (apart <= 15)])
        self.offsets.append(best_offset(cosine).abs())

    def on_validation_epoch_end(self) -> None:
        offsets = torch.stack(self.offsets).float()
        self.log_terms("val", {"auc": auc(torch.cat(self.right), torch.cat(self.wrong)), "offset_median": offsets.median(),
                               "offset_within_1": (offsets <= 1).float().mean()}, 1)


def best_offset(cosine: Tensor) -> Tensor:
    """The shift, -7 to 7 frames, at which the sound matches the lips of a clip best on average; `cosine` [W, W]."""
    most = min(MAX_SHIFT, len(cosine) - 3)
    means = torch.stack([cosine.diagonal(shift).mean() for shift in range(-most, most + 1)])
    return means.argmax() - most


def augment_lips(lips: Tensor) -> Tensor:
    """Crops [B, T, 3, 48, 96] with brightness, contrast and colour changed, and mirrored by half."""
    batch = len(lips)
    gain = 1 + 0.3 * (2 * torch.rand(batch, 1, 3, 1, 1, device=lips.device) - 1)
    shift = 0.1 * (2 * torch.rand(batch, 1, 1, 1, 1, device=lips.device) - 1)
    mirrored = torch.where(torch.rand(batch, 1, 1, 1, 1, device=lips.device) < 0.5, lips.flip(-1), lips)
    return mirrored * gain + shift
