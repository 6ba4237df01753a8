"""Every experiment trains, resumes exactly, and teaches what it is there to teach."""
import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
import webdataset as wds
import yaml

from s3dnerf.cli import main
from s3dnerf.comparison.comparison import read_one
from s3dnerf.comparison.run import commit_of, flattened
from s3dnerf.data.shards import decode_sample
from s3dnerf.media import read_frames, read_image, read_sound, video_info
from s3dnerf.models.hub import load_model
from s3dnerf.systems import tracking
from s3dnerf.systems.tracking import commit

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml") if path.stem != "stages")
OVERLAYS = sorted(path.stem for path in (ROOT / "configs" / "overlays").glob("*.yaml"))
SMALL = ["--model.init_args.model.init_args.image_size", "64",
         "--model.init_args.model.init_args.encoder_channels", "[8, 8, 8, 8]", "--data.init_args.size", "64"]


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
    options = ["--data.init_args.frames", "12"] if experiment == "lip_sync" else []
    folder = fit(experiment, shards, tmp_path, *options)
    rows = figures(folder)
    assert any("train/total" in row for row in rows)
    assert any(name.startswith("val/") for row in rows for name in row)
    kept = torch.load(checkpoint(folder, "best.ckpt"), weights_only=True)
    assert kept["global_step"] == 4 and checkpoint(folder, "last.ckpt").is_file()
    best = yaml.safe_load((ROOT / f"configs/{experiment}.yaml").read_text())["best"]["monitor"]
    assert kept["figures"][best.removeprefix("val/")] == pytest.approx([row[best] for row in rows if best in row][-1], rel=1e-5)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_is_yaml_that_names_known_things(overlay):
    content = yaml.safe_load((ROOT / f"configs/overlays/{overlay}.yaml").read_text())
    assert set(content) <= {"trainer", "model", "data", "seed_everything", "best", "plateau"}


def test_the_speech_overlay_trains_without_a_picture(shards, tmp_path):
    rows = figures(fit("motion", shards, tmp_path, overlays=("speech", "tiny", "smoke")))
    assert {"train/code", "train/total"} <= {name for row in rows for name in row}
    assert not any("train/offset" in row for row in rows)


def test_speech_driven_steps_know_landmarks_and_the_lip_discriminator_but_no_pixels(shards, tmp_path):
    always = ["--model.init_args.face_share", "0.0", "--model.init_args.lip_windows", "1.0",
              "--model.init_args.full_frames", "0.0", "--model.init_args.window", "32"]
    fit("one_shot", shards, tmp_path, "--model.init_args.lip_sync", "one-shot-256", "--data.init_args.frames", "9", *always,
        overlays=("sync", "tiny", "smoke"))
    terms = {name for row in figures(tmp_path) for name in row if name.startswith("train/")}
    assert terms == {"train/lip_sync", "train/offset", "train/total"}


def test_speech_driven_steps_without_anything_to_learn_are_refused(shards, tmp_path, capsys):
    args = ["fit", "--config", str(ROOT / "configs/one_shot.yaml"), "--model.init_args.objective.offset", "0"]
    assert main(args) == 2
    assert "face_share" in capsys.readouterr().err


def test_renderings_are_kept_beside_the_log_with_the_sound_of_their_clip(shards, tmp_path):
    """The videos are of every frame from the first, the recording on top, and sound as the shard does; the second row has a video of
    its own."""
    folder = fit("one_shot", shards, tmp_path)
    endings = (".mp4", "-speech.mp4", "-recording.mp4", ".png", "-regions.png")
    [video], [speech], [recording], [_], [regions] = (list(folder.rglob(f"renderings/*-step000004{ending}")) for ending in endings)
    key = video.stem.removesuffix("-step000004")
    sample = next(sample for sample in wds.WebDataset(sorted(map(str, shards.glob("*.tar"))), shardshuffle=False)
                  if sample["__key__"] == key)
    frames, told = np.stack(list(read_frames(video))), decode_sample(sample)
    assert frames.shape == (30, 5 * 128, 128, 3) and video_info(video).fps == 25
    top = torch.nn.functional.interpolate(torch.from_numpy(told.frames).permute(0, 3, 1, 2).float(), size=128)
    assert np.abs(frames[:, :128] - top.permute(0, 2, 3, 1).numpy()).mean() < 6
    assert np.abs(frames[:, 128:256].astype(float) - np.stack(list(read_frames(speech)))).mean() < 4
    assert np.abs(frames[:, :128].astype(float) - np.stack(list(read_frames(recording)))).mean() < 4
    for path in (video, speech, recording):
        assert np.corrcoef(read_sound(path)[:len(told.speech)], told.speech)[0, 1] > 0.9
    assert read_image(regions).shape == (128, 128, 3)


