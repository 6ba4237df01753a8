"""The deformation field: region score, null token, lattice against points."""
import pytest
import torch

from s3dnerf.networks.deformation import (FACE_CENTRE, FACE_HALF, CrossModalDeformationField, face_window,
                                          positional_encoding)
from s3dnerf.types import Motion


@pytest.fixture
def field():
    torch.manual_seed(1)
    field = CrossModalDeformationField(feature_channels=8, token_channels=16, code_size=5, width=16, modulation_channels=6,
                                       lattice=(9, 10, 5))
    torch.nn.init.normal_(field.out.weight, std=0.2)
    return field


def motion(batch=2, frames=3):
    return Motion(torch.randn(batch, frames, 5), torch.randn(batch, frames, 8, 16))


def evaluate(field, points, motion, features=None):
    if features is None:
        features = torch.zeros(motion.code.shape[0], *points.shape[1:3], 8)
    return field(points, features, motion, torch.zeros(motion.code.shape[0], 5))


def test_encoding_is_sines_and_cosines_of_doubling_frequency():
    encoded = positional_encoding(torch.tensor([[0.25, 0.0, 0.0]]), 2)
    assert encoded.shape == (1, 15)
    assert encoded[0, 3:5].tolist() == pytest.approx([2 ** -0.5, 1.0])


def test_the_border_of_the_lattice_is_not_asked_and_says_nothing(field):
    drive, features = motion(), torch.randn(2, 9 * 10 * 5, 8)
    asked, whole = [], field.forward
    field.forward = lambda points, *rest: asked.append(points.shape[2]) or whole(points, *rest)
    found = field.on_lattice(features, drive, torch.zeros(2, 5))
    assert asked == [7 * 8 * 3] and found.offset.abs().max() > 0.01
    expected = whole(field.lattice_points(features)[None, None], features[:, None], drive, torch.zeros(2, 5))
    for name in ("offset", "modulation", "region"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-6, rtol=1e-5)


def test_lattice_equals_points_at_its_nodes(field):
    drive, nodes = motion(), field.lattice_points(torch.zeros(1))
    lattice = evaluate(field, nodes[None, None], drive)
    read = field.interpolate(lattice, nodes.expand(2, 3, -1, -1))
    for name in ("offset", "modulation", "region"):
        assert torch.allclose(getattr(read, name), getattr(lattice, name), atol=1e-5)


def test_finer_lattices_come_closer_to_points_between_nodes(field):
    torch.manual_seed(2)
    drive = motion()
    points = torch.tensor(FACE_CENTRE) + torch.tensor(FACE_HALF) * (torch.rand(2, 3, 200, 3) - 0.5)
    exact, error = evaluate(field, points, drive).offset, []
    for size in ((9, 10, 5), (18, 20, 10), (36, 40, 20)):
        field.lattice_size = size
        lattice = evaluate(field, field.lattice_points(points)[None, None], drive)
        error.append((field.interpolate(lattice, points).offset - exact).abs().mean())
    assert error[1] < 0.6 * error[0] and error[2] < 0.4 * error[1]
    assert error[2] < 0.1 * exact.abs().mean()


def test_nothing_moves_outside_the_face_box(field):
    points = torch.tensor(FACE_CENTRE) + torch.tensor(FACE_HALF) * torch.tensor([[[[1.01, 0, 0], [0, -1.2, 0], [0, 0, 1.5]]]])
    found = evaluate(field, points.expand(2, 3, -1, -1), motion())
    assert found.offset.abs().max() == 0 and found.modulation.abs().max() == 0 and found.region.abs().max() == 0
    assert face_window(torch.zeros(1, 3)).item() == 1


def test_region_score_is_what_the_null_token_leaves(field):
    drive, points = motion(), torch.tensor(FACE_CENTRE).expand(2, 3, 4, 3)
    with torch.no_grad():
        field.keys.weight.zero_()
        field.keys.bias.zero_()
    assert torch.allclose(evaluate(field, points, drive).region, torch.full((2, 3, 4, 1), 8 / 9), atol=1e-5)


