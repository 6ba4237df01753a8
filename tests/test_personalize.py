"""From a video to a person: the whole way on a recording that is already prepared, and the preparation by itself."""
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from s3dnerf.data import person_video, recording
from s3dnerf.data.person import read_person
from s3dnerf.errors import InputError
from s3dnerf.inference import TalkingHead
from s3dnerf.marking.metadata import read_comment
from s3dnerf.media import VideoWriter, read_frames, read_image, read_sound
from s3dnerf.models.hub import save_model
from s3dnerf.personalize import PersonCurriculum, personalize
from s3dnerf.systems.person import PersonSystem

ASSETS = Path(__file__).parents[1] / "s3dnerf" / "assets"
TINY = ["configs/person/tiny.yaml"]


@pytest.fixture(scope="module")
def whole(person_shards, tmp_path_factory):
    """The folder of a run; on one thread, so that another one can be compared and processes forked."""
    threads, folder = torch.get_num_threads(), tmp_path_factory.mktemp("person")
    torch.set_num_threads(1)
    (folder / "me.mp4").write_bytes(b"a recording that was prepared before")
    shutil.copytree(person_shards, folder / "me" / "shards")
    personalize(str(folder / "me.mp4"), folder / "me", config=TINY, size=64)
    yield folder / "me"
    torch.set_num_threads(threads)


def test_the_whole_way_and_taken_up_again(whole, tmp_path, capsys):
    figures = json.loads((whole / "figures.json").read_text())
    assert figures["parameters"] > 10_000 and set(figures["stages"]) == {"head", "lips"}
    assert len(list(read_frames(whole / "held_out.mp4"))) == len(list(read_frames(whole / "recording.mp4"))) == 4
    assert (whole / "preview.png").is_file() and len(list(read_frames(whole / "held_out_head.mp4"))) == 4
    assert len(TalkingHead.load(whole).speak(speech=np.zeros(6400, np.float32))) == 10
    personalize(str(whole.parent / "me.mp4"), whole, config=TINY, size=64)
    told = capsys.readouterr().out
    assert "stage 2 of 2, lips: done before" in told and f"s3dnerf speak --weights {whole}" in told
    other = tmp_path / "me.mp4"
    other.write_bytes(b"another recording")
    with pytest.raises(InputError, match="another --video"):
        personalize(str(other), whole, config=TINY, size=64)
    with pytest.raises(InputError, match="another --method and --size"):
        personalize(str(whole.parent / "me.mp4"), whole, "ad-nerf", size=128)
    with pytest.raises(InputError, match="none at all with adapt"):
        personalize(str(other), tmp_path / "new", "adapt", size=128)


