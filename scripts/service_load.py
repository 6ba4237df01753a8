"""Fifty clients at once against a service of this machine: what they were answered, how long it took, how much memory it took.

    python scripts/service_load.py --clients 50 --seconds 120
    python scripts/service_load.py --clients 8 --seconds 700 --photos DIR --worker-memory 1200

The service is started by the script, with a small model of random weights where none is named, so that what is loaded is the
service and not the model. Each client makes videos one after another, of photos of other sizes each time (the demo's, or those of
a folder) and with other options, follows them by events or by asking, fetches some of them, cancels some and deletes some, looks at
previews; told that the service is busy, it comes back when it was told to. The exit status is 1 where anything but a refusal for
want of room went wrong, or a video that was accepted did not end. What server and workers take is printed over the videos made.
"""
from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import io
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from importlib.resources import files
from pathlib import Path

import httpx
import numpy as np
import psutil
from PIL import Image

ENDED = ("done", "failed", "cancelled")


def small_model(folder: Path) -> str:
    """A bundle of random weights for frames of 64 pixels."""
    import torch

    from s3dnerf.models.hub import save_model
    from s3dnerf.models.one_shot import S3DNeRF

    torch.manual_seed(0)
    save_model(S3DNeRF(image_size=64, encoder_channels=(8, 8, 8, 8), plane_channels=4, width=16, modulation_channels=6,
                       lattice=(8, 8, 4), token_channels=8, coarse_samples=4, fine_samples=4, feature_channels=6,
                       super_resolution_channels=(8, 8)), folder)
    return str(folder)


def babble(seconds: float, seed: int) -> bytes:
    """A WAV of noise whose loudness changes."""
    moments = np.arange(round(seconds * 16000)) / 16000
    sound = np.random.default_rng(seed).normal(0, 0.2, len(moments)).clip(-1, 1) * np.sin(2 * np.pi * 2 * moments) ** 2
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1), out.setsampwidth(2), out.setframerate(16000)
        out.writeframes((sound * 32767).astype("<i2").tobytes())
    return file.getvalue()


def portraits(folder: Path | None) -> list[bytes]:
    """JPEGs of 0.8 to 2.5 times the size of the demo's photo, or of those of a folder, no two alike."""
    paths = sorted(folder.iterdir()) if folder else [Path(str(files("s3dnerf") / "assets" / "demo_photo.jpg"))]
    draw, found = random.Random(0), []
    for number in range(max(24, len(paths))):
        with Image.open(paths[number % len(paths)]) as photo:
            factor = draw.uniform(0.8, 2.5)
            photo = photo.convert("RGB").resize([round(side * factor) for side in photo.size])
        file = io.BytesIO()
        photo.save(file, "JPEG", quality=90)
        found.append(file.getvalue())
    return found


def usable(url: str, photos: list[bytes]) -> list[bytes]:
    """Those in which the service finds a face."""
    with httpx.Client(base_url=url, timeout=60) as client:
        return [photo for photo in photos if client.post("/v1/faces", files={"photo": ("x", photo)}).status_code == 200]


def wishes(draw: random.Random) -> dict[str, str]:
    """Options of a video."""
    return {"frame": draw.choice(("face", "face", "full")), "camera": draw.choice(("0,0", "9,3", "-12,0,1.4")),
            "background": draw.choice(("keep", "keep", "#206040")), "eyes": draw.choice(("keep", "15/min", "0.6")),
            "pose": draw.choice(("natural", "still")), "seed": str(draw.randrange(1000)), "label": draw.choice(("true", "false"))}


