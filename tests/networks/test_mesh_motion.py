"""The landmarks' share of the motion, against truth: polygons, a code that does nothing, lips that are carried along."""
import math

import numpy as np
import pytest
import torch

from s3dnerf.face import INNER_LIPS, LIPS, LOWER_LIDS, SHUT, UPPER_LIDS, FaceCode, eye_opening, metric_face
from s3dnerf.networks.mesh_motion import OVERLAP, RAYS, MeshMotion, level, meet, outline_distance, shut, slide

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


def blinked(opening):
    """A change of code that leaves the eyes `opening` head units wide."""
    code = torch.zeros(FaceCode.size)
    code[-1] = 10 * (opening - eye_opening(FACE).item())
    return code


def columns(above=0.15, below=0.08):
    """Places [1, 1, N, 3] on lines across the middle of both eyes, a seventh of a pixel apart."""
    heights = torch.arange(-above, below, 0.0017)
    return torch.cat([torch.nn.functional.pad(heights[:, None], (1, 1)) + FACE[0, iris] for iris in (468, 473)])[None, None]


def shown(model, opening, lashes=None):
    """Places of `columns`, and where the photo has what is seen there, [N, 3] each."""
    places = columns()
    offset, _ = model.read(flow(model, blinked(opening)), places, *(lashes and [lashes] or []))
    return places[0, 0], (places + offset)[0, 0]


def in_eye(places, depth=0.004):
    """[N] which places lie between the lids of the photo."""
    edges = torch.stack([FACE[0, [row[3], row[11]], 1] for row in (UPPER_LIDS, LOWER_LIDS)])
    rows = places[:, 1].unflatten(0, (2, -1))
    return ((rows > edges[0, :, None] + depth) & (rows < edges[1, :, None] - depth)).flatten()


def test_nothing_of_the_eye_is_seen_when_landmarks_say_that_it_is_shut(model):
    assert in_eye(columns()[0, 0]).float().mean() > 0.25
    for opening in (SHUT, 0.005):
        assert in_eye(shown(model, opening)[1]).sum() <= 1  # an edge
    assert in_eye(shown(model, SHUT, RAYS)[1]).sum() > 20  # an edge that is not sharp shows what it passes over
    photo, same = shown(model, eye_opening(FACE).item())
    assert (photo - same).abs().max() < 1e-5


def test_a_lid_slides_over_an_iris_that_stays(model):
    half = (SHUT + eye_opening(FACE).item()) / 2
    places, seen = shown(model, half)
    eye = in_eye(places, 0.02) & in_eye(seen)
    assert eye.sum() > 10 and ((places - seen)[eye].abs().amax(1) < 0.01).sum() >= eye.sum() - 2  # its edges
    covered = in_eye(places) & ~in_eye(seen, 0.0)
    assert 0.25 < covered.sum() / in_eye(places).sum() < 0.75


def test_lids_shut_evenly_and_an_eye_that_is_wider_than_the_photos_is_left_alone():
    face = FACE[..., :2]
    gap = lambda landmarks: landmarks[0, list(LOWER_LIDS), 1] - landmarks[0, list(UPPER_LIDS), 1]
    closing = lambda share: face.index_copy(1, torch.tensor(UPPER_LIDS), torch.lerp(
        face[:, list(LOWER_LIDS)], face[:, list(UPPER_LIDS)], share))
    assert torch.allclose(gap(shut(face, closing(SHUT / 0.09))), torch.full((14,), -OVERLAP), atol=0.01)
    assert torch.allclose(gap(shut(face, closing(-0.2))), torch.full((14,), -OVERLAP))
    assert torch.allclose(shut(face, face), face) and torch.equal(shut(face, closing(1.3)), closing(1.3))


def test_a_curve_is_read_between_its_points():
    along, values = torch.tensor([-1.0, 0.0, 0.5, 2.0]), torch.tensor([[0.0, 2.0, -1.0, 4.0], [1.0, 1.0, 3.0, 0.0]])
    x = torch.linspace(-2, 3, 41)
    truth = np.stack([np.interp(x, along, row) for row in values])
    assert level(along, values, x).numpy() == pytest.approx(truth, abs=1e-5)


def test_lashes_keep_their_size_where_a_lid_is_drawn_out():
    above = torch.linspace(0, 0.1, 1001)[:, None]
    height = lambda now, was: (above * was / now + slide(above, torch.tensor([now]), torch.tensor([was])))[:, 0]
    assert torch.allclose(height(0.1, 0.1), above[:, 0], atol=1e-6)
    drawn = height(0.1, 0.04)
    assert drawn[0] == 0 and drawn[-1] == pytest.approx(0.04) and (drawn.diff() >= 0).all()
    assert drawn[10] / above[10, 0] == pytest.approx(0.4 ** 0.5, abs=0.01)


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
