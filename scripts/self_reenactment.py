#!/usr/bin/env python3
"""Makes every clip of a manifest's split again from its own first frame: `self_reenactment.py --help`.

The first frame is the photo, the clip's own sound the speech (or, with --shuffled, the sound of the clip half the list away:
neighbours in a list of single words may say the same word), the clip's own head motion the pose. With --truth the recordings
are written too, cut as the videos are: `s3dnerf evaluate` compares the two folders.
"""
import argparse
import csv
from itertools import islice
from pathlib import Path

from s3dnerf.data.cropping import cut
from s3dnerf.data.tracking import FaceTracker
from s3dnerf.inference import TalkingHead
from s3dnerf.media import VideoWriter, frame_count, read_frames, read_sound

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
parser.add_argument("--still", action="store_true", help="the photo itself, for as long as the clip (the other control)")
parser.add_argument("--truth", type=Path, help="folder for the recordings, cut to the same square")
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


with options.manifest.open(newline="") as file:
    rows = [row for row in csv.DictReader(file, delimiter="\t")
            if row["split"] == options.split and row["source"] == options.source]
clips = [options.videos / row["file"] for row in rows][options.first::options.every]
for folder in filter(None, (options.output, options.truth)):
    folder.mkdir(parents=True, exist_ok=True)
head = TalkingHead.load(options.weights)
for index, clip in enumerate(clips):
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
        other = read_sound(clips[index - len(clips) // 2])
        sound = other[: len(sound)] if len(other) >= len(sound) else other
    video = head.speak(photo, sound, frame="face", pose=clip, mouth_gain=options.mouth_gain,
                       drive=clip if options.drive else None)
    video.save(options.output / f"{clip.stem}.mp4", marks=None)  # what is measured is the model's picture
    print(f"{index + 1}/{len(clips)} {clip.stem}", flush=True)
