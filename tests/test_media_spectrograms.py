"""The log-mel picture of sound, against its definition written out."""
import numpy as np
import torch

from s3dnerf.media import frame_count, log_mel, mel_filters, mel_windows


def mel_reference(sound):
    """Written out: pre-emphasis, DFT of Hann windows, Slaney filters, decibels; float64."""
    lifted = np.array([sound[n] - (0.97 * sound[n - 1] if n else 0) for n in range(len(sound))])
    padded = np.concatenate([np.zeros(400), lifted, np.zeros(400)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 800)
    hertz_of = lambda mel: 200 * mel / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)
    mel_of = lambda hertz: 3 * hertz / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)
    edges = [hertz_of(mel) for mel in np.linspace(mel_of(55), mel_of(7600), 82)]
    columns = []
    for first in range(0, len(sound) + 1, 200):
        magnitude = np.abs(np.fft.rfft(padded[first:first + 800] * window))
        column = []
        for low, top, high in zip(edges, edges[1:], edges[2:]):
            triangle = np.interp(np.arange(401) * 20.0, [low, top, high], [0, 1, 0]) * 2 / (high - low)
            column.append(8 * (20 * np.log10(max(1e-5, triangle @ magnitude)) - 20 + 100) / 100 - 4)
        columns.append(np.clip(column, -4, 4))
    return np.array(columns).T


def test_log_mel_equals_the_reference():
    draw = np.random.default_rng(0)
    for sound in (draw.normal(0, 0.1, 4000), 0.3 * np.sin(np.pi * np.arange(4800) / 8), np.zeros(1234)):
        found = log_mel(sound.astype(np.float32)).numpy()
        expected = mel_reference(sound.astype(np.float64))
        assert found.shape == expected.shape == (80, len(sound) // 200 + 1)
        assert np.abs(found - expected).max() < 0.02


def test_log_mel_takes_batches_and_stays_in_range():
    sounds = np.random.default_rng(0).uniform(-1, 1, (2, 3, 3200)).astype(np.float32)
    batch = log_mel(sounds)
    assert batch.shape == (2, 3, 80, 17) and batch.min() >= -4 and batch.max() <= 4
    assert np.abs((batch[1, 2] - log_mel(sounds[1, 2])).numpy()).max() < 1e-4


def test_filters_have_unit_area_and_cover_speech():
    filters = mel_filters()
    assert filters.shape == (80, 401) and (filters >= 0).all()
    assert np.abs(filters[30:].sum(1) * 20 - 1).max() < 0.03  # bins are 20 Hz apart; the lowest filters are hardly wider
    assert (filters.sum(0)[3:380] > 0).all() and filters[:, :2].sum() == 0 and filters[:, 381:].sum() == 0


def test_windows_are_centred_on_frames_and_silent_beyond_the_ends():
    columns = 33
    mel = torch.arange(columns).float().repeat(80, 1)
    for first in (0, 5):
        windows = mel_windows(mel, 6, first)
        assert windows.shape == (6, 80, 40)
        for t in range(6):
            begin = round(80 * (first + t + 0.5) / 25) - 20
            due = [j if 0 <= j < columns else -4.0 for j in range(begin, begin + 40)]
            assert windows[t, 7].tolist() == due


def test_a_click_is_in_the_middle_of_its_frames_window():
    sound = np.zeros(16000, np.float32)
    sound[10 * 640 + 240:10 * 640 + 400] = np.hanning(160)
    mel = log_mel(sound)
    loudest = mel_windows(mel, 25)[10].mean(0).argmax().item()
    assert abs(loudest - 20) <= 2  # a Hann window is four columns wide


def test_frame_count_is_the_nearest_and_never_none():
    assert [frame_count(n) for n in (0, 1, 319, 320, 640, 959, 960, 16000)] == [1, 1, 1, 1, 1, 1, 2, 25]
