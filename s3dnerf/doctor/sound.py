"""Looks at a recording of speech: rate, channels, length, level, clipping, silence, noise."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from s3dnerf.data.tracking import longest_run
from s3dnerf.doctor.finding import Finding, State, graded
from s3dnerf.errors import InputError
from s3dnerf.media import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, check_file, is_silent, read_sound

QUIET, LOUD = -40.0, -6.0
"""decibels of full scale: level of speech that is too low, and too high"""
FULL, CLIPPED = 0.985, 3
"""share of full scale, and samples in a row that reach it, of what is clipped"""
CLIPPED_SHARE = 1e-4
"""of all samples, from which on clipping is told"""
PAUSE = -30.0
"""decibels against the level of speech, below which a frame is a pause"""
LONG_SILENCE = 2.0
"""seconds of pause at either end, or at a stretch, that are told"""
NOISY = 15.0
"""decibels that speech is above the quietest tenth of the recording, below which it is noisy"""
LEAST_PAUSES = 0.5
"""seconds of recording without which noise is not judged"""


def examine_sound(path: str) -> list[Finding]:
    """What there is to say of a recording's file (a video's sound track, too)."""
    try:
        sound = read_sound(path)
    except InputError as error:
        return [Finding("speech", State.STOP, str(error))]
    findings = [_file(path, sound)]
    if is_silent(sound):
        told = "the recording is silent, so that the mouth stays still; check the microphone, unless that is meant"
        return [*findings, Finding("level", State.CAREFUL, told)]
    return [*findings, *examine_samples(sound)]


def _file(path: str, sound: np.ndarray) -> Finding:
    """Rate and channels, and what reading the file changes."""
    import av

    with av.open(str(check_file(path, "recording"))) as container:
        stream = container.streams.audio[0]
        rate, channels, codec = stream.rate, stream.codec_context.layout.nb_channels, stream.codec_context.name
    changes = [f"{rate} Hz converted to {SAMPLE_RATE}"] * (rate != SAMPLE_RATE) + [f"{channels} channels mixed to one"] * (channels > 1)
    told = f"{Path(path).name}, {codec}, {len(sound) / SAMPLE_RATE:.1f} s"
    return Finding("speech", State.REPAIRED if changes else State.GOOD, "; ".join([told, *changes]))


def examine_samples(sound: np.ndarray) -> list[Finding]:
    """What there is to say of sound [N] in [-1, 1] at 16 kHz that is not silent."""
    levels = frame_levels(sound)
    speech = float(np.percentile(levels, 90))
    low = "speak up, or closer to the microphone: lips follow loudness" if speech < QUIET else ""
    high = "turn the recording down" if speech > LOUD else ""
    share = clipped_share(sound)
    clipped = "turn the recording down and record again: clipped speech opens the mouth too far" if share > CLIPPED_SHARE else ""
    pause = longest_run(levels < speech + PAUSE) / FPS
    empty = "cut it off, if the mouth is not meant to rest" if pause > LONG_SILENCE else ""
    above = speech - float(np.percentile(levels, 10))
    even = len(levels) >= LEAST_PAUSES * FPS and above < NOISY
    noisy = "there is noise or music behind the voice, or no pause in it: lips follow all sound; record in a quiet room" if even else ""
    return [graded("level", f"speech at {speech:.0f} dB of full scale", careful=low or high),
            graded("clipping", f"{100 * share:.2f} % of the samples", careful=clipped),
            graded("silence", f"the longest stretch lasts {pause:.1f} s", careful=empty),
            graded("noise", f"speech is {above:.0f} dB above the quietest tenth", careful=noisy)]


def frame_levels(sound: np.ndarray) -> np.ndarray:
    """[T] decibels of full scale of every video frame's sound [N], -100 at least."""
    frames = max(1, len(sound) // SAMPLES_PER_FRAME)
    power = (np.resize(sound, frames * SAMPLES_PER_FRAME).reshape(frames, -1).astype(np.float64) ** 2).mean(1)
    return 10 * np.log10(np.maximum(power, 1e-10))


def clipped_share(sound: np.ndarray) -> float:
    """Share of the samples that lie in runs at full scale."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (np.abs(sound) >= FULL).astype(int), [0]])))
    runs = edges[1::2] - edges[::2]
    return float(runs[runs >= CLIPPED].sum() / max(len(sound), 1))
