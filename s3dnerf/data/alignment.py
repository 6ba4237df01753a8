"""Head poses refined on the picture itself: skin and hair of the first frame are looked for in every other."""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Optional, Sequence, Union

import numpy as np

from s3dnerf.data.cropping import CropBox, cut
from s3dnerf.face import EYE_CORNERS, EYE_RINGS, FACE_OVAL, NOSE_BASE, RIGID, metric_face

PATCH_EXTENT = 3.4
"""side of a patch, in eye distances"""
PATCH_PIXELS = 256
"""side of a patch, pixels; smaller faces are not enlarged"""
SPACING = 0.035
"""of the points of skin that are compared, head units"""
HAIR_SPACING, HAIR_WEIGHT = 0.05, 0.3
"""the same of hair and ears, and what one such point counts beside one of skin: how deep it lies is only guessed"""
SKULL_CENTRE, SKULL_RADII = (0.0, -0.1, 0.25), (1.0, 1.4, 0.43)
"""an ellipsoid, head frame, near whose front hair and ears lie"""
ROUNDS = 6
PIXEL_WEIGHT = 0.05
"""of one point of skin, in grey levels squared, against one landmark, in hundredths of a head unit squared"""
PIXEL_KNEE, LANDMARK_KNEE = 8.0, 3.0
"""residuals, in the same units, beyond which a point or a landmark counts less (Huber)"""
MAX_CHANGE = 6.0
"""degrees from the landmarks' pose beyond which the refined one is not believed"""
MAX_RESIDUAL, MIN_CONTRAST = 12.0, 0.4
"""median residual, grey levels, and contrast against the first frame's, beyond which it is not the same sight of the face:
covered, blurred, or lit anew"""


@dataclass(frozen=True)
class Patch:
    """The face cut out of one frame, grey and small."""

    pixels: np.ndarray
    """[S, S] uint8"""
    box: CropBox
    """where it was cut out"""

    @classmethod
    def of(cls, frame: np.ndarray, landmarks: np.ndarray) -> "Patch":
        """From a frame [H, W, 3] uint8 with landmarks [478, 2], pixels."""
        import cv2

        eyes = max(1.0, float(np.linalg.norm(np.subtract(*landmarks[list(EYE_CORNERS)]))))
        side = PATCH_EXTENT * eyes
        box = CropBox(*(landmarks[list(RIGID)].mean(0) - side / 2), side)
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        return cls(cut(grey[None], box, round(min(side, PATCH_PIXELS)))[0], box)


@lru_cache(maxsize=1)
def skin_points() -> np.ndarray:
    """[N, 3] points of the metric face that hardly move with speech or expression: forehead, temples, nose and upper
    cheeks, without eyes; head frame."""
    import cv2

    face = metric_face().astype(np.float64)
    x, y = np.meshgrid(np.arange(-0.75, 0.75, SPACING), np.arange(-0.8, face[NOSE_BASE, 1], SPACING))
    points = np.stack([x, y], -1).reshape(-1, 2)
    reach = lambda ring, size: np.array([cv2.pointPolygonTest(
        _grown(face[list(ring), :2], size), (float(a), float(b)), True) for a, b in points])
    left, right = (reach(ring, 1.25) < -0.03 for ring in EYE_RINGS)
    points = points[(reach(FACE_OVAL, 0.88) > 0) & left & right]
    distance = np.linalg.norm(points[:, None] - face[None, :468, :2], axis=-1)
    nearest = np.argsort(distance, 1)[:, :6]
    weight = 1 / (np.take_along_axis(distance, nearest, 1) ** 2 + 1e-4)
    depth = (weight * face[nearest, 2]).sum(1) / weight.sum(1)
    return np.concatenate([points, depth[:, None]], 1)


