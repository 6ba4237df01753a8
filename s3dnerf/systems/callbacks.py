"""What of training is kept, and what ends it."""
from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Literal, Optional, Union

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor

from s3dnerf.errors import InputError, TrainingError
from s3dnerf.systems.shared_draws import SharedDraws


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
    fifty batches or so; says them at every validation, and at the end over all.

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

    def on_validation_start(self, trainer, module):
        self.say(trainer, self.recent, f"step {trainer.global_step}: ")

    def on_train_end(self, trainer, module):
        self.say(trainer, self.total, "")

    def say(self, trainer, sums: np.ndarray, when: str) -> None:
        """One line of the first process, once there has been a batch."""
        if trainer.is_global_zero and sums[2]:
            wait, speed = self.figures(sums)
            advice = "; raise data.workers (scripts/loader_speed.py says how far)" if wait > self.most else ""
            print(f"{when}loader: waited for {100 * wait:.0f} % of the time, by a model that takes {speed:.4g} images a second"
                  f"{advice}", flush=True)

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
    """The loss of a step that `NaNGuard` kept, with its gradients, on a freshly built system of the same configuration; of
    one of several processes, what it finds of its own examples alone."""
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
        self.values: list[Union[Tensor, float]] = []
        self.means: list[float] = []
        self.said = False

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if "lip_sync" in module.terms and trainer.global_step >= module.sync_warmup:
            self.values.append(module.terms["lip_sync"])  # a number once it is asked for: now the device would be waited for

    def on_validation_end(self, trainer, module):
        if trainer.sanity_checking or not self.values:
            return
        self.means.append(float(np.mean([float(value) for value in self.values])))
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
        return {"values": [float(value) for value in self.values], "means": self.means, "said": self.said}

    def load_state_dict(self, state_dict):
        self.values, self.means, self.said = (state_dict[name] for name in ("values", "means", "said"))
