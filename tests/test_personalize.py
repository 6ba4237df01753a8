"""From a video to a person: the whole way on a recording that is already prepared, and the preparation by itself."""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from s3dnerf.data import person_video
from s3dnerf.data.person import read_person
from s3dnerf.errors import InputError
from s3dnerf.inference import TalkingHead
from s3dnerf.media import VideoWriter, read_frames, read_image
from s3dnerf.models.hub import save_model
from s3dnerf.personalize import personalize

ASSETS = Path(__file__).parents[1] / "s3dnerf" / "assets"
TINY = ["configs/person/tiny.yaml"]


def test_the_whole_way_and_taken_up_again(person_shards, tmp_path, capsys):
    video, output = tmp_path / "me.mp4", tmp_path / "me"
    video.write_bytes(b"a recording that was prepared before")
    shutil.copytree(person_shards, output / "shards")
    personalize(str(video), output, config=TINY, size=64)
    told = capsys.readouterr().out
    assert "stage 2 of 2, lips" in told and f"s3dnerf speak --weights {output}" in told
    figures = json.loads((output / "figures.json").read_text())
    assert figures["parameters"] > 10_000 and set(figures["stages"]) == {"head", "lips"}
    assert len(list(read_frames(output / "held_out.mp4"))) == len(list(read_frames(output / "recording.mp4"))) == 4
    assert (output / "preview.png").is_file()
    assert len(TalkingHead.load(output).speak(speech=np.zeros(6400, np.float32))) == 10
    personalize(str(video), output, config=TINY, size=64)
    assert "done before" in capsys.readouterr().out
    video.write_bytes(b"another recording")
    with pytest.raises(InputError, match="another --video"):
        personalize(str(video), output, config=TINY, size=64)


def test_adapt_s_whole_way(person_shards, tiny_head, tmp_path):
    video, output, small = tmp_path / "me.mp4", tmp_path / "me", tmp_path / "small.yaml"
    video.write_bytes(b"a recording that was prepared before")
    shutil.copytree(person_shards, output / "shards")
    save_model(tiny_head, tmp_path / "one_shot")
    small.write_text(f"model: {{init_args: {{one_shot: {tmp_path / 'one_shot'}}}}}")
    personalize(str(video), output, "adapt", ["configs/person/adapt_tiny.yaml", str(small)], 64)
    figures = json.loads((output / "figures.json").read_text())
    assert figures["method"] == "adapt" and figures["stages"]["adapt"]["figures"]["head_psnr"] > 10
    assert len(list(read_frames(output / "held_out.mp4"))) == 4 and (output / "preview.png").is_file()
    head = TalkingHead.load(output)
    assert head.model.basis.shift.any() and len(head.speak(speech=np.zeros(6400, np.float32))) == 10


def test_an_unknown_method_lists_what_there_is(tmp_path):
    with pytest.raises(InputError, match="rad-nerf"):
        personalize("me.mp4", tmp_path, method="magic")


def test_a_video_becomes_one_long_clip(tmp_path, monkeypatch):
    photo = read_image(ASSETS / "demo_photo.jpg")
    with VideoWriter(tmp_path / "me.mp4", 512, 512, sound=(0.1 * np.sin(np.arange(24000) / 20)).astype(np.float32)) as video:
        for shift in range(30):
            video.write(np.roll(photo[:512, :512], shift // 5, 1))
    with pytest.raises(InputError, match="1.2 s without a cut; expected 10 s"):
        person_video.prepare_person(str(tmp_path / "me.mp4"), tmp_path / "shards", 64)
    monkeypatch.setattr(person_video, "LEAST", 1.0)
    remarks = person_video.prepare_person(str(tmp_path / "me.mp4"), tmp_path / "shards", 64)
    assert remarks == ["1 s of speech; a minute or more makes better lips"]
    found = read_person(str(tmp_path / "shards"))
    assert found.frames.shape == (30, 64, 64, 3) and found.sound.shape == (30 * 640,) and found.head.any()
    assert person_video.prepare_person(str(tmp_path / "me.mp4"), tmp_path / "shards", 64) == []


def test_the_plate_is_what_is_seen_while_the_person_is_away():
    frames = np.full((12, 32, 32, 3), 90, np.uint8)
    person = np.zeros((12, 8, 8), bool)
    for time in range(12):  # somebody walks through, and a lamp flickers once
        person[time, :, time % 6] = True
        frames[time][:, 4 * (time % 6):4 * (time % 6) + 4] = 255
    frames[5, :4, 24:] = 0
    person[:, 6:, 7] = True  # never seen
    frames[:, 24:, 28:] = 255
    plate = person_video.median_plate(frames, person)
    assert (plate[:20, :] == 90).all() and np.abs(plate[24:, 28:].astype(int) - 90).max() < 12
