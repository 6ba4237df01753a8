"""Speech features: log-mel by default, or the hidden states of a wav2vec2 or HuBERT encoder."""
from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from s3dnerf.errors import DependencyError
from s3dnerf.media import FPS, MEL_BINS, MEL_CONTEXT, MEL_HOP, MEL_WINDOW, SAMPLE_RATE, log_mel, mel_windows

MEL_STRETCH = 1600
"""mel frames that are computed at once: 20 s"""


class MelFeatures:
    """Log-mel spectrogram, 80 vectors a second, half a second around each frame."""

    channels, window = MEL_BINS, MEL_CONTEXT

    def sequence(self, sound: Tensor) -> Tensor:
        """[80, M] of a recording [N] at 16 kHz; computed in stretches, so that memory is that of the result."""
        count, margin = len(sound) // MEL_HOP + 1, MEL_WINDOW // MEL_HOP
        parts = []
        for first in range(0, count, MEL_STRETCH):
            last, low = min(first + MEL_STRETCH, count), max(0, first - margin)
            mel = log_mel(sound[low * MEL_HOP:(last + margin) * MEL_HOP])
            parts.append(mel[:, first - low:last - low])
        return torch.cat(parts, 1)

    def windows(self, sequence: Tensor, first: int, count: int) -> Tensor:
        """[count, 80, 40] around the frames from `first` on."""
        return mel_windows(sequence, count, first)


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
        DependencyError: if the folder is missing or the hub cannot be reached.
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
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise DependencyError(f"cannot load the speech encoder {name} ({reason}); download it once and give its folder, "
                                  "or use mel") from None
        self.normalise = self._wants_normalisation(name)
        self.channels, self.layer = config.hidden_size, layer
        self.chunk, self.context = round(chunk_seconds * self.rate), round(context_seconds * self.rate)

    @staticmethod
    def _wants_normalisation(name: str) -> bool:
        """Whether the recording is brought to mean 0 and variance 1; so it is where the model does not say."""
        from transformers import Wav2Vec2FeatureExtractor

        if Path(name).is_dir() and not (Path(name) / "preprocessor_config.json").is_file():
            return True
        return bool(Wav2Vec2FeatureExtractor.from_pretrained(name).do_normalize)

    @torch.inference_mode()
    def sequence(self, sound: Tensor) -> Tensor:
        """[C, 2 * frames] of a recording [N] at 16 kHz: the vector k is for the time (k + 0.5) / 50 s."""
        hop = SAMPLE_RATE // self.rate
        count = max(2, 2 * round(len(sound) / (2 * hop)))
        if self.normalise:
            sound = (sound - sound.mean()) / (sound.std() + 1e-7)
        sound = F.pad(sound, (0, max(0, count * hop - len(sound))))
        parts = []
        for first in range(0, count, self.chunk):
            last = min(first + self.chunk, count)
            low, high = max(0, first - self.context), min(count, last + self.context)
            parts.append(self._encode(sound[low * hop:high * hop], high - low)[:, first - low:last - low])
        return torch.cat(parts, 1)

    def _encode(self, sound: Tensor, count: int) -> Tensor:
        """[C, count] of one chunk; the convolutions' receptive field of 400 samples is made up for by 40 on either side."""
        padded = F.pad(sound, (40, 40 + 320))[None]
        states = self.model(padded, output_hidden_states=True).hidden_states[self.layer][0]
        return states[:count].T

    def windows(self, sequence: Tensor, first: int, count: int) -> Tensor:
        """[count, C, 16] around the frames from `first` on; zeros beyond the ends."""
        padded = F.pad(sequence, (7, 7 + 2 * max(0, first + count - sequence.shape[1] // 2)))
        return torch.stack([padded[:, 2 * t:2 * t + self.window] for t in range(first, first + count)])
