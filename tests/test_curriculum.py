"""All stages by one command: from shards to a bundle that speaks, cut and taken up again, and below the gate."""
import json
import os
import signal
import subprocess
import sys
import time
import wave
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from s3dnerf.cli import main
from s3dnerf.curriculum import Curriculum, duration, read_stages
from s3dnerf.data.shards import read_people
from s3dnerf.errors import InputError
from s3dnerf.media import read_frames
from s3dnerf.models.hub import load_lip_sync, load_model
from s3dnerf.systems import MotionSystem

ROOT = Path(__file__).parent.parent
PLAN = ROOT / "configs" / "stages.yaml"
QUICK = [str(ROOT / "configs" / name) for name in ("motion.yaml", "overlays/speech.yaml")]
SMALL = {"model": {"init_args": {"model": {"init_args": {"image_size": 64, "encoder_channels": [8, 8, 8, 8]}}}},
         "data": {"init_args": {"size": 64}}}
STAGES = ["lip_sync", "judge", "speech", "motion", "static", "dynamic", "sync", "full", "adversarial"]


@pytest.fixture(scope="module")
def people(shards, tmp_path_factory):
    """The session's shards with the second person renamed, so that there is one of each half."""
    import webdataset as wds

    folder, other = tmp_path_factory.mktemp("people"), {"synthetic_p000_001": "synthetic_p000_002"}
    with wds.TarWriter(str(folder / "a.tar")) as writer:
        for sample in wds.WebDataset([str(path) for path in sorted(shards.glob("*.tar"))], shardshuffle=False):
            info = json.loads(sample["json"])
            sample["json"] = json.dumps(info | {"person": other.get(info["person"], info["person"])}).encode()
            writer.write({name: value for name, value in sample.items() if name == "__key__" or name[0] != "_"})
    np.savez(folder / "people.npz", **{other.get(name, name): mesh for name, mesh in read_people(shards).items()})
    return folder


def command(folder, shards, *options, overlays=(), changes=SMALL):
    """`s3dnerf train` on synthetic shards, as small as it goes."""
    path = folder.parent / "changes.yaml"
    path.write_text(yaml.safe_dump(changes))
    stacked = [str(ROOT / "configs" / "overlays" / f"{name}.yaml") for name in ("tiny", "smoke", *overlays)] + [str(path)]
    return ["train", "--train", str(shards), "--val", str(shards), "--output", str(folder),
            *(word for name in stacked for word in ("--config", name)), *map(str, options)]


def plan(folder, *stages):
    """A list of stages that teach the speech encoder, which is quick."""
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump([{"name": name, "does": "something", "configs": QUICK} | more for name, more in stages]))
    return path


def test_from_shards_to_a_bundle_that_speaks(people, tmp_path, capfd):
    run = tmp_path / "run"
    assert main(command(run, people, "--plan", PLAN, "--gate", "off")) == 0
    said = [line for line in capfd.readouterr().out.splitlines() if line.startswith("stage")]
    assert [line.split(",")[1].split(":")[0].strip() for line in said] == [name for name in STAGES for _ in range(2)]
    assert "at most 4 steps" in said[0] and "4 steps in" in said[1] and "auc 0." in said[1]
    found = json.loads((run / "figures.json").read_text())
    assert list(found["stages"]) == STAGES and found["gates"]["lip_sync"]["strength"] == 1
    assert found["stages"]["sync"]["figures"]["speech_psnr"] > 10

    taught, judging = (torch.load(run / name / "best.ckpt", weights_only=True) for name in ("lip_sync", "judge"))
    assert not any(torch.equal(value, judging["state_dict"][name]) for name, value in taught["state_dict"].items()
                   if name.startswith("model.") and name.endswith("weight") and value.ndim > 1)
    kept, used = load_lip_sync(run / "bundle"), torch.load(run / "full" / "best.ckpt", weights_only=True)["current_model_state"]
    for name, value in kept.state_dict().items():
        assert torch.equal(value, taught["state_dict"][f"model.{name}"]) and torch.equal(value, used[f"expert.{name}"])
    for earlier, later, frozen in (("speech", "motion", "speech"), ("motion", "static", "deformation")):
        first, second = (torch.load(run / name / "best.ckpt", weights_only=True)["state_dict"] for name in (earlier, later))
        same = [torch.allclose(first[name], second[name], atol=1e-6) for name in first if name.startswith(f"model.{frozen}.")]
        assert all(same) and not all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)
    whole = load_model(run / "bundle").state_dict()
    last = torch.load(run / "adversarial" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, last[f"model.{name}"]) for name, value in whole.items())
    speak(run / "bundle", tmp_path)


