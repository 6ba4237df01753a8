"""Cameras and rays against independent references."""
import math

import numpy as np
import pytest
import torch

from s3dnerf.face import CROP_EXTENT, metric_face
from s3dnerf.geometry import (HEAD_BACK, HEAD_FRONT, cast_rays, euler_from_rotation, frontal_camera, orbit, project, seen_shift,
                              rigid_inverse, rotation_from_euler, unproject)
from s3dnerf.types import Cameras


@pytest.fixture
def cameras():
    torch.manual_seed(0)
    angles = [torch.empty(5).uniform_(-0.6, 0.6) for _ in range(3)]
    return orbit(frontal_camera(64), angles[0], angles[1])


def test_rotation_matches_the_product_of_axis_rotations_of_opencv():
    cv2 = pytest.importorskip("cv2")
    pitch, yaw, roll = 0.3, -0.5, 0.2
    about = [cv2.Rodrigues(np.array(axis, float))[0] for axis in ([pitch, 0, 0], [0, yaw, 0], [0, 0, roll])]
    ours = rotation_from_euler(*(torch.tensor(a, dtype=torch.float64) for a in (pitch, yaw, roll)))
    assert np.allclose(ours.numpy(), about[2] @ about[1] @ about[0])


def test_euler_angles_come_back():
    angles = torch.empty(3, 100, dtype=torch.float64).uniform_(-1.4, 1.4)
    back = euler_from_rotation(rotation_from_euler(*angles))
    assert torch.allclose(torch.stack(back), angles)


def test_projection_agrees_with_opencv(cameras):
    cv2 = pytest.importorskip("cv2")
    points = metric_face()
    ours, _ = project(torch.from_numpy(points).expand(5, -1, -1), cameras)
    for camera in range(5):
        pose = np.linalg.inv(cameras.camera_to_world[camera].numpy())
        theirs, _ = cv2.projectPoints(points, cv2.Rodrigues(pose[:3, :3])[0], pose[:3, 3],
                                      cameras.intrinsics.numpy(), None)
        assert np.abs(theirs[:, 0] - ours[camera].numpy()).max() < 1e-2


def test_unprojection_inverts_projection(cameras):
    points = torch.from_numpy(metric_face()).expand(5, -1, -1)
    wide = Cameras(cameras.camera_to_world, cameras.intrinsics.expand(5, -1, -1))
    assert torch.allclose(unproject(*project(points, wide), wide), points, atol=1e-4)


def test_rigid_inverse():
    pose = orbit(frontal_camera(8), torch.tensor([0.4]), torch.tensor([0.2])).camera_to_world
    assert torch.allclose(rigid_inverse(pose) @ pose, torch.eye(4).expand(1, 4, 4), atol=1e-5)


def test_frontal_camera_shows_the_extent_and_the_face_upright():
    pixels, _ = project(torch.from_numpy(metric_face()), frontal_camera(300))
    assert (pixels[263] - pixels[33])[0] == pytest.approx(300 / CROP_EXTENT, rel=0.06)
    assert pixels[263, 0] > pixels[33, 0] and pixels[152, 1] > pixels[10, 1]
    centre, _ = project(torch.zeros(1, 3), frontal_camera(300))
    assert centre.tolist() == [[150.0, 150.0]]


def test_ray_through_a_pixel_meets_what_projects_there(cameras):
    wide = Cameras(cameras.camera_to_world, cameras.intrinsics.expand(5, -1, -1))
    rays = cast_rays(wide, 64, 64)
    points = rays.origins + rays.directions * (rays.near + rays.far) / 2
    pixels, _ = project(points, wide)
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    assert (pixels - torch.stack([x, y], -1).flatten(0, 1)).abs().max() < 1e-2
    assert torch.allclose(rays.directions.norm(dim=-1), torch.ones(5, 64 * 64))


def test_near_and_far_are_the_planes_before_and_behind_the_head():
    rays = cast_rays(frontal_camera(16), 16, 16)
    near, far = rays.origins + rays.directions * rays.near, rays.origins + rays.directions * rays.far
    assert torch.allclose(near[:, 2], torch.full((256,), -HEAD_FRONT), atol=1e-4)
    assert torch.allclose(far[:, 2], torch.full((256,), HEAD_BACK), atol=1e-4)


def test_crop_and_resize_keep_what_is_seen():
    camera = frontal_camera(128)
    window = camera.cropped(torch.tensor(32.0), torch.tensor(16.0)).resized(0.5)
    points = torch.randn(20, 3) * 0.5
    assert torch.allclose(project(points, window)[0], (project(points, camera)[0] - torch.tensor([32.0, 16.0])) / 2, atol=1e-4)


def test_orbit_to_the_right_turns_the_nose_to_the_viewers_right():
    face = torch.from_numpy(metric_face())
    turned, _ = project(face, orbit(frontal_camera(256), torch.tensor(math.radians(20.0)), torch.tensor(0.0)))
    middle = (turned[33] + turned[263]) / 2
    assert turned[4, 0] > middle[0] + 5
    lowered, _ = project(face, orbit(frontal_camera(256), torch.tensor(0.0), torch.tensor(math.radians(20.0))))
    frontal, _ = project(face, frontal_camera(256))
    assert (lowered[4] - lowered[33])[1] > (frontal[4] - frontal[33])[1]


def test_what_moves_is_seen_to_move_by_the_difference_of_two_projections():
    camera = orbit(frontal_camera(64), torch.tensor(0.3), torch.tensor(0.1))
    cameras = Cameras(camera.camera_to_world.expand(2, 4, 4), camera.intrinsics * torch.tensor([[[1.0]], [[2.0]]]))
    points, offsets = torch.randn(2, 50, 3), 0.1 * torch.randn(2, 50, 3)
    expected = project(points + offsets, cameras)[0] - project(points, cameras)[0]
    assert expected.abs().max() > 1
    torch.testing.assert_close(seen_shift(points, offsets, cameras), expected, atol=1e-4, rtol=1e-4)
