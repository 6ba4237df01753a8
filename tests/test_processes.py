"""Two processes train what one with twice the batch trains, and go on where they were killed."""
import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from s3dnerf.cli import main
from s3dnerf.curriculum import Curriculum
from s3dnerf.data.shards import read_people, stored_clips, write_shards

ROOT = Path(__file__).parent.parent
CHANGES = {
    "trainer": {"accelerator": "cpu", "max_steps": 9, "val_check_interval": 4, "log_every_n_steps": 1,
                "num_sanity_val_steps": 0, "enable_progress_bar": False},
    "best": {"monitor": "val/speech_opening_correlation"},  # driven by the face it is 1, and rounding says which is best
    "data": {"init_args": {"steps_per_epoch": 3, "val_clips": None, "size": 64, "frames": 3, "val_frames": 3}},
    "model": {"init_args": {"model": {"init_args": {
        "image_size": 64, "encoder_channels": [8, 8, 8, 8], "plane_channels": 4, "width": 16, "modulation_channels": 6,
        "lattice": [8, 8, 4], "token_channels": 8, "speech_width": 16, "coarse_samples": 4, "fine_samples": 4,
        "feature_channels": 6, "super_resolution_channels": [8, 8]}}}}}
ALONE = {"trainer": {"devices": 1}, "data": {"init_args": {"batch_size": 2, "workers": 0}}}
TOGETHER = {"trainer": {"devices": 2, "strategy": "ddp"}, "data": {"init_args": {"batch_size": 1, "workers": 2}}}


@pytest.fixture(scope="module")
def uneven(shards, tmp_path_factory):
    """Five clips in three shards."""
    folder = tmp_path_factory.mktemp("uneven")
    clips = stored_clips(sorted(shards.glob("*.tar")))
    samples = [(f"clip{number}", clips[number % 4].read()) for number in range(5)]
    write_shards([(key, {ending: content for ending, content in sample.items() if ending[:2] != "__"})
                  for key, sample in samples], folder, "some", clips_per_shard=2)
    np.savez(folder / "people.npz", **read_people(shards))
    assert len(list(folder.glob("*.tar"))) == 3
    return folder


def prepared(folder, changes):
    """What `s3dnerf train` is told to run one short stage: landmarks of motion, three epochs."""
    folder.mkdir()
    (folder / "changes.yaml").write_text(yaml.safe_dump(CHANGES))
    (folder / "processes.yaml").write_text(yaml.safe_dump(changes))
    stage = {"name": "motion", "does": "something", "configs": [str(ROOT / "configs" / "motion.yaml")]}
    (folder / "plan.yaml").write_text(yaml.safe_dump([stage]))
    return [str(ROOT / "configs" / "overlays" / "tiny.yaml"), str(folder / "changes.yaml"), str(folder / "processes.yaml")]


def options(folder, uneven, overlays):
    return ["--train", str(uneven), "--val", str(uneven), "--output", str(folder / "run"), "--plan", str(folder / "plan.yaml"),
            *(word for path in overlays for word in ("--config", path))]


@pytest.fixture(scope="module")
def alone(uneven, tmp_path_factory):
    """The run of one process with the whole batch."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    assert main(["train", *options(folder, uneven, prepared(folder, ALONE))]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def together(uneven, tmp_path_factory):
    """The run of two, by the same one command."""
    folder = tmp_path_factory.mktemp("runs") / "together"
    assert main(["train", *options(folder, uneven, prepared(folder, TOGETHER))]) == 0
    return folder / "run"


def figures(run, kind):
    """The rows of the logs that have figures of a kind."""
    rows = []
    for path in sorted(run.rglob("metrics.csv"), key=lambda path: path.stat().st_mtime):
        with path.open() as file:
            rows += [{name: float(value) for name, value in row.items() if name.startswith(kind) and value}
                     for row in csv.DictReader(file)]
    return [row for row in rows if row]


def alike(first, second, tolerance=1e-5):
    """Whether two rows have the same figures; correlations of openings that hardly move magnify the rounding."""
    rounding = {name: 0.03 if "correlation" in name else tolerance for name in first}
    return all(second[name] == pytest.approx(value, rel=rounding[name], abs=rounding[name]) for name, value in first.items())


def test_two_processes_have_the_losses_and_the_figures_of_one_with_twice_the_batch(alone, together):
    """Three epochs over uneven shards; every validation, of five clips, by two processes with two workers each."""
    for kind, count in (("train/", 9), ("val/", 2)):
        first, second = figures(alone, kind), figures(together, kind)
        assert len(first) == len(second) == count and first[0].keys() == second[0].keys()
        assert all(map(alike, first, second)) and not any(map(alike, first, first[1:]))


def same_state(first, second):
    """Whether two checkpoints are bitwise the same: weights, averages, moments."""
    parts = ("state_dict", "current_model_state", "averaging_state")
    moments = [content["optimizer_states"][0]["state"] for content in (first, second)]
    return (all(torch.equal(first[part][key], second[part][key]) for part in parts for key in first[part])
            and all(torch.equal(moments[0][i]["exp_avg_sq"], moments[1][i]["exp_avg_sq"]) for i in moments[0]))


def test_processes_that_were_killed_go_on_to_the_same_weights(uneven, together, tmp_path):
    """Killed after a checkpoint in the middle of the second epoch, or of the third where the machine is fast; taken up by the
    script that uses torchrun."""
    folder = tmp_path / "killed"
    overlays = prepared(folder, TOGETHER)
    curriculum = Curriculum(str(folder / "plan.yaml"), str(uneven), str(uneven), str(folder / "run"), overlays)
    curriculum._begin()
    words = curriculum._arguments(curriculum.stages["motion"], folder / "run" / "motion")
    last = folder / "run" / "motion" / "last.ckpt"
    process = subprocess.Popen([sys.executable, "-m", "s3dnerf", *words], cwd=ROOT, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    while not last.is_file() and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    cut = torch.load(last, weights_only=False)
    assert cut["global_step"] in (4, 8) and not (folder / "run" / "motion" / "done.json").exists()
    said = subprocess.run(["bash", "scripts/cluster/torchrun.sh", "2", *options(folder, uneven, overlays)], cwd=ROOT, text=True,
                          capture_output=True, timeout=300, env=os.environ | {"PYTHON": sys.executable})
    assert said.returncode == 0, said.stderr
    assert f"goes on from step {cut['global_step']}" in said.stdout
    for name in ("last.ckpt", "best.ckpt"):
        first, second = (torch.load(run / "motion" / name, weights_only=False) for run in (together, folder / "run"))
        assert first["global_step"] == second["global_step"] and same_state(first, second)
    assert not same_state(cut, torch.load(last, weights_only=False)), "there was something left to do"
