"""Is a recording's sound in step with its lips? How far it is off, how sure that is, and the sound moved."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable

import numpy as np
import torch

from s3dnerf.media import SAMPLES_PER_FRAME, log_mel, mel_windows

Matcher = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""images [1, T, 3, S, S] in [0, 1], landmarks [1, T, 478, 2] in their pixels and mel windows [1, T, 80, 40] of T frames to
the cosines [1, W, W] of every window of lips (row) and of sound (column); `LipSyncDiscriminator.match` is one"""
FARTHEST = 10
"""frames by which sound is taken to be off at most"""
EVIDENCE = 0.6
"""nats that a window tells for an offset per unit of cosine. Windows overlap and a clip's are alike, so it is far less than
the temperature of the training says: it is what makes no offset the most probable on clips known to be in step"""
SURE = 0.99
"""probability of being out of step from which on sound is moved"""


@dataclass(frozen=True)
class SyncEstimate:
    """How far the sound of a recording is off."""

    offset: int
    """frames by which the sound is late (early: negative): lips at t go with the sound at t + offset; 0 if not sure"""
    confidence: float
    """probability that the sound is late, or that it is early, whichever is more likely"""


@dataclass(frozen=True)
class SyncProfile:
    """What the windows of a recording say about every offset from -10 to 10 frames; those of its pieces add up."""

    cosines: np.ndarray = field(default_factory=lambda: np.zeros(2 * FARTHEST + 1))
    """[21] sum over pairs of lips and sound that are so far apart"""
    pairs: np.ndarray = field(default_factory=lambda: np.zeros(2 * FARTHEST + 1))
    """[21] their number"""

    @classmethod
    def of(cls, cosine: np.ndarray) -> SyncProfile:
        """The profile of a table [W, W] of every lips (row) and sound (column)."""
        diagonals = [np.diagonal(cosine, shift) for shift in range(-FARTHEST, FARTHEST + 1)]
        return cls(np.array([row.sum() for row in diagonals]), np.array([float(len(row)) for row in diagonals]))

    def __add__(self, other: SyncProfile) -> SyncProfile:
        return SyncProfile(self.cosines + other.cosines, self.pairs + other.pairs)

    def posterior(self) -> np.ndarray:
        """[21] probability of every offset; 0 for those that fewer than half of the windows, or than three, can tell of."""
        windows = self.pairs[FARTHEST]
        told = self.pairs >= max(3.0, windows / 2)
        if not told.any():
            return np.full(len(self.pairs), 1 / len(self.pairs))
        nats = np.where(told, EVIDENCE * windows * self.cosines / np.maximum(self.pairs, 1), -np.inf)
        weights = np.exp(nats - nats.max())
        return weights / weights.sum()

    def estimate(self) -> SyncEstimate:
        """The median of the posterior, if late or early is sure; short recordings, or silent ones, never are."""
        probability = self.posterior()
        confidence = float(max(probability[:FARTHEST].sum(), probability[FARTHEST + 1:].sum()))
        median = int(np.searchsorted(probability.cumsum(), 0.5)) - FARTHEST
        return SyncEstimate(median if confidence >= SURE else 0, round(confidence, 4))


@torch.inference_mode()
def sync_profile(frames: np.ndarray, landmarks: np.ndarray, speech: np.ndarray, match: Matcher) -> SyncProfile:
    """What images [T, S, S, 3] uint8, with landmarks [T, 478, 2] in their pixels, and sound [T * 640] say of its offset."""
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    mel = mel_windows(log_mel(speech), len(images))
    return SyncProfile.of(match(images[None], torch.from_numpy(landmarks).float()[None], mel[None])[0].double().numpy())


def cut_sound(sound: np.ndarray, first: int, frames: int) -> np.ndarray:
    """[frames * 640] of a recording [N] at 16 kHz from frame `first` on, which may be negative; silent beyond its ends."""
    start, end = first * SAMPLES_PER_FRAME, (first + frames) * SAMPLES_PER_FRAME
    part = sound[max(0, start):max(0, end)]
    before = min(max(0, -start), end - start)
    return np.pad(part, (before, end - start - before - len(part)))
