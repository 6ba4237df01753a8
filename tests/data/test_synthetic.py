"""The synthetic head tells the truth about itself."""
import io
import tarfile

import numpy as np
import pytest
import torch

from s3dnerf.data.shards import decode_sample, read_people
from s3dnerf.data.synthetic import (Person, draw_person, head_cameras, hit_head, moved_landmarks, render_frame, surface_depth,
                                    synthesize, synthetic_clip)
from s3dnerf.data.synthetic_speech import articulation, voice
from s3dnerf.face import INNER_LIPS, RIGID, mouth_opening
from s3dnerf.geometry import cast_rays, frontal_camera, orbit, project
from s3dnerf.media import SAMPLES_PER_FRAME


@pytest.fixture(scope="module")
def person() -> Person:
    return draw_person(np.random.default_rng(3))


@pytest.fixture(scope="module")
def clip(person):
    return synthetic_clip(person, "synthetic_p", "key", 2.0, 96, np.random.default_rng(4))


def test_landmarks_lie_on_the_surface_that_is_rendered(person):
    points = moved_landmarks(person, 0.15, 0.3, 0.0)[list(RIGID) + list(INNER_LIPS)]
    depth = surface_depth(person, points[:, 0], points[:, 1])
    assert np.nanmax(np.abs(points[:, 2] - depth)) < 1e-4


def test_rays_meet_the_surface(person):
    camera = orbit(frontal_camera(48), torch.tensor(0.2), torch.tensor(-0.1))
    rays = cast_rays(camera, 48, 48)
    hit, point = hit_head(person, rays.origins.double().numpy(), rays.directions.double().numpy(), rays.near.numpy())
    front = hit & (point[:, 2] < -0.1)
    gap = point[:, 2] - surface_depth(person, point[:, 0], point[:, 1])
    assert front.mean() > 0.15 and np.nanquantile(np.abs(gap[front]), 0.98) < 0.01


def test_two_views_see_the_same_landmark_where_its_colour_is(person):
    """The iris, found by its colour in two views, lies where the eye's centre projects."""
    for yaw in (-0.2, 0.2):
        camera = orbit(frontal_camera(192), torch.tensor(yaw), torch.tensor(0.0))
        frame, _ = render_frame(person, camera, 192, 0.0, 0.0, 0.0)
        eye = np.array([[0.34, -0.35, surface_depth(person, np.array([0.34]), np.array([-0.35]))[0]]])
        expected = project(torch.from_numpy(eye).float(), camera)[0][0].numpy()
        dark = np.argwhere(frame.max(-1) < 12)[:, ::-1] + 0.5
        near = dark[np.linalg.norm(dark - expected, axis=1) < 12]
        assert len(near) and np.linalg.norm(near.mean(0) - expected) < 1.0


def test_mouth_mask_is_the_polygon_of_the_inner_lips(person):
    cv2 = pytest.importorskip("cv2")
    camera = frontal_camera(192)
    _, masks = render_frame(person, camera, 192, 0.18, 0.2, 0.0)
    corners = project(torch.from_numpy(moved_landmarks(person, 0.18, 0.2, 0.0)[list(INNER_LIPS)]), camera)[0].numpy()
    polygon = np.zeros((192, 192), np.uint8)
    cv2.fillPoly(polygon, [np.round((corners - 0.5) * 16).astype(np.int32)], 1, shift=4)
    both, either = (masks[2] & (polygon > 0)).sum(), (masks[2] | (polygon > 0)).sum()
    assert both / either > 0.8


def test_opening_of_landmarks_is_what_was_asked_for(person):
    for opening in (0.0, 0.1, 0.2):
        mesh = torch.from_numpy(moved_landmarks(person, opening, 0.0, 0.0))
        assert abs((mesh[14, 1] - mesh[13, 1]).item() - opening) < 0.02


def test_mouth_follows_the_loudness(clip):
    opening = mouth_opening(torch.from_numpy(clip.mesh)).numpy()
    frames = clip.speech.reshape(-1, SAMPLES_PER_FRAME)
    loudness = np.sqrt((frames ** 2).mean(1))
    assert np.corrcoef(opening, loudness)[0, 1] > 0.8
    assert loudness[opening < 0.03].max() < 0.15 * loudness.max()


def test_rounding_changes_the_sound():
    draw = lambda: np.random.default_rng(0)
    opening = np.full(25, 0.2)
    wide, round_lips = voice(opening, np.zeros(25), draw()), voice(opening, np.ones(25), draw())
    band = lambda sound: np.abs(np.fft.rfft(sound))[1900:2300].sum() / np.abs(np.fft.rfft(sound)).sum()
    assert band(wide) > 1.5 * band(round_lips)


def test_articulation_pauses():
    opening, rounding = articulation(250, np.random.default_rng(1))
    assert 0.1 < (opening == 0).mean() < 0.6 and opening.max() > 0.15 and 0 <= rounding.min() and rounding.max() <= 1


def test_head_moves_smoothly_and_masks_fit(clip, person):
    cameras = head_cameras(50, 96, np.random.default_rng(0))
    step = cameras.camera_to_world[1:, :3, 3] - cameras.camera_to_world[:-1, :3, 3]
    assert 0 < step.norm(dim=-1).max() < 0.6
    assert not (clip.masks[:, 0] & clip.masks[:, 1]).any()
    assert (clip.masks[:, 2] <= clip.masks[:, 0]).all() and clip.masks[:, 2].any()


def test_same_seed_same_bytes_other_seed_other_people(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        synthesize(tmp_path / name, people=1, clips=1, seconds=0.4, size=64, seed=seed)
    read = lambda name: (tmp_path / name / "synthetic-000000.tar").read_bytes()
    assert read("a") == read("b") != read("c")
    assert not set(read_people(tmp_path / "a")) & set(read_people(tmp_path / "c"))


def test_shards_give_the_clip_back(tmp_path):
    synthesize(tmp_path, people=1, clips=1, seconds=0.6, size=64)
    with tarfile.open(tmp_path / "synthetic-000000.tar") as tar:
        fields = {m.name.split(".", 1)[1]: tar.extractfile(m).read() for m in tar}
    back = decode_sample(fields)
    truth = synthetic_clip(draw_person(np.random.default_rng([0, 0])), "p", "k", 0.6, 64, np.random.default_rng([0, 0, 1]))
    assert np.array_equal(back.mesh, truth.mesh) and np.array_equal(back.masks, truth.masks)
    assert np.abs(back.frames.astype(int) - truth.frames).mean() < 4
    assert np.allclose(read_people(tmp_path)[back.info["person"]], truth.mesh.mean(0), atol=1e-5)
    assert isinstance(back.cameras, np.ndarray) and io.BytesIO(fields["bg.jpg"]).getvalue()[:2] == b"\xff\xd8"
