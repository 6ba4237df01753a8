"""Operators and bytes of a batch, counted on tensors without numbers."""
import copy

import pytest
import torch

from s3dnerf.benchmark.work import ByteCounter
from s3dnerf.camera_path import CameraPath
from s3dnerf.driving import SpeechDrive
from s3dnerf.face import metric_face
from s3dnerf.geometry import frontal_camera
from s3dnerf.inference import PhotoScene
from s3dnerf.paste import FaceFrame
from s3dnerf.poses import NaturalHead
from s3dnerf.statistics import Statistics
from s3dnerf.types import Portrait


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("count_operators")


def test_views_are_no_operators(script):
    with script.OperatorCounter() as counter:
        (torch.zeros(4, device="meta").view(2, 2)[0] + 1).square()
    assert counter.total == 3


def test_the_fused_march_has_fewer_and_the_rest_is_the_same(script, tiny_head):
    pytest.importorskip("triton", reason="Triton is not installed; it comes with torch for Linux and CUDA")
    model, head = copy.deepcopy(tiny_head).eval(), NaturalHead(0, 4)
    blank = Portrait(torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64), frontal_camera(64)[None],
                     torch.from_numpy(metric_face())[None], torch.ones(1, 1, 64, 64))
    with torch.inference_mode():
        scene = PhotoScene(model, model.encode(blank), SpeechDrive(model, torch.rand(4 * 640).numpy(), blank.mesh[0]), head,
                           FaceFrame(64), Statistics("", torch.device("cpu"), 0, frames=4), CameraPath.fixed((0.0, 0.0)), head)
    for kind in (script.OperatorCounter, ByteCounter):
        plain, fused = (script.counted(scene, kind, fused, frames=2) for fused in (False, True))
        assert 0 < fused["ray march"] < 0.6 * plain["ray march"]
        assert {name: fused[name] for name in fused if name != "ray march"} == {
            name: plain[name] for name in plain if name != "ray march"}
    assert {"motion", "motion field", "super-resolution", "render", "composite"} < set(plain)
