"""What is looked at while training, what is kept, and what ends it."""
from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Literal, Optional

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from s3dnerf.errors import InputError, TrainingError
from s3dnerf.losses import reduced
from s3dnerf.systems.shared_draws import SharedDraws
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
            run = logger.log_dir or Path(logger.save_dir or ".", str(logger.name), str(logger.version))
            folder = Path(run, "renderings")
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


class BestCheckpoint(ModelCheckpoint):
    """Keeps the weights that were best by a validation figure, as best.ckpt; with EMA the averaged ones, which are those
    that were validated.

    Args:
        monitor: the figure, such as val/face_psnr; None keeps the newest.
        mode: whether more of it is better, or less.
        dirpath: folder; None is `checkpoints` beside the log.
    """

    def __init__(self, monitor: Optional[str] = None, mode: Literal["max", "min"] = "max", dirpath: Optional[str] = None):
        super().__init__(dirpath, "best", monitor, mode=mode, enable_version_counter=False)


class LastCheckpoint(ModelCheckpoint):
    """Keeps the newest state as last.ckpt, written after every validation: training that is resumed from it goes on exactly.
    It is written at the end of training too, with EMA as the average alone.

    Args:
        dirpath: folder; None is `checkpoints` beside the log.
    """

    def __init__(self, dirpath: Optional[str] = None):
        super().__init__(dirpath, "last", enable_version_counter=False)

    def on_train_start(self, trainer, module):
        super().on_train_start(trainer, module)
        self._last_global_step_saved = trainer.global_step  # nothing new yet

    def on_train_end(self, trainer, module):
        if not self._should_skip_saving_checkpoint(trainer):
            trainer.save_checkpoint(Path(self.dirpath, "last.ckpt"))


