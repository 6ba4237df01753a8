"""The metric face and the face code."""
import numpy as np
import pytest
import torch

from s3dnerf.face import (EYE_CORNERS, EYELIDS, FACE_OVAL, INNER_LIPS, JAW, LANDMARKS_68, LIPS, MESH_POINTS, RIGID, FaceCode,
                          eye_opening, metric_face, mouth_opening)


def test_metric_face_has_its_unit_and_its_symmetry():
    face = metric_face()
    assert face.shape == (MESH_POINTS, 3)
    left, right = face[list(EYE_CORNERS)]
    assert np.allclose(right - left, [1, 0, 0], atol=1e-5)
    mirrored = face * [-1, 1, 1]
    nearest = np.linalg.norm(face[:, None] - mirrored, axis=-1).min(1)
    assert nearest.max() < 1e-3
    assert face[4, 2] == face[:, 2].min() or face[1, 2] < face[EYE_CORNERS[0], 2], "the nose is nearer than the eyes"
    assert face[152, 1] > face[13, 1] > face[4, 1] > face[10, 1], "chin below lips below nose below brow"


def test_landmark_lists_name_points_once_and_the_mouth_is_closed_around():
    for points in (LIPS, JAW, EYELIDS, RIGID, LANDMARKS_68, FACE_OVAL):
        assert len(set(points)) == len(points) and max(points) < MESH_POINTS
    assert len(LANDMARKS_68) == 68 and len(LIPS) == 40
    assert not set(RIGID) & set(LIPS + JAW)
    ring = metric_face()[list(INNER_LIPS), :2]
    steps = np.linalg.norm(np.roll(ring, -1, 0) - ring, axis=1)
    assert steps.max() < 4 * np.median(steps), "the inner ring is in order"


def open_mouth(amount):
    mesh = torch.from_numpy(metric_face()).clone()
    mesh[13, 1] -= amount / 2
    mesh[14, 1] += amount / 2
    return mesh


def test_openings_are_distances_in_head_units():
    closed = mouth_opening(open_mouth(0.0))
    assert torch.allclose(mouth_opening(open_mouth(0.2)) - closed, torch.tensor(0.2), atol=0.02)
    face = torch.from_numpy(metric_face())
    upper, lower = list(EYELIDS[0::2]), list(EYELIDS[1::2])
    moved = face.clone()
    moved[upper, 1] = moved[lower, 1]
    assert eye_opening(moved) < 0.3 * eye_opening(face)


def test_code_of_the_mean_is_zero_and_displacement_inverts_it():
    code, face = FaceCode(), torch.from_numpy(metric_face())
    assert torch.allclose(code.relative(face, face), torch.zeros(13))
    wanted = torch.zeros(13)
    wanted[:12] = torch.randn(12)
    moved = face.clone()
    moved[list(code.points), :2] += code.displacement(wanted)
    assert torch.allclose(code.relative(moved, face)[:12], wanted[:12], atol=1e-4)


def test_basis_is_orthonormal_and_ordered():
    code = FaceCode()
    assert torch.allclose(code.basis @ code.basis.T, torch.eye(12), atol=1e-4)
    assert (code.spread.diff() <= 0).all() and (code.spread > 0).all()


def test_opening_is_the_change_of_the_gap_between_the_inner_lips():
    code, face = FaceCode(), torch.from_numpy(metric_face())
    wanted = torch.zeros(13)
    wanted[:4] = torch.tensor([1.0, -0.5, 0.7, 0.2])
    moved = face.clone()
    moved[list(code.points), :2] += code.displacement(wanted)
    gap = lambda mesh: mesh[14, 1] - mesh[13, 1]
    assert code.opening(wanted) == pytest.approx(float(gap(moved) - gap(face)), abs=1e-6)


def test_closing_brings_the_inner_lips_together():
    code, face = FaceCode(), open_mouth(0.15)
    closed = face.clone()
    closed[list(code.points), :2] += code.displacement(code.closing(face))
    assert abs(closed[14, 1] - closed[13, 1]) < 1e-4


def test_lips_are_driven_as_far_apart_as_they_are_seen():
    """Whatever the mean face says: one that was open all the time must not close the mouth of others."""
    code = FaceCode()
    for mean in (open_mouth(0.0), open_mouth(0.2)):
        faces = torch.stack([open_mouth(0.0), open_mouth(0.15)])
        driven = code.driving(faces, mean)
        assert torch.allclose(code.opening(driven).diff(), torch.tensor(0.15), atol=1e-5)
        assert torch.allclose(code.opening(driven), code.opening(code.own(faces)), atol=1e-5)
        rest = driven - code.relative(faces, mean)
        assert (rest[:, -1] == 0).all()


def test_the_first_component_opens_the_mouth():
    code = FaceCode()
    step = torch.zeros(12, 13)
    step[:, :12] = torch.eye(12)
    moved = code.displacement(step)
    upper, lower = code.points.index(13), code.points.index(14)
    opening = (moved[:, lower, 1] - moved[:, upper, 1]).abs()
    assert opening.argmax() <= 1
