"""Adapting teaches what is the person's own, and nothing else."""
from types import SimpleNamespace

import pytest
import torch

from s3dnerf.data.person_windows import PersonWindowModule
from s3dnerf.models.adapted import AdaptedHead
from s3dnerf.models.hub import save_model
from s3dnerf.systems.adapted import AdaptedObjective, AdaptedSystem


@pytest.fixture(scope="module")
def one_shot(tiny_head, tmp_path_factory):
    """Folder with the weights of a one-shot model of 64 pixels."""
    folder = tmp_path_factory.mktemp("one_shot")
    save_model(tiny_head, folder)
    return str(folder)


@pytest.fixture
def system(one_shot, person_shards, monkeypatch):
    data = PersonWindowModule(person_shards, window=32, steps_per_epoch=6)
    data.setup()
    found = AdaptedSystem(AdaptedHead(), AdaptedObjective(), lambda p: torch.optim.Adam(p, 1e-3), code_frames=16,
                          one_shot=one_shot)
    monkeypatch.setattr(AdaptedSystem, "trainer", SimpleNamespace(datamodule=data, max_steps=10), raising=False)
    found.setup("fit")
    found.noted = {}
    found.log_terms = lambda stage, terms, size: found.noted.update(terms)
    return found.train()


def step(system, batches):
    """The optimizer after a step on some batches."""
    optimizer = system.configure_optimizers()
    for batch in batches:
        system.training_step(batch, 0).backward()
    optimizer.step()
    return optimizer


def test_a_step_changes_what_is_the_person_s_own_alone(system):
    with torch.no_grad():  # through what starts at zero no gradient reaches what it multiplies
        system.model.trust.fill_(0.5)
        for name, parameter in system.model.named_parameters():
            if name.endswith(".up"):
                parameter.normal_(std=1e-3)
    before = {name: value.clone() for name, value in system.model.state_dict().items()}
    step(system, list(system.trainer.datamodule.train_dataloader()))
    changed = {name for name, value in system.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= {name for name, p in system.model.named_parameters() if p.grad is not None and p.grad.any()}
    own = ("planes.", "basis.", "attention.", "head.surroundings.")
    assert all(name.startswith(own) or name in ("texture", "detail", "trust") or ".parametrizations.weight.0." in name
               for name in changed)
    assert {"texture", "detail", "trust", "planes.0", "planes.3", "basis.shift", "basis.shade"} <= changed
    assert any(name.startswith("head.deformation.") for name in changed) and not any("listener" in name for name in changed)
    assert {"photometric", "edges", "raw", "bending", "code", "correlation"} <= system.noted.keys()


def test_what_the_person_has_of_its_own_has_rates_of_its_own(system):
    groups = step(system, list(system.trainer.datamodule.train_dataloader())[:1]).param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    rate = lambda name: rates[id(system.model.get_parameter(name))]
    assert rate("planes.0") == rate("basis.shift") == pytest.approx(5e-3) and rate("trust") == pytest.approx(1e-2)
    assert rate("texture") == pytest.approx(1e-3) and len(rates) == sum(p.requires_grad for p in system.model.parameters())


@pytest.mark.parametrize("change", [{"mouth": 0.0}, {"head": 1.0}, {"edges": 0.0}, {"raw": 0.0}, {"code": 0.0},
                                    {"bending": 1.0}])
def test_every_weight_counts(system, change):
    batch, values = next(iter(system.trainer.datamodule.train_dataloader())), []
    torch.nn.init.normal_(system.model.basis.shift)
    for objective in ({}, change):
        torch.manual_seed(0)
        system.objective = AdaptedObjective(**objective)
        values.append(system.training_step(batch, 0).item())
    assert values[0] != values[1]


def test_it_learns(system):
    """Ten steps on one batch bring it nearer to the recording."""
    batch, optimizer, errors = next(iter(system.trainer.datamodule.train_dataloader())), system.configure_optimizers(), []
    for _ in range(10):
        optimizer.zero_grad()
        system.training_step(batch, 0).backward()
        optimizer.step()
        errors.append(float(system.noted["photometric"]))
    assert errors[-1] < 0.9 * errors[0] and float(system.model.trust) > 0.05


def test_the_plate_takes_over_within_the_first_steps(system, monkeypatch):
    batch, shares = next(iter(system.trainer.datamodule.train_dataloader())), []
    for number in (0, 25, 80):
        monkeypatch.setattr(AdaptedSystem, "global_step", number, raising=False)
        system.training_step(batch, 0)
        shares.append(float(system.model.plate))
    assert shares == [0.0, 0.5, 1.0]
