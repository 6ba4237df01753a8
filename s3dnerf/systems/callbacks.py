"""What is looked at while training."""
from __future__ import annotations

from pathlib import Path
from typing import Optional

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from s3dnerf.losses import reduced
from s3dnerf.types import Clip, Rendering

ROWS = ("recording", "driven by speech", "driven by tracked lips", "region score", "depth")


class LogRenderings(pl.Callback):
    """Renders the first validation clips and keeps them as a video and a picture, beside the CSV log and in wandb.

    Rows, from the top: recording, driven by speech, driven by tracked lips, region score (the method's heat map, red is
    1) over the raw rendering, and depth.

    Args:
        clips: how many validation clips are shown.
        size: side of each frame, pixels.
    """

    def __init__(self, clips: int = 2, size: int = 128):
        super().__init__()
        self.clips, self.size = clips, size

    def on_validation_batch_end(self, trainer, module, outputs, batch: Clip, batch_idx, dataloader_idx=0):
        if batch_idx >= self.clips or trainer.sanity_checking or not trainer.is_global_zero:
            return
        sheet = clip_sheet(module, batch, self.size)
        for logger in trainer.loggers:
            folder = Path(logger.save_dir or ".", str(logger.name), str(logger.version), "renderings")
            if isinstance(logger, WandbLogger):
                self._to_wandb(logger, folder, sheet, batch_idx, trainer.global_step)
            else:
                write_sheet(sheet, folder / f"clip{batch_idx}-step{trainer.global_step:06d}")

    def teardown(self, trainer, module, stage):
        """Closes an offline wandb run, so that its file is whole when the command ends."""
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and trainer.is_global_zero:
                logger.experiment.finish(quiet=True)

    @staticmethod
    def _to_wandb(logger: WandbLogger, folder: Path, sheet: Tensor, index: int, step: int) -> None:
        import wandb

        stem = folder / f"clip{index}-step{step:06d}"
        write_sheet(sheet, stem)
        logger.experiment.log({f"rendering/clip{index}": wandb.Image(str(stem.with_suffix(".png"))),
                               f"video/clip{index}": wandb.Video(str(stem.with_suffix(".mp4")), format="mp4"),
                               "trainer/global_step": step})


@torch.no_grad()
def clip_sheet(module: pl.LightningModule, clip: Clip, size: int) -> Tensor:
    """[T, 3, rows * size, size] in [0, 1]: the rows of `ROWS` for the first clip of a batch."""
    model = module.model
    clip = Clip.stack([clip[0]]) if len(clip.keys) > 1 else clip
    appearance = model.encode(clip.portrait)
    by_speech = model.render(appearance, module.drive(clip, False), clip.cameras, stride=8)
    by_face = model.render(appearance, module.drive(clip, True), clip.cameras, stride=8)
    rows = [clip.frames, by_speech.image, by_face.image, heat_map(by_speech), depth_map(by_speech)]
    return torch.cat([shown(row, size) for row in rows], -2)


def shown(frames: Tensor, size: int) -> Tensor:
    """Frames [1, T, 3, h, w] as [T, 3, size, size], clamped."""
    if frames.shape[-1] > size:
        return reduced(frames, size, size)[0].clamp(0, 1)
    return torch.nn.functional.interpolate(frames[0], size=(size, size)).clamp(0, 1)


def heat_map(rendering: Rendering) -> Tensor:
    """[B, T, 3, h, w]: the region score in red over the greyed raw rendering."""
    grey = rendering.raw.mean(2, keepdim=True) * 0.6
    score = rendering.motion.clamp(0, 1)
    return torch.cat([grey + (1 - grey) * score, grey * (1 - score), grey * (1 - score)], 2)


def depth_map(rendering: Rendering) -> Tensor:
    """[B, T, 3, h, w]: near is bright; spread over what is opaque, dark where nothing is."""
    solid = rendering.opacity > 0.5
    if not solid.any():
        return torch.zeros_like(rendering.raw)
    near, far = rendering.depth[solid].min(), rendering.depth[solid].max()
    return ((far - rendering.depth) / (far - near).clamp_min(1e-6) * solid).expand(-1, -1, 3, -1, -1)


def write_sheet(sheet: Tensor, stem: Path, fps: Optional[int] = 8) -> None:
    """Writes frames [T, 3, H, W] side by side as `stem`.png and one after another as `stem`.mp4."""
    from PIL import Image

    from s3dnerf.media import VideoWriter

    stem.parent.mkdir(parents=True, exist_ok=True)
    frames = (sheet.permute(0, 2, 3, 1).cpu().numpy() * 255).round().astype(np.uint8)
    Image.fromarray(np.concatenate(list(frames), 1)).save(stem.with_suffix(".png"))
    with VideoWriter(stem.with_suffix(".mp4"), frames.shape[2], frames.shape[1], sound=None, fps=fps) as video:
        for frame in frames:
            video.write(frame)
