"""The invisible watermark: a tile of spread frequencies, added to the luma of every frame, found again after crops and resizing.

A tile of 128 x 128 pixels covers the picture like wallpaper. It is a sum of six patterns that share no frequency, so that none
disturbs another however they are shifted. The first is the same in every video and tells how the picture was cropped; each of
the other five is shifted against it by one of 1024 steps, which are 10 bits (spread spectrum with pulse-position modulation).
Only frequencies of the tile's lattice count when it is looked for: the picture is folded into one tile.
"""
from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Iterable, Optional

import numpy as np

from s3dnerf.planar import BLACK, SPAN, is_planar

PERIOD = 128
"""pixels from one tile to the next"""
BAND = (8, 25)
"""periods per tile: wavelengths from 16 to 5 pixels, which survive compression and are not blotches"""
SYMBOLS, STEP = 5, 4
"""patterns that carry 10 bits each, by shifts of this many pixels"""
SIDE = PERIOD // STEP
BITS = 10
SYNC_SHARE, SYMBOL_SHARE = 4, 2
"""shares of the frequencies: of the pattern that is looked for first, of each that carries bits"""
FORMAT = 1
"""of the payload, 4 bits"""
SEED = 20240711
STRENGTH = 1.6
"""standard deviation of the tile where the picture is smooth, grey levels of 255"""
BUSY_GAIN, MOST_GAIN = 0.1, 1.5
"""what a grey level of texture adds to the factor on the tile, where it hides better, and the largest factor"""
FLAT_GAIN = 0.75
"""factor on the tile where there is no texture at all"""
LOUDEST = 2.3
"""standard deviation over a whole frame, grey levels, at most: 40.9 dB"""
FACE_GAIN, BESIDE_GAIN = 0.35, 1.25
"""factors on the tile in the middle of a face, where grain is seen first, and around it, which makes up for that"""
FACE_AXES, FACE_MIDDLE = (0.37, 0.29), (0.54, 0.5)
"""half axes and middle of the ellipse of a face, downwards and to the right, in sides of the square around the head"""


@dataclass(frozen=True)
class Patterns:
    """The patterns' places in the spectrum of a tile, [128, 65]."""

    places: tuple[np.ndarray, ...]
    """flat indices of the frequencies of each pattern, the searched one first"""
    phases: np.ndarray
    """[128 * 65] complex, of modulus 1"""


