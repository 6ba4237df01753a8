"""The landmarks' share of the motion, against truth: polygons, a code that does nothing, lips that are carried along."""
import math

import pytest
import torch

from s3dnerf.face import INNER_LIPS, LIPS, FaceCode, eye_opening, metric_face
from s3dnerf.networks.mesh_motion import MeshMotion, meet, outline_distance

FACE = torch.from_numpy(metric_face())[None]


@pytest.fixture(scope="module")
def model():
    return MeshMotion()


def flow(model, change, face=FACE):
    """Maps of a face whose own code is changed by `change` [13]."""
    return model(face, (model.face_code.own(face) + change)[:, None])


def opened(amount=0.1):
    """A change of code that opens the mouth by `amount` head units."""
    code = torch.zeros(FaceCode.size)
    unit = torch.eye(FaceCode.size)
    gains = FaceCode().opening(unit)
    return code + amount * gains / (gains @ gains)


def test_distance_from_a_square_and_from_a_circle():
    points = torch.tensor([[0.0, 0.0], [0.75, 0.0], [2.0, 0.0], [2.0, 2.0], [1.0, 0.3]])
    square = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    found = outline_distance(points, square)[:, 0]
    assert torch.allclose(found, torch.tensor([-1.0, -0.25, 1.0, math.sqrt(2), 0.0]), atol=1e-6)
    angles = torch.linspace(0, 2 * math.pi, 721)[:-1]
    circle = torch.stack([angles.cos(), angles.sin()], -1)
    points = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) * 4 - 2
    assert torch.allclose(outline_distance(points, circle)[:, 0], points.norm(dim=-1) - 1, atol=1e-3)


def test_the_photos_own_code_moves_nothing(model):
    offset, _ = model.read(flow(model, torch.zeros(FaceCode.size)), FACE[:, None])
    assert offset.abs().max() < 1e-6


def test_landmarks_find_back_to_where_the_photo_has_them(model):
    change = opened()
    target = FACE.clone()
    target[..., :2] += model.face_code.mesh_displacement(change)
    lips = list(INNER_LIPS)
    offset, _ = model.read(flow(model, change), target[:, None, lips])
    goal = (FACE - target)[0, lips, :2]
    assert (offset[0, 0, :, :2] - goal).norm(dim=-1).mean() < 0.08 * goal.norm(dim=-1).mean()
    brows = target[:, None, [9, 107, 336]]
    assert model.read(flow(model, change), brows)[0].abs().max() < 0.01


def test_closed_lips_part_at_their_line_and_triangles_know_it_better():
    closed, rim = FACE.clone(), list(LIPS)
    closed[:, list(INNER_LIPS[1:10])] = closed[:, list(INNER_LIPS[:10:-1])]

    def missed(model):
        code = model.face_code.own(closed)[:, None] + opened()
        target = closed + torch.nn.functional.pad(model.face_code.mesh_displacement(opened()), (0, 1))
        found, _ = model.read(model(closed, code), target[:, None, rim])
        return (found[0, 0, :, :2] - (closed - target)[0, rim, :2]).norm(dim=-1).mean()

    without = MeshMotion()
    without.triangles.weights.zero_()
    assert missed(MeshMotion()) < 0.8 * missed(without)


def test_an_open_mouth_has_an_inside_and_a_closed_one_has_none(model):
    place = (FACE[:, None, [13]] + FACE[:, None, [14]]) / 2
    inside = lambda change: model.read(flow(model, change), place)[1].item()
    assert inside(opened(0.15)) > 0.95
    assert inside(opened(-0.3)) < 0.4
    nose = FACE[:, None, [4]]
    assert model.read(flow(model, opened(0.15)), nose)[1].item() < 1e-3


def test_lips_meet_but_do_not_cross(model):
    face = FACE[..., :2].clone()
    face[:, 14, 1] = face[:, 13, 1] - 0.1
    met = meet(face)
    assert met[0, 14, 1] == met[0, 13, 1] == face[0, [13, 14], 1].mean()
    assert torch.equal(meet(met), met)


def test_lids_close_over_the_iris(model):
    blink = torch.zeros(FaceCode.size)
    blink[-1] = -10 * eye_opening(FACE).item()
    irises = FACE[:, None, [468, 473]]
    offset, _ = model.read(flow(model, blink), irises)
    edge = FACE[0, [159, 386], 1]
    assert (irises[0, 0, :, 1] + offset[0, 0, :, 1] < edge).all()
    assert model.read(flow(model, 0 * blink), irises)[0].abs().max() < 1e-6


def test_an_open_photo_shows_its_own_inside(model):
    open_face = FACE.clone()
    open_face[..., :2] += model.face_code.mesh_displacement(opened(0.15))
    shown = lambda face, change: flow(model, change, face).shown.item()
    assert shown(open_face, torch.zeros(FaceCode.size)) > 0.8
    assert shown(FACE, opened(0.15)) < 0.3


def test_gradients_reach_the_code(model):
    change = opened().requires_grad_(True)
    offset, inside = model.read(flow(model, change), FACE[:, None, list(INNER_LIPS)])
    gradient, = torch.autograd.grad(offset.sum() + inside.sum(), change)
    assert gradient.abs().max() > 0
