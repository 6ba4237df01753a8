"""From photo and speech to video, through a small model with random weights of the real class and real tracking."""
import copy
import errno
import tracemalloc
from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image

from s3dnerf.data.tracking import FaceTracker, Track
from s3dnerf.driving import FaceDrive, SpeechDrive
from s3dnerf.errors import InputError
from s3dnerf.face import INNER_LIPS, FaceCode, metric_face
from s3dnerf.geometry import project
from s3dnerf.inference import CPU_BATCH, TalkingHead
from s3dnerf.media import VideoWriter, read_frames, read_image, read_sound, video_info
from s3dnerf.models.one_shot import S3DNeRF
from s3dnerf.poses import RecordedHead
from s3dnerf.quality import SAMPLES
from s3dnerf.types import Rendering

FACE = torch.from_numpy(metric_face())
SIZE = 64


@pytest.fixture(scope="module")
def head():
    torch.manual_seed(0)
    model = S3DNeRF(image_size=SIZE, encoder_channels=(8, 8, 8, 8), plane_channels=4, width=16, modulation_channels=6,
                    lattice=(8, 8, 4), token_channels=8, coarse_samples=4, fine_samples=4, feature_channels=6,
                    super_resolution_channels=(8, 8))
    with torch.no_grad():  # what starts near zero is made to matter
        model.deformation.out.weight.normal_(std=0.5)
        model.speech.code[-1].weight.mul_(10)
    return TalkingHead(model, "random")


@pytest.fixture(scope="module")
def photo():
    return read_image(files("s3dnerf") / "assets" / "demo_photo.jpg")


def babble(seconds, seed=0):
    """Noise whose loudness changes four times a second."""
    time = np.arange(round(seconds * 16000)) / 16000
    noise = np.random.default_rng(seed).normal(0, 0.2, len(time))
    return (noise * np.sin(2 * np.pi * 2 * time) ** 2).clip(-1, 1).astype(np.float32)


def film(path, photo, frames, sound=None):
    """The photo, moving to the left."""
    with VideoWriter(path, 360, 360, sound=sound) as writer:
        for index in range(frames):
            writer.write(photo[:360, 40 + 4 * index:400 + 4 * index])
    return str(path)


class Counted:
    """A model that keeps how many frames were asked for at once, and gives the photo back."""

    def __init__(self, head):
        self.head, self.calls = head.model, []

    def __getattr__(self, name):
        return getattr(self.head, name)

    def render(self, appearance, motion, cameras):
        count = cameras.camera_to_world.shape[1]
        assert motion.code.shape == (1, count, FaceCode.size)
        self.calls.append(count)
        photo = appearance.portrait.image[:, None].expand(1, count, 3, SIZE, SIZE)
        centres = (torch.arange(SIZE) + 0.5) * (2 / SIZE) - 1
        own = torch.stack(torch.meshgrid(centres, centres, indexing="xy")).expand(1, count, 2, SIZE, SIZE)
        zero = torch.zeros(1, count, 1, SIZE, SIZE)
        return Rendering(photo, photo, photo, photo, zero, zero, own, zero, zero, zero)


def counted(head, photo, sound, **options):
    video = head.speak(photo, sound, **options)
    video.scene.model = Counted(head)
    return video


@pytest.mark.parametrize("samples,frames", [(3200, 5), (16000, 25), (16319, 25), (16320, 26), (20000, 31)])
def test_the_video_lasts_as_long_as_the_speech(head, photo, tmp_path, samples, frames):
    sound = babble(samples / 16000)
    video = counted(head, photo, sound)
    assert len(video) == frames and (video.width, video.height) == (512, 512)
    video.save(tmp_path / "out.mp4")
    assert len(list(read_frames(tmp_path / "out.mp4"))) == frames
    info = video_info(tmp_path / "out.mp4")
    assert (info.width, info.height, info.fps, info.has_sound) == (512, 512, 25, True)
    assert abs(len(read_sound(tmp_path / "out.mp4")) - 640 * frames) <= 640 * 2


