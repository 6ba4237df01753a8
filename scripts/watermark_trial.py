#!/usr/bin/env python3
"""Tries the watermark on recordings and generated videos, marked and not: `watermark_trial.py --help`.

Each video is written twice by the project's own writer, with the mark and without. Both are decoded, cut to 90 % of their width
and height (or to --keep) at a place by chance, encoded again by x264 at CRF 28 (or --crf), and looked at like any file that
`s3dnerf verify` gets. A marked one counts where its own payload is read. A line per video, and the sum as JSON.
"""
import argparse
import csv
import json
import tempfile
import time
from itertools import chain, islice
from pathlib import Path

import cv2
import numpy as np

from s3dnerf.inference import TalkingHead
from s3dnerf.marking.marking import MarkedWriter, Marking
from s3dnerf.marking.marks import Marks, Origin
from s3dnerf.marking.trace import average_luma, find
from s3dnerf.media import SAMPLE_RATE, VideoWriter, read_frames, read_sound

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("manifest", type=Path, help="table of recordings: file, split, source")
parser.add_argument("videos", type=Path, help="folder that the files are relative to")
parser.add_argument("output", type=Path, help="JSON")
parser.add_argument("--recordings", type=int, default=76, help="how many recordings carry the mark, half of them at 256")
parser.add_argument("--generated", type=int, default=24, help="how many videos are generated, half of them whole photos")
parser.add_argument("--seconds", type=float, default=1.2, help="length of a generated video")
parser.add_argument("--crf", type=int, default=28)
parser.add_argument("--keep", type=float, default=0.9, help="share of width and height that is kept")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()
random = np.random.RandomState(options.seed)


def square(frame, size):
    """The middle square of a frame, of a side of `size` pixels."""
    side = min(frame.shape[:2])
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    return cv2.resize(frame[top:top + side, left:left + side], (size, size), interpolation=cv2.INTER_AREA)


def carriers(rows):
    """Name, frames and no face's place of recordings of 1.2 to 5 s: small ones at 256, the others at 512 and 256 by turns."""
    for index, row in enumerate(rows):
        size = 256 if row["source"] == "lrcar" or index % 2 else 512
        frames = islice(read_frames(options.videos / row["file"]), int(random.randint(50, 126)))
        yield f"{row['source']} {size}", [square(frame, size) for frame in frames], None


def generated(rows):
    """Name, frames and square around the head of videos of the shipped weights: the photo is a clip's first frame, the speech
    another clip's."""
    head = TalkingHead.load()
    for index, (row, other) in enumerate(zip(rows, rows[1:] + rows[:1])):
        photo = next(read_frames(options.videos / row["file"]))
        speech = read_sound(options.videos / other["file"])[:round(options.seconds * SAMPLE_RATE)]
        frame = ("full", "face")[index % 2]
        video = head.speak(photo, speech, frame=frame, seed=index)
        yield f"generated {frame}", list(video), video.scene.region


def attacked(path):
    """The frames of a file, cut and encoded again."""
    frames = list(read_frames(path))
    height, width = frames[0].shape[:2]
    rows, columns = round(options.keep * height) // 2 * 2, round(options.keep * width) // 2 * 2
    top, left = random.randint(height - rows + 1), random.randint(width - columns + 1)
    again = path.with_name("again.mp4")
    with VideoWriter(again, columns, rows, crf=options.crf, preset="medium") as writer:
        for frame in frames:
            writer.write(frame[top:top + rows, left:left + columns])
    return read_frames(again)


def trial(frames, region, folder):
    """What is found in one video, marked and not, and what the mark costs: decibels, and seconds of each frame."""
    height, width = frames[0].shape[:2]
    marking = Marking(Marks(manifest=False), Origin("trial", f"{random.randint(2 ** 31):08x}" * 8), width, height, region)
    begin = time.perf_counter()
    marked = [marking.frame(frame) for frame in frames]
    seconds = (time.perf_counter() - begin) / len(frames)
    error = np.mean([(a.astype(np.float32) - b) ** 2 for a, b in zip(frames, marked)])
    result = {"frames": len(frames), "psnr": round(float(10 * np.log10(255 ** 2 / error)), 2), "ms": round(1e3 * seconds, 2)}
    for name, writer in (("marked", MarkedWriter(folder / "marked.mp4", width, height, marking)),
                         ("plain", VideoWriter(folder / "plain.mp4", width, height))):
        with writer:
            for frame in frames:
                writer.write(frame)
        trace = find(average_luma(attacked(folder / f"{name}.mp4")))
        right = trace.tag == int(marking.told["photo_sha256"][:8], 16) if name == "marked" else trace.tag is None
        result[name] = {"found": trace.found, "right": right, "score": round(trace.score, 2), "sync": round(trace.sync, 2)}
    return result


with options.manifest.open(newline="") as file:
    table = list(csv.DictReader(file, delimiter="\t"))
small = [row for row in table if row["source"] == "lrcar" and row["split"] == "val"]
large = [row for row in table if row["source"] in ("fiv2", "grid")]
pick = lambda rows, count: [rows[place] for place in random.permutation(len(rows))[:count]]
recordings = pick(small, options.recordings // 2) + pick(large, options.recordings - options.recordings // 2)
photos = pick(large, options.generated)
results = []
with tempfile.TemporaryDirectory() as place:
    for name, frames, region in chain(carriers(recordings), generated(photos)):
        results.append({"video": name} | trial(frames, region, Path(place)))
        print(len(results), json.dumps(results[-1]), flush=True)
total = {"videos": len(results), "found": sum(one["marked"]["found"] for one in results),
         "read": sum(one["marked"]["right"] for one in results), "false": sum(one["plain"]["found"] for one in results),
         "least_psnr": min(one["psnr"] for one in results), "mean_psnr": round(float(np.mean([one["psnr"] for one in results])), 2),
         "least_score": min(one["marked"]["score"] for one in results), "least_sync": min(one["marked"]["sync"] for one in results),
         "greatest_plain_score": max(one["plain"]["score"] for one in results),
         "greatest_plain_sync": max(one["plain"]["sync"] for one in results),
         "ms_at_512": round(float(np.median([one["ms"] for one in results if "512" in one["video"]] or [0])), 2)}
options.output.write_text(json.dumps({"options": {name: str(value) for name, value in vars(options).items()
                                                  if not isinstance(value, Path)}, "total": total, "videos": results}, indent=1))
print(json.dumps(total))
