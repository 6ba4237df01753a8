#!/usr/bin/env python3
"""Makes every clip of a manifest's split again from its own first frame: `self_reenactment.py --help`.

The first frame is the photo, the clip's own sound the speech (or, with --shuffled, the sound of the clip of the same source
half the list away: neighbours in a list of single words may say the same word), the clip's own head motion the pose. With
--truth the recordings are written too, cut as the videos are: `s3dnerf evaluate` compares the two folders. Videos of an earlier
run by the same weights and options stay; delete them where the program has changed since.
"""
import argparse
import csv
import json
import sys
from itertools import islice
from pathlib import Path

from s3dnerf.data.cropping import cut
from s3dnerf.data.tracking import FaceTracker
from s3dnerf.inference import TalkingHead
from s3dnerf.media import VideoWriter, frame_count, read_frames, read_sound
from s3dnerf.models.hub import digest
from s3dnerf.quality import QUALITIES

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("manifest", type=Path)
parser.add_argument("videos", type=Path)
parser.add_argument("output", type=Path)
parser.add_argument("--split", default="val")
parser.add_argument("--source", help="clips of this source only")
parser.add_argument("--weights", default="one-shot-256")
parser.add_argument("--every", type=int, default=1, help="take every n-th clip only")
parser.add_argument("--first", type=int, default=0, help="begin with the n-th clip")
parser.add_argument("--mouth-gain", type=float)
parser.add_argument("--shuffled", action="store_true", help="speech of another clip (the control)")
parser.add_argument("--still", action="store_true", help="the photo itself, for as long as the clip (the other control)")
parser.add_argument("--truth", type=Path, help="folder for the recordings, cut to the same square")
parser.add_argument("--quality", default="best", choices=QUALITIES, help="as `s3dnerf speak` has it")
parser.add_argument("--drive", action="store_true", help="drive by the clip's own tracked lips")
options = parser.parse_args()


def write(folder, clip, frames, sound, size):
    """A video of frames [size, size, 3]."""
    with VideoWriter(folder / f"{clip.stem}.mp4", size, size, sound=sound, crf=4) as video:
        for frame in frames:
            video.write(frame)


def square(frames, box, size):
    """The frames, cut as `--frame face` cuts the photo."""
    return (cut([frame], box, size)[0] for frame in frames)


with options.manifest.open(newline="", encoding="utf-8") as file:
    rows = [row for row in csv.DictReader(file, delimiter="\t")
            if row["split"] == options.split and options.source in (None, row["source"])][options.first::options.every]
if options.shuffled:  # a source of a single clip has no other speech
    sources = [row["source"] for row in rows]
    rows = [row for row in rows if sources.count(row["source"]) > 1]
clips = [options.videos / row["file"] for row in rows]
folders = [folder for folder in (options.output, options.truth) if folder]
for folder in folders:
    folder.mkdir(parents=True, exist_ok=True)
head = TalkingHead.load(options.weights)
asked = ("mouth_gain", "shuffled", "still", "drive", "quality")
settings = {"weights": digest(head.model)} | {name: getattr(options, name) for name in asked}
made_with = options.output / "settings.json"
if made_with.exists() and json.loads(made_with.read_text(encoding="utf-8")) != settings:
    sys.exit(f"s3dnerf: error: {options.output} holds videos of other weights or options; name another folder, or delete it")
made_with.write_text(json.dumps(settings), encoding="utf-8")
there = [clip for clip in clips if all((folder / f"{clip.stem}.mp4").exists() for folder in folders)]
if there:
    print(f"{len(there)} of {len(clips)} were made before, and stay", file=sys.stderr)
for index, clip in enumerate(clips):
    if clip in there:
        continue
    sound, photo, size = read_sound(clip), next(read_frames(clip)), head.model.image_size
    if options.truth or options.still:
        box = FaceTracker().portrait(photo, size)[1]
    if options.truth:
        count = frame_count(len(sound))
        write(options.truth, clip, square(islice(read_frames(clip), count), box, size), sound, size)
    if options.still:
        count = frame_count(len(sound))
        write(options.output, clip, square([photo] * count, box, size), sound, size)
        continue
    if options.shuffled:
        alike = [other for other, row in zip(clips, rows) if row["source"] == rows[index]["source"]]
        other = read_sound(alike[alike.index(clip) - len(alike) // 2])
        sound = other[: len(sound)] if len(other) >= len(sound) else other
    video = head.speak(photo, sound, frame="face", pose=clip, mouth_gain=options.mouth_gain, quality=options.quality,
                       drive=clip if options.drive else None)
    video.save(options.output / f"{clip.stem}.mp4", marks=None)  # what is measured is the model's picture
    print(f"{index + 1}/{len(clips)} {clip.stem}", flush=True)
