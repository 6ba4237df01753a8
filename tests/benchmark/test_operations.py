"""Parameters and operations of presets, against counts by hand."""
import pytest
import torch

from s3dnerf.benchmark import operations
from s3dnerf.models.one_shot import S3DNeRF


def build(**options):
    settings = dict(image_size=64, encoder_channels=(8, 8), plane_channels=4, width=16, modulation_channels=6,
                    lattice=(8, 8, 4), token_channels=8, speech_width=16, coarse_samples=4, fine_samples=4,
                    feature_channels=6, super_resolution_channels=(8, 8))
    return S3DNeRF(**(settings | options))


def test_shapes_alone_count_what_real_numbers_count():
    for options in (dict(), dict(evaluation="point", mesh_motion=False, super_resolution_channels=(8, 8, 4), warp=False)):
        (once, shapes), (real_once, real) = operations.operations(build(**options)), operations.operations(build(**options), "cpu")
        mouth = shapes.pop("radiance") - real.pop("radiance")  # shapes do not say which points are inside of the mouth,
        seen = shapes.pop("all") - real.pop("all") - mouth  # nor which part of a frame shows the face
        assert once == real_once and shapes == real and 0 <= seen < 0.02 * sum(shapes.values()) and mouth >= 0


def test_the_decoder_and_super_resolution_against_counts_by_hand():
    _, each = operations.operations(build())
    samples = 16 * 16 * 8
    layers = [(2 * 4 + 6, 16), (6, 16), (6 + 6, 16), (16, 16), (16, 16), (16, 7)]
    assert each["radiance"] == 2 * samples * sum(a * b for a, b in layers)
    quarter, half = (6 + 3) * 8 + 2 * 8 * 8, (8 + 36 + 3) * 8 + 2 * 8 * 8 + 8 * 12
    resizing = 4 * 2 * (16 * 16 + (8 + 3) * 32 * 32)  # the inside of the mouth down, features and maps up
    assert each["super_resolution"] == 2 * 9 * (16 * 16 * quarter + 32 * 32 * half) + resizing


def test_twice_the_samples_cost_twice_the_decoder_and_the_same_lattice():
    few, many = (operations.operations(build(coarse_samples=n, fine_samples=n))[1] for n in (4, 8))
    assert many["radiance"] == 2 * few["radiance"] and many["deformation"] == few["deformation"]
    few, many = (operations.operations(build(coarse_samples=n, fine_samples=n, evaluation="point"))[1] for n in (4, 8))
    assert many["fusion"] == 2 * few["fusion"] > 0
    assert 1.9 * few["deformation"] < many["deformation"] < 2 * few["deformation"]  # the tokens are mixed once


@pytest.mark.parametrize("mode, sides, neighbours", [("bilinear", 2, 4), ("bicubic", 2, 16), ("bilinear", 3, 8)])
def test_look_ups_are_counted(mode, sides, neighbours):
    image, places = torch.zeros(1, 5, *[8] * sides), torch.zeros(1, *[3] * sides, sides)
    look = lambda: torch.nn.functional.grid_sample(image, places, mode=mode, align_corners=False)
    assert operations.count(torch.nn.Identity(), look)[1]["all"] == 5 * 3 ** sides * neighbours * 2


def test_the_table_names_every_part_and_its_sum():
    model = build()
    lines = operations.table(model)
    numbers = [int(line.split("|")[2].replace(",", "").strip() or 0) for line in lines[2:]]
    assert sum(numbers[:-1]) + model.no_speech.numel() == numbers[-1] == sum(p.numel() for p in model.parameters())
    giga = [float(line.split("|")[4].replace(",", "")) for line in lines[2:]]
    assert sum(giga[:-1]) == pytest.approx(giga[-1], abs=0.005)