def speak(bundle, folder):
    with wave.open(str(folder / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 8000, "NONE", ""))
        file.writeframes((np.random.default_rng(0).normal(0, 3000, 8000)).astype("<i2").tobytes())
    photo = str(files("s3dnerf") / "assets" / "demo_photo.jpg")
    assert main(["speak", "--photo", photo, "--speech", str(folder / "a.wav"), "--weights", str(bundle), "--frame", "face",
                 "--output", str(folder / "out.mp4")]) == 0
    assert len(list(read_frames(folder / "out.mp4"))) == 13


def test_stages_start_from_the_best_of_those_before(people, tmp_path):
    """With a rate of 0 a stage ends where it starts, and so do those after it, also over one that is left out."""
    still = {"model": {"init_args": {"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}}}}}
    changes = {**SMALL, "model": {"init_args": SMALL["model"]["init_args"] | still["model"]["init_args"]},
               "trainer": {"max_steps": 1, "val_check_interval": 1}}
    path = plan(tmp_path, ("a", {}), ("b", {"init_from": {"": "a"}}), ("c", {"init_from": {"": "b"}}))
    arguments = command(tmp_path / "run", people, "--plan", path, changes=changes | {"seed_everything": 3})
    assert main([*arguments, "--stages", "a", "--stages", "c"]) == 0
    first, third = (torch.load(tmp_path / "run" / name / "best.ckpt", weights_only=True)["state_dict"] for name in "ac")
    assert all(torch.equal(first[name], third[name]) for name in first) and not (tmp_path / "run" / "b").exists()


class Cut(KeyboardInterrupt):
    pass


def cut(monkeypatch, step):
    """Training is interrupted in the middle of that step of the second stage."""
    before = MotionSystem.training_step

    def training_step(self, clip, index):
        if self.global_step == step and "b" in Path(self.trainer.log_dir).parts:
            raise Cut
        return before(self, clip, index)

    monkeypatch.setattr(MotionSystem, "training_step", training_step)


def test_a_run_that_was_cut_ends_as_one_that_was_not(people, tmp_path, monkeypatch, capfd):
    """Cut between validations, in the middle of an epoch: weights, averages, moments, bitwise the same, plateau and best too."""
    changes = SMALL | {"trainer": {"max_steps": 6, "val_check_interval": 2}, "data": {"init_args": {"size": 64, "steps_per_epoch": 3}}}
    path = plan(tmp_path, ("a", {}), ("b", {"init_from": {"": "a"}}))
    runs = [tmp_path / name / "run" for name in ("whole", "cut")]
    for run in runs:
        run.parent.mkdir()
    assert main(command(runs[0], people, "--plan", path, changes=changes)) == 0
    with monkeypatch.context() as patch:
        cut(patch, 5)
        assert main(command(runs[1], people, "--plan", path, changes=changes)) == 130
    assert [(runs[1] / name / "done.json").is_file() for name in "ab"] == [True, False]
    stamp = (runs[1] / "a" / "best.ckpt").stat().st_mtime_ns
    capfd.readouterr()
    assert main(command(runs[1], people, "--plan", path, changes=changes)) == 0
    said = capfd.readouterr().out
    assert "a: done before, 6 steps" in said and "goes on from step 4" in said
    assert (runs[1] / "a" / "best.ckpt").stat().st_mtime_ns == stamp
    for name in ("last.ckpt", "best.ckpt"):
        first, second = (torch.load(run / "b" / name, weights_only=False) for run in runs)
        assert first["global_step"] == second["global_step"] and first["figures"] == pytest.approx(second["figures"], rel=1e-5)
        for part in ("state_dict", "current_model_state", "averaging_state"):
            assert all(torch.equal(first[part][key], second[part][key]) for key in first[part])
        moments = [content["optimizer_states"][0]["state"] for content in (first, second)]
        assert all(torch.equal(moments[0][i]["exp_avg"], moments[1][i]["exp_avg"]) for i in moments[0])
        scores = [[float(state.get("best_model_score", state.get("best_score"))) for state in content["callbacks"].values()
                   if "best_score" in state or state.get("monitor")] for content in (first, second)]
        assert len(scores[0]) == 2 and scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_a_run_that_is_terminated_says_one_line_and_leaves_no_halves(people, tmp_path):
    changes = SMALL | {"trainer": {"max_steps": 100000, "val_check_interval": 2}}
    words = command(tmp_path / "run", people, "--plan", plan(tmp_path, ("a", {})), changes=changes)
    process = subprocess.Popen([sys.executable, "-m", "s3dnerf", *words], cwd=ROOT, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not (tmp_path / "run" / "a" / "last.ckpt").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=240)[1]
    assert process.returncode == 143 and said == "s3dnerf: terminated\n"
    torch.load(tmp_path / "run" / "a" / "last.ckpt", weights_only=True)
    assert not list((tmp_path / "run").rglob("*.part")) and not (tmp_path / "run" / "a" / "done.json").exists()


LAUNCHER = """#!/bin/sh
echo "$$ $@" > "{folder}/started"
{then}
"""


def launcher(folder, then):
    """A command that starts no process, but notes that it was asked to."""
    (folder / "launcher").write_text(LAUNCHER.format(folder=folder, then=then))
    (folder / "launcher").chmod(0o755)
    return f"{folder}/launcher --processes 8"


def test_a_stage_is_started_by_the_launcher_and_its_failure_is_told(people, tmp_path, capfd):
    words = command(tmp_path / "run", people, "--plan", plan(tmp_path, ("a", {})), "--launch", launcher(tmp_path, "exit 3"))
    assert main(words) == 2
    told = capfd.readouterr().err
    assert told.count("\n") == 1 and "stage a ended with status 3" in told and "last checkpoint" in told
    asked = (tmp_path / "started").read_text().split()[1:]
    assert asked[:6] == ["--processes", "8", "-m", "s3dnerf", "fit", "--config"]
    assert not (tmp_path / "run" / "a" / "done.json").exists()


def test_a_run_that_is_terminated_ends_what_it_started(people, tmp_path):
    words = command(tmp_path / "run", people, "--plan", plan(tmp_path, ("a", {})), "--launch", launcher(tmp_path, "sleep 600"))
    process = subprocess.Popen([sys.executable, "-m", "s3dnerf", *words], cwd=ROOT, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "started").is_file() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=240)[1] == "s3dnerf: terminated\n" and process.returncode == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "started").read_text().split()[0]), 0)