def test_frames_are_the_models(head, photo):
    """Whole way: the face crop is what the model renders for the photo's own camera and this speech."""
    sound = babble(0.4)
    video = head.speak(photo, sound, frame="face", pose="still")
    frames = np.stack(list(video))
    with torch.inference_mode():
        drive = SpeechDrive(head.model, sound, video.scene.appearance.portrait.mesh[0]).motion(0, 10, torch.zeros(10))
        cameras = video.scene.appearance.portrait.cameras.map(lambda x: x[:, None].expand(1, 10, *x.shape[1:]))
        expected = head.model.render(video.scene.appearance, drive, cameras).image[0]
    found = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(found, expected.clamp(0, 1), atol=1 / 255, rtol=0)


def test_frames_are_rendered_in_batches_when_they_are_asked_for(head, photo):
    video = counted(head, photo, babble(2.0))
    frames = iter(video)
    assert video.scene.model.calls == []
    next(frames)
    assert set(video.scene.model.calls) == {CPU_BATCH} and len(video.scene.model.calls) <= video.workers.count + 1
    assert sum(1 for _ in frames) == 49 and sum(video.scene.model.calls) == 50
    assert sum(1 for _ in video) == 50  # a second time


def test_memory_does_not_grow_with_the_speech(head, photo):
    def peak(seconds):
        video = counted(head, photo, np.zeros(16000 * seconds, np.float32), pose="natural")
        tracemalloc.start()
        for _ in video:
            pass
        reached = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return reached

    assert peak(8) < 1.5 * peak(2)  # what waits to be read varies; all of it would be four times as much


def test_the_photo_comes_back_where_nothing_moves(head, photo):
    for frame in counted(head, photo, babble(0.4), pose="still"):
        assert (frame == photo).all()


def test_speech_takes_the_face_over_from_the_photo(head):
    """Frame 0 is the photo's own face, whatever is said; from the fourth frame on the face is the speech's."""
    drive = SpeechDrive(head.model, babble(1.0), FACE)
    code = drive.motion(0, 8, torch.zeros(8)).code[0].detach()
    spoken = head.model.drive(head.model.features.windows(drive.sequence, 0, 8)[None]).code[0].detach()
    assert torch.allclose(code[0], head.model.face_code.own(FACE), atol=1e-6)
    assert torch.allclose(code[4:], spoken[4:], atol=1e-6) and not torch.allclose(code[1:4], spoken[1:4], atol=1e-3)
    assert torch.allclose(drive.motion(2, 4, torch.zeros(4)).code[0], code[2:6], atol=1e-6)
    silent = SpeechDrive(head.model, np.zeros(16000, np.float32), FACE).motion(0, 8, torch.zeros(8)).code[0]
    assert not torch.allclose(silent[0], head.model.face_code.own(FACE), atol=1e-3)


def test_the_camera_goes_around_the_head(head, photo):
    """From the right a face looks to the left of the picture, from above it looks down: where the nose's tip lies says so."""
    def tip(camera):
        video = head.speak(photo, babble(0.4), frame="face", pose="still", camera=camera)
        mesh = video.scene.appearance.portrait.mesh[0]
        nose, bridge = project(mesh[[4, 168]], video.scene.cameras(0, 1)[0])[0]
        return nose - bridge

    here, right, above = tip((0.0, 0.0)), tip((15.0, 0.0)), tip((0.0, 15.0))
    assert right[0] < here[0] - 1 and abs(right[1] - here[1]) < 0.7
    assert above[1] > here[1] + 1 and abs(above[0] - here[0]) < 0.7
    assert any("camera" in remark for remark in head.speak(photo, babble(0.4), camera=(30.0, 0.0)).statistics.remarks)


