"""How a torso moves in a picture, frame by frame: points on it that optical flow follows, and the similarity they agree on."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional

import numpy as np

POINTS, APART = 200, 4
"""most points that are followed, and the side of the squares of which each gives at most one, pixels"""
LEAST = 12
"""points below which nothing is said"""
RETURN = 0.5
"""pixels by which a point that is followed there and back may miss where it began"""
AGREE = 1.0
"""pixels by which a point may miss the similarity that the others agree on, and still counts as found"""
ENOUGH = 0.5
"""share of a key frame's points, by their weight, that must be found again; else a later frame takes its place"""
USUAL = 0.05
"""turn, radians, and change of scale that are common, in pixels of error of one point that they are worth"""
NEAR = 0.15
"""sides of the frame from the torso's middle, the standard deviation of a Gaussian by which points count: collar and neck are what
is seen beside a face, and shoulders do not move as they do"""
KEYS = 5
"""most key frames"""
MARGIN = 8
"""pixels of a 256th of the frame that points keep from the torso's edge: masks are wide, and heads move before it"""


@dataclass(frozen=True)
class BodyTrack:
    """The similarity that takes the torso of the first frame to that of every frame.

    A point p of the first frame, in sides of the frame, is found at pivot + shift + exp(scale) * R(turn) (p - pivot).
    """

    motion: np.ndarray
    """[T, 4] float32: shift of the pivot to the right and down, in sides of the frame; turn, radians, clockwise as seen; natural
    logarithm of the scale"""
    pivot: np.ndarray
    """[2] float32: what it turns about, by default the torso's middle where it is first seen, from the left and the top, in sides of
    the frame"""
    sure: np.ndarray
    """[T] float32 in [0, 1]: share of the points that agree, by their weight; 0 where none was found and the
    motion is that of the frames around"""

    def moved(self, points: np.ndarray, frame: int) -> np.ndarray:
        """Where points [N, 2] of the first frame's torso are in another frame, in sides of the frame."""
        x, y, turn, scale = self.motion[frame]
        rotation = np.exp(scale) * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        return (points - self.pivot) @ rotation.T + self.pivot + (x, y)


def track_body(frames: Iterable[np.ndarray], torso: Iterable[np.ndarray], head: Optional[Iterable[np.ndarray]] = None,
               smooth: float = 1.0, pivot: Optional[tuple[float, float]] = None) -> BodyTrack:
    """Follows the torso through a shot.

    Points of corners and edges on the torso are followed from a key frame to each frame by sparse Lucas-Kanade flow, which begins
    where the frame before left off; those that come back to where they began are taken for a similarity, by least squares that
    give up outliers. A point counts in the directions in which its surroundings tell its motion: along an edge it says nothing.
    The first frame is the key frame as long as half of its points are found again, so that nothing drifts; then one of a few
    later ones.

    Args:
        frames: [S, S, 3] uint8 each, of one shot.
        torso: [h, w] bool each: where the torso is, the head left out; any resolution.
        head: [h, w] bool each: where the head with its neck is, which points keep away from.
        smooth: frames, the standard deviation of a Gaussian that the motion is averaged over; 0 leaves it.
        pivot: point about which the motion is told, in sides of the frame; None is the torso's middle.
    """
    follower, found, sure = _Follower(), [], []
    for frame, mask, other in zip(frames, torso, head if head is not None else _nothing()):
        matrix, share = follower.follow(frame, mask, other)
        found.append(matrix)
        sure.append(share)
    sure = np.array(sure, np.float32)
    side = follower.side
    pivot = follower.pivot if pivot is None else np.multiply(pivot, side)
    moves = np.stack([_numbers(matrix, pivot) for matrix in found]) if found else np.zeros((0, 4))
    moves[:, :2] /= side
    known = np.flatnonzero(sure)
    if len(known):
        moves = np.stack([np.interp(np.arange(len(moves)), known, column[known]) for column in moves.T], 1)
    if smooth and len(moves):
        from scipy.ndimage import gaussian_filter1d

        moves = gaussian_filter1d(moves, smooth, axis=0, mode="nearest")
    return BodyTrack(moves.astype(np.float32), (pivot / side).astype(np.float32), sure)


@dataclass
class _Key:
    image: np.ndarray
    points: np.ndarray
    tensors: np.ndarray
    weights: np.ndarray
    matrix: np.ndarray


class _Follower:
    """Where the torso is, from frame to frame; matrices [3, 3] take pixels of the first frame to those of another."""

    def __init__(self):
        self.side, self.pivot, self.keys, self.last = 1, np.full(2, 0.5), [], np.eye(3)

    def follow(self, frame: np.ndarray, torso: np.ndarray, head: Optional[np.ndarray]) -> tuple[np.ndarray, float]:
        import cv2

        image = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        self.side = len(image)
        mask = _inner(torso, head, self.side)
        best, share = self.last, 0.0
        for key in self.keys:
            matrix, agreed = _match(key, image, self.last)
            if agreed > share:
                best, share = matrix, agreed
            if share >= ENOUGH:
                break
        self.last = best
        if share < ENOUGH and (share > 0 or not self.keys):
            self._keep(image, mask)
            share = share or float(bool(self.keys))
        return best, share

    def _keep(self, image: np.ndarray, mask: np.ndarray) -> None:
        """Takes a frame for a key frame."""
        import cv2

        edges = cv2.cornerEigenValsAndVecs(cv2.GaussianBlur(image, (0, 0), 1), 9, 3)
        points = _scattered(edges[..., :2].max(-1) * mask)
        if len(points) < LEAST:
            return
        if not self.keys:
            self.pivot = np.argwhere(mask).mean(0)[::-1] + 0.5
        x, y = points.astype(int).T
        away = _apply(np.linalg.inv(self.last), points) - self.pivot
        weights = np.exp(-(away ** 2).sum(1) / 2 / (NEAR * self.side) ** 2)
        self.keys = self.keys[:KEYS - 1] + [_Key(image, points, _tensors(edges[y, x]), weights, self.last)]


