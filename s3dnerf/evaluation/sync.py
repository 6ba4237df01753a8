"""Do lips go with the sound? By SyncNet v2, exactly as its authors score, and by the project's judging expert."""
from __future__ import annotations

from typing import Optional

import numpy as np
import torch
from torch import Tensor

from s3dnerf import metrics
from s3dnerf.evaluation.footage import Footage
from s3dnerf.evaluation.networks import Networks
from s3dnerf.evaluation.picture import Chunk, tensor
from s3dnerf.evaluation.protocol import Protocol
from s3dnerf.evaluation.syncnet import WINDOW, crops, sound_windows
from s3dnerf.face import LANDMARKS_68
from s3dnerf.media import SAMPLES_PER_FRAME, log_mel, mel_windows

MEDIAN = 13
"""frames of the median filter that SyncNet's pipeline lays over a face's boxes"""


class SyncFigures:
    """Gathers what both say of one clip and of its recording, each with its own sound (the recording's, where the video has
    none)."""

    def __init__(self, made: Footage, true: Footage, networks: Networks, protocol: Protocol):
        sound = true.sound if made.sound is None else made.sound
        self.ears = {}
        for ending, footage, heard in (("", made, sound), ("_truth", true, true.sound)):
            if heard is not None and footage.seen.any():
                if networks.syncnet is not None:
                    self.ears[f"sync{ending}"] = SyncNetEar(footage, heard, networks, protocol)
                if networks.judge is not None:
                    self.ears[f"judge{ending}"] = JudgeEar(footage, heard, networks, protocol)

    def add(self, chunk: Chunk) -> None:
        """Looks at some more frames."""
        for name, ear in self.ears.items():
            ear.add(chunk.true if name.endswith("_truth") else chunk.made, chunk.first)

    def figures(self) -> dict[str, Optional[float]]:
        """Confidence, distance and offset of each."""
        found = {}
        for name, ear in self.ears.items():
            who, _, ending = name.partition("_")
            distances = ear.distances()
            if distances is not None:
                values = metrics.sync_scores(distances)
                found |= {f"{who}_{what}{'_' if ending else ''}{ending}": float(value)
                          for what, value in zip(("c", "d", "offset"), values)}
        return found


class SyncNetEar:
    """SyncNet's evaluation of one clip; the face's box is that of the 68 landmarks, where its pipeline has S3FD's."""

    def __init__(self, footage: Footage, sound: np.ndarray, networks: Networks, protocol: Protocol):
        from scipy.signal import medfilt

        self.network, self.device, self.protocol = networks.syncnet, networks.device, protocol
        points = footage.places[:, list(LANDMARKS_68)]
        low, high = points.min(1), points.max(1)
        smooth = lambda x: medfilt(np.pad(x, MEDIAN // 2, mode="edge"), MEDIAN)[MEDIAN // 2:-(MEDIAN // 2)]
        self.middles = np.stack([smooth(x) for x in ((low + high) / 2).T], 1)
        self.halves, self.sound = smooth((high - low).max(1) / 2), sound
        self.count = min(len(footage), len(sound) // SAMPLES_PER_FRAME) - WINDOW
        self.tail, self.lips = np.zeros((0,)), []

    @torch.inference_mode()
    def add(self, frames: np.ndarray, first: int) -> None:
        """Embeds the windows that end with these frames."""
        part = slice(first, first + len(frames))
        found = crops(frames, self.middles[part], self.halves[part], self.protocol.sync_scale)
        found = np.concatenate([self.tail, found]) if len(self.tail) else found
        pictures = torch.from_numpy(np.ascontiguousarray(found.transpose(3, 0, 1, 2))).float()
        windows = [pictures[:, i:i + WINDOW] for i in range(len(found) - WINDOW + 1)]
        if windows:
            self.lips.append(self.network.lips(torch.stack(windows).to(self.device)).cpu())
        self.tail = found[-(WINDOW - 1):]

    @torch.inference_mode()
    def distances(self) -> Optional[Tensor]:
        """By shift; None for fewer than six frames."""
        if self.count < 1:
            return None
        windows = sound_windows(self.sound, self.count)
        heard = torch.cat([self.network.sound(part.to(self.device)).cpu() for part in windows.split(64)])
        return metrics.shift_distances(torch.cat(self.lips)[:self.count], heard, self.protocol.sync_shift)


class JudgeEar:
    """The same by the judging expert, whose embeddings are of unit length: zeros beyond the sound's ends would be nearer than
    any wrong sound, so pairs that are there count alone, at shifts that at least half of the windows have."""

    def __init__(self, footage: Footage, sound: np.ndarray, networks: Networks, protocol: Protocol):
        self.judge, self.device, self.protocol = networks.judge, networks.device, protocol
        self.places = torch.from_numpy(footage.places).float()
        needed = (len(footage) + 1) * SAMPLES_PER_FRAME
        self.mel = mel_windows(log_mel(np.pad(sound, (0, max(0, needed - len(sound))))), len(footage))
        self.frames, self.first, shifts = [], 0, 2 * protocol.sync_shift + 1
        self.sums, self.pairs = torch.zeros(shifts, dtype=torch.float64), torch.zeros(shifts)

    def add(self, frames: np.ndarray, first: int) -> None:
        """Keeps frames until there is a piece of them."""
        for frame in frames:
            self.frames.append(frame)
            if len(self.frames) == self.protocol.judge_piece:
                self._listen()

    @torch.inference_mode()
    def _listen(self) -> None:
        part = slice(self.first, self.first + len(self.frames))
        self.first = part.stop
        if len(self.frames) >= self.judge.frames + 2:
            images, places, mel = tensor(np.stack(self.frames)), self.places[part], self.mel[part]
            cosine = self.judge.match(*(x[None].to(self.device) for x in (images, places, mel)))[0].cpu().double()
            distance = (2 - 2 * cosine).clamp_min(0).sqrt()
            most = self.protocol.sync_shift
            for shift in range(-most, most + 1):
                row = distance.diagonal(shift) if abs(shift) < len(distance) else distance.new_zeros(0)
                self.sums[shift + most] += row.sum()
                self.pairs[shift + most] += len(row)
        self.frames = []

    def distances(self) -> Optional[Tensor]:
        """By shift; None where there are too few windows."""
        self._listen()
        most = self.protocol.sync_shift
        reach = sum(bool(self.pairs[most + k] >= max(1.0, self.pairs[most] / 2)) for k in range(1, most + 1))
        if not self.pairs[most] or not reach:
            return None
        kept = slice(most - reach, most + reach + 1)
        return self.sums[kept] / self.pairs[kept]