def test_the_seed_decides_the_natural_motion(head, photo):
    render = lambda **options: np.stack(list(head.speak(photo, babble(1.0), frame="face", **options)))
    first = render(seed=1)
    assert (first == render(seed=1)).all()
    assert (first != render(seed=2)).any()
    assert (first != render(pose="still")).any()


def test_silence_and_a_still_pose_give_a_still_picture(head, photo):
    video = head.speak(photo, np.zeros(16000, np.float32), frame="face", pose="still")
    frames = np.stack(list(video))
    assert (frames[5:-5] == frames[5]).all()
    assert any("silent" in remark for remark in video.statistics.remarks)


def test_several_faces_are_said_and_the_largest_is_taken(head, photo):
    near = photo[:300, 80:380]
    far = np.full_like(near, 255)
    far[50:250, 50:250] = np.asarray(Image.fromarray(near).resize((200, 200)))
    video = head.speak(np.concatenate([far, near], 1), babble(0.4))
    assert any("2 faces" in remark for remark in video.statistics.remarks)
    assert 300 <= video.scene.canvas.box.left + video.scene.canvas.box.side / 2 <= 600


def test_a_recording_moves_the_head_from_the_photos_pose_on(head, photo, tmp_path):
    path = film(tmp_path / "head.mp4", photo, 8)
    video = head.speak(photo, babble(1.0), pose=path)
    poses = [video.scene.head.sway(first, 1) for first in range(25)]
    x = torch.stack([pose.shift[0, 0] for pose in poses])
    assert x[0] == 0 and (x[1:5].diff() < 0).all() and x.min() < -0.05  # to the left
    assert x[14] == x[0] and x[10] == x[4]


def test_somebodys_lips_drive_the_face_and_their_sound_is_taken(head, photo, tmp_path):
    sound = babble(0.4)
    path = film(tmp_path / "lips.mp4", photo, 10, sound)
    video = head.speak(photo, drive=path)
    assert len(video) in (10, 11) and np.corrcoef(video.sound[:6400], sound)[0, 1] > 0.9
    assert len(head.speak(photo, babble(1.0), drive=path)) == 25
    assert len(list(video)) == len(video)
    assert torch.equal(video.scene.eyes.openings, RecordedHead(FaceTracker().track(read_frames(path))).openings)  # and eyes


@pytest.mark.parametrize("option", ["pose", "drive"])
def test_a_picture_is_not_taken_for_a_recording(option, head, photo, tmp_path):
    """A head or lips that follow it would keep still, and nobody would know why."""
    Image.fromarray(photo).save(tmp_path / "face.png")
    with pytest.raises(InputError, match="^face.png is a single picture.*give a video$"):
        head.speak(photo, babble(0.4), **{option: tmp_path / "face.png"})


def moving_lips():
    """A head that does not move and opens its mouth in frame 1 of 4."""
    points = np.repeat(metric_face()[None], 4, 0)
    points[1, list(INNER_LIPS[1:10])] += (0, 0.1, 0)
    places = np.tile([0.0, 0.0, 12.0], (4, 1))
    seen = points + places[:, None]
    landmarks = seen[..., :2] / seen[..., 2:] * 1200 + 200
    return Track(landmarks, np.tile(np.eye(3), (4, 1, 1)), places, 1200.0, (400, 400), np.zeros(4))


def test_tracked_lips_are_measured_against_their_own_mean(head):
    track = moving_lips()
    drive = FaceDrive(head.model, track)
    mesh = torch.from_numpy(track.mesh())
    assert torch.allclose(FaceCode().opening(drive.codes), FaceCode().gap(mesh).float(), atol=1e-5)
    code = drive.motion(0, 8, torch.zeros(8)).code[0]
    wide = drive.motion(0, 8, torch.full((8,), 0.7)).code[0]
    assert (wide[:, -1] == 0.7).all() and torch.equal(wide[:, :-1], code[:, :-1])
    assert torch.equal(drive.motion(0, 8, torch.zeros(8)).code[0], code)
    torch.testing.assert_close(code[4], code[2])  # back and forth: 0 1 2 3 2 1 0 1
    torch.testing.assert_close(code[5], code[1])
    torch.testing.assert_close(code[:4], FaceCode().driving(mesh, mesh.mean(0)).float())
    double = FaceDrive(head.model, track, 2.0).motion(0, 4, torch.zeros(4)).code[0]
    torch.testing.assert_close(double[:, :-1], 2 * code[:4, :-1])
    torch.testing.assert_close(double[:, -1], code[:4, -1])
    assert not FaceDrive(head.model, track, 0.0).codes[:, :-1].any()


