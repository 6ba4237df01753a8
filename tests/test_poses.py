"""Head motion: recordings are reproduced, natural motion is small, smooth, seeded and starts at the photo."""
import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from s3dnerf.data.tracking import Track
from s3dnerf.face import EYELIDS, SHUT, metric_face
from s3dnerf.geometry import euler_from_rotation, frontal_camera, orbit, project, rotation_from_euler
from s3dnerf.poses import CLOSED, NaturalHead, RecordedHead, StillHead, bounce, move

CAMERA = orbit(frontal_camera(256), torch.tensor(0.2), torch.tensor(-0.1))


def track(frames=12, focal=900.0, size=(300, 400), shift=(0.3, -0.2), distance=9.0):
    """A head that turns and moves, exactly projected; the camera sees it off its axis."""
    time = torch.linspace(0, 1, frames)
    rotations = rotation_from_euler(0.1 * time, 0.05 + 0.2 * time, -0.1 * time).numpy().astype(np.float64)
    places = np.stack([shift[0] + 0.2 * time, shift[1] - 0.1 * time, distance + 0.5 * time], -1).astype(np.float64)
    points = metric_face() @ rotations.transpose(0, 2, 1) + places[:, None]
    landmarks = points[..., :2] / points[..., 2:] * focal + np.array(size[::-1]) / 2
    return Track(landmarks, rotations, places, focal, size, np.zeros(frames))


def test_bounce_plays_forwards_and_backwards():
    assert bounce(0, 9, 4).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert bounce(3, 4, 4).tolist() == [3, 2, 1, 0]
    assert bounce(5, 3, 1).tolist() == [0, 0, 0]
    assert np.abs(np.diff(bounce(0, 100, 7))).max() == 1


def test_a_still_head_keeps_the_photos_camera():
    cameras = move(CAMERA, StillHead().sway(3, 5))
    torch.testing.assert_close(cameras.camera_to_world, CAMERA.camera_to_world.expand(5, 4, 4))
    assert not StillHead().eyes(0, 100, 0.1).any()


def test_the_recordings_own_first_frame_gives_back_the_recording():
    recording = track()
    cameras = recording.cameras()
    moved = move(cameras[0], RecordedHead(recording).sway(0, 12))
    torch.testing.assert_close(moved.camera_to_world, cameras.camera_to_world, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(moved.intrinsics, cameras.intrinsics)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_another_focal_length_moves_the_head_by_the_same_share_of_itself(scale):
    """The same film through a lens `scale` as long from `scale` as far: the head moves as far in the picture."""
    near, far = track(shift=(0, 0)), track(shift=(0, 0), focal=900 * scale, distance=9 * scale)
    seen = lambda recording: move(CAMERA, RecordedHead(recording).sway(0, 12))
    middle = lambda recording: project(torch.zeros(12, 1, 3), seen(recording))[0][:, 0]
    unit = CAMERA.intrinsics[0, 0] / 12
    assert ((middle(near) - middle(far)).norm(dim=-1) < 0.02 * unit).all()
    assert (middle(near)[-1] - middle(near)[0]).norm() > 0.1 * unit


def test_a_recording_longer_than_needed_or_shorter_goes_back_and_forth_from_the_photos_pose():
    recording = track(frames=6)
    head = RecordedHead(recording)
    poses = move(CAMERA, head.sway(0, 16)).camera_to_world
    torch.testing.assert_close(poses[0], CAMERA.camera_to_world)
    torch.testing.assert_close(poses[10:16], poses[0:6])
    torch.testing.assert_close(poses[6:10], poses[1:5].flip(0))
    turn = Rotation.from_matrix(recording.rotations[5] @ recording.rotations[0].T).magnitude()
    assert head.largest_turn == pytest.approx(np.degrees(turn), rel=1e-3)


def test_a_recordings_blink_is_followed():
    recording = track()
    lids = recording.landmarks.copy()
    upper, lower = list(EYELIDS[0::2]), list(EYELIDS[1::2])
    middle = (lids[5, upper] + lids[5, lower]) / 2
    lids[5, upper] = lids[5, lower] = middle
    head = RecordedHead(dataclasses.replace(recording, landmarks=lids))
    for usual in (0.03, 0.06, 0.12):  # eyes narrower and wider than the recording's: they shut all the same
        change = head.eyes(0, 12, usual)
        assert CLOSED - 1e-6 <= usual + 0.1 * float(change[5]) < min(SHUT, usual / 2)
        assert change[[0, 4, 6, 11]].abs().max() < 0.03
    lids[5, upper] = (recording.landmarks[5, upper] + middle) / 2
    lids[5, lower] = (recording.landmarks[5, lower] + middle) / 2
    half = float(RecordedHead(dataclasses.replace(recording, landmarks=lids)).eyes(0, 12, 0.12)[5])
    assert SHUT < 0.12 + 0.1 * half < 0.1


def test_natural_motion_starts_at_the_photo_and_is_small_and_smooth():
    for seed in range(5):
        sway = NaturalHead(seed, 1500).sway(0, 1500)
        torch.testing.assert_close(sway.rotation[0], torch.eye(3))
        assert not sway.shift[0].any()
        angles = torch.rad2deg(torch.stack(euler_from_rotation(sway.rotation), -1))
        assert angles.abs().max() < 8 and angles.std(0).min() > 0.3
        assert angles.diff(dim=0).abs().max() < 0.35  # degrees per frame
        assert angles.diff(n=2, dim=0).abs().max() < 0.06
        assert sway.shift.abs().max() < 0.15 and sway.shift.diff(dim=0).abs().max() < 0.01


def test_natural_motion_depends_on_seed_and_frame_number_only():
    whole = NaturalHead(3, 200)
    parts = torch.cat([whole.sway(0, 70).rotation, whole.sway(70, 130).rotation])
    torch.testing.assert_close(whole.sway(0, 200).rotation, parts)
    torch.testing.assert_close(NaturalHead(3, 200).sway(0, 200).rotation, parts)
    assert not torch.allclose(NaturalHead(4, 200).sway(0, 200).rotation, parts, atol=1e-3)


def test_blinks_come_every_two_to_six_seconds_and_close_the_photos_eyes():
    eyes = NaturalHead(0, 25 * 120).eyes(0, 25 * 120, 0.1).numpy()
    closed = eyes < -0.85
    begins = np.flatnonzero(np.diff(closed.astype(int)) == 1)
    gaps = np.diff(begins) / 25
    assert 20 <= len(begins) <= 60 and gaps.min() > 1.9 and gaps.max() < 6.1
    assert eyes.min() == pytest.approx(10 * (CLOSED - 0.1)) and eyes.max() <= 0  # 0.1 head units open
    moving = eyes < -0.01
    lengths = [len(run) for run in np.split(moving, np.flatnonzero(np.diff(moving.astype(int))) + 1) if run[0]]
    assert max(lengths) <= 8
    assert not NaturalHead(0, 250).eyes(0, 250, CLOSED / 2).any()  # eyes that are closed stay so
