"""What a GPU is fed with, on a processor that stands in for it: the same frames, in batches of one shape."""
import copy
import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from s3dnerf.camera_path import CameraPath
from s3dnerf.downloads import Ahead, Download, Downloads
from s3dnerf.driving import SpeechDrive
from s3dnerf.face import metric_face
from s3dnerf.geometry import frontal_camera
from s3dnerf.inference import PhotoScene
from s3dnerf.paste import FaceFrame
from s3dnerf.planar import planar
from s3dnerf.poses import NaturalHead
from s3dnerf.replay import Recorder, Replay, filled, tensors
from s3dnerf.statistics import Statistics
from s3dnerf.streamed import streamed, takes_planar
from s3dnerf.types import Portrait, TensorRecord


@dataclass(frozen=True)
class Pair(TensorRecord):
    left: torch.Tensor
    right: torch.Tensor


class Imitation(Recorder):
    """Records as a GPU does: nothing that came with a call is read again but what lies at the recorded places."""

    def __init__(self):
        self.recorded = 0

    def record(self, function):
        self.recorded += 1
        result = torch.full_like(function(), -1)
        return lambda: result.copy_(function()), result


def add(pair):
    return (pair.left + 10 * pair.right)[0]


def test_a_replay_is_the_function_for_new_values_and_for_fewer_frames():
    recorder, calls = Imitation(), []
    replay = Replay(lambda pair: calls.append(pair.left.shape) or add(pair), 3, recorder)
    for count in (3, 3, 3, 2, 1, 3):
        pair = Pair(torch.rand(1, count, 2), torch.rand(1, count, 2))
        assert torch.equal(replay(pair), add(pair))
    assert recorder.recorded == 1 and set(calls) == {(1, 3, 2)}, "one recording, of one shape"


def test_where_nothing_can_be_recorded_the_function_itself_is_called_and_one_line_says_so():
    class Unable(Recorder):
        def record(self, function):
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    told = []
    replay = Replay(add, 2, Unable(), told.append)
    for _ in range(4):
        pair = Pair(torch.rand(1, 2, 2), torch.rand(1, 2, 2))
        assert torch.equal(replay(pair), add(pair))
    assert len(told) == 1 and "not permitted" in told[0] and "\n" not in told[0]


def test_records_are_filled_with_their_last_row_and_taken_apart_in_order():
    pair = Pair(torch.arange(2.0)[None], torch.arange(2.0, 4)[None])
    assert filled(pair.left, 4).tolist() == [[0, 1, 1, 1]] and filled(pair.left, 2) is pair.left
    assert [values.tolist() for values in tensors(pair)] == [[[0, 1]], [[2, 3]]]


def test_results_come_in_order_from_a_thread_that_is_one_ahead():
    begun, threads = [], set()

    def begin(part):
        begun.append(part)
        threads.add(threading.current_thread().name)
        return lambda: np.full(1, part if len(begun) > part + 1 or part == 5 else -1)

    assert [int(found[0]) for found in Ahead().stream(begin, range(6))] == list(range(6)), "the next was begun before"
    assert threading.current_thread().name not in threads and len(threads) == 1


def test_what_fails_ahead_is_told():
    with pytest.raises(ZeroDivisionError):
        list(Ahead().stream(lambda part: lambda: 1 / (part - 2), range(5)))


def test_pictures_are_those_of_when_they_were_sent_for_and_are_waited_for():
    values = torch.arange(6, dtype=torch.uint8).view(2, 3)
    sent = Downloads().begin(values)
    values += 1
    assert sent.wait().tolist() == [[0, 1, 2], [3, 4, 5]], "as they were when they were sent for"

    class Event:
        def synchronize(self):
            values.fill_(7)

    found = Download(values, Event()).wait()
    assert (found == 7).all()
    values.fill_(8)
    assert (found == 7).all(), "the caller's own"


@pytest.fixture(scope="module")
def scene(tiny_head):
    """A photo's scene of 7 frames, in half the precision where that counts, whose speech and head move."""
    model, size = tiny_head.eval(), tiny_head.image_size
    camera = frontal_camera(size)
    portrait = Portrait(torch.rand(1, 3, size, size), torch.ones(1, 1, size, size), camera[None],
                        torch.from_numpy(metric_face())[None], torch.ones(1, 1, size, size))
    with torch.inference_mode():
        appearance = model.with_occupancy(model.encode(portrait), 3, half=True)
    statistics = Statistics("", torch.device("cpu"), 0, frames=7)
    drive = SpeechDrive(model, (0.3 * torch.rand(7 * 640)).numpy(), portrait.mesh[0], gain=8.0)
    head = NaturalHead(0, 7)
    return PhotoScene(model, appearance, drive, head, FaceFrame(size), statistics, CameraPath.fixed((25.0, 0.0)), head)


def test_frames_for_an_encoder_are_the_same_and_others_have_none(scene):
    with torch.inference_mode():
        expected = scene.frames(0, 3)
    found = next(streamed(scene, 3, 3, as_planar=True, recorder=Imitation()))
    assert found.shape == (3, 96, 64)
    assert np.abs(found.astype(int) - planar(torch.from_numpy(expected)).numpy()).max() <= 2
    zoomed = copy.copy(scene)
    zoomed.camera = CameraPath.fixed((25.0, 0.0, 1.5))
    assert takes_planar(scene) and not takes_planar(zoomed)
    assert next(streamed(zoomed, 3, 3, as_planar=True, recorder=Imitation())).shape == (3, 64, 64, 3)


def test_streamed_frames_are_those_of_the_scene_with_a_last_batch_that_is_not_full(scene):
    recorder = Imitation()
    with torch.inference_mode():
        expected = np.concatenate([scene.frames(first, count) for first, count in ((0, 3), (3, 3), (6, 1))])
    found = np.concatenate(list(streamed(scene, 7, 3, recorder=recorder)))
    assert recorder.recorded == 1
    assert found.shape == expected.shape and np.abs(found.astype(int) - expected).max() <= 2  # bfloat16 in other batches
    assert min(np.abs(np.diff(expected.astype(int), axis=0)).reshape(6, -1).max(1)) > 5, "and every frame is another"
    assert scene.statistics.seconds["render"] > 0 and not scene.statistics.remarks