def test_wandb_run_is_written_offline_and_read_back(shards, tmp_path, monkeypatch):
    """All of the configuration, the commit, losses, figures with their intervals, clips, videos with sound and maps; what is read out
    of wandb's file is what is read out of the folder beside it."""
    monkeypatch.chdir(tmp_path)
    fit("one_shot", shards, tmp_path, "--data.init_args.val_clips", "3", overlays=("tiny", "smoke", "wandb"))
    wandb.teardown()  # waits until its service has written everything
    [path], [version] = tmp_path.rglob("*.wandb"), tmp_path.rglob("version_0")
    names = {name for record in wandb_records(path) for item in record.history.item for name in (item.key, *item.nested_key)}
    assert {"train/total", "val/face_psnr", "interval/face_psnr_low", "interval/face_psnr_high", "val/clips"} <= names
    written, read = read_one(str(version), tmp_path), read_one(str(path.parent), tmp_path)
    assert read.kind == "wandb" and written.kind == "training"
    assert read.config == flattened(yaml.safe_load((version / "config.yaml").read_text())) and len(read.config) > 150
    assert read.commit == written.commit == commit_of(commit(Path(tracking.__file__)))
    assert set(read.curves) == set(written.curves) and read.steps == 4
    assert all(dict(read.curves[name]) == pytest.approx(dict(points), rel=1e-5) for name, points in written.curves.items())
    assert len(read.clips) == 3 and read.clips == written.clips and read.mean("face_psnr") == written.mean("face_psnr")
    assert set(read.videos) == set(written.videos) == set(read.pictures) == set(written.pictures) and len(read.videos) == 2
    assert set(read.recordings) == set(written.recordings) == set(read.videos)
    for clip, video in read.videos.items():
        assert video.read_bytes() == written.videos[clip].read_bytes() and read_sound(video, allow_silence=False).std() > 1e-3


def test_resumed_training_equals_uninterrupted_training(shards, tmp_path):
    """Stopped after an epoch and started again: bitwise the same weights, averages and optimizer as without the stop."""
    options = ["--data.init_args.steps_per_epoch", "2", "--trainer.val_check_interval", "2"]
    whole = fit("motion", shards, tmp_path / "whole", "--trainer.max_steps", "4", *options)
    half = fit("motion", shards, tmp_path / "half", "--trainer.max_steps", "2", *options)
    rest = fit("motion", shards, tmp_path / "half", "--trainer.max_steps", "4", "--ckpt_path", str(checkpoint(half)), *options)
    first, second = (torch.load(checkpoint(folder), weights_only=False) for folder in (whole, rest))
    assert first["global_step"] == second["global_step"] == 4
    assert all(torch.equal(first["state_dict"][name], second["state_dict"][name]) for name in first["state_dict"])
    moments = [c["optimizer_states"][0]["state"] for c in (first, second)]
    assert all(torch.equal(moments[0][i]["exp_avg"], moments[1][i]["exp_avg"]) for i in moments[0])


def test_a_figure_that_does_not_move_ends_training(shards, tmp_path):
    """With a rate of 0 nothing moves: the first validation sets the best, two more without a better one are the patience."""
    folder = fit("motion", shards, tmp_path, "--trainer.max_steps", "9", "--trainer.val_check_interval", "1",
                 "--plateau.patience", "2", "--model.init_args.optimizer.init_args.lr", "0.0", overlays=("speech", "tiny", "smoke"))
    assert torch.load(checkpoint(folder), weights_only=True)["global_step"] == 3
    assert torch.load(checkpoint(folder, "best.ckpt"), weights_only=True)["global_step"] == 1
    again = fit("motion", shards, tmp_path, "--trainer.max_steps", "9", "--trainer.val_check_interval", "1",
                "--plateau.patience", "2", "--model.init_args.optimizer.init_args.lr", "0.0", "--best.dirpath", str(tmp_path / "a"),
                "--ckpt_path", str(checkpoint(folder)), overlays=("speech", "tiny", "smoke"))
    assert not (tmp_path / "a" / "last.ckpt").exists() and again == folder


