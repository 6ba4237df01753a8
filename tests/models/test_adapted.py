"""An adapted head starts as the one-shot model, and every part that it has of its own is at work."""
import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from s3dnerf.data.person import learned_frames
from s3dnerf.errors import InputError
from s3dnerf.inference import TalkingHead
from s3dnerf.models.adapted import LIPS, AdaptedHead, typical_frame
from s3dnerf.models.hub import load_model, save_model
from s3dnerf.types import Condition

FRAMES = torch.tensor([2, 11, 30])


@pytest.fixture(scope="module")
def one_shot(tiny_head):
    found = copy.deepcopy(tiny_head)
    torch.manual_seed(1)
    with torch.no_grad():  # as if it had learned something
        found.deformation.out.weight.normal_(std=0.3)
        found.super_resolution.leave.weight.normal_(std=0.05)
        found.speech.code[-1].weight.mul_(2)
    found.mouth_gain = found.arguments["mouth_gain"] = 1.4
    return found.eval()


@pytest.fixture
def head(one_shot, person_video):
    torch.manual_seed(0)
    found = AdaptedHead().started_from(one_shot).eval()
    found.adopt(person_video, learned_frames(len(person_video.frames)))
    heard = found.listen(person_video.mel)
    found.attention.fit(heard, found.lip_codes(person_video.mesh)[0])
    return found


def told(head, video, by_lips):
    """What the frames are under."""
    lips, eyes = head.lip_codes(video.mesh)
    code = lips[FRAMES] if by_lips else head.speech_code(head.listen(video.mel[FRAMES]), torch.arange(3))
    return Condition(code, eyes[FRAMES], FRAMES)


def shown(head, video, by_lips=False):
    return head.render(video.cameras[FRAMES], told(head, video, by_lips)).image


@torch.no_grad()
def test_the_first_frames_are_the_one_shot_model_s(head, one_shot, person_video):
    appearance = one_shot.with_detail(one_shot.encode(head.portrait))
    cameras = person_video.cameras[FRAMES].map(lambda x: x[None])
    codes = one_shot.face_code.driving(person_video.mesh, person_video.mesh.mean(0))[FRAMES][None]
    expected = one_shot.render(appearance, one_shot.drive_face(codes), cameras).image[0]
    assert torch.equal(shown(head, person_video, by_lips=True), expected)
    heard = one_shot.drive(person_video.mel[FRAMES][None])
    heard = replace(heard, code=torch.cat([heard.code[..., :-1], codes[..., -1:]], -1))
    expected = one_shot.render(appearance, heard, cameras).image[0]
    assert torch.allclose(shown(head, person_video), expected, atol=1e-4)  # how sums are split depends on the threads


@pytest.mark.parametrize("change", [
    lambda head: head.planes[0].add_(torch.randn_like(head.planes[0])),
    lambda head: head.planes[3].add_(torch.randn_like(head.planes[3])),
    lambda head: head.texture.add_(0.1), lambda head: head.detail.add_(0.1),
    lambda head: head.basis.shift[0].add_(1.0), lambda head: head.basis.shift[7].add_(1.0),
    lambda head: head.basis.shade[3].add_(1.0), lambda head: head.trust.add_(1.0), lambda head: head.plate.add_(1.0),
    lambda head: head.head.surroundings.table[0, 1].mul_(0.5),
    *(lambda head, layer=layer: head.head.get_submodule(layer).parametrizations.weight[0].up.normal_()
      for layer in ("fusion.merge", "deformation.out", "radiance.out", "super_resolution.leave"))])
def test_every_part_is_at_work(head, person_video, change):
    before = shown(head, person_video)
    with torch.no_grad():
        change(head)
    assert (shown(head, person_video) - before).abs().max() > 1e-4


def test_the_photo_changes_with_the_eyes_where_it_was_taught_to(head, person_video):
    found, cameras = told(head, person_video, True), person_video.cameras[FRAMES]
    change = lambda: [head.look(cameras, replace(found, eyes=found.eyes + wider)).warped[..., :8, :] for wider in (0.0, 0.5)]
    assert torch.equal(*change())
    with torch.no_grad():
        head.basis.shade[7, :, :20].fill_(1.0)
    shut, wide = change()
    assert (shut - wide).abs().max() > 0.01


def test_trusted_the_person_s_own_reading_is_what_is_heard(head, person_video):
    heard = head.listen(person_video.mel)
    with torch.no_grad():
        head.trust.fill_(1.0)
    own = head.amplified(head.attention(torch.stack([heard[26:34]])), head.reading_gain)
    code = head.speech_code(heard, torch.tensor([30]), gain=2.0)
    assert torch.allclose(code[:, :LIPS], 2 * own, atol=1e-6)
    assert torch.equal(code[0, LIPS:], head.head.no_speech.flatten())


def test_a_bundle_gives_the_person_back_who_speaks(head, person_video, tmp_path):
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    save_model(head, tmp_path)
    back = load_model(tmp_path)
    assert torch.equal(shown(back, person_video), shown(head, person_video))
    sound = 0.1 * torch.sin(torch.arange(3200) / 9)
    codes = back.speech_codes(sound)
    assert codes.shape == (5, LIPS + back.head.no_speech.numel()) and torch.equal(codes, head.speech_codes(sound))


def test_it_goes_to_another_process(head):
    scene = TalkingHead(head).speak(speech=0.1 * np.sin(np.arange(3200) / 9)).scene
    with torch.inference_mode():
        before, after = (one.frames(2, 2) for one in (scene, pickle.loads(pickle.dumps(scene))))
    assert np.array_equal(before, after)


def test_another_background_leaves_the_person(head, person_video):
    found, camera = told(head, person_video, True), person_video.cameras[FRAMES]
    plain, green = head.render(camera, found).image, torch.tensor([0.0, 1.0, 0.0])[:, None, None].expand(3, 64, 64)
    other = head.render(camera, found, green).image
    assert torch.allclose(other[:, :, 30:36, 30:36], plain[:, :, 30:36, 30:36], atol=0.02)
    assert torch.allclose(other[:, 1, 0, 0], torch.ones(3), atol=0.02) and (plain[:, 1, 0, 0] < 0.9).all()


@torch.no_grad()
def test_the_recorded_background_given_anew_changes_nothing(head, person_video):
    head.plate.fill_(1)
    again = head.render(person_video.cameras[FRAMES], told(head, person_video, False), head.background).image
    assert torch.equal(again, shown(head, person_video))


def test_the_photo_is_a_usual_frame(person_video):
    moved = person_video.cameras.camera_to_world.clone()
    moved[:14, 0, 3] += 0.5
    video = replace(person_video, cameras=replace(person_video.cameras, camera_to_world=moved))
    assert typical_frame(video, 36) >= 14 > typical_frame(video, 20)


def test_frames_of_another_size_are_refused(person_video):
    with pytest.raises(InputError, match="data.size to 256"):
        AdaptedHead().adopt(person_video, 30)
