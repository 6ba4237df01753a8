"""What a run leaves behind for people: where it came from, figures of every clip, and videos with sound."""
from __future__ import annotations

import csv
import io
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.cli import SaveConfigCallback
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from s3dnerf.data.module import shard_paths
from s3dnerf.data.shards import decode_wav, write_whole
from s3dnerf.errors import DatasetError
from s3dnerf.losses import reduced
from s3dnerf.media import FPS, SAMPLES_PER_FRAME, VideoWriter
from s3dnerf.processes import everybody
from s3dnerf.significance import interval
from s3dnerf.types import Clip, Motion, Rendering

ROWS = ("recording", "driven by speech", "driven by tracked lips", "region score", "depth")
CHUNK = 10
"""frames that are rendered together"""
COLUMNS = 8
"""frames of a picture"""


class Wandb(WandbLogger):
    """Lightning's logger to wandb, online, offline or disabled as WANDB_MODE says (Lightning's own `offline` overrules that
    variable), and offline where it says nothing. A run that is taken up goes on in wandb with WANDB_RUN_ID.

    Args:
        project: of wandb.
        entity: team or user of wandb; None is the user's default.
        save_dir: folder of offline runs; `wandb sync` sends them later.
        name: of the run; None lets wandb find one.
        group: runs that belong together.
        tags: words to find the run by.
    """

    def __init__(self, project: str = "s3dnerf", entity: Optional[str] = None, save_dir: str = "runs", name: Optional[str] = None,
                 group: Optional[str] = None, tags: Optional[list[str]] = None):
        offline = os.environ.get("WANDB_MODE", "offline") in ("offline", "dryrun")
        super().__init__(name=name, save_dir=save_dir, offline=offline, project=project, entity=entity, group=group, tags=tags)


class Tracking(pl.Callback):
    """Keeps, for every logger there is, what the configuration, the code and each validation clip were.

    The run's folder gets `run.json` (commit of the code and whether it was changed since) and `clips.csv` (a row per validation
    and clip). All loggers get `interval/FIGURE_low` and `_high`, the 95 % bootstrap interval over clips. wandb further gets the
    whole configuration, the commit, and a table per validation.

    Under several processes each brings the figures of its own clips; the first one writes.
    """

    def __init__(self):
        super().__init__()
        self.rows: dict[str, dict[str, float]] = {}

    def on_fit_start(self, trainer, module):
        folder = run_folder(trainer)
        if folder is None or not trainer.is_global_zero:
            return
        about = {"git": commit(Path(__file__))}
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "run.json", (json.dumps(about, indent=1) + "\n").encode())
        for logger in wandb_loggers(trainer):
            logger.experiment.config.update({"experiment": configuration(trainer)} | about, allow_val_change=True)

    def on_validation_start(self, trainer, module):
        self.rows = {}

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0):
        names = getattr(batch, "keys", None) or [f"batch {batch_idx}"]
        self.rows[" ".join(names)] = {name: float(value) for name, value in module.terms.items()}

    def on_validation_epoch_end(self, trainer, module):
        rows = gathered(self.rows)
        figures = sorted({name for row in rows.values() for name in row})
        folder = run_folder(trainer)
        if trainer.sanity_checking or not figures or folder is None or not trainer.is_global_zero:
            return
        step, table = trainer.global_step, [[key, *map(row.get, figures)] for key, row in sorted(rows.items())]
        append_rows(folder / "clips.csv", [{"step": step, "clip": key} | row for key, row in sorted(rows.items())])
        bounds = intervals(rows, figures)
        for logger in trainer.loggers:
            logger.log_metrics(bounds, step=max(0, step - 1))  # Lightning logs what n steps have reached at step n - 1
        for logger in wandb_loggers(trainer):
            import wandb

            columns = ["step", "clip", *figures]
            clips = wandb.Table(columns, [[step, *row] for row in table])
            logger.experiment.log({"val/clips": clips, "trainer/global_step": step})

    def teardown(self, trainer, module, stage):
        """Closes a wandb run, so that its file is whole when the command ends."""
        for logger in wandb_loggers(trainer):
            if trainer.is_global_zero:
                logger.experiment.finish(quiet=True)


