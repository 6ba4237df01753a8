"""Times `speak` from files to file: the real path, told by its stages."""
from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Optional

import numpy as np
import torch

from s3dnerf.benchmark.machine import Machine, peak_memory
from s3dnerf.benchmark.work import bytes_of, operations_of
from s3dnerf.media import SAMPLE_RATE, read_sound
from s3dnerf.statistics import RENDERING
from s3dnerf.stopwatch import Stopwatch


@dataclass(frozen=True)
class Stage:
    """One stage of a run."""

    name: str
    seconds: float
    """of all threads that did it"""
    milliseconds: float
    """per frame of the video"""
    giga_operations: Optional[float]
    """per frame; None for a stage that is not the model's"""
    megabytes: Optional[float]
    """per frame: what operators read and write, each by itself"""
    share: Optional[float]
    """of the roofline: the least seconds that the machine would need, over those that it took"""


def measure(weights: str, photo: Optional[str], speech: Optional[str], seconds: float, quality: str, frame: str,
            device: str) -> dict:
    """The report of one run, plain values; the demonstration's photo and speech where there are none. The speech is repeated, or
    cut, to last `seconds`."""
    begin = time.perf_counter()
    from s3dnerf.inference import TalkingHead

    assets = files("s3dnerf") / "assets"
    sound = read_sound(speech or str(assets / "demo_speech.wav"))
    sound = np.resize(sound, round(seconds * SAMPLE_RATE))
    head = TalkingHead.load(weights, device)
    loading = time.perf_counter() - begin
    video = head.speak(photo or str(assets / "demo_photo.jpg"), sound, frame=frame, quality=quality, progress=True)
    video.statistics.stopwatch.add("load", loading)
    with tempfile.TemporaryDirectory() as folder:
        statistics = video.save(Path(folder) / "out.mp4", progress=True)
    memory, machine = peak_memory(head.device), Machine.measured(head.device, video.workers)
    told = stages(video, machine)
    return {**statistics.as_dict(), "parameters": sum(weight.numel() for weight in head.model.parameters()), "memory": memory,
            "machine": asdict(machine), "frame": per_frame(told), "stages": [asdict(stage) for stage in told]}


def per_frame(told: list[Stage]) -> dict[str, float]:
    """What the model does for a frame, all its stages together, and the share of the roofline that they reach."""
    counted = [stage for stage in told if stage.share is not None]
    least = sum(stage.share * stage.seconds for stage in counted)
    return {"giga_operations": round(sum(stage.giga_operations for stage in counted), 4),
            "megabytes": round(sum(stage.megabytes for stage in counted), 2),
            "share": round(least / max(sum(stage.seconds for stage in counted), 1e-9), 4)}


def one_by_one(video, batches: int = 10) -> dict[str, float]:
    """Seconds that the stages of rendering would take for a whole video on a GPU if each were waited for: what is recorded as a graph
    cannot be told apart otherwise. Empty on a CPU."""
    from s3dnerf.inference import BATCH, PhotoScene

    statistics, device, count = video.statistics, video.statistics.device, min(BATCH, len(video))
    if device.type != "cuda" or not isinstance(video.scene, PhotoScene):
        return {}
    known = statistics.stopwatch
    try:
        with torch.inference_mode():
            for tries in (2, batches):  # the first ones search and compile
                statistics.stopwatch = Stopwatch(lambda: torch.cuda.synchronize(device))
                for _ in range(tries):
                    video.scene.frames(0, count)
            return {name: value * len(video) / (batches * count) for name, value in statistics.seconds.items()}
    finally:
        statistics.stopwatch = known


def stages(video, machine: Machine) -> list[Stage]:
    """The stages of a video that was saved, in the order in which they began, with what the model's cost per frame; on a GPU also
    `one_by_one`."""
    count = min(2, len(video))
    render = lambda: video.scene.frames(0, count)
    work = [counts(video.statistics, render) for counts in (operations_of, bytes_of)]
    told = []
    alone = {f"{name} alone": seconds for name, seconds in one_by_one(video).items()}
    for name, seconds in (video.statistics.seconds | alone).items():
        stage = name.removesuffix(" alone")
        told_apart = stage in RENDERING and (name in alone or not alone)
        operations, moved = (part.get(stage, 0.0) / count if told_apart else None for part in work)
        least = None if operations is None else machine.least_seconds(operations, moved) * len(video)
        told.append(Stage(name, round(seconds, 4), round(1000 * seconds / len(video), 3),
                          None if operations is None else round(operations / 1e9, 4),
                          None if operations is None else round(moved / 1e6, 2),
                          None if least is None else round(least / max(seconds, 1e-9), 4)))
    return told


def table(report: dict) -> str:
    """A report for people."""
    number = lambda value, form: "" if value is None else format(value, form)
    lines = [f"{'stage':<24}{'seconds':>9}{'ms/frame':>10}{'GFLOP':>8}{'MB':>8}{'roofline':>10}"]
    lines += [f"{stage['name']:<24}{stage['seconds']:>9.3f}{stage['milliseconds']:>10.2f}"
              f"{number(stage['giga_operations'], '8.3f'):>8}{number(stage['megabytes'], '8.1f'):>8}"
              f"{number(stage['share'], '.1%'):>10}" for stage in report["stages"]]
    machine, frame = report["machine"], report["frame"]
    lines.append(f"{'a frame, in all':<37}{frame['giga_operations']:>8.3f}{frame['megabytes']:>8.1f}{frame['share']:>10.1%}")
    return "\n".join([*lines, "",
                      f"{report['frames']} frames, {report['width']} x {report['height']}, {report['quality']}: "
                      f"{report['frames_per_second_rendering']:.1f} frames per second of rendering, "
                      f"{report['frames_per_second_after_loading']:.1f} after loading, "
                      f"{report['frames_per_second_end_to_end']:.1f} end to end; first frame after "
                      f"{report['first_frame_seconds']:.2f} s",
                      f"{machine['name']}, threads: {machine['threads']}, each {machine['product'] / 1e9:.0f} GFLOP/s and "
                      f"{machine['copy'] / 1e9:.1f} GB/s; "
                      f"{', '.join(f'{value:.0f} MB of {name[:-3]}' for name, value in report['memory'].items())} memory at most; "
                      f"{report['parameters']:,} parameters"])
