"""Every control, with a photo and with a learned person: it changes what it says, and that alone."""
import json
from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image

from s3dnerf.controls import Controls, filling
from s3dnerf.data.detection import FaceDetector
from s3dnerf.data.tracking import Track
from s3dnerf.driving import FaceDrive
from s3dnerf.errors import InputError
from s3dnerf.face import EYE_CORNERS, EYELIDS, metric_face
from s3dnerf.geometry import project, rigid_inverse, rotation_from_euler
from s3dnerf.inference import TalkingHead
from s3dnerf.media import read_image
from s3dnerf.paste import photo_matte
from s3dnerf.personal import PersonPath, followed_lips
from s3dnerf.poses import CLOSED, Blinks, FixedEyes, RecordedHead, smoothed
from s3dnerf.types import Condition

TIME = np.arange(6400) / 16000
SOUND = (np.random.default_rng(0).normal(0, 0.2, 6400) * np.sin(2 * np.pi * 6 * TIME) ** 2).clip(-1, 1).astype(np.float32)
FACE = torch.from_numpy(metric_face())


@pytest.fixture(scope="module")
def photo():
    return read_image(files("s3dnerf") / "assets" / "demo_photo.jpg")


@pytest.fixture(scope="module")
def speaks(tiny_head, new_person, photo):
    """The video of a kind (face, full: of the photo; person) under options, and what it shows."""
    heads = {"photo": TalkingHead(tiny_head, "any"), "person": TalkingHead(new_person(), "me")}

    def make(kind, **options):
        if kind == "person":
            return heads["person"].speak(speech=SOUND, **{"pose": "still", **options})
        return heads["photo"].speak(photo, SOUND, frame=kind, **{"pose": "still", **options})

    return make


def shown(video, count=3):
    with torch.inference_mode():
        return video.scene.frames(0, count).astype(int)


def differs(first, second):
    """[H, W] the largest difference at each pixel, over frames and colours."""
    return np.abs(first - second).max((0, 3))


KINDS = pytest.mark.parametrize("kind", ["face", "full", "person"])


@KINDS
def test_zoom_makes_everything_larger_about_the_head(kind, speaks, photo):
    plain, near = shown(speaks(kind), 2), shown(speaks(kind, camera=(0, 0, 1.6)), 2)
    assert plain.shape == near.shape
    region = speaks(kind).scene.region
    y, x = ((part.start + part.stop) / 2 for part in region)
    height, width = plain.shape[1:3]
    box = (x - x / 1.6, y - y / 1.6, x + (width - x) / 1.6, y + (height - y) / 1.6)
    due = Image.fromarray(plain[1].astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC, box=box)
    inner = np.s_[8:-8, 8:-8]
    error = np.abs(near[1] - np.asarray(due).astype(int))[inner].mean()
    assert error < 1 < 5 * error + 1 < np.abs(plain[1] - np.asarray(due).astype(int))[inner].mean()
    if kind == "full":  # and by its landmarks
        with FaceDetector(still=True) as detector:
            eyes = [np.linalg.norm(np.diff(detector.faces(frame.astype(np.uint8))[0][list(EYE_CORNERS)], axis=0))
                    for frame in (plain[1], near[1])]
        assert eyes[1] / eyes[0] == pytest.approx(1.6, abs=0.05)


def eye_places(video):
    """[H, W] distance of each pixel of the square around the head from the nearest lid, in head units."""
    scene = video.scene
    if hasattr(scene, "cameras"):
        cameras, mesh = scene.cameras(0, 1), scene.appearance.portrait.mesh
    else:
        cameras, mesh = scene.path.at(0, 1)[0], FACE[None]
    lids = project(mesh, cameras)[0][0, list(EYELIDS)].numpy()
    y, x = np.mgrid[:scene.height, :scene.width] + 0.5
    unit = float(cameras.intrinsics[0, 0, 0] / rigid_inverse(cameras.camera_to_world)[0, 2, 3])
    return np.linalg.norm(np.stack([x, y], -1)[:, :, None] - lids, axis=-1).min(-1) / unit


