"""How long after it is spoken a sound is seen: the delay of a session, on this machine, as a client meets it.

    python scripts/stream_delay.py

Starts the service (or takes the one at --url), speaks the demo's sentence to it in pieces of 40 ms as fast as they would be spoken,
and prints, for JPEG frames and for fragmented MP4, how long after a frame's own sound began the frame had come in: the first one,
and, from the second second on, the median, the 95th percentile and the longest; and how many of the 25 frames a second came.
"""
from __future__ import annotations

import argparse
import asyncio
import json
import struct
import sys
import tempfile
import time
import wave
from importlib.resources import files
from pathlib import Path

import httpx
import numpy as np
import websockets
from service_load import started

from s3dnerf.media import SAMPLES_PER_FRAME
from s3dnerf.service.fragments import PRIMING
from s3dnerf.service.live import TOGETHER

ASSETS = files("s3dnerf") / "assets"
PIECE = 1280
"""bytes of sound in a message: 40 ms"""
TICKS = 512
"""units of the container's clock in a frame"""
LATE = PRIMING / SAMPLES_PER_FRAME
"""frames that all is later for the sound's encoder"""


def boxes(content: bytes):
    """Kind, beginning and end of the boxes of an MP4, as far as they are complete."""
    place = 0
    while place + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[place:place + 8])
        if place + size > len(content):
            return
        yield kind, place + 8, place + size
        place += size


def frame_of(moof: bytes) -> list[int]:
    """The number of the video frame of a fragment, if it has one."""
    for kind, low, high in boxes(moof):
        if kind == b"traf":
            parts = {name: moof[low:high][a:b] for name, a, b in boxes(moof[low:high])}
            if struct.unpack(">I", parts[b"tfhd"][4:8])[0] == 1:
                return [max(0, round(int.from_bytes(parts[b"tfdt"][4:], "big") / TICKS - LATE))]
    return []


class Listener:
    """Notes when which frame came."""

    def __init__(self, format: str):
        self.format, self.came, self.rest, self.moof = format, {}, b"", b""

    def take(self, message: bytes, now: float) -> None:
        """A message of the service."""
        if self.format == "jpeg":
            if message[:1] == b"F":
                self.came[struct.unpack("<I", message[1:5])[0]] = now
            return
        self.rest, end, numbers = self.rest + message, 0, []
        for kind, low, high in boxes(self.rest):
            if kind == b"mdat":
                numbers += frame_of(self.moof)
            self.moof, end = (self.rest[low:high] if kind == b"moof" else b""), high
        self.rest = self.rest[end:]
        # of more than are shown together, all but the last are the one before them again
        self.came.update((number, now) for number in (numbers if len(numbers) <= TOGETHER else numbers[-1:]))


async def session(url: str, face: str, format: str, frame: str) -> tuple[float, dict[int, float], float, dict]:
    """Seconds until the service was ready, when each frame came, when speaking began, and what was told last."""
    with wave.open(str(ASSETS / "demo_speech.wav")) as recording:
        sound = recording.readframes(recording.getnframes())
    asked, listener, told = time.monotonic(), Listener(format), {}
    async with websockets.connect(url.replace("http", "ws") + "/v1/stream", max_size=None) as link:
        await link.send(json.dumps({"face": face, "consent": "I am the person shown.", "format": format, "frame": frame}))
        first = json.loads(await link.recv())
        if first["type"] != "ready":
            raise SystemExit(first["error"]["message"])
        begin = time.monotonic()

        async def speak():
            for place in range(0, len(sound), PIECE):
                await asyncio.sleep(max(0.0, begin + (place + PIECE) / 32000 - time.monotonic()))
                await link.send(sound[place:place + PIECE])
            await link.send('{"type": "end"}')

        speaking = asyncio.create_task(speak())
        async for message in link:
            if isinstance(message, bytes):
                listener.take(message, time.monotonic())
            else:
                told = json.loads(message)
        await speaking
    return begin - asked, listener.came, begin, told


def report(format: str, opening: float, came: dict[int, float], begin: float, told: dict) -> None:
    """Prints a line."""
    delays = {number: now - begin - number / 25 for number, now in came.items()}
    steady = np.array([delay for number, delay in delays.items() if number >= 25])
    print(f"{format}: ready after {opening:.2f} s; first frame {delays[min(delays)]:.2f} s after its sound began; then median "
          f"{np.median(steady):.2f}, 95 % {np.quantile(steady, 0.95):.2f}, longest {steady.max():.2f} s; "
          f"{told['frames']} of {told['frames'] + told['dropped']} frames "
          f"({25 * told['frames'] / (told['frames'] + told['dropped']):.1f} per second)")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="of a service that runs; by default one is started")
    parser.add_argument("--weights", default="one-shot-256")
    parser.add_argument("--frame", default="face", choices=("face", "full"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        process, url = (None, options.url) if options.url else started(options.weights, Path(folder) / "service")
        try:
            photo = (ASSETS / "demo_photo.jpg").read_bytes()
            face = httpx.post(url + "/v1/faces", files={"photo": ("x", photo)}, data={"keep": "true"}, timeout=120).json()["id"]
            for format in ("jpeg", "mp4"):
                report(format, *asyncio.run(session(url, face, format, options.frame)))
        finally:
            if process is not None:
                process.terminate()
                process.wait(30)


if __name__ == "__main__":
    sys.exit(main())
