"""The whole person: what each input may change, what is taken over from the recording, what is kept."""
import pytest
import torch

from s3dnerf.geometry import cast_rays, pixel_grid, project
from s3dnerf.models.hub import load_model, save_model
from s3dnerf.models.rad_nerf import RADNeRF, before_face, pixel_rays, visual_hull
from s3dnerf.types import Condition


@pytest.fixture(scope="module")
def video(person_video):
    return person_video


@pytest.fixture(scope="module")
def model(new_person):
    return new_person()


def condition(model, video, frames=(0, 9), frame=-1, **changes):
    lips, eyes = model.lip_codes(video.mesh)
    chosen = torch.tensor(frames)
    values = {"code": lips[chosen], "eyes": eyes[chosen], "frame": torch.full((len(frames),), frame)} | changes
    return Condition(**values)


def render(model, video, frames=(0, 9), **changes):
    return model.render(video.cameras[torch.tensor(frames)], condition(model, video, frames, **changes))


def test_layers_make_up_the_image_and_the_background_is_the_recording_s(model, video):
    found = render(model, video)
    below = found.torso + (1 - found.torso_opacity) * video.background.permute(2, 0, 1) / 255
    assert torch.allclose(found.image, found.head + (1 - found.opacity) * below, atol=1e-6)
    assert found.opacity.max() > 0.5 and found.opacity[..., :3, :3].max() == 0
    green = torch.tensor([0.0, 1, 0])[:, None, None].expand(3, 64, 64)
    other = model.render(video.cameras[:2], condition(model, video), green)
    assert torch.allclose(other.head, model.render(video.cameras[:2], condition(model, video)).head)
    assert not torch.allclose(other.image, found.image, atol=0.05)


def test_frames_are_rendered_by_themselves(model, video):
    both = render(model, video)
    assert torch.allclose(both.image[1:], render(model, video, (9,)).image, atol=1e-6)


def test_speech_changes_the_lower_face_and_nothing_else(model, video):
    quiet, loud = render(model, video), render(model, video, code=torch.full((2, 12), 3.0))
    change, nose = (quiet.head - loud.head).abs().amax(1), project(video.mesh[[0, 9]][:, [6]], video.cameras[[0, 9]])[0][..., 1]
    above = (torch.arange(64) + 0.5)[None, :, None] < nose[..., None]
    assert change.max() > 0.01 and change[above.expand_as(change)].max() < 1e-5
    assert torch.equal(quiet.torso, loud.torso)


def test_the_audio_coordinate_follows_speech_at_the_lips_alone(model, video):
    points = video.mesh.mean(0)[[13, 14, 0, 17, 10, 151, 159, 386]]  # lips, forehead, lids
    codes = model.lip_codes(video.mesh)[0][::4]
    sizes = torch.stack([model.field.density(points, model._in_box(points), code[None], torch.zeros(1, 1),
                                             torch.zeros(8, dtype=torch.long))[2][:, 0] for code in codes])
    assert sizes.std(0)[:4].min() > 0.01 and sizes[:, 4:].max() == 0


def test_eyes_change_pixels_near_the_eyes_only(model, video):
    wide, shut = (render(model, video, eyes=torch.full((2, 1), value)) for value in (1.0, -3.0))
    change = (wide.image - shut.image).abs().amax(1)
    lids = project(video.mesh[[0, 9]][:, [33, 133, 362, 263]], video.cameras[[0, 9]])[0]
    eyes = (lids[..., 1].mean(-1), (lids[:, 3, 0] - lids[:, 0, 0]))
    rows = torch.arange(64) + 0.5
    for frame in range(2):
        far = (rows - eyes[0][frame]).abs() > 0.7 * eyes[1][frame]
        assert change[frame].max() > 0.005 and change[frame][far].max() < 1e-5


def test_appearance_is_that_of_a_frame_or_the_mean(model, video):
    assert not torch.allclose(render(model, video, frame=3).head, render(model, video).head, atol=1e-3)
    mean = model.head_codes[:int(model.seen)].mean(0)
    assert torch.allclose(model._appearance(model.head_codes, torch.tensor([-1, 2])),
                          torch.stack([mean, model.head_codes[2]]))


def test_the_torso_moves_with_the_pose_and_may_be_left_out(new_person, video):
    found = new_person()
    with torch.no_grad():
        found.torso.deform_pose.weight.normal_()
        found.torso.grid.table.normal_()
    assert not torch.allclose(render(found, video, (0, 0)).torso[0], render(found, video, (0, 20)).torso[1], atol=1e-3)
    none = new_person(torso=None)
    assert render(none, video).torso_opacity.max() == 0


def test_no_torso_in_the_head(model, video):
    """The head alone, over black, ends a little below the chin."""
    chin = project(video.mesh[:1, [9, 152]], video.cameras[:1])[0][0, :, 1]
    last = (render(model, video, (0,)).opacity[0, 0] > 0.5).any(1).nonzero().max()
    assert last < chin[1] + 0.35 * (chin[1] - chin[0])


def test_rays_agree_with_the_one_shot_model_s(video):
    ours = pixel_rays(video.cameras[:1], pixel_grid(64, 64, video.mesh)[None])
    theirs = cast_rays(video.cameras[:1], 64, 64)
    assert torch.allclose(ours.directions, theirs.directions, atol=1e-6) and torch.allclose(ours.origins, theirs.origins)


