"""One person's recording as pairs of whole frames."""
from __future__ import annotations

from typing import Iterator, Optional

import torch

from s3dnerf.data.person import PersonDataModule, pixel_batch
from s3dnerf.types import PixelBatch


class PersonFrameModule(PersonDataModule):
    """Whole frames of one person's recording, two in a row each time, as pictures whose pixels are all given.

    Args:
        shards: see `PersonDataModule`.
        pairs: pairs of frames per batch: first of all pairs the first frame, then of all the second.
        steps_per_epoch: see `PersonDataModule`.
        val_frames: see `PersonDataModule`.
        size: see `PersonDataModule`.
        seed: see `PersonDataModule`.
    """

    def __init__(self, shards: Optional[str] = None, pairs: int = 1, steps_per_epoch: int = 250, val_frames: int = 12,
                 size: Optional[int] = None, seed: int = 0):
        super().__init__(shards, 2 * pairs, steps_per_epoch=steps_per_epoch, val_frames=val_frames, size=size, seed=seed)

    def batches(self, draw: torch.Generator) -> Iterator[PixelBatch]:
        """See `PersonDataModule`."""
        size = self.video.frames.shape[1]
        y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        pixels = torch.stack([x, y], -1).flatten(0, 1).expand(self.frames, -1, -1)
        while True:
            first = torch.randint(self.learned - 1, (self.frames // 2,), generator=draw)
            yield pixel_batch(self.video, torch.cat([first, first + 1]), pixels, self.lower, size)
