"""The ablation script from shards to table, at the smallest size, and the figures that it takes."""
import csv
import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from s3dnerf.comparison.folder import read_run_folder
from s3dnerf.data.module import ClipDataModule
from s3dnerf.geometry import project
from s3dnerf.media import read_sound
from s3dnerf.models.hub import load_lip_sync, load_model
from s3dnerf.networks.lip_sync import LipSyncDiscriminator
from s3dnerf.significance import interval


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("ablations")


def parse(script, shards, folder, *more):
    return script.parse(["--train", str(shards), "--val", str(shards), "--output", str(folder), "--size", "64",
                         "--steps", "2", "--motion-steps", "2", "--frames", "12", "--every", "3", "--lr", "1e-3", *more])


def test_two_variants_from_shards_to_table_and_nothing_twice(script, shards, tmp_path, monkeypatch, capfd):
    options = parse(script, shards, tmp_path, "--variants", "full", "no_deformation", "--judge", "one-shot-256")
    points = lambda frames: (torch.rand(len(frames), 478, 2) * 64, torch.ones(len(frames), dtype=torch.bool))
    monkeypatch.setattr(script, "landmarks", points)  # no detector takes a synthetic head of 64 pixels for a face
    script.run(options)
    text = (tmp_path / "ablations.md").read_text()
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert list(rows)[2:] == ["recording", "still photo", "full", "no deformation"]
    assert "sync (training expert)" in text and "2 val clips" in text and "2 rendered steps" in text
    with (tmp_path / "ablations.csv").open() as file:
        table = {row["variant"]: row for row in csv.DictReader(file)}
    assert float(table["recording"]["ssim"]) == pytest.approx(1) and 0 < float(table["full"]["ssim"]) < 1
    assert abs(float(table["full"]["sync"])) < 1
    assert table["full"]["ssim"] != table["no_deformation"]["ssim"] and float(table["full"]["m_lmd"]) > 0
    steps = {path: torch.load(path, weights_only=False)["global_step"] for path in tmp_path.rglob("last.ckpt")}
    compared = [read_run_folder(tmp_path / name) for name in ("full", "no_deformation")]
    for run in compared:  # what `s3dnerf compare` makes of it
        assert run.kind == "ablation" and run.mean("ssim").mean == pytest.approx(float(table[Path(run.source).name]["ssim"]))
        assert len(run.videos) == len(run.pictures) == len(run.recordings) == 2
        assert all(read_sound(path).std() > 1e-3 for path in [*run.videos.values(), *run.recordings.values()])
    assert [run.config["one_shot.model.model.mode"] for run in compared] == ["both", "none"]
    assert len(steps) == 4 and set(steps.values()) == {2}
    first, second = (load_model(tmp_path / name / "one_shot" / "last.ckpt") for name in ("full", "no_deformation"))
    assert first.deformation.mode == "both" and second.deformation.mode == "none"
    assert torch.equal(first.speech.code[-1].weight, load_model().speech.code[-1].weight)  # the same driver for all
    written = {path: path.stat().st_mtime_ns for path in [*steps, *tmp_path.rglob("figures.json")]}
    script.run(options)
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_training_goes_on_where_it_stopped_and_starts_anew_with_other_settings(script, tmp_path, monkeypatch):
    calls = []

    def fit(args):
        calls.append(args)
        torch.save({"global_step": reached}, tmp_path / "full" / "motion" / "last.ckpt")
        return 0

    monkeypatch.setattr(script, "main", fit)
    run = lambda *more: script.train("motion", "full", parse(script, "a", tmp_path, *more), {})
    reached = 1  # as if it had been stopped after one step of two
    run()
    reached = 2
    last = run()
    run()
    assert len(calls) == 2 and "--ckpt_path" not in calls[0] and calls[1][-2:] == ["--ckpt_path", str(last)]
    run("--seed", "5")
    assert len(calls) == 3 and "--ckpt_path" not in calls[2]
    monkeypatch.setattr(script, "main", lambda args: 2)
    with pytest.raises(SystemExit, match="full: motion failed"):
        run("--seed", "6")


def test_stages_differ_by_their_overlay_alone(script, tmp_path):
    options = script.parse(["--train", "a", "--val", "b", "--output", str(tmp_path)])
    full, deaf, silent = (script.stage_settings("motion", name, options, tmp_path, {}) for name in
                          ("full", "no_deformation", "no_lip_sync"))
    assert full == silent and full != deaf
    deaf["model"]["init_args"]["model"]["init_args"].pop("mode")
    assert full == deaf and full["data"]["init_args"]["size"] == 128
    assert full["model"]["init_args"]["model"]["init_args"]["mesh_motion"] is False
    options = script.parse(["--train", "a", "--val", "b", "--size", "64"])
    small = script.stage_settings("one_shot", "full", options, tmp_path, {})
    assert small["model"]["init_args"]["window"] == 28 and small["data"]["init_args"]["size"] == 64


