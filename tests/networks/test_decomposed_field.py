"""The field: the paper's sizes, four ways for speech to get in, and who hears what."""
import pytest
import torch

from s3dnerf.networks.decomposed_field import MODES, DecomposedField, spherical_harmonics, truncated_exp

SMALL = {"levels": 3, "channels": 2, "base": 4, "finest": 16, "entries": 1024, "width": 16, "code_size": 5}


def count(*parts):
    return sum(p.numel() for part in parts for p in part.parameters())


def field(**options):
    found = DecomposedField(**{**SMALL, **options})
    with torch.no_grad():  # as if something had been learned
        for grid in filter(None, (found.space, found.speech)):
            grid.table.normal_(std=0.5)
    return found


def look(found, code, eyes=0.0, appearance=0.0, points=None, directions=None):
    points = torch.rand(40, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1 if points is None else points
    directions = torch.tensor([0.0, 0, 1]).expand(len(points), 3) if directions is None else directions
    return found(points, (points + 1) / 2, directions, code, torch.full((len(code), 1), eyes),
                 torch.full((len(code), 4), appearance), torch.arange(len(points)) % len(code))


def test_the_paper_s_sizes():
    found = DecomposedField(levels=16, channels=2, finest=2048, audio_levels=16, audio_base=16, audio_finest=2048, width=64,
                            depth=2, view_degree=4, code_size=64)
    assert count(found.space) == 1_806_960 and count(found.speech) == 1_111_040
    assert count(found.ambient, found.ambient_code) == 10_368
    assert count(found.density_net) == 12_416 and count(found.colour_net) == 5_568


@pytest.mark.parametrize("mode", MODES)
def test_speech_gets_in_every_way(mode):
    found = field(mode=mode)
    quiet, loud = look(found, torch.zeros(2, 5)), look(found, torch.full((2, 5), 3.0))
    assert not torch.allclose(quiet.density, loud.density, rtol=1e-3)
    assert (quiet.ambient.abs().max() == 0) == (mode in ("implicit",) or quiet.ambient.abs().max() == 0)
    loud.density.log().sum().backward()
    learned = [name for name, p in found.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert all(name.startswith("colour_net") for name in learned)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_audio_coordinates_of_any_size(dimensions):
    found = field(audio_dimensions=dimensions)
    assert found.speech.dimensions == dimensions and look(found, torch.randn(2, 5)).colour.isfinite().all()


def test_modes_and_dimensions_that_do_not_exist_are_told():
    with pytest.raises(ValueError, match="modulation, deformation, composed, implicit"):
        DecomposedField(mode="magic")
    with pytest.raises(ValueError, match="1, 2 or 3"):
        DecomposedField(audio_dimensions=4)


def test_eyes_are_heard_near_the_eyes_only_unless_asked_for():
    points = torch.tensor([[-0.33, -0.02, -0.5], [0.0, 0.55, -0.6], [0.0, -0.9, -0.4]])
    for radius, mouth_too in ((0.45, False), (None, True)):
        found = field(eye_radius=radius)
        shut, open_ = look(found, torch.ones(1, 5), -1.0, points=points), look(found, torch.ones(1, 5), 1.0, points=points)
        change = (shut.density - open_.density).abs()[:, 0]
        assert change[0] > 1e-3 and (change[1] > 1e-4) == mouth_too and (change[2] > 1e-4) == mouth_too


def test_frames_have_their_own_code_and_appearance():
    found = field()
    codes = torch.randn(2, 5)
    both = look(found, codes)
    alone = look(found, codes[1:])
    assert torch.allclose(both.density[1::2], alone.density[1::2])
    assert not torch.allclose(look(found, codes, appearance=2.0).colour, both.colour, atol=1e-3)
    assert torch.equal(look(found, codes, appearance=2.0).density, both.density)


def test_colour_may_depend_on_the_direction():
    side = torch.nn.functional.normalize(torch.tensor([[1.0, 0, 1]]), dim=-1).expand(40, 3)
    for degree, same in ((0, True), (2, False)):
        found = field(view_degree=degree)
        assert torch.allclose(look(found, torch.ones(1, 5)).colour, look(found, torch.ones(1, 5), directions=side).colour,
                              atol=1e-4) == same


def test_spherical_harmonics_are_orthonormal():
    directions = torch.nn.functional.normalize(torch.randn(200_000, 3), dim=-1)
    values = spherical_harmonics(directions, 4)
    assert torch.allclose(4 * torch.pi * values.T @ values / len(values), torch.eye(16), atol=0.05)


def test_exp_is_bounded_in_value_and_slope():
    x = torch.tensor([-30.0, 0.0, 40.0], requires_grad=True)
    truncated_exp(x).sum().backward()
    assert x.grad[1] == 1 and x.grad[2] == torch.exp(torch.tensor(15.0)) and x.grad[0] > 0
