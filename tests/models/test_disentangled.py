"""The disentangled head: each code can be exchanged with the others held, and reaches what it should."""
from dataclasses import replace

import pytest
import torch

from s3dnerf.geometry import project
from s3dnerf.models.disentangled import DisentangledHead
from s3dnerf.models.hub import load_model, save_model
from s3dnerf.types import Condition


@pytest.fixture(scope="module")
def model(new_disentangled):
    return new_disentangled()


def condition(model, video, frames=(0, 9), frame=-1, **changes):
    lips, eyes = model.lip_codes(video.mesh)
    chosen = torch.tensor(frames)
    return Condition(**({"code": lips[chosen], "eyes": eyes[chosen], "frame": torch.full((len(frames),), frame)} | changes))


def test_head_over_torso_over_background(model, person_video):
    found = model.render(person_video.cameras[:2], condition(model, person_video))
    below = found.torso + (1 - found.torso_opacity) * model.background
    assert torch.allclose(found.image, found.head + (1 - found.opacity) * below, atol=1e-5)
    assert found.opacity.max() > 0.5 and found.opacity[..., :2, :2].max() == 0 and found.depth.max() > 5
    alone = model.render(person_video.cameras[1:2], condition(model, person_video)[1:])
    assert torch.allclose(found.image[1:], alone.image, atol=1e-5)
    green = torch.tensor([0.0, 1, 0])[:, None, None].expand(3, 64, 64)
    assert not torch.allclose(model.render(person_video.cameras[:1], condition(model, person_video)[:1], green).image,
                              found.image[:1], atol=0.05)


def test_another_expression_changes_the_mouth_and_holds_the_rest(model, person_video):
    cameras, codes = person_video.cameras[:1], model.codes(condition(model, person_video, (0,)))
    loud = model.codes(condition(model, person_video, (0,), code=torch.full((1, 12), 3.0)))
    other = replace(codes, expression=loud.expression)
    plain, moved = (model.show(cameras, x) for x in (codes, other))
    change = (plain.head - moved.head).abs().amax(1)[0]
    eyes = project(person_video.mesh[:1, [33, 263]], cameras)[0][0, :, 1].mean()
    assert change.max() > 0.005 and change[:int(eyes) - 2].max() < 1e-4 and torch.equal(plain.torso, moved.torso)


@pytest.mark.parametrize("name, shape", [("identity", True), ("albedo", False), ("illumination", False)])
def test_other_codes_change_the_head_and_colours_do_not_change_its_shape(model, person_video, name, shape):
    codes = model.codes(condition(model, person_video, (0,)))
    other = replace(codes, **{name: -getattr(codes, name)})
    cameras = person_video.cameras[:1]
    plain, moved = (model.feature_map(cameras, x) for x in (codes, other))
    assert not torch.allclose(plain[0], moved[0], atol=1e-3)
    assert torch.allclose(plain[1], moved[1], atol=1e-6) != shape
    assert not torch.allclose(model.picture(cameras, codes).colour, model.picture(cameras, other).colour, atol=1e-4)


def test_features_may_be_mapped_after_the_sum_over_the_ray(model, person_video):
    """Sums of weighted inner channels, mapped, are sums of weighted features: the map's bias counts by opacity."""
    with torch.no_grad():
        features, opacity, _ = model.feature_map(person_video.cameras[:1], model.codes(condition(model, person_video, (0,))))
    empty = (opacity == 0)[0, 0]
    assert empty.any() and features[0][:, empty].abs().max() == 0
    assert features.shape == (1, 16, 16, 16)


def test_variants_and_frames_have_codes_of_their_own(model, person_video):
    told = condition(model, person_video)
    plain, varied = model.codes(told), model.codes(told, torch.tensor([0, 1]), torch.tensor([2, 0]))
    assert torch.equal(plain.albedo[0], varied.albedo[0]) and not torch.equal(plain.albedo[1], varied.albedo[1])
    assert torch.equal(plain.illumination[1], varied.illumination[1])
    assert not torch.equal(plain.illumination[0], varied.illumination[0])
    with torch.no_grad():
        model.frame_illuminations[3] = 1.0
    own, mean = (model.codes(condition(model, person_video, frame=frame)).illumination for frame in (3, -1))
    assert torch.allclose(own - mean, torch.full_like(own, 1 - 1 / 36), atol=1e-5)


def test_expressions_begin_where_the_lip_module_puts_tracked_lips(model, person_video):
    lips = model.lip_codes(person_video.mesh)[0]
    assert torch.allclose(model.learned_expressions(torch.arange(36)), model.lip_module(lips[:36]), atol=1e-5)


def test_a_bundle_gives_the_person_back(model, person_video, tmp_path):
    save_model(model, tmp_path)
    told = condition(model, person_video, (4,))
    assert torch.allclose(load_model(tmp_path).render(person_video.cameras[4:5], told).image,
                          model.render(person_video.cameras[4:5], told).image)


def test_the_expression_of_another_recording_is_transferred_with_the_other_codes_held(model, person_video):
    from types import SimpleNamespace

    from s3dnerf.personal import followed_lips

    driven = followed_lips(model, SimpleNamespace(mesh=lambda: person_video.mesh[5:12].numpy()), 3)
    own = model.codes(condition(model, person_video, (20,)))
    moved = model.show(person_video.cameras[20:21], replace(own, expression=model.lip_module(driven[2:3])))
    told = condition(model, person_video, (20,), code=driven[2:3])
    assert torch.allclose(moved.image, model.render(person_video.cameras[20:21], told).image, atol=1e-6)
    assert not torch.allclose(moved.image, model.show(person_video.cameras[20:21], own).image, atol=1e-4)


def test_sizes_must_fit(new_disentangled):
    with pytest.raises(ValueError, match="found image_size=64; expected resolution 8 doubled .*: 32"):
        new_disentangled(resolution=8)
    found = DisentangledHead(renderer_widths=(32, 16, 8), torso={"levels": 2, "entries": 64}, field={"width": 16, "depth": 2})
    codes = (found.identity, found.expressions, found.albedos, found.illuminations)
    assert [code.shape[1] for code in codes] == [100, 79, 100, 27]
    assert found.to_features.out_features == 256 and found.resolution == 64


def test_two_frames_do_not_differ_by_where_their_rays_are_looked_at(new_disentangled, person_video):
    """In training too; otherwise the velocity loss is about the draw of samples."""
    found = new_disentangled().train()
    codes, cameras = found.codes(condition(found, person_video, (0,))), person_video.cameras[:1]
    first, again = (found.picture(cameras, codes).colour for _ in range(2))
    assert torch.equal(first, again) and found.field.training