def test_the_hull_holds_the_face_and_not_what_is_beside_it(video):
    inside = visual_hull(video.mesh[:10].mean(0), video.cameras[:10], video.head[:10])
    assert inside.float().mean() > 0.95
    beside = torch.tensor([[1.1, 0.6, 0.0], [-1.1, 0.6, 0.0]])
    assert not visual_hull(beside, video.cameras[:10], video.head[:10]).any()


def test_speech_codes_follow_the_sound_frame_by_frame(model, video):
    codes = model.speech_codes(video.sound)
    assert codes.shape == (40, 12)
    changed = video.sound.clone()
    changed[30 * 640:] = 0
    other = model.speech_codes(changed)
    assert torch.allclose(codes[:15], other[:15], atol=1e-4) and not torch.allclose(codes[30:], other[30:], atol=1e-3)
    shut, timid, wide = (model.opening(model.speech_codes(video.sound, gain)) for gain in (0.0, 1.0, 2.0))
    assert torch.allclose(wide - timid, timid - shut, atol=1e-5) and timid.std() > 0


def test_amplified_lips_are_as_far_apart_in_the_mean_as_the_person_s(new_person, video):
    """A factor on the code itself would move the mean: a person's is not the mean face's."""
    found = new_person()
    lips = found.lip_codes(video.mesh)[0] + torch.linspace(0.5, -0.5, 12)
    heard = found.listen(video.mel)
    found.attention.fit(heard, lips)
    code = found.hear(heard, torch.arange(40))
    usual, opening = found.opening(lips.mean(0)), found.opening(code)
    for gain in (0.0, 1.0, 1.6):
        louder = found.amplified(code, gain)
        assert torch.allclose(found.opening(louder) - usual, gain * (opening - usual), atol=1e-5)
        # and above 1 nothing else: what is added is the same movement for all frames
        assert gain < 1 or torch.linalg.matrix_rank(louder - code, atol=1e-5) == (gain != 1)
    assert torch.allclose(found.speech_codes(video.sound, 0.0), lips.mean(0).expand(40, 12), atol=1e-5)


def test_heard_lips_open_as_far_as_tracked_ones(new_person, video):
    found, (lips, _) = new_person(), new_person().lip_codes(video.mesh)
    heard = found.hear(found.listen(video.mel), torch.arange(40))
    found.match_spread(heard, lips)
    opening = found.opening(found.speech_codes(video.sound))
    assert found.mouth_gain != 1 and opening.std().item() == pytest.approx(found.opening(lips).std().item(), rel=0.02)
    fixed = new_person(mouth_gain=1.7)
    fixed.match_spread(heard, lips)
    assert fixed.mouth_gain == 1.7


def test_speech_is_heard_as_tokens_and_as_it_sounds(model, video):
    heard = model.listen(video.mel)
    tokens = model.listener(video.mel)[0].transpose(1, 2)
    assert heard.shape == (40, 128, 8) and torch.allclose(heard[:, :48], tokens, atol=1e-5)
    assert torch.allclose(heard[:, 48:].mean(-1), video.mel.mean(-1), atol=1e-4)


def test_the_kernel_hears_with_the_expert_s_ear_too(new_person, video, tmp_path):
    found = new_person(readout="kernel").train()
    heard = found.listen(video.mel)
    assert heard.shape == (40, 155, 8) and found.training and found.ear.training
    assert torch.equal(heard, found.eval().listen(video.mel))  # without dropout
    with torch.no_grad():
        found.ear[-1].bias.add_(1)
    other = found.listen(video.mel)
    assert torch.equal(heard[:, :128], other[:, :128]) and torch.allclose(heard[:, 128:143] + 1, other[:, 128:143], atol=1e-5)
    anybody_s = found.listener(video.mel)[1]  # the lip code that is heard for anybody
    assert torch.allclose(heard[:, 143:], anybody_s[..., None].expand(-1, -1, 8), atol=1e-5)
    found.attention.fit(heard, found.lip_codes(video.mesh)[0])
    save_model(found, tmp_path)
    assert torch.allclose(load_model(tmp_path).speech_codes(video.sound), found.speech_codes(video.sound), atol=1e-5)


def test_a_code_without_a_meaning_is_the_paper_s_way(new_person, video):
    found = new_person(code_size=64, features="mel", readout="convolution")
    assert not found.by_lips and found.listener is None and found.speech_codes(video.sound).shape == (40, 64)


def test_a_bundle_gives_the_person_back(model, video, tmp_path):
    save_model(model, tmp_path)
    back = load_model(tmp_path)
    assert isinstance(back, RADNeRF)
    assert torch.allclose(render(back, video).image, render(model, video).image)


def test_nothing_is_looked_for_before_the_tracked_face(model, video):
    mesh = video.mesh.mean(0)
    assert not before_face(mesh, mesh).any() and before_face(mesh - torch.tensor([0.0, 0, 0.2]), mesh).all()
    nose = mesh[4] - torch.tensor([0.0, 0, 0.3])
    assert not model.grid.at(model.grid.density >= 0, nose[None]).item()