@pytest.mark.parametrize("kind", ["face", "person"])
def test_fixed_eyes_change_pixels_around_the_eyes_alone(kind, speaks):
    plain, shut, usual = (speaks(kind, **options) for options in ({}, {"eyes": 0.0}, {"eyes": "1"}))
    change = differs(shown(plain), shown(shut))
    near = eye_places(plain) < 0.45
    assert change[near].max() > 4 and change[~near].max() <= max(1, 0.15 * change[near].max())
    assert not differs(shown(plain), shown(usual)).any()


def test_fixed_eyes_stay_as_they_are_from_the_first_frame_on(speaks):
    """The mouth comes from the photo's own; lids that did, too, would fall shut before everyone's eyes."""
    with torch.inference_mode():
        told = lambda **options: speaks("face", **options).scene.prepared(0, 4)[0].code[0]
        change = told(eyes=0.0) - told()
    assert (change[:, -1] < -0.1).all() and change[:, -1].std() < 1e-5 and not change[:, :-1].any()


def test_fixed_eyes_are_the_share_of_what_is_usual(speaks):
    scene = speaks("person", eyes=0.5).scene
    usual = 0.12 + 0.1 * float(scene.model.path_eyes.median())
    assert usual + 0.1 * float(scene.eyes.eyes(3, 1, usual)) == pytest.approx(CLOSED + 0.5 * (usual - CLOSED), abs=1e-5)
    assert FixedEyes(0.0).eyes(0, 2, 0.12).tolist() == pytest.approx(2 * [10 * (CLOSED - 0.12)])
    assert not FixedEyes(0.0).eyes(0, 2, CLOSED / 2).any()


@pytest.mark.parametrize("rate", [6, 15, 40])
def test_blinks_come_as_often_as_they_should(rate):
    minutes = 5
    frames = minutes * 60 * 25
    eyes = Controls(eyes=f"{rate}/min", seed=3).eyes_over(frames)
    change = eyes.eyes(0, frames, 0.12).numpy()
    begins = np.flatnonzero((change[1:] < -0.8) & (change[:-1] >= -0.8))
    assert len(begins) == pytest.approx(rate * minutes, rel=0.15)
    assert np.diff(begins).min() / 25 > 0.5 * 60 / rate - 0.1 and np.diff(begins).max() / 25 < 1.5 * 60 / rate + 0.1
    assert not (Controls(eyes=f"{rate}/min", seed=4).eyes_over(frames).eyes(0, frames, 0.12).numpy() == change).all()
    assert not Blinks(np.random.default_rng(0), frames, 0.0).eyes(0, frames, 0.12).any()


@pytest.mark.parametrize("kind", ["face", "person"])
def test_a_rate_blinks_where_the_pose_does_not(kind, speaks, monkeypatch):
    monkeypatch.setattr("s3dnerf.poses.Blinks.lids", (0.4, 0.4, 0.4))  # a blink as long as the video
    calm, blinking = (speaks(kind, eyes=f"{rate}/min") for rate in (0, 60))
    blinking.scene.eyes.times[:] = 0.2
    assert not differs(shown(calm), shown(speaks(kind))).any() and differs(shown(calm, 7), shown(blinking, 7)).max() > 4


@pytest.mark.parametrize("kind", ["face", "full"])
def test_another_background_is_behind_the_photo_s_person_alone(kind, speaks, photo, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "wall.png")
    green = speaks(kind, background="#00ff40")
    plain, changed, walled = shown(speaks(kind)), shown(green), shown(speaks(kind, background=str(tmp_path / "wall.png")))
    canvas = green.scene.canvas
    person = canvas.backdrop.person[0].numpy() if kind == "face" else photo_matte(photo, canvas.box)
    around = lambda mask: np.lib.stride_tricks.sliding_window_view(np.pad(mask, 3, mode="edge"), (7, 7)).all((2, 3))
    inner, outer = around(person == 1), around(person == 0)  # its edge moves a little
    assert inner.mean() > 0.2 and outer.mean() > 0.1 and plain[:, outer].std() > 10
    assert np.abs(changed[:, outer] - (0, 255, 64)).max() == 0 and (changed[:, inner] == plain[:, inner]).all()
    wall = np.round(filling(picture, *plain.shape[2:0:-1]).permute(1, 2, 0).numpy() * 255)
    assert (walled[:, outer] == wall[outer]).all() and (walled[:, inner] == plain[:, inner]).all()
    edge = ~inner & ~outer & (person > 0.1) & (person < 0.9)
    between = (changed[0] - plain[0])[edge] / np.where(plain[0] == (0, 255, 64), 1, (0, 255, 64) - plain[0])[edge]
    assert 0.2 < np.median(between) < 0.8


