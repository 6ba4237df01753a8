"""A session: speech that comes in as it is spoken, and frames that leave a bounded time later."""
from __future__ import annotations

import io
import struct
import time
from typing import Iterator

import numpy as np
import torch
from torch import Tensor

from s3dnerf.driving import SpeechDrive
from s3dnerf.errors import InputError
from s3dnerf.inference import PhotoScene, TalkingVideo
from s3dnerf.media import (FPS, MEL_CONTEXT, MEL_HOP, MEL_WINDOW, SAMPLE_RATE, SAMPLES_PER_FRAME, frame_count)
from s3dnerf.networks.speech_features import MEETING_FRAMES, MelFeatures
from s3dnerf.service.finishing import marking_of
from s3dnerf.service.fragments import FragmentWriter
from s3dnerf.service.messages import Heard, Listen, Spoken

LOOK_AHEAD = SAMPLES_PER_FRAME // 2 + MEL_CONTEXT // 2 * MEL_HOP + MEL_WINDOW // 2
"""samples, from a frame's beginning on, that its features are made of: half a frame, half of the encoder's window and of the
spectrogram's"""
MARGIN = 2
"""so many times 5 frames before a window that its spectrogram begins at"""
TOGETHER = 2
"""frames that may be due at once; where there are more, all but the newest are left out"""
TELL = 1.0
"""seconds between two reports"""


class LiveDrive(SpeechDrive):
    """Lips that follow speech which is not all there yet; what is rendered equals what a recording of it would give.

    Args:
        drive: of a silent video of the longest length that there may be.
    """

    def __init__(self, drive: SpeechDrive, samples: int):
        self.__dict__.update(drive.__dict__)
        self.sound, self.heard, self.begun, self.ended = np.zeros(samples, np.float32), 0, 0, False
        if not isinstance(self.model.features, MelFeatures):
            raise InputError("these weights listen through a speech encoder that wants the whole recording; sessions need mel")

    @property
    def ready(self) -> int:
        """How many frames, from the first on, have all the speech that they are made of."""
        if self.ended:
            return frame_count(self.heard) if self.heard else 0
        return max(0, (self.heard - LOOK_AHEAD) // SAMPLES_PER_FRAME + 1)

    def hear(self, sound: np.ndarray) -> None:
        """Takes more speech [N] float32."""
        self.sound[self.heard:self.heard + len(sound)] = sound
        self.heard += len(sound)

    def windows(self, first: int, count: int) -> Tensor:
        """See `SpeechDrive`."""
        start = max(0, first // MEETING_FRAMES - MARGIN) * MEETING_FRAMES
        stop = min(self.heard, (first + count) * SAMPLES_PER_FRAME + LOOK_AHEAD)
        sequence = self.model.features.sequence(torch.from_numpy(self.sound[start * SAMPLES_PER_FRAME:stop]))
        return self.model.features.windows(sequence, first - start, count)


class Session:
    """One client who speaks.

    Args:
        command: what is wanted.
        video: a silent one of the longest length; its scene is what is shown.
    """

    def __init__(self, command: Listen, video: TalkingVideo):
        self.id, self.scene, self.samples = command.id, video.scene, len(video.sound)
        if not isinstance(self.scene, PhotoScene):
            raise InputError("found a learned person; sessions are made of photos alone")
        self.scene.drive = self.drive = LiveDrive(self.scene.drive, self.samples)
        self.marking = marking_of(video, command.declaration)
        self.writer = FragmentWriter(video.width, video.height, self.marking, hurry=True) if command.format == "mp4" else None
        self.next, self.shown, self.sounded, self.told, self.over = 0, 0, 0, 0.0, False
        self.arrivals: list[tuple[int, float]] = []

    @property
    def due(self) -> bool:
        """Whether there is something to render."""
        return not self.over and (self.drive.ready > self.next or self.drive.ended)

    def ready(self) -> Iterator[Spoken]:
        """What the client is told first."""
        shown = self.writer or self.scene  # a film of odd size loses a row or column
        told = {"type": "ready", "width": shown.width, "height": shown.height, "fps": FPS, "sample_rate": SAMPLE_RATE,
                "look_ahead": LOOK_AHEAD / SAMPLE_RATE, "mime": self.writer.mime if self.writer else "image/jpeg"}
        yield Spoken(self.id, (), told)
        if self.writer:
            yield Spoken(self.id, (self.writer.take(),))

    def hear(self, command: Heard) -> None:
        """Takes speech; what is beyond the longest length is left out, and ends the session."""
        sound = np.frombuffer(command.sound[:len(command.sound) // 2 * 2], "<i2").astype(np.float32) / 32768
        room = self.samples - self.drive.heard
        self.drive.hear(sound[:room])
        self.arrivals.append((self.drive.heard, time.monotonic()))
        self.drive.ended = self.drive.ended or command.last or len(sound) >= room

    def step(self) -> Iterator[Spoken]:
        """Renders what is due."""
        ready = self.drive.ready
        if ready > self.next:
            first = self.next if ready - self.next <= TOGETHER else ready - 1
            frames = [self.marking.frame(frame) for frame in self.scene.frames(first, ready - first)]
            self.shown, self.next = self.shown + len(frames), ready
            parts = self._mp4(frames, first) if self.writer else self._pictures(frames, first)
            yield Spoken(self.id, parts, self._report(ready - 1))
        if self.drive.ended and self.next >= self.drive.ready:
            self.over = True
            rest = (self.writer.close(),) if self.writer else ()
            told = {"type": "end", "frames": self.shown, "dropped": self.next - self.shown}
            yield Spoken(self.id, rest, told)

    def _sound(self, until: int) -> np.ndarray:
        """Samples that were not sent yet, up to one of them."""
        part = self.drive.sound[self.sounded:min(until, self.drive.heard)]
        self.sounded += len(part)
        return part

    def _mp4(self, frames: list[np.ndarray], first: int) -> tuple[bytes, ...]:
        for number, frame in enumerate(frames, first):
            self.writer.frame(frame, number)
            # the sound is ahead, so that the container never waits for it
            self.writer.sound(self._sound(number * SAMPLES_PER_FRAME + LOOK_AHEAD))
        return (self.writer.take(),)

    def _pictures(self, frames: list[np.ndarray], first: int) -> tuple[bytes, ...]:
        from PIL import Image

        parts, begin = [], self.sounded
        sound = self._sound((first + len(frames)) * SAMPLES_PER_FRAME)
        if len(sound):
            parts.append(b"A" + struct.pack("<I", begin) + (sound * 32768).round().clip(-32768, 32767).astype("<i2").tobytes())
        for number, frame in enumerate(frames, first):
            file = io.BytesIO()
            Image.fromarray(frame).save(file, "JPEG", quality=85)
            parts.append(b"F" + struct.pack("<I", number) + file.getvalue())
        return tuple(parts)

    def _report(self, frame: int):
        """What is told of the delay, once a second: from when the frame's own sound began to come in."""
        now = time.monotonic()
        while len(self.arrivals) > 1 and self.arrivals[0][0] <= frame * SAMPLES_PER_FRAME:
            self.arrivals.pop(0)
        if now - self.told < TELL:
            return None
        self.told = now
        return {"type": "delay", "frame": frame, "seconds": round(now - self.arrivals[0][1], 3),
                "dropped": self.next - self.shown}
