"""Tri-planes: each plane sees its own two axes; slots really weigh the scales."""
import pytest
import torch

from s3dnerf.networks.triplane import SlotFusion, sample_planes


def ramps():
    """Planes whose features are their own coordinates: channel 0 runs across, channel 1 runs down."""
    size = 65
    step = (torch.arange(size) + 0.5) / size * 2 - 1
    return torch.stack([step.expand(size, size), step[:, None].expand(size, size)]).expand(1, 3, -1, -1, -1).clone()


def only(plane):
    planes = ramps()
    planes[:, [i for i in range(3) if i != plane]] = 0
    return planes


@pytest.mark.parametrize("plane, expected", [(0, (0.1, 0.2)), (1, (0.1, 0.3)), (2, (0.2, 0.3))])
def test_planes_are_xy_xz_and_yz(plane, expected):
    found = sample_planes(only(plane), torch.tensor([[[0.1, 0.2, 0.3]]]))[0, 0] * 3
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


def test_moving_along_y_changes_xy_and_yz_only():
    points = torch.tensor([[[0.1, 0.2, 0.3], [0.1, -0.4, 0.3]]])
    changed = [not torch.allclose(*sample_planes(only(plane), points)[0]) for plane in range(3)]
    assert changed == [True, False, True]


def test_points_outside_take_the_border():
    inside, outside = sample_planes(ramps(), torch.tensor([[[1.0, 1, 1], [5.0, 5, 5]]]))[0]
    assert torch.allclose(inside, outside)


def test_slots_weigh_the_scales_unequally_and_divide_them():
    torch.manual_seed(0)
    fusion = SlotFusion(12)
    features = torch.randn(50, 4, 12) * 2
    _, weights = fusion.attend(features)
    assert weights.shape == (50, 2, 4)
    assert torch.allclose(weights.sum(-1), torch.ones(50, 2), atol=1e-5)
    assert ((weights.amax(-1) - weights.amin(-1)) > 0.05).float().mean() > 0.5


def test_a_single_slot_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        SlotFusion(12, slots=1)


def test_every_scale_reaches_the_fused_vector():
    fusion = SlotFusion(6)
    features = torch.randn(3, 4, 6, requires_grad=True)
    gradient, = torch.autograd.grad(fusion(features).square().sum(), features)
    assert (gradient.abs().sum((0, 2)) > 0).all()
