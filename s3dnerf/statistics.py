"""What was made, and where the time went."""
from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch

from s3dnerf.media import FPS
from s3dnerf.stopwatch import Stopwatch

RENDERING = ("motion", "motion field", "ray march", "super-resolution", "render", "composite")
"""the stages that workers do side by side"""
WRITING = ("wait", "encode video", "mux")
"""the stages of the thread that writes, meanwhile; it waits for the workers"""


@dataclass
class Statistics:
    """What was made, and where the time went; the seconds of each stage add up as the video is rendered.

    The stages are load, read, tracking, encode identity, speech features; then `RENDERING`: motion (speech to codes), motion
    field, ray march, super-resolution, render (what else there is of it: the photo looked up), composite; and `WRITING`.
    """

    weights: str
    device: torch.device
    seed: int
    frames: int = 0
    width: int = 0
    """pixels of the file, `media.film_size`"""
    height: int = 0
    quality: str = "best"
    """that is rendered; where "auto" was asked for, the one that was chosen"""
    workers: int = 1
    """threads that render side by side; the seconds of rendering are the sum of theirs"""
    elapsed: float = 0.0
    """seconds by the clock, of rendering and writing"""
    first_frame: float = 0.0
    """seconds by the clock, of rendering, until there was a frame"""
    remarks: list[str] = field(default_factory=list)
    """what the user should know: several faces, silence, large turns"""

    def __post_init__(self):
        cuda = self.device.type == "cuda"
        self.stopwatch = Stopwatch((lambda: torch.cuda.synchronize(self.device)) if cuda else None)

    def __getstate__(self) -> dict:
        """What another process is told; it takes its own time."""
        return {name: value for name, value in vars(self).items() if name != "stopwatch"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self.__post_init__()

    @property
    def seconds(self) -> dict[str, float]:
        """Of each stage."""
        return self.stopwatch.seconds

    def stage(self, name: str, whole: bool = False) -> AbstractContextManager:
        """Times what happens inside and adds it to a stage; see `Stopwatch.stage`."""
        return self.stopwatch.stage(name, whole)

    def as_dict(self) -> dict:
        """Plain values for JSON. The speed of rendering is that of all workers together, by their own seconds; end to end is by
        the clock."""
        rendering = sum(self.seconds.get(name, 0.0) for name in RENDERING) / self.workers
        before = sum(value for name, value in self.seconds.items() if name not in RENDERING + WRITING)
        elapsed = self.elapsed or rendering
        rate = lambda seconds: round(self.frames / max(seconds, 1e-9), 2)
        return {"frames": self.frames, "length": self.frames / FPS, "fps": FPS,
                "width": self.width, "height": self.height, "weights": self.weights, "quality": self.quality,
                "device": str(self.device), "workers": self.workers, "seed": self.seed, "remarks": self.remarks,
                "seconds": {name: round(value, 4) for name, value in self.seconds.items()},
                "first_frame_seconds": round(before + self.first_frame, 3), "elapsed_seconds": round(elapsed, 3),
                "total_seconds": round(before + elapsed, 3), "frames_per_second_rendering": rate(rendering),
                "frames_per_second_after_loading": rate(elapsed), "frames_per_second_end_to_end": rate(before + elapsed)}