def test_speech_gets_the_gain_and_the_blinks(head):
    sound, eyes = babble(1.0), torch.linspace(-1, 0, 5)
    plain, gained = (SpeechDrive(head.model, sound, FACE, gain).motion(4, 5, eyes).code[0].detach() for gain in (None, 2.0))
    torch.testing.assert_close(gained[:, :-1], 2 * plain[:, :-1])
    torch.testing.assert_close(plain[:, -1], eyes)
    assert plain[:, :-1].std() > 0
    whole = SpeechDrive(head.model, sound, FACE).motion(0, 25, torch.zeros(25)).code[0]
    torch.testing.assert_close(whole[4:9, :-1], plain[:, :-1], atol=1e-5, rtol=1e-5)


def test_statistics_hold_every_stage(head, photo, tmp_path):
    video = counted(head, photo, babble(0.4), seed=7)
    found = video.save(tmp_path / "out.mp4", tmp_path / "sheet.png").as_dict()
    assert {"read", "tracking", "encode identity", "speech features", "motion", "render", "composite",
            "encode video"} <= set(found["seconds"])
    assert (found["frames"], found["length"], found["seed"], found["weights"]) == (10, 0.4, 7, "random")
    before = sum(found["seconds"][name] for name in ("read", "tracking", "encode identity", "speech features"))
    writing = sum(found["seconds"][name] for name in ("wait", "encode video", "mux"))
    assert found["total_seconds"] == pytest.approx(before + found["elapsed_seconds"], abs=0.01)
    assert 0 < writing <= found["elapsed_seconds"] + 0.001
    assert before < found["first_frame_seconds"] <= found["total_seconds"]
    rendering = sum(found["seconds"][name] for name in ("motion", "render", "composite"))
    assert found["frames_per_second_rendering"] == pytest.approx(10 * found["workers"] / rendering, rel=0.05)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "sheet.png"]


def test_the_stages_of_rendering_are_told_apart(head, photo):
    video = head.speak(photo, babble(0.4), frame="face")
    assert not {"motion field", "ray march", "super-resolution"} & set(video.statistics.seconds)  # the photo's own rendering
    list(video)
    assert {"motion field", "ray march", "super-resolution", "render"} <= set(video.statistics.seconds)


@pytest.fixture(scope="module")
def solid(head):
    """The head with surfaces, as a trained one has them, so that qualities have something to differ in."""
    model = copy.deepcopy(head.model)
    with torch.no_grad():
        model.radiance.out.weight[0].mul_(4)
    return TalkingHead(model, "solid")


@pytest.mark.parametrize("quality", SAMPLES)
def test_qualities_differ_little_and_keep_every_promise(solid, photo, quality):
    """Frame counts, determinism, a frame that depends on no other, silence that is still, a camera that turns."""
    render = lambda sound, **options: np.stack(list(solid.speak(photo, sound, frame="face", **options))).astype(float)
    sound = babble(0.6)
    best, found = render(sound), render(sound, quality=quality)
    assert found.shape == best.shape == (15, SIZE, SIZE, 3)
    assert np.abs(found - best).mean() < 1.0 and (quality == "best") == (found == best).all()
    assert (found == render(sound, quality=quality)).all()
    scene = solid.speak(photo, sound, frame="face", quality=quality).scene
    with torch.inference_mode():
        assert np.abs(scene.frames(7, 1)[0] - found[7]).max() <= 1
    still = render(np.zeros(12800, np.float32), pose="still", quality=quality)
    assert np.abs(still[5:-5] - still[5]).max() <= 1 and np.abs(still[5:-5] - still[5]).mean() < 1e-4  # rounding
    turned = render(sound, camera=(15.0, 0.0), quality=quality)
    apart = np.abs(turned - render(sound, camera=(15.0, 0.0))).mean()  # random surfaces; the shipped ones: 0.3 and 0.8
    assert apart < 2.0 < np.abs(turned - found).mean()


