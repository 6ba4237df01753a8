"""Times training: the steps of `s3dnerf fit` as they are, with a callback that looks at the clock."""
from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Sequence

import torch
from pytorch_lightning import Callback
from torch.utils.flop_counter import FlopCounterMode

from s3dnerf.benchmark.machine import Machine, peak_memory
from s3dnerf.benchmark.operations import LOOK_UPS
from s3dnerf.errors import InputError
from s3dnerf.types import Clip
from s3dnerf.workers import Workers

WARM_UP = 3
"""steps that are not counted"""


class StepMeter(Callback):
    """Seconds in which the step computed, and those in which it waited for the loader; images; operations of one step.

    The operations are those of a step after those that are timed, because counting takes time.

    Args:
        steps: that are timed, after `WARM_UP`; one more is counted.
    """

    def __init__(self, steps: int):
        self.steps, self.computing, self.waiting, self.images, self.operations = steps, 0.0, 0.0, 0, 0
        self.ended, self.begun, self.counter = None, 0.0, None

    def on_train_batch_start(self, trainer, system, batch, batch_idx) -> None:
        _settle(system.device)
        self.begun = time.perf_counter()
        if WARM_UP <= batch_idx < WARM_UP + self.steps and self.ended is not None:
            self.waiting += self.begun - self.ended
        if batch_idx == WARM_UP + self.steps:
            self.counter = FlopCounterMode(display=False, custom_mapping=LOOK_UPS)
            self.counter.__enter__()

    def on_train_batch_end(self, trainer, system, outputs, batch, batch_idx) -> None:
        _settle(system.device)
        if self.counter is not None:
            self.counter.__exit__(None, None, None)
            self.operations, self.counter = self.counter.get_total_flops(), None
        self.ended = time.perf_counter()
        if WARM_UP <= batch_idx < WARM_UP + self.steps:
            self.computing += self.ended - self.begun
            self.images += _images(batch)


def measure(words: Sequence[str], steps: int) -> dict:
    """The report of an experiment's steps, plain values; nothing is validated and nothing kept. `words` are files of
    configuration, and options such as `data.train=data/tiny`."""
    from s3dnerf.cli import lightning

    if steps < 1:
        raise InputError(f"found --steps {steps}; expected 1 or more")
    options = [word for name in words for word in (["--config", name] if Path(name).suffix in (".yaml", ".yml")
                                                   else [name if name.startswith("--") else f"--{name}"])]
    limits = {"max_steps": WARM_UP + steps + 1, "limit_val_batches": 0, "num_sanity_val_steps": 0, "logger": "false",
              "enable_progress_bar": "false", "enable_model_summary": "false"}
    experiment = lightning([*options, *(f"--trainer.{name}={value}" for name, value in limits.items())], run=False)
    meter, trainer, system = StepMeter(steps), experiment.trainer, experiment.model
    trainer.callbacks = [meter]
    trainer.fit(system, experiment.datamodule)
    if not meter.images:
        raise InputError(f"the training ended after {trainer.global_step} steps; expected {WARM_UP + steps + 1}: give it more "
                         "data or epochs")
    trained = sum(weight.numel() for weight in system.parameters() if weight.requires_grad)
    return {**report(meter, system.device), "parameters": trained, "workers": getattr(experiment.datamodule, "workers", 0),
            "precision": str(trainer.precision)}


def report(meter: StepMeter, device: torch.device) -> dict:
    """What a meter found, against the machine's peak."""
    memory = peak_memory(device)
    machine = Machine.measured(device, Workers(torch.get_num_threads() if device.type == "cpu" else 1))
    total = meter.computing + meter.waiting
    return {"steps": meter.steps, "images": meter.images, "seconds": {"step": round(meter.computing, 4),
                                                                      "loader wait": round(meter.waiting, 4)},
            "images_per_second": round(meter.images / total, 2), "loader_share": round(meter.waiting / total, 4),
            "giga_operations_per_step": round(meter.operations / 1e9, 3),
            "share_of_peak": round(meter.operations * meter.steps / total / (machine.product * machine.threads), 4),
            "memory": memory, "machine": asdict(machine)}


def table(found: dict) -> str:
    """A report for people."""
    return (f"{found['steps']} steps of {found['images'] / found['steps']:.0f} images: {found['images_per_second']:.2f} images per "
            f"second; {found['loader_share']:.1%} of the time waits for the loader\n"
            f"{found['giga_operations_per_step']:.1f} GFLOP per step, {found['share_of_peak']:.1%} of the machine's "
            f"{found['machine']['product'] * found['machine']['threads'] / 1e9:.0f} GFLOP/s; "
            f"{', '.join(f'{value:.0f} MB of {name[:-3]}' for name, value in found['memory'].items())} memory at most; "
            f"{found['parameters']:,} parameters are trained, {found['precision']}, {found['workers']} loader processes")


def _images(batch) -> int:
    """Frames in a batch, of clips or of whatever comes in rows."""
    if isinstance(batch, Clip):
        return batch.frames.shape[0] * batch.frames.shape[1]
    first = next(value for value in vars(batch).values() if isinstance(value, torch.Tensor))
    return len(first)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
