"""What only a GPU can show: kernels as they are compiled, graphs as they are recorded, frames against the processor's.

Run by scripts/gpu_check.sh; elsewhere the same paths are tested by interpretation and imitation.
"""
from importlib.resources import files

import numpy as np
import pytest
import torch

from s3dnerf.inference import BATCH, TalkingHead
from s3dnerf.media import read_frames
from s3dnerf.models import one_shot
from s3dnerf.models.fused_march import fusable
from s3dnerf.networks.fused_grid import FusedLookup
from s3dnerf.networks.grid_encoding import GridEncoding
from s3dnerf.planar import planar
from s3dnerf.streamed import streamed

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300),
              pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
ASSETS = files("s3dnerf") / "assets"


def decibels(one, other):
    return 10 * np.log10(255 ** 2 / max(np.mean((np.asarray(one, float) - other) ** 2), 1e-9))


@pytest.fixture(scope="module")
def heads():
    return {device: TalkingHead.load("one-shot-256", device) for device in ("cpu", "cuda")}


def speak(head, quality, frame="face", seconds=1.0):
    sound = np.resize(np.asarray(TONE), round(16000 * seconds))
    return head.speak(str(ASSETS / "demo_photo.jpg"), sound, frame=frame, quality=quality)


TONE = (0.3 * np.sin(np.arange(16000) * 0.1) * np.sin(np.arange(16000) * 8e-4)).astype(np.float32)


@pytest.mark.parametrize("quality, least", [("best", 45), ("balanced", 45), ("fast", 40)])
def test_frames_are_those_of_the_processor(heads, quality, least):
    """TF32 and bfloat16 round; nothing else differs."""
    with torch.inference_mode():
        one, other = (speak(heads[device], quality).scene.frames(10, 8) for device in ("cuda", "cpu"))
    assert decibels(one, other) > least


@pytest.mark.parametrize("quality", ["best", "fast"])
def test_the_fused_march_is_the_plain_one(heads, quality, monkeypatch):
    video = speak(heads["cuda"], quality)
    with torch.inference_mode():
        assert fusable(heads["cuda"].model, video.scene.appearance)
        fused = video.scene.frames(10, 8)
        monkeypatch.setattr(one_shot, "fusable", lambda *_: False)
        plain = video.scene.frames(10, 8)
    assert decibels(fused, plain) > 45


@pytest.mark.parametrize("frame", ["face", "full"])
def test_the_recorded_graph_gives_the_frames(heads, frame):
    video = speak(heads["cuda"], "fast", frame)
    with torch.inference_mode():
        expected = np.concatenate([video.scene.frames(first, min(BATCH, 25 - first)) for first in range(0, 25, BATCH)])
    found = np.concatenate(list(streamed(video.scene, 25, BATCH)))
    assert not video.statistics.remarks, "it could be recorded"
    assert found.shape == expected.shape and decibels(found, expected) > 50


def test_nothing_waits_while_a_batch_is_rendered(heads):
    scene = speak(heads["cuda"], "fast").scene
    with torch.inference_mode():
        motion, cameras = scene.prepared(0, BATCH)
        show = lambda: scene.canvas.shown(scene.model.render(scene.appearance, motion, cameras))
        show()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            show()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dimensions, kind, channels", [(3, "hash", 4), (2, "tiled", 2), (5, "hash", 2)])
def test_the_grid_s_kernels_are_the_look_up(dimensions, kind, channels):
    grid = GridEncoding(dimensions, levels=4, channels=channels, base=4, finest=32, entries=1024, kind=kind)
    with torch.no_grad():
        grid.table.normal_()
    points, weight = torch.rand(5000, dimensions, requires_grad=True), torch.randn(5000, grid.out_channels)
    expected = grid(points)
    wanted = torch.autograd.grad((expected * weight).sum(), (points, grid.table))
    grid, there = grid.cuda(), points.detach().cuda().requires_grad_()
    found = FusedLookup.apply(there, grid.table, grid)
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=1e-4)
    for one, other in zip(torch.autograd.grad((found * weight.cuda()).sum(), (there, grid.table)), wanted):
        torch.testing.assert_close(one.cpu(), other, atol=1e-2, rtol=1e-3)


def test_pictures_for_the_encoder_are_the_processor_s():
    pictures = torch.randint(0, 256, (2, 64, 48, 3), dtype=torch.uint8)
    assert (planar(pictures.cuda()).cpu().int() - planar(pictures).int()).abs().max() <= 1


@pytest.mark.parametrize("frame", ["face", "full"])
def test_a_video_is_written(heads, frame, tmp_path):
    statistics = speak(heads["cuda"], "fast", frame, 3.0).save(tmp_path / "out.mp4")
    assert not [line for line in statistics.remarks if "recorded" in line]
    found = np.stack(list(read_frames(tmp_path / "out.mp4")))
    expected = speak(heads["cpu"], "fast", frame, 3.0)
    with torch.inference_mode():
        assert decibels(found[40:44], expected.scene.frames(40, 4)) > 30  # x264 and the watermark are in it
    assert len(found) == 75


def test_super_resolution_compiles_and_a_long_video_goes_on(heads, monkeypatch):
    monkeypatch.setattr("s3dnerf.streamed.LONG", 16)
    video = speak(heads["cuda"], "best")
    with torch.inference_mode():
        expected = video.scene.frames(0, 8)
    found = np.concatenate(list(streamed(video.scene, 24, BATCH)))
    heads["cuda"].model.super_resolution._compiled_call_impl = None
    assert not video.statistics.remarks and decibels(found[:8], expected) > 45
