"""Head poses refined on the picture: closer to the truth than noisy landmarks, and left alone where that cannot be."""
import numpy as np
import pytest
import torch

from s3dnerf.data.alignment import Patch, align_heads, skin_points
from s3dnerf.data.module import read_cameras
from s3dnerf.data.synthetic import draw_person, synthetic_clip
from s3dnerf.data.tracking import solve_pnp
from s3dnerf.face import EYE_RINGS, metric_face
from s3dnerf.geometry import project

SIZE = 192


@pytest.fixture(scope="module")
def film():
    """Frames, true rotations, landmarks with a pixel of noise, and the poses that those landmarks give."""
    draw = np.random.default_rng(3)
    clip = synthetic_clip(*draw_person(draw), "somebody", "clip", 0.6, SIZE, draw)
    cameras = read_cameras(clip.cameras, SIZE)
    landmarks = project(torch.from_numpy(clip.mesh), cameras)[0].numpy().astype(np.float64)
    landmarks += draw.normal(0, 1.0, landmarks.shape)
    truth = torch.linalg.inv(cameras.camera_to_world)[:, :3, :3].numpy().astype(np.float64)
    intrinsics = cameras.intrinsics[0].numpy().astype(np.float64)
    rotations, translations = solve_pnp(landmarks, (SIZE, SIZE), intrinsics[0, 0])
    return clip.frames, truth, landmarks, intrinsics, rotations, translations


def turn_error(rotations, truth):
    """Mean error, degrees, of the turn since the first frame."""
    relative = lambda r: r[1:] @ r[0].T
    cosine = (np.einsum("tij,tij->t", relative(rotations), relative(truth)) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean()


def patches(frames, landmarks):
    return [Patch.of(frame, points) for frame, points in zip(frames, landmarks)]


def test_turns_are_found_on_the_picture(film):
    frames, truth, landmarks, intrinsics, rotations, translations = film
    refined, _ = align_heads(patches(frames, landmarks), landmarks, intrinsics, rotations, translations)
    assert turn_error(refined, truth) < 0.6 * turn_error(rotations, truth)
    assert np.abs(refined @ refined.transpose(0, 2, 1) - np.eye(3)).max() < 1e-9
    assert (refined[0] == rotations[0]).all()


def test_frames_without_a_face_or_with_another_picture_keep_their_pose(film):
    frames, _, landmarks, intrinsics, rotations, translations = film
    strange = patches(frames, landmarks)
    strange[2] = None
    noise = np.random.default_rng(0).integers(0, 256, frames[4].shape, np.uint8)
    strange[4] = Patch.of(noise, landmarks[4])
    refined, moved = align_heads(strange, landmarks, intrinsics, rotations, translations)
    for frame in (2, 4):
        assert (refined[frame] == rotations[frame]).all() and (moved[frame] == translations[frame]).all()
    assert (refined[3] != rotations[3]).any()
    strange[0] = None
    assert (align_heads(strange, landmarks, intrinsics, rotations, translations)[0] == rotations).all()


def test_a_change_of_light_is_no_motion(film):
    frames, _, landmarks, intrinsics, rotations, translations = film
    darker = frames.copy()
    darker[1:] = (darker[1:] * 0.7 + 10).astype(np.uint8)
    same, other = (align_heads(patches(film, landmarks), landmarks, intrinsics, rotations, translations)[0]
                   for film in (frames, darker))
    assert turn_error(other, same) < 0.3


def test_skin_points_leave_eyes_and_mouth_out():
    points, face = skin_points(), metric_face()
    assert len(points) > 300 and points[:, 1].max() < face[13, 1]
    for eye in EYE_RINGS:
        assert np.linalg.norm(points[:, :2] - face[list(eye), :2].mean(0), axis=1).min() > 0.09
    nearest = np.linalg.norm(points[:, None, :2] - face[None, :468, :2], axis=-1).argmin(1)
    assert np.abs(points[:, 2] - face[nearest, 2]).mean() < 0.05


def test_a_large_face_is_shrunk_to_its_patch():
    frame = np.zeros((900, 1200, 3), np.uint8)
    landmarks = metric_face()[:, :2] * 400 + (600, 450)
    patch = Patch.of(frame, landmarks)
    assert patch.pixels.shape == (256, 256) and patch.box.side == pytest.approx(1360, rel=0.01)
