"""Footage, boxes and alignment."""
from dataclasses import replace

import cv2
import numpy as np
import pytest

from s3dnerf.evaluation.boxes import boxes
from s3dnerf.evaluation.footage import look, read_footage, similarity
from s3dnerf.evaluation.protocol import Protocol
from s3dnerf.evaluation.suite import chunks
from s3dnerf.face import LANDMARKS_68
from s3dnerf.media import VideoWriter


def test_similarity_finds_turn_scale_and_shift():
    points = np.random.randn(9, 2)
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    move = similarity(points, points @ (1.7 * turn).T + [3, -2])
    assert np.allclose(move, np.hstack([1.7 * turn, [[3], [-2]]]))
    noisy = points @ turn.T + 0.1 * np.random.randn(9, 2)
    residual = lambda m: np.square(points @ m[:, :2].T + m[:, 2] - noisy).sum()
    best = residual(similarity(points, noisy))
    for angle, scale in ((0.41, 1), (0.39, 1), (0.4, 1.05), (0.4, 0.95)):
        other = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        assert best <= residual(np.hstack([other, (noisy.mean(0) - other @ points.mean(0))[:, None]]))


def test_alignment_brings_another_crop_to_the_same_face(recording):
    """The recording turned, scaled and moved is the recording again; frames and landmarks go together."""
    frames = np.stack(list(recording.frames()))[:3]
    move = np.array([[1.1, -0.15, 12.0], [0.15, 1.1, 5.0]])
    grid = move.copy()
    grid[:, 2] += grid[:, :2] @ (0.5, 0.5) - 0.5
    moved = np.stack([cv2.warpAffine(frame, grid, (170, 170), flags=cv2.INTER_CUBIC) for frame in frames])
    points = recording.landmarks[:3] @ move[:, :2].T + move[:, 2]
    one = replace(recording, frames=lambda: iter(frames), landmarks=recording.landmarks[:3]).aligned(128)
    two = replace(recording, frames=lambda: iter(moved), landmarks=points, size=(170, 170)).aligned(128)
    assert np.allclose(one.landmarks, two.landmarks, atol=1e-6)
    face = boxes(one, Protocol())["_face"]
    pair = [face.cut(np.stack(list(footage.frames())), 0).astype(float) for footage in (one, two)]
    assert pair[0].shape == (3, face.side, face.side, 3)
    still = face.cut(np.stack([frames[0]] * 3), 0).astype(float)
    assert np.abs(pair[0] - pair[1]).mean() < 3 < 10 < np.abs(pair[0] - still).mean()


def test_boxes_hold_face_and_mouth_and_stay_within_the_frame(recording):
    found = boxes(recording, Protocol())
    points = recording.landmarks[:, list(LANDMARKS_68)]
    for region, inside in (("_face", points), ("_mouth", points[:, 48:])):
        box = found[region]
        assert box.corners.min() >= 0 and (box.corners + box.side).max() <= 128
        low, high = box.corners[:, None], box.corners[:, None] + box.side
        assert ((inside > low - 1) & (inside < high + 1)).all()
    assert found["_mouth"].side < found["_face"].side
    part = found["_mouth"].cut(np.stack(list(recording.frames()))[4:6], 4)
    left, top = found["_mouth"].corners[5]
    frame = list(recording.frames())[5]
    assert np.array_equal(part[1], frame[top:top + part.shape[1], left:left + part.shape[2]])
    edge = replace(recording, landmarks=recording.landmarks - [60, 0])
    assert boxes(edge, Protocol())["_face"].corners.min() == 0


def test_frames_without_a_face_are_filled_in_from_their_neighbours(recording):
    gone = recording.landmarks.copy()
    gone[4] = np.nan
    footage = replace(recording, landmarks=gone)
    assert footage.seen.sum() == len(footage) - 1 and not np.isnan(footage.places).any()
    assert np.allclose(footage.places[4], (gone[3] + gone[5]) / 2)
    nobody = look("grey", lambda: iter([np.full((64, 64, 3), 127, np.uint8)] * 2))
    assert not nobody.seen.any() and boxes(nobody, Protocol()) == {}
    assert [frame.shape for frame in nobody.aligned(96).frames()] == [(96, 96, 3)] * 2


def test_a_file_is_read_with_its_sound_and_as_often_as_wanted(recording, tmp_path):
    frames = list(recording.frames())
    for name, sound in (("a", recording.sound), ("b", None)):
        with VideoWriter(tmp_path / f"{name}.mp4", 128, 128, sound=sound, crf=1) as video:
            for frame in frames:
                video.write(frame)
    footage, silent = read_footage(tmp_path / "a.mp4"), read_footage(tmp_path / "b.mp4")
    assert footage.name == "a" and len(footage) == len(frames) and silent.sound is None
    assert len(footage.sound) == pytest.approx(len(recording.sound), abs=1100)
    assert np.abs(footage.landmarks - recording.landmarks).mean() < 1
    twice = [np.stack(list(footage.frames())) for _ in range(2)]
    assert np.array_equal(*twice) and np.abs(twice[0].astype(float) - frames).mean() < 4
    parts = list(chunks(footage.first(10), recording.first(10)))
    assert [(len(part.made), part.first) for part in parts] == [(8, 0), (2, 8)]
    assert np.array_equal(parts[1].true, frames[8:10])