def reached(folder, **figures):
    """Notes in a run's folder that its expert is done."""
    (folder / "lip_sync").mkdir(parents=True, exist_ok=True)
    (folder / "lip_sync" / "done.json").write_text(json.dumps({"steps": 1, "seconds": 1.0, "figures": figures}))


@pytest.mark.parametrize("auc, offset, gate, expected", [
    (0.93, 1, "reduce", 1.0), (0.9, 0, "reduce", 1.0), (0.8, 1, "reduce", 0.75), (0.5, 0, "reduce", 0.0), (0.4, 0, "reduce", 0.0),
    (0.95, 2, "reduce", 0.0), (0.6, 4, "off", 1.0)])
def test_below_the_gate_the_expert_weighs_less(auc, offset, gate, expected, people, tmp_path):
    reached(tmp_path, auc=auc, offset_median=offset)
    curriculum = Curriculum(str(PLAN), str(people), str(people), str(tmp_path), gate=gate)
    assert curriculum.strength("lip_sync") == pytest.approx(expected)
    for name in ("dynamic", "sync"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "done.json").write_text((tmp_path / "lip_sync" / "done.json").read_text())
    words = curriculum._arguments(curriculum.stages["full"], tmp_path / "full")
    weight = float(words[words.index("--model.init_args.objective.lip_sync") + 1])
    assert weight == pytest.approx(0.03 * expected)
    assert words[words.index("--model.init_args.lip_sync") + 1] == str(tmp_path / "lip_sync" / "best.ckpt")


