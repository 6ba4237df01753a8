"""Known changes of light and colours."""
import math

import torch

from s3dnerf.networks.variation import GREY, Variation, turns_around_grey


def test_none_changes_nothing_and_a_palette_is_always_the_same():
    images = torch.rand(3, 3, 8, 8)
    assert torch.allclose(Variation.none(3)(images), images, atol=1e-6)
    number = torch.tensor([0, 1, 2])
    first, again = (Variation.palette(number, torch.zeros_like(number))(images) for _ in range(2))
    assert torch.equal(first, again) and torch.allclose(first[0], images[0], atol=1e-6)
    assert not torch.allclose(first[1], images[1], atol=0.01) and not torch.allclose(first[2], images[2], atol=0.01)
    longer = Variation.palette(torch.tensor([0, 1, 5]), torch.zeros_like(number))(images)
    assert torch.allclose(longer[1], first[1])  # whatever others are asked for


def test_albedo_leaves_grey_and_brightness_as_they_are():
    grey = torch.full((1, 3, 4, 4), 0.4)
    skin = Variation.palette(torch.tensor([1]), torch.tensor([0]))
    assert torch.allclose(skin(grey), grey, atol=1e-6)
    turn = turns_around_grey(torch.tensor([0.7]))[0]
    assert torch.allclose(turn @ turn.T, torch.eye(3), atol=1e-6)
    assert torch.allclose(turn @ torch.ones(3), torch.ones(3), atol=1e-6)
    third = turns_around_grey(torch.tensor([2 * math.pi / 3]))[0]
    assert torch.allclose(third @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-6)
    assert abs(sum(GREY) - 1) < 1e-6


def test_illumination_is_a_factor_that_grows_across_the_picture():
    light = Variation(torch.tensor([0.5]), torch.tensor([[0.2, 0.0]]), torch.zeros(1), torch.ones(1))
    found = light(torch.full((1, 3, 5, 5), 0.8))
    assert torch.allclose(found[0, 0, 2], 0.4 * (1 + 0.2 * torch.linspace(-1, 1, 5)))
