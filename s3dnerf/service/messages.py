"""What a server and its workers tell each other; every record can be sent to another process or machine."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

import numpy as np


@dataclass(frozen=True)
class Speaker:
    """Who speaks: a photo, or a person who was learned."""

    photo: Optional[np.ndarray]
    """[H, W, 3] uint8; None for a learned person"""
    key: str
    """SHA-256 of the photo as it was sent, hexadecimal; or the folder of the learned person's weights"""


@dataclass(frozen=True)
class Options:
    """The options of `inference.TalkingHead.speak` that are no files."""

    frame: Optional[str] = None
    pose: str = "natural"
    mouth_gain: Optional[float] = None
    camera: tuple[float, ...] = (0.0, 0.0)
    eyes: str = "keep"
    background: str = "keep"
    smooth: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Declaration:
    """What a finished file says of itself."""

    consent: str
    """the statement that was given"""
    photo: str
    """SHA-256 of the photo, hexadecimal; empty for a learned person"""
    label: bool = False
    """whether it is visible, too"""


@dataclass(frozen=True)
class Render:
    """Make a video."""

    id: str
    speaker: Speaker
    sound: Optional[np.ndarray]
    """[N] float32 at 16 kHz; None takes that of the driving recording"""
    options: Options
    declaration: Declaration
    files: dict[str, bytes] = field(default_factory=dict)
    """pose.mp4 or pose.json, drive.mp4"""
    backdrop: Optional[np.ndarray] = None
    """[H, W, 3] uint8 behind the person"""


@dataclass(frozen=True)
class Cancel:
    """Give a video or a session up."""

    id: str


@dataclass(frozen=True)
class Look:
    """What is seen in a photo? Answered by `Seen`."""

    id: str
    speaker: Speaker


@dataclass(frozen=True)
class Preview:
    """One frame, please. Answered by `Seen`."""

    id: str
    speaker: Speaker
    options: Options
    open: bool
    """whether the mouth is at an open sound"""
    backdrop: Optional[np.ndarray] = None


@dataclass(frozen=True)
class Listen:
    """Begin a session whose speech is still to come."""

    id: str
    speaker: Speaker
    options: Options
    declaration: Declaration
    format: str
    """mp4 or jpeg"""


@dataclass(frozen=True)
class Heard:
    """More speech of a session."""

    id: str
    sound: bytes
    """signed 16 bits, little endian, mono, 16 kHz"""
    last: bool = False


@dataclass(frozen=True)
class Ready:
    """A worker has loaded its weights."""

    pid: int


@dataclass(frozen=True)
class Full:
    """A worker takes more memory than it may, and should be replaced."""

    size: int
    """bytes"""


@dataclass(frozen=True)
class Touching:
    """What a worker turns to next, so that it is known whom a crash concerns."""

    ids: tuple[str, ...]


@dataclass(frozen=True)
class Staged:
    """A video has come to another stage."""

    id: str
    stage: str
    frames: Optional[int] = None
    """how many it will have"""
    size: Optional[tuple[int, int]] = None
    """width and height"""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Advanced:
    """More of a video is there."""

    id: str
    done: int
    rate: float
    """frames per second since it began"""
    fragment: bytes
    """the next part of its fragmented MP4"""
    preview: Optional[bytes]
    """JPEG of the newest frame"""


@dataclass(frozen=True)
class Finished:
    """A video is complete."""

    id: str
    path: Optional[str]
    """of the file, which the receiver takes away; None where it is sent"""
    content: Optional[bytes]
    fragment: bytes
    """the rest of its fragmented MP4"""
    statistics: dict


@dataclass(frozen=True)
class Failed:
    """A video, session, look or preview has come to nothing."""

    id: str
    code: str
    message: str


@dataclass(frozen=True)
class Seen:
    """The answer to `Look` (a record for JSON) or `Preview` (a JPEG)."""

    id: str
    content: object


@dataclass(frozen=True)
class Spoken:
    """More of a session: bytes for the client as they are, and what is told beside them."""

    id: str
    parts: tuple[bytes, ...]
    told: Optional[dict] = None