class LogRenderings(pl.Callback):
    """Renders the first validation clips from their beginning, frame by frame: a video with sound, a picture, and where
    speech reaches.

    `renderings/CLIP-stepN.mp4` and `.png` in the run's folder, and in wandb, have the rows, from the top: recording, driven by
    speech, driven by tracked lips, region score (the method's heat map, red is 1) over the raw rendering, and depth;
    `-speech.mp4` is the second row by itself, with sound, `-recording.mp4` the first one (once), and `-regions.png` the region
    score's mean over the frames.

    Args:
        clips: how many validation clips are shown.
        size: side of each frame, pixels.
        frames: how many frames of each are rendered at most.
    """

    def __init__(self, clips: int = 2, size: int = 128, frames: int = 50):
        super().__init__()
        self.clips, self.size, self.frames = clips, size, frames

    def on_validation_batch_end(self, trainer, module, outputs, batch: Clip, batch_idx, dataloader_idx=0):
        folder = run_folder(trainer)
        if batch_idx >= self.clips or trainer.sanity_checking or not trainer.is_global_zero or folder is None:
            return
        step, key = trainer.global_step, trainer.datamodule.validated_on[batch_idx].key  # not the batch's: of two processes this one
        spoken = read_spoken(trainer.datamodule, key, self.frames)  # has every second clip, and runs are compared by the same ones
        sheet, regions = clip_sheet(module, spoken.clip.to(module.device), self.size)
        stem = folder / "renderings" / f"{key}-step{step:06d}"
        first = not any(stem.parent.glob(f"{key}-step*-recording.mp4"))
        write_sheet(sheet, regions, spoken.sound, stem, self.size)
        if first:
            write_video(pixels(sheet[:, :, :self.size]), spoken.sound, Path(f"{stem}-recording.mp4"))
        for logger in wandb_loggers(trainer):
            import wandb

            video = lambda ending: wandb.Video(f"{stem}{ending}", format="mp4")
            picture = lambda ending: wandb.Image(f"{stem}{ending}")
            media = {f"rendering/{key}": picture(".png"), f"regions/{key}": picture("-regions.png"),
                     f"video/{key}": video(".mp4"), f"speech/{key}": video("-speech.mp4")}
            media |= {f"recording/{key}": video("-recording.mp4")} if first else {}
            logger.experiment.log(media | {"trainer/global_step": step})


@dataclass(frozen=True)
class Spoken:
    """A clip from its beginning, frame by frame, with what is heard in it."""

    clip: Clip
    """[1, T]"""
    sound: np.ndarray
    """[T * 640] float32, 16 kHz"""


def read_spoken(data: pl.LightningDataModule, key: str, frames: int) -> Spoken:
    """The validation clip of a name, its first frames; DatasetError where the shards have none of it."""
    import webdataset as wds

    from s3dnerf.data.shards import read_people

    for sample in wds.DataPipeline(wds.SimpleShardList(shard_paths(data.val)), wds.tarfile_to_samples()):
        if sample["__key__"] == key:
            clip = Clip.stack([data.validation(sample, read_people(data.val), frames=frames, even=False)])
            return Spoken(clip, decode_wav(sample["wav"])[:clip.frames.shape[1] * SAMPLES_PER_FRAME])
    raise DatasetError(f"no clip {key} in {data.val}; make the shards again")


@torch.no_grad()
def clip_sheet(module: pl.LightningModule, clip: Clip, size: int) -> tuple[Tensor, Tensor]:
    """[T, 3, rows * size, size] in [0, 1], the rows of `ROWS` for a clip [1, T], and the mean of its region scores
    [3, size, size]."""
    model = module.model
    appearance, sheets, scores = model.encode(clip.portrait), [], []
    by_speech, by_face = module.drive(clip, False), module.drive(clip, True)
    for begin in range(0, clip.frames.shape[1], CHUNK):
        part = slice(begin, begin + CHUNK)
        some = lambda motion: Motion(motion.code[:, part], motion.tokens[:, part])
        speech = model.render(appearance, some(by_speech), clip.cameras[:, part], stride=8)
        face = model.render(appearance, some(by_face), clip.cameras[:, part], stride=8)
        rows = [clip.frames[:, part], speech.image, face.image, heat_map(speech), depth_map(speech)]
        sheets.append(torch.cat([shown(row, size) for row in rows], -2))
        scores.append(shown(rows[3], size))
    return torch.cat(sheets), torch.cat(scores).mean(0)


