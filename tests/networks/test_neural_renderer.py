"""From a feature map to a picture."""
import pytest
import torch

from s3dnerf.networks.neural_renderer import NeuralRenderer


def small(kernel=1):
    torch.manual_seed(0)
    return NeuralRenderer(12, (10, 8, 6), kernel)


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_picture_is_four_times_as_large(kernel):
    colour, opacity = small(kernel)(torch.randn(2, 12, 5, 5))
    assert colour.shape == (2, 3, 20, 20) and opacity.shape == (2, 1, 20, 20) and 0 < colour.min() and colour.max() < 1


def test_every_size_adds_its_picture():
    renderer, features = small(), torch.randn(1, 12, 4, 4)
    before = renderer(features)[0]
    for number in range(3):
        changed = small()
        with torch.no_grad():
            changed.pictures[number].bias += 1
        assert not torch.allclose(changed(features)[0], before, atol=0.01)


def test_blur_keeps_what_is_even_and_is_the_binomial():
    renderer = small()
    assert torch.allclose(renderer.blur(torch.full((1, 2, 4, 4), 0.3)), torch.tensor(0.3))
    point = torch.zeros(1, 1, 5, 5)
    point[..., 2, 2] = 16
    assert renderer.blur(point)[0, 0, 1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


def test_a_cell_is_seen_near_it_alone():
    """With convolutions of one pixel a cell reaches its own four pixels a side, and what blur and enlarging bring."""
    renderer, features = small(), torch.randn(1, 12, 8, 8)
    other = features.clone()
    other[..., 0, 0] += 5
    change = (renderer(features)[0] - renderer(other)[0]).abs().amax((0, 1))
    assert change[:4, :4].max() > 0.01 and change[12:].max() < 1e-6 and change[:, 12:].max() < 1e-6