def test_attention_varies_over_the_face(field):
    torch.manual_seed(3)
    with torch.no_grad():
        field.query.weight.mul_(8)
    points = torch.tensor(FACE_CENTRE) + 0.6 * torch.tensor(FACE_HALF) * (2 * torch.rand(2, 3, 100, 3) - 1)
    assert evaluate(field, points, motion()).region.std() > 0.01


def test_every_token_and_every_code_matters(field):
    drive = motion().map(lambda x: x.requires_grad_(True))
    points = torch.tensor(FACE_CENTRE) + 0.3 * torch.randn(2, 3, 30, 3)
    found = evaluate(field, points, drive)
    tokens, code = torch.autograd.grad(found.offset.square().sum(), (drive.tokens, drive.code))
    share = tokens.square().sum((0, 1, 3)).sqrt()
    assert (share > 0.01 * share.max()).all() and (code.abs().sum((0, 1)) > 0).all()


@pytest.mark.parametrize("mode, moves, modulates", [("deform", True, False), ("modulate", False, True), ("both", True, True)])
def test_modes_switch_their_part_off(mode, moves, modulates):
    torch.manual_seed(0)
    field = CrossModalDeformationField(8, 16, 5, 16, 2, 6, (5, 5, 3), mode=mode)
    found = evaluate(field, torch.tensor(FACE_CENTRE).expand(2, 3, 4, 3), motion())
    assert bool(found.offset.abs().max() > 0) == moves and bool(found.modulation.abs().max() > 0) == modulates


def test_rows_of_a_batch_do_not_touch_each_other(field):
    drive, points = motion(), torch.tensor(FACE_CENTRE) + 0.3 * torch.randn(2, 3, 10, 3)
    together = evaluate(field, points, drive)
    alone = evaluate(field, points[1:], drive[1:])
    assert torch.allclose(together.offset[1:], alone.offset, atol=1e-6)


def test_without_attention_features_place_and_tokens_meet_in_one_layer(field):
    field.attention = False
    drive, points = motion(), torch.tensor(FACE_CENTRE) + 0.3 * torch.randn(2, 3, 10, 3)
    plain, seen = evaluate(field, points, drive), evaluate(field, points, drive, torch.ones(2, 3, 10, 8))
    for other in (seen, evaluate(field, points, motion())):
        assert (plain.offset - other.offset).abs().max() > 1e-4
    assert torch.equal(plain.region, face_window((points - torch.tensor(FACE_CENTRE)) / torch.tensor(FACE_HALF)))


def test_a_field_that_is_not_cross_modal_sees_no_photo(field):
    drive, points = motion(), torch.tensor(FACE_CENTRE) + 0.3 * torch.randn(2, 3, 10, 3)
    look = lambda features, code: field(points, features, drive, code).offset
    photos = (torch.randn(2, 3, 10, 8), torch.randn(2, 5)), (torch.randn(2, 3, 10, 8), torch.randn(2, 5))
    assert (look(*photos[0]) - look(*photos[1])).abs().max() > 1e-4
    field.cross_modal = False
    assert torch.equal(look(*photos[0]), look(*photos[1]))
    assert torch.equal(look(*photos[0]), look(torch.zeros(2, 3, 10, 8), torch.zeros(2, 5)))


def test_mode_none_is_silent_and_unknown_modes_are_refused():
    silent = CrossModalDeformationField(8, 16, 5, 16, 2, 6, (5, 5, 3), mode="none")
    found = evaluate(silent, torch.tensor(FACE_CENTRE).expand(2, 3, 4, 3), motion())
    assert not any(values.abs().max() for values in (found.offset, found.modulation, found.region))
    found.offset.sum().backward()  # a step of training stays possible
    with pytest.raises(ValueError, match="warp"):
        CrossModalDeformationField(mode="warp")
