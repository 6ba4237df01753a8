"""What videos cost that a worker of the service makes at once, against one: they are rendered in batches that they share.

    python scripts/concurrent_jobs.py --jobs 1 2 4 8 --seconds 2

Prints frames per second of all together, and seconds of the processor for a second of video, encoding for the page and for the file
included; photos are encoded before. Numbers of jobs are taken in turns, `--rounds` times, because machines have more to do.
"""
from __future__ import annotations

import argparse
import os
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import Iterable

import numpy as np

from s3dnerf.allocator import keep_freed_memory
from s3dnerf.media import FPS, SAMPLE_RATE, read_image, read_sound
from s3dnerf.service.messages import Declaration, Failed, Finished, Options, Render, Speaker
from s3dnerf.service.renderer import Renderer
from s3dnerf.service.settings import Settings

KEY = "0" * 64
"""of the photo, in place of its hash"""


def processor() -> float:
    """Seconds of the processor that this process has taken, all threads together."""
    return sum(os.times()[:2])


def finished(messages: Iterable) -> list[Finished]:
    """Those videos that ended well."""
    messages = list(messages)
    for failed in (message for message in messages if isinstance(message, Failed)):
        raise SystemExit(f"s3dnerf: error: {failed.message}")
    return [message for message in messages if isinstance(message, Finished)]


def measure(renderer: Renderer, speaker: Speaker, sound: np.ndarray, jobs: int) -> tuple[float, float, int]:
    """Seconds by the clock and of the processor, and frames, of so many videos at once."""
    for number in range(jobs):
        declared = Declaration("A synthetic voice.", KEY)
        list(renderer.take(Render(f"job{number}", speaker, sound, Options(frame="face", seed=number), declared)))
    while renderer.waiting:  # all are opened before any is measured
        task = renderer.waiting.pop(0)
        finished(renderer._safely(task.id, lambda: renderer._open(task)))
    begin, used, done = time.perf_counter(), processor(), []
    while len(done) < jobs:
        done += finished(renderer.step())
    found = time.perf_counter() - begin, processor() - used, sum(message.statistics["frames"] for message in done)
    for message in done:
        Path(message.path).unlink()
    return found


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="one-shot-256")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    keep_freed_memory()
    assets = files("s3dnerf") / "assets"
    sound = np.resize(read_sound(str(assets / "demo_speech.wav")), round(options.seconds * SAMPLE_RATE))
    speaker = Speaker(read_image(str(assets / "demo_photo.jpg")), KEY)
    with tempfile.TemporaryDirectory() as folder:
        renderer = Renderer(Settings(options.weights), Path(folder))
        measure(renderer, speaker, sound[:SAMPLE_RATE // 2], 1)  # the photo, and what is slow the first time
        for _ in range(options.rounds):
            for jobs in options.jobs:
                clock, used, frames = measure(renderer, speaker, sound, jobs)
                print(f"{jobs} at once: {frames / clock:.1f} frames per second, {used / frames * FPS:.2f} s of the processor for a "
                      "second of video", flush=True)


if __name__ == "__main__":
    main()
