"""Figures against independent references."""
import numpy as np
import pytest
import torch

from s3dnerf.metrics import (auc, correlation, landmark_distance, psnr, sharpness, spread_ratio, ssim,
                             sync_margin)


def test_psnr_against_scikit_image_frame_by_frame():
    reference = pytest.importorskip("skimage.metrics").peak_signal_noise_ratio
    torch.manual_seed(0)
    a, b = torch.rand(3, 3, 8, 8), torch.rand(3, 3, 8, 8)
    expected = np.mean([reference(y.numpy(), x.numpy(), data_range=1) for x, y in zip(a, b)])
    assert psnr(a, b).item() == pytest.approx(expected, abs=1e-3)
    assert psnr(a, a) == 100


def test_nothing_flatters_identical_is_best_and_shuffled_or_frozen_is_clearly_worse():
    time = torch.arange(12.0)
    x = torch.linspace(0, 6, 32)
    frames = (0.5 + 0.4 * torch.sin(x[None, :, None] + x[None, None] + time[:, None, None]))[:, None].expand(-1, 3, -1, -1)
    mouth = torch.zeros(12, 1, 32, 32)
    mouth[..., 20:28, 10:22] = 1
    shuffled, frozen = frames[(torch.arange(12) * 5 + 3) % 12], frames[:1].expand_as(frames)
    for wrong in (shuffled, frozen):
        assert psnr(frames, frames, mouth) == 100 and psnr(wrong, frames, mouth) < 20
    pasted = torch.where(mouth > 0, shuffled, frames)  # a whole frame hides what its mouth does
    assert psnr(pasted, frames) > psnr(shuffled, frames) + 9
    assert psnr(pasted, frames, mouth).item() == pytest.approx(psnr(shuffled, frames, mouth).item(), abs=1e-4)
    opening = torch.sin(time)
    assert correlation(opening, opening).item() == pytest.approx(1) and spread_ratio(opening, opening) == 1
    assert correlation(opening * 0 + 1, opening) == 0 and spread_ratio(opening * 0 + 1, opening) == 0


def test_psnr_of_a_region_ignores_the_rest():
    a, b = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    box = torch.zeros(1, 1, 8, 8)
    box[..., 2:5, 3:7] = 1
    assert psnr(a, b, box).item() == pytest.approx(psnr(a[..., 2:5, 3:7], b[..., 2:5, 3:7]).item(), abs=1e-3)


def test_correlation_and_spread_against_numpy():
    a, b = torch.randn(50), torch.randn(50)
    assert correlation(a, b).item() == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-5)
    assert spread_ratio(3 * a + 1, a).item() == pytest.approx(3, abs=1e-5)
    assert correlation(torch.ones(5), b[:5]) == 0


def test_auc_against_counting_pairs():
    right, wrong = torch.tensor([0.9, 0.5, 0.5]), torch.tensor([0.1, 0.5, 0.7, 0.2])
    pairs = [(1.0 if r > w else 0.5 if r == w else 0.0) for r in right for w in wrong]
    assert auc(right, wrong).item() == pytest.approx(np.mean(pairs))


def test_ssim_against_scikit_image_away_from_the_border():
    reference = pytest.importorskip("skimage.metrics").structural_similarity
    torch.manual_seed(0)
    a = torch.nn.functional.interpolate(torch.rand(2, 3, 12, 12), size=48, mode="bicubic").clamp(0, 1)
    b = (a + 0.1 * torch.randn_like(a)).clamp(0, 1)
    maps = [reference(x.numpy(), y.numpy(), data_range=1, channel_axis=0, gaussian_weights=True, sigma=1.5,
                      use_sample_covariance=False, full=True)[1] for x, y in zip(a, b)]
    assert ssim(a, b).item() == pytest.approx(np.mean(maps), abs=0.01)
    assert ssim(a, a).item() == pytest.approx(1, abs=1e-5)


def test_sharpness_is_the_energy_of_the_laplacian_where_it_is_asked_for():
    scipy = pytest.importorskip("scipy.ndimage")
    torch.manual_seed(0)
    image = torch.rand(2, 3, 16, 16)
    luma = (image[1] * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0).numpy()
    expected = (scipy.laplace(luma)[1:-1, 1:-1] ** 2).mean()
    assert sharpness(image, torch.ones(2, 1, 16, 16))[1].item() == pytest.approx(expected, rel=1e-4)
    blurred = image.clone()
    blurred[..., :8] = 0.5
    left = torch.zeros(2, 1, 16, 16)
    left[..., :7] = 1
    assert sharpness(blurred, left).max() == 0 and sharpness(blurred, 1 - left).min() > 0


def test_landmark_distance_is_in_percent_of_the_eye_distance():
    truth = torch.randn(3, 20, 2)
    assert torch.allclose(landmark_distance(truth + torch.tensor([3.0, 4.0]), truth, torch.tensor([50.0, 100, 200])),
                          torch.tensor([10.0, 5, 2.5]), atol=1e-4)


def test_sync_margin_prefers_the_own_time_and_is_zero_for_lips_that_follow_nothing():
    torch.manual_seed(0)
    sound = torch.nn.functional.normalize(torch.randn(30, 16), dim=-1)
    assert sync_margin(sound @ sound.T) > 0.8
    assert sync_margin(sound.roll(3, 0) @ sound.T) < 0.1
    still = sound[:1].expand(30, -1)
    assert torch.stack([sync_margin(still @ torch.nn.functional.normalize(torch.randn(30, 16), dim=-1).T)
                        for _ in range(200)]).mean().abs() < 0.02
