#!/usr/bin/env python3
"""Makes every clip of a manifest's split again from its own first frame: `self_reenactment.py --help`.

The first frame is the photo, the clip's own sound the speech (or, with --shuffled, the sound of the clip half the list away:
neighbours in a list of single words may say the same word), the clip's own head motion the pose. The folder that it writes can
be judged against the recordings, clip by clip.
"""
import argparse
import csv
from pathlib import Path

from s3dnerf.inference import TalkingHead
from s3dnerf.media import read_frames, read_sound

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("manifest", type=Path)
parser.add_argument("videos", type=Path)
parser.add_argument("output", type=Path)
parser.add_argument("--split", default="val")
parser.add_argument("--source", default="lrcar")
parser.add_argument("--weights", default="one-shot-256")
parser.add_argument("--every", type=int, default=1, help="take every n-th clip only")
parser.add_argument("--first", type=int, default=0, help="begin with the n-th clip")
parser.add_argument("--mouth-gain", type=float)
parser.add_argument("--shuffled", action="store_true", help="speech of another clip (the control)")
parser.add_argument("--drive", action="store_true", help="drive by the clip's own tracked lips")
options = parser.parse_args()

with options.manifest.open(newline="") as file:
    rows = [row for row in csv.DictReader(file, delimiter="\t")
            if row["split"] == options.split and row["source"] == options.source]
clips = [options.videos / row["file"] for row in rows][options.first::options.every]
options.output.mkdir(parents=True, exist_ok=True)
head = TalkingHead.load(options.weights)
for index, clip in enumerate(clips):
    sound = read_sound(clip)
    if options.shuffled:
        other = read_sound(clips[index - len(clips) // 2])
        sound = other[: len(sound)] if len(other) >= len(sound) else other
    video = head.speak(next(read_frames(clip)), sound, frame="face", pose=clip, mouth_gain=options.mouth_gain,
                       drive=clip if options.drive else None)
    video.save(options.output / f"{clip.stem}.mp4", marks=None)  # what is measured is the model's picture
    print(f"{index + 1}/{len(clips)} {clip.stem}", flush=True)