def test_a_figure_that_is_not_logged_is_told_with_those_that_are(shards, tmp_path, capsys):
    args = ["fit", "--config", str(ROOT / "configs/motion.yaml"), "--best.monitor", "val/beauty", "--trainer.default_root_dir",
            str(tmp_path), "--trainer.logger", "false", "--data.init_args.train", str(shards), "--data.init_args.val", str(shards),
            "--data.init_args.size", "64"]
    for overlay in ("speech", "tiny", "smoke"):
        args[1:1] = ["--config", str(ROOT / f"configs/overlays/{overlay}.yaml")]
    assert main(["fit", *args[7:9], *args[5:7], *args[3:5], *args[1:3], *args[9:]]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("s3dnerf:")]
    assert len(said) == 1 and "val/beauty" in said[0] and "val/opening_correlation" in said[0]
    assert not list(tmp_path.rglob("config.yaml")), "without a logger nothing is kept of the configuration"


def test_what_is_kept_as_best_is_what_was_validated(shards, tmp_path):
    """With EMA: the averaged weights, not those that the optimizer holds."""
    import pytorch_lightning as pl

    from s3dnerf.data.module import ClipDataModule
    from s3dnerf.models.hub import load_model
    from s3dnerf.systems import MotionSystem

    path = checkpoint(fit("motion", shards, tmp_path, overlays=("speech", "tiny", "smoke")), "best.ckpt")
    data = ClipDataModule(str(shards), str(shards), val_clips=1, val_frames=24, images="none", workers=0)
    kept = torch.load(path, weights_only=True)
    figures = {}
    for name in ("state_dict", "current_model_state"):
        system = MotionSystem(load_model(path), offset=0.0)
        system.load_state_dict(kept[name])
        trainer = pl.Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")
        figures[name] = {key[4:]: float(value) for key, value in trainer.validate(system, data, verbose=False)[0].items()}
    assert figures["state_dict"] == pytest.approx(kept["figures"], rel=1e-4)
    assert figures["current_model_state"] != pytest.approx(kept["figures"], rel=1e-4)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_is_guarded(experiment):
    content = yaml.safe_load((ROOT / f"configs/{experiment}.yaml").read_text())
    guards = [entry["class_path"].split(".")[-1] for entry in content["trainer"]["callbacks"]]
    assert "NaNGuard" in guards and ("SyncPlateau" in guards) == (experiment == "one_shot")
    assert content["plateau"]["patience"] > 0


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


def test_clips_of_another_size_than_the_model_s_are_refused(shards, tmp_path, capsys):
    args = ["fit", "--config", str(ROOT / "configs/one_shot.yaml"), "--config", str(ROOT / "configs/overlays/tiny.yaml"),
            "--config", str(ROOT / "configs/overlays/smoke.yaml"), "--trainer.logger.init_args.save_dir", str(tmp_path), *SMALL,
            "--data.init_args.train", str(shards), "--data.init_args.val", str(shards), "--data.init_args.size", "32"]
    assert main(args) == 2
    assert "found clips of 32 pixels; expected 64" in capsys.readouterr().err


def test_a_missing_start_and_unknown_parts_are_told(shards, tmp_path, capsys):
    for option, value in (("init_from", '{"": "nowhere.ckpt"}'), ("train_only", "[nonsense]")):
        args = ["fit", "--config", str(ROOT / "configs/motion.yaml"), "--config", str(ROOT / "configs/overlays/tiny.yaml"),
                "--data.init_args.train", str(shards), f"--model.init_args.{option}", value]
        assert main(args) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert any("nowhere.ckpt" in line or "nonsense" in line for line in error)


def test_motion_learns_where_the_lips_go(shards, tmp_path):
    """A hundred landmark-only steps on two synthetic people: the field's offsets open the mouth with the truth."""
    folder = fit("motion", shards, tmp_path, "--trainer.max_steps", "120", "--data.init_args.steps_per_epoch", "120",
                 "--data.init_args.frames", "8", "--trainer.val_check_interval", "120", "--data.init_args.val_clips", "4",
                 "--model.init_args.optimizer.init_args.lr", "5e-3", "--data.init_args.batch_size", "4")
    rows = figures(folder)
    last = [row for row in rows if "val/face_opening_correlation" in row][-1]
    assert last["val/face_opening_correlation"] > 0.8
    errors = [row["train/offset"] for row in rows if "train/offset" in row]
    assert sum(errors[-10:]) < 0.85 * sum(errors[:10]), "of one batch to the next they differ by as much"
