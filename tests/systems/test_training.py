"""Every experiment trains, resumes exactly, and teaches what it is there to teach."""
import csv
from pathlib import Path

import pytest
import torch
import yaml

from s3dnerf.cli import main
from s3dnerf.models.hub import load_model

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
OVERLAYS = sorted(path.stem for path in (ROOT / "configs" / "overlays").glob("*.yaml"))
SMALL = ["--model.init_args.model.init_args.image_size", "64",
         "--model.init_args.model.init_args.encoder_channels", "[8, 8, 8, 8]"]


def fit(experiment, shards, folder, *options, overlays=("tiny", "smoke"), small=True):
    """Runs `s3dnerf fit` on synthetic shards and returns the folder of the run."""
    args = ["fit", "--config", str(ROOT / f"configs/{experiment}.yaml")]
    if experiment == "lip_sync":
        overlays, small = tuple(o for o in overlays if o != "tiny"), False
    for overlay in overlays:
        args += ["--config", str(ROOT / f"configs/overlays/{overlay}.yaml")]
    args += ["--data.init_args.train", str(shards), "--data.init_args.val", str(shards)]
    args += (SMALL if small else []) + list(options)
    if not any("logger" in option for option in options) and "wandb" not in overlays:
        args += ["--trainer.logger.init_args.save_dir", str(folder)]
    assert main(args) == 0
    return folder


def figures(folder):
    path = max(folder.rglob("metrics.csv"), key=lambda p: p.stat().st_mtime)
    with path.open() as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def wandb_records(path):
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    store, records = DataStore(), []
    store.open_for_scan(str(path))
    while (data := store.scan_data()) is not None:
        record = Record()
        record.ParseFromString(data)
        records.append(record)
    return records


def checkpoint(folder, pattern="last.ckpt"):
    return max(folder.rglob(pattern), key=lambda p: p.stat().st_mtime)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_trains_validates_and_keeps_a_checkpoint(experiment, shards, tmp_path):
    options = ["--data.init_args.frames", "8"] if experiment == "lip_sync" else []
    folder = fit(experiment, shards, tmp_path, "--trainer.callbacks.every_n_train_steps", "2", *options) \
        if experiment == "lip_sync" else fit(experiment, shards, tmp_path, *options)
    rows = figures(folder)
    assert any("train/total" in row for row in rows)
    assert any(name.startswith("val/") for row in rows for name in row)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_is_yaml_that_names_known_things(overlay):
    content = yaml.safe_load((ROOT / f"configs/overlays/{overlay}.yaml").read_text())
    assert set(content) <= {"trainer", "model", "data", "seed_everything"}


def test_the_speech_overlay_trains_without_a_picture(shards, tmp_path):
    rows = figures(fit("motion", shards, tmp_path, overlays=("speech", "tiny", "smoke")))
    assert {"train/code", "train/total"} <= {name for row in rows for name in row}
    assert not any("train/offset" in row for row in rows)


def test_speech_driven_steps_know_landmarks_and_the_lip_discriminator_but_no_pixels(shards, tmp_path):
    always = ["--model.init_args.face_share", "0.0", "--model.init_args.lip_windows", "1.0",
              "--model.init_args.full_frames", "0.0", "--model.init_args.window", "32"]
    fit("one_shot", shards, tmp_path, "--model.init_args.lip_sync", "one-shot-256", "--data.init_args.frames", "5", *always,
        overlays=("sync", "tiny", "smoke"))
    terms = {name for row in figures(tmp_path) for name in row if name.startswith("train/")}
    assert terms == {"train/lip_sync", "train/offset", "train/total"}


def test_speech_driven_steps_without_anything_to_learn_are_refused(shards, tmp_path, capsys):
    args = ["fit", "--config", str(ROOT / "configs/one_shot.yaml"), "--model.init_args.objective.offset", "0"]
    assert main(args) == 2
    assert "face_share" in capsys.readouterr().err


def test_renderings_are_kept_beside_the_log(shards, tmp_path):
    folder = fit("one_shot", shards, tmp_path)
    assert list(folder.rglob("renderings/*.png")) and list(folder.rglob("renderings/*.mp4"))


