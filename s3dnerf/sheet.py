"""A contact sheet: the photo, where there is one, and a few frames of the video on one page."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Optional, Union

import numpy as np

from s3dnerf.media import FPS

CELL = 240
"""pixels: the long side of a frame on the sheet"""
MARGIN, CAPTION = 6, 14


class ContactSheet:
    """Collects evenly spaced frames as they go by, and keeps only small copies of them.

    Args:
        photo: [H, W, 3] uint8, shown first; None where there is none.
        frames: how many frames the video has.
        region: rows and columns of the frames that are shown; None shows them whole.
        count: how many of them are shown, in two rows.
    """

    def __init__(self, photo: Optional[np.ndarray], frames: int, region: Optional[tuple[slice, slice]] = None, count: int = 12):
        self.region = region or (slice(None), slice(None))
        self.wanted = sorted(set(np.linspace(0, frames - 1, count).round().astype(int).tolist()))
        self.photo, self.cells = None if photo is None else _small(photo, 2 * CELL), {}

    def add(self, index: int, frame: np.ndarray) -> None:
        """Notes frame [H, W, 3] uint8 number `index`, if it is wanted."""
        if index in self.wanted:
            self.cells[index] = _small(frame[self.region], CELL)

    def image(self):
        """The sheet as a Pillow image, times in seconds beneath the frames."""
        from PIL import Image, ImageDraw

        cells = sorted(self.cells.items())
        columns = max(1, -(-len(cells) // 2))
        width, height = cells[0][1].size
        row = height + CAPTION + MARGIN
        beside = (self.photo.width + MARGIN, self.photo.height + CAPTION + MARGIN) if self.photo else (0, 0)
        left, tall = beside[0] + MARGIN, max(2 * row, beside[1]) + MARGIN
        page = Image.new("RGB", (left + columns * (width + MARGIN), tall), "white")
        pen = ImageDraw.Draw(page)
        if self.photo:
            page.paste(self.photo, (MARGIN, MARGIN))
            pen.text((MARGIN, MARGIN + self.photo.height), "photo", fill="black")
        for place, (index, cell) in enumerate(cells):
            x, y = left + place % columns * (width + MARGIN), MARGIN + place // columns * row
            page.paste(cell, (x, y))
            pen.text((x, y + height), f"{index / FPS:.2f} s", fill="black")
        return page

    def write(self, path: Union[str, Path]) -> None:
        """Writes a PNG, whole or not at all."""
        _write(self.image(), path)


def compare(columns: list[np.ndarray], path: Union[str, Path]) -> None:
    """Writes pictures [H, W, 3] uint8 of one size side by side as a PNG, whole or not at all."""
    from PIL import Image

    _write(Image.fromarray(np.concatenate(columns, 1)), path)


def _write(picture, path: Union[str, Path]) -> None:
    """Writes a Pillow image as a PNG beside `path`, then renames it."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        picture.save(part, format="PNG")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _small(image: np.ndarray, side: int):
    """A Pillow image whose long side is `side`."""
    from PIL import Image

    factor = side / max(image.shape[:2])
    height, width = (max(1, round(length * factor)) for length in image.shape[:2])
    return Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
