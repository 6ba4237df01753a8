"""`s3dnerf test`: the suite on what a system renders of shards, over all processes."""
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Optional

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from s3dnerf.data.shards import write_whole
from s3dnerf.evaluation.footage import look
from s3dnerf.evaluation.networks import Networks
from s3dnerf.evaluation.protocol import Protocol
from s3dnerf.evaluation.report import Report
from s3dnerf.evaluation.suite import Row, Suite
from s3dnerf.processes import everybody
from s3dnerf.types import Clip


UNTRAINED = "no --ckpt_path was given: these are figures of weights as they were drawn, before any training"


class ReportFigures(pl.Callback):
    """Measures what `test_step` returns, frames [1, T, 3, H, W] in [0, 1] of a whole clip, against the recording; prints a
    table, and writes the report. Systems whose `test_step` returns nothing are left alone.

    Every process measures its own clips; their rows are gathered, each clip counts once, and the first process reports.

    Args:
        output: file for the report (JSON); None is report.json beside the log.
        alexnet: see `s3dnerf evaluate`.
        inception: see `s3dnerf evaluate`.
        arcface: see `s3dnerf evaluate`.
        syncnet: see `s3dnerf evaluate`.
        judge: see `s3dnerf evaluate`.
    """

    def __init__(self, output: Optional[str] = None, alexnet: Optional[str] = None, inception: Optional[str] = None,
                 arcface: Optional[str] = None, syncnet: Optional[str] = None, judge: str = "lip-judge"):
        super().__init__()
        self.output, self.files = output, {"alexnet": alexnet, "inception": inception, "arcface": arcface,
                                           "syncnet": syncnet, "judge": judge}
        self.rows: list[Row] = []

    def on_test_start(self, trainer, module) -> None:
        self.rows = []
        self.untrained = not trainer.ckpt_path and not module.hparams.get("init_from")
        self.suite = Suite(Networks.load(**self.files, device=str(module.device)), Protocol())

    def on_test_batch_end(self, trainer, module, outputs, batch: Clip, batch_idx, dataloader_idx=0) -> None:
        if not isinstance(outputs, Tensor):
            return
        for index, key in enumerate(batch.keys):
            sound = None if batch.sound is None else batch.sound[index].cpu().numpy()
            made, true = (footage(key, frames[index], sound) for frames in (outputs, batch.frames))
            self.rows.append(self.suite.measure(made, true))

    def on_test_epoch_end(self, trainer, module) -> None:
        folder = trainer.log_dir or trainer.default_root_dir  # asks all processes
        rows = [row for rows in everybody(self.rows) for row in rows]
        if trainer.is_global_zero and rows:
            report = self.suite.report(rows)
            report = replace(report, remarks=[*[UNTRAINED] * self.untrained, *report.remarks])
            self.write(report, Path(self.output or Path(folder, "report.json")))
            means = {f"test/{name}": found["mean"] for name, found in report.means.items()}
            for logger in trainer.loggers:
                logger.log_metrics(means, trainer.global_step)

    @staticmethod
    def write(report: Report, path: Path) -> None:
        """The file, whole, and the table."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(report.as_dict(), indent=1) + "\n").encode())
        print(report.table(), f"wrote {path}", sep="\n")


def footage(name: str, frames: Tensor, sound: Optional[np.ndarray]):
    """Frames [T, 3, H, W] in [0, 1] as they would be shown, with 8 bits."""
    pictures = (frames.detach().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return look(name, lambda: iter(pictures), sound)
