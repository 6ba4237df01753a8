"""A video rendered by several processes is the same, to the byte; one that is killed leaves nothing behind."""
import os
import signal
import wave
from importlib.resources import files

import numpy as np
import pytest
import torch

from s3dnerf import splitting
from s3dnerf.cli import main
from s3dnerf.errors import S3DNeRFError
from s3dnerf.inference import CPU_BATCH, TalkingHead, TalkingVideo
from s3dnerf.marking.marks import Marks
from s3dnerf.models.hub import save_model
from s3dnerf.splitting import SplitVideo, rendered
from s3dnerf.statistics import RENDERING, Statistics

PHOTO = str(files("s3dnerf") / "assets" / "demo_photo.jpg")


class Numbers:
    """A scene whose frames show their number; at frame `killed` that process is killed."""

    width, height, region = 16, 16, (slice(0, 16), slice(0, 16))

    def __init__(self, frames, killed=None):
        self.statistics, self.killed = Statistics("none", torch.device("cpu"), 0, frames=frames), killed

    def frames(self, first, count):
        if self.killed is not None and first <= self.killed < first + count:
            os.kill(os.getpid(), signal.SIGKILL)
        with self.statistics.stage("render"):
            shown = np.zeros((count, 16, 16, 3), np.uint8)
            shown[:, 0, 0, 0] = np.arange(first, first + count)
            return shown

    def video(self):
        return TalkingVideo(self, None, np.zeros(640 * self.statistics.frames, np.float32), self.statistics)


@pytest.fixture(scope="module")
def speech():
    """A second in which loudness comes and goes."""
    time = np.arange(16_000) / 16_000
    return (0.3 * np.sin(2 * np.pi * 180 * time) * np.sin(3 * time) ** 2).astype(np.float32)


def test_two_processes_give_the_frames_and_the_file_of_one(tiny_head, speech, tmp_path, monkeypatch):
    """With everything that has a course over time: lips and a path that are smoothed, head motion, blinks, marks."""
    monkeypatch.setattr(splitting, "SPAN_FRAMES", 8)
    marks = Marks(manifest=False)  # a signature has a number that is drawn
    video = TalkingHead(tiny_head).speak(PHOTO, speech, frame="face", smooth=0.08, seed=3, eyes="60/min")
    alone = np.stack(list(video))
    video.save(tmp_path / "one.mp4", marks=marks)
    video.statistics.stopwatch.seconds.clear()
    split = SplitVideo(video, 2)
    assert [span.count for span in split.spans()] == [8, 8, 8, 1]
    kept, shown = split.marking, []
    split.marking = lambda marks: noting(kept(marks), shown)
    statistics = split.save(tmp_path / "two.mp4", marks=marks)
    assert np.array_equal(np.stack(shown), alone)  # as they go to the marks and the encoder
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()
    assert set(RENDERING) - {"composite"} <= set(statistics.seconds) and statistics.workers == 2 and statistics.first_frame > 0
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def noting(marking, shown):
    """A marking that keeps what it is given."""
    frame = marking.frame
    marking.frame = lambda picture: shown.append(picture) or frame(picture)
    return marking


def test_a_part_that_is_killed_is_one_line_and_leaves_no_file(tmp_path):
    with pytest.raises(S3DNeRFError, match="worker was killed[^\n]*$"):
        SplitVideo(Numbers(200, killed=100).video(), 1).save(tmp_path / "out.mp4", marks=None)
    assert not list(tmp_path.iterdir())


def test_spans_are_whole_batches_and_large_frames_make_short_ones():
    scene = Numbers(100)
    scene.width = scene.height = 1080
    spans = list(SplitVideo(scene.video(), 2).spans())
    assert {span.count for span in spans} == {CPU_BATCH} and sum(span.count for span in spans) == 100


def test_short_videos_are_shared_out_too_and_only_those_at_work_are_counted(monkeypatch):
    counts = lambda frames, parts: [span.count for span in SplitVideo(Numbers(frames).video(), parts).spans()]
    assert counts(25, 2) == [16, 9] and counts(5, 8) == [4, 1] and counts(100, 2) == [48, 48, 4]
    asked = []
    monkeypatch.setattr(splitting, "in_order", lambda function, jobs, engine, workers, *rest: asked.append(workers)
                        or map(function, jobs))
    video = SplitVideo(Numbers(5).video(), 8)
    assert len(list(video)) == 5 and asked == [2] and video.statistics.workers == 2 * next(video.spans()).cores


def test_a_span_has_the_batches_of_one_process():
    scene, asked = Numbers(50), []
    frames = scene.frames
    scene.frames = lambda first, count: asked.append((first, count)) or frames(first, count)
    list(TalkingVideo.__iter__(scene.video()))
    whole, asked[:] = set(asked), []
    for span in SplitVideo(scene.video(), 2).spans():
        rendered(scene, span)
    assert set(asked) == whole


def test_the_command_line_says_into_how_many_and_where(tiny_head, tmp_path, speech, monkeypatch, capsys):
    asked = []

    class Noted(SplitVideo):
        def __init__(self, video, parts, engine):
            asked.append((parts, engine))
            super().__init__(video, parts, engine)

        __iter__ = TalkingVideo.__iter__

    monkeypatch.setattr(splitting, "SplitVideo", Noted)
    save_model(tiny_head, tmp_path / "weights")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 4000, "NONE", ""))
        file.writeframes((speech[:4000] * 32767).astype("<i2").tobytes())
    told = ["speak", "--photo", PHOTO, "--speech", str(tmp_path / "a.wav"), "--weights", str(tmp_path / "weights"),
            "--frame", "face", "--output", str(tmp_path / "out.mp4")]
    assert main([*told, "--split", "0"]) == 2 and "--split 0" in capsys.readouterr().err and not asked
    assert main([*told, "--split", "3", "--engine", "ray"]) == 0 and asked == [(3, "ray")]
