"""SyncNet v2: its network, what it is fed, and how it scores."""
import numpy as np
import pytest
import torch

from s3dnerf import metrics
from s3dnerf.evaluation.networks import Networks
from s3dnerf.evaluation.protocol import Protocol
from s3dnerf.evaluation.sync import JudgeEar, SyncNetEar
from s3dnerf.evaluation.syncnet import SyncNet, cepstra, crops, sound_windows

PROTOCOL = Protocol()


def plain_cepstra(samples):
    """One vector of 13 per 10 ms, by the definition, number by number."""
    lifted = [samples[0]] + [samples[i] - 0.97 * samples[i - 1] for i in range(1, len(samples))]
    mel = lambda hz: 2595 * np.log10(1 + hz / 700)
    edges = [int(513 * 700 * (10 ** (m / 2595) - 1) / 16000) for m in np.linspace(0, mel(8000), 28)]
    rows = []
    for start in range(0, len(samples) - 400 + 1, 160):
        frame = np.array(lifted[start:start + 400])
        power = [abs(np.sum(frame * np.exp(-2j * np.pi * k * np.arange(400) / 512))) ** 2 / 512 for k in range(257)]
        logs = []
        for a, b, c in zip(edges, edges[1:], edges[2:]):
            weight = [(k - a) / (b - a) if a <= k < b else (c - k) / (c - b) if b <= k < c else 0 for k in range(257)]
            logs.append(np.log(np.dot(power, weight)))
        row = []
        for n in range(13):
            total = sum(x * np.cos(np.pi * n * (2 * j + 1) / 52) for j, x in enumerate(logs))
            row.append(total * np.sqrt((1 if n == 0 else 2) / 26) * (1 + 11 * np.sin(np.pi * n / 22)))
        row[0] = np.log(sum(power))
        rows.append(row)
    return np.array(rows).T


