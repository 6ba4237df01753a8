"""Compositing against closed forms."""
import math

import pytest
import torch

from s3dnerf.rendering.compositing import LayerColours, composite, ended, interval_weights
from s3dnerf.types import FieldSamples, Samples


def intervals(edges):
    edges = torch.as_tensor(edges, dtype=torch.float64)[None, :, None]
    return Samples(edges[:, :-1], edges[:, 1:], (edges[:, :-1] + edges[:, 1:]) / 2)


def field(density, colours):
    count = len(density)
    column = lambda values: torch.as_tensor(values, dtype=torch.float64).reshape(1, count, -1)
    zero = torch.zeros(1, count, 1, dtype=torch.float64)
    return FieldSamples(column(density), column(colours), zero.expand(-1, -1, 2), zero, zero)


@pytest.mark.parametrize("edges", [[0, 2], [0, 0.3, 0.4, 1.9, 2], torch.linspace(0, 2, 33).tolist()])
def test_constant_density_has_the_closed_form_however_it_is_cut(edges):
    samples = intervals(edges)
    weights = interval_weights(torch.full_like(samples.starts, 0.7), samples)
    assert weights.sum().item() == pytest.approx(1 - math.exp(-1.4), abs=1e-12)


def test_opaque_wall_hides_what_is_behind_it_and_gives_its_depth():
    found = composite(intervals([0, 1, 2, 3, 4]), field([0, 1e6, 0, 1e6], [[0.1], [0.7], [0.2], [0.9]]))
    assert found.features.item() == pytest.approx(0.7)
    assert found.opacity.item() == pytest.approx(1)
    assert found.depth.item() == pytest.approx(1.5)


def test_empty_space_is_transparent():
    found = composite(intervals([0, 1, 2]), field([0, 0], [[1.0], [1.0]]))
    assert found.opacity.item() == 0 and found.features.item() == 0


def test_two_layers_mix_as_the_integral_says():
    found = composite(intervals([0, 1, 2]), field([math.log(2), math.log(4)], [[1.0], [0.0]]))
    assert found.features.item() == pytest.approx(0.5)
    assert found.opacity.item() == pytest.approx(0.5 + 0.5 * 0.75)


def test_gradient_reaches_density_behind_and_before():
    samples = intervals([0, 1, 2, 3])
    density = torch.full((1, 3, 1), 0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: interval_weights(d, samples), density)


def test_the_last_sample_carries_the_background():
    behind = torch.tensor([[0.3]], dtype=torch.float64)
    over = lambda densities, colours: (lambda samples, found: composite(samples, ended(samples, found, behind)))(
        intervals(range(len(densities) + 1)), field(densities, colours))
    assert over([0, 0, 0], [[1.0], [1.0], [1.0]]).features.item() == 0.3  # exactly, through empty space
    assert over([0, 0, 1e6], [[1.0], [1.0], [1.0]]).features.item() == 0.3  # whatever the field says there
    half = over([math.log(2), 0, 0], [[1.0], [1.0], [1.0]])
    assert half.features.item() == pytest.approx(0.5 * 1.0 + 0.5 * 0.3)
    layer = LayerColours.of(half, half)
    assert layer.light.item() == pytest.approx(0.5) and layer.depth.item() == pytest.approx(0.5)
    assert over([1e6, 0, 0], [[0.8], [1.0], [1.0]]).features.item() == pytest.approx(0.8)


def test_rays_that_meet_nothing_show_what_is_behind_them():
    one = torch.ones(1, 1)
    found = LayerColours(0.1 * one, 0.2 * one, 0.3 * one, 4 * one).among(torch.tensor([[0.7], [0.8], [0.9]]), torch.tensor([1]))
    assert torch.allclose(found.colour[:, 0], torch.tensor([0.7, 0.2, 0.9])) and torch.allclose(
        found.coarse[:, 0], torch.tensor([0.7, 0.1, 0.9]))
    assert torch.allclose(found.light[:, 0], torch.tensor([1, 0.3, 1.0])) and found.depth[:, 0].tolist() == [0, 4, 0]
