"""What a run leaves behind: where it came from, and the figures of every clip."""
import csv
import json
import multiprocessing
import os
import subprocess
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from s3dnerf.systems import Tracking, Wandb, tracking
from s3dnerf.systems.base import ModelSystem
from s3dnerf.systems.tracking import append_rows, commit, gathered, intervals
from s3dnerf.types import Clip


class Slope(nn.Module):
    arguments: dict = {}

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(1.0))


class Named(float):
    """A batch that is a number, and knows what it is called, as a `Clip` does."""

    keys = None


class SlopeSystem(ModelSystem):
    """Validates how far its slope takes a number; of the first batch it says more."""

    def __init__(self):
        super().__init__(Slope(), lambda parameters: torch.optim.SGD(parameters, 0.1), None, None, None)

    def training_step(self, batch, _index):
        loss = (self.model.slope * torch.tensor(float(batch)) - 1) ** 2
        self.log_terms("train", {"total": loss, "only_in_training": loss}, 1)
        return loss

    def validation_step(self, batch, index):
        found = {"reach": self.model.slope * torch.tensor(float(batch))}
        self.log_terms("val", found | ({"first": torch.tensor(7.0)} if index == 0 else {}), 1)


def batches(values, named):
    made = []
    for value in values:
        made.append(Named(value))
        made[-1].keys = [f"clip {value}"] if named else None
    return torch.utils.data.DataLoader(made, batch_size=None, collate_fn=lambda batch: batch)


def trained(folder, named=True, callbacks=None, steps=4):
    trainer = pl.Trainer(logger=CSVLogger(folder, name="", version="run"), enable_checkpointing=False, enable_progress_bar=False,
                         enable_model_summary=False, accelerator="cpu", max_steps=steps, val_check_interval=2, max_epochs=None,
                         check_val_every_n_epoch=None, log_every_n_steps=1, callbacks=[Tracking()] if callbacks is None else callbacks)
    trainer.fit(SlopeSystem(), batches([2.0] * steps, named), batches([1.0, 2.0, 6.0], named))
    return folder / "run"


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_validation_has_a_row_per_clip_whose_mean_is_what_was_logged(tmp_path):
    run = trained(tmp_path)
    rows, logged = table(run / "clips.csv"), table(run / "metrics.csv")
    assert [(row["step"], row["clip"]) for row in rows] == [(step, f"clip {n}") for step in "24" for n in (1.0, 2.0, 6.0)]
    assert set(rows[0]) == {"step", "clip", "reach", "first"}
    assert [row["first"] for row in rows] == ["7.0", "", ""] * 2
    means = [float(row["val/reach"]) for row in logged if row["val/reach"]]
    assert means == pytest.approx([sum(float(row["reach"]) for row in part) / 3 for part in (rows[:3], rows[3:])])
    bounds = [(float(row["interval/reach_low"]), float(row["interval/reach_high"])) for row in logged if row["interval/reach_low"]]
    assert all(float(part[0]["reach"]) <= low < mean < high <= float(part[2]["reach"])
               for part, mean, (low, high) in zip((rows[:3], rows[3:]), means, bounds))
    assert not any("interval/first" in name for name in logged[0])  # one value says nothing of others
    assert json.loads((run / "run.json").read_text()).keys() == {"git"}


def test_batches_without_names_are_numbered_and_without_the_callback_there_is_nothing(tmp_path):
    assert {row["clip"] for row in table(trained(tmp_path / "a", named=False, steps=2) / "clips.csv")} == {f"batch {i}" for i in range(3)}
    run = trained(tmp_path / "b", callbacks=[], steps=2)
    assert {path.name for path in run.iterdir()} == {"metrics.csv"}


def test_a_table_that_is_continued_gets_new_columns(tmp_path):
    append_rows(tmp_path / "a.csv", [{"step": 1, "x": 2.5}])
    append_rows(tmp_path / "a.csv", [{"step": 2, "x": 3.5, "y": 1}])
    assert table(tmp_path / "a.csv") == [{"step": "1", "x": "2.5", "y": ""}, {"step": "2", "x": "3.5", "y": "1"}]
    assert len(list(tmp_path.iterdir())) == 1


def test_bounds_are_of_figures_that_more_than_one_clip_has():
    rows = {"a": {"x": 1.0, "y": 2.0}, "b": {"x": 3.0}}
    assert intervals(rows, ["x", "y"]) == {"interval/x_low": 1.0, "interval/x_high": 3.0}


