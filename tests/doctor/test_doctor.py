"""The doctor: what is good stays good, and every ill that it knows is found and told, in photos, sound, videos and the rest."""
import subprocess
import sys
import wave
from importlib.resources import files

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from s3dnerf.cli import main
from s3dnerf.data.detection import FaceDetector
from s3dnerf.doctor import installation
from s3dnerf.doctor.finding import Finding, State, graded
from s3dnerf.doctor.installation import examine_installation
from s3dnerf.doctor.photo import examine_face, examine_photo
from s3dnerf.doctor.sound import clipped_share, examine_samples, examine_sound, frame_levels
from s3dnerf.doctor.video import examine_video
from s3dnerf.face import EYELIDS
from s3dnerf.media import VideoWriter, read_image, read_sound

PHOTO, SPEECH = (str(files("s3dnerf") / "assets" / name) for name in ("demo_photo.jpg", "demo_speech.wav"))
FACE = slice(60, 220), slice(140, 310)
"""rows and columns of the photo's face"""


def states(findings):
    return {finding.subject: finding.state for finding in findings}


def ill(findings):
    return {finding.subject for finding in findings if finding.state not in (State.GOOD, State.REPAIRED)}


def saved(path, image, **options):
    Image.fromarray(image).save(path, **options)
    return str(path)


@pytest.fixture(scope="module")
def photo():
    return read_image(PHOTO)


# photo -----------------------------------------------------------------------------------------------------------------

def covered(photo):
    image = photo.copy()
    cv2.ellipse(image, (225, 155), (40, 34), 0, 0, 360, (70, 130, 200), -1)
    return image


def glasses(photo):
    image = photo.copy()
    for column in (204, 245):
        cv2.circle(image, (column, 110), 17, (15, 15, 18), -1)
    return image


PHOTOS = {
    "sharpness": lambda photo: cv2.GaussianBlur(photo, (0, 0), 2.5),
    "light": lambda photo: (photo * 0.15).astype(np.uint8),
    "faces": lambda photo: np.concatenate([photo[:, 100:400], photo[:, 100:400]], 1),
    "occlusion": covered,
    "face size": lambda photo: cv2.resize(photo, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA),
}


def test_the_photo_that_ships_is_good():
    findings = examine_photo(PHOTO)
    assert not ill(findings) and len(findings) == 8


@pytest.mark.parametrize("subject", PHOTOS)
def test_each_ill_of_a_photo_is_told_by_its_line(photo, tmp_path, subject):
    findings = examine_photo(saved(tmp_path / "a.png", PHOTOS[subject](photo)))
    assert states(findings)[subject] is State.CAREFUL
    assert ill(findings) <= {subject, "sharpness" if subject == "light" else subject}


def test_dark_glasses_are_seen(photo, tmp_path):
    told = {finding.subject: finding for finding in examine_photo(saved(tmp_path / "a.png", glasses(photo)))}
    assert "dark glasses" in told["occlusion"].text


def test_shut_eyes_are_seen(photo):
    with FaceDetector(still=True) as detector:
        face = detector.faces(photo)[0]
    assert not ill(examine_face(photo, face))
    face[list(EYELIDS[0::2])] = face[list(EYELIDS[1::2])] - (0, 1)
    assert ill(examine_face(photo, face)) == {"eyes"}


def test_a_photo_that_cannot_be_used_stops(photo, tmp_path):
    assert states(examine_photo(str(tmp_path / "none.jpg")))["photo"] is State.STOP
    assert states(examine_photo(saved(tmp_path / "grey.png", np.full((200, 200, 3), 128, np.uint8))))["face"] is State.STOP
    tiny = cv2.resize(photo, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    assert states(examine_photo(saved(tmp_path / "tiny.png", tiny)))["face size"] is State.STOP


def test_what_reading_a_photo_mends_is_told(photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(tmp_path / "a.jpg", np.ascontiguousarray(np.rot90(photo)), exif=exif, quality=95)
    first = examine_photo(turned)[0]
    assert first.state is State.REPAIRED and "EXIF" in first.text
    alpha = np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)])
    first = examine_photo(saved(tmp_path / "a.png", alpha))[0]
    assert first.state is State.REPAIRED and "RGBA" in first.text


