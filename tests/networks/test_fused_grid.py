"""The look-up kernel, interpreted, against the look-up that it stands for."""
import pytest
import torch

from s3dnerf.networks import grid_encoding
from s3dnerf.networks.fused_grid import FusedLookup, fusable, known
from s3dnerf.networks.grid_encoding import GridEncoding

pytest.importorskip("triton", reason="Triton is not installed; it comes with torch for Linux and CUDA")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled here; tests/test_gpu.py has them")


@pytest.mark.parametrize("dimensions, kind, channels", [(3, "hash", 4), (2, "tiled", 2)])
def test_the_kernels_are_the_look_up_and_its_gradients(dimensions, kind, channels):
    grid = GridEncoding(dimensions, levels=2, channels=channels, base=2, finest=7, entries=32, kind=kind)
    with torch.no_grad():
        grid.table.normal_()
    assert 0 < grid.whole < 2, "a level with a row per corner, and one that shares them"
    points = torch.rand(37, dimensions) * 1.2 - 0.1  # some beyond the edge
    points[0], points[1] = 0.0, 1.0
    points.requires_grad_()
    weight = torch.randn(37, grid.out_channels)

    def gradients(found):
        return torch.autograd.grad((found * weight).sum(), (points, grid.table))

    expected, found = grid(points), FusedLookup.apply(points, grid.table, grid, 64)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for one, other in zip(gradients(found), gradients(expected)):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_field_learns_the_same_by_the_kernel(monkeypatch):
    grid, points = GridEncoding(2, levels=2, channels=2, base=2, finest=4, entries=16), torch.rand(9, 2)
    plain = grid(points)
    plain.square().sum().backward()
    expected, grid.table.grad = grid.table.grad, None
    monkeypatch.setattr(grid_encoding, "fusable", known)
    seen = []
    monkeypatch.setattr(grid_encoding, "FusedLookup", type("Told", (), {
        "apply": staticmethod(lambda *args: seen.append(1) or FusedLookup.apply(*args, 16))}))
    grid(points).square().sum().backward()
    assert seen and torch.allclose(grid.table.grad, expected, atol=1e-9)


def test_who_takes_the_kernel():
    grid, points = GridEncoding(2, levels=2, channels=2), torch.rand(4, 2)
    assert known(grid, points) and not fusable(grid, points), "not on a processor"
    assert not known(grid, points.double()) and not known(grid, points[:0])
    assert not known(GridEncoding(2, levels=2, channels=3), points)
