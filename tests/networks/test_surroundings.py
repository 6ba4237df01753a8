"""Hair, neck and shoulders, and how they go with the head."""
import torch

from s3dnerf.networks.surroundings import PACE, Surroundings


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
