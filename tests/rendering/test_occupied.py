"""Rendering with an occupancy grid, against the two-pass renderer and a sphere."""
import pytest
import torch

from s3dnerf.geometry import cast_rays, frontal_camera
from s3dnerf.rendering.occupied import HIGH, LOW, Occupancy, render_occupied
from s3dnerf.rendering.renderer import CoarseToFineRenderer
from s3dnerf.types import FieldSamples

SIDE, RADIUS = 24, 0.8


class Ball:
    """A field: an opaque ball whose colour is where it is; keeps how many points it was asked about."""

    def __init__(self):
        self.asked = 0

    def __call__(self, points):
        self.asked += points[..., 0].numel()
        density = 30 * torch.sigmoid((RADIUS - points.norm(dim=-1, keepdim=True)) * 30)
        one = torch.ones_like(density)
        return FieldSamples(density, points / 2 + 0.5, points[..., :2], 0.3 * one, 0.7 * one)


@pytest.fixture(scope="module")
def rays():
    """Of two frames that see the ball from nearby and from farther away."""
    cameras = frontal_camera(SIDE)
    pose = cameras.camera_to_world.repeat(1, 2, 1, 1)
    pose[0, 1, 2, 3] *= 1.5
    return cast_rays(type(cameras)(pose, cameras.intrinsics.expand(1, 2, 3, 3)), SIDE, SIDE)


def occupancy(samples):
    points = Occupancy.points(torch.zeros(1))
    return Occupancy(Ball()(points).density[..., 0][None, None], samples)


def test_the_grid_gives_the_density_back_and_nothing_outside():
    grid = occupancy(4)
    low, high = torch.tensor(LOW), torch.tensor(HIGH)
    points = torch.cat([Occupancy.points(torch.zeros(1))[5:7, 10, 20:30].flatten(0, 1), torch.stack([low - 0.2, high + 0.2])])
    found = grid.at(points[None, None, :, None])[0, 0, :, 0]
    torch.testing.assert_close(found[:-2], Ball()(points[:-2]).density, atol=1e-3, rtol=1e-3)
    assert not found[-2:].any()


def test_with_all_samples_it_is_the_two_pass_renderers_picture(rays):
    _, expected = CoarseToFineRenderer(8, 8).eval()(rays, Ball())
    found = render_occupied(rays, Ball(), occupancy(16), 8, 8)
    for name in ("features", "source", "inside", "motion", "opacity"):
        difference = (getattr(found, name) - getattr(expected, name)).abs()
        assert difference.mean() < 0.004, name
    solid = expected.opacity > 0.9
    assert (found.depth - expected.depth)[solid].abs().max() < 0.05


def test_fewer_samples_ask_less_and_stay_near(rays):
    _, expected = CoarseToFineRenderer(8, 8).eval()(rays, Ball())
    asked, off = [], []
    for samples in (16, 8, 4):
        ball = Ball()
        found = render_occupied(rays, ball, occupancy(samples), 8, 8)
        asked.append(ball.asked)
        off.append(float((found.opacity - expected.opacity).abs().mean()))
    assert asked[0] == 2 * asked[1] == 4 * asked[2]
    assert asked[0] < 0.6 * SIDE * SIDE * 2 * 16  # most rays miss the ball
    assert off[0] <= off[1] + 1e-4 and off[1] <= off[2] + 1e-4 and off[2] < 0.02
    assert (found.opacity <= 1 + 1e-6).all()


def test_a_frame_is_the_same_alone_and_beside_others(rays):
    both = render_occupied(rays, Ball(), occupancy(4), 8, 8)
    for frame in (0, 1):
        alone = render_occupied(rays[:, frame:frame + 1], Ball(), occupancy(4), 8, 8)
        for name in ("features", "opacity", "depth", "source"):
            torch.testing.assert_close(getattr(alone, name)[:, 0], getattr(both, name)[:, frame], atol=1e-6, rtol=1e-5)


def test_where_nothing_is_nothing_is_seen(rays):
    empty = Occupancy(torch.zeros_like(occupancy(4).density), 4)
    assert not render_occupied(rays, Ball(), empty, 8, 8).opacity.any()
