"""Loss terms: zero at the truth, larger elsewhere, in the right place."""
import dataclasses
import math

import pytest
import torch

from s3dnerf.face import LIPS, metric_face
from s3dnerf.geometry import frontal_camera, pixel_grid, project
from s3dnerf.losses import (Objective, at_landmarks, crop, edge_error, info_nce, landmark_pixels, lip_weights, reduced,
                            rendering_terms, velocity_error, weighted)
from s3dnerf.types import Cameras, Clip, Portrait, Rendering, Window

SIZE, SMALL = 64, 16


def whole(batch=1):
    zero = torch.zeros(batch)
    return Window(zero, zero, SIZE, SIZE)


@pytest.fixture
def clip():
    torch.manual_seed(0)
    camera = frontal_camera(SIZE)
    cameras = Cameras(camera.camera_to_world.expand(1, 2, 4, 4), camera.intrinsics.expand(1, 2, 3, 3))
    mesh = torch.from_numpy(metric_face())
    portrait = Portrait(torch.rand(1, 3, SIZE, SIZE), torch.ones(1, 1, SIZE, SIZE), cameras[:, 0], mesh[None],
                        torch.ones(1, 1, SIZE, SIZE))
    return Clip(torch.rand(1, 2, 3, SIZE, SIZE), torch.ones(1, 2, 1, SMALL, SMALL), torch.zeros(1, 2, 1, SIZE, SIZE), cameras,
                mesh.expand(1, 2, -1, -1), torch.zeros(1, 2, 80, 40), torch.zeros(1, 2, 80, 40), mesh[None], portrait, ["clip"])


def perfect(clip):
    """The rendering that leaves nothing to be wanted: the photo is the same face in the same pose."""
    small = reduced(clip.frames, SMALL, SMALL)
    ones = torch.ones(1, 2, 1, SMALL, SMALL)
    own = (pixel_grid(SIZE, SIZE, small) * 2 / SIZE - 1).T.unflatten(-1, (SIZE, SIZE)).expand(1, 2, -1, -1, -1)
    nothing = torch.zeros(1, 2, 1, SIZE, SIZE)
    face = torch.from_numpy(metric_face())
    depth = (face - clip.cameras.camera_to_world[0, 0, :3, 3]).norm(dim=-1).mean()
    return Rendering(clip.frames, clip.frames, small, small, ones, ones * depth, own, nothing, nothing, ones * 0)


def test_perfect_rendering_costs_next_to_nothing(clip):
    terms = rendering_terms(perfect(clip), clip, whole(), Objective())
    for name in ("photometric", "edges", "raw", "warped", "opacity", "stillness"):
        assert terms[name] < 1e-6, name
    assert terms["flow"] < 1e-3


@pytest.mark.parametrize("name, field, value", [
    ("photometric", "image", 0.0), ("edges", "image", 0.5), ("raw", "coarse", 0.0), ("warped", "warped", 0.0),
    ("opacity", "opacity", 0.0), ("flow", "source", 0.5), ("depth", "depth", 1.0),
    ("stillness", "motion", 1.0)])
def test_each_term_notices_its_part_and_only_what_has_weight_is_computed(clip, name, field, value):
    good = perfect(clip)
    bad = dataclasses.replace(good, **{field: torch.full_like(getattr(good, field), value)})
    before, after = (rendering_terms(r, clip, whole(), Objective())[name] for r in (good, bad))
    assert after > before + 1e-3
    assert name not in rendering_terms(bad, clip, whole(), dataclasses.replace(Objective(), **{name: 0.0}))


def test_the_squared_term_is_the_mean_square_of_frames_and_of_both_passes(clip):
    nothing = {field.name: 0.0 for field in dataclasses.fields(Objective)}
    objective = Objective(**nothing | {"squared": 1.0, "lips": 1.0})
    rendering = perfect(clip)
    worse = dataclasses.replace(rendering, image=rendering.image + 0.1, raw=rendering.raw + 0.2,
                                coarse=rendering.coarse - 0.3)
    assert rendering_terms(rendering, clip, whole(), objective)["squared"] < 1e-6
    terms = rendering_terms(worse, clip, whole(), objective)
    assert set(terms) == {"squared"} and terms["squared"].item() == pytest.approx(0.01 + 0.04 + 0.09, rel=1e-3)