# sound -----------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def speech():
    return read_sound(SPEECH)


def with_pause(speech):
    return np.concatenate([speech, np.zeros(3 * 16000, np.float32)])


SOUNDS = {
    "level": lambda speech: speech * 0.01, "clipping": lambda speech: np.clip(speech * 12, -1, 1), "silence": with_pause,
    "noise": lambda speech: speech + 0.1 * np.random.RandomState(0).normal(size=len(speech)).astype(np.float32),
}


def test_the_speech_that_ships_is_good(speech):
    assert not ill(examine_sound(SPEECH)) and not ill(examine_samples(speech))


@pytest.mark.parametrize("subject", SOUNDS)
def test_each_ill_of_a_recording_is_told_by_its_line(speech, subject):
    found = ill(examine_samples(SOUNDS[subject](speech).astype(np.float32)))
    assert subject in found and found <= {subject, "level" if subject == "clipping" else subject}


def test_levels_and_clipping_are_what_they_say():
    tone = np.sin(np.arange(16000) * 2 * np.pi * 200 / 16000).astype(np.float32)
    np.testing.assert_allclose(frame_levels(0.1 * tone), -20 - 10 * np.log10(2), atol=0.01)
    assert clipped_share(np.clip(1.2 * tone, -1, 1)) == pytest.approx(1 - 2 / np.pi * np.arcsin(0.985 / 1.2), abs=0.02)
    assert clipped_share(0.9 * tone) == 0 == clipped_share(np.eye(1, 100)[0])


