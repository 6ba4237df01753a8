"""Many videos from one table: what is made, tried again, skipped, failed; weights and photos once."""
import csv
import json
import wave
from importlib.resources import files
from inspect import signature

import numpy as np
import pytest
from PIL import Image

from s3dnerf import batch
from s3dnerf.batch import TRIES, Speaker, read_jobs, speak_batch, told
from s3dnerf.cli import main
from s3dnerf.commands import speak
from s3dnerf.errors import InputError
from s3dnerf.media import read_frames, video_info
from s3dnerf.models.hub import save_model

DEFAULTS = {name: parameter.default for name, parameter in signature(speak).parameters.items() if name != "batch"}


def table(folder, *rows):
    """Writes rows, the first of which names the columns."""
    with (folder / "jobs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return str(folder / "jobs.csv")


def summary(folder):
    with (folder / "jobs.summary.csv").open(newline="") as file:
        return [(row["status"], int(row["tries"]), int(row["frames"]), row["message"]) for row in csv.DictReader(file)]


class Maker:
    """Notes the options that it gets, writes the outputs, and fails as often as it is told."""

    def __init__(self, **failures):
        self.failures, self.calls = failures, []

    def __call__(self, options):
        self.calls.append(options)
        left = self.failures.get(options["speech"], [])
        if left:
            raise left.pop()
        with open(options["output"], "w") as file:
            file.write("made")
        return {"frames": 7}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(batch, "PAUSE", 0.0)


def test_rows_replace_options_and_empty_cells_leave_them(tmp_path):
    make = Maker()
    path = table(tmp_path, ("speech", "output", "seed", "--mouth-gain", "label", "unmarked"),
                 ("a.wav", tmp_path / "1.mp4", "3", "", "Made up", ""), ("b.wav", tmp_path / "2.mp4", "", "2.5", "", "true"))
    assert speak_batch(DEFAULTS | {"seed": 9, "photo": "face.jpg"}, path, make) == 0
    first, second = make.calls
    assert set(first) == set(DEFAULTS)
    assert (first["seed"], first["mouth_gain"], first["label"], first["unmarked"]) == (3, None, "Made up", False)
    assert (second["seed"], second["mouth_gain"], second["label"], second["unmarked"]) == (9, 2.5, False, True)
    assert {call["photo"] for call in make.calls} == {"face.jpg"}


def test_failures_do_not_stop_the_rest_and_only_accidents_are_tried_again(tmp_path, capsys):
    accident = lambda: RuntimeError("out of\nmemory")
    make = Maker(once=[accident()], always=[accident() for _ in range(TRIES)], mistake=[InputError("no face was found")])
    path = table(tmp_path, ("speech", "output", "seed"), *((name, tmp_path / f"{name}.mp4", seed) for name, seed in (
        ("once", 0), ("always", 0), ("mistake", 0), ("typing", "many"), ("fine", 0))))
    assert speak_batch(DEFAULTS, path, make) == 1
    found = summary(tmp_path)
    assert [line[:3] for line in found] == [("done", 2, 7), ("failed", TRIES, 0), ("failed", 1, 0), ("failed", 1, 0), ("done", 1, 7)]
    assert found[1][3] == "RuntimeError: out of memory" and found[2][3] == "no face was found" and "--seed" in found[3][3]
    out = capsys.readouterr().out
    assert "2 done, 0 skipped, 3 failed" in out and out.count("RuntimeError: out of memory") == 1


def test_the_same_table_again_makes_only_what_is_missing(tmp_path):
    path = table(tmp_path, ("speech", "output"), ("a", tmp_path / "a.mp4"), ("b", tmp_path / "b.mp4"))
    assert speak_batch(DEFAULTS, path, Maker(b=[InputError("damaged")])) == 1
    again = Maker()
    assert speak_batch(DEFAULTS, path, again) == 0
    assert [call["speech"] for call in again.calls] == ["b"]
    assert [line[0] for line in summary(tmp_path)] == ["skipped", "done"]


def test_an_interruption_ends_it_and_leaves_the_summary(tmp_path):
    path = table(tmp_path, ("speech", "output"), ("a", tmp_path / "a.mp4"), ("b", tmp_path / "b.mp4"), ("c", tmp_path / "c.mp4"))
    with pytest.raises(KeyboardInterrupt):
        speak_batch(DEFAULTS, path, Maker(b=[KeyboardInterrupt()]))
    assert [line[0] for line in summary(tmp_path)] == ["done", "waiting", "waiting"]


@pytest.mark.parametrize("rows,word", [
    ([("speech", "output", "moth_gain"), ("a", "a.mp4", "1")], "moth_gain"), ([("speech", "batch"), ("a", "b")], "'batch'"),
    ([("speech", "output")], "no rows"), ([("speech", "output"), ("a", "")], "row 1"),
    ([("speech", "output"), ("a", "x.mp4"), ("b", "./x.mp4")], "rows 1 and 2")])
def test_a_table_that_cannot_be_meant_is_refused_before_anything_is_made(tmp_path, rows, word):
    make = Maker()
    with pytest.raises(InputError, match=word):
        speak_batch(DEFAULTS, table(tmp_path, *rows), make)
    assert not make.calls and not (tmp_path / "jobs.summary.csv").exists()


def test_what_is_no_text_is_no_table(tmp_path):
    (tmp_path / "jobs.csv").write_bytes(b"output\n\xff\xfe\x00")
    with pytest.raises(InputError, match="CSV"):
        read_jobs(str(tmp_path / "jobs.csv"))


def test_the_table_that_is_printed_has_its_columns_in_line(tmp_path):
    jobs = read_jobs(table(tmp_path, ("output",), ("a.mp4",), ("a longer name.mp4",)))
    lines = told(jobs).splitlines()
    assert {line.index(word) for line, word in zip(lines, ("status", "waiting", "waiting"))} == {lines[0].index("status")}


def test_the_whole_way_loads_weights_and_looks_at_a_photo_once(tmp_path, tiny_head, monkeypatch):
    """Three real videos by the command line: two of one photo, one of another; and one row whose sound is missing."""
    from s3dnerf.data.tracking import FaceTracker
    from s3dnerf.inference import TalkingHead

    calls = []
    for home, name in ((FaceTracker, "portrait"), (TalkingHead, "load")):
        kept = getattr(home, name)
        monkeypatch.setattr(home, name, lambda *parts, _kept=kept, _name=name: calls.append(_name) or _kept(*parts))
    save_model(tiny_head, tmp_path / "weights")
    photo = Image.open(files("s3dnerf") / "assets" / "demo_photo.jpg")
    photo.save(tmp_path / "one.png")
    photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "two.png")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 4000, "NONE", ""))
        file.writeframes((np.sin(np.arange(4000) / 9) * 9000).astype("<i2").tobytes())
    rows = [(tmp_path / f"{photo}.png", tmp_path / f"{speech}.wav", tmp_path / f"{name}.mp4", seed) for photo, speech, name, seed in (
        ("one", "a", "1", 0), ("one", "a", "2", 5), ("two", "a", "3", 0), ("one", "none", "4", 0))]
    path = table(tmp_path, ("photo", "speech", "output", "seed"), *rows)
    assert main(["speak", "--batch", path, "--weights", str(tmp_path / "weights"), "--frame", "face"]) == 1
    assert [line[0] for line in summary(tmp_path)] == ["done"] * 3 + ["failed"]
    assert calls == ["load", "portrait", "portrait"]
    alone = main(["speak", "--weights", str(tmp_path / "weights"), "--frame", "face", "--seed", "5", "--photo", str(rows[1][0]),
                  "--speech", str(rows[1][1]), "--output", str(tmp_path / "alone.mp4")])
    frames = [np.stack(list(read_frames(tmp_path / name))) for name in ("alone.mp4", "2.mp4", "3.mp4")]
    assert alone == 0 and np.array_equal(frames[0], frames[1]) and not np.array_equal(frames[0], frames[2])


