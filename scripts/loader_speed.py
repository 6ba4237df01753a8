#!/usr/bin/env python3
"""How fast the loader is, and how many of its processes keep a model busy.

    loader_speed.py --train data/train --frames 4 --need 200

Draws training examples for some seconds with each number of loader processes, after the first batches have come, and prints
examples and images (an example has --frames of them, and a photo that is not counted) per second; then, from the images per
second of a process, how many it takes for --need images a second, one GPU's. `loader/images_per_second` in the log of a run
says what its model takes. The options are those of ClipDataModule; more cores than processes, or the figures are of less.
"""
import argparse
import math
import time
from dataclasses import dataclass

from s3dnerf.data.module import ClipDataModule


@dataclass(frozen=True)
class Speed:
    """What was measured."""

    workers: int
    """loader processes; 0 is none beside the one that measures"""
    examples: float
    """per second"""
    images: float
    """per second"""

    @property
    def each(self) -> float:
        """Images per second of one process."""
        return self.images / max(1, self.workers)


def measured(data: ClipDataModule, seconds: float) -> Speed:
    """Draws for so many seconds, from the moment that every loader process has given two batches."""
    batches, drawn = iter(data.train_dataloader()), 0
    for _ in range(2 * max(1, data.workers)):
        next(batches)
    begin = time.perf_counter()
    while (past := time.perf_counter() - begin) < seconds:
        next(batches)
        drawn += data.batch_size
    return Speed(data.workers, drawn / past, drawn * data.frames / past)


def needed(images: float, speed: Speed) -> int:
    """Loader processes for so many images per second."""
    return math.ceil(images / speed.each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="folder of training shards")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of loader processes to try")
    parser.add_argument("--need", type=float, default=200.0, help="images per second that the model takes")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each is measured")
    for name, default in (("frames", 4), ("spacing", 8), ("batch_size", 3), ("size", None)):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--images", choices=("all", "photo", "none"), default="all")
    options = parser.parse_args()
    for workers in options.workers:
        data = ClipDataModule(options.train, frames=options.frames, spacing=options.spacing, batch_size=options.batch_size,
                              size=options.size, images=options.images, workers=workers, steps_per_epoch=100_000)
        begin = time.perf_counter()
        clips = len(data.learned_from[0])
        index = time.perf_counter() - begin
        speed = measured(data, options.seconds)
        print(f"workers {workers}: {speed.examples:.1f} examples, {speed.images:.1f} images a second, {speed.each:.1f} images each; "
              f"{clips} clips found in {index:.2f} s", flush=True)
        print(f"  {options.need:g} images a second need {needed(options.need, speed)} workers as fast as these", flush=True)


if __name__ == "__main__":
    main()