class Plateau(EarlyStopping):
    """Ends training where a validation figure has not moved for some validations.

    Args:
        monitor: the figure; None never ends.
        mode: whether more of it is better, or less.
        patience: validations in a row without a better figure.
        min_delta: the least that counts as better.

    Raises:
        InputError: for a figure that the system does not log.
    """

    def __init__(self, monitor: Optional[str] = None, mode: Literal["max", "min"] = "max", patience: int = 5,
                 min_delta: float = 0.0):
        super().__init__(monitor or "", min_delta, patience, mode=mode, strict=False)

    def on_train_start(self, trainer, module):
        """Ends at once what had ended when it was cut."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience

    def on_validation_end(self, trainer, module):
        if self.monitor and self.monitor not in trainer.callback_metrics and not trainer.sanity_checking:
            known = ", ".join(sorted(name for name in trainer.callback_metrics if name.startswith("val/")))
            raise InputError(f"no validation figure {self.monitor}; set best.monitor to one of {known}")
        super().on_validation_end(trainer, module)


class LoaderWait(pl.Callback):
    """Measures the loader against the model: logs `loader/wait`, the share of the time that training waits for batches, and
    `loader/images_per_second`, the images that the model takes while it does not, both of this process and over the last
    fifty batches or so; says them at the end, over all.

    Args:
        most: share of waiting above which it says what helps.
    """

    def __init__(self, most: float = 0.1):
        super().__init__()
        self.most = most
        self.recent, self.total = np.zeros(3), np.zeros(3)
        """seconds of waiting, seconds of the model, images"""

    def on_train_batch_start(self, trainer, module, batch: Clip, batch_idx):
        self.begin = time.perf_counter()

    def on_train_batch_end(self, trainer, module, outputs, batch: Clip, batch_idx):
        busy = time.perf_counter() - self.begin
        step = np.array([trainer.train_dataloader.waited, busy, batch.mesh.shape[:2].numel()])
        self.recent, self.total = 0.98 * self.recent + step, self.total + step
        module.log_dict(dict(zip(("loader/wait", "loader/images_per_second"), self.figures(self.recent))))

    def on_train_end(self, trainer, module):
        if trainer.is_global_zero and self.total[2]:
            wait, speed = self.figures(self.total)
            advice = "; raise data.workers (scripts/loader_speed.py says how far)" if wait > self.most else ""
            print(f"loader: waited for {100 * wait:.0f} % of the time, by a model that takes {speed:.4g} images a second{advice}",
                  flush=True)

    @staticmethod
    def figures(sums: np.ndarray) -> tuple[float, float]:
        """The share of waiting, and images a second, of sums."""
        waited, busy, images = sums
        return waited / (waited + busy), images / busy


class NaNGuard(pl.Callback):
    """Ends training at the first loss or gradient that is not finite, and keeps the step that led to it.

    Its batch, its random state and the weights before it are written beside the log as nan-step000123.pt (with -rank1 and so
    on by other processes than the first); `replay` computes the step again.

    Raises:
        TrainingError: naming the terms or parameters, and the file.
    """

    def on_train_start(self, trainer, module):
        self.folder = trainer.log_dir or trainer.default_root_dir  # all processes are asked, which at the end one alone is

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.batch = batch

    def on_before_backward(self, trainer, module, loss):
        if not loss.isfinite().all():
            self.end(trainer, module, "loss", [name for name, value in module.terms.items() if not value.isfinite().all()])

    def on_before_optimizer_step(self, trainer, module, optimizer):
        gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        finite = torch.stack([gradient.isfinite().all() for gradient in gradients.values()])
        if not finite.all():
            self.end(trainer, module, "gradient", [name for name, good in zip(gradients, finite.tolist()) if not good])

    def end(self, trainer, module, what: str, where: list[str]) -> None:
        """Writes the file and raises the error."""
        rank = f"-rank{trainer.global_rank}" if trainer.global_rank else ""
        path = Path(self.folder, f"nan-step{trainer.global_step:06d}{rank}.pt")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        torch.save({"batch": self.batch, "seed": torch.initial_seed(), "step": trainer.global_step,
                    "process": (trainer.global_rank, trainer.world_size), "state_dict": module.state_dict()}, part)
        part.replace(path)
        raise TrainingError(f"found a {what} that is not finite at step {trainer.global_step} ({', '.join(where[:3])}); "
                            f"its batch and weights are in {path}, s3dnerf.systems.callbacks.replay computes it again; lower the "
                            "learning rate, or look at the clips of the batch")


def replay(module: pl.LightningModule, path: str) -> Tensor:
    """The loss of a step that `NaNGuard` kept, with its gradients, on a freshly built system of the same configuration."""
    kept = torch.load(path, map_location=module.device, weights_only=False)  # a clip is no tensor
    module.load_state_dict(kept["state_dict"])
    module.zero_grad()
    torch.manual_seed(kept["seed"])
    with SharedDraws(*kept["process"]):
        loss = module.training_step(kept["batch"], 0)
    loss.backward()
    return loss


class SyncPlateau(pl.Callback):
    """Says once, on stderr, that the lip-sync term does not fall.

    Compares the term's mean between two validations with its mean before the first one, after the term's warm-up.

    Args:
        rounds: validations after the first one that it may take to fall.
        fall: share of its first mean by which it must fall.
    """

    def __init__(self, rounds: int = 3, fall: float = 0.02):
        super().__init__()
        self.rounds, self.fall = rounds, fall
        self.values: list[float] = []
        self.means: list[float] = []
        self.said = False

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if "lip_sync" in module.terms and trainer.global_step >= module.sync_warmup:
            self.values.append(float(module.terms["lip_sync"]))

    def on_validation_end(self, trainer, module):
        if trainer.sanity_checking or not self.values:
            return
        self.means.append(float(np.mean(self.values)))
        self.values = []
        first, later = self.means[0], self.means[1:]
        if self.said or len(later) < self.rounds or min(later) < first * (1 - self.fall):
            return
        self.said = True
        if trainer.is_global_zero:
            print(f"s3dnerf: warning: the lip-sync term does not fall: {later[-1]:.3f} after {len(later)} validations, "
                  f"{first:.3f} at first; likely an expert below its gate (auc 0.9), a weight too small "
                  "(objective.lip_sync), frames that are not consecutive (data: spacing 1) or too few of them, or windows "
                  "without the mouth (lip_windows)", file=sys.stderr)

    def state_dict(self):
        return {"values": self.values, "means": self.means, "said": self.said}

    def load_state_dict(self, state_dict):
        self.values, self.means, self.said = (state_dict[name] for name in ("values", "means", "said"))


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
