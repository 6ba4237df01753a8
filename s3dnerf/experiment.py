"""What an experiment of configs/ consists of, for LightningCLI."""
from __future__ import annotations

from pytorch_lightning.cli import LightningCLI

from s3dnerf.systems.callbacks import BestCheckpoint, LastCheckpoint, Plateau
from s3dnerf.systems.tracking import Tracking


class Experiment(LightningCLI):
    """Trainer, model and data as YAML has them, and four sections of its own beside them.

    `best` names the validation figure that decides: the best checkpoint by it is kept as best.ckpt. `plateau` ends
    training where that figure no longer moves. `last` keeps the newest checkpoint as last.ckpt. `tracking` keeps where
    the run came from and the figures of every validation clip.
    """

    def add_arguments_to_parser(self, parser) -> None:
        parser.add_lightning_class_args(Plateau, "plateau")
        parser.add_lightning_class_args(BestCheckpoint, "best")
        parser.add_lightning_class_args(LastCheckpoint, "last")
        parser.add_lightning_class_args(Tracking, "tracking")
        for name in ("monitor", "mode"):
            parser.link_arguments(f"best.{name}", f"plateau.{name}")
        parser.link_arguments("best.dirpath", "last.dirpath")
