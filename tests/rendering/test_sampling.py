"""Where rays are looked at, against closed forms."""
import pytest
import torch

from s3dnerf.rendering.sampling import importance_distances, merge_samples, stratified_samples
from s3dnerf.types import Rays


@pytest.fixture
def rays():
    near, far = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [6.0]])
    return Rays(torch.zeros(2, 3), torch.tensor([[0.0, 0, 1]]).expand(2, 3), near, far)


@pytest.mark.parametrize("perturb", [False, True])
def test_stratified_intervals_cover_the_ray_and_hold_their_points(rays, perturb):
    samples = stratified_samples(rays, 8, perturb)
    assert torch.equal(samples.starts[:, 0], rays.near) and torch.allclose(samples.ends[:, -1], rays.far)
    assert torch.equal(samples.starts[:, 1:], samples.ends[:, :-1])
    assert (samples.middles >= samples.starts).all() and (samples.middles <= samples.ends).all()


def test_importance_samples_crowd_where_the_weight_is(rays):
    samples = stratified_samples(rays, 16, False)
    weights = torch.zeros(2, 16, 1)
    weights[:, 5] = 1
    distances = importance_distances(samples, weights, 100, False)
    wide = (samples.ends - samples.starts)[:, :1]
    near = (distances > samples.starts[:, 4:5] - wide) & (distances < samples.ends[:, 6:7] + wide)
    assert near.float().mean() >= 0.85
    assert (distances.diff(dim=1) > 0).all()


def test_importance_samples_follow_the_inverse_of_a_known_distribution(rays):
    samples = stratified_samples(rays, 4, False)
    distances = importance_distances(samples, torch.full((2, 4, 1), 7.0), 8, False)
    expected = rays.near[:, None] + (rays.far - rays.near)[:, None] * (torch.arange(8)[None, :, None] + 0.5) / 8
    assert torch.allclose(distances, expected, atol=1e-5)


def test_importance_samples_carry_no_gradient(rays):
    samples = stratified_samples(rays, 4, False)
    weights = torch.rand(2, 4, 1, requires_grad=True)
    assert not importance_distances(samples, weights, 8, True).requires_grad


def test_merged_intervals_are_sorted_touch_and_cover_the_ray(rays):
    samples = stratified_samples(rays, 8, True)
    distances = importance_distances(samples, torch.rand(2, 8, 1), 8, True)
    merged, order = merge_samples(samples, distances)
    assert merged.middles.shape == (2, 16, 1)
    assert (merged.middles.diff(dim=1) >= 0).all()
    assert torch.equal(merged.starts[:, 1:], merged.ends[:, :-1])
    assert torch.equal(merged.starts[:, 0], samples.starts[:, 0]) and torch.equal(merged.ends[:, -1], samples.ends[:, -1])
    assert torch.equal(torch.cat([samples.middles, distances], 1).gather(1, order), merged.middles)
    assert (merged.middles.diff(dim=1) == 0).float().mean() < 0.01