def killed(video, output):
    """Runs in a process of its own that is killed between two checkpoints of the first stage, without a chance to write."""
    process = os.fork()
    if process == 0:
        before = PersonSystem.training_step

        def training_step(self, batch, index):
            if self.global_step == 6:
                os.kill(os.getpid(), signal.SIGKILL)
            return before(self, batch, index)

        PersonSystem.training_step = training_step
        try:
            personalize(str(video), output, config=TINY, size=64)
        finally:
            os._exit(1)
    for _ in range(4000):
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return status
        time.sleep(0.1)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(whole, person_shards, tmp_path, capsys):
    video, run = whole.parent / "me.mp4", tmp_path / "me"
    shutil.copytree(person_shards, run / "shards")
    assert killed(video, run) == signal.SIGKILL
    assert (run / "head" / "last.ckpt").is_file() and not (run / "head" / "done.json").exists()
    capsys.readouterr()
    personalize(str(video), run, config=TINY, size=64)
    assert "goes on from step 4" in capsys.readouterr().out
    for name in ("head", "lips"):
        first, second = (torch.load(folder / name / "best.ckpt", weights_only=True) for folder in (whole, run))
        assert first["global_step"] == second["global_step"] and first["figures"] == pytest.approx(second["figures"], rel=1e-4)
        for key, value in first["state_dict"].items():
            torch.testing.assert_close(value, second["state_dict"][key], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method, stages", [("ad-nerf", {"head"}), ("disentangled", {"codes", "head"})])
def test_other_methods_go_the_whole_way(person_shards, tmp_path, method, stages):
    video, output = tmp_path / "me.mp4", tmp_path / "me"
    video.write_bytes(b"a recording that was prepared before")
    shutil.copytree(person_shards, output / "shards")
    size = {"ad-nerf": 32}.get(method)  # the others as their YAML says, 64
    personalize(str(video), output, method, [f"configs/person/{method.replace('-', '_')}_tiny.yaml"], size=size)
    figures = json.loads((output / "figures.json").read_text())
    assert figures["method"] == method and set(figures["stages"]) == stages and figures["parameters"] > 10_000
    shown = list(read_frames(output / "held_out.mp4"))
    assert len(shown) == 4 and shown[0].shape == (size or 64, size or 64, 3) and (output / "preview.png").is_file()
    head = TalkingHead.load(output)
    quiet, loud = (np.stack(list(head.speak(speech=np.zeros(3200, np.float32), mouth_gain=gain))) for gain in (0.0, 9.0))
    assert len(quiet) == 5 and not np.array_equal(quiet, loud)


def test_adapt_s_whole_way(person_shards, tiny_head, tmp_path):
    video, output, small = tmp_path / "me.mp4", tmp_path / "me", tmp_path / "small.yaml"
    video.write_bytes(b"a recording that was prepared before")
    shutil.copytree(person_shards, output / "shards")
    save_model(tiny_head, tmp_path / "one_shot")
    small.write_text(f"model: {{init_args: {{one_shot: {tmp_path / 'one_shot'}}}}}")
    personalize(str(video), output, "adapt", ["configs/person/adapt_tiny.yaml", str(small)])
    figures = json.loads((output / "figures.json").read_text())
    assert figures["method"] == "adapt" and figures["stages"]["adapt"]["figures"]["head_psnr"] > 10
    assert len(list(read_frames(output / "held_out.mp4"))) == 4 and (output / "preview.png").is_file()
    assert read_comment(output / "held_out.mp4")["model"] == "me" and read_comment(output / "recording.mp4") is None
    head = TalkingHead.load(output)
    assert head.model.basis.shift.any() and len(head.speak(speech=np.zeros(6400, np.float32))) == 10


def test_an_unknown_method_lists_what_there_is(tmp_path):
    with pytest.raises(InputError, match="rad-nerf"):
        personalize("me.mp4", tmp_path, method="magic")


def test_outside_the_project_s_folder_the_installed_plans_are_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stages = PersonCurriculum("configs/person/rad_nerf_stages.yaml", tmp_path, tmp_path / "run", ["configs/person/tiny.yaml"])
    assert list(stages.stages) == ["head", "lips"] and all(file.is_file() for file in stages.files(stages.stages["lips"]))
    with pytest.raises(InputError, match="no list of stages configs/person/magic.yaml"):
        PersonCurriculum("configs/person/magic.yaml", tmp_path, tmp_path / "run")


def test_a_video_becomes_one_long_clip(tmp_path, monkeypatch):
    photo = read_image(ASSETS / "demo_photo.jpg")
    with VideoWriter(tmp_path / "me.mp4", 512, 512, sound=(0.1 * np.sin(np.arange(24000) / 20)).astype(np.float32)) as video:
        for shift in range(30):
            video.write(np.roll(photo[:512, :512], shift // 5, 1))
    with pytest.raises(InputError, match="lasts 1.2 s; expected 10 s"):
        person_video.prepare_person(str(tmp_path / "me.mp4"), tmp_path / "shards", 64)
    monkeypatch.setattr(recording, "LEAST", 1.0)
    late = lambda images, landmarks, mel: torch.diag(torch.full((22,), 0.9), 2)[None, :22, :22]
    remarks = person_video.prepare_person(str(tmp_path / "me.mp4"), tmp_path / "shards", 64, lambda: late)
    assert remarks == ["1 s of speech; a minute or more makes better lips", "the sound is 0.08 s late; moved"]
    found = read_person(str(tmp_path / "shards"))
    assert found.frames.shape == (30, 64, 64, 3) and found.sound.shape == (30 * 640,) and found.head.any()
    assert found.body.shape == (30, 4) and (np.load(tmp_path / "shards" / "body.npy") == found.body.numpy()).all()
    sound = read_sound(tmp_path / "me.mp4")
    assert np.abs(found.sound[:28 * 640].numpy() - sound[2 * 640:30 * 640]).max() < 0.01
    assert person_video.prepare_person(str(tmp_path / "me.mp4"), tmp_path / "shards", 64) == []
    (tmp_path / "shards" / "index.json").unlink()  # as if it had been killed before the end
    next((tmp_path / "shards").glob("*.tar")).write_bytes(b"half of it")
    assert person_video.prepare_person(str(tmp_path / "me.mp4"), tmp_path / "shards", 64, lambda: late) == remarks
    assert (read_person(str(tmp_path / "shards")).frames == found.frames).all()


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
