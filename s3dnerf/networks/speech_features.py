"""Speech features: log-mel by default, or the hidden states of a wav2vec2 or HuBERT encoder."""
from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from s3dnerf.errors import DependencyError, InputError
from s3dnerf.media import (FPS, MEL_BINS, MEL_CONTEXT, MEL_HOP, MEL_WINDOW, SAMPLE_RATE, SAMPLES_PER_FRAME, frame_count,
                           log_mel, mel_windows)
from s3dnerf.stopwatch import stage

MEL_STRETCH = 1600
"""mel frames that are computed at once: 20 s"""
MEETING_FRAMES, MEETING_MEL = 5, 16
"""so many video frames last exactly as long as so many mel frames"""


class Stretches:
    """Vectors along a recording that are computed where they are read, `stretches[:, first:last]`, so that memory does not grow
    with its length; the last ones that were computed are kept.

    Args:
        compute: gives the vectors [C, last - first] of numbers `first` and `last`.
        count: of the vectors.
        length: vectors that are computed at once.
    """

    kept = 4
    """stretches"""

    def __init__(self, compute: Callable[[int, int], Tensor], count: int, length: int):
        self.compute, self.count, self.length = compute, count, length
        self.found, self.lock = {}, threading.Lock()

    def __reduce__(self):
        return Stretches, (self.compute, self.count, self.length)

    def __getitem__(self, place: tuple[slice, slice]) -> Tensor:
        first, last, _ = place[1].indices(self.count)
        numbers = range(first // self.length, max(last - 1, first) // self.length + 1)
        found = torch.cat([self._stretch(number) for number in numbers], 1)
        skipped = numbers[0] * self.length
        return found[:, first - skipped:max(first, last) - skipped]

    def _stretch(self, number: int) -> Tensor:
        """One of the stretches; several threads ask for the same one at a time."""
        with self.lock:
            if number not in self.found:
                while len(self.found) >= self.kept:
                    self.found.pop(next(iter(self.found)))
                with stage("speech features"):
                    first = min(number * self.length, self.count)
                    self.found[number] = self.compute(first, min(first + self.length, self.count))
            return self.found[number]


class MelFeatures:
    """Log-mel spectrogram, 80 vectors a second, half a second around each frame."""

    channels, window, rate = MEL_BINS, MEL_CONTEXT, SAMPLE_RATE / MEL_HOP

    def along(self, sound: Tensor) -> Stretches:
        """[80, M] of a recording [N] at 16 kHz, computed where it is read."""
        return Stretches(partial(self._mel, sound), len(sound) // MEL_HOP + 1, MEL_STRETCH)

    def sequence(self, sound: Tensor) -> Tensor:
        """The same as one tensor."""
        return self.along(sound)[:, :]

    @staticmethod
    def _mel(sound: Tensor, first: int, last: int) -> Tensor:
        margin = MEL_WINDOW // MEL_HOP
        low = max(0, first - margin)
        return log_mel(sound[low * MEL_HOP:(last + margin) * MEL_HOP])[:, first - low:last - low]

    def windows(self, sequence: Tensor | Stretches, first: int, count: int) -> Tensor:
        """[count, 80, 40] around the frames from `first` on; silence beyond the ends."""
        skipped = max(0, first // MEETING_FRAMES - 2)
        last = (first + count) // MEETING_FRAMES + 3
        part = sequence[:, skipped * MEETING_MEL:last * MEETING_MEL]
        return mel_windows(part, count, first - skipped * MEETING_FRAMES)


class TransformerFeatures:
    """Hidden states of a self-supervised speech encoder, exactly two vectors per video frame.

    Long recordings are encoded in chunks with context on both sides, so that memory does not grow with the length
    (self-attention over a whole recording would take memory with its square).

    Args:
        name: hub name, or folder, of a wav2vec2 or HuBERT model.
        layer: which hidden state; -1 is the last.
        chunk_seconds: length of what is kept of each chunk.
        context_seconds: what is encoded beside it on either side and dropped.

    Raises:
        DependencyError: if the folder is missing or incomplete, or the hub cannot be reached.
        InputError: for a layer that the encoder does not have.
    """

    window = 16
    rate = 2 * FPS

    def __init__(self, name: str, layer: int = -1, chunk_seconds: float = 10.0, context_seconds: float = 1.0):
        from transformers import AutoConfig, HubertModel, Wav2Vec2Model

        kinds = {"wav2vec2": Wav2Vec2Model, "hubert": HubertModel}
        try:
            config = AutoConfig.from_pretrained(name)
            if config.model_type not in kinds:
                raise DependencyError(f"found a model of type {config.model_type!r} at {name}; expected wav2vec2 or hubert")
            self.model = kinds[config.model_type].from_pretrained(name).eval().requires_grad_(False)
            self.normalise = wants_normalisation(name)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise DependencyError(f"cannot load the speech encoder {name} ({reason}); download it once and give its folder, "
                                  "or use mel") from None
        if not -config.num_hidden_layers - 1 <= layer <= config.num_hidden_layers:
            raise InputError(f"found layer {layer}; {name} has {config.num_hidden_layers}: expected -1 or 0 to that number")
        self.channels, self.layer = config.hidden_size, layer
        self.chunk, self.context = round(chunk_seconds * self.rate), round(context_seconds * self.rate)

    def along(self, sound: Tensor) -> Stretches:
        """[C, 2 * frames] of a recording [N] at 16 kHz, computed where it is read: the vector k is for the time (k + 0.5) / 50 s."""
        mean, scale = (sound.mean(), (sound.var(correction=0) + 1e-7).sqrt()) if self.normalise else (0.0, 1.0)
        return Stretches(partial(self._chunk, sound, mean, scale), 2 * frame_count(len(sound)), self.chunk)

    def sequence(self, sound: Tensor) -> Tensor:
        """The same as one tensor."""
        return self.along(sound)[:, :]

    @torch.inference_mode()
    def _chunk(self, sound: Tensor, mean, scale, first: int, last: int) -> Tensor:
        hop, low = SAMPLES_PER_FRAME // 2, max(0, first - self.context)
        high = min(2 * frame_count(len(sound)), last + self.context)
        heard = (sound[low * hop:high * hop] - mean) / scale
        heard = F.pad(heard, (0, (high - low) * hop - len(heard)))
        return self._encode(heard, high - low)[:, first - low:last - low]

    def _encode(self, sound: Tensor, count: int) -> Tensor:
        """[C, count] of one chunk; the convolutions see 400 samples at steps of 320, so that 40 are added on either side."""
        padded = F.pad(sound, (40, 40 + 320))[None]
        states = self.model(padded, output_hidden_states=True).hidden_states[self.layer][0]
        return states[:count].T

    def windows(self, sequence: Tensor | Stretches, first: int, count: int) -> Tensor:
        """[count, C, 16] around the frames from `first` on; zeros beyond the ends."""
        low, high = 2 * first - 7, 2 * (first + count) + 7
        part = sequence[:, max(0, low):high]
        part = F.pad(part, (max(0, -low), high - max(0, low) - part.shape[1]))
        return part.unfold(1, self.window, 2).transpose(0, 1)


def wants_normalisation(name: str) -> bool:
    """Whether a speech encoder wants recordings of mean 0 and variance 1; assumed where its folder does not say."""
    from transformers import Wav2Vec2FeatureExtractor

    if Path(name).is_dir() and not (Path(name) / "preprocessor_config.json").is_file():
        return True
    return bool(Wav2Vec2FeatureExtractor.from_pretrained(name).do_normalize)
