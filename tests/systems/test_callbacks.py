"""The guards: what ends training or warns, and that what they keep shows the fault again."""
import dataclasses
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from s3dnerf.errors import TrainingError
from s3dnerf.systems import LoaderWait, NaNGuard, SyncPlateau
from s3dnerf.systems.base import ModelSystem
from s3dnerf.systems.callbacks import replay
from s3dnerf.types import TensorRecord


@dataclasses.dataclass(frozen=True)
class Numbers(TensorRecord):
    values: torch.Tensor


class Line(nn.Module):
    arguments: dict = {}

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(1.0))


class LineSystem(ModelSystem):
    """Its loss is the root, or the logarithm, of a product with random numbers."""

    def __init__(self, function=torch.sqrt, sync=None):
        super().__init__(Line(), lambda parameters: torch.optim.SGD(parameters, 1e-3), None, None, None)
        self.function, self.sync, self.sync_warmup = function, sync, 4

    def training_step(self, batch, _index):
        self.noise = torch.rand(3)
        terms = {"root": self.function(self.model.slope * batch.values * (1 + self.noise)).mean()}
        if self.sync and self.global_step % 2:
            terms["lip_sync"] = self.sync(self.global_step)
        self.log_terms("train", terms | {"total": terms["root"]}, 1)
        return terms["root"]

    def validation_step(self, batch, _index):
        pass


def trained(system, batches, folder, *callbacks, every=None):
    trainer = pl.Trainer(default_root_dir=folder, logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=1,
                         enable_model_summary=False, accelerator="cpu", callbacks=list(callbacks), num_sanity_val_steps=0,
                         val_check_interval=every, check_val_every_n_epoch=None if every else 1)
    pl.seed_everything(5)
    load = lambda numbers: torch.utils.data.DataLoader(numbers, batch_size=None)
    trainer.fit(system, load(batches), load(batches[:1]) if every else None)
    return trainer


@pytest.mark.parametrize("function, last, found", [(torch.sqrt, 0.0, "gradient"), (torch.log, -1.0, "loss")])
def test_the_first_number_that_is_not_finite_ends_training_and_can_be_had_again(function, last, found, tmp_path):
    batches = [Numbers(torch.tensor([1.0, 2.0, 3.0])) for _ in range(3)] + [Numbers(torch.tensor([1.0, last, 3.0]))]
    system = LineSystem(function)
    with pytest.raises(TrainingError, match=f"a {found} that is not finite at step 3") as error:
        trained(system, batches, tmp_path, NaNGuard())
    assert ("model.slope" if found == "gradient" else "root") in str(error.value) and "\n" not in str(error.value)
    path = tmp_path / "nan-step000003.pt"
    assert str(path) in str(error.value) and [entry.name for entry in tmp_path.iterdir()] == [path.name]

    again = LineSystem(function)
    loss = replay(again, str(path))
    assert torch.equal(again.noise, system.noise) and torch.equal(again.model.slope, system.model.slope)
    assert again.model.slope != 1.0
    assert not (again.model.slope.grad if found == "gradient" else loss).isfinite()


def test_finite_steps_pass_and_without_the_guard_nobody_notices(tmp_path):
    good, bad = ([Numbers(torch.tensor([1.0, value, 3.0])) for _ in range(3)] for value in (2.0, 0.0))
    trained(LineSystem(), good, tmp_path, NaNGuard())
    assert not list(tmp_path.iterdir())
    system = LineSystem()
    trained(system, bad, tmp_path)
    assert not system.model.slope.isfinite()


def warned(sync, folder, capsys, *callbacks):
    batches = [Numbers(torch.ones(3)) for _ in range(24)]
    trained(LineSystem(sync=sync), batches, folder, *callbacks, every=4)
    return [line for line in capsys.readouterr().err.splitlines() if "lip-sync term does not fall" in line]


def test_a_lip_sync_term_that_does_not_fall_is_told_once_with_likely_causes(tmp_path, capsys):
    ramp = lambda step: torch.tensor(0.6 if step >= 3 else 0.0)
    said = warned(ramp, tmp_path, capsys, SyncPlateau(rounds=3))
    assert len(said) == 1 and "0.600" in said[0] and "gate" in said[0] and "objective.lip_sync" in said[0]
    assert not warned(ramp, tmp_path, capsys)
    assert not warned(lambda step: torch.tensor(0.6 - 0.01 * step), tmp_path, capsys, SyncPlateau(rounds=3))
    assert not warned(None, tmp_path, capsys, SyncPlateau(rounds=3))


def test_the_warm_up_of_the_term_is_no_beginning(tmp_path, capsys):
    """While its weight rises the term is small; that it is larger later is no plateau of its own."""
    callback = SyncPlateau(rounds=9)
    warned(lambda step: torch.tensor(0.0 if step < 3 else 0.5), tmp_path, capsys, callback)
    assert callback.means == pytest.approx([0.5] * 6)


def test_the_memory_of_the_warning_is_part_of_checkpoints():
    first, second = SyncPlateau(), SyncPlateau()
    first.values, first.means, first.said = [0.1], [0.5, 0.5], True
    second.load_state_dict(first.state_dict())
    assert (second.values, second.means, second.said) == ([0.1], [0.5, 0.5], True)


@pytest.mark.parametrize("waited, share, advice", [(0.3, 0.75, True), (0.001, 0.01, False)])
def test_the_loader_is_measured_against_the_model(waited, share, advice, monkeypatch, capsys):
    """Three steps of a tenth of a second with ten images each, and so long a wait before each."""
    clock, logged, callback = iter([0.0, 0.1, 1.0, 1.1, 2.0, 2.1]), {}, LoaderWait()
    monkeypatch.setattr("s3dnerf.systems.callbacks.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    trainer = SimpleNamespace(train_dataloader=SimpleNamespace(waited=waited), is_global_zero=True, global_step=7)
    callback.on_validation_start(trainer, None)
    assert not capsys.readouterr().out, "nothing was drawn yet"
    module, batch = SimpleNamespace(log_dict=logged.update), SimpleNamespace(mesh=torch.zeros(2, 5, 478, 3))
    for step in range(3):
        callback.on_train_batch_start(trainer, module, batch, step)
        callback.on_train_batch_end(trainer, module, None, batch, step)
    assert logged == pytest.approx({"loader/wait": share, "loader/images_per_second": 100.0}, rel=0.02)
    callback.on_validation_start(trainer, module)
    during, _ = capsys.readouterr().out, callback.on_train_end(trainer, module)
    said = capsys.readouterr().out
    assert during == f"step 7: {said}"
    assert f"waited for {100 * share:.0f} %" in said and "100 images a second" in said and ("data.workers" in said) == advice
