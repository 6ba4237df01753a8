"""Triangles between landmarks, against truth: affine motion, closed lips that part, holes that are closed."""
import numpy as np
import pytest
import torch

from s3dnerf.face import EYE_RINGS, INNER_LIPS, LIPS, metric_face
from s3dnerf.networks.mesh_triangles import FLAT, MeshTriangles, across, among_all, among_near, closeness, interpolate

FACE = torch.from_numpy(metric_face())[:468, :2]


def at(y, x, landmarks, offsets):
    """What triangles say at rows y and columns x of landmarks [468, 2] that move by offsets."""
    return MeshTriangles(np.atleast_1d(y), np.atleast_1d(x))(landmarks[None, None], offsets[None, None])


def test_an_affine_motion_is_met_exactly_wherever_triangles_speak():
    low, high = FACE[list(LIPS)].numpy().min(0) - 0.05, FACE[list(LIPS)].numpy().max(0) + 0.05
    y, x = np.linspace(low[1], high[1], 60), np.linspace(low[0], high[0], 60)
    matrix, shift = torch.tensor([[0.1, -0.05], [0.02, 0.2]]), torch.tensor([0.03, -0.01])
    found, share = at(y, x, FACE, FACE @ matrix + shift)
    places = torch.from_numpy(np.stack(np.meshgrid(x, y), -1)).float()
    goal = (places @ matrix + shift).permute(2, 0, 1)
    spoken = share[0, 0, 0] > 0.01
    assert spoken.float().mean() > 0.9
    assert (found[0, 0] - goal).abs()[:, spoken].max() < 1e-5


def test_their_word_is_whole_at_the_lips_and_nothing_at_the_forehead():
    word = lambda point: at(*(FACE[point].flip(0) + 1e-4).numpy(), FACE, torch.zeros(468, 2))[1].item()
    assert word(0) > 0.99 and word(17) > 0.99 and word(159) > 0.9
    assert word(10) == 0 and word(151) == 0
    assert MeshTriangles(np.zeros(1), np.zeros(1)).weights[[152, 234, 454]].max() == 0


def test_lips_that_touch_part_at_their_line():
    face, offsets = FACE.clone(), torch.zeros(468, 2)
    upper, lower = list(INNER_LIPS[:10:-1]), list(INNER_LIPS[1:10])
    face[lower] = face[upper]
    offsets[list(INNER_LIPS[1:10])] = torch.tensor([0.0, 0.1])
    found, _ = at(face[13, 1].item() + np.array([-0.003, 0.003]), face[13, 0].item(), face, offsets)
    above, below = found[0, 0, 1, :, 0]
    assert abs(above) < 1e-5 and 0.08 < below <= 0.1 + 1e-6


@pytest.mark.parametrize("ring", [INNER_LIPS, *EYE_RINGS])
def test_mouth_and_eyes_are_closed(ring):
    face = FACE.clone()
    face[14, 1] += 0.1
    x, y = face[list(ring)].mean(0).tolist()
    _, share = at(y, x, face, torch.zeros(468, 2))
    assert share.item() > 0.99
    areas = area(FACE.numpy()[across(ring)])
    polygon = FACE[list(ring)].numpy()
    assert abs(areas).sum() == pytest.approx(abs(shoelace(polygon)), rel=0.05)


def area(corners):
    one, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return (one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]) / 2


def shoelace(polygon):
    following = np.roll(polygon, -1, 0)
    return (polygon[:, 0] * following[:, 1] - following[:, 0] * polygon[:, 1]).sum() / 2


def test_values_and_their_gradients_within_one_triangle():
    corners = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]], dtype=torch.double)[None, None, None].requires_grad_()
    values = torch.tensor([[1.0], [3.0], [7.0]], dtype=torch.double)[None, None, None].requires_grad_()
    y, x = torch.tensor([0.25, 0.9], dtype=torch.double), torch.tensor([0.5, 1.6], dtype=torch.double)
    found, held = interpolate(y, x, corners, values)
    assert found[0, 0, 0, 0, 0].item() == pytest.approx(1 + 0.25 * 2 + 0.25 * 6)
    assert held[0, 0, 0].tolist() == [[True, False], [False, False]]
    assert found[0, 0, 0, 1].tolist() == [0, 0]
    assert torch.autograd.gradcheck(lambda c, v: interpolate(y, x, c, v)[0], (corners, values))


def test_closeness_falls_edge_by_edge():
    chain = np.array([[0, 1, 1], [1, 2, 2], [2, 3, 3]])
    assert closeness(chain, (0,)) == pytest.approx(np.array([1, 2 / 3, 1 / 3, 0]), abs=1e-6)


def test_a_triangle_without_area_holds_nothing():
    corners = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5]])[None, None, None]
    found, held = interpolate(torch.tensor([0.25]), torch.tensor([0.25]), corners, torch.ones(1, 1, 1, 3, 1))
    assert not held.any() and torch.isfinite(found).all() and (found == 0).all()


def test_asking_near_triangles_alone_finds_what_asking_all_finds():
    """Overlapping triangles, flat ones, ones beyond the grid, several frames."""
    y, x, corners = torch.linspace(-1, 1, 23), torch.linspace(-1, 1, 19), torch.randn(2, 3, 40, 3, 2)
    corners[:, :, :20] = corners[:, :, :20, :1] + 0.2 * torch.randn(2, 3, 20, 3, 2)
    corners[:, :, 7, 2] = corners[:, :, 7, 1]
    start, end = corners.roll(-1, 3), corners.roll(-2, 3)
    affine = torch.stack([start[..., 1] - end[..., 1], end[..., 0] - start[..., 0],
                          start[..., 0] * end[..., 1] - end[..., 0] * start[..., 1]], -1)
    area = affine[..., 2].sum(-1)[..., None, None]
    parts = y, x, corners, affine / area.where(area.abs() >= FLAT, torch.full_like(area, FLAT)), area.abs()[..., 0] >= FLAT
    (depth, which), (near_depth, near) = among_all(*parts), among_near(*parts)
    held = depth >= 0
    assert 0.2 < held.float().mean() < 1 and torch.equal(near_depth >= 0, held)
    assert torch.equal(which[held], near[held]) and torch.allclose(depth[held], near_depth[held], atol=1e-6)
