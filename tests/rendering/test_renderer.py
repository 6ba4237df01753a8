"""The renderer on fields whose picture is known."""
import torch

from s3dnerf.geometry import cast_rays, frontal_camera
from s3dnerf.rendering.renderer import CoarseToFineRenderer
from s3dnerf.types import FieldSamples


class Ball:
    """A sphere whose colour is its point's place; counts the points that it is asked for."""

    def __init__(self, radius=0.8, density=200.0):
        self.radius, self.density, self.asked = radius, density, []

    def __call__(self, points):
        self.asked.append(points.shape[-2])
        solid = (points.norm(dim=-1, keepdim=True) < self.radius).float()
        zero = torch.zeros_like(solid)
        return FieldSamples(solid * self.density, points, points[..., :2], zero, zero)


def render(renderer, ball, size=24):
    rays = cast_rays(frontal_camera(size), size, size)
    return renderer.eval()(rays, ball)


def true_depth(size, radius):
    rays = cast_rays(frontal_camera(size), size, size)
    middle = -(rays.origins * rays.directions).sum(-1)
    square = radius ** 2 - (rays.origins.norm(dim=-1) ** 2 - middle ** 2)
    return torch.where(square > 0, middle - square.clamp_min(0).sqrt(), torch.nan)


def test_second_look_asks_for_its_own_points_only():
    ball = Ball()
    render(CoarseToFineRenderer(8, 12), ball)
    assert ball.asked == [8, 12]


def test_second_look_finds_the_surface_better_than_an_even_one():
    truth = true_depth(24, 0.8)
    error = {}
    for importance in (True, False):
        _, fine = render(CoarseToFineRenderer(8, 24, importance=importance), Ball())
        seen = ~truth.isnan() & (fine.opacity[:, 0] > 0.99)
        error[importance] = (fine.depth[:, 0] - truth)[seen].abs().mean().item()
    assert error[True] < 0.6 * error[False]
    assert error[True] < 0.05


def test_most_fine_points_lie_near_the_surface():
    renderer, ball = CoarseToFineRenderer(16, 16), Ball()
    coarse, fine = render(renderer, ball)
    width = (coarse.samples.ends - coarse.samples.starts)[:, :1]
    mode = coarse.samples.middles.gather(1, coarse.weights.argmax(1, keepdim=True))
    added = ~torch.isclose(fine.samples.middles, coarse.samples.middles.transpose(1, 2), atol=1e-6).any(-1, keepdim=True)
    near = (fine.samples.middles - mode).abs() < 2 * width
    solid = coarse.opacity[:, 0] > 0.9
    assert (near & added)[solid].sum() / added[solid].sum() > 0.6


def test_silhouette_has_the_area_of_the_sphere():
    _, fine = render(CoarseToFineRenderer(32, 32), Ball(), size=64)
    share = (fine.opacity > 0.5).float().mean().item()
    seen = 0.8 / (1 - (0.8 / 12) ** 2) ** 0.5  # perspective: the visible rim of a sphere 12 units away
    assert abs(share - torch.pi * (seen / 3) ** 2) < 0.01


def test_random_points_while_training_and_none_otherwise():
    renderer, ball = CoarseToFineRenderer(8, 8), Ball()
    rays = cast_rays(frontal_camera(8), 8, 8)
    renderer.train()
    assert not torch.equal(renderer(rays, ball)[1].depth, renderer(rays, ball)[1].depth)
    renderer.eval()
    assert torch.equal(renderer(rays, ball)[1].depth, renderer(rays, ball)[1].depth)


def test_both_looks_carry_gradient_to_the_field():
    scale = torch.tensor(2.0, requires_grad=True)

    def field(points):
        density = scale * torch.exp(-points.norm(dim=-1, keepdim=True))
        zero = torch.zeros_like(density)
        return FieldSamples(density, points, points[..., :2], zero, zero)

    rays = cast_rays(frontal_camera(4), 4, 4)
    for colours in CoarseToFineRenderer(6, 6)(rays, field):
        gradient, = torch.autograd.grad(colours.opacity.sum(), scale, retain_graph=True)
        assert gradient.abs() > 0


def test_an_even_second_look_falls_between_the_points_of_the_first():
    _, fine = render(CoarseToFineRenderer(8, 8, importance=False), Ball())
    steps = fine.samples.middles.diff(dim=-2)
    assert torch.allclose(steps, steps.mean(-2, keepdim=True).expand_as(steps), rtol=1e-3)


def test_both_looks_end_in_what_is_behind():
    """Through empty space it is seen exactly, behind a ball not at all, and nobody looks for it."""
    rays, behind = cast_rays(frontal_camera(24), 24, 24), torch.rand(24 * 24, 3)
    for density in (0.0, 200.0):
        coarse, fine = CoarseToFineRenderer(8, 12).eval()(rays, Ball(density=density), behind)
        plain, _ = CoarseToFineRenderer(8, 12).eval()(rays, Ball(density=density))
        away = plain.opacity[:, 0] == 0
        assert torch.equal(coarse.features[away], behind[away])
        empty = (fine.weights[:, :-1] == 0).all(1)[:, 0]
        assert torch.equal(fine.features[empty], behind[empty]) and torch.allclose(fine.weights.sum(-2), torch.ones(24 * 24, 1))
    hidden = plain.opacity[:, 0] > 0.999
    assert hidden.any() and torch.allclose(coarse.features[hidden], plain.features[hidden], atol=1e-3)
    end = fine.samples.ends[:, -1:]
    late = ((end - fine.samples.middles) < 0.1 * (end - fine.samples.starts[:, :1])).float().sum(1)
    assert late[empty].mean() < 4  # of 20 samples
