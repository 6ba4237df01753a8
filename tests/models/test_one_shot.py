"""The one-shot model: every part changes the picture, calls have no memory, cameras and identity matter."""
import dataclasses
import math

import numpy as np
import pytest
import torch

from s3dnerf.errors import InputError
from s3dnerf.face import metric_face
from s3dnerf.geometry import frontal_camera, orbit
from s3dnerf.models.one_shot import S3DNeRF, border_fade, look_up, rests
from s3dnerf.networks.surroundings import PACE
from s3dnerf.types import Cameras, Motion, Portrait, Window

SIZE, FRAMES = 64, 3


def build(**options):
    torch.manual_seed(0)
    settings = dict(image_size=SIZE, encoder_channels=(8, 8, 8, 8), plane_channels=4, width=16, modulation_channels=6,
                    lattice=(8, 8, 4), token_channels=8, coarse_samples=4, fine_samples=4, feature_channels=6,
                    super_resolution_channels=(8, 8))
    model = S3DNeRF(**(settings | options)).eval()
    with torch.no_grad():  # what starts near zero is made to matter
        model.deformation.out.weight.normal_(std=0.5)
        model.radiance.features.weight.mul_(5)
        model.speech.code[-1].weight.mul_(10)
        if model.super_resolution is not None:
            model.super_resolution.leave.weight.normal_(std=0.05)
    return model


@pytest.fixture(scope="module")
def model():
    return build()


def portraits(batch=2):
    torch.manual_seed(1)
    camera = frontal_camera(SIZE)
    cameras = Cameras(camera.camera_to_world.expand(batch, 4, 4), camera.intrinsics.expand(batch, 3, 3))
    image = torch.nn.functional.interpolate(torch.rand(batch, 3, 8, 8), size=SIZE, mode="bicubic").clamp(0, 1)
    mask = torch.zeros(batch, 1, SIZE, SIZE)
    mask[..., 8:52, 12:52] = 1
    return Portrait(image, mask, cameras, torch.from_numpy(metric_face()).expand(batch, -1, -1),
                    torch.ones_like(mask))


def cameras(batch=2, yaw=0.0):
    camera = orbit(frontal_camera(SIZE), torch.tensor(yaw), torch.tensor(0.0))
    return Cameras(camera.camera_to_world.expand(batch, FRAMES, 4, 4), camera.intrinsics.expand(batch, FRAMES, 3, 3))


def motion(model, batch=2, seed=2):
    torch.manual_seed(seed)
    return model.drive(torch.randn(batch, FRAMES, 80, 40))


@torch.no_grad()
def render(model, portrait=None, drive=None, views=None, **options):
    portrait = portrait or portraits()
    drive = drive or motion(model, len(portrait.image))
    views = views or cameras(len(portrait.image))
    return model.render(model.encode(portrait), drive, views, **options)


def change(a, b):
    return (a.image - b.image).abs().mean().item()


