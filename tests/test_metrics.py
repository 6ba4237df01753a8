"""Figures against independent references."""
import numpy as np
import pytest
import torch

from s3dnerf.metrics import (action_unit_error, auc, blinks, centred_distance, correlation, cpbd, edge_widths, flicker,
                             frechet_distance, jerk, kernel_distance, landmark_distance, mean_distance, psnr, sharpness,
                             spread_ratio, ssim, ssim_gaussian, sync_margin)


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


@pytest.fixture
def blurred_pair():
    torch.manual_seed(0)
    a = torch.nn.functional.interpolate(torch.rand(2, 3, 12, 12), size=48, mode="bicubic").clamp(0, 1)
    a = (a * 255).round() / 255
    return a, ((a + 0.1 * torch.randn_like(a)).clamp(0, 1) * 255).round() / 255


def test_ssim_is_scikit_image_s_default_on_8_bit_frames(blurred_pair):
    reference = pytest.importorskip("skimage.metrics").structural_similarity
    a, b = blurred_pair
    bytes_of = lambda x: (x * 255).round().byte().permute(1, 2, 0).numpy()
    expected = [reference(bytes_of(x), bytes_of(y), data_range=255, channel_axis=2) for x, y in zip(a, b)]
    assert ssim(a, b).numpy() == pytest.approx(expected, abs=1e-4)
    assert ssim(a, a).numpy() == pytest.approx([1, 1])
    assert (ssim(a, b) - ssim_gaussian(a, b)).abs().min() > 0.005, "the window has to be told"


def test_gaussian_ssim_against_scikit_image_away_from_the_border(blurred_pair):
    reference = pytest.importorskip("skimage.metrics").structural_similarity
    a, b = blurred_pair
    maps = [reference(x.numpy(), y.numpy(), data_range=1, channel_axis=0, gaussian_weights=True, sigma=1.5,
                      use_sample_covariance=False, full=True)[1] for x, y in zip(a, b)]
    assert ssim_gaussian(a, b).mean().item() == pytest.approx(np.mean(maps), abs=0.01)
    assert ssim_gaussian(a, a).numpy() == pytest.approx([1, 1], abs=1e-5)


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


# landmarks -----------------------------------------------------------------------------------------------------------

def test_distances_divide_by_their_own_number_of_landmarks():
    """Not the sum over the mouth's 20 by all 68, which makes M-LMD 3.4 times as small."""
    truth = torch.randn(5, 20, 2)
    moved = truth + torch.tensor([3.0, -4.0])
    assert mean_distance(moved, truth).numpy() == pytest.approx([5] * 5, abs=1e-5)
    found = truth + torch.randn_like(truth)
    expected = np.mean([np.hypot(*(x - y)) for a, b in zip(found.numpy(), truth.numpy()) for x, y in zip(a, b)])
    assert mean_distance(found, truth).mean().item() == pytest.approx(expected, rel=1e-5)
    assert mean_distance(found, truth).mean().item() != pytest.approx(expected * 20 / 68, rel=0.5)


def test_centring_takes_out_each_frame_s_own_shift_and_keeps_the_size():
    """Not the mean over coordinates, nor over time: a drift of the head costs nothing, a wider mouth does."""
    truth = 10 * torch.randn(6, 20, 2)
    drift = torch.randn(6, 1, 2) * 30
    assert centred_distance(truth + drift, truth).max() < 1e-4
    found = truth + torch.randn_like(truth)
    expected = [np.mean([np.hypot(*((a[i] - a.mean(0)) - (b[i] - b.mean(0)))) for i in range(20)])
                for a, b in zip(found.numpy(), truth.numpy())]
    assert centred_distance(found + drift, truth).numpy() == pytest.approx(expected, rel=1e-3)
    for axis in (0, 2):  # the transposed ways
        wrong = mean_distance(found + drift - (found + drift).mean(axis, keepdim=True), truth - truth.mean(axis, keepdim=True))
        assert (wrong.mean() - np.mean(expected)).abs() > 1
    assert centred_distance(2 * truth, truth).mean() > 5


def test_jerk_of_a_cubic_is_six_times_its_factor():
    time = torch.arange(9.0, dtype=torch.float64)[:, None, None]
    points = torch.cat([0.5 * time ** 3 + time ** 2, 3 * time], -1).expand(-1, 4, -1)
    assert jerk(points).item() == pytest.approx(3) and jerk(points[:3]).isnan()


def test_flicker_is_what_changes_beyond_the_truth_outside():
    truth = torch.rand(4, 3, 8, 8)
    assert flicker(truth + 0.2, truth, torch.ones(4, 1, 8, 8)).abs().max() < 1e-6, "another level is no flicker"
    flashing = truth.clone()
    flashing[2, :, :4] += 0.3
    outside = torch.ones(4, 1, 8, 8)
    outside[:, :, 4:] = 0
    assert flicker(flashing, truth, outside).numpy() == pytest.approx([0, 0.3, 0.3], abs=1e-6)
    assert flicker(flashing, truth, 1 - outside).abs().max() < 1e-6
    loops = np.mean(np.abs(np.diff(flashing.numpy(), axis=0) - np.diff(truth.numpy(), axis=0)), (1, 2, 3))
    assert flicker(flashing, truth, torch.ones(4, 1, 8, 8)).numpy() == pytest.approx(loops, abs=1e-6)


