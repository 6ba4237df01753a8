"""The photo changes in proportion to its factors, and not at all before anything is learned."""
import torch

from s3dnerf.networks.photo_basis import REACH, SHADE, SHIFT, PhotoBasis


def test_changes_are_linear_in_factors_of_unit_spread_within_reach():
    basis = PhotoBasis(2, 4, 8)
    values = torch.tensor([[10.0, -1.0], [14.0, 1.0], [12.0, 3.0]])
    basis.adopt(values)
    assert basis(values).shape == (3, 5, 8, 8) and not basis(values).any()
    assert basis.bending() == 0
    with torch.no_grad():
        basis.shift[1] = 1.0
        basis.shade[0] = 2.0
    shift, shade = basis(torch.tensor([[12.0, 0.0], [14.0, 0.0], [99.0, 0.0]])).split([2, 3], 1)
    assert torch.allclose(shift[:, 0, 0, 0], SHIFT * torch.tensor([0.0, 1.0, REACH]))
    assert torch.allclose(shade, torch.full_like(shade, 2 * SHADE))


def test_bending_tells_tearing_from_moving_and_turning():
    basis = PhotoBasis(1, 4, 4)
    with torch.no_grad():
        basis.shift[0, 0] = torch.arange(4.0)[:, None] - torch.arange(4.0) + 5
    assert basis.bending() == 0
    with torch.no_grad():
        basis.shift[0, 0, 2, 2] += 1
    assert basis.bending() > 0
