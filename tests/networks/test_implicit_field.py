"""The implicit field: the paper's sizes, and every part of it at work."""
import pytest
import torch

from s3dnerf.networks.implicit_field import ImplicitField


def small(**options):
    torch.manual_seed(0)
    return ImplicitField(**{"told": 4, "width": 16, "depth": 4, "octaves": 3, "colour_width": 8, **options})


def ask(field, points=None, told=None, directions=None, late=None):
    torch.manual_seed(1)
    points = torch.rand(5, 3) if points is None else points
    told = torch.rand(5, 4) if told is None else told
    directions = torch.nn.functional.normalize(torch.rand(5, 3), dim=-1) if directions is None else directions
    return field(points, told, directions, late)


def test_the_paper_s_net_has_its_size():
    """127 inputs, 8 layers of 256 of which the sixth sees the input again, a view branch of 3 layers of 128."""
    layers = 127 * 256 + 6 * 256 ** 2 + (256 + 127) * 256 + 8 * 256
    colour = 256 ** 2 + 256 + (256 + 27) * 128 + 2 * 128 ** 2 + 3 * 128 + 128 * 3 + 3
    field = ImplicitField()
    assert sum(p.numel() for p in field.parameters()) == layers + 257 + colour == 661_636
    assert [layer.in_features for layer in field.layers] == [127] + [256] * 3 + [383] + [256] * 3


def test_colours_are_colours_and_density_is_not_negative():
    density, colour = ask(small())
    assert density.shape == (5, 1) and density.min() >= 0 and colour.shape == (5, 3) and 0 < colour.min() < colour.max() < 1


@pytest.mark.parametrize("change", [{"points": torch.zeros(5, 3)}, {"told": torch.zeros(5, 4)}])
def test_place_and_what_is_told_change_density_and_colour(change):
    assert all(not torch.allclose(a, b) for a, b in zip(ask(small()), ask(small(), **change)))


def test_direction_and_late_codes_change_colour_alone():
    plain = ask(small())
    for change in ({"directions": torch.tensor([0.0, 0, 1]).expand(5, 3)}, {"late": torch.ones(5, 8)}):
        density, colour = ask(small(), **change)
        assert torch.equal(density, plain[0]) and not torch.allclose(colour, plain[1])
    blind = small(view_octaves=None)
    assert torch.equal(ask(blind)[1], ask(blind, directions=torch.zeros(5, 3))[1])


def test_the_input_comes_in_again():
    field = small()
    before = ask(field)[0]
    with torch.no_grad():
        field.layers[field.again].weight[:, :4] += 1
    assert not torch.allclose(before, ask(field)[0])
    with torch.no_grad():  # nothing passes the first layers, and still a place is told from another
        field.layers[0].weight.zero_()
        field.layers[0].bias.zero_()
    assert ask(field)[0].std() > 0


def test_inner_channels_in_place_of_a_colour():
    assert ask(small(out_channels=None))[1].shape == (5, 8)
