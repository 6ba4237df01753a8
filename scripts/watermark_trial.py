#!/usr/bin/env python3
"""Tries the watermark on generated videos and recordings, marked and not: `watermark_trial.py --help`.

    python scripts/watermark_trial.py MANIFEST.tsv DIR trial.json --photos DIR/photos

Each video is written twice by the project's own writer, with the mark and without. Both are decoded, cut to 90 % of their width
and height (or to --keep) at a place by chance, encoded again by x264 at CRF 28 (or --crf), and looked at like any file that
`s3dnerf verify` gets. A marked one counts where its own payload is read. Generated ones are all of different people: photos of
--photos first, then first frames of recordings, each with the speech of somebody else, in turns of `PLANS`. A line per video,
and sums per kind as JSON and as a table.
"""
import argparse
import csv
import json
import tempfile
import time
from itertools import chain, count, islice
from pathlib import Path

import cv2
import numpy as np

from s3dnerf.errors import InputError
from s3dnerf.inference import TalkingHead
from s3dnerf.marking.marking import MarkedWriter, Marking
from s3dnerf.marking.marks import Marks, Origin
from s3dnerf.marking.trace import average_luma, find
from s3dnerf.media import SAMPLE_RATE, VideoWriter, read_frames, read_image, read_sound
from s3dnerf.models.hub import DEFAULT

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("manifest", type=Path, help="table of recordings: file, person, split, source")
parser.add_argument("videos", type=Path, help="folder that the files are relative to")
parser.add_argument("output", type=Path, help="JSON")
parser.add_argument("--generated", type=int, default=100, help="how many videos are generated")
parser.add_argument("--recordings", type=int, default=20, help="how many recordings carry the mark, half of them at 256")
parser.add_argument("--photos", type=Path, help="folder of photos that speak before those of recordings do")
parser.add_argument("--weights", default=DEFAULT)
parser.add_argument("--crf", type=int, default=28)
parser.add_argument("--keep", type=float, default=0.9, help="share of width and height that is kept")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()
random = np.random.RandomState(options.seed)

PLANS = ({"frame": "full"}, {"frame": "face"}, {"frame": "full", "long": 1080}, {"frame": "face", "pose": "still"},
         {"frame": "full", "long": 720, "background": "#2060c0"}, {"frame": "face", "camera": (12, 4)},
         {"frame": "full", "long": 1080, "pose": "still"}, {"frame": "face", "background": "#00b140"},
         {"frame": "full", "camera": (-8, 3, 1.4)}, {"frame": "face", "camera": (0, 0, 1.3)})
"""Options of `speak`; `long` is what the photo's long side is enlarged to, pixels."""
SECONDS = (1.0, 1.3, 1.6, 2.0, 2.4, 1.2, 3.0)


def square(frame, size):
    """The middle square of a frame, of a side of `size` pixels."""
    side = min(frame.shape[:2])
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    return cv2.resize(frame[top:top + side, left:left + side], (size, size), interpolation=cv2.INTER_AREA)


def carriers(rows):
    """Kind, frames and no face's place of recordings of 1.2 to 5 s: small ones at 256, the others at 512 and 256 by turns."""
    for index, row in enumerate(rows):
        size = 256 if row["source"] == "lrcar" or index % 2 else 512
        frames = islice(read_frames(options.videos / row["file"]), int(random.randint(50, 126)))
        yield f"recording {size}", [square(frame, size) for frame in frames], None


def portraits(rows):
    """Photos [H, W, 3] uint8: those of the folder, then a clip of each person, then further clips."""
    for path in sorted(options.photos.iterdir()) if options.photos else []:
        yield read_image(path)
    name = lambda row: row.get("person", row["file"])
    first = {name(row): row for row in reversed(rows)}
    later = [row for row in rows if row is not first[name(row)]]
    for row in [*first.values(), *later]:
        yield next(read_frames(options.videos / row["file"]))