def test_blinks_are_counted_once_however_long():
    opening = torch.tensor([1, 0.2, 1, 1, 0.4, 0.1, 0.3, 1, 0.6, 1, 0.1, 1, 1, 1])
    assert blinks(opening) == 3 and blinks(opening, 0.7) == 4 and blinks(torch.ones(5)) == 0
    assert blinks(torch.tensor([0.1, 1, 1, 1])) == 1


def test_units_are_summed_and_frames_averaged():
    a, b = torch.rand(7, 17), torch.rand(7, 17)
    expected = sum(np.mean([(x - y) ** 2 for x, y in zip(a[:, unit].numpy(), b[:, unit].numpy())]) for unit in range(17))
    assert action_unit_error(a, b).item() == pytest.approx(expected, rel=1e-5)


# sets of frames ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("count", [12, 60])
def test_fid_against_scipy_s_matrix_root(count):
    """In the space of all features, and, with fewer frames than features, in the one that they span."""
    linalg = pytest.importorskip("scipy.linalg")
    a, b = torch.randn(count, 40), 0.5 * torch.randn(count + 3, 40) + 0.2
    root = linalg.sqrtm(np.cov(a.double().numpy(), rowvar=False) @ np.cov(b.double().numpy(), rowvar=False))
    covariances = sum(np.trace(np.cov(x.double().numpy(), rowvar=False)) for x in (a, b))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum().item() + covariances - 2 * np.trace(root).real
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-2)
    assert abs(frechet_distance(a, a)) < 1e-3 < frechet_distance(a, b)


def test_kid_against_plain_loops_and_the_same_every_time():
    a, b = torch.randn(9, 6), torch.randn(9, 6) + 0.5
    kernel = lambda x, y: (float(x @ y) / 6 + 1) ** 3
    own = lambda x: np.mean([kernel(p, q) for i, p in enumerate(x) for j, q in enumerate(x) if i != j])
    expected = own(a) + own(b) - 2 * np.mean([kernel(p, q) for p in a for q in b])
    assert kernel_distance(a, b, 9) == pytest.approx(expected, rel=1e-4)
    assert kernel_distance(a, b, 5) == kernel_distance(a, b, 5) != kernel_distance(a, b, 6)


# sharpness -----------------------------------------------------------------------------------------------------------

def plain_width(row, column):
    """From the darkest to the brightest pixel around an edge, by walking."""
    sign = np.sign(row[column + 1] - row[column - 1])
    left = column - 1
    while left > 0 and sign * (row[left] - row[left - 1]) > 0:
        left -= 1
    right = column + 1
    while right < len(row) - 1 and sign * (row[right + 1] - row[right]) > 0:
        right += 1
    return right - left


@pytest.mark.parametrize("rising", [True, False])
def test_edge_widths_against_walking_along_the_row(rising):
    scipy = pytest.importorskip("scipy.ndimage")
    torch.manual_seed(0)
    image = scipy.gaussian_filter(255 * np.random.rand(64, 96), 2)
    image = (255 * (image - image.min()) / np.ptp(image)).round()
    image = image if rising else image[:, ::-1]
    widths = edge_widths(image)
    places = np.argwhere(widths > 0)
    assert len(places) > 50
    assert all(widths[y, x] == plain_width(image[y], x) for y, x in places)


def bars(width):
    """Vertical bars of 0 and 200 whose edges are ramps of so many pixels."""
    x = np.arange(128)
    wave = np.clip((np.abs((x % 64) - 32) - 16) / (width - 1) + 0.5, 0, 1) if width > 1 else (x % 64 >= 32)
    return np.repeat((20 + 200 * wave.astype(float))[None], 128, 0)


def test_cpbd_is_one_for_steps_none_for_ramps_and_falls_with_blur():
    assert cpbd(bars(1)) == 1 and cpbd(bars(9)) == 0
    assert cpbd(np.full((128, 128), 90.0)) is None and cpbd(bars(1)[:50]) is None
    scipy = pytest.importorskip("scipy.ndimage")
    image = np.random.default_rng(0).choice([30.0, 220.0], (16, 16)).repeat(8, 0).repeat(8, 1)
    shares = [cpbd(scipy.gaussian_filter(image, sigma)) for sigma in (0.4, 0.6, 0.8)]
    assert shares == sorted(shares, reverse=True) and shares[0] > 0.9 > shares[1] > 0.5 > shares[2]


def test_cpbd_notices_less_blur_where_contrast_is_low():
    """A ramp of 5 pixels is seen in bars of 200 grey levels, not in bars of 40."""
    ramp = bars(4)
    assert edge_widths(ramp).max() in (4, 5) and cpbd(ramp) == 0 and cpbd(100 + (ramp - 20) / 5) == 1
