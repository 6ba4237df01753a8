"""AD-NeRF: two fields, each told what it should be and nothing else; what is behind them shows through."""
import pytest
import torch

from s3dnerf.geometry import pixel_grid, project
from s3dnerf.models.ad_nerf import BACK, TORSO_BACK, TORSO_FRONT, head_rays, single_rays, torso_rays
from s3dnerf.models.hub import load_model, save_model
from s3dnerf.models.rad_nerf import CENTRE, RADII
from s3dnerf.types import Condition


@pytest.fixture(scope="module")
def model(new_ad_nerf):
    return new_ad_nerf()


def condition(model, video, frames=(0, 9), **changes):
    lips, eyes = model.lip_codes(video.mesh)
    chosen = torch.tensor(frames)
    return Condition(**({"code": lips[chosen], "eyes": eyes[chosen], "frame": torch.full((len(frames),), -1)} | changes))


def render(model, video, frames=(0, 9), **changes):
    return model.render(video.cameras[torch.tensor(frames)], condition(model, video, frames, **changes))


def all_pixels(video, frame=0):
    pixels = pixel_grid(64, 64, video.mesh)
    return video.cameras[frame:frame + 1], pixels, torch.zeros(len(pixels), dtype=torch.long)


def test_head_over_torso_over_background(model, person_video):
    found = render(model, person_video)
    below = found.torso + (1 - found.torso_opacity) * model.background
    assert torch.allclose(found.image, found.head + (1 - found.opacity) * below, atol=1e-5)
    assert found.opacity.max() > 0.5 and found.torso_opacity.max() > 0.1
    green = torch.tensor([0.0, 1, 0])[:, None, None].expand(3, 64, 64)
    other = model.render(person_video.cameras[:1], condition(model, person_video, (0,)), green)
    assert torch.allclose(other.head, found.head[:1]) and not torch.allclose(other.image, found.image[:1], atol=0.05)


def test_the_last_sample_is_what_is_behind(model, new_ad_nerf, person_video):
    """A layer over something is the layer over black and the light that passes; an empty field shows exactly what is there."""
    cameras, pixels, owner = all_pixels(person_video)
    behind, told = torch.rand(len(pixels), 3), condition(model, person_video, (0,))
    empty = new_ad_nerf()
    with torch.no_grad():
        for part in (empty.head, empty.torso):
            part.density.bias.fill_(-1e4)
    for name in ("head_layer", "torso_layer"):
        over, black = (getattr(model, name)(cameras, told, pixels, owner, x) for x in (behind, torch.zeros_like(behind)))
        assert torch.allclose(over.colour, black.colour + black.light * behind, atol=1e-5)
        assert not torch.allclose(over.colour, over.coarse, atol=1e-4)
        found = getattr(empty, name)(cameras, told, pixels, owner, behind)
        assert torch.equal(found.colour, behind) and torch.equal(found.coarse, behind) and found.light.min() == 1


def test_speech_changes_the_lower_face_and_eyes_what_is_near_them(model, person_video):
    plain, loud = render(model, person_video), render(model, person_video, code=torch.full((2, 12), 3.0))
    change = (plain.head - loud.head).abs().amax(1)
    nose = project(person_video.mesh[[0, 9]][:, [6]], person_video.cameras[[0, 9]])[0][..., 1]
    above = (torch.arange(64) + 0.5)[None, :, None] < nose[..., None]
    assert change.max() > 0.01 and change[above.expand_as(change)].max() < 1e-5
    shut = render(model, person_video, eyes=torch.full((2, 1), -3.0))
    lids = project(person_video.mesh[[0, 9]][:, [33, 263]], person_video.cameras[[0, 9]])[0][..., 1].mean(-1)
    near = ((torch.arange(64) + 0.5)[None] - lids[:, None]).abs() < 12
    change = (plain.head - shut.head).abs().amax(1)
    assert change.max() > 0.002 and change[~near].max() < 1e-5
    deaf = model.__class__(**(model.arguments | {"eyes": False}))
    assert deaf.head.layers[0].in_features == model.head.layers[0].in_features - 1


def test_the_torso_is_told_pose_and_speech_and_seen_by_the_first_camera(model, person_video):
    _, pixels, owner = all_pixels(person_video)
    black = torch.zeros(len(pixels), 3)

    def look(frame, **changes):
        return model.torso_layer(person_video.cameras[frame:frame + 1], condition(model, person_video, (0,), **changes), pixels,
                                 owner, black).colour

    assert not torch.allclose(look(0), look(20), atol=1e-3)
    assert not torch.allclose(look(0), look(0, code=torch.full((1, 12), 3.0)), atol=1e-3)
    rays = torso_rays(single_rays(person_video.cameras[owner], pixels), person_video.cameras.camera_to_world[0])
    axis = person_video.cameras.camera_to_world[0, :3, 2]
    ends = [((rays.origins + rays.directions * distance) @ axis) for distance in (rays.near, rays.far)]
    assert torch.allclose(ends[0], torch.tensor(-TORSO_FRONT), atol=1e-4)
    assert torch.allclose(ends[1], torch.tensor(TORSO_BACK), atol=1e-4)


def test_head_rays_begin_and_end_on_the_ellipsoid(person_video):
    cameras, pixels, owner = all_pixels(person_video)
    rays = head_rays(single_rays(cameras[owner], pixels))
    met = (rays.far > rays.near)[:, 0]
    assert 0.2 < met.float().mean() < 0.9
    centre, radii = torch.tensor(CENTRE), torch.tensor(RADII)
    radius = lambda distance: ((rays.origins + rays.directions * distance - centre) / radii).norm(dim=-1)
    assert torch.allclose(radius(rays.near)[met], torch.tensor(1.0), atol=1e-4) and radius(rays.far)[met].max() < 1.0001
    assert (rays.origins + rays.directions * rays.far)[met][:, 2].max() < BACK + 1e-4


def test_frames_are_rendered_by_themselves_and_a_bundle_gives_the_person_back(model, person_video, tmp_path):
    save_model(model, tmp_path)
    both, alone = render(model, person_video), render(load_model(tmp_path), person_video, (9,))
    assert torch.allclose(both.image[1:], alone.image, atol=1e-6)


def test_rays_are_as_exact_in_half_precision(person_video):
    cameras, pixels, owner = all_pixels(person_video, 20)
    exact = single_rays(cameras[owner], pixels).directions
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(single_rays(cameras[owner], pixels).directions, exact)
