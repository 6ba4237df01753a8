"""The synthetic head tells the truth about itself."""
import json
import tarfile

import numpy as np
import pytest
import torch

from s3dnerf.data.shards import decode_sample, read_people
from s3dnerf.data.synthetic import draw_blinks, draw_person, head_cameras, synthesize, synthetic_clip
from s3dnerf.data.synthetic_head import Expression, look_up, to_directions, to_points
from s3dnerf.data.synthetic_picture import meet, paint_wall, take_picture
from s3dnerf.data.synthetic_speech import articulation, voice
from s3dnerf.errors import InputError
from s3dnerf.face import INNER_LIPS, LANDMARKS_68, LIPS, RIGID, eye_opening, metric_face, mouth_opening
from s3dnerf.geometry import (euler_from_rotation, frontal_camera, orbit, project, rigid_inverse, unproject)
from s3dnerf.media import SAMPLES_PER_FRAME, log_mel
from s3dnerf.types import Cameras
from s3dnerf.workers import alone

SPEAKING = Expression(opening=0.2, rounding=0.6, blink=0.3)
SIZE = 96


@pytest.fixture(scope="module")
def person():
    return draw_person(np.random.default_rng(3))


@pytest.fixture(scope="module")
def clip(person):
    return synthetic_clip(*person, "synthetic_p", "key", 1.6, 64, np.random.default_rng(4))


def view(yaw: float, pitch: float = 0.0, size: int = SIZE) -> Cameras:
    return orbit(frontal_camera(size), torch.tensor(yaw), torch.tensor(pitch))


def picture(person, expression, camera, size=SIZE, oversampling=1):
    head, paint = person
    body = rigid_inverse(frontal_camera(size).camera_to_world)
    with alone():
        return take_picture(head, paint, expression, head.surface(expression), paint_wall(paint, size), camera, body, oversampling)


def shoot(table, farthest, camera, pixels):
    """Distances along the optical axis at which rays through pixels [N, 2] meet the surface, infinite for a miss."""
    points = unproject(pixels, torch.ones(len(pixels), 1), camera)
    origin = camera.camera_to_world[:3, 3].expand_as(points)
    ray = torch.nn.functional.normalize(points - origin, dim=-1)
    numbers, distance, _ = meet(table, farthest, origin, ray)
    depth = torch.full((len(pixels),), torch.inf)
    depth[numbers] = distance * (ray[numbers] @ camera.camera_to_world[:3, 2])
    return depth


@pytest.mark.parametrize("yaw", [0.0, 0.25])
def test_landmarks_lie_where_their_pixels_meet_the_surface(person, yaw):
    """Landmarks that face the camera have the depth of the ray through their pixel; none hides behind nothing."""
    head, table, camera = person[0], person[0].surface(SPEAKING), view(yaw, 0.1)
    points = head.landmarks(SPEAKING, table)
    pixels, depth = project(points, camera)
    seen = shoot(table, head.farthest, camera, pixels)
    gap = depth[:, 0] - seen
    assert (gap > -5e-3).float().mean() > 0.99  # a ray along the outline may miss
    visible = gap < 0.02
    assert visible.float().mean() > 0.75 and visible[list(LIPS)].float().mean() > 0.8
    assert gap[visible].abs().median() < 1e-3 and gap[visible].abs().quantile(0.95) < 5e-3


def test_a_surface_point_lies_on_the_same_pixel_in_another_view(person):
    """What one view's ray meets, projected into another view and shot at from there, is the same point."""
    head, table = person[0], person[0].surface(SPEAKING)
    first, second = view(-0.15), view(0.1, -0.08)
    grid = torch.cartesian_prod(torch.linspace(30, 66, 12), torch.linspace(30, 66, 12))
    points = unproject(grid, shoot(table, head.farthest, first, grid)[:, None], first)
    pixels, depth = project(points, second)
    again = unproject(pixels, shoot(table, head.farthest, second, pixels)[:, None], second)
    same = (again - points).norm(dim=-1) < 0.1
    back = project(again, first)[0]
    assert same.float().mean() > 0.9 and (back[same] - grid[same]).norm(dim=-1).quantile(0.98) < 1.0


def test_the_picture_is_drawn_by_the_camera_of_the_clip(person):
    """The pupils are the darkest of the eyes; in three views they lie where the iris landmarks project."""
    expression = Expression()
    points = person[0].landmarks(expression, person[0].surface(expression))[[468, 473]]
    for yaw in (-0.2, 0.0, 0.2):
        camera = view(yaw, size=192)
        image = picture(person, expression, camera, 192).image
        for pixel in project(points, camera)[0]:
            y, x = torch.meshgrid(torch.arange(192) + 0.5, torch.arange(192) + 0.5, indexing="ij")
            dark = (image.amax(-1) < 0.1) & (torch.hypot(x - pixel[0], y - pixel[1]) < 5)
            assert dark.any() and torch.hypot(x[dark].mean() - pixel[0], y[dark].mean() - pixel[1]) < 1.2


