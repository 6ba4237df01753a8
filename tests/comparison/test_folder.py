"""Runs are read out of what training, ablations and evaluation leave."""
import json
from types import SimpleNamespace

import pytest
import yaml

from s3dnerf.comparison.folder import continued, read_evaluation, read_run_folder
from s3dnerf.errors import InputError
from s3dnerf.evaluation.protocol import Protocol
from s3dnerf.evaluation.report import Report


def test_a_training_run_by_its_folder_the_one_above_or_a_checkpoint(two_runs):
    run = read_run_folder(two_runs[0])
    assert run.kind == "training" and run.steps == 60 and run.commit == "0123456789"
    assert run.config["model.width"] == 3 and run.config["trainer.callbacks.EMA.decay"] == 0.1
    assert run.config["best.dirpath"] == "RUN/checkpoints"
    assert len(run.clips) == 8 and run.mean("psnr").mean == pytest.approx(26, abs=0.1)  # of the last validation
    assert run.clips["clip0"]["lpips"] is None and run.mean("lpips") is None
    assert [path.name for path in run.videos.values()] == ["clip-a-step000060-speech.mp4"] and list(run.pictures) == ["clip-a"]
    checkpoint = two_runs[0] / "checkpoints" / "best.ckpt"
    checkpoint.parent.mkdir(exist_ok=True)
    checkpoint.write_bytes(b"x")
    for path in (two_runs[0].parent, checkpoint):
        other = read_run_folder(path)
        assert (other.clips, other.curves, other.videos) == (run.clips, run.curves, run.videos)


def test_a_run_that_was_taken_up_is_one_and_one_begun_anew_takes_the_older_s_place():
    log = lambda first, last, value: [{"step": str(step), "x": value} for step in range(first, last)]
    assert continued([log(0, 10, "a"), log(6, 12, "b")]) == log(0, 6, "a") + log(6, 12, "b")
    assert continued([log(0, 10, "a"), log(0, 4, "b")]) == log(0, 4, "b")
    assert continued([log(0, 3, "a"), []]) == log(0, 3, "a")


def test_stages_keep_their_names(tmp_path, write_run):
    write_run(tmp_path / "motion" / "version_0", films=())
    write_run(tmp_path / "full" / "version_0", shift=1.0)
    (tmp_path / "figures.json").write_text(json.dumps({"gates": {}, "stages": {}}))  # as `s3dnerf train` writes it
    run = read_run_folder(tmp_path)
    assert run.kind == "training" and set(run.curves) >= {"motion: val/psnr", "full: train/total"}
    assert run.mean("full: psnr").mean - run.mean("motion: psnr").mean == pytest.approx(1)
    assert run.config["motion.model.width"] == 3 and list(run.videos) == ["clip-a"]


def test_a_variant_of_the_ablations_has_its_own_figures(tmp_path, write_run):
    write_run(tmp_path / "motion" / "log" / "version_0", films=())
    write_run(tmp_path / "one_shot" / "log" / "version_0", films=())
    rows = [{"clip": "a", "ssim": 0.5, "sync": None}, {"clip": "b", "ssim": 0.7, "sync": None}]
    (tmp_path / "figures.json").write_text(json.dumps({"key": {"frames": 3}, "clips": rows}))
    run = read_run_folder(tmp_path)
    assert run.kind == "ablation" and run.figures == ["ssim"] and run.values("ssim") == {"a": 0.5, "b": 0.7}
    assert "one_shot: train/total" in run.curves and "one_shot.model.width" in run.config


def test_an_evaluation_with_its_videos(tmp_path, write_report, two_runs):
    path = write_report(tmp_path / "report.json", {"a": 20.0, "b": 22.0})
    (tmp_path / "b.mp4").write_bytes(next((two_runs[0] / "renderings").glob("*.mp4")).read_bytes())
    run = read_evaluation(path)
    assert run.kind == "evaluation" and run.figures == ["psnr"] and run.values("psnr") == {"a": 20.0, "b": 22.0}
    assert run.config["protocol.hash"] == "aaa" and run.config["protocol.settings.fps"] == 25 and list(run.videos) == ["b"]


