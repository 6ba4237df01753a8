"""Training of AD-NeRF: both looks of both fields are supervised, and training learns."""
import pytest
import torch

from s3dnerf.cli import lightning
from s3dnerf.data.person import PersonDataModule
from s3dnerf.systems.ad_nerf import ADNeRFObjective, ADNeRFSystem


@pytest.fixture(scope="module")
def data(person_shards):
    found = PersonDataModule(person_shards, frames=2, rays=200, steps_per_epoch=1)
    found.setup()
    return found


@pytest.fixture
def system(new_ad_nerf, data, in_training):
    return lambda objective={}, model={}, **options: in_training(
        ADNeRFSystem(new_ad_nerf(**model), ADNeRFObjective(**objective), code_frames=16, **options), data)


@pytest.fixture(scope="module")
def batch(data):
    return next(iter(data.train_dataloader()))


def test_every_part_is_taught(system, batch):
    found = system(model={"readout": "convolution"}, lips_share=0.0)
    found.training_step(batch, 0).backward()
    assert found.noted.keys() == {"colour", "coarse", "torso", "torso_coarse", "entropy", "code", "correlation", "total", "psnr"}
    still = [name for name, p in found.model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not still


@pytest.mark.parametrize("name, part", [("colour", "head"), ("coarse", "head"), ("torso", "torso"), ("torso_coarse", "torso")])
def test_each_look_teaches_its_own_field(system, batch, name, part):
    others = {key: 0.0 for key in ("colour", "coarse", "torso", "torso_coarse", "entropy", "code", "correlation")}
    found = system(others | {name: 1.0})
    found.training_step(batch, 0).backward()
    for field in ("head", "torso"):
        gradient = getattr(found.model, field).out.weight.grad
        assert (gradient is not None and bool(gradient.any())) == (field == part)


def test_both_looks_differ_and_the_torso_is_not_asked_for_the_head(system, batch):
    found = system()
    told = found.condition(batch.frame, True)
    before = found.pixel_terms(batch, told)
    assert abs(before["colour"] - before["coarse"]) > 1e-6 and abs(before["torso"] - before["torso_coarse"]) > 1e-6
    changed = batch.colour.clone()
    changed[batch.head.expand_as(changed) > 0.5] = 0
    torch.manual_seed(0)
    first = found.pixel_terms(batch, told)
    torch.manual_seed(0)
    other = found.pixel_terms(type(batch)(**{**vars(batch), "colour": changed}), told)
    assert torch.equal(first["torso"], other["torso"]) and not torch.equal(first["colour"], other["colour"])


def test_a_few_steps_bring_the_picture_nearer(system, data):
    found, errors = system(code_noise=0.0), []
    optimizer = torch.optim.Adam([p for p in found.parameters() if p.requires_grad], 1e-2)
    for batch in PersonDataModule.batches(data, torch.Generator().manual_seed(0)):
        loss = found.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(found.noted["psnr"].item())
        if len(errors) == 12:
            break
    assert sum(errors[-3:]) / 3 > sum(errors[:3]) / 3 + 1


def test_the_paper_s_preset_has_its_sizes():
    found = lightning(["--config", "configs/person/ad_nerf.yaml", "--config", "configs/person/ad_nerf_paper.yaml"], run=False)
    model, count = found.model.model, lambda part: sum(p.numel() for p in part.parameters())
    assert count(model.head) == 661_636 and not model.by_lips and found.model.lips_share == 0
    assert (model.renderer.coarse_samples, model.renderer.fine_samples) == (64, 128)
    assert model.torso.layers[0].in_features == 63 + 64 + 126  # point, speech, angles and place of the head
    assert count(model.torso) == 661_636 + 126 * 256 * 2