def write_regions(rendering: Rendering, stem: Path, size: int) -> None:
    """Writes the region scores of a rendering [1, T], mean over its frames, as `stem`-regions.png."""
    from PIL import Image

    Image.fromarray(pixels(shown(heat_map(rendering), size).mean(0))).save(f"{stem}-regions.png")


def pixels(image: Tensor) -> np.ndarray:
    """Images [*, 3, H, W] in [0, 1] as [*, H, W, 3] uint8."""
    return (image.movedim(-3, -1).clamp(0, 1).cpu().numpy() * 255).round().astype(np.uint8)


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


def write_sheet(sheet: Tensor, regions: Tensor, sound: np.ndarray, stem: Path, size: int) -> None:
    """Writes frames [T, 3, rows * size, size] as a video with sound and, some of them side by side, as a picture; the row that
    speech drives as a video of its own; and the mean region score [3, size, size]."""
    from PIL import Image

    stem.parent.mkdir(parents=True, exist_ok=True)
    frames = pixels(sheet)
    chosen = np.linspace(0, len(frames) - 1, min(COLUMNS, len(frames))).round().astype(int)
    Image.fromarray(np.concatenate(list(frames[chosen]), 1)).save(f"{stem}.png")
    Image.fromarray(pixels(regions)).save(f"{stem}-regions.png")
    write_video(frames, sound, Path(f"{stem}.mp4"))
    write_video(frames[:, size:2 * size], sound, Path(f"{stem}-speech.mp4"))


def write_video(frames: np.ndarray, sound: np.ndarray, path: Path) -> None:
    """Writes frames [T, H, W, 3] uint8 with their sound [T * 640]."""
    with VideoWriter(path, frames.shape[2], frames.shape[1], sound=sound, fps=FPS) as video:
        for frame in frames:
            video.write(frame)


def run_folder(trainer: pl.Trainer) -> Optional[Path]:
    """Where a run keeps its files: beside the log of its first logger; None without a logger."""
    if not trainer.loggers:
        return None
    logger = trainer.loggers[0]
    return Path(logger.log_dir or Path(logger.save_dir or ".", str(logger.name), str(logger.version)))


def wandb_loggers(trainer: pl.Trainer) -> list[WandbLogger]:
    """The loggers that are wandb's."""
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]


class SaveConfig(SaveConfigCallback):
    """Keeps the configuration where the logger of a run keeps its figures; without a logger nowhere."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """See `SaveConfigCallback`."""
        if trainer.loggers:
            super().setup(trainer, pl_module, stage)


def configuration(trainer: pl.Trainer) -> dict[str, Any]:
    """All of the configuration that the command line stacked; empty where no command line did."""
    saver = next((callback for callback in trainer.callbacks if isinstance(callback, SaveConfigCallback)), None)
    return yaml.safe_load(saver.parser.dump(saver.config, skip_none=False)) if saver else {}


def commit(path: Path) -> Optional[dict[str, Any]]:
    """The git commit that a file of the code is part of, and whether tracked files were changed since; None where no commit
    holds it (an installed package)."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(path.parent), *words], capture_output=True, text=True, check=True).stdout

    try:
        git("ls-files", "--error-unmatch", path.name)
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD").strip(), "dirty": bool(changed.strip())}
    except (OSError, subprocess.CalledProcessError):
        return None


def gathered(rows: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """The rows of all processes."""
    return {key: row for part in everybody(rows) for key, row in part.items()}


def intervals(rows: dict[str, dict[str, float]], figures: list[str]) -> dict[str, float]:
    """The bounds of every figure that more than one clip has."""
    bounds = {}
    for name in figures:
        found = interval([row.get(name) for row in rows.values()])
        if found is not None and found.low is not None:
            bounds |= {f"interval/{name}_low": found.low, f"interval/{name}_high": found.high}
    return bounds


def append_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Adds rows to a table; columns that are new are empty in those before."""
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [*csv.DictReader(file), *rows]
    columns = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.getvalue().encode())
