"""What an experiment of configs/ consists of, for LightningCLI."""
from __future__ import annotations

from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningCLI
from pytorch_lightning.strategies import DDPStrategy

from s3dnerf.evaluation.callback import ReportFigures
from s3dnerf.systems.callbacks import BestCheckpoint, LastCheckpoint, Plateau
from s3dnerf.systems.tracking import Tracking


class Experiment(LightningCLI):
    """Trainer, model and data as YAML has them, and sections of its own beside them.

    `best` names the validation figure that decides: the best checkpoint by it is kept as best.ckpt. `plateau` ends
    training where that figure no longer moves. `last` keeps the newest checkpoint as last.ckpt. `tracking` keeps where the run
    came from and the figures of every validation clip. `evaluation` says what `test` measures with, and where the report goes.
    """

    def add_arguments_to_parser(self, parser) -> None:
        parser.add_lightning_class_args(Plateau, "plateau")
        parser.add_lightning_class_args(BestCheckpoint, "best")
        parser.add_lightning_class_args(LastCheckpoint, "last")
        parser.add_lightning_class_args(ReportFigures, "evaluation")
        parser.add_lightning_class_args(Tracking, "tracking")
        for name in ("monitor", "mode"):
            parser.link_arguments(f"best.{name}", f"plateau.{name}")
        parser.link_arguments("best.dirpath", "last.dirpath")

    def instantiate_trainer(self, **kwargs) -> Trainer:
        """The trainer. Several processes are told that no step uses every parameter (one that tracked lips drive knows no
        speech), and that they need not send each other buffers: none depends on what a process saw."""
        trainer = super().instantiate_trainer(**kwargs)
        if isinstance(trainer.strategy, DDPStrategy):
            ours = {"find_unused_parameters": True, "broadcast_buffers": False}
            trainer.strategy._ddp_kwargs = ours | trainer.strategy._ddp_kwargs
        return trainer