@lru_cache(maxsize=1)
def hair_points() -> np.ndarray:
    """[N, 3] points around the face, from the ears up, that turn with the head; head frame. What is far from the middle, in
    depth too, tells a turn from a shift."""
    import cv2

    x, y = np.meshgrid(np.arange(-1.0, 1.001, HAIR_SPACING), np.arange(-1.3, 0.3, HAIR_SPACING))
    points = np.stack([x, y], -1).reshape(-1, 2)
    outline = metric_face().astype(np.float64)[list(FACE_OVAL), :2].astype(np.float32)
    points = points[[cv2.pointPolygonTest(outline, (float(a), float(b)), True) < -0.02 for a, b in points]]
    reach = ((points - SKULL_CENTRE[:2]) / np.array(SKULL_RADII[:2])) ** 2
    depth = SKULL_CENTRE[2] - SKULL_RADII[2] * np.sqrt(np.clip(1 - reach.sum(1), 0, None))
    return np.concatenate([points, depth[:, None]], 1)


def _grown(ring: np.ndarray, size: float) -> np.ndarray:
    middle = ring.mean(0)
    return ((ring - middle) * size + middle).astype(np.float32)


def align_heads(patches: Sequence[Optional[Patch]], landmarks: np.ndarray, intrinsics: np.ndarray, rotations: np.ndarray,
                translations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Poses [T, 3, 3] and [T, 3], head to camera, in which the skin shows what it showed in the first frame.

    Gauss-Newton on grey levels of points of the metric face (Lucas and Kanade 1981, in six degrees of freedom, with a gain
    and an offset of brightness) and on rigid landmarks [T, 478, 2] together, which keeps the pose from drifting. A pose
    that ends far from the landmarks' own, or that explains the picture badly, is left as it was; so is a frame without a
    patch. `intrinsics` [3, 3] and landmarks are in pixels of the frame.
    """
    rotations, translations = rotations.copy(), translations.copy()
    if patches[0] is None:
        return rotations, translations
    skin = Skin.of(_Frame(patches[0], landmarks[0], intrinsics), rotations[0], translations[0])
    for index in range(1, len(patches)):
        if patches[index] is not None:
            frame = _Frame(patches[index], landmarks[index], intrinsics)
            found = frame.solve(skin, rotations[index], translations[index])
            if found is not None:
                rotations[index], translations[index] = found
    return rotations, translations


@dataclass(frozen=True)
class Skin:
    """What the first frame shows of the face."""

    points: np.ndarray
    """[N, 3] see `skin_points` and `hair_points`"""
    share: np.ndarray
    """[N] what each counts"""
    shade: np.ndarray
    """[N] their grey levels"""
    face: np.ndarray
    """[M, 3] rigid landmarks of the metric face"""
    offsets: np.ndarray
    """[M, 2] of this person's landmarks from them, hundredths of a head unit"""

    @classmethod
    def of(cls, frame: "_Frame", rotation: np.ndarray, translation: np.ndarray) -> "Skin":
        """As a frame shows it, seen in a pose."""
        skin, hair, face = skin_points(), hair_points(), metric_face()[list(RIGID)].astype(np.float64)
        points, share = np.concatenate([skin, hair]), np.repeat([1.0, HAIR_WEIGHT], [len(skin), len(hair)])
        return cls(points, share, frame.read(frame.project(points, rotation, translation)[1])[0], face,
                   frame.offsets(face, rotation, translation))


class _Frame:
    """One frame in which the skin is looked for, in pixels of its patch."""

    def __init__(self, patch: Patch, landmarks: np.ndarray, intrinsics: np.ndarray):
        import cv2

        grey = cv2.GaussianBlur(patch.pixels.astype(np.float32), (0, 0), 1.0)
        slope = lambda x, y: cv2.Sobel(grey, cv2.CV_32F, x, y, scale=1 / 8)
        self.maps = cv2.merge([grey, slope(1, 0), slope(0, 1)])
        scale, corner = len(grey) / patch.box.side, np.array([patch.box.left, patch.box.top])
        self.focal, self.centre = intrinsics[[0, 1], [0, 1]] * scale, (intrinsics[:2, 2] - corner) * scale
        self.landmarks = (landmarks[list(RIGID)] - corner) * scale

    def project(self, points: np.ndarray, rotation: np.ndarray, translation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points [N, 3] in the camera's frame, and their pixels [N, 2]."""
        seen = points @ rotation.T + translation
        return seen, seen[:, :2] / seen[:, 2:] * self.focal + self.centre

    def read(self, pixels: np.ndarray) -> np.ndarray:
        """[3, N] grey level and its change along x and y at pixels [N, 2]."""
        import cv2

        x, y = (pixels.T - 0.5).astype(np.float32)
        return cv2.remap(self.maps, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0].T.astype(np.float64)

    def offsets(self, face: np.ndarray, rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
        """[N, 2] of landmarks from where the metric face has them, hundredths of a head unit."""
        return (self.landmarks - self.project(face, rotation, translation)[1]) * (100 * translation[2] / self.focal)

    def slopes(self, change: np.ndarray, seen: np.ndarray, translation: np.ndarray) -> np.ndarray:
        """[N, 6] how fast something that changes by [2, N] along a pixel's x and y does so as the head turns about its own
        origin, and as it shifts; points [N, 3] in the camera's frame."""
        x, y, z = seen.T
        across, down = change * self.focal[:, None] / z
        shift = np.stack([across, down, -(across * x + down * y) / z], 1)
        return np.concatenate([_cross(seen - translation, shift), shift], 1)

    def mark_slopes(self, face: np.ndarray, rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
        """[2 M, 6] the same of where landmarks [M, 3] are, hundredths of a head unit."""
        seen, scale = face @ rotation.T + translation, 100 * translation[2] / self.focal
        return np.stack([self.slopes(np.outer(axis, np.ones(len(face))) * scale[:, None], seen, translation)
                         for axis in np.eye(2)], 1).reshape(-1, 6)

    def solve(self, skin: "Skin", rotation: np.ndarray, translation: np.ndarray) -> Optional[tuple[np.ndarray, np.ndarray]]:
        """The refined pose, or None where it is not to be believed."""
        import cv2

        start, light = rotation, np.array([1.0, 0.0])
        shade = np.stack([skin.shade, np.ones_like(skin.shade)], 1)
        for _ in range(ROUNDS):
            seen, pixels = self.project(skin.points, rotation, translation)
            grey, *change = self.read(pixels)
            wrong = grey - shade @ light
            slope = np.concatenate([self.slopes(np.stack(change), seen, translation), -shade], 1)
            left, right = _normal(slope, wrong, np.abs(wrong), PIXEL_KNEE, PIXEL_WEIGHT * skin.share)
            marks = self.mark_slopes(skin.face, rotation, translation)
            off = skin.offsets - self.offsets(skin.face, rotation, translation)
            more = _normal(marks, off.reshape(-1), np.repeat(np.linalg.norm(off, axis=1), 2), LANDMARK_KNEE, 1.0)
            left[:6, :6], right[:6] = left[:6, :6] + more[0], right[:6] + more[1]
            step = np.linalg.solve(left + 1e-6 * np.eye(8), right)  # a blank picture says nothing
            rotation = cv2.Rodrigues(step[:3])[0] @ rotation
            translation, light = translation + step[3:6], light + step[6:]
        turned = np.degrees(np.linalg.norm(cv2.Rodrigues(rotation @ start.T)[0]))
        believed = turned < MAX_CHANGE and np.median(np.abs(wrong)) < MAX_RESIDUAL and light[0] > MIN_CONTRAST
        return (rotation, translation) if believed else None


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[N, 3] vector products of [N, 3]; np.cross takes several times as long."""
    (u, v, w), (x, y, z) = a.T, b.T
    return np.stack([v * z - w * y, w * x - u * z, u * y - v * x], 1)


def _normal(slope: np.ndarray, wrong: np.ndarray, size: np.ndarray, knee: float,
            weight: Union[float, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Normal equations [D, D] and [D] of residuals [N] with slopes [N, D]; those of a size [N] beyond the knee count less;
    one weight for all, or [N]."""
    weighted = slope * (weight * np.minimum(1, knee / np.maximum(size, 1e-9)))[:, None]
    # Not `@`, whose sums depend on how many threads the process has.
    return np.einsum("ni,nj->ij", weighted, slope), -np.einsum("ni,n->i", weighted, wrong)
