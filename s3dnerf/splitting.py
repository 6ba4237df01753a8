"""One video rendered by several processes, on this machine or through Ray; its frames and its file are those of one."""
from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial
from typing import Iterator

import numpy as np
import torch

from s3dnerf.allocator import keep_freed_memory
from s3dnerf.data.engine import Engine, in_order
from s3dnerf.inference import BATCH, CPU_BATCH, Scene, TalkingVideo
from s3dnerf.workers import Workers

SPAN_FRAMES, SPAN_BYTES = 48, 1 << 24
"""frames that are asked for at once, and bytes that they may have: enough that asking costs nothing, few enough to be kept"""


@dataclass(frozen=True)
class Span:
    """Frames that a process is asked for."""

    first: int
    count: int
    batch: int
    """frames that are rendered together, as in one process, because rounding may depend on it"""
    cores: int
    """that are used"""


def rendered(scene: Scene, span: Span) -> tuple[np.ndarray, dict[str, float]]:
    """Frames [N, H, W, 3] uint8 of a span, and the seconds of each stage that they took."""
    keep_freed_memory()
    known, stop, workers = dict(scene.statistics.seconds), span.first + span.count, Workers(span.cores)
    torch.set_num_threads(span.cores)
    frames = list(workers.map(lambda first: scene.frames(first, min(span.batch, stop - first)),
                              range(span.first, stop, span.batch)))
    return np.concatenate(frames), {name: seconds - known.get(name, 0.0) for name, seconds in scene.statistics.seconds.items()}


class SplitVideo(TalkingVideo):
    """A `TalkingVideo` whose frames other processes render, while this one marks and writes them in order. The scene is made once,
    here, and goes to each of them as it is; a frame depends on its number alone, so that it is the same whoever renders it: on
    CUDA devices but for rounding, because a video of one process is `streamed` there.

    Args:
        video: what is to be rendered.
        parts: processes, 1 or more.
        engine: "local", on this machine, each with its share of the cores or a CUDA device of its own; or "ray".
    """

    def __init__(self, video: TalkingVideo, parts: int, engine: Engine = "local"):
        super().__init__(video.scene, video.photo, video.sound, video.statistics, video.origin.photo)
        self.parts, self.engine = parts, engine

    def spans(self) -> Iterator[Span]:
        """The video in parts that are whole batches, at least one for each process where there are enough."""
        on_cpu = self.statistics.device.type == "cpu"
        batch, cores = (CPU_BATCH, max(1, torch.get_num_threads() // self.parts)) if on_cpu else (BATCH, 1)
        share = math.ceil(len(self) / self.parts / batch) * batch
        step = min(share, max(batch, min(SPAN_FRAMES, SPAN_BYTES // (3 * self.width * self.height)) // batch * batch))
        for first in range(0, len(self), step):
            yield Span(first, min(step, len(self) - first), batch, cores)

    def __iter__(self, as_planar: bool = False) -> Iterator[np.ndarray]:  # the processes hand over RGB
        statistics, begin, spans = self.statistics, time.perf_counter(), list(self.spans())
        parts, cores = min(self.parts, len(spans)), spans[0].cores
        statistics.workers, statistics.first_frame = parts * cores, 0.0
        devices = 0 if statistics.device.type == "cpu" else torch.cuda.device_count()
        for frames, seconds in in_order(partial(rendered, self.scene), spans, self.engine, parts, cores, devices):
            statistics.first_frame = statistics.first_frame or time.perf_counter() - begin
            for name, value in seconds.items():
                statistics.stopwatch.add(name, value)
            yield from frames