def test_the_gate_is_told_in_one_line_or_stops(people, tmp_path, capsys):
    reached(tmp_path / "run", auc=0.81, offset_median=1.0)
    stages = [entry for entry in yaml.safe_load(PLAN.read_text()) if entry["name"] in ("lip_sync", "sync")]
    for entry in stages:
        entry["configs"] = [str(PLAN.parent / name) for name in entry["configs"]]
        entry.pop("init_from", None)
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(stages))
    words = ["train", "--train", str(people), "--val", str(people), "--output", str(tmp_path / "run"), "--plan", str(path)]
    assert main([*words, "--stages", "lip_sync", "--gate", "stop"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "AUC 0.810" in said and "at least 0.90" in said and "--gate reduce" in said
    Curriculum(str(path), *words[2:5:2], str(tmp_path / "run"))._check_gate(read_stages(path)[0])
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "multiplied by 0.78" in said
    reached(tmp_path / "run", auc=0.81, offset_median=3.0)
    Curriculum(str(path), *words[2:5:2], str(tmp_path / "run"))._check_gate(read_stages(path)[0])
    assert "left out" in capsys.readouterr().out


def test_a_stage_whose_expert_does_not_count_is_left_out(people, tmp_path, capsys):
    path = plan(tmp_path, ("lip_sync", {"gate": {"auc": 0.9, "offset_median": 1}}),
                ("sync", {"expert": "lip_sync", "optional": True}))
    words = command(tmp_path / "run", people, "--plan", path, "--stages", "sync")
    assert main(words) == 0
    assert "sync: left out" in capsys.readouterr().out and not (tmp_path / "run" / "sync").exists()


@pytest.mark.parametrize("options, told", [
    (["--stages", "statik"], "no stage 'statik'"), (["--stages", "static"], "not trained"), (["--plan", "nowhere.yaml"], "--plan"),
    (["--config", "nowhere.yaml"], "nowhere.yaml"), (["--config", "machines.yaml"], "--launch"),
    (["--train", "nowhere"], "no shards"), (["--gate", "open"], "reduce")])
def test_mistakes_are_one_line(options, told, people, tmp_path, capsys):
    (tmp_path / "machines.yaml").write_text("trainer: {num_nodes: 2}")
    options = [str(tmp_path / word) if word == "machines.yaml" else word for word in options]
    words = command(tmp_path / "run", people, *([] if "--plan" in options else ["--plan", PLAN]), *options)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and told in said


def test_a_folder_belongs_to_one_command(people, shards, tmp_path, capsys):
    path = plan(tmp_path, ("a", {}))
    Curriculum(str(path), str(people), str(people), str(tmp_path / "run"))._begin()
    Curriculum(str(path), str(people), str(people), str(tmp_path / "run"), gate="stop")._begin()
    with pytest.raises(InputError, match="another --train"):
        Curriculum(str(path), str(shards), str(people), str(tmp_path / "run"))._begin()
    with pytest.raises(InputError, match="another --config"):
        Curriculum(str(path), str(people), str(people), str(tmp_path / "run"), QUICK)._begin()


@pytest.mark.parametrize("entry, told", [({"name": "a", "does": "b"}, "expected name, does, configs"),
                                         ({"name": "a", "does": "b", "configs": [], "expert": "c"}, "no earlier stage")])
def test_lists_of_stages_are_checked(entry, told, tmp_path):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump([entry]))
    with pytest.raises(InputError, match=told):
        read_stages(tmp_path / "a.yaml")


def test_experts_take_no_sizes_of_a_talking_head(people, tmp_path):
    tiny = str(ROOT / "configs" / "overlays" / "tiny.yaml")
    curriculum = Curriculum(str(PLAN), str(people), str(people), str(tmp_path), [tiny])
    assert curriculum.setting(curriculum.stages["judge"], "trainer.max_steps") == 400
    assert curriculum.setting(curriculum.stages["judge"], "model.init_args.model.init_args.image_size") == 0
    assert curriculum.setting(curriculum.stages["full"], "model.init_args.model.init_args.image_size") == 128


def test_durations_in_words():
    assert [duration(seconds) for seconds in (48.2, 720, 12000)] == ["48 s", "12 min", "3 h 20 min"]
