"""One person's recording as windows of frames."""
from __future__ import annotations

from typing import Iterator, Optional

import torch
from torch import Tensor

from s3dnerf.data.person import REGIONS, PersonDataModule, pixel_batch
from s3dnerf.errors import DatasetError
from s3dnerf.types import PixelBatch


class PersonWindowModule(PersonDataModule):
    """Windows of frames of one person's recording, with all their pixels: around the mouth, anywhere, or whole frames.

    Args:
        shards: see `PersonDataModule`.
        window: side of a window, pixels; a multiple of 4.
        window_frames: frames of a batch, all of which have the same window.
        whole_frames: frames of a batch of whole ones.
        shares: shares of batches that are whole frames, and that are around the mouth; the rest lies anywhere.
        steps_per_epoch: see `PersonDataModule`.
        val_frames: see `PersonDataModule`.
        size: see `PersonDataModule`.
        seed: see `PersonDataModule`.

    Raises:
        DatasetError: for a window that is no multiple of 4.
    """

    def __init__(self, shards: Optional[str] = None, window: int = 96, window_frames: int = 4, whole_frames: int = 2,
                 shares: tuple[float, float] = (0.5, 0.3), steps_per_epoch: int = 250, val_frames: int = 12,
                 size: Optional[int] = None, seed: int = 0):
        super().__init__(shards, steps_per_epoch=steps_per_epoch, val_frames=val_frames, size=size, seed=seed)
        if window % 4:
            raise DatasetError(f"found window={window}; expected a multiple of 4")
        self.window, self.window_frames, self.whole_frames, self.kinds = window, window_frames, whole_frames, shares

    def batches(self, draw: torch.Generator) -> Iterator[PixelBatch]:
        """See `PersonDataModule`."""
        size = self.video.frames.shape[1]
        while True:
            kind = float(torch.rand((), generator=draw))
            whole = kind < self.kinds[0] or self.window >= size
            frame = torch.randint(self.learned, (self.whole_frames if whole else self.window_frames,), generator=draw)
            side = size if whole else self.window
            corner = torch.rand(2, generator=draw) * (size - side)
            if not whole and kind < sum(self.kinds):
                box = self.boxes[frame, REGIONS.index("mouth")].mean(0)
                corner = (box[:2] + box[2:] - side) / 2 + 0.2 * side * (torch.rand(2, generator=draw) - 0.5)
            yield pixel_batch(self.video, frame, square(corner, side, size).expand(len(frame), -1, -1), self.lower, side)


def square(corner: Tensor, side: int, size: int) -> Tensor:
    """Pixels [side * side, 2] (whole numbers, x and y), row by row, of a square of a frame of `size` pixels."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return corner.round().long().clamp(0, size - side) + torch.stack([x, y], -1).flatten(0, 1)
