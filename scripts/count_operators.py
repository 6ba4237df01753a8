"""Counts what a GPU would be asked to do for a batch of frames of a photo: operators that are begun, and bytes that they move if each
reads and writes by itself, stage by stage, with the plain march and the fused one. No GPU is needed: rendering runs on tensors that
have shapes and no numbers.

    python scripts/count_operators.py [--weights one-shot-256]

The plain march of the faster qualities is left out: it asks how many rays meet anything.
"""
from __future__ import annotations

import argparse
from importlib.resources import files
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from s3dnerf.benchmark.work import ByteCounter
from s3dnerf.inference import BATCH, PhotoScene, TalkingHead
from s3dnerf.models import one_shot
from s3dnerf.models.fused_march import FusedMarch, known
from s3dnerf.stopwatch import Stopwatch


class OperatorCounter(TorchDispatchMode):
    """Counts operators; a view is none."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.total += not function.is_view
        return function(*arguments, **(options or {}))


def counted(scene: PhotoScene, kind: type, fused: bool, frames: int = BATCH) -> dict[str, float]:
    """What `kind` of counter counts in each stage of a batch of frames; the scene's model is left without numbers."""
    statistics, appearance = scene.statistics, scene.appearance.to("meta")

    def launch(*_):
        counter.total += kind is OperatorCounter

    with torch.inference_mode(), patch.object(one_shot, "fusable", known if fused else lambda *_: False), \
            patch.object(FusedMarch, "_launch", launch):
        for tried in range(2):  # the first sends constants and converts weights
            with kind() as counter:
                statistics.stopwatch = Stopwatch(clock=lambda: counter.total)
                motion, cameras = (record.to("meta") for record in scene.prepared(0, frames))
                with statistics.stage("render"):
                    rendering = scene.model.to("meta").render(appearance, motion, cameras)
                with statistics.stage("composite"):
                    scene.canvas.shown(rendering)
            scene.model.to_empty(device="cpu")  # where codes are made
    return statistics.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", default="one-shot-256")
    options, assets = parser.parse_args(), files("s3dnerf") / "assets"
    for quality, fused in (("best", False), ("best", True), ("fast", True)):
        scene = TalkingHead.load(options.weights, "cpu").speak(str(assets / "demo_photo.jpg"), str(assets / "demo_speech.wav"),
                                                               frame="face", quality=quality).scene
        found = [counted(scene, kind, fused) for kind in (OperatorCounter, ByteCounter)]
        print(f"{quality}, {'fused' if fused else 'plain'} march: operators, MB per frame")
        for name, operators in found[0].items():
            print(f"  {name:<18}{operators:>6.0f}{found[1][name] / BATCH / 1e6:>8.1f}")


if __name__ == "__main__":
    main()