@lru_cache(maxsize=1)
def patterns() -> Patterns:
    """The patterns of this project, from a generator whose numbers never change (MT19937)."""
    random = np.random.RandomState(SEED)
    rows, columns = frequencies()
    radius = np.hypot(rows, columns)
    band = (radius >= BAND[0]) & (radius <= BAND[1]) & (columns > 0) & (columns < PERIOD // 2)
    chosen = random.permutation(np.flatnonzero(band))
    unit = len(chosen) // (SYNC_SHARE + SYMBOL_SHARE * SYMBOLS)
    edges = np.cumsum([0, SYNC_SHARE * unit] + [SYMBOL_SHARE * unit] * SYMBOLS)
    places = tuple(chosen[begin:end] for begin, end in zip(edges, edges[1:]))
    return Patterns(places, np.exp(2j * np.pi * random.uniform(size=rows.size)))


def frequencies() -> tuple[np.ndarray, np.ndarray]:
    """Periods per tile [128, 65] downwards and to the right, of a real spectrum."""
    return tuple(np.meshgrid(np.fft.fftfreq(PERIOD, 1 / PERIOD), np.arange(PERIOD // 2 + 1), indexing="ij"))


def check_bits(tag: int) -> int:
    """14 bits over format and tag, of a CRC-32."""
    return zlib.crc32(bytes([FORMAT]) + tag.to_bytes(4, "big")) & 0x3FFF


def encode(tag: int) -> list[int]:
    """Five symbols of 10 bits that hold the format, a tag of 32 bits and what detects errors."""
    word = (FORMAT << 32 | tag) << 14 | check_bits(tag)
    return [word >> BITS * (SYMBOLS - 1 - index) & (1 << BITS) - 1 for index in range(SYMBOLS)]


def decode(symbols: Iterable[int]) -> Optional[int]:
    """The tag of five symbols; None where format or check bits do not hold."""
    word = 0
    for symbol in symbols:
        word = word << BITS | symbol
    tag = word >> 14 & 0xFFFFFFFF
    return tag if word >> 46 == FORMAT and word & 0x3FFF == check_bits(tag) else None


def tile(tag: int) -> np.ndarray:
    """[128, 128] float32 grey levels, zero on average, of deviation `STRENGTH`; to be repeated over a picture."""
    shape, (rows, columns) = patterns(), frequencies()
    spectrum = np.zeros(rows.size, complex)
    for places, symbol in zip(shape.places, [0, *encode(tag)]):
        down, right = STEP * (symbol // SIDE), STEP * (symbol % SIDE)
        turn = (rows.ravel()[places] * down + columns.ravel()[places] * right) / PERIOD
        spectrum[places] = shape.phases[places] * np.exp(-2j * np.pi * turn)
    picture = np.fft.irfft2(spectrum.reshape(rows.shape), s=(PERIOD, PERIOD))
    return (picture * (STRENGTH / picture.std())).astype(np.float32)


class Watermark:
    """Adds the same tile to every frame, stronger where texture hides it, and weaker on the face. No frame has a memory of
    another.

    Args:
        tag: 32 bits that can be read again.
        width: of the frames, pixels.
        height: of the frames, pixels.
        region: rows and columns of the square around the head; None where there is no face.
    """

    def __init__(self, tag: int, width: int, height: int, region: Optional[tuple[slice, slice]] = None):
        times = (-(-height // PERIOD), -(-width // PERIOD))
        self.picture = np.ascontiguousarray(np.tile(tile(tag), times)[:height, :width])
        if region is not None:
            self.picture *= beside_face(width, height, region)

    def frame(self, frame: np.ndarray) -> np.ndarray:
        """A frame [H, W, 3] uint8 RGB, or a planar one (`planar.py`), with the mark; the same change to the three channels leaves
        colour as it was."""
        import cv2

        if is_planar(frame):
            marked, height = frame.copy(), len(self.picture)
            luma = cv2.convertScaleAbs(cv2.subtract(frame[:height], BLACK), alpha=1 / SPAN)
            cv2.add(frame[:height], self._change(luma) * SPAN, dst=marked[:height], dtype=cv2.CV_8U)
            return marked
        change = self._change(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))
        up, down = (cv2.cvtColor(cv2.convertScaleAbs(part), cv2.COLOR_GRAY2RGB) for part in (cv2.max(change, 0), cv2.min(change, 0)))
        return cv2.subtract(cv2.add(np.ascontiguousarray(frame), up), down)

    def _change(self, luma: np.ndarray) -> np.ndarray:
        """[H, W] float32 grey levels to be added to a picture whose grey levels are given, [H, W] uint8."""
        import cv2

        change = cv2.multiply(self.picture, gain(luma))
        loud = float(cv2.norm(change)) / change.size ** 0.5
        return change * (LOUDEST / loud) if loud > LOUDEST else change


def beside_face(width: int, height: int, region: tuple[slice, slice]) -> np.ndarray:
    """[H, W] float32 factor on the tile: `FACE_GAIN` in the middle of the face, `BESIDE_GAIN` away from it."""
    ways = []
    for length, part, axis, middle in zip((height, width), region, FACE_AXES, FACE_MIDDLE):
        side = part.stop - part.start
        ways.append((np.arange(length) + 0.5 - part.start - middle * side) / (axis * side))
    near = np.exp(-(ways[0][:, None] ** 2 + ways[1] ** 2) ** 2)
    return (BESIDE_GAIN - (BESIDE_GAIN - FACE_GAIN) * near).astype(np.float32)


def gain(luma: np.ndarray) -> np.ndarray:
    """[H, W] float32 factor on the tile, from the texture of a grey picture [H, W] uint8 around each pixel."""
    import cv2

    small = cv2.resize(luma, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    texture = cv2.blur(cv2.absdiff(small, cv2.blur(small, (5, 5))), (9, 9)).astype(np.float32)
    factor = np.minimum(FLAT_GAIN + BUSY_GAIN * texture, MOST_GAIN)
    return cv2.resize(factor, luma.shape[::-1], interpolation=cv2.INTER_LINEAR)
