"""Super-resolution at a quarter, a half and the whole of the frame."""
import pytest
import torch

from s3dnerf.networks.super_resolution import SuperResolution


def inputs(size=32, channels=4):
    torch.manual_seed(0)
    small, maps = torch.rand(1, channels, 8, 8), torch.rand(1, 1, 8, 8)
    return [small, torch.rand(1, 1, size, size), maps, maps, *(torch.rand(1, 3, size, size) for _ in range(3))]


@pytest.mark.parametrize("full", [None, 6])
def test_every_input_and_every_parameter_matters(full):
    net = SuperResolution(4, 8, 8, full)
    torch.nn.init.normal_(net.leave.weight, std=0.1)
    given = [value.requires_grad_(True) for value in inputs()]
    out = net(*given)
    assert out.shape == (1, 3, 32, 32)
    out.square().sum().backward()
    assert all(value.grad.abs().max() > 0 for value in [*given, *net.parameters()])


def test_the_full_stage_works_on_single_pixels():
    """With what comes from half of the resolution held still, pictures moved by one pixel give a residual moved by one."""
    net, given = SuperResolution(4, 8, 8, 6), inputs()
    torch.nn.init.normal_(net.leave.weight, std=0.1)
    with torch.no_grad():
        for parameter in (*net.join.parameters(), *net.fine.parameters()):
            parameter.zero_()
        before, moved = net(*given), net(*given[:4], *(picture.roll((1, 1), (2, 3)) for picture in given[4:]))
    assert torch.allclose(moved.roll((-1, -1), (2, 3))[..., 6:-6, 6:-6], before[..., 6:-6, 6:-6], atol=1e-5)
    assert before[..., 6:-6, 6:-6].std() > 1e-3