def test_shapes_and_ranges(model):
    found = render(model)
    assert found.image.shape == found.warped.shape == (2, FRAMES, 3, SIZE, SIZE)
    assert found.raw.shape == found.coarse.shape == (2, FRAMES, 3, SIZE // 4, SIZE // 4)
    for name in ("opacity", "depth", "motion"):
        assert getattr(found, name).shape == (2, FRAMES, 1, SIZE // 4, SIZE // 4)
    assert found.source.shape == (2, FRAMES, 2, SIZE, SIZE)
    assert found.inside.shape == found.painted.shape == (2, FRAMES, 1, SIZE, SIZE)
    for name in ("opacity", "inside", "motion"):
        assert 0 <= getattr(found, name).min() and getattr(found, name).max() <= 1.0001


def test_planes_of_four_resolutions(model):
    planes = model.encode(portraits()).planes
    assert [tuple(plane.shape[1:]) for plane in planes] == [(3, 4, SIZE // 4 // k, SIZE // 4 // k) for k in (1, 2, 4, 8)]


def test_rendering_is_repeatable_and_has_no_memory(model):
    first = render(model)
    render(model, drive=motion(model, seed=9))
    assert torch.equal(first.image, render(model).image)


def test_rows_of_a_batch_do_not_touch_each_other(model):
    both, drive = portraits(), motion(model)
    alone = render(model, both[1:], drive[1:], cameras(1))
    assert torch.allclose(render(model, both, drive).image[1:], alone.image, atol=1e-5)


def test_zeroing_any_tri_plane_scale_changes_the_frame(model):
    from dataclasses import replace
    appearance = model.encode(portraits())
    with torch.no_grad():
        whole = model.render(appearance, motion(model), cameras())
        for scale in range(4):
            planes = tuple(plane * (i != scale) for i, plane in enumerate(appearance.planes))
            assert change(whole, model.render(replace(appearance, planes=planes), motion(model), cameras())) > 1e-5


def test_speech_order_of_tokens_deformation_and_modulation_matter(model):
    drive = motion(model)
    whole = render(model, drive=drive)
    assert change(whole, render(model, drive=motion(model, seed=5))) > 1e-4
    assert change(whole, render(model, drive=Motion(drive.code, drive.tokens.flip(2)))) == pytest.approx(0, abs=1e-5)
    assert change(whole, render(model, drive=Motion(-drive.code, drive.tokens))) > 1e-4
    for mode in ("deform", "modulate"):
        part = build(mode=mode)
        part.load_state_dict(model.state_dict())
        assert change(whole, render(part, drive=drive)) > 1e-5


def test_time_order_of_the_speech_window_matters(model):
    torch.manual_seed(3)
    speech = torch.randn(2, FRAMES, 80, 40)
    assert (model.drive(speech).code - model.drive(speech.flip(-1)).code).abs().max() > 1e-3


def test_super_resolution_importance_and_attention_matter(model):
    whole = render(model)
    for options in (dict(super_resolution_channels=None), dict(importance=False), dict(attention=False)):
        other = build(**options)
        other.load_state_dict({k: v for k, v in model.state_dict().items() if k in other.state_dict()})
        assert change(whole, render(other)) > 1e-6


def test_super_resolution_hears_nothing(model):
    import inspect
    assert not {"speech", "motion_tokens", "code", "tokens"} & set(inspect.signature(model.super_resolution.forward).parameters)


def test_per_point_evaluation_agrees_with_the_lattice(model):
    fine = build(lattice=(40, 40, 24))
    fine.load_state_dict(model.state_dict())
    point = build(evaluation="point")
    point.load_state_dict(model.state_dict())
    assert change(render(fine), render(point)) < 0.15 * change(render(point), render(build(mode="modulate")))


def test_camera_changes_the_frame_and_carries_gradient(model):
    assert change(render(model), render(model, views=cameras(yaw=0.2))) > 1e-3
    pose = cameras().camera_to_world.clone().requires_grad_(True)
    found = model.render(model.encode(portraits()), motion(model), Cameras(pose, cameras().intrinsics))
    gradient, = torch.autograd.grad(found.image.square().sum(), pose)
    assert gradient.abs().max() > 0


def test_border_of_the_frame_is_the_photo_itself(model):
    found, photo = render(model, views=cameras(yaw=0.1)), portraits().image[:, None]
    edge = border_fade(cast_places()) < 1e-4
    mask = edge.expand(2, FRAMES, 3, -1, -1)
    assert torch.allclose(found.image[mask], photo.expand_as(found.image)[mask], atol=0.02)


def cast_places():
    step = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    y, x = torch.meshgrid(step, step, indexing="ij")
    return torch.stack([x, y])[None]


def test_without_density_the_photo_stays(model):
    empty = build()
    with torch.no_grad():
        empty.radiance.out.bias[0] = -1e3
    nobody = dataclasses.replace(portraits(), person=torch.zeros_like(portraits().person))
    found = render(empty, nobody, views=cameras(yaw=0.3))
    assert torch.allclose(found.warped, portraits().image[:, None].expand_as(found.warped), atol=1e-4)


def test_a_window_is_the_same_part_of_the_full_frame():
    model = build(super_resolution_channels=None)
    corner = torch.tensor([16.0, 16.0])
    window = Window(corner, corner + 4, 32, 24)
    part, whole = render(model, window=window), render(model)
    for name in ("opacity", "depth", "raw"):
        assert torch.allclose(getattr(part, name), getattr(whole, name)[..., 5:13, 4:10], atol=1e-4), name


def test_every_parameter_gets_a_gradient():
    model = build().train()
    found = model(clip_like(model))
    loss = found.image.square().sum() + found.raw.sum() + found.coarse.sum()
    loss.backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert idle == ["no_speech"]  # it stands for speech when tracked lips drive


def clip_like(model):
    class Parts:
        portrait, speech, cameras = portraits(), torch.randn(2, FRAMES, 80, 40), cameras(yaw=0.1)
    return Parts


def test_mouth_gain_scales_the_lip_code_only(model):
    speech = torch.randn(1, 2, 80, 40)
    one, two = model.drive(speech, gain=1.0), model.drive(speech, gain=2.0)
    assert torch.allclose(two.code, 2 * one.code) and torch.equal(one.tokens, two.tokens)


def with_person(part):
    """A portrait whose person covers `part` of the picture, and whose head lies in its middle."""
    person = torch.zeros(1, 1, SIZE, SIZE)
    person[part] = 1
    return dataclasses.replace(portraits(1), person=person)


def test_hair_goes_with_the_head_and_the_background_stays(model):
    """Beside the head, what the photo shows of the person is looked up where the head has taken it from; the wall is not."""
    side = np.s_[..., 16:34, 50:57]  # right of the head, inside the frame
    views = cameras(1)
    moved = views.camera_to_world.clone()
    moved[..., 0, 3] -= 0.15  # the head goes to the right
    views = Cameras(moved, views.intrinsics)
    hair, wall = (render(model, with_person(part), views=views) for part in (np.s_[..., :], np.s_[..., :45]))
    own = (torch.arange(SIZE) + 0.5) * 2 / SIZE - 1
    beside = lambda found: (found.source[:, :, :1] - own)[side]
    assert (beside(hair) < -0.01).float().mean() > 0.95
    assert beside(wall).abs().max() < 1e-3


def test_shares_say_how_far_the_surroundings_go(model):
    """Half of the head's shift beside the head and at the neck where half is its share, nothing where it is none."""
    views = cameras(1)
    moved = views.camera_to_world.clone()
    moved[..., 0, 3] -= 0.15
    views, table = Cameras(moved, views.intrinsics), model.surroundings.table
    before = table.detach().clone()
    places = {}
    for share in (1.0, 0.5, 0.0):
        with torch.no_grad():
            table[:, 1:] = share
        places[share] = render(model, with_person(np.s_[..., :]), views=views).source
    with torch.no_grad():
        table.copy_(before)
    for part in (np.s_[..., 16:34, 50:57], np.s_[..., -8:-5, 30:34]):  # right of the head; under the chin
        still, half, whole = (places[share][:, :, :1][part] for share in (0.0, 0.5, 1.0))
        assert (whole - still).abs().mean() > 0.02
        assert torch.allclose(half - still, (whole - still) / 2, atol=6e-3)
    side, brow = ((places[1.0] - places[0.0])[:, :, :1][part].abs().mean() for part in (np.s_[..., 16:34, 50:57],
                                                                                        np.s_[..., 26:30, 28:36]))
    assert brow < 0.1 * side  # the face itself always goes with the head


def test_what_shares_leave_moves_the_person_and_not_the_wall(model):
    """By as much as the head has moved: not at all where it has not."""
    views, response = cameras(1), model.surroundings.response
    moved = views.camera_to_world.clone()
    moved[..., 1, 3] -= 0.15
    for seen, least in ((Cameras(moved, views.intrinsics), 0.02), (views, 0.0)):
        places = {}
        for size in (0.0, 0.5):
            with torch.no_grad():
                response[:, 9] = size / PACE  # how far down the photo, for a shift down
            places[size] = [render(model, with_person(part), views=seen).source for part in (np.s_[..., :], np.s_[..., :34])]
        with torch.no_grad():
            response.zero_()
        head, hair, wall = ((places[0.5][case] - places[0.0][case])[:, :, 1][..., 20:40, part].abs()
                            for case, part in ((0, np.s_[28:36]), (0, np.s_[50:56]), (1, np.s_[50:56])))
        assert wall.max() < 1e-3
        assert min(head.mean(), hair.mean()) > least if least else max(head.max(), hair.max()) < 1e-6


def test_detail_gives_the_photo_back_and_goes_with_the_skin():
    model, portrait = build(mode="none"), portraits(1)
    appearance = model.encode(portrait)
    full = model.with_detail(appearance)
    own = model.drive_face(model.face_code.own(portrait.mesh)[:, None])
    views = portrait.cameras.map(lambda x: x[:, None])
    rendered = {name: model.render(known, own, views) for name, known in (("plain", appearance), ("full", full))}
    dry = rendered["full"].painted[:, 0] < 1e-3
    error = {name: ((x.image[:, 0] - portrait.image).abs() * dry).max() for name, x in rendered.items()}
    assert error["full"] < 1e-2 < 0.05 < error["plain"]
    moved = views.camera_to_world.clone()
    moved[..., 0, 3] -= 0.3
    seen = [model.render(known, own, Cameras(moved, views.intrinsics)).image for known in (appearance, full)]
    share = (seen[1] - seen[0]).abs().mean() / (rendered["full"].image - rendered["plain"].image).abs().mean()
    assert 0.1 < share < 0.7


def test_nothing_is_opaque_where_the_photo_shows_background(model):
    bare = render(model, with_person(np.s_[..., :SIZE // 2]))
    whole = render(model, with_person(np.s_[..., :]))
    right = np.s_[..., SIZE // 8 + 2:]
    assert bare.opacity[right].max() < 0.05 and whole.opacity[right].max() > 0.5


def test_fine_detail_survives_half_a_pixel_of_motion():
    wave = torch.sin(torch.arange(32.0) * math.pi / 2 + 0.4).expand(1, 1, 32, 32)
    places = (torch.arange(32.0) + 1) * 2 / 32 - 1
    grid = torch.stack(torch.meshgrid(places, (torch.arange(32.0) + 0.5) * 2 / 32 - 1, indexing="xy"))[None]
    kept = {mode: look_up(wave, grid, mode)[..., 4:-4].std() / wave.std() for mode in ("bilinear", "bicubic")}
    assert kept["bilinear"] < 0.75 < 0.85 < kept["bicubic"]


def test_planes_of_stride_two_are_twice_as_fine():
    planes = build(plane_stride=2).encode(portraits()).planes
    assert [plane.shape[-1] for plane in planes] == [SIZE // 2, SIZE // 4, SIZE // 8, SIZE // 16]
    with pytest.raises(InputError, match="stride=8"):
        build(plane_stride=8)


def test_widths_of_their_own_reach_their_parts():
    model = build(fused_channels=20, decoder_width=24, speech_width=40, super_resolution_channels=(8, 8, 4))
    assert model.encode(portraits()).lattice.shape[-1] == 20 and model.radiance.hidden.out_features == 24
    assert model.speech.code[2].out_features == 40 and model.super_resolution.full is not None
    assert render(model).image.isfinite().all()


def test_without_mesh_motion_landmarks_carry_nothing(model):
    other = build(mesh_motion=False)
    other.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith("mesh_motion")})
    found = render(other)
    assert found.inside.abs().max() == 0 and change(found, render(model)) > 1e-3
    assert change(found, render(other, drive=motion(other, seed=5))) > 1e-4  # the field still moves it


@pytest.mark.parametrize("samples", [8, 4, 3])
def test_of_a_camera_that_rests_only_what_changes_is_asked_and_every_frame_is_the_same(model, samples):
    """Frames of a resting camera together are the frames alone, which rest beside no other; rays beside the face are asked
    about once, and show what they showed."""
    with torch.no_grad():
        model.radiance.out.weight[0].mul_(4)
        appearance = model.with_occupancy(model.encode(portraits()), samples)
        drive, views = motion(model), cameras()
        asked = []
        hook = model.radiance.register_forward_hook(lambda _, given, __: asked.append(given[1].shape[1:-1].numel()))
        together = model.render(appearance, drive, views)
        resting, asked[:] = sum(asked), []
        alone = [model.render(appearance, drive[:, frame:frame + 1], views[:, frame:frame + 1]) for frame in range(FRAMES)]
        hook.remove()
        model.radiance.out.weight[0].div_(4)
    assert 0.3 * sum(asked) < resting < 0.95 * sum(asked)
    for name in ("image", "raw", "opacity", "source", "depth"):
        expected = torch.cat([getattr(frame, name) for frame in alone], 1)
        torch.testing.assert_close(getattr(together, name), expected, atol=2e-5, rtol=1e-5)
    changes = (together.raw - together.raw[:, :1]).abs().amax((0, 1, 2))
    assert changes.max() > 1e-3 and not changes[:, :2].any() and not changes[:, -2:].any()


def test_a_camera_rests_or_it_does_not(model):
    views = cameras()
    assert rests(views) and not rests(views[:, :1])
    moved = Cameras(views.camera_to_world.clone(), views.intrinsics)
    moved.camera_to_world[1, 2, 0, 3] += 1e-6
    assert not rests(moved) and not rests(Cameras(views.camera_to_world, views.intrinsics * torch.tensor([1, 1, 1.1])[None, :, None, None]))
