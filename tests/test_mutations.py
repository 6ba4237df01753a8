"""The shipped model passes checks that a fake would not: each way to fake it makes at least one of them fail."""
import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from s3dnerf.data.tracking import FaceTracker
from s3dnerf.face import LIPS
from s3dnerf.geometry import orbit, project
from s3dnerf.losses import lip_weights
from s3dnerf.media import SAMPLES_PER_FRAME, read_image, read_sound
from s3dnerf.models.hub import load_model
from s3dnerf.types import Cameras, Motion, Portrait, Window

ASSETS = Path(__file__).parents[1] / "s3dnerf" / "assets"
STRIDE, SECONDS, EVERY = 8, 4, 4


class Scene:
    """The demo photo and four seconds of the demo speech, every second one silent; prepared once."""

    def __init__(self):
        portrait, _, _ = FaceTracker().portrait(read_image(ASSETS / "demo_photo.jpg"))
        self.portrait = Portrait.stack([portrait])
        self.sound = torch.from_numpy(read_sound(ASSETS / "demo_speech.wav"))[: SECONDS * 16000].clone()
        self.sound.view(SECONDS, 16000)[1::2] = 0
        self.frames = SECONDS * 25
        window = Window(torch.zeros(1), torch.zeros(1), 256, 256)
        lips = project(self.portrait.mesh[:, list(LIPS)], self.portrait.cameras)[0][:, None]
        self.lip_box = lip_weights(lips, window, 2.0)[0, 0, 0] > 1
        power = self.sound.reshape(self.frames, SAMPLES_PER_FRAME).square().mean(1)
        self.loudness = torch.log10(1e-4 + power.sqrt())

    def motion(self, model, sound=None):
        sequence = model.features.sequence(self.sound if sound is None else sound)
        return model.drive(model.features.windows(sequence, 0, self.frames)[None])

    def render(self, model, motion, yaw=0.0):
        """Every fourth frame, [T, 3, 256, 256]."""
        motion = Motion(motion.code[:, ::EVERY], motion.tokens[:, ::EVERY])
        camera = orbit(self.portrait.cameras[0], torch.tensor(yaw), torch.tensor(0.0))
        count = motion.code.shape[1]
        cameras = Cameras(camera.camera_to_world.expand(1, count, 4, 4), camera.intrinsics.expand(1, count, 3, 3))
        return model.render(model.encode(self.portrait), motion, cameras, stride=STRIDE).image[0]


@pytest.fixture(scope="module")
def scene():
    return Scene()


@pytest.fixture(scope="module")
def model():
    return load_model()


def opening(model, motion):
    lips = model.face_code.displacement(motion.code[0])
    upper, lower = model.face_code.points.index(13), model.face_code.points.index(14)
    return (lips[:, lower, 1] - lips[:, upper, 1]).detach()


def movement(frames, box):
    """Mean change over time, in levels of 255, inside the box."""
    return 255 * frames.std(0).mean(0)[box].mean().item()


def the_photo_is_recognised(model, scene):
    frame, photo = scene.render(model, scene.motion(model))[0], scene.portrait.image[0]
    assert -10 * torch.log10((frame - photo).square().mean()) > 20


def the_mouth_moves_and_the_brow_does_not(model, scene):
    frames = scene.render(model, scene.motion(model))
    brow = torch.zeros_like(scene.lip_box)
    brow[40:80, 90:166] = True
    assert movement(frames, scene.lip_box) > 2.0
    assert movement(frames, scene.lip_box) > 3 * movement(frames, brow)


def silence_keeps_the_mouth_still(model, scene):
    quiet = scene.render(model, scene.motion(model, torch.zeros_like(scene.sound)))
    loud = scene.render(model, scene.motion(model))
    assert movement(quiet, scene.lip_box) < movement(loud, scene.lip_box) / 3


def the_mouth_speaks_with_the_sound_and_rests_in_its_pauses(model, scene):
    correlation = max(np.corrcoef(opening(model, scene.motion(model))[3:-3], scene.loudness[3 + lag:len(scene.loudness) - 3 + lag])
                      [0, 1] for lag in range(-3, 4))
    assert correlation > 0.4


def the_camera_turns_the_head(model, scene):
    motion = scene.motion(model)
    assert (scene.render(model, motion, 0.15) - scene.render(model, motion)).abs().mean() > 0.01


def every_scale_of_planes_is_used(model, scene):
    appearance, motion = model.encode(scene.portrait), scene.motion(model)[:, :1]
    cameras = scene.portrait.cameras[:, None]
    render = lambda planes: model.render(replace(appearance, planes=planes), motion, cameras, stride=STRIDE).raw
    whole = render(appearance.planes)
    for scale in range(len(appearance.planes)):
        rest = tuple(plane * (index != scale) for index, plane in enumerate(appearance.planes))
        assert (render(rest) - whole).abs().mean() > 5e-4, f"scale {scale}"


def the_learned_field_adds_to_the_landmarks(model, scene):
    lamed = copy.deepcopy(model)
    torch.nn.init.zeros_(lamed.deformation.out.weight)
    torch.nn.init.zeros_(lamed.deformation.out.bias)
    motion = scene.motion(model)
    change = (scene.render(lamed, motion) - scene.render(model, motion)).abs().mean((0, 1))
    assert 255 * change[scene.lip_box].mean() > 1.0


CHECKS = [the_photo_is_recognised, the_mouth_moves_and_the_brow_does_not, silence_keeps_the_mouth_still,
          the_mouth_speaks_with_the_sound_and_rests_in_its_pauses, the_camera_turns_the_head, every_scale_of_planes_is_used,
          the_learned_field_adds_to_the_landmarks]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@torch.inference_mode()
def test_shipped_model(check, model, scene):
    check(model, scene)


def constant_image(fake, scene):
    render = fake.render
    fake.render = lambda *args, **options: (lambda r: replace(r, image=r.image * 0 + 0.5))(render(*args, **options))


def source_copied(fake, scene):
    render, photo = fake.render, scene.portrait.image[:, None]
    fake.render = lambda *args, **options: (lambda r: replace(r, image=photo.expand_as(r.image)))(render(*args, **options))


def speech_shuffled_in_time(fake, scene):
    drive, order = fake.drive, torch.randperm(scene.frames, generator=torch.Generator().manual_seed(0))
    fake.drive = lambda speech, gain=None: drive(speech[:, order[order < speech.shape[1]]], gain)


def deformation_and_modulation_zeroed(fake, scene):
    flow = fake.flow

    def still(appearance, motion):
        found = flow(appearance, motion)
        maps = torch.cat([found.mesh.maps[:, :, :5] * 0, found.mesh.maps[:, :, 5:] * 0 + 1], 2)
        return replace(found, mesh=replace(found.mesh, maps=maps), lattice=found.lattice.map(lambda x: x * 0))

    fake.flow = still


def one_scale_zeroed(fake, scene):
    encode = fake.encode

    def lamed(portrait):
        appearance = encode(portrait)
        return replace(appearance, planes=(*appearance.planes[:2], appearance.planes[2] * 0, appearance.planes[3]))

    fake.encode = lamed


@pytest.mark.parametrize("fake_it", [constant_image, source_copied, speech_shuffled_in_time, deformation_and_modulation_zeroed,
                                     one_scale_zeroed], ids=lambda mutation: mutation.__name__)
@torch.inference_mode()
def test_fakes_are_caught(fake_it, model, scene):
    fake = copy.deepcopy(model)
    fake_it(fake, scene)
    caught = []
    for check in CHECKS:
        try:
            check(fake, scene)
        except AssertionError:
            caught.append(check.__name__)
    assert caught