def brought(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    rows = gathered({f"clip{rank}": {"x": float(rank)}, "shared": {"x": 5.0}})
    (folder / f"{rank}.json").write_text(json.dumps(rows))
    torch.distributed.destroy_process_group()


def test_two_processes_bring_their_clips_together(tmp_path):
    processes = [multiprocessing.get_context("fork").Process(target=brought, args=(rank, tmp_path)) for rank in range(2)]
    [process.start() for process in processes]
    [process.join(60) for process in processes]
    assert [process.exitcode for process in processes] == [0, 0]
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1] == {"clip0": {"x": 0.0}, "clip1": {"x": 1.0}, "shared": {"x": 5.0}}
    assert gathered({"a": {}}) == {"a": {}}


def test_the_commit_is_that_of_the_file_and_changes_are_told(tmp_path):
    git = lambda *words: subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True,
                                        capture_output=True, text=True).stdout.strip()
    path = tmp_path / "code.py"
    path.write_text("x = 1\n")
    assert commit(path) is None
    git("init")
    assert commit(path) is None  # it lies in a repository, but is no part of it
    git("add", "code.py")
    git("commit", "-m", "a")
    (tmp_path / "new.py").write_text("")
    assert commit(path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    path.write_text("x = 2\n")
    assert commit(path)["dirty"] is True


def test_a_clip_that_the_shards_do_not_have_is_told(shards):
    from s3dnerf.data.module import ClipDataModule
    from s3dnerf.errors import DatasetError
    from s3dnerf.systems.tracking import read_spoken

    data = ClipDataModule(val=str(shards))
    clip: Clip = next(iter(data.val_dataloader()))
    spoken = read_spoken(data, clip.keys[0], 10)
    assert spoken.clip.frames.shape[:2] == (1, 10) and len(spoken.sound) == 6400 and spoken.sound.std() > 0
    assert torch.equal(spoken.clip.portrait.image, clip.portrait.image)
    with pytest.raises(DatasetError, match="no clip nobody"):
        read_spoken(data, "nobody", 10)


def test_the_first_clips_are_shown_whatever_clips_this_process_has(monkeypatch, tmp_path):
    read = []
    spoken = SimpleNamespace(clip=SimpleNamespace(to=lambda device: None), sound=None)
    monkeypatch.setattr(tracking, "read_spoken", lambda data, key, frames: read.append(key) or spoken)
    monkeypatch.setattr(tracking, "clip_sheet", lambda *_: (torch.zeros(1, 3, 8, 8), None))
    for name in ("write_sheet", "write_video"):
        monkeypatch.setattr(tracking, name, lambda *_: None)
    data = SimpleNamespace(validated_on=[SimpleNamespace(key=key) for key in "abcd"])
    trainer = SimpleNamespace(sanity_checking=False, is_global_zero=True, global_step=5, loggers=[CSVLogger(str(tmp_path))],
                              datamodule=data)
    for index, key in enumerate("ac"):  # those of the first of two processes
        tracking.LogRenderings(clips=2).on_validation_batch_end(trainer, SimpleNamespace(device="cpu"), None,
                                                               SimpleNamespace(keys=(key,)), index)
    assert read == ["a", "b"]


@pytest.mark.parametrize("mode, offline", [(None, True), ("offline", True), ("online", False), ("disabled", False)])
def test_wandb_is_offline_unless_the_variable_says_otherwise(mode, offline, monkeypatch, tmp_path):
    """Asked of what Lightning hands to wandb; it sets the variable itself where it is offline."""
    import wandb

    handed = {}
    monkeypatch.setattr(wandb, "init", lambda **options: handed.update(options, mode=os.environ.get("WANDB_MODE")) or run)
    run = type("Run", (), {"define_metric": lambda *_: None, "_label": lambda *_, **__: None})()
    monkeypatch.setattr(wandb, "run", None)
    monkeypatch.setenv("WANDB_MODE", "") if mode is None else monkeypatch.setenv("WANDB_MODE", mode)
    if mode is None:
        monkeypatch.delenv("WANDB_MODE")
    logger = Wandb(project="heads", save_dir=str(tmp_path), group="ablations")
    assert logger.experiment is run
    assert handed["mode"] == ("dryrun" if offline else mode) and (handed["project"], handed["group"]) == ("heads", "ablations")
