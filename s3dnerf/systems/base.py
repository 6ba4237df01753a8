"""What all systems share: where they start from and how they are optimised."""
from __future__ import annotations

from copy import deepcopy
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import Optional

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from s3dnerf.errors import CheckpointError
from s3dnerf.models.hub import available_models, load_model
from s3dnerf.processes import everybody, processes
from s3dnerf.systems.shared_draws import SharedDraws, share_draws


class ModelSystem(pl.LightningModule):
    """A Lightning module around `self.model`.

    Several processes that train together (DDP) are in one random state at every step, and `SharedDraws` gives each its rows
    of the draws; validation figures are means over the clips of all of them.

    Args:
        model: what is optimised.
        optimizer: called with the parameters that are to be trained.
        scheduler: called with the optimizer, stepped after every batch; None keeps the rate.
        train_only: names of the model's parts that are trained; None trains all.
        init_from: checkpoint or bundle to start from for each part of the model: {"": all of it, "speech": that child
            alone}. Later entries overrule earlier ones.
    """

    def __init__(self, model: nn.Module, optimizer: OptimizerCallable, scheduler: Optional[LRSchedulerCallable],
                 train_only: Optional[list[str]], init_from: Optional[dict[str, str]]):
        super().__init__()
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.terms: dict[str, torch.Tensor] = {}
        self.figures: list[dict[str, float]] = []
        for part, path in (init_from or {}).items():
            load_part(model, part, path)
        if train_only is not None:
            parts = {name.split(".")[0] for name, _ in model.named_parameters()}
            unknown = sorted(set(train_only) - parts)
            if unknown:
                raise CheckpointError(f"found train_only={unknown}; the model's parts are {', '.join(sorted(parts))}")
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name.split(".")[0] in train_only)

    def __deepcopy__(self, memo: dict) -> "ModelSystem":
        """A copy, such as that for averaged weights, shares what makes optimizers: it knows the whole command, processes that
        were started for it too, which nobody can copy."""
        memo.update({id(maker): maker for maker in (self.optimizer, self.scheduler)})
        copy = memo[id(self)] = type(self).__new__(type(self))
        copy.__setstate__(deepcopy(self.__getstate__(), memo))
        return copy

    def on_fit_start(self) -> None:
        self.first_seed = self.trainer.strategy.broadcast(torch.initial_seed())
        if self.trainer.world_size > 1:  # DDP calls the system as a module, and a process that is alone does not
            share_draws(self, SharedDraws(self.trainer.global_rank, self.trainer.world_size))

    def on_train_batch_start(self, _batch, _index: int) -> None:
        """Starts every batch from a random state of its own, so that resumed training draws what it would have drawn."""
        self.terms = {}
        torch.manual_seed(self.first_seed + self.trainer.fit_loop.total_batch_idx)

    def on_validation_batch_start(self, _batch, _index: int, _loader: int = 0) -> None:
        """Figures of a clip are its own."""
        self.terms = {}

    def configure_optimizers(self):
        return self.scheduled(self.optimizer([parameter for parameter in self.parameters() if parameter.requires_grad]))

    def scheduled(self, optimizer):
        """The optimizer with the scheduler, a step of which is one of training, as Lightning wants them."""
        if self.scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.scheduler(optimizer), "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Adds the model's class and arguments, so that the checkpoint rebuilds it without this system, and the figures of
        the last validation."""
        checkpoint["model_description"] = {"class": type(self.model).__name__, "arguments": self.model.arguments}
        checkpoint["figures"] = {name[4:]: float(value) for name, value in self.trainer.callback_metrics.items()
                                 if name.startswith("val/")}

    def log_terms(self, stage: str, terms: dict[str, torch.Tensor], batch_size: int) -> None:
        """Logs named figures as `stage/name`: those of a training step at once, other stages' as means over all clips of all
        processes when the epoch ends. Those of the last step or clip stay in `terms` for callbacks."""
        self.terms |= {name: value.detach() for name, value in terms.items()}
        if stage != "train":
            self.figures += [{f"{stage}/{name}": float(value) for name, value in terms.items()}] * batch_size
            return
        if processes() > 1 and (self.global_step + 1) % self.trainer.log_every_n_steps == 0:
            means = self.trainer.strategy.reduce(torch.stack([value.detach().float() for value in terms.values()]), reduce_op="mean")
            terms = dict(zip(terms, means))
        for name, value in terms.items():
            self.log(f"train/{name}", value, batch_size=batch_size, on_step=True, on_epoch=False, prog_bar=name == "total")

    def on_validation_epoch_end(self) -> None:
        """Logs the means of what `log_terms` was given; systems with figures of their own give them to it first."""
        found, self.figures = self.gathered(self.figures), []
        for name in dict.fromkeys(name for figures in found for name in figures):
            self.log(name, fmean(figures[name] for figures in found if name in figures), batch_size=1,
                     sync_dist=True)  # they are alike

    def on_test_epoch_end(self) -> None:
        """See `on_validation_epoch_end`."""
        ModelSystem.on_validation_epoch_end(self)

    def gathered(self, values: list) -> list:
        """The values of all processes, one per clip, in the order of the clips: a process has every so manieth of them."""
        nothing = object()
        return [value for turn in zip_longest(*everybody(values), fillvalue=nothing) for value in turn if value is not nothing]


def load_part(model: nn.Module, part: str, path: str) -> None:
    """Copies one child of the model, or with part "" all of it, from a training checkpoint or a bundle."""
    if Path(path).is_file():
        state, prefix = torch.load(path, map_location="cpu", weights_only=True)["state_dict"], "model."
    elif path in available_models() or Path(path).is_dir():
        state, prefix = load_model(path).state_dict(), ""
    else:
        raise CheckpointError(f"no checkpoint {path}; train one first, or correct init_from")
    prefix += part + "." if part else ""
    state = {name[len(prefix):]: value for name, value in state.items() if name.startswith(prefix)}
    target = model.get_submodule(part) if part else model
    if not state:
        raise CheckpointError(f"{path} holds nothing for {part or 'the model'}; it was made by another system")
    try:
        target.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit this model: {str(error).splitlines()[1].strip()}") from None
