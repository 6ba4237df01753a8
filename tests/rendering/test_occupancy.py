"""The packed renderer against a closed form, and the grid: what it keeps, what it gives up, what that costs."""
import math

import pytest
import torch

from s3dnerf.geometry import cast_rays, frontal_camera
from s3dnerf.metrics import psnr
from s3dnerf.rendering.occupancy import OccupancyGrid, PackedRenderer, box_crossing
from s3dnerf.types import PointSamples, Rays

LOW, HIGH = (-1.2, -1.2, -1.2), (1.2, 1.2, 1.2)


class Ball:
    """A sphere whose colour is its point's place; counts the points that it is asked for."""

    def __init__(self, radius=0.8, density=60.0):
        self.radius, self.density_inside, self.asked = radius, density, 0

    def density(self, points):
        return (points.norm(dim=-1, keepdim=True) < self.radius).float() * self.density_inside

    def __call__(self, points, directions, ray):
        self.asked += len(points)
        return PointSamples(self.density(points), (points + 1) / 2, torch.ones_like(points[:, :1]))


def flat_rays(size=24):
    rays = cast_rays(frontal_camera(size), size, size)
    return Rays(rays.origins, rays.directions, rays.near, rays.far)


def fitted(ball, resolution=24, updates=80):
    grid = OccupancyGrid(LOW, HIGH, resolution)
    for _ in range(updates):
        grid.update(ball.density, 0.5)
        grid.light.fill_(1.0)
    return grid


def test_constant_density_gives_the_closed_form():
    grid = OccupancyGrid(LOW, HIGH, 8)
    rays = Rays(torch.tensor([[0.0, 0, -5]]), torch.tensor([[0.0, 0, 1]]), torch.zeros(1, 1), torch.ones(1, 1))
    fog = lambda points, directions, ray: PointSamples(torch.full_like(points[:, :1], 0.7), torch.ones_like(points),
                                                       torch.ones_like(points[:, :1]))
    for training in (True, False):
        found = PackedRenderer(0.05, 100).train(training)(rays, fog, grid)
        whole = 1 - math.exp(-0.7 * 2.4)
        assert found.opacity.item() == pytest.approx(whole, abs=0.02)
        assert found.colour[0].tolist() == pytest.approx([found.opacity.item()] * 3, abs=1e-5)


def test_a_sphere_lies_at_its_depth_and_beside_it_is_nothing():
    ball = Ball(density=200.0)
    found = PackedRenderer(0.02, 60).eval()(rays := flat_rays(), ball, fitted(ball))
    middle = -(rays.origins * rays.directions).sum(-1)
    square = 0.8 ** 2 - (rays.origins.norm(dim=-1) ** 2 - middle ** 2)
    hit = square > 0.05
    assert (found.opacity[hit] > 0.99).all() and (found.opacity[square < -0.2] == 0).all()
    assert (found.depth[hit, 0] - (middle - square.clamp_min(0).sqrt())[hit]).abs().mean() < 0.03


def test_the_grid_saves_most_samples_and_costs_nothing_to_be_seen():
    ball, rays = Ball(), flat_rays(32)
    full, tight = OccupancyGrid(LOW, HIGH, 24), fitted(Ball())
    renderer = PackedRenderer(0.05, 100).train()  # asks for all samples, as training does
    count = {name: len(renderer.march(rays, grid).ray) for name, grid in (("full", full), ("tight", tight))}
    tight.light.zero_()
    for _ in range(4):
        torch.manual_seed(0)
        tight.light.copy_(torch.maximum(tight.light, torch.ones_like(tight.light) * (tight.light == 0)))
        renderer(rays, ball, tight)
        tight.light.zero_()
        tight.update(ball.density, 0.5)
    count["lit"] = len(renderer.march(rays, tight).ray)
    assert count["tight"] < count["full"] / 3 and count["lit"] < 0.6 * count["tight"]
    renderer.eval()
    whole, pruned = (renderer(rays, ball, grid).colour.T.view(3, 32, 32) for grid in (full, tight))
    target = PackedRenderer(0.005, 1000).eval()(rays, ball, full).colour.T.view(3, 32, 32)
    assert psnr(pruned, target) > psnr(whole, target) - 0.1


def test_rays_end_where_nothing_shines_through():
    asked = {}
    for rest in (1e-3, -1.0):
        ball = Ball(density=200.0)
        asked[rest] = (PackedRenderer(0.02, 100, rest=rest).eval()(flat_rays(), ball, fitted(ball)), ball.asked)
    assert asked[1e-3][1] < 0.5 * asked[-1.0][1]
    assert torch.allclose(asked[1e-3][0].colour, asked[-1.0][0].colour, atol=2e-3)


def test_what_comes_and_goes_stays_occupied_and_what_is_gone_is_given_up():
    grid, open_mouth = fitted(Ball(0.8)), Ball(0.2)
    for update in range(160):
        grid.update((open_mouth if update % 4 == 0 else Ball(0.0)).density)
        grid.light.fill_(1.0)
    inner = grid.at(grid.occupied(), torch.zeros(1, 3))
    outer = grid.at(grid.occupied(), torch.tensor([[0.0, 0.0, 0.6]]))
    assert inner.item() and not outer.item()


def test_excluded_cells_stay_excluded_and_points_outside_are_never_in():
    grid = OccupancyGrid(LOW, HIGH, 8)
    grid.exclude(grid.centres()[..., 0] < 0)
    grid.update(Ball().density)
    grid.light.fill_(1.0)
    inside = grid.at(grid.occupied(), torch.tensor([[-0.3, 0, 0], [0.3, 0, 0], [5.0, 0, 0]]))
    assert inside.tolist() == [False, True, False]


def test_boxes_are_crossed_where_they_should():
    rays = Rays(torch.tensor([[0.0, 0, -3], [5, 0, -3]]), torch.tensor([[0.0, 0, 1], [0, 0, 1]]), *torch.zeros(2, 2, 1))
    near, far = box_crossing(rays, torch.tensor(LOW), torch.tensor(HIGH))
    assert near[0].item() == pytest.approx(1.8) and far[0].item() == pytest.approx(4.2) and near[1] == far[1]


def test_gradients_reach_the_field():
    height = torch.tensor(5.0, requires_grad=True)
    field = lambda points, directions, ray: PointSamples(height.expand(len(points), 1), points.abs(), points[:, :1].abs())
    found = PackedRenderer(0.1, 16).train()(flat_rays(8), field, OccupancyGrid(LOW, HIGH, 8))
    gradient, = torch.autograd.grad(found.opacity.sum(), height)
    assert gradient > 0