def test_conversions_of_sound_are_told_and_silence_is_a_remark_as_speak_has_it(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((2, 2, 44100, 44100, "NONE", ""))
        file.writeframes(np.random.RandomState(0).randint(-9000, 9000, 88200).astype("<i2").tobytes())
    first = examine_sound(str(tmp_path / "a.wav"))[0]
    assert first.state is State.REPAIRED and "44100 Hz" in first.text and "2 channels" in first.text
    with wave.open(str(tmp_path / "b.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 16000, "NONE", ""))
        file.writeframes(bytes(32000))
    assert states(examine_sound(str(tmp_path / "b.wav"))) == {"speech": State.GOOD, "level": State.CAREFUL}
    assert states(examine_sound(PHOTO))["speech"] is State.STOP


# video -----------------------------------------------------------------------------------------------------------------

def film(path, frames, sound=None, fps=25):
    with VideoWriter(path, frames[0].shape[1], frames[0].shape[0], sound=sound, fps=fps) as writer:
        for frame in frames:
            writer.write(frame)
    return str(path)


def matcher(late):
    """Finds lips and sound most alike where the sound is so many frames late."""
    def match(images, landmarks, mel):
        assert images.shape[0] == landmarks.shape[0] == mel.shape[0] == 1 and images.shape[-1] == 256
        assert 0 < landmarks.min() and landmarks.max() < 256, "landmarks in pixels of the crop"
        windows = images.shape[1] - 4
        return torch.eye(windows + abs(late))[None, max(0, late):, max(0, -late):][:, :windows, :windows] * 0.9

    return lambda: match


def test_a_short_video_with_a_cut_and_no_sound(photo, tmp_path):
    frames = [photo[:360, 40 + k:400 + k] for k in range(14)] + [np.full((360, 360, 3), 90, np.uint8)] * 8 + [photo[:360, 80:440]] * 12
    found = {finding.subject: finding for finding in examine_video(film(tmp_path / "a.mp4", frames, fps=30), matcher(0))}
    assert found["video"].state is State.REPAIRED and "30 frames per second, converted" in found["video"].text
    assert all(found[name].state is State.CAREFUL for name in ("face", "cuts", "sound")) and found["faces"].state is State.GOOD
    assert not any(finding.state is State.STOP for finding in found.values())


@pytest.mark.parametrize("late,state", [(0, State.GOOD), (3, State.REPAIRED)])
def test_sound_out_of_step_and_two_faces(photo, speech, tmp_path, late, state):
    frames = [np.concatenate([photo[20:320, 110 + k % 2:350 + k % 2]] * 2, 1) for k in range(36)]
    found = {finding.subject: finding for finding in examine_video(film(tmp_path / "a.mp4", frames, speech), matcher(late))}
    assert found["sync"].state is state and found["faces"].state is State.CAREFUL and found["face"].state is State.GOOD
    assert "0.12 s late" in found["sync"].text or not late


def test_of_a_video_that_is_too_short_to_listen_to_all_else_is_told(photo, speech, tmp_path):
    from s3dnerf.networks.lip_sync import LipSyncDiscriminator

    found = states(examine_video(film(tmp_path / "a.mp4", [photo[:360, 60:420]] * 6, speech), lambda: LipSyncDiscriminator().match))
    assert found["sync"] is State.CAREFUL and found["face"] is State.GOOD and "level" in found


def test_a_video_that_cannot_be_used_stops(tmp_path):
    assert states(examine_video(SPEECH, matcher(0)))["video"] is State.STOP
    empty = film(tmp_path / "a.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 6)
    assert states(examine_video(empty, matcher(0)))["face"] is State.STOP


# installation, and the verb --------------------------------------------------------------------------------------------

def test_this_installation_can_be_used():
    found = states(examine_installation())
    assert list(found) == ["python", "torch", "libraries", "codecs", "tracking", "weights", "extras", "disk"]
    assert State.STOP not in found.values()


@pytest.mark.parametrize("name,value,subject", [
    ("PYTHONS", ((3, 99), (3, 99)), "python"), ("LEAST_TORCH", (99, 0), "torch"), ("ENCODERS", ("no-such-codec",), "codecs"),
    ("LEAST_DISK", 1e9, "disk")])
def test_what_is_missing_stops(monkeypatch, name, value, subject):
    monkeypatch.setattr(installation, name, value)
    for slow in ("tracking", "weights"):
        monkeypatch.setattr(installation, slow, lambda: graded("left", "out"))
    found = {finding.subject: finding for finding in examine_installation()}
    assert found[subject].state is State.STOP and sum(one.state is State.STOP for one in found.values()) == 1


def test_a_check_that_breaks_is_a_line_and_extras_name_their_command(monkeypatch):
    def broken():
        raise ImportError("libGL.so.1: cannot open\nshared object file")

    for name in ("tracking", "weights", "libraries"):
        monkeypatch.setattr(installation, name, broken)
    monkeypatch.setattr(installation, "EXTRAS", {"c2pa": ("no_such_module",)})
    found = {finding.subject: finding for finding in examine_installation()}
    assert found["tracking"].state is State.STOP and "libGL" in found["tracking"].text and "\n" not in found["tracking"].text
    assert "none" in found["extras"].text and "s3dnerf[c2pa]" in found["extras"].text and found["extras"].state is State.GOOD


def test_the_verb_prints_a_line_each_and_fails_only_to_stop(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(installation, "examine_installation", lambda: [Finding("python", State.CAREFUL, "old")])
    assert main(["doctor", "--speech", SPEECH]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "careful  python: old" and lines[1].startswith("good     speech: demo_speech.wav") and len(lines) == 6
    assert main(["doctor", "--photo", str(tmp_path / "none.jpg")]) == 1
    assert "stop     photo: no photo" in capsys.readouterr().out
    monkeypatch.setattr(installation, "examine_installation", lambda: [Finding("torch", State.STOP, "old")])
    assert main(["doctor", "--photo", PHOTO]) == 1
    assert [line[:8] for line in capsys.readouterr().out.splitlines()] == ["stop    "] * 2
    code = "import sys, s3dnerf.doctor.installation; sys.exit('torch' in sys.modules or 'mediapipe' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0, "the doctor comes where these are missing"
