"""From speech features around a frame to tokens, and to the lip code that they imply."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOKENS = 8


class SpeechEncoder(nn.Module):
    """A one-dimensional, fully convolutional net over a window of speech features; its time steps become tokens.

    Args:
        channels: speech features per time step (80 for mel).
        width: channels inside.
        token_channels: size of a token.
        code_size: numbers of the lip code that are predicted.
        dropout: probability with which inner channels are dropped while training.
    """

    def __init__(self, channels: int = 80, width: int = 128, token_channels: int = 48, code_size: int = 12,
                 dropout: float = 0.2):
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv1d(channels, width, 5, padding=2), nn.Conv1d(width, width, 3, padding=1),
                                           nn.Conv1d(width, width, 3, 2, 1), nn.Conv1d(width, width, 3, padding=1),
                                           nn.Conv1d(width, width, 3, 2, 1)])
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _ in self.convolutions)
        self.drop = nn.Dropout1d(dropout)
        self.tokens = nn.Linear(width, token_channels)
        self.position = nn.Parameter(torch.randn(TOKENS, token_channels) * 0.1)
        self.code = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(TOKENS * token_channels, width), nn.SiLU(),
                                  nn.Linear(width, code_size))

    def forward(self, speech: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [N, 8, D] in time order and lip codes [N, K] of windows [N, C, W] centred on a video frame."""
        x = speech / 4
        for convolution, norm in zip(self.convolutions, self.norms):
            y = self.drop(F.silu(norm(convolution(x))))
            x = x + y if y.shape == x.shape else y
        x = F.adaptive_avg_pool1d(x, TOKENS)
        tokens = self.tokens(x.transpose(1, 2)) + self.position
        return tokens, self.code(tokens)