def _scattered(strength: np.ndarray) -> np.ndarray:
    """[N, 2] float32: the strongest pixel of every square of `APART` pixels, the strongest `POINTS` of them."""
    cells = np.array(strength.shape) // APART
    tiles = strength[:cells[0] * APART, :cells[1] * APART].reshape(cells[0], APART, cells[1], APART).transpose(0, 2, 1, 3)
    tiles = tiles.reshape(*cells, -1)
    best, place = tiles.max(-1), tiles.argmax(-1)
    rows, columns = np.nonzero(best > 1e-3 * best.max())
    order = np.argsort(-best[rows, columns], kind="stable")[:POINTS]
    rows, columns = rows[order], columns[order]
    inside = place[rows, columns]
    return np.stack([columns * APART + inside % APART, rows * APART + inside // APART], 1).astype(np.float32)


def _tensors(edges: np.ndarray) -> np.ndarray:
    """[N, 2, 2] how much a point tells about its motion in each direction, at most 1 in the best: along an edge nothing."""
    first, second = edges[:, :1], edges[:, 1:2]
    vectors = edges[:, 2:].reshape(-1, 2, 2)
    scale = np.concatenate([first, second], 1) / (first + 0.1 * np.median(first))
    return np.einsum("nk,nki,nkj->nij", scale, vectors, vectors)


def _match(key: _Key, image: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, float]:
    """The matrix that takes the first frame to this one, by way of a key frame, and the share of the key's points that agree."""
    import cv2

    start = _apply(guess @ np.linalg.inv(key.matrix), key.points)
    options = dict(winSize=(15, 15), maxLevel=2, flags=cv2.OPTFLOW_USE_INITIAL_FLOW, minEigThreshold=1e-5,
                   criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.003))
    there, seen, _ = cv2.calcOpticalFlowPyrLK(key.image, image, key.points, start.astype(np.float32), **options)
    back, again, _ = cv2.calcOpticalFlowPyrLK(image, key.image, there, key.points.copy(), **options)
    good = (seen[:, 0] > 0) & (again[:, 0] > 0) & (_length(back - key.points, key.tensors) < RETURN)
    if good.sum() < LEAST:
        return guess, 0.0
    step, agree = _similarity(key.points[good], there[good], key.tensors[good], key.weights[good], key.matrix)
    return step @ key.matrix, float(key.weights[good][agree].sum() / key.weights.sum())


def _similarity(points: np.ndarray, found: np.ndarray, tensors: np.ndarray, weights: np.ndarray,
                before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The similarity [3, 3] that takes points [N, 2] to where they were found, each counted by its weight and in the directions
    in which it tells something, and [N] which agree with it; robust least squares that begin at the median shift. Together with
    the matrix `before`, it turns and scales about as little as `USUAL` says, unless the points ask for it."""
    middle = weights @ points / weights.sum()
    x, y = (points - middle).T
    one, zero = np.ones_like(x), np.zeros_like(x)
    rows = np.stack([np.stack([one, zero, x, -y], 1), np.stack([zero, one, y, x], 1)], 1)  # shift, scale - 1, turn
    shift = found - points
    answer = np.array([*np.median(shift, 0), 0.0, 0.0])
    usual = np.diag([0.0, 0.0, 1.0, 1.0]) / USUAL ** 2
    goal = np.array([0.0, 0.0, 1 - before[0, 0], -before[1, 0]])
    for scale in (4.0, 2.0, 1.0, 1.0, 0.5, 0.5):
        weight = weights / (1 + (_length(shift - rows @ answer, tensors) / scale) ** 2) ** 2
        part = np.einsum("n,nij,njk->nik", weight, tensors, rows)
        answer = np.linalg.solve(np.einsum("nik,nij->kj", part, rows) + usual + 1e-9 * np.eye(4),
                                 np.einsum("nik,ni->k", part, shift) + usual @ goal)
    agree = _length(shift - rows @ answer, tensors) < AGREE
    turn = np.array([[1 + answer[2], -answer[3]], [answer[3], 1 + answer[2]]])
    step = np.eye(3)
    step[:2, :2], step[:2, 2] = turn, middle + answer[:2] - turn @ middle
    return step, agree


def _length(offset: np.ndarray, tensors: np.ndarray) -> np.ndarray:
    """[N] lengths of offsets [N, 2] in the directions in which points tell something."""
    return np.sqrt(np.einsum("ni,nij,nj->n", offset, tensors, offset).clip(0))


def _inner(torso: np.ndarray, head: Optional[np.ndarray], side: int) -> np.ndarray:
    """[S, S] uint8: the torso, away from its edges and the head's."""
    import cv2

    large = lambda mask: cv2.resize(mask.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST)
    margin = np.ones((2 * round(MARGIN * side / 256) + 1,) * 2, np.uint8)
    inner = cv2.erode(large(torso), margin, borderType=cv2.BORDER_REPLICATE)
    return inner if head is None else inner * (1 - cv2.dilate(large(head), margin))


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def _numbers(matrix: np.ndarray, pivot: np.ndarray) -> np.ndarray:
    """[4] shift of the pivot, turn and log scale of a similarity [3, 3]."""
    shift = _apply(matrix, pivot[None])[0] - pivot
    return np.array([*shift, np.arctan2(matrix[1, 0], matrix[0, 0]), np.log(np.hypot(matrix[0, 0], matrix[1, 0]))])


def _nothing():
    from itertools import repeat

    return repeat(None)