def test_auto_takes_one_of_them_and_what_was_tried_is_not_counted(head, photo):
    video = head.speak(photo, babble(0.4), frame="face", quality="auto")
    assert video.statistics.quality in SAMPLES and not {"motion", "render"} & set(video.statistics.seconds)
    assert len(list(video)) == 10


@pytest.mark.parametrize("quality", ["best", "fast"])
def test_a_photo_is_encoded_by_one_thread_alone(head, photo, quality, monkeypatch):
    """Threads that share small operators wait for each other, for as long as other programs have their cores."""
    before, asked = torch.get_num_threads(), set()
    torch.set_num_threads(2)
    for part, name in ((head.model, "encode"), (head.model, "render"), (head.model, "with_occupancy"),
                       (head.model.features, "sequence")):
        whole = getattr(part, name)
        noted = lambda *parts, whole=whole, **named: asked.add(torch.get_num_threads()) or whole(*parts, **named)
        monkeypatch.setattr(part, name, noted)
    video = head.speak(photo, babble(0.4), frame="face", quality=quality)
    assert asked == {1} and video.workers.count == 2
    torch.set_num_threads(before)


def test_what_breaks_half_way_leaves_nothing(head, photo, tmp_path):
    video = counted(head, photo, babble(1.0))
    whole = video.scene.model.render
    video.scene.model.render = lambda *parts: whole(*parts) if len(video.scene.model.calls) < 2 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        video.save(tmp_path / "out.mp4", tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(head, photo, tmp_path, monkeypatch):
    def full(*_parts):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(VideoWriter, "write", full)
    with pytest.raises(InputError, match="No space left on device"):
        counted(head, photo, babble(0.4)).save(tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options,word", [
    (dict(frame="half"), "full or face"), (dict(quality="good"), "best, balanced"), (dict(speech=None), "--speech"),
    (dict(mouth_gain=float("nan")), "gain"),
    (dict(mouth_gain=-1.0), "gain"), (dict(seed=-1), "seed"), (dict(camera=(60.0, 0.0)), "45 degrees"),
    (dict(camera=(1.0,)), "two angles"), (dict(photo=np.zeros((9, 9), np.uint8)), "uint8"),
    (dict(photo=np.zeros((90, 90, 3))), "uint8"), (dict(speech=np.zeros(3000, np.float32)), "0.2 s"),
    (dict(speech=np.full(16000, np.nan, np.float32)), "no numbers"),
    (dict(speech=np.zeros((2, 16000), np.float32)), "[N]"),
    (dict(pose="nodding"), "nodding"), (dict(photo=np.full((300, 300, 3), 128, np.uint8)), "no face")])
def test_what_cannot_be_used_is_named(head, photo, options, word):
    arguments = {"photo": photo, "speech": babble(0.4)} | options
    with pytest.raises(InputError, match=word.replace("[", r"\[")) as error:
        head.speak(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("device,word", [("tpu", "auto, cpu or cuda"),
                                         pytest.param("cuda", "no CUDA", marks=pytest.mark.skipif(
                                             torch.cuda.is_available(), reason="there is a CUDA device"))])
def test_devices_that_are_not_there_are_refused(device, word):
    with pytest.raises(InputError, match=word):
        TalkingHead.load("whatever", device)
