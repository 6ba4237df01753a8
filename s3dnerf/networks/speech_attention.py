"""From windows of speech features to one code per frame, smoothed by attention over neighbouring frames (AD-NeRF; RAD-NeRF)."""
from __future__ import annotations

import copy
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEIGHBOURS = 8
"""frames that a frame's code is made of: four before it, itself and three after it"""

KNOWN = 2000
"""frames, spread over what is learned from, that a window is compared with at most: all of 80 s"""
BLOCKS, APART = 6, 10
"""parts of a recording that are left out in turn; frames beside them that are left out too, because windows overlap"""


class SpeechAttention(nn.Module):
    """A convolution net makes a code of every frame's window; a second one says how much each neighbour counts.

    With 29 channels (the logits of the paper's recogniser), windows of 16 steps and a code of 64 these are the paper's
    nets, of 32 800 and 3 685 parameters.

    Where features come from a net that has heard many people, a minute of one person is too short to teach convolutions: they
    learn it by heart. `linear` puts in their place one linear map of the window, found in closed form (`fit`); only the
    attention is trained then.

    Args:
        channels: speech features per time step.
        code_size: numbers of a frame's code.
        width: channels of the last convolutions.
        dropout: probability with which the first net's inner channels are dropped while training.
        normalise: bring every time step's features to mean 0 and variance 1 first.
        linear: time steps of the window that a linear map takes; None is the convolution net.
        parts: channels of the kinds of features that a window is made of, one after another. Where they are given, what is found
            in closed form is no linear map but kernel regression: a window is compared with up to `KNOWN` others, by
            exponentials of their distance, in which all kinds weigh the same.
    """

    def __init__(self, channels: int, code_size: int = 64, width: int = 64, dropout: float = 0.0, normalise: bool = False,
                 linear: Optional[int] = None, parts: Optional[tuple[int, ...]] = None):
        super().__init__()
        self.channels, self.normalise, self.linear, self.parts = channels, normalise, linear, parts
        self._build_attention(code_size)
        if linear:
            self.register_buffer("mean", torch.zeros(channels * linear))
            self.register_buffer("readout", torch.zeros(code_size, KNOWN if parts else channels * linear))
            self.register_buffer("rest", torch.zeros(code_size))
            if parts:
                self.register_buffer("scale", torch.ones(channels * linear))
                self.register_buffer("known", torch.zeros(KNOWN, channels * linear))
            return
        sizes = (channels, width // 2, width // 2, width, width)
        self.convolutions = nn.ModuleList(nn.Conv1d(a, b, 3, 2, 1) for a, b in zip(sizes, sizes[1:]))
        self.code = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, width), nn.LeakyReLU(0.02), nn.Dropout(dropout),
                                  nn.Linear(width, code_size))

    def _build_attention(self, code_size: int) -> None:
        sizes = (code_size, 16, 8, 4, 2, 1)
        self.attention = nn.ModuleList(nn.Conv1d(a, b, 3, 1, 1) for a, b in zip(sizes, sizes[1:]))
        self.weights = nn.Linear(NEIGHBOURS, NEIGHBOURS)
        with torch.no_grad():  # begins with the frame itself, not with the mean of a third of a second
            self.weights.bias[NEIGHBOURS // 2] += 3

    @torch.no_grad()
    def fit(self, windows: Tensor, codes: Tensor, strength: float = 1000.0) -> None:
        """Finds the linear map of windows [T, C, W] to codes [T, K] by ridge regression on features of unit variance; with `parts`
        see `fit_kernel`."""
        if self.parts:
            return self.fit_kernel(windows, codes)
        flat = windows.flatten(1).double()
        spread = flat.std(0).clamp_min(1e-6)
        flat = (flat - flat.mean(0)) / spread
        goal = codes.double() - codes.double().mean(0)
        squares = flat.T @ flat + strength * torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device)
        self.readout.copy_((torch.linalg.solve(squares, flat.T @ goal) / spread[:, None]).T)
        self.mean.copy_(windows.flatten(1).mean(0))
        self.rest.copy_(codes.mean(0))

    @torch.no_grad()
    def fit_kernel(self, windows: Tensor, codes: Tensor, strength: float = 0.2) -> None:
        """Finds the kernel regression of codes [T, K] on windows [T, C, W]; of more than `KNOWN`, so many are centres (Nystroem)."""
        flat, mean = windows.flatten(1).double(), codes.double().mean(0)
        sizes = torch.tensor([part * self.linear for part in self.parts], device=flat.device)
        self.mean.copy_(flat.mean(0))
        self.scale.copy_(flat.std(0).clamp_min(1e-6) * sizes.sqrt().repeat_interleave(sizes))
        count = min(len(flat), KNOWN)
        some = torch.linspace(0, len(flat) - 1, count, device=flat.device).long()
        self.known.zero_()[:count] = ((flat - self.mean) / self.scale)[some]
        ours = self._likeness(flat.float())[:, :count].double()
        squares = ours.T @ ours + strength * ours[some] + 1e-5 * torch.eye(count, dtype=ours.dtype, device=ours.device)
        self.readout.zero_()[:, :count] = torch.linalg.solve(squares, ours.T @ (codes.double() - mean)).T
        self.rest.copy_(mean)

    @torch.no_grad()
    def left_out(self, windows: Tensor, codes: Tensor) -> Tensor:
        """Codes [T, K] that the windows [T, C, W] would be read as, had the sixth of the recording around them not been among
        what is known; what is known tells itself better than anything else, and nothing can be learned from that."""
        reader, found = copy.deepcopy(self), torch.zeros_like(codes)
        number = torch.arange(len(codes), device=codes.device)
        for block in number.chunk(BLOCKS):
            known = (number < block[0] - APART) | (number > block[-1] + APART)
            reader.fit(windows[known], codes[known])
            found[block] = reader.frame_codes(windows[block])
        return found

    def _likeness(self, flat: Tensor) -> Tensor:
        """[N, KNOWN] in (0, 1]: how much windows [N, D] resemble the known ones, by the root of the mean of what kinds of
        features say of the squared distance."""
        return torch.exp(-torch.cdist((flat - self.mean) / self.scale, self.known) / len(self.parts) ** 0.5)

    def forward(self, windows: Tensor) -> Tensor:
        """Codes [N, K] of the windows [N, 8, C, W] of a frame and its neighbours, in time order (see `neighbours`)."""
        codes = self.frame_codes(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])
        return self.attend(codes)

    def frame_codes(self, windows: Tensor) -> Tensor:
        """Codes [N, K] of single windows [N, C, W]."""
        if self.parts:
            return F.linear(self._likeness(windows.flatten(1)), self.readout, self.rest)
        if self.linear:
            return F.linear(windows.flatten(1) - self.mean, self.readout, self.rest)
        x = F.layer_norm(windows.transpose(1, 2), (self.channels,)).transpose(1, 2) if self.normalise else windows
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), 0.02)
        return self.code(x.mean(-1))

    def attend(self, codes: Tensor) -> Tensor:
        """Codes [N, K], each a mean of a frame's and its neighbours' codes [N, 8, K] under weights that sum to one."""
        x = codes.transpose(1, 2)
        for convolution in self.attention:
            x = F.leaky_relu(convolution(x), 0.02)
        return (torch.softmax(self.weights(x[:, 0]), -1)[..., None] * codes).sum(1)


def neighbours(sequence: Tensor, frames: Tensor) -> Tensor:
    """The entries [N, 8, *] of a sequence [T, *] around `frames` [N]: from four before to three after, zero beyond its ends."""
    places = frames[:, None] + torch.arange(NEIGHBOURS, device=frames.device) - NEIGHBOURS // 2
    inside = (places >= 0) & (places < len(sequence))
    found = sequence[places.clamp(0, len(sequence) - 1)]
    return found * inside.view(*inside.shape, *[1] * (sequence.ndim - 1))


def smooth(sequence: Tensor, width: int) -> Tensor:
    """A sequence [T, *] averaged over `width` frames (odd), ends repeated."""
    flat = sequence.reshape(len(sequence), -1).T[None]
    padded = F.pad(flat, (width // 2, width // 2), mode="replicate")
    return F.avg_pool1d(padded, width, 1)[0].T.reshape(sequence.shape)