@pytest.mark.parametrize("rounding", [0.0, 1.0])
def test_mouth_mask_is_the_polygon_of_the_inner_lips_within_a_pixel(person, rounding):
    cv2 = pytest.importorskip("cv2")
    head, expression, camera = person[0], Expression(0.2, rounding), view(0.1, size=128)
    mouth = picture(person, expression, camera, 128).mouth.numpy() > 0.5
    corners = project(head.landmarks(expression, head.surface(expression)), camera)[0][list(INNER_LIPS)].numpy()
    polygon = np.zeros((128, 128), np.uint8)
    cv2.fillPoly(polygon, [np.round((corners - 0.5) * 16).astype(np.int32)], 1, shift=4)
    pixel = np.ones((3, 3), np.uint8)
    grow, shrink = cv2.dilate(polygon, pixel) > 0, cv2.erode(polygon, pixel) > 0
    assert mouth.sum() > 60 and not (mouth & ~grow).any() and not (shrink & ~mouth).any()


def test_forward_and_backward_are_inverses(person):
    head = person[0]
    rest, region = head.backward(head.forward(SPEAKING), SPEAKING)
    assert (rest - head.rest)[:468].abs().max() < 1e-4
    assert (region[list(RIGID)] == 0).all() and (region[[468, 473]] == torch.tensor([2, 3])).all()


def test_face_is_the_metric_face_when_nothing_is_changed():
    from s3dnerf.data.synthetic_head import SyntheticHead

    head, mean = SyntheticHead(), torch.from_numpy(metric_face())
    expression = Expression(opening=mouth_opening(mean).item())
    away = (head.landmarks(expression, head.surface(expression)) - mean).norm(dim=-1)[:468]
    assert away.median() < 0.01 and away.quantile(0.95) < 0.06


def test_opening_rounding_and_blink_do_what_they_say(person):
    head = person[0]
    face = lambda *numbers: head.landmarks(Expression(*numbers), head.surface(Expression(*numbers)))
    for opening in (0.0, 0.1, 0.2):
        mesh = face(opening)
        assert abs((mesh[14, 1] - mesh[13, 1]).item() - opening) < 0.02
    width = lambda mesh: (mesh[308, 0] - mesh[78, 0]).item()
    assert 0.6 < width(face(0.1, 1.0)) / width(face(0.1, 0.0)) < 0.9
    assert eye_opening(face(0.0, 0.0, 1.0)) < 0.02 < 0.06 < eye_opening(face())
    assert face(0.2)[152, 1] > face(0.0)[152, 1] + 0.03
    still = [33, 263, 168, 4, 10, 234, 454]
    assert torch.allclose(face(0.2, 0.0, 1.0)[still], face()[still], atol=0.01)


def test_directions_and_points_are_inverses():
    points = torch.randn(50, 3)
    assert torch.allclose(to_points(to_directions(points), points.norm(dim=-1)), points, atol=1e-5)


def test_masks_have_no_holes_and_do_not_overlap(person, clip):
    cv2 = pytest.importorskip("cv2")
    shown = picture(person, SPEAKING, view(0.2), SIZE)
    assert ((shown.head + shown.torso) < 1.001).all() and (shown.mouth <= shown.head).all()
    count, _ = cv2.connectedComponents((shown.head.numpy() < 0.5).astype(np.uint8))
    assert count == 2, "holes in the head"
    assert not (clip.masks[:, 0] & clip.masks[:, 1]).any() and (clip.masks[:, 2] <= clip.masks[:, 0]).all()
    assert 0.2 < clip.masks[:, 0].mean() < 0.6 and clip.masks[:, 1].any() and clip.masks[:, 2].any()


def test_what_no_mask_covers_is_the_background(clip):
    person = clip.masks[:, :2].any(1).repeat(4, 1).repeat(4, 2)
    edge = torch.nn.functional.max_pool2d(torch.from_numpy(person)[:, None].float(), 9, 1, 4)[:, 0].numpy() > 0
    away = np.abs(clip.frames.astype(int) - clip.background)[~edge]
    assert len(away) > 1000 and away.max() <= 3


def test_cameras_and_landmarks_of_a_clip_agree(clip):
    cameras = Cameras(torch.from_numpy(clip.cameras[:, :16]).view(-1, 4, 4),
                      torch.from_numpy(clip.cameras[:, 16:]).view(-1, 3, 3) * torch.tensor([[64], [64], [1.0]]))
    pixels = project(torch.from_numpy(clip.mesh), cameras)[0][:, list(LANDMARKS_68)].numpy()
    assert np.abs(pixels - clip.landmarks).max() < 1e-3 and 0 < clip.landmarks.min() and clip.landmarks.max() < 64


def test_head_moves_smoothly_within_its_bounds():
    cameras = head_cameras(100, 96, np.random.default_rng(0))
    angles = torch.stack(euler_from_rotation(rigid_inverse(cameras.camera_to_world)[:, :3, :3])).rad2deg()
    assert (angles.abs().amax(1) < torch.tensor([9.1, 15.1, 6.1])).all() and (angles.amax(1) - angles.amin(1) > 1).all()
    assert angles.diff(dim=1).abs().max() < 2.5


