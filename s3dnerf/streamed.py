"""A photo's scene on a GPU: batches of one shape, recorded once and replayed, each fetched while the next is computed."""
from __future__ import annotations

from functools import partial
from typing import Callable, Iterator, Optional

import numpy as np
import torch
from torch import Tensor, nn

from s3dnerf.device import compiled
from s3dnerf.downloads import Ahead, Downloads
from s3dnerf.paste import FaceFrame
from s3dnerf.planar import planar
from s3dnerf.replay import Recorder, Replay
from s3dnerf.types import Cameras, Motion


LONG = 1500
"""frames from which on it pays to compile, which takes seconds: a minute of video"""


def streamed(scene, total: int, batch: int, as_planar: bool = False, recorder: Recorder = Recorder()) -> Iterator[np.ndarray]:
    """All frames of an `inference.PhotoScene`, in batches [T, H, W, 3] uint8: the same as `scene.frames` gives, but begun in a
    thread of its own. The device is waited for once per batch, after the next was begun; stages that pass inside a recorded
    graph cannot be told apart, and are all told as "render". With `as_planar` frames are as `planar.planar` makes them, where
    the scene `takes_planar`."""
    statistics, downloads = scene.statistics, Downloads()
    statistics.stopwatch.settle = None
    as_planar = as_planar and takes_planar(scene)
    part = _super_resolution(scene)
    if total >= LONG and part is not None and statistics.device.type == "cuda":
        with torch.inference_mode(), statistics.stage("load", whole=True):
            compiled(part, lambda: scene.frames(0, batch), statistics.remarks.append)
    replay = Replay(partial(_drawn, scene, as_planar), min(batch, total), recorder, statistics.remarks.append)

    def begin(first: int) -> Callable[[], np.ndarray]:
        count = min(batch, total - first)
        motion, cameras = scene.prepared(first, count)
        with statistics.stage("render", whole=True):
            coming = downloads.begin(replay(motion, cameras))
        return lambda: finish(first, count, coming)

    def finish(first: int, count: int, coming) -> np.ndarray:
        with statistics.stage("render"):
            shown = coming.wait()
        return shown.numpy() if as_planar else scene.put_together(shown, first, count)

    return Ahead().stream(begin, range(0, total, batch))


def _super_resolution(scene) -> Optional[nn.Module]:
    """The network that a scene's frames pass through, if any."""
    model, occupancy = scene.model, scene.appearance.occupancy
    if model.super_resolution is None:
        return None
    return model.half_super_resolution if occupancy is not None and occupancy.half else model.super_resolution


def takes_planar(scene) -> bool:
    """Whether frames need nothing more once they were rendered: the face alone, of an even size, from a camera without a zoom."""
    even = scene.width % 2 == 0 and scene.height % 2 == 0
    return isinstance(scene.canvas, FaceFrame) and even and bool((scene.camera.zoom == 1).all())


def _drawn(scene, as_planar: bool, motion: Motion, cameras: Cameras) -> Tensor:
    """What of the frames changes, [T, h, w, 3] uint8 or planar, on the device; nothing in here may wait for it."""
    shown = scene.canvas.shown(scene.model.render(scene.appearance, motion, cameras))
    return planar(shown) if as_planar else shown.contiguous()
