"""A learned person who speaks: what each option does, and what is refused."""
import pickle

import numpy as np
import pytest
import torch

from s3dnerf.errors import InputError
from s3dnerf.inference import TalkingHead
from s3dnerf.media import read_frames
from s3dnerf.personal import PersonPath, followed_body, followed_lips


@pytest.fixture(scope="module")
def head(new_person):
    return TalkingHead(new_person(), "me")


SOUND = (0.1 * np.sin(np.arange(4480) / 9)).astype(np.float32)


def frames(head, **options):
    return np.stack(list(head.speak(speech=SOUND, **options)))


def test_a_person_speaks_without_a_photo(head, tmp_path):
    video = head.speak(speech=SOUND)
    assert (len(video), video.width, video.height) == (7, 64, 64)
    assert video.photo is None
    video.save(tmp_path / "out.mp4", tmp_path / "sheet.png")
    assert len(list(read_frames(tmp_path / "out.mp4"))) == 7 and (tmp_path / "sheet.png").stat().st_size > 0
    assert video.statistics.seconds["render"] > 0


def test_a_person_has_one_quality_and_says_so(head):
    found = head.speak(speech=SOUND, quality="fast")
    assert any("one quality" in remark for remark in found.statistics.remarks) and found.statistics.quality == "best"
    assert not any("one quality" in remark for remark in head.speak(speech=SOUND).statistics.remarks)


def test_frames_are_the_model_s(head):
    from s3dnerf.types import Cameras, Condition

    model = head.model
    codes = model.speech_codes(torch.from_numpy(SOUND))
    condition = Condition(codes[5:6], model.path_eyes[5:6, None], torch.tensor([-1]))
    expected = model.render(Cameras(model.path[5:6], model.intrinsics[None]), condition).image[0].clamp(0, 1)
    found = torch.from_numpy(frames(head)[5]).permute(2, 0, 1) / 255
    torch.testing.assert_close(found, expected, atol=1 / 255, rtol=0)


def test_natural_moves_as_recorded_and_still_does_not(head, person_video):
    path = PersonPath.natural(head.model)
    assert torch.equal(path.at(0, 36)[0].camera_to_world, person_video.cameras.camera_to_world[:36])
    still = PersonPath.still(head.model)
    assert torch.equal(still.at(0, 3)[0].camera_to_world[0], still.at(7, 3)[0].camera_to_world[2])


def test_it_goes_to_another_process(head):
    scene = head.speak(speech=SOUND, eyes=0.5, camera=(5.0, 0.0), background="#00ff00").scene
    with torch.inference_mode():
        before, after = (one.frames(2, 2) for one in (scene, pickle.loads(pickle.dumps(scene))))
    assert np.array_equal(before, after)


def test_options_change_what_they_say(head):
    plain = frames(head, pose="still")
    assert not np.array_equal(frames(head, pose="still", camera=(20.0, 0.0)), plain)
    assert not np.array_equal(frames(head, pose="still", mouth_gain=4.0), plain)
    shut = np.abs(frames(head, pose="still", eyes=0.0).astype(int) - plain).max((0, 2, 3))
    assert shut.max() > 1 and shut[40:].max() == 0
    green = frames(head, pose="still", background="#00ff00")
    assert (green[:, 0, 0] != plain[:, 0, 0]).any() and not np.array_equal(green, plain)


def test_a_recorded_pose_is_brought_to_the_model_s_own_focal_length(head, person_video):
    from s3dnerf.data.tracking import Track
    from s3dnerf.geometry import project, rigid_inverse

    pose = rigid_inverse(person_video.cameras.camera_to_world[:4]).numpy()
    far = pose[:, :3, 3] * np.array([1, 1, 2])  # twice as far, with twice the focal length
    track = Track(np.zeros((4, 478, 2)), pose[:, :3, :3], far, 512.0, (64, 64), np.zeros(4))
    object.__setattr__(track, "mesh", lambda: person_video.mesh[:4].numpy())
    path = PersonPath.recorded(head.model, track)
    assert torch.equal(path.cameras.intrinsics[0], head.model.intrinsics)
    box = track.crop_box()
    seen = project(person_video.mesh[:4], track.cameras(box, 64))[0]
    own = project(person_video.mesh[:4], path.cameras)[0]
    assert (seen - own).abs().mean() < 1.0


