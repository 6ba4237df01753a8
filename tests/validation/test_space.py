"""Geometry of the checks against projections of the metric face, and samples against a wall."""
import pytest
import torch

from s3dnerf.data.tracking import FOCAL
from s3dnerf.face import metric_face
from s3dnerf.geometry import cast_rays, frontal_camera, project
from s3dnerf.rendering.renderer import CoarseToFineRenderer
from s3dnerf.types import FieldSamples
from s3dnerf.validation.space import TURNS, around, epipolar_distance, near_mode, repeated, tracked_yaw, yaw_of

CAMERAS = around(frontal_camera(256, FOCAL), TURNS)
LANDMARKS = project(torch.from_numpy(metric_face()).expand(len(TURNS), -1, -1), CAMERAS)[0]


def test_cameras_go_around_by_as_many_degrees():
    assert torch.allclose(yaw_of(CAMERAS).abs(), torch.tensor(TURNS).abs(), atol=1e-3)


def test_tracked_yaw_is_the_cameras():
    assert torch.allclose(tracked_yaw(LANDMARKS, (256, 256)), yaw_of(CAMERAS), atol=0.5)


@pytest.mark.parametrize("pair", [[0, 2], [1, 3], [4, 0]])
def test_a_solid_face_lies_on_its_epipolar_lines_and_a_wobbling_one_beside(pair):
    assert epipolar_distance(LANDMARKS[pair], CAMERAS[pair]) < 0.01
    off = LANDMARKS[pair].clone()
    off[1, :, 1] += 3  # epipolar lines of a turn to the side are nearly level
    assert 2.5 < epipolar_distance(off, CAMERAS[pair]) < 3.1


@pytest.mark.parametrize("importance", [True, False])
def test_the_second_look_crowds_at_a_wall_only_with_importance(importance):
    def wall(points):
        density = (points[..., 2:] > -0.4).float() * 40
        return FieldSamples(density, *(torch.zeros(*points.shape[:-1], n) for n in (3, 2, 1, 1)))

    camera = frontal_camera(64)
    rays = cast_rays(camera.map(lambda x: x[None]), 8, 8)
    coarse, fine = CoarseToFineRenderer(8, 8, importance).eval()(rays, wall)
    assert (near_mode(coarse, fine) > 0.6) == importance
    assert repeated(fine) < 0.05