def test_configurations_are_laid_over_each_other_as_the_command_line_does(script, tmp_path):
    for name, content in (("a", {"x": {"y": 1, "z": [1, 2]}}), ("b", {"x": {"z": [3]}, "w": None})):
        (tmp_path / name).write_text(yaml.safe_dump(content))
    assert script.merged([tmp_path / "a", tmp_path / "b"]) == {"x": {"y": 1, "z": [3]}, "w": None}


@pytest.fixture(scope="module")
def face():
    """A face of 128 pixels, [3, 128, 128]."""
    from s3dnerf.data.tracking import FaceTracker
    with Image.open(files("s3dnerf") / "assets" / "demo_photo.jpg") as image:
        photo = np.asarray(image.convert("RGB"))
    return FaceTracker().portrait(photo, 128)[0].image


def test_landmarks_of_frames_are_found_and_their_distance_is_what_they_moved(script, face):
    still, seen = script.landmarks(face.expand(4, -1, -1, -1))
    moved, _ = script.landmarks(face.roll(4, -1).expand(4, -1, -1, -1))
    nobody, _ = script.landmarks(torch.full((4, 3, 128, 128), 0.5))
    assert seen.all() and nobody.isnan().all()
    eyes = (still[:, 33] - still[:, 263]).norm(dim=-1).mean().item()
    assert script.mouth_figures(still, still)["m_lmd"] == 0
    assert script.mouth_figures(moved, still)["f_lmd"] == pytest.approx(400 / eyes, rel=0.15)
    assert script.mouth_figures(nobody, still) == {"f_lmd": None, "m_lmd": None, "mouth_corr": None}


def test_sync_and_sharpness_notice_other_sound_and_blur(script, shards, monkeypatch):
    monkeypatch.setattr(script, "landmarks", lambda frames: (torch.zeros(len(frames), 478, 2),
                                                             torch.ones(len(frames), dtype=torch.bool)))
    clip = next(iter(ClipDataModule(val=str(shards), frames=24, val_frames=0).val_dataloader()))
    truth, judge = project(clip.mesh, clip.cameras)[0][0], load_lip_sync()
    with torch.inference_mode():
        own = script.frame_figures(clip.frames[0], clip, truth, judge, None)
        late = script.frame_figures(clip.frames[0], replace(clip, mel=clip.mel.roll(9, 1)), truth, judge, None)
        soft = torch.nn.functional.avg_pool2d(clip.frames[0], 3, 1, 1)
        blurred = script.frame_figures(soft, clip, truth, judge, None)
    assert own["sync"] != late["sync"] and own["ssim"] == pytest.approx(1, abs=1e-5)
    assert own["sharpness"] == pytest.approx(1) and blurred["sharpness"] < 0.7 and blurred["ssim"] < own["ssim"]
    assert own["lpips"] is None


def test_the_column_says_who_judged(script, tmp_path):
    options = script.parse(["--train", "a", "--val", "b"])
    torch.manual_seed(5)
    assert script.judge_name(None, options) == "missing"
    assert script.judge_name(load_lip_sync(), options) == "training expert"
    assert script.judge_name(LipSyncDiscriminator(), options) == "judging expert"


def test_what_is_missing_says_so_and_differences_are_marked(script, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert script.perceptual_network() is None
    rng = np.random.default_rng(0)
    base = rng.normal(size=30)
    rows = lambda shift: [{"clip": str(i), "ssim": a + shift + 0.01 * b, "lpips": None}
                          for i, (a, b) in enumerate(zip(base, rng.normal(size=30)))]
    script.write_table({"full": rows(0), "other": rows(0.1)}, tmp_path, "missing", ["how"])
    lines = (tmp_path / "ablations.md").read_text().splitlines()
    assert lines[0] == "how" and "*" in lines[-1] and "*" not in lines[-2] and "missing" in lines[-1]
    script.write_table({"full": [row | {"opacity": 0.4} for row in rows(0)], "lost": [row | {"opacity": 0.01} for row in rows(1)]},
                       tmp_path, "missing", [])
    lines = (tmp_path / "ablations.md").read_text().splitlines()
    assert "lost (empty)" in lines[-1] and "empty" not in lines[-2]


def test_a_cell_has_the_interval_that_reports_have(script, tmp_path):
    values = [1.0, 2.0, 4.0, 8.0]
    rows = [{"clip": str(i), "ssim": value} for i, value in enumerate(values)]
    script.write_table({"full": rows}, tmp_path, "missing", [])
    found = interval(values)
    assert f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})" in (tmp_path / "ablations.md").read_text()
    assert f"{found.mean},{found.low},{found.high}" in (tmp_path / "ablations.csv").read_text()


def test_figures_are_kept_under_their_key(script, tmp_path):
    path = tmp_path / "figures.json"
    assert script.kept(path, {"a": 1}, lambda: [{"x": 1}]) == script.kept(path, {"a": 1}, lambda: [{"x": 2}]) == [{"x": 1}]
    assert script.kept(path, {"a": 2}, lambda: [{"x": 2}]) == [{"x": 2}] == json.loads(path.read_text())["clips"]