def test_narrow_eyes_of_a_recording_open_and_shut_those_of_the_person(head, person_video, monkeypatch):
    from s3dnerf import poses
    from s3dnerf.data.tracking import Track
    from s3dnerf.face import opening_of, shut_opening

    usual = float(head.model.path_eyes.median())
    wide = torch.tensor(opening_of(usual))
    shares = torch.tensor([1, 1, 1, 0.5, 0, 1, 1])
    pose = np.tile(np.eye(4), (7, 1, 1))
    pose[:, 2, 3] = 8.0
    track = Track(np.zeros((7, 478, 2)), pose[:, :3, :3], pose[:, :3, 3], 512.0, (64, 64), np.zeros(7))
    object.__setattr__(track, "mesh", lambda: person_video.mesh[:7].numpy())
    for recorded in (wide, 0.6 * wide):
        shut = shut_opening(recorded)
        monkeypatch.setattr(poses, "eye_opening", lambda mesh: shut + shares * (recorded - shut))
        eyes = PersonPath.recorded(head.model, track).eyes
        assert torch.allclose(opening_of(eyes), shut_opening(wide) + shares * (wide - shut_opening(wide)), atol=1e-5)


def test_what_cannot_be_is_told(head, tiny_head, tmp_path):
    with pytest.raises(InputError, match="leave the photo out"):
        head.speak("face.jpg", SOUND)
    with pytest.raises(InputError, match="missing --photo"):
        TalkingHead(tiny_head).speak(speech=SOUND)
    with pytest.raises(InputError, match="square around the head"):
        head.speak(speech=SOUND, frame="full")


def test_lips_that_drive_are_the_recording_s_played_back_and_forth(head, new_person, person_video):
    from types import SimpleNamespace

    track = SimpleNamespace(mesh=lambda: person_video.mesh[:5].numpy())
    codes = followed_lips(head.model, track, 9)
    expected = head.model.lip_codes(person_video.mesh[:5])[0]
    assert torch.allclose(codes[:5], expected) and torch.allclose(codes[5], expected[3])
    assert torch.allclose(followed_lips(head.model, track, 9, 2.0), 2 * codes)
    with pytest.raises(InputError, match="--drive is about"):
        TalkingHead(new_person(code_size=64, readout="convolution")).speak(drive="lips.mp4")


@pytest.fixture(scope="module")
def moving(new_person):
    """A person whose torso has a motion of its own, as if that had been learned."""
    model = new_person(torso={"levels": 3, "channels": 2, "finest": 32, "entries": 2048, "body": True})
    with torch.no_grad():
        model.torso.grid.table.normal_()
        model.path_body[:36] = 0.05 * torch.randn(36, 4)
    return TalkingHead(model, "me")


def test_the_recording_s_torso_motion_is_replayed_but_not_under_a_moving_camera(moving):
    model, path = moving.model, PersonPath.natural(moving.model)
    assert torch.equal(path.at(3, 2)[2], model.path_body[3:5])
    assert torch.equal(PersonPath.still(model).at(0, 4)[2], model.path_body[:1].expand(4, 4))
    assert path.smoothed(0.2).body.std() < 0.7 * path.body.std()
    look = lambda **options: frames(moving, pose="still", **options)
    here, turned = look(), look(camera=(20.0, 0.0))
    model.path_body[0] += 0.1
    assert not np.array_equal(look(), here) and np.array_equal(look(camera=(20.0, 0.0)), turned)
    model.path_body[0] -= 0.1


def test_a_recorded_torso_is_counted_from_where_it_usually_is(moving, head, person_video, monkeypatch):
    from s3dnerf import personal
    from s3dnerf.data.tracking import CropBox, Track

    pose = np.tile(np.eye(4), (6, 1, 1))
    pose[:, 2, 3] = 8.0
    track = Track(np.zeros((6, 478, 2)), pose[:, :3, :3], pose[:, :3, 3], 512.0, (64, 64), np.zeros(6))
    object.__setattr__(track, "mesh", lambda: person_video.mesh[:6].numpy())
    body = 0.3 + 0.01 * torch.arange(24.0).view(6, 4)
    path = PersonPath.recorded(moving.model, track, body)
    assert torch.allclose(path.body.mean(0), moving.model.path_body.mean(0), atol=1e-6)
    assert torch.allclose(path.body - path.body[0], body - body[0], atol=1e-6)
    assert followed_body(head.model, "nothing.mp4", track) is None
    stripes = (np.indices((64, 64)).sum(0)[None] * 3 + 20 * np.arange(6)[:, None, None])[..., None].repeat(3, -1) % 255
    monkeypatch.setattr(personal, "read_frames", lambda video: iter(stripes.astype(np.uint8)))
    monkeypatch.setattr(Track, "crop_box", lambda self: CropBox(0.0, 0.0, 64.0))
    below = np.indices((6, 16, 16))[1] > 8
    seen = []
    monkeypatch.setattr(personal, "segment", lambda crops, *rest: (seen.extend(crops), (~below, below))[1])
    assert followed_body(moving.model, "me.mp4", track).shape == (6, 4) and len(seen) == 6