def test_eyes_blink_now_and_then():
    shut = draw_blinks(1000, np.random.default_rng(0))
    assert 10 <= ((shut[1:] == 1) & (shut[:-1] < 1)).sum() <= 27 and (shut == 0).mean() > 0.7


def test_mouth_follows_the_loudness_and_silence_is_shut(clip):
    opening = mouth_opening(torch.from_numpy(clip.mesh)).numpy()
    loudness = np.sqrt((clip.speech.reshape(-1, SAMPLES_PER_FRAME) ** 2).mean(1))
    assert np.corrcoef(opening, loudness)[0, 1] > 0.8
    assert opening[loudness < 0.03 * loudness.max()].max() < 0.02 < 0.1 < opening.max()


def test_rounding_and_opening_can_be_heard():
    """A linear map of single mel frames, fitted to half of a long articulation, tells both of the other half."""
    opening, rounding = articulation(1000, np.random.default_rng(5))
    mel = log_mel(voice(opening, rounding, np.random.default_rng(6))).numpy()
    frames = mel[:, np.round((np.arange(1000) + 0.5) * 3.2).astype(int)].T
    frames = np.concatenate([frames, np.ones((1000, 1))], 1)
    for truth, least in ((opening, 0.8), (rounding, 0.6)):
        voiced = np.flatnonzero(opening > 0.05)
        first, second = voiced[voiced < 500], voiced[voiced >= 500]
        weights = np.linalg.solve(frames[first].T @ frames[first] + 5 * np.eye(81), frames[first].T @ truth[first])
        assert np.corrcoef(frames[second] @ weights, truth[second])[0, 1] > least


def test_articulation_pauses():
    opening, rounding = articulation(250, np.random.default_rng(1))
    assert 0.1 < (opening == 0).mean() < 0.6 and opening.max() > 0.15 and 0 <= rounding.min() and rounding.max() <= 1


def test_people_differ(person):
    other = draw_person(np.random.default_rng(8))
    expression, camera = Expression(), view(0.0, size=48)
    mine, theirs = (picture(p, expression, camera, 48) for p in (person, other))
    both = (mine.head > 0.5) & (theirs.head > 0.5)
    assert (mine.image - theirs.image)[both].abs().mean() > 0.05
    assert (person[0].rest - other[0].rest).abs().max() > 0.01


def test_look_up_is_exact_at_the_entries_of_a_table():
    from s3dnerf.data.synthetic_head import table_directions

    grid, table = table_directions(), torch.rand(181, 361)
    assert torch.allclose(look_up(table, grid.flatten(0, 1)), table.flatten(), atol=1e-3)


def test_same_seed_same_bytes_other_seed_other_people(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        synthesize(tmp_path / name, people=2, clips=1, seconds=0.12, size=32, seed=seed, clips_per_shard=1)
    read = lambda name: [(tmp_path / name / f"synthetic-00000{i}.tar").read_bytes() for i in (0, 1)]
    assert read("a") == read("b") != read("c")
    train, val = set(read_people(tmp_path / "a")), set(read_people(tmp_path / "c"))
    assert len(train) == len(val) == 2 and not train & val and all(name.startswith("synthetic_p") for name in train)


def test_shards_give_the_clip_back(tmp_path):
    synthesize(tmp_path, people=1, clips=1, seconds=0.4, size=64)
    with tarfile.open(tmp_path / "synthetic-000000.tar") as tar:
        fields = {m.name.split(".", 1)[1]: tar.extractfile(m).read() for m in tar}
    back = decode_sample(fields)
    truth = synthetic_clip(*draw_person(np.random.default_rng([0, 0])), "p", "k", 0.4, 64, np.random.default_rng([0, 0, 1]))
    assert np.array_equal(back.mesh, truth.mesh) and np.array_equal(back.masks, truth.masks)
    assert np.array_equal(back.cameras, truth.cameras) and np.array_equal(back.landmarks, truth.landmarks)
    assert np.abs(back.speech - truth.speech).max() < 1e-4 and np.abs(back.frames.astype(int) - truth.frames).mean() < 4
    assert np.allclose(read_people(tmp_path)[back.info["person"]], truth.mesh.mean(0), atol=1e-5)
    assert json.loads((tmp_path / "index.json").read_text())["shards"] == ["synthetic-000000.tar"]


@pytest.mark.parametrize("numbers", [{"people": 0}, {"clips": 0}, {"seconds": 0.0}, {"size": 30}, {"clips_per_shard": 0}])
def test_numbers_that_cannot_be_are_refused(tmp_path, numbers):
    with pytest.raises(InputError, match="found .*; expected"):
        synthesize(tmp_path / "out", **{"people": 1, "clips": 1, "size": 32} | numbers)
    assert not (tmp_path / "out").exists()