def test_videos_of_an_evaluation_are_found_from_its_report_on(tmp_path, write_report, monkeypatch):
    """Whatever the working folder is: of a folder, of a single file; those beside the report count where there are no others."""
    path = write_report(tmp_path / "reports" / "a.json", {"a": 20.0, "b": 22.0})
    named, beside, content = tmp_path / "made" / "a.mp4", path.parent / "a.mp4", json.loads(path.read_text())
    for video in (named, beside, path.parent / "b.mp4"):
        video.parent.mkdir(exist_ok=True)
        video.write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    for generated, found in (("../made", named), ("../made/a.mp4", named), (str(named.parent), named), ("../gone", beside), (None, beside)):
        path.write_text(json.dumps(content | {"generated": generated}))
        for report in (path, path.relative_to(tmp_path)):
            assert {clip: video.resolve() for clip, video in read_evaluation(report).videos.items()} == {"a": found, "b": path.parent / "b.mp4"}


def test_the_report_that_the_suite_writes(tmp_path):
    """Its own record, with a figure of all frames together, which has neither clips nor a test."""
    rows = [SimpleNamespace(clip=name, frames=30, figures={"psnr": value, "lpips": None}) for name, value in (("a", 20.0), ("b", 22.0))]
    means = {"psnr": {"mean": 21.0, "low": 20.0, "high": 22.0, "clips": 2}, "fid": {"mean": 9.5, "low": None, "high": None, "clips": 2}}
    report = Report(Protocol(), {"judge": {"file": "x", "sha256": "y"}}, rows, means, {"lpips": "no network"}, [])
    (tmp_path / "report.json").write_text(json.dumps(report.as_dict()))
    run = read_evaluation(tmp_path / "report.json")
    assert run.figures == ["psnr", "fid"] and run.mean("psnr").mean == 21 and run.mean("fid").mean == 9.5 and not run.values("fid")
    assert run.config["protocol.hash"] == Protocol().hash and run.config["networks.judge.sha256"] == "y"


def test_settings_are_taken_from_the_logger_where_nothing_else_kept_them(tmp_path, write_run):
    run = write_run(tmp_path / "version_0", films=())
    (run / "config.yaml").unlink()
    (run / "hparams.yaml").write_text(yaml.safe_dump({"width": 9}))
    assert read_run_folder(run).config == {"width": 9}
    (run / "hparams.yaml").write_text("a: !!python/object:x.Y {}\n")
    assert read_run_folder(run).config == {}


@pytest.mark.parametrize("content, word", [("{", "no JSON"), ("[]", "no evaluation report"), ('{"clips": []}', "no evaluation report"),
                                           ('{"clips": [{"psnr": 1}], "protocol": {}}', "name of its clip")])
def test_what_is_no_report_is_told(tmp_path, content, word):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=word):
        read_evaluation(tmp_path / "a.json")


def test_a_run_without_figures_yet_has_its_settings(tmp_path, write_run):
    run = write_run(tmp_path / "version_0", films=())
    (run / "metrics.csv").unlink()
    (run / "clips.csv").unlink()
    found = read_run_folder(tmp_path)
    assert found.config["model.width"] == 3 and not found.curves and not found.clips and found.steps is None


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(InputError, match="metrics.csv"):
        read_run_folder(tmp_path)


def test_neither_the_log_of_a_test_nor_the_record_of_personalize_is_a_training(tmp_path, write_run):
    write_run(tmp_path / "head" / "version_0")
    alone = read_run_folder(tmp_path)
    later = tmp_path / "head" / "version_1"
    later.mkdir()
    (later / "metrics.csv").write_text("epoch,step,test/psnr\n0,0,30.0\n")
    (tmp_path / "run.json").write_text(json.dumps({"video": "me.mp4", "method": "adapt"}))
    both = read_run_folder(tmp_path)
    assert (both.curves, both.clips, both.commit) == (alone.curves, alone.clips, alone.commit) and alone.clips


def test_clips_of_a_run_that_was_taken_up_without_a_validation_yet_stay(tmp_path, write_run):
    write_run(tmp_path / "version_0")
    clips = read_run_folder(tmp_path).clips
    (tmp_path / "version_1").mkdir()
    (tmp_path / "version_1" / "metrics.csv").write_text("epoch,step,train/total\n9,9000,1.0\n")
    assert read_run_folder(tmp_path).clips == clips and clips