def test_another_background_is_behind_the_learned_person_alone(speaks):
    """The plate's share of each pixel, and no more, is replaced."""
    scene = speaks("person").scene
    with torch.inference_mode():
        condition = Condition(scene.code[:1], scene.path.at(0, 1)[1][:, None], torch.tensor([-1]))
        layers = scene.model.render(scene.path.at(0, 1)[0], condition)
    free = ((1 - layers.opacity) * (1 - layers.torso_opacity))[0]
    colour = torch.tensor([0.0, 1.0, 64 / 255])[:, None, None]
    due = (layers.image[0] + free * (colour - scene.model.background)).permute(1, 2, 0).numpy() * 255
    found = shown(speaks("person", background="#00ff40"), 1)[0]
    assert np.abs(found - due).max() <= 1 and free.min() < 0.3 < 0.5 < free.max()


@KINDS
def test_a_path_of_zeros_is_still_and_another_moves_the_head(kind, speaks, tmp_path):
    for name, entry in (("zero", {}), ("turned", {"yaw": 15, "zoom": 1.2})):
        (tmp_path / f"{name}.json").write_text(json.dumps({"frames": [{}, {}, entry]}))
    poses = "still", tmp_path / "zero.json", tmp_path / "turned.json"
    still, zero, turned = (shown(speaks(kind, pose=pose), 5) for pose in poses)
    assert (zero == still).all()
    assert (turned[[0, 1, 3, 4]] == still[[0, 1, 3, 4]]).all() and np.abs(turned[2] - still[2]).max() > 30
    assert (turned[2] == shown(speaks(kind, camera=(15, 0, 1.2)), 5)[2]).all()


@pytest.mark.parametrize("kind", ["face", "person"])
def test_the_camera_goes_around_in_either_mode(kind, speaks):
    tip = FACE[[4, 168]]
    for camera, axis in (((15.0, 0.0), 0), ((0.0, 15.0), 1)):
        places = []
        for options in ({}, {"camera": camera}):
            scene = speaks(kind, **options).scene
            seen = scene.cameras(0, 1) if kind == "face" else scene.camera.at(0, 1).around(scene.path.at(0, 1)[0])
            nose, bridge = project(tip[None], seen)[0][0]
            places.append(nose - bridge)
        change = places[1] - places[0]
        assert change[axis] * (-1 if axis == 0 else 1) > 1 and change[1 - axis].abs() < 1


def test_the_gain_scales_what_the_mouth_does(speaks):
    with torch.inference_mode():
        plain, double = (speaks("face", mouth_gain=gain).scene.drive.motion(4, 6, torch.zeros(6)).code for gain in (1.0, 2.0))
        torch.testing.assert_close(double[..., :-1], 2 * plain[..., :-1])
        assert plain[..., :-1].std() > 0
        # of a person, how far lips open, about their mean
        none, plain, double = (speaks("person", mouth_gain=gain).scene for gain in (0.0, 1.0, 2.0))
        opening = lambda scene: scene.model.opening(scene.code)
        torch.testing.assert_close(opening(double) - opening(none), 2 * (opening(plain) - opening(none)), atol=1e-5, rtol=1e-4)
        assert opening(plain).std() > 0 and opening(none).std() < 1e-5


def test_smoothing_calms_speech_in_either_mode(speaks):
    for kind in ("face", "person"):
        plain, smooth = (speaks(kind, smooth=seconds).scene for seconds in (0.0, 0.06))
        with torch.inference_mode():
            code = lambda scene, first=0, count=10: (scene.code[first:first + count] if kind == "person" else
                                                     scene.drive.motion(first, count, torch.zeros(count)).code[0, :, :-1])
            begin = 4 if kind == "face" else 0  # before, a photo's own face is left
            assert code(smooth)[begin:].diff(dim=0).var() < 0.6 * code(plain)[begin:].diff(dim=0).var()
            torch.testing.assert_close(code(smooth, 5, 3), code(smooth)[5:8])


