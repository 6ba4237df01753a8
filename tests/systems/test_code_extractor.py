"""The extractor's contrast: partners share one factor and nothing else, and it can be learned."""
import pytest
import torch

from s3dnerf.data.person import PersonDataModule
from s3dnerf.networks.code_extractor import FACTORS
from s3dnerf.systems.code_extractor import CodeExtractorSystem, right, scene_pictures


@pytest.fixture
def system(new_disentangled, person_shards, in_training):
    data = PersonDataModule(person_shards, frames=6, rays=1)
    data.setup()
    return in_training(CodeExtractorSystem(new_disentangled(), train_only=["extractor"]), data)


def parts(scenes):
    light, skin = scenes.variation, scenes.variation
    return {"identity": scenes.shape, "albedo": torch.stack([skin.hue, skin.saturation], 1),
            "illumination": torch.cat([light.gain[:, None], light.slope], 1)}


@pytest.mark.parametrize("factor", FACTORS)
def test_partners_share_one_factor_and_nothing_else(system, factor):
    scenes = system.drawn(torch.arange(6))
    found = system.partner(scenes, factor, torch.arange(36))
    for name, values in parts(scenes).items():
        assert torch.equal(values, parts(found)[name]) == (name == factor)
    assert not torch.equal(found.place, scenes.place)


def test_the_expression_is_shared_by_alike_lips_far_apart(system):
    frame = torch.tensor([0, 20])
    found = system.alike(frame, torch.arange(36))
    apart = lambda a, b: (system.lips[a] - system.lips[b]).norm(dim=-1)
    assert ((found - frame).abs() >= 9).all()
    assert (apart(frame, found) <= apart(frame, torch.tensor([30, 5]))).all()


def test_pictures_show_what_scenes_say(system, person_video):
    scenes = system.drawn(torch.tensor([3, 3]))
    pictures = scene_pictures(person_video, scenes)
    assert pictures.shape == (2, 3, 64, 64) and pictures[:, :, :2, :2].max() == 0
    assert (pictures[0] - pictures[1]).abs().max() > 0.05


def test_contrast_is_learned_and_touches_the_extractor_alone(system):
    optimizer, losses = torch.optim.Adam(system.model.extractor.parameters(), 3e-3), []
    batch = next(system.trainer.datamodule.batches(torch.Generator().manual_seed(0)))
    for _ in range(10):
        torch.manual_seed(0)  # the same pictures again
        loss = system.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    assert {name.split(".")[0] for name, p in system.model.named_parameters() if p.grad is not None} == {"extractor"}


def test_validation_says_how_often_the_partner_is_found(system):
    assert right(torch.tensor([[3.0, 1], [0, 1]])).tolist() == [1, 0]
    system.validation_step(torch.tensor([36]), 0)
    assert system.noted.keys() == {*FACTORS, "accuracy"} and 0 <= system.noted["accuracy"] <= 1
