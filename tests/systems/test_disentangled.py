"""Training of the disentangled head: every term is at work, and nothing teaches the extractor any more."""
from dataclasses import replace

import pytest
import torch

from s3dnerf.cli import lightning
from s3dnerf.data.person_frames import PersonFrameModule
from s3dnerf.systems.disentangled import DisentangledObjective, DisentangledSystem


@pytest.fixture(scope="module")
def data(person_shards):
    found = PersonFrameModule(person_shards, pairs=1, steps_per_epoch=1)
    found.setup()
    return found


@pytest.fixture
def system(new_disentangled, data, in_training):
    return lambda objective={}, model={}, **options: in_training(
        DisentangledSystem(new_disentangled(**model), DisentangledObjective(**objective), code_frames=8, torso_pixels=200,
                           **options), data)


@pytest.fixture(scope="module")
def batch(data):
    return next(iter(data.train_dataloader()))


def test_weights_are_the_paper_s():
    found = DisentangledObjective()
    assert (found.colour, found.disentangle, found.velocity) == (1, 5, 10)


def test_every_part_is_taught_but_the_extractor(system, batch):
    found = system(model={"readout": "convolution"}, lips_share=0.0, speech_share=0.0)
    found.training_step(batch, 0).backward()
    assert {"colour", "features", "mask", "torso", "velocity", "disentangle", "lips", "code", "correlation"} <= found.noted.keys()
    still = [name for name, p in found.model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not still and all(p.grad is None for p in found.model.extractor.parameters())


@pytest.mark.parametrize("name", ["colour", "features", "mask", "torso", "disentangle", "velocity", "lips"])
def test_every_weight_counts(system, batch, name):
    values = []
    for objective in ({}, {name: 0.0}):
        found = system(objective)
        torch.manual_seed(3)
        values.append(found.training_step(batch, 0).item())
    assert values[0] > values[1]


def test_exchanged_codes_are_read_off_the_pictures_that_they_came_from(system, batch, monkeypatch):
    """With pictures in place of renderings, and nothing exchanged, there is no error; with another frame's there is one."""
    found = system()
    codes, goal = found.codes(batch.frame, torch.zeros(2, dtype=torch.long)), found.goal(batch, torch.zeros(2, dtype=torch.long))
    head = lambda image: type("", (), {"colour": image, "opacity": goal.head[:1]})()
    monkeypatch.setattr(found.model, "picture", lambda cameras, mixed: head(goal.image[:1]))
    monkeypatch.setattr(found, "drawn_changes", lambda: torch.zeros(3, dtype=torch.bool))
    assert found.exchange_error(batch, codes, goal).item() == pytest.approx(0, abs=1e-10)
    monkeypatch.setattr(found.model, "picture", lambda cameras, mixed: head(1 - goal.image[:1]))
    assert found.exchange_error(batch, codes, goal).item() > 1e-6


def test_only_chosen_codes_are_exchanged(system, batch, monkeypatch):
    found, none = system(), torch.zeros(2, dtype=torch.long)
    codes, goal, seen = found.codes(batch.frame, none), found.goal(batch, none), []
    picture = found.model.picture
    monkeypatch.setattr(found.model, "picture", lambda cameras, mixed: seen.append(mixed) or picture(cameras, mixed))
    monkeypatch.setattr(found, "drawn_variant", lambda: torch.tensor([1, 2]))
    monkeypatch.setattr(found, "drawn_changes", lambda: torch.tensor([False, True, False]))
    found.exchange_error(batch, codes, goal)
    assert torch.equal(seen[0].identity, codes.identity[:1]) and torch.equal(seen[0].expression, codes.expression[:1])
    assert torch.equal(seen[0].albedo[0], found.model.albedos[1]) and torch.equal(seen[0].illumination, codes.illumination[:1])


def test_variants_change_the_head_that_is_wanted_and_nothing_else(system, batch):
    found = system()
    plain, varied = (found.goal(batch, torch.tensor(variant)) for variant in ((0, 0), (1, 1)))
    assert torch.equal(plain.image, plain.recorded)
    change = (plain.image - varied.image).abs()
    assert change.max() > 0.05 and (change * (1 - plain.head)).max() < 0.3 * change.max()
    assert change[plain.head.expand_as(change) == 0].max() == 0


def test_expressions_are_learned_tracked_or_heard(system, batch):
    none, frame = torch.zeros(2, dtype=torch.long), torch.tensor([3, 7])
    ways = {"learned": {"lips_share": 0.0}, "lips": {"lips_share": 1.0}, "speech": {"lips_share": 0.0, "speech_share": 1.0}}
    codes = {name: system(code_noise=0.0, **shares).eval().codes(frame, none).expression for name, shares in ways.items()}
    found = system(code_noise=0.0).eval()
    assert torch.allclose(codes["learned"], found.model.learned_expressions(frame))
    assert torch.allclose(codes["lips"], found.model.lip_module(found.lips[frame]))
    assert torch.allclose(codes["speech"], found.model.lip_module(found.model.hear(found.heard, frame)))


def test_lips_are_told_from_other_frames(system):
    found = system()
    right = found.lip_error()
    with torch.no_grad():
        found.model.expressions[:36] = found.model.expressions[:36].roll(18, 0)
    assert found.lip_error() > right


def test_velocity_sees_a_picture_that_stands_still(system, batch):
    found, none = system(), torch.zeros(2, dtype=torch.long)
    goal = found.goal(batch, none)
    head = found.model.picture(batch.cameras, found.codes(batch.frame, none))
    moving = replace(head, colour=goal.image, opacity=torch.ones_like(head.opacity))
    still = replace(moving, colour=goal.image[:1].expand(2, -1, -1, -1))
    assert found.picture_terms(batch, moving, goal)["velocity"] == 0 < found.picture_terms(batch, still, goal)["velocity"]


def test_the_paper_s_preset_has_its_sizes():
    names = ["disentangled", "disentangled_paper"]
    found = lightning([word for name in names for word in ("--config", f"configs/person/{name}.yaml")], run=False)
    model = found.model.model
    assert model.to_features.out_features == 256 and model.resolution == 64 and len(model.field.layers) == 8
    assert [layer.in_features for layer in model.field.layers][:2] == [63 + 100 + 79 + 1, 384]