def test_smoothing_is_a_gaussian_with_its_ends_repeated():
    ramp = torch.arange(50.0)[:, None].expand(50, 2)
    torch.testing.assert_close(smoothed(ramp, 0.12)[10:40], ramp[10:40])
    impulse = torch.zeros(51)
    impulse[25] = 1
    spread = smoothed(impulse, 0.08)
    assert (spread * (torch.arange(51) - 25) ** 2).sum() == pytest.approx(4, rel=0.05)  # two frames squared
    assert spread.sum() == pytest.approx(1) and torch.allclose(smoothed(torch.full((3, 4), 2.0), 1.0), torch.full((3, 4), 2.0))


def shaken(frames=60):
    """A head that turns slowly, tracked with a shake of half a degree, and opens its mouth at random."""
    draw, time = np.random.default_rng(0), np.linspace(0, 1, frames)
    angles = np.stack([0 * time, 0.3 * time, 0 * time]) + draw.normal(0, 0.01, (3, frames))
    turn = rotation_from_euler(*torch.from_numpy(angles)).numpy()
    place = np.stack([0.3 * time, 0 * time, 12 + 0 * time], 1) + draw.normal(0, 0.01, (frames, 3))
    points = np.repeat(metric_face()[None], frames, 0)
    points[:, 14, 1] += draw.uniform(0, 0.1, frames)
    seen = points @ turn.transpose(0, 2, 1) + place[:, None]
    return Track(seen[..., :2] / seen[..., 2:] * 1200 + 200, turn, place, 1200.0, (400, 400), np.zeros(frames))


def test_smoothing_calms_a_followed_head_and_followed_lips(speaks, tiny_head):
    track, model = shaken(), speaks("person").scene.model
    jerk = lambda x: float(x.diff(n=2, dim=0).var())
    plain, smooth = (RecordedHead(track, seconds) for seconds in (0.0, 0.12))
    for name in ("rotation", "shift", "distance"):
        assert jerk(getattr(smooth.path, name)) < 0.05 * jerk(getattr(plain.path, name))
    turns = smooth.path.rotation
    torch.testing.assert_close(turns @ turns.transpose(1, 2), torch.eye(3).expand(60, 3, 3), atol=1e-5, rtol=0)
    assert abs(smooth.path.shift[40, 0] - plain.path.shift[40, 0]) < 0.05 and torch.equal(smooth.openings, plain.openings)
    recorded = PersonPath.recorded(model, track)
    calm = recorded.smoothed(0.12)
    assert jerk(calm.cameras.camera_to_world) < 0.05 * jerk(recorded.cameras.camera_to_world)
    assert torch.equal(calm.eyes, recorded.eyes) and recorded.smoothed(0.0) is recorded
    for codes in (lambda seconds: FaceDrive(tiny_head, track, smooth=seconds).codes[:, :-1],
                  lambda seconds: followed_lips(model, track, 60, smooth=seconds)):
        assert jerk(codes(0.12)) < 0.1 * jerk(codes(0.0))


@KINDS
def test_a_control_left_out_changes_nothing(kind, speaks):
    usual = {"eyes": "keep", "background": "keep", "smooth": 0.0, "camera": (0.0, 0.0, 1.0)}
    assert (shown(speaks(kind, pose="natural")) == shown(speaks(kind, pose="natural", **usual))).all()


@pytest.mark.parametrize("options, told", [
    ({"eyes": "wide"}, "expected keep, an opening"), ({"eyes": -0.5}, "expected keep"), ({"eyes": 2.0}, "at most 1.5"),
    ({"eyes": "90/min"}, "at most 60"), ({"eyes": "15/hour"}, "15/min"), ({"background": "greenish"}, "keep, a colour"),
    ({"smooth": -1.0}, "seconds from 0 to 2"), ({"smooth": float("nan")}, "seconds"), ({"camera": (0, 0, 0.5)}, "zoom 0.5"),
    ({"pose": "gone.json"}, "no camera path gone.json"), ({"frame": "half"}, "full or face"), ({"seed": -1}, "seed")])
def test_what_cannot_be_set_is_named_before_anything_is_read(options, told, tiny_head):
    with pytest.raises(InputError) as error:
        TalkingHead(tiny_head).speak("no photo at all.jpg", SOUND, **options)
    assert told in str(error.value) and "\n" not in str(error.value)