def test_cepstra_against_the_definition_on_16_bit_numbers():
    sound = 0.1 * np.random.randn(16000 // 20).astype(np.float32)
    numbers = np.round(sound * 32768.0)
    expected, found = plain_cepstra(numbers), cepstra(sound)
    assert found.shape == (13, 4) and np.allclose(found[:, :expected.shape[1]], expected, atol=1e-6)
    louder = cepstra(2 * sound)[0] - found[0]  # the level is in the first one alone
    assert louder == pytest.approx(np.log(4), abs=1e-2) and np.isfinite(cepstra(np.zeros(700))).all()


def test_windows_of_sound_begin_at_four_times_the_frame():
    sound = 0.1 * np.random.randn(16000).astype(np.float32)
    windows = sound_windows(sound, 20)
    assert windows.shape == (20, 1, 13, 20)
    assert np.allclose(windows[7, 0], cepstra(sound)[:, 28:48], atol=1e-4)


def test_the_network_is_syncnet_s():
    """Shapes of every layer as the authors' file has them."""
    shapes = {name: tuple(value.shape) for name, value in SyncNet().state_dict().items()}
    expected = {"netcnnaud.0.weight": (64, 1, 3, 3), "netcnnaud.4.weight": (192, 64, 3, 3), "netcnnaud.8.weight": (384, 192, 3, 3),
                "netcnnaud.11.weight": (256, 384, 3, 3), "netcnnaud.14.weight": (256, 256, 3, 3),
                "netcnnaud.18.weight": (512, 256, 5, 4), "netfcaud.0.weight": (512, 512), "netfcaud.1.running_mean": (512,),
                "netfcaud.3.weight": (1024, 512), "netfclip.3.bias": (1024,), "netcnnlip.0.weight": (96, 3, 5, 7, 7),
                "netcnnlip.4.weight": (256, 96, 1, 5, 5), "netcnnlip.8.weight": (256, 256, 1, 3, 3),
                "netcnnlip.11.weight": (256, 256, 1, 3, 3), "netcnnlip.14.weight": (256, 256, 1, 3, 3),
                "netcnnlip.18.weight": (512, 256, 1, 6, 6), "netcnnlip.19.running_var": (512,)}
    assert expected.items() <= shapes.items()


def test_the_crop_reaches_where_the_pipeline_s_does():
    """From one half above the middle to 1.8 halves below it, 1.4 to the sides; grey beyond the frame; blue first."""
    y, x = np.mgrid[:400, :400]
    frame = np.stack([x / 2, y / 2, np.full_like(x, 7)], -1).astype(np.uint8)
    picture = crops(frame[None], np.array([[200.0, 150.0]]), np.array([80.0]), 0.4)[0].astype(float)
    assert picture.shape == (224, 224, 3) and (picture[..., 0] == 7).all()
    assert picture[112, 0, 2] * 2 == pytest.approx(200 - 112, abs=3) and picture[112, -1, 2] * 2 == pytest.approx(200 + 112, abs=3)
    assert picture[0, 112, 1] * 2 == pytest.approx(150 - 80, abs=3) and picture[-1, 112, 1] * 2 == pytest.approx(150 + 144, abs=3)
    outside = crops(frame[None], np.array([[10.0, 150.0]]), np.array([80.0]), 0.4)[0]
    assert (outside[:, :80] == 110).all()


def plain_distances(lips, sound, most):
    """By the definition: distances of every lips to the sound of every shift, zeros beyond the ends, mean over frames."""
    found = []
    for shift in range(-most, most + 1):
        rows = [np.linalg.norm(lips[t] - (sound[t + shift] if 0 <= t + shift < len(sound) else 0)) for t in range(len(lips))]
        found.append(np.mean(rows))
    return np.array(found)


def test_distances_by_shift_and_scores_against_plain_loops():
    lips, sound = torch.randn(40, 8), torch.randn(40, 8)
    expected = plain_distances(lips.numpy(), sound.numpy(), 15)
    found = metrics.shift_distances(lips, sound)
    assert np.allclose(found, expected, atol=1e-3)
    confidence, distance, offset = metrics.sync_scores(found)
    assert confidence == pytest.approx(np.median(expected) - expected.min(), abs=1e-3)
    assert distance == pytest.approx(expected.min(), abs=1e-3) and offset == 15 - expected.argmin()


@pytest.mark.parametrize("late", [0, 4, -6])
def test_sound_that_is_late_has_a_negative_offset_and_the_same_confidence(late):
    lips = torch.randn(120, 16)
    confidence, distance, offset = metrics.sync_scores(metrics.shift_distances(lips, lips.roll(late, 0)))
    assert offset == -late and confidence > 3 and distance < 2
    frozen = metrics.sync_scores(metrics.shift_distances(lips[:1].expand(120, -1), lips))
    assert frozen[0] < 0.3 * confidence


def test_the_whole_evaluation_with_weights_from_a_file(recording, weights):
    """Frames as they come, eight and two, give what all of them at once give, window by window."""
    networks = Networks.load(syncnet=weights.syncnet, judge="none")
    part = recording.first(8)
    ear = SyncNetEar(part, recording.sound, networks, PROTOCOL)
    frames = np.stack(list(part.frames()))
    ear.add(frames[:6], 0)
    ear.add(frames[6:], 6)
    found = ear.distances()
    pictures = crops(frames, ear.middles, ear.halves, 0.4).astype(np.float32)
    with torch.inference_mode():
        windows = torch.stack([torch.from_numpy(pictures[t:t + 5]).permute(3, 0, 1, 2) for t in range(3)])
        lips = networks.syncnet.lips(windows)
        sound = networks.syncnet.sound(sound_windows(recording.sound, 3))
    assert windows.max() > 100 and lips.norm(dim=1).std() > 0  # neither scaled to [0, 1] nor of unit length
    assert np.allclose(found, plain_distances(lips.numpy(), sound.numpy(), 15), atol=1e-3)
    assert SyncNetEar(recording.first(5), recording.sound, networks, PROTOCOL).distances() is None


class Expert:
    """Stands where the judging expert does: lips of frame t go with the sound `late` frames later."""

    frames = 3

    def __init__(self, late):
        self.late, self.seen = late, 0

    def match(self, images, places, mel):
        first, count = self.seen, images.shape[1] - self.frames + 1
        self.seen += images.shape[1]
        apart = torch.arange(count)[None] - torch.arange(count)[:, None]
        return torch.where(apart == self.late, 0.9, 0.1 + 0.0 * first)[None].float()


@pytest.mark.parametrize("late, piece", [(0, 125), (2, 125), (-2, 6)])
def test_the_judging_expert_counts_pairs_that_are_there_piece_by_piece(recording, late, piece):
    from dataclasses import replace
    ear = JudgeEar(recording, recording.sound, Networks(judge=Expert(late)), replace(PROTOCOL, judge_piece=piece))
    frames = np.stack(list(recording.frames()))
    ear.add(frames[:8], 0)
    ear.add(frames[8:], 8)
    confidence, distance, offset = metrics.sync_scores(ear.distances())
    assert offset == -late and distance == pytest.approx(np.sqrt(0.2)) and confidence == pytest.approx(np.sqrt(1.8) - np.sqrt(0.2))