class Load:
    """Clients, and what became of their requests."""

    def __init__(self, url: str, until: float, photos: list[bytes], server: int):
        self.url, self.until, self.photos, self.server = url, until, photos, psutil.Process(server)
        self.answers, self.ends, self.wrong, self.waits, self.memory = collections.Counter(), collections.Counter(), [], [], []
        self.replaced = 0
        self.accepted: dict[str, str] = {}

    async def ask(self, client, method, path, **request):
        """A request, counted. None where the connection fails, which is noted as wrong."""
        try:
            answer = await client.request(method, path, **request)
        except httpx.HTTPError as error:
            self.wrong.append(f"{method} {path}: {type(error).__name__} {error}")
            return None
        self.answers[answer.status_code] += 1
        if answer.status_code >= 400 and answer.status_code not in (404, 409, 429):
            self.wrong.append(f"{method} {path}: {answer.status_code} {answer.text[:150]}")
        return answer

    async def client(self, number: int) -> None:
        """One client, until the time is up."""
        draw = random.Random(number)
        async with httpx.AsyncClient(base_url=self.url, timeout=120) as client:
            while time.monotonic() < self.until:
                speech = babble(draw.choice((0.4, 0.6, 1.0)), number)
                answer = await self.ask(client, "POST", "/v1/videos", data={"consent": "I am the person shown."} | wishes(draw),
                                        files={"photo": ("x", draw.choice(self.photos)), "speech": ("x", speech)})
                if answer is None or answer.status_code == 429:
                    await asyncio.sleep(min(20, int(answer.headers["retry-after"]) if answer else 1) * draw.uniform(1, 2))
                    continue
                if answer.status_code == 202:
                    await self.follow(client, answer.json(), draw)

    async def follow(self, client, job: dict, draw: random.Random) -> None:
        """What a client does with its video."""
        begin, what = time.monotonic(), draw.random()
        self.accepted[job["id"]] = "running"
        if what < 0.15:
            await asyncio.sleep(draw.uniform(0, 3))
            await self.ask(client, "POST", job["url"] + "/cancel")
        elif what < 0.25:
            await self.ask(client, "POST", "/v1/preview", files={"photo": ("x", draw.choice(self.photos))},
                           data={"camera": "10,0"})
        elif what < 0.4:
            await self.ask(client, "GET", job["video_url"], params={"stream": "1"})
        elif what < 0.6:
            await self.ask(client, "GET", job["events_url"])
        state = None
        while state not in ENDED:
            answer = await self.ask(client, "GET", job["url"])
            state = answer.json().get("state") if answer is not None and answer.status_code == 200 else "lost"
            if state == "lost":
                break
            await asyncio.sleep(0.5)
        self.accepted[job["id"]] = state
        self.ends[state] += 1
        if state == "done":
            self.waits.append(time.monotonic() - begin)
            await self.ask(client, "GET", job["video_url"], headers={"Range": "bytes=0-1023"} if what < 0.5 else {})
        if state == "failed":
            self.wrong.append(f"failed: {answer.json()['error']}")
        if what > 0.7:
            await self.ask(client, "DELETE", job["url"])

    async def watch(self) -> None:
        """Notes, every two seconds, how many videos have ended and what server, largest worker and all together take, MB."""
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as client:
            while time.monotonic() < self.until:
                sizes = [0.0]
                for process in self.server.children(recursive=True):
                    with contextlib.suppress(psutil.Error):  # it has just ended
                        sizes.append(process.memory_info().rss / 1e6)
                server = self.server.memory_info().rss / 1e6
                self.memory.append((sum(self.ends.values()), server, max(sizes), server + sum(sizes)))
                await asyncio.sleep(2)
            text = (await client.get("/metrics")).text
            self.replaced = int(float(text.split("\ns3dnerf_worker_replacements_total ")[1].split("\n")[0]))

    async def run(self, clients: int) -> None:
        """All clients, and then until their last video has ended."""
        await asyncio.gather(self.watch(), *(self.client(number) for number in range(clients)))


def started(weights: str, folder: Path, room: int = 4096) -> tuple[subprocess.Popen, str]:
    """A service that is ready, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "s3dnerf", "serve", "--port", str(port), "--weights", weights, "--folder",
                                str(folder), "--spare", "false", "--worker-memory", str(room)])
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            if httpx.get(url + "/readyz").status_code == 200:
                return process, url
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise SystemExit("the service did not start")


def report(load: Load, left: list[Path]) -> int:
    """Prints the figures; 1 where something went wrong."""
    waits = sorted(load.waits) or [float("nan")]
    lost = [id for id, state in load.accepted.items() if state not in ENDED]
    print("answers:", ", ".join(f"{count} x {status}" for status, count in sorted(load.answers.items())))
    print(f"videos: {len(load.accepted)} accepted, " + ", ".join(f"{count} {state}" for state, count in load.ends.items()))
    print(f"seconds from request to finished video: median {statistics.median(waits):.1f}, "
          f"95 % {waits[int(0.95 * (len(waits) - 1))]:.1f}, longest {waits[-1]:.1f}")
    print(f"workers replaced because of their memory: {load.replaced}")
    print("memory, MB: after so many videos | server | largest worker | all processes")
    series = np.array(load.memory)
    for part in np.array_split(series, min(12, len(series))):
        print(f"{part[-1, 0]:6.0f} | {part[:, 1].max():.0f} | {part[:, 2].max():.0f} | {part[:, 3].max():.0f}")
    print(f"files left after the end: {len(left)}")
    for line in load.wrong[:10]:
        print("wrong:", line)
    print(f"wrong: {len(load.wrong)}; not ended: {len(lost)}")
    return int(bool(load.wrong or lost or left))


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--weights", help="by default a small model of random weights")
    parser.add_argument("--photos", type=Path, help="folder of photos; by default the demo's alone")
    parser.add_argument("--worker-memory", type=int, default=4096, help="of the service")
    options = parser.parse_args()
    os.environ.pop("S3DNERF_API_KEY", None)
    with tempfile.TemporaryDirectory() as folder:
        weights = options.weights or small_model(Path(folder) / "weights")
        process, url = started(weights, Path(folder) / "service", options.worker_memory)
        try:
            photos = usable(url, portraits(options.photos))
            load = Load(url, time.monotonic() + options.seconds, photos, process.pid)
            asyncio.run(load.run(options.clients))
        finally:
            process.terminate()
            process.wait(30)
        left = [path for path in (Path(folder) / "service").rglob("*") if path.is_file()]
    return report(load, left)


if __name__ == "__main__":
    sys.exit(main())
