"""How much faster `speak` has become, stage by stage: two states of the program in turns, on one machine.

    python scripts/before_after.py BEFORE AFTER --rounds 3 --seconds 10

BEFORE and AFTER are folders that hold the package (checked-out commits). Each round runs the whole command from files to file, the
state before, then the state after in each quality, then `fast` of a photo that was encoded before, and with the head at rest; so
that what else the machine does meets all of them. Printed are medians over the rounds, and how many times less the state after
takes. Nothing else should want the cores meanwhile; OMP_NUM_THREADS says how many are used.
"""
from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from s3dnerf.cores import own_cores

ASSETS = files("s3dnerf") / "assets"
ONCE = ("load", "read", "tracking", "encode identity", "speech features")
EACH = ("motion", "motion field", "ray march", "super-resolution", "render", "composite")
ROWS = (*ONCE, "rendering, clock", "rendering, cores", "encode video", "mux", "first frame", "command, clock", "command, processor")


class Way(NamedTuple):
    """A way to make the video."""

    name: str
    after: bool
    options: tuple[str, ...] = ()


WAYS = (Way("before", False),
        *(Way(quality, True, ("--quality", quality, "--identity-cache", "off")) for quality in ("best", "balanced", "fast")),
        Way("fast, again", True, ("--quality", "fast", "--identity-cache", "CACHE")),
        Way("fast, at rest", True, ("--quality", "fast", "--identity-cache", "off", "--pose", "still")))


def speech_of(seconds: float, path: Path) -> None:
    """Writes the demonstration's speech, repeated or cut."""
    with wave.open(str(ASSETS / "demo_speech.wav")) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())[:, 0]
        rate = file.getframerate()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(rate)
        file.writeframes(np.resize(sound, round(seconds * rate)).astype("<i2").tobytes())


def seconds_of(told: dict, clock: float, processor: float, cores: int) -> dict[str, float]:
    """The rows of one run: `told` is what `--json` wrote. Before, all cores worked on one frame; after, each on its own."""
    seconds, threads = told["seconds"], told.get("workers", 0)
    work = sum(seconds.get(name, 0.0) for name in EACH)
    rows = {name: seconds.get(name, 0.0) for name in ONCE + ("encode video", "mux")}
    rows["rendering, cores"] = work if threads else work * cores
    rows["rendering, clock"] = work / threads if threads else work
    rows["first frame"] = told.get("first_frame_seconds", float("nan"))
    return rows | {"command, clock": clock, "command, processor": processor}


def caches(state: Path) -> bool:
    """Whether a state of the program keeps encoded photos unless it is told not to; a state before would gain by its own rounds."""
    verbs = state / "s3dnerf" / "commands" / "speaking.py"
    return verbs.is_file() and "identity_cache" in verbs.read_text(encoding="utf-8")


def run(state: Path, options: tuple[str, ...], speech: Path, folder: Path, cores: int) -> dict[str, float]:
    """One run of `speak` in a process of its own."""
    said, begin, used = folder / "said.json", time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    if not options and caches(state):
        options = ("--identity-cache", "off")
    command = [sys.executable, "-m", "s3dnerf", "speak", "--photo", str(ASSETS / "demo_photo.jpg"), "--speech", str(speech),
               "--frame", "face", "--output", str(folder / "out.mp4"), "--json", str(said),
               *(str(folder / "cache") if option == "CACHE" else option for option in options)]
    subprocess.run(command, cwd=state, env={**os.environ, "PYTHONPATH": str(state)}, check=True, capture_output=True)
    clock, now = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return seconds_of(json.loads(said.read_text(encoding="utf-8")), clock, processor, cores)


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: a row per stage, a column per way, medians in seconds and how many times less than before."""
    lines = ["| seconds | " + " | ".join(found) + " |", "|---|" + "---:|" * len(found)]
    for row in ROWS:
        middle = {name: statistics.median(run[row] for run in runs) for name, runs in found.items()}
        first = middle[next(iter(found))]
        cell = lambda value: f"{value:.2f}" + (f" ({first / value:.1f} x)" if value > 0.05 and first > 0.05 else "")
        lines.append(f"| {row} | " + " | ".join(cell(value) for value in middle.values()) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    cores = int(os.environ.get("OMP_NUM_THREADS", 0)) or own_cores()
    found: dict[str, list[dict[str, float]]] = {way.name: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        speech_of(arguments.seconds, folder / "speech.wav")
        once = [way for way in WAYS if "CACHE" in way.options]
        for way in [*once, *WAYS * arguments.rounds]:  # the first fills the cache
            state = (arguments.after if way.after else arguments.before).resolve()
            seconds = run(state, way.options, folder / "speech.wav", folder, cores)
            print(f"{way.name}: {seconds['command, clock']:.1f} s", file=sys.stderr, flush=True)
            found[way.name].append(seconds)
    for way in once:
        found[way.name].pop(0)
    frames = round(25 * arguments.seconds)
    print(table(found))
    rates = (f"{name} {frames / statistics.median(run['rendering, clock'] for run in runs):.1f}" for name, runs in found.items())
    print(f"\n{cores} cores, {arguments.rounds} rounds, {frames} frames; of rendering, frames per second: " + ", ".join(rates))


if __name__ == "__main__":
    main()