def test_crop_cuts_each_row_at_its_own_corner():
    images = torch.arange(2 * 8 * 8.0).reshape(2, 1, 1, 8, 8)
    window = Window(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 0.0]), 4, 4)
    found = crop(images, window)
    assert found[0, 0, 0, 0, 0] == images[0, 0, 0, 2, 1] and found[1, 0, 0, 3, 3] == images[1, 0, 0, 3, 7]


def test_lip_weights_cover_the_lips_and_little_else(clip):
    pixels = landmark_pixels(clip.mesh, clip.cameras, whole())[:, :, list(LIPS)]
    weights = lip_weights(pixels, whole(), 8.0)
    x, y = pixels[0, 0].long().unbind(-1)
    assert (weights[0, 0, 0, y, x] == 8).all()
    assert 0.02 < (weights == 8).float().mean() < 0.2


def test_maps_are_read_at_landmarks_in_pixels():
    ramp = (torch.arange(SMALL) + 0.5).expand(1, 1, 1, SMALL, SMALL) * (SIZE / SMALL)
    pixels = torch.tensor([[[[20.0, 30.0], [41.0, 5.0], [70.0, 5.0]]]])
    read, seen = at_landmarks(ramp, pixels, whole())
    assert torch.allclose(read[0, 0, :2, 0], torch.tensor([20.0, 41.0]), atol=1e-3)
    assert seen[0, 0, :, 0].tolist() == [1, 1, 0]


def test_weighted_mean_and_edges():
    error = torch.tensor([[[[[1.0, 3.0]]] * 2]]).reshape(1, 1, 2, 1, 2)
    assert weighted(error, torch.tensor([[[[[1.0, 0.0]]]]])) == pytest.approx(1.0)
    image = torch.zeros(1, 1, 1, 4, 4)
    image[..., 2:] = 1
    assert edge_error(image, torch.zeros_like(image), torch.ones_like(image)) == pytest.approx(1 / 3)


def test_total_weighs_by_name():
    objective = Objective(photometric=2.0, raw=0.5)
    assert objective.total({"photometric": torch.tensor(1.0), "raw": torch.tensor(4.0)}) == 4.0


def test_landmark_pixels_move_with_the_window(clip):
    window = Window(torch.tensor([10.0]), torch.tensor([6.0]), 32, 32)
    shifted = landmark_pixels(clip.mesh, clip.cameras, window)
    assert torch.allclose(project(clip.mesh, clip.cameras)[0] - shifted, torch.tensor([10.0, 6.0]).expand_as(shifted), atol=1e-4)


def test_info_nce_has_its_closed_form():
    """One right answer at cosine 1 and ten wrong ones at 0, temperature 0.5: log(1 + 10 exp(-2)); lengths do not count."""
    found, wrong = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 0.2]]).expand(1, 10, 2)
    value = math.log(1 + 10 * math.exp(-2))
    assert info_nce(found, torch.tensor([[0.5, 0.0]]), wrong).item() == pytest.approx(value, abs=1e-6)
    assert info_nce(found, torch.tensor([[-1.0, 0.0]]), wrong).item() == pytest.approx(math.log(1 + 10 * math.exp(2)), abs=1e-5)
    assert info_nce(found, found, wrong, 1.0).item() == pytest.approx(math.log(1 + 10 * math.exp(-1)), abs=1e-6)


def test_velocity_compares_changes_and_not_pictures():
    real = torch.rand(1, 2, 3, 4, 4)
    weights = torch.ones(1, 1, 4, 4)
    assert velocity_error(real + 0.3, real, weights).item() == pytest.approx(0, abs=1e-12)
    made = real.clone()
    made[:, 1] += 0.2
    assert velocity_error(made, real, weights).item() == pytest.approx(0.04, abs=1e-6)
    weights[..., :2] = 0
    made[..., 2:] = real[..., 2:]
    assert velocity_error(made, real, weights).item() == pytest.approx(0, abs=1e-12)