def test_the_line_at_the_end_tells_the_size_of_the_file_and_the_quality_that_was_chosen(tmp_path, tiny_head, capsys, monkeypatch):
    monkeypatch.setattr("s3dnerf.inference.keeping_up", lambda frames, workers: "balanced")
    save_model(tiny_head, tmp_path / "weights")
    pixels = np.asarray(Image.open(files("s3dnerf") / "assets" / "demo_photo.jpg").convert("RGB"))
    Image.fromarray(pixels[:401, :403]).save(tmp_path / "odd.png")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 4000, "NONE", ""))
        file.writeframes((np.sin(np.arange(4000) / 9) * 9000).astype("<i2").tobytes())
    options = {"weights": "weights", "photo": "odd.png", "speech": "a.wav", "output": "out.mp4"}
    words = [word for name, file in options.items() for word in (f"--{name}", str(tmp_path / file))]
    assert main(["speak", *words, "--quality", "auto", "--identity-cache", "off", "--json", str(tmp_path / "told.json")]) == 0
    found, told = video_info(tmp_path / "out.mp4"), json.loads((tmp_path / "told.json").read_text())
    assert (found.width, found.height) == (told["width"], told["height"]) == (404, 402)
    assert "out.mp4: 6 frames, 404 x 402, balanced quality, " in capsys.readouterr().out


def test_photos_are_kept_up_to_a_bound(tmp_path):
    class Head:
        def identify(self, photo):
            made.append(photo)
            return object()

    head, speaker, made = Head(), Speaker(identities=2), []
    for name in "abc":
        (tmp_path / name).write_text(name)
    for name in "abacab":
        speaker.identity(head, str(tmp_path / name))
    assert [path[-1] for path in made] == ["a", "b", "c", "b"] and len(speaker.seen) == 2
    assert Speaker().identity(head, "a") == "a" and speaker.identity(head, None) is None
