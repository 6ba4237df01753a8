"""A torso's track: a synthetic torso that is moved by known amounts, before a background and under a head that move otherwise."""
import cv2
import numpy as np
import pytest

from s3dnerf.data.body import BodyTrack, _similarity, track_body

SIDE, PIVOT = 128, np.array([64.0, 104.0])


def picture(seed, blur=1.5):
    noise = np.random.default_rng(seed).random((SIDE, SIDE, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), blur)
    return ((soft - soft.min()) / np.ptp(soft) * 255).astype(np.uint8)


def matrix(shift=(0.0, 0.0), turn=0.0, scale=0.0):
    """[2, 3] pixels: a similarity about the pivot."""
    rotation = np.exp(scale) * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.hstack([rotation, (PIVOT + shift - rotation @ PIVOT)[:, None]])


def polygon(corners, moved):
    mask = np.zeros((SIDE, SIDE), np.uint8)
    corners = np.asarray(corners, float) @ moved[:, :2].T + moved[:, 2]
    cv2.fillConvexPoly(mask, np.round(corners * 16).astype(np.int32), 1, shift=4)
    return mask


def scene(moves, heads=None, walls=None):
    """Frames, torso masks and head masks of a cloth that moves by `moves`, a head by `heads`, a wall by `walls` (shifts)."""
    cloth, skin, wall = picture(0), picture(1), picture(2)
    still = [(0.0, 0.0)] * len(moves)
    frames, torsos, faces = [], [], []
    for move, head, back in zip(moves, heads or still, walls or still):
        own, other = matrix(*move), np.hstack([np.eye(2), np.array(head)[:, None]])
        warp = lambda image, how: cv2.warpAffine(image, how, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        torso = polygon([(4, 140), (20, 84), (108, 84), (124, 140)], own)
        face = polygon([(44, 20), (84, 20), (84, 90), (44, 90)], other)
        frame = np.where(torso[..., None] > 0, warp(cloth, own), warp(wall, np.hstack([np.eye(2), np.array(back)[:, None]])))
        frames.append(np.where(face[..., None] > 0, warp(skin, other), frame))
        faces.append(face > 0)
        torsos.append((torso > 0) & (face == 0))
    return frames, torsos, faces


def about(track, frame):
    """Shift in pixels, turn and scale of a frame about the scene's own pivot."""
    moved = track.moved(PIVOT[None] / SIDE, frame)[0] * SIDE - PIVOT
    return [*moved, *track.motion[frame, 2:]]


SWAY = [((6 * np.sin(k / 5), 3 * (1 - np.cos(k / 4))), 0.06 * np.sin(k / 6), 0.03 * np.sin(k / 7)) for k in range(25)]


@pytest.mark.parametrize("others", [False, True])
def test_a_known_motion_is_found_whatever_head_and_wall_do(others):
    heads = [(-9 * np.sin(k / 3), 4 * np.sin(k / 2)) for k in range(25)] if others else None
    walls = [(k / 2, -k / 3) for k in range(25)] if others else None
    track = track_body(*scene(SWAY, heads, walls), smooth=0)
    for frame in (3, 9, 16, 24):
        shift, turn, scale = SWAY[frame]
        found = about(track, frame)
        assert np.allclose(found[:2], shift, atol=0.15)
        assert found[2] == pytest.approx(turn, abs=0.006) and found[3] == pytest.approx(scale, abs=0.006)
    assert track.sure.min() > 0.5 and np.abs(track.motion[0]).max() < 1e-6


def test_a_torso_that_stands_still_stays_under_a_head_that_moves():
    track = track_body(*scene([((0.0, 0.0), 0.0, 0.0)] * 12, [(3 * np.sin(k), 2 * k / 3) for k in range(12)]), smooth=0)
    assert np.abs(track.motion[:, :2]).max() * SIDE < 0.05 and np.abs(track.motion[:, 2:]).max() < 0.002


def test_points_on_edges_count_across_them_alone_and_outliers_do_not():
    draw = np.random.default_rng(0)
    points, angle = draw.uniform(0, 100, (60, 2)), draw.uniform(0, np.pi, 60)
    along = np.stack([np.cos(angle), np.sin(angle)], 1)
    across = np.stack([-along[:, 1], along[:, 0]], 1)
    truth = matrix((3.0, -1.0), 0.05, 0.02)
    found = points @ truth[:, :2].T + truth[:, 2] + draw.uniform(-4, 4, (60, 1)) * along
    found[:10] += 15
    slid = [_similarity(points, found, tensors, np.ones(60), np.eye(3))[0][:2]
            for tensors in (across[:, :, None] * across[:, None], np.eye(2)[None].repeat(60, 0))]
    miss = [np.abs((points @ (one - truth)[:, :2].T + (one - truth)[:, 2])).max() for one in slid]
    assert miss[0] < 0.1 < miss[1]


def test_frames_that_show_nothing_lie_between_their_neighbours():
    frames, torsos, heads = scene([((0.5 * k, 0.0), 0.0, 0.0) for k in range(9)])
    frames[4] = np.zeros_like(frames[4])
    track = track_body(frames, torsos, heads, smooth=0)
    assert track.sure[4] == 0 and track.motion[4, 0] * SIDE == pytest.approx(2.0, abs=0.1)
    assert track.sure[5] > 0.5 and track.motion[8, 0] * SIDE == pytest.approx(4.0, abs=0.1)


def test_smoothing_averages_and_keeps_a_steady_motion():
    frames, torsos, heads = scene([((0.5 * k, 0.4 * (-1) ** k), 0.0, 0.0) for k in range(12)])
    rough, smooth = track_body(frames, torsos, heads, smooth=0), track_body(frames, torsos, heads, smooth=1.5)
    assert np.diff(smooth.motion[:, 1]).std() < 0.3 * np.diff(rough.motion[:, 1]).std()
    assert np.allclose(smooth.motion[5:7, 0], rough.motion[5:7, 0], atol=0.1 / SIDE)


def test_without_a_torso_nothing_moves():
    frames, torsos, _ = scene(SWAY[:3])
    track = track_body(frames, [np.zeros_like(mask) for mask in torsos])
    assert not track.motion.any() and not track.sure.any()
    assert isinstance(track_body([], []), BodyTrack) and track_body([], []).motion.shape == (0, 4)
