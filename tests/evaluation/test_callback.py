"""`s3dnerf test`: the suite on shards, the same on one process and on two."""
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from s3dnerf.cli import main
from s3dnerf.data.module import ClipDataModule, make_clip, shard_paths
from s3dnerf.data.whole_clips import whole_clips
from s3dnerf.evaluation.callback import UNTRAINED, ReportFigures, footage
from s3dnerf.evaluation.footage import read_footage
from s3dnerf.evaluation.networks import Networks
from s3dnerf.evaluation.suite import Suite

ROOT = Path(__file__).parents[2]
SMALL = ["--data.init_args.size", "64", "--model.init_args.model.init_args.image_size", "64",
         "--model.init_args.model.init_args.encoder_channels", "[8, 8, 8, 8]"]


def test_whole_clips_are_shared_out_each_once_with_all_frames_and_sound(shards):
    alone = list(ClipDataModule(val=str(shards), val_clips=1).test_dataloader())
    assert len(alone) == 4
    for clip in alone:
        assert clip.frames.shape[1] == clip.cameras.camera_to_world.shape[1] == clip.mel.shape[1] == 30
        assert clip.sound.shape == (1, 30 * 640) and torch.equal(clip.portrait.image[0], clip.frames[0, 0])
    ranks = [[clip.keys[0] for clip in whole_clips(str(shards), shard_paths(str(shards)), make_clip, rank=rank, world=3)]
             for rank in range(3)]
    assert sorted(map(len, ranks)) == [1, 1, 2] and sorted(sum(ranks, [])) == sorted(clip.keys[0] for clip in alone)


def words(shards, folder, name, *more):
    configs = [word for path in ("one_shot", "overlays/tiny") for word in ("--config", str(ROOT / f"configs/{path}.yaml"))]
    return ["test", *configs, "--data.init_args.val", str(shards), "--trainer.logger", "false", "--trainer.callbacks", "[]",
            "--trainer.default_root_dir", str(folder), "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false",
            "--evaluation.output", str(folder / f"{name}.json"), "--evaluation.judge", "none", *SMALL, *more]


def test_two_processes_report_what_one_does(shards, tmp_path, capsys):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes below have it: sums in another order are other sums
    try:
        assert main(words(shards, tmp_path, "one")) == 0
    finally:
        torch.set_num_threads(threads)
    assert "psnr_mouth" in capsys.readouterr().out
    environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    command = [sys.executable, "-m", "s3dnerf", *words(shards, tmp_path, "two", "--trainer.devices", "2", "--trainer.strategy", "ddp")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert len(one["clips"]) == 4 == one["means"]["psnr"]["clips"] and done.stdout.count("4 clips, 120 frames") == 1
    assert one["remarks"][0] == UNTRAINED
    assert one == two and 5 < one["means"]["psnr"]["mean"] < 60


@pytest.mark.parametrize("checkpoint, options, told", [(None, {}, True), (None, {"init_from": None}, True), ("a.ckpt", {}, False),
                                                        (None, {"init_from": {"": "one-shot-256"}}, False)])
def test_weights_before_any_training_are_told(checkpoint, options, told):
    callback = ReportFigures(judge="none")
    callback.on_test_start(SimpleNamespace(ckpt_path=checkpoint), SimpleNamespace(device="cpu", hparams=options))
    assert callback.untrained is told


@pytest.mark.parametrize("content, found", [(None, "Checkpoint file not found"), ("{}", "is no checkpoint; give a .ckpt")])
def test_a_checkpoint_that_is_none_is_told_in_a_line(shards, tmp_path, capsys, content, found):
    path = tmp_path / "best.ckpt"
    if content:
        path.write_text(content)
    assert main(words(shards, tmp_path, "report", "--ckpt_path", str(path))) == 2
    assert found in capsys.readouterr().err and not (tmp_path / "report.json").exists()


def test_frames_of_test_have_the_figures_that_evaluate_finds_in_a_video_of_them(shards, tmp_path):
    """A video without loss, so that nothing else is between the two."""
    clip = next(iter(ClipDataModule(val=str(shards), val_clips=1).test_dataloader()))
    true, sound = clip.frames[0, :14], clip.sound[0, :14 * 640].numpy()
    made = true.roll(2, -1)
    pairs = [[footage("x", frames, sound) for frames in (made, true)]]
    for name, frames in zip("ab", pairs[0]):
        with av.open(str(tmp_path / f"{name}.mkv"), "w") as container:
            stream = container.add_stream("ffv1", rate=25)
            track = container.add_stream("pcm_s16le", rate=16000, layout="mono")
            stream.height, stream.width, stream.pix_fmt = *made.shape[-2:], "bgr0"
            for picture in frames.frames():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            heard = av.AudioFrame.from_ndarray((sound * 32767).round().astype(np.int16)[None], format="s16", layout="mono")
            heard.rate, heard.pts = 16000, 0
            container.mux([*stream.encode(None), *track.encode(heard), *track.encode(None)])
    pairs.append([read_footage(tmp_path / f"{name}.mkv") for name in "ab"])
    suite = Suite(Networks.load())
    test, evaluate = (suite.measure(*pair).figures for pair in pairs)
    assert test == pytest.approx(evaluate, abs=1e-3) and test["psnr"] < 40 and test["judge_c"] is not None