def enlarged(photo, long):
    """A photo whose long side is at least `long` pixels."""
    factor = long / max(photo.shape[:2])
    return photo if factor <= 1 else cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def generated(photos, rows):
    """Kind, frames and square around the head of videos of the weights, as many as photos can be used."""
    head, number = TalkingHead.load(options.weights), count()
    for photo in photos:
        try:
            identity = head.identify(photo)
        except InputError:  # too small or turned; the next one
            continue
        index = next(number)
        plan, seconds = dict(PLANS[index % len(PLANS)]), SECONDS[index % len(SECONDS)]
        if long := plan.pop("long", 0):
            identity = head.identify(enlarged(photo, long))
        speech = read_sound(options.videos / rows[(7 * index + 3) % len(rows)]["file"])[:round(seconds * SAMPLE_RATE)]
        video = head.speak(identity, speech, quality="fast", seed=index, **plan)
        kind = f"generated {plan['frame']}" + (" 700+" if max(video.width, video.height) >= 700 else "")
        yield kind, list(video), video.scene.region


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
    error = np.mean([np.mean((a.astype(np.float32) - b) ** 2) for a, b in zip(frames, marked)])
    result = {"size": [width, height], "frames": len(frames), "psnr": round(float(10 * np.log10(255 ** 2 / error)), 2),
              "ms": round(1e3 * seconds, 2)}
    for name, writer in (("marked", MarkedWriter(folder / "marked.mp4", width, height, marking)),
                         ("plain", VideoWriter(folder / "plain.mp4", width, height))):
        with writer:
            for frame in frames:
                writer.write(frame)
        trace = find(average_luma(attacked(folder / f"{name}.mp4")))
        right = trace.tag == int(marking.told["photo_sha256"][:8], 16) if name == "marked" else trace.tag is None
        result[name] = {"found": trace.found, "right": right, "score": round(trace.score, 2), "sync": round(trace.sync, 2)}
    return result


def summed(results):
    """Figures of some videos."""
    return {"videos": len(results), "found": sum(one["marked"]["found"] for one in results),
            "read": sum(one["marked"]["right"] for one in results), "false": sum(one["plain"]["found"] for one in results),
            "frames": [min(one["frames"] for one in results), max(one["frames"] for one in results)],
            "least_psnr": min(one["psnr"] for one in results),
            "mean_psnr": round(float(np.mean([one["psnr"] for one in results])), 2),
            "least_score": min(one["marked"]["score"] for one in results),
            "least_sync": min(one["marked"]["sync"] for one in results),
            "greatest_plain_score": max(one["plain"]["score"] for one in results),
            "greatest_plain_sync": max(one["plain"]["sync"] for one in results)}


with options.manifest.open(newline="", encoding="utf-8") as file:
    table = list(csv.DictReader(file, delimiter="\t"))
small = [row for row in table if row["source"] == "lrcar" and row["split"] == "val"]
large = [row for row in table if row["source"] in ("fiv2", "grid")]
pick = lambda rows, count: [rows[place] for place in random.permutation(len(rows))[:count]]
recordings = pick(small, options.recordings // 2) + pick(large, options.recordings - options.recordings // 2)
speakers = pick(large, len(large))
photos = portraits(speakers + [row for row in table if row["source"] == "lrcar"])
results = []
with tempfile.TemporaryDirectory() as place:
    made = islice(generated(photos, speakers), options.generated) if options.generated else ()
    for kind, frames, region in chain(made, carriers(recordings)):
        results.append({"kind": kind} | trial(frames, region, Path(place)))
        print(len(results), json.dumps(results[-1]), flush=True)
kinds = {kind: summed([one for one in results if one["kind"] == kind]) for kind in sorted({one["kind"] for one in results})}
total = summed(results)
options.output.write_text(json.dumps({"options": {name: str(value) for name, value in vars(options).items()
                                                  if not isinstance(value, Path)}, "total": total, "kinds": kinds,
                                      "videos": results}, indent=1), encoding="utf-8")
for kind, sums in (kinds | {"all": total}).items():
    print(" | ".join([kind, *(f"{name} {value}" for name, value in sums.items())]))
