"""Speech for synthetic heads: syllables whose loudness follows the opening and whose formants follow the lips' rounding."""
from __future__ import annotations

import numpy as np

from s3dnerf.media import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

MAX_OPENING = 0.24
"""head units"""


def articulation(frames: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Opening [T] in head units and rounding [T] in [0, 1]: syllables of 0.15 to 0.35 s with pauses between words."""
    opening, rounding = np.zeros(frames), np.zeros(frames)
    time, clock = (np.arange(frames) + 0.5) / FPS, draw.uniform(0.0, 0.2)
    while clock < frames / FPS:
        for _ in range(draw.integers(2, 6)):
            length, strength, round_lips = draw.uniform(0.15, 0.35), draw.uniform(0.3, 1.0), draw.uniform(0, 1)
            bump = np.clip(1 - ((time - clock - length / 2) / (length / 2)) ** 2, 0, 1)
            opening = np.maximum(opening, MAX_OPENING * strength * bump)
            rounding += round_lips * bump * (rounding == 0)
            clock += length
        clock += draw.uniform(0.2, 0.5)
    return opening, np.clip(rounding, 0, 1)


def voice(opening: np.ndarray, rounding: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """[T * 640] float32: a buzz through two moving resonances, as loud as the mouth is open."""
    count = len(opening) * SAMPLES_PER_FRAME
    time = (np.arange(count) + 0.5) / SAMPLE_RATE
    frame_time = (np.arange(len(opening)) + 0.5) / FPS
    along = lambda values: np.interp(time, frame_time, values)
    loud, lips = along(opening / MAX_OPENING), along(rounding)
    pitch = draw.uniform(95, 220) * (1 + 0.08 * np.sin(2 * np.pi * 0.7 * time))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    first, second = 300 + 450 * loud, 2100 - 1200 * lips
    sound = np.zeros(count)
    for harmonic in range(1, 25):
        frequency = harmonic * pitch
        gain = 1 / (1 + ((frequency - first) / 90) ** 2) + 0.6 / (1 + ((frequency - second) / 130) ** 2)
        sound += np.sin(harmonic * phase) * gain * (frequency < SAMPLE_RATE / 2)
    sound = sound * loud + 0.002 * draw.standard_normal(count)
    return (0.35 * sound / max(1e-6, np.abs(sound).max())).astype(np.float32)