def test_wandb_run_is_written_offline_and_read_back(shards, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit("one_shot", shards, tmp_path, overlays=("tiny", "smoke", "wandb"))
    runs = list(tmp_path.rglob("*.wandb"))
    assert len(runs) == 1
    names = {name for record in wandb_records(runs[0]) for item in record.history.item for name in (item.key, *item.nested_key)}
    assert {"train/total", "val/face_psnr", "rendering/clip0", "video/clip0"} <= names
    assert any(record.HasField("config") for record in wandb_records(runs[0]))


def test_resumed_training_equals_uninterrupted_training(shards, tmp_path):
    """Stopped after an epoch and started again: bitwise the same weights, averages and optimizer as without the stop."""
    options = ["--data.init_args.steps_per_epoch", "2", "--trainer.val_check_interval", "2",
               "--trainer.callbacks.every_n_train_steps", "2"]
    whole = fit("motion", shards, tmp_path / "whole", "--trainer.max_steps", "4", *options)
    half = fit("motion", shards, tmp_path / "half", "--trainer.max_steps", "2", *options)
    rest = fit("motion", shards, tmp_path / "half", "--trainer.max_steps", "4", "--ckpt_path", str(checkpoint(half)), *options)
    first, second = (torch.load(checkpoint(folder), weights_only=False) for folder in (whole, rest))
    assert first["global_step"] == second["global_step"] == 4
    assert all(torch.equal(first["state_dict"][name], second["state_dict"][name]) for name in first["state_dict"])
    moments = [c["optimizer_states"][0]["state"] for c in (first, second)]
    assert all(torch.equal(moments[0][i]["exp_avg"], moments[1][i]["exp_avg"]) for i in moments[0])


def test_parts_start_from_other_checkpoints(shards, tmp_path):
    first = checkpoint(fit("motion", shards, tmp_path / "a"))
    second = checkpoint(fit("motion", shards, tmp_path / "b", "--seed_everything", "7", "--trainer.max_steps", "1",
                            "--model.init_args.optimizer.init_args.lr", "0.0",
                            "--model.init_args.init_from", f'{{"speech": "{first}"}}'))
    taken = torch.load(first, weights_only=False)["state_dict"]
    given = torch.load(second, weights_only=False)["state_dict"]
    same = [torch.equal(given[name], taken[name]) for name in taken if name.startswith("model.speech.")]
    other = [torch.equal(given[name], taken[name]) for name in taken if name.startswith("model.encoder.") and "weight" in name]
    assert all(same) and not any(other)


def test_a_part_starts_from_a_bundle(shards, tmp_path):
    last = checkpoint(fit("motion", shards, tmp_path, "--trainer.max_steps", "1", "--model.init_args.optimizer.init_args.lr",
                          "0.0", "--model.init_args.model.init_args.token_channels", "48",
                          "--model.init_args.init_from", '{"speech": "one-shot-256"}'))
    given, bundle = torch.load(last, weights_only=False)["state_dict"], load_model("one-shot-256").speech.state_dict()
    assert all(torch.allclose(given[f"model.speech.{name}"], value, atol=1e-6) for name, value in bundle.items())


def test_a_missing_start_and_unknown_parts_are_told(shards, tmp_path, capsys):
    for option, value in (("init_from", '{"": "nowhere.ckpt"}'), ("train_only", "[nonsense]")):
        args = ["fit", "--config", str(ROOT / "configs/motion.yaml"), "--config", str(ROOT / "configs/overlays/tiny.yaml"),
                "--data.init_args.train", str(shards), f"--model.init_args.{option}", value]
        assert main(args) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert any("nowhere.ckpt" in line or "nonsense" in line for line in error)


def test_motion_learns_where_the_lips_go(shards, tmp_path):
    """A few hundred landmark-only steps on two synthetic people: the field's offsets open the mouth with the truth."""
    folder = fit("motion", shards, tmp_path, "--trainer.max_steps", "250", "--data.init_args.steps_per_epoch", "250",
                 "--data.init_args.frames", "12", "--trainer.val_check_interval", "250", "--data.init_args.val_clips", "4",
                 "--model.init_args.optimizer.init_args.lr", "5e-3", "--data.init_args.batch_size", "4")
    rows = figures(folder)
    last = [row for row in rows if "val/face_opening_correlation" in row][-1]
    assert last["val/face_opening_correlation"] > 0.8
    first, final = rows[0]["train/offset"], [row for row in rows if "train/offset" in row][-1]["train/offset"]
    assert final < 0.6 * first
