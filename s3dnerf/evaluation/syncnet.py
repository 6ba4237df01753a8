"""SyncNet v2 (Chung and Zisserman 2016, as its authors published it), and what it is fed."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from s3dnerf.media import SAMPLE_RATE

SIZE, WINDOW, CEPSTRA, PER_FRAME = 224, 5, 13, 4
"""side of the lips' picture, frames in a window, cepstra of a sound frame, sound frames per video frame"""
FRAME, STEP, FFT, BANDS, LIFTER = 400, 160, 512, 26, 22


class SyncNet(nn.Module):
    """Two branches, five frames of a face and 0.2 s of sound, to vectors of 1024; names fit the published weights."""

    def __init__(self):
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_block(nn.Conv2d(1, 64, 3, padding=1)), nn.MaxPool2d(1, 1),
            *_block(nn.Conv2d(64, 192, 3, padding=1)), nn.MaxPool2d(3, (1, 2)),
            *_block(nn.Conv2d(192, 384, 3, padding=1)), *_block(nn.Conv2d(384, 256, 3, padding=1)),
            *_block(nn.Conv2d(256, 256, 3, padding=1)), nn.MaxPool2d(3, 2),
            *_block(nn.Conv2d(256, 512, (5, 4))))
        self.netfcaud = _head()
        self.netfclip = _head()
        self.netcnnlip = nn.Sequential(
            *_block(nn.Conv3d(3, 96, (5, 7, 7), (1, 2, 2))), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_block(nn.Conv3d(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1))), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_block(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_block(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))),
            *_block(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1))), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_block(nn.Conv3d(256, 512, (1, 6, 6))))

    def lips(self, windows: Tensor) -> Tensor:
        """[N, 1024], not of unit length, of pictures [N, 3, 5, 224, 224]: blue, green, red, 0 to 255, nothing taken off."""
        return self.netfclip(self.netcnnlip(windows).flatten(1))

    def sound(self, windows: Tensor) -> Tensor:
        """[N, 1024] of cepstra [N, 1, 13, 20]."""
        return self.netfcaud(self.netcnnaud(windows).flatten(1))


def _block(convolution: nn.Module) -> list[nn.Module]:
    norm = nn.BatchNorm2d if isinstance(convolution, nn.Conv2d) else nn.BatchNorm3d
    return [convolution, norm(convolution.out_channels), nn.ReLU(inplace=True)]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


def cepstra(sound: np.ndarray) -> np.ndarray:
    """MFCC [13, N] at 100 per second of sound [*] in [-1, 1] at 16 kHz, as python_speech_features has them by default and
    for 16-bit numbers: pre-emphasis 0.97, square windows of 25 ms, 26 triangles up to 8 kHz, lifter 22, and the logarithm of
    the energy in place of the first."""
    from scipy.fft import dct

    samples = np.clip(np.asarray(sound, np.float64) * 32768, -32768, 32767).round()
    samples = np.append(samples[:1], samples[1:] - 0.97 * samples[:-1])
    count = 1 + max(0, -(-(len(samples) - FRAME) // STEP))
    samples = np.pad(samples, (0, (count - 1) * STEP + FRAME - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::STEP]
    power = np.abs(np.fft.rfft(frames, FFT)) ** 2 / FFT
    something = lambda x: np.where(x == 0, np.finfo(float).eps, x)
    found = dct(np.log(something(power @ _filters().T)), type=2, axis=1, norm="ortho")[:, :CEPSTRA]
    found *= 1 + LIFTER / 2 * np.sin(np.pi * np.arange(CEPSTRA) / LIFTER)
    found[:, 0] = np.log(something(power.sum(1)))
    return found.T


def _filters() -> np.ndarray:
    """[26, 257] triangles between whole bins, even on the mel scale 2595 log10(1 + f / 700)."""
    mels = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), BANDS + 2)
    edges = np.floor((FFT + 1) * 700 * (10 ** (mels / 2595) - 1) / SAMPLE_RATE)
    bins = np.arange(FFT // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    inside = (bins >= edges[:-2, None]) & (bins < edges[2:, None])
    return np.where(inside, np.where(bins < edges[1:-1, None], rising, falling), 0)


def sound_windows(sound: np.ndarray, count: int) -> Tensor:
    """[count, 1, 13, 20]: the cepstra from 4 t on, of the windows of frames t to t + 4."""
    found = torch.from_numpy(cepstra(sound)).float()
    return torch.stack([found[:, PER_FRAME * t:PER_FRAME * (t + WINDOW)] for t in range(count)])[:, None]


def crops(frames: np.ndarray, middles: np.ndarray, halves: np.ndarray, scale: float) -> np.ndarray:
    """Pictures [N, 224, 224, 3] (blue, green, red) of frames [N, H, W, 3], as SyncNet's pipeline cuts them: `halves` [N] is
    half the larger side of the face's box, `middles` [N, 2] its middle. The square reaches 1 + `scale` halves to every side of
    a point `scale` halves below that. Beyond the frame is grey 110."""
    import cv2

    found = []
    for frame, (x, y), half in zip(frames, middles, halves):
        reach = half * (1 + scale)
        matrix = np.array([[1, 0, reach - x], [0, 1, reach - (y + scale * half)]]) * (SIZE / (2 * reach))
        matrix[:, 2] += 0.5 * matrix[0, 0] - 0.5
        picture = cv2.GaussianBlur(frame, (0, 0), 0.45 / matrix[0, 0]) if matrix[0, 0] < 0.8 else frame
        found.append(cv2.warpAffine(picture, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderValue=(110, 110, 110)))
    return np.stack(found)[..., ::-1]
