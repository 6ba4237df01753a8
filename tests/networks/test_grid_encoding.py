"""The grid: the paper's sizes, exact on functions that it can hold, gradients against differences."""
import pytest
import torch

from s3dnerf.networks.grid_encoding import GridEncoding


@pytest.mark.parametrize("dimensions, parameters", [(3, 1_806_960), (2, 1_111_040)])
@pytest.mark.parametrize("kind", ["hash", "tiled"])
def test_the_paper_s_sizes(dimensions, parameters, kind):
    grid = GridEncoding(dimensions, levels=16, channels=2, base=16, finest=2048, entries=2 ** 16, kind=kind)
    assert sum(p.numel() for p in grid.parameters()) == parameters
    assert (grid.resolutions[0], grid.resolutions[-1]) == (16, 2048) and grid.out_channels == 32


def test_a_level_with_a_row_per_corner_is_linear_interpolation():
    grid = GridEncoding(3, levels=2, channels=1, base=4, finest=8, entries=1024)
    assert grid.whole == 2
    with torch.no_grad():
        for level, (start, cells) in enumerate(zip(grid.starts.tolist(), grid.resolutions)):
            z, y, x = torch.meshgrid(*[torch.arange(cells + 1.0)] * 3, indexing="ij")
            values = (x + 2 * y - z) / cells if level == 0 else x * y * z / cells ** 3
            grid.table[start:start + values.numel(), 0] = values.flatten()
    points = torch.rand(200, 3)
    x, y, z = points.T
    found = grid(points)
    assert torch.allclose(found[:, 0], x + 2 * y - z, atol=1e-5)
    assert torch.allclose(found[:, 1], x * y * z, atol=0.01)
    corner = torch.tensor([[1.0, 1.0, 1.0], [1.5, -3.0, 1.0]])
    assert torch.allclose(grid(corner)[:, 0], torch.tensor([2.0, 0.0]), atol=1e-5)


@pytest.mark.parametrize("kind", ["hash", "tiled"])
def test_shared_rows_are_the_documented_ones(kind):
    grid = GridEncoding(2, levels=1, channels=1, base=50, finest=50, entries=64, kind=kind)
    with torch.no_grad():
        grid.table[:, 0] = torch.arange(64.0)
    x, y = torch.randint(0, 51, (2, 40))
    row = x ^ (y * 2654435761) if kind == "hash" else x + 51 * y
    assert torch.allclose(grid(torch.stack([x, y], 1) / 50)[:, 0], (row % 64).float(), atol=0.02)


@pytest.mark.parametrize("dimensions", [2, 3, 5])
def test_gradients_of_table_and_points(dimensions):
    grid = GridEncoding(dimensions, levels=3, channels=2, base=2, finest=5, entries=32).double()
    with torch.no_grad():
        grid.table.normal_()
    points = torch.rand(5, dimensions, dtype=torch.double, requires_grad=True)
    look = lambda table, where: torch.func.functional_call(grid, {"table": table}, (where,))
    assert torch.autograd.gradcheck(look, (grid.table, points), atol=1e-4)


def test_every_level_learns_and_calls_have_no_memory():
    grid = GridEncoding(3, levels=4, channels=2, base=4, finest=64, entries=256)
    points = torch.rand(64, 3)
    assert torch.equal(grid(points)[10:20], grid(points[10:20]))
    grid(points).square().sum().backward()
    edges = [*grid.starts.tolist(), len(grid.table)]
    assert all(grid.table.grad[a:b].abs().max() > 0 for a, b in zip(edges, edges[1:]))
    assert grid(points[:0]).shape == (0, 8)


def test_more_levels_hold_finer_detail():
    target = lambda p: torch.sin(40 * p[:, :1]) * torch.cos(30 * p[:, 1:])
    error = {}
    for levels, finest in ((1, 8), (4, 64)):
        grid = GridEncoding(2, levels, 2, 8, finest, 4096)
        head = torch.nn.Linear(grid.out_channels, 1)
        optimizer = torch.optim.Adam([*grid.parameters(), *head.parameters()], 0.02)
        for _ in range(120):
            points = torch.rand(1024, 2)
            loss = (head(grid(points)) - target(points)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        error[levels] = loss.item()
    assert error[4] < 0.3 * error[1]
