"""Hair, neck and shoulders, and how they go with the head."""
import pytest
import torch

from s3dnerf.geometry import rigid_inverse, rotation_from_euler
from s3dnerf.networks.surroundings import ODD, PACE, Surroundings, head_motion
from s3dnerf.poses import Sway, move
from s3dnerf.types import Cameras

MIRROR = 1 - 2 * torch.tensor(ODD).float()


def test_the_face_goes_all_the_way_and_far_things_less():
    depth, shift, turn = Surroundings()(torch.tensor([[0.0, 0.0, 0.2], [0.0, 1.8, 0.0], [1.9, 0.0, 0.0]]))
    assert depth.abs().max() == 0 and shift[0] == turn[0] == 1
    assert (shift[1:] < 0.7).all() and (turn[1:] < shift[1:]).all()


def test_both_sides_are_alike_and_beyond_the_table_its_border_holds():
    part = Surroundings()
    torch.nn.init.normal_(part.table)
    points = torch.rand(50, 2) * 3 - 1.5
    mirrored = points * torch.tensor([-1.0, 1.0])
    assert all(torch.equal(a, b) for a, b in zip(part(points), part(mirrored)))
    assert all(torch.allclose(a, b) for a, b in zip(part(torch.tensor([[2.0, 1.9]])), part(torch.tensor([[9.0, 9.0]]))))


def test_table_is_read_between_its_knots():
    part = Surroundings(size=(2, 2))
    with torch.no_grad():
        part.table[0, 0] = torch.tensor([[0.0, 2.0], [4.0, 6.0]]) / PACE
    depth, _, _ = part(torch.tensor([[1.0, 0.1]]))  # the middle of the table
    assert torch.allclose(depth, torch.tensor([[3.0]]), atol=1e-5)


@pytest.fixture
def camera():
    """Twelve head units in front of a head that is turned a little."""
    pose = torch.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation_from_euler(*torch.tensor([0.1, -0.2, 0.05])), torch.tensor([0.4, -0.3, 12.0])
    return Cameras(rigid_inverse(pose), torch.tensor([[500.0, 0, 128], [0, 500, 128], [0, 0, 1]]))


def test_the_motion_of_a_head_is_what_it_was_moved_by(camera):
    angle, shift, distance = torch.tensor([0.3, 0.0, 0.0]), torch.tensor([[0.2, -0.1]] * 3), torch.tensor([1.0, 1.25, 1.0])
    none = torch.zeros(3)
    turns = [rotation_from_euler(angle, none, none), rotation_from_euler(none, none, angle)]
    for axis, turn in zip((0, 2), turns):
        found = head_motion(camera[None], move(camera, Sway(turn, shift, distance))[None])[0]
        spin = torch.zeros(3, 3)
        spin[:, axis] = angle.sin() * torch.sign(turn[0, 2, 1] if axis == 0 else turn[0, 1, 0])
        assert torch.allclose(found, torch.cat([spin, shift, distance[:, None] - 1], 1), atol=1e-5)
    assert head_motion(camera[None], camera[None, None]).abs().max() < 1e-6


def test_what_shares_leave_is_proportional_to_the_motion_and_mirrored_with_it():
    part, points, motion = Surroundings(), torch.rand(1, 1, 40, 3) * 3 - 1.5, torch.randn(1, 1, 6)
    assert part.remainder(points, motion).abs().max() == 0
    torch.nn.init.normal_(part.response)
    answer = part.remainder(points, motion)
    assert answer.abs().min() > 0 and torch.allclose(part.remainder(points, -2 * motion), -2 * answer, atol=1e-4)
    flipped = part.remainder(points * torch.tensor([-1.0, 1.0, 1.0]), motion * MIRROR)
    assert torch.allclose(flipped, answer * torch.tensor([-1.0, 1.0]), atol=1e-4)
    step = torch.tensor([[-1e-4, 0.1, 0.0], [1e-4, 0.1, 0.0]])[None, None]
    assert (part.remainder(step, motion)[0, 0].diff(dim=0).abs() < 0.05).all()  # nothing tears along the middle


def test_weights_from_before_there_was_a_response_have_none():
    part, state = Surroundings(), Surroundings().state_dict()
    torch.nn.init.normal_(part.response)
    del state["response"]
    part.load_state_dict(state)
    assert part.response.abs().max() == 0
