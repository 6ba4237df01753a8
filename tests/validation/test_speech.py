"""Openings and shares against numbers that are known."""
import math

import torch

from s3dnerf.face import metric_face, mouth_opening
from s3dnerf.geometry import frontal_camera, project
from s3dnerf.validation.speech import FOREHEAD, compare_openings, opening_of, smallest_share
from s3dnerf.networks.deformation import face_window, to_face_box

WAVE = torch.sin(torch.linspace(0, 20, 50))


def test_openings_that_agree_that_are_halved_late_or_frozen():
    assert torch.allclose(torch.tensor(compare_openings([WAVE], [WAVE])), torch.ones(2))
    ratio, match = compare_openings([WAVE / 2], [WAVE])
    assert abs(ratio - 0.25) < 1e-5 and abs(match - 1) < 1e-5
    assert compare_openings([WAVE.roll(8)], [WAVE])[1] < 0.2
    assert compare_openings([WAVE * 0], [WAVE]) == (0, 0)


def test_a_frame_without_a_face_is_left_out_and_half_of_them_fail():
    gaps = WAVE.clone()
    gaps[::5] = math.nan
    assert abs(compare_openings([gaps], [WAVE])[1] - 1) < 1e-5
    gaps[::2] = math.nan
    assert all(math.isnan(figure) for figure in compare_openings([gaps, WAVE], [WAVE, WAVE]))


def test_a_long_clip_of_a_still_mouth_does_not_hide_a_frozen_one():
    still = 0.01 * WAVE
    assert compare_openings([still, WAVE * 0], [still, WAVE])[0] < 0.01


def test_opening_comes_back_from_pixels():
    mesh = torch.from_numpy(metric_face()).repeat(3, 1, 1)
    mesh[1:, 14, 1] += torch.tensor([0.1, 0.2])
    cameras = frontal_camera(256).map(lambda x: x.expand(3, *x.shape))
    assert torch.allclose(opening_of(project(mesh, cameras)[0], mesh, cameras), mouth_opening(mesh), atol=1e-4)


def test_share_of_the_least_token():
    gradient = torch.ones(1, 2, 8, 4)
    gradient[:, :, 3] = 0.02
    assert abs(smallest_share(gradient) - 0.02) < 1e-6 and smallest_share(gradient * 0) == 0


def test_the_brows_lie_where_the_face_box_does_not_fade():
    face = torch.from_numpy(metric_face())
    assert (face_window(to_face_box(face[list(FOREHEAD)])) > 0.95).all()
