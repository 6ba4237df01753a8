"""The trial of the watermark counts what is found in marked videos and in plain ones."""
import csv
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from s3dnerf.media import VideoWriter, read_image, read_sound
from s3dnerf.models.hub import save_model

ROOT = Path(__file__).parents[2]


def trial(folder, *words):
    done = subprocess.run([sys.executable, ROOT / "scripts" / "watermark_trial.py", folder / "a.tsv", folder, folder / "a.json",
                           "--recordings", "2", "--generated", "0", *map(str, words)], cwd=ROOT, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / "a.json").read_text())


def test_marks_are_found_and_lost_where_nothing_can_be_left(tmp_path, tiny_head):
    photo = read_image(files("s3dnerf") / "assets" / "demo_photo.jpg")
    save_model(tiny_head, tmp_path / "weights")
    speech = read_sound(files("s3dnerf") / "assets" / "demo_speech.wav")[:8000]
    with VideoWriter(tmp_path / "a.mp4", 256, 256, sound=speech) as writer:
        for index in range(8):
            writer.write(photo[20:276, 100 + index:356 + index])
    with (tmp_path / "a.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([("file", "split", "source"), ("a.mp4", "val", "lrcar"), ("a.mp4", "train", "grid")])
    told = trial(tmp_path, "--crf", "18", "--generated", "1", "--weights", tmp_path / "weights")
    easy = told["total"]
    assert (easy["videos"], easy["found"], easy["read"], easy["false"]) == (3, 3, 3, 0) and easy["least_psnr"] > 40
    assert {kind: sums["videos"] for kind, sums in told["kinds"].items()} == {"generated full": 1, "recording 256": 2}
    hard = trial(tmp_path, "--crf", "48")["total"]
    assert (hard["found"], hard["read"], hard["false"]) == (0, 0, 0)
