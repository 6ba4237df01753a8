"""Face tracking: landmarks, head pose, masks and the crop of a photo or of a video."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional

import numpy as np
import torch

from s3dnerf.data.alignment import Patch, align_heads
from s3dnerf.data.cropping import CropBox, cut
from s3dnerf.data.detection import FaceDetector, selfie_segmentation
from s3dnerf.errors import InputError
from s3dnerf.face import CROP_EXTENT, EYE_CORNERS, FACE_OVAL, INNER_LIPS, RIGID, eye_opening, metric_face
from s3dnerf.geometry import project, unproject
from s3dnerf.types import Cameras, Portrait

FOCAL = 8.0
"""focal length of a photo, in sides of its crop: that of nine in ten recordings on which the model was trained"""
FOCALS = (2.5, 3.2, 4.0, 5.0, 6.3, 8.0)
"""focal lengths that are tried for a video; `FOCAL` is one of them, and the longest: seen from still farther away a head's picture
hardly changes, and what is preferred to `FOCAL` is always nearer"""
FLAT = 0.02
"""a focal length must lower the reprojection error by this share to be preferred to `FOCAL`"""
MAX_YAW = 45.0
"""degrees"""
MAX_ERROR = 6.0
"""reprojection error, percent of the eye distance: the 99th percentile of the development clips is 5.0"""
MIN_EYES = 24.0
"""eye distance in pixels below which a clip is refused; a photo needs MIN_EYES_PHOTO"""
MIN_EYES_PHOTO = 32.0
SHUT_EYES = 0.035
"""eye opening of a photo, head units, below which it was taken in a blink: what is behind the lids nobody has seen"""
CUT = 0.1
"""share of the crop's width along which a head meets the upper edge of its photo, from which on it is cut off there"""
MAX_GAP = 3
"""frames without a face that are bridged"""
HEAD_CENTRE, HEAD_RADII = (0.0, -0.28, 0.15), (1.15, 1.45, 1.2)
"""ellipsoid, head frame, that holds face, hair and ears and ends above the shoulders"""
SMOOTHING = np.array([1, 4, 1]) / 6
SETTLING = 2
"""times that a recording's first frame is looked at before it counts: the face mesh looks a little elsewhere while it only knows
where a face was detected than while it follows one, and everything is told against the first frame"""


@dataclass(frozen=True)
class Track:
    """A face followed through T frames of one picture size; cameras are in pixels of the whole picture."""

    landmarks: np.ndarray
    """[T, 478, 2] pixels"""
    rotations: np.ndarray
    """[T, 3, 3] head to camera"""
    translations: np.ndarray
    """[T, 3] head to camera, head units"""
    focal: float
    """pixels"""
    size: tuple[int, int]
    """height and width of the picture"""
    error: np.ndarray
    """[T] mean distance of the rigid landmarks to the metric face's, percent of the eye distance"""

    @property
    def yaw(self) -> np.ndarray:
        """[T] degrees, as in `rotation_from_euler`: positive towards the viewer's left."""
        return np.degrees(np.arcsin(np.clip(-self.rotations[:, 2, 0], -1, 1)))

    @property
    def unit(self) -> np.ndarray:
        """[T] pixels per head unit."""
        return self.focal / self.translations[:, 2]

    def cameras(self, box: Optional[CropBox] = None, size: int = 1) -> Cameras:
        """Cameras [T] in pixels of the picture, or of a crop resampled to `size`."""
        pose = np.tile(np.eye(4), (len(self.error), 1, 1))
        pose[:, :3, :3] = self.rotations.transpose(0, 2, 1)
        pose[:, :3, 3] = -(pose[:, :3, :3] @ self.translations[..., None])[..., 0]
        height, width = self.size
        intrinsics = np.array([[self.focal, 0, width / 2], [0, self.focal, height / 2], [0, 0, 1]])
        if box is not None:
            intrinsics[:2, 2] -= box.left, box.top
            intrinsics[:2] *= size / box.side
        as_tensor = lambda x: torch.from_numpy(np.ascontiguousarray(x)).float()
        return Cameras(as_tensor(pose), as_tensor(np.tile(intrinsics, (len(pose), 1, 1))))

    def mesh(self) -> np.ndarray:
        """[T, 478, 3] the observed landmarks in the head frame, at the depth that the metric face has there."""
        cameras = self.cameras()
        face = torch.from_numpy(metric_face()).expand(len(self.error), -1, -1)
        depth = project(face, cameras)[1]
        return unproject(torch.from_numpy(self.landmarks).float(), depth, cameras).numpy()

    def crop_box(self) -> CropBox:
        """The square around the head of the first frame."""
        unit = float(self.unit[0])
        height, width = self.size
        centre = self.translations[0, :2] * unit + np.array([width, height]) / 2
        side = CROP_EXTENT * unit
        return CropBox(float(centre[0] - side / 2), float(centre[1] - side / 2), side)


@dataclass(frozen=True)
class Sightings:
    """A face that was looked for in T frames of one picture size."""

    landmarks: list[Optional[np.ndarray]]
    """T times [478, 2] pixels; None where no face was found"""
    patches: list[Optional[Patch]]
    """T small pictures of it"""
    size: tuple[int, int]
    """height and width of the picture"""

    def __len__(self) -> int:
        return len(self.landmarks)

    def __getitem__(self, part: slice) -> "Sightings":
        return Sightings(self.landmarks[part], self.patches[part], self.size)


class FaceTracker:
    """Finds and follows a face with MediaPipe's face mesh, and separates head, torso and background.

    Landmarks are taken as they are (lips must not be damped); the head's pose is refined on the picture itself
    (`alignment.align_heads`) and smoothed over three frames.
    """

    def track(self, frames: Iterable[np.ndarray]) -> Track:
        """Follows the largest face through frames [H, W, 3] uint8, which are looked at one by one; of each only a small
        grey patch around the face is kept.

        InputError if a face is missing for more than 3 frames in a row.
        """
        return self.fit(self.look(frames))

    def look(self, frames: Iterable[np.ndarray]) -> Sightings:
        """The largest face in each of frames [H, W, 3] uint8. InputError if there is no frame."""
        found, patches, size = [], [], None
        with FaceDetector(still=False) as detector:
            for frame in frames:
                size = frame.shape[:2]
                if not found:
                    for _ in range(SETTLING):
                        detector.faces(frame)
                found.append(_largest(detector.faces(frame))[0])
                patches.append(None if found[-1] is None else Patch.of(frame, found[-1]))
        if not found:
            raise InputError("the video has no frames; give a video of a face")
        return Sightings(found, patches, tuple(size))

    def fit(self, seen: Sightings) -> Track:
        """The head's motion. InputError if a face is missing for more than 3 frames in a row."""
        landmarks, size = _bridge(seen.landmarks), seen.size
        focal, rotations, translations = fit_pose(landmarks, size)
        rotations, translations = align_heads(seen.patches, landmarks, intrinsic_matrix(size, focal), rotations, translations)
        rotations, translations = smooth_pose(rotations, translations)
        return _measured(landmarks, rotations, translations, focal, size)

    def portrait(self, image: np.ndarray, size: int = 256) -> tuple[Portrait, CropBox, list[str]]:
        """The largest face of a photo [H, W, 3] uint8 as a portrait, where it was cut from, and remarks for the user.

        InputError if there is no face, or it is too small or turned away by more than 45 degrees; or for a strip of a photo.
        """
        with FaceDetector(still=True) as detector:
            faces = detector.all_faces(image)
        if not faces:
            raise InputError("no face was found in the photo; use a sharp, frontal photo in which the face fills a third")
        landmarks, others = _largest(faces)
        remarks = [f"found {others + 1} faces, took the largest"] if others else []
        focal, rotations, translations = fit_pose(landmarks[None], image.shape[:2], focals=(FOCAL,))
        track = _measured(landmarks[None], rotations, translations, focal, image.shape[:2])
        if track.unit[0] < MIN_EYES_PHOTO:
            raise InputError(f"the face is too small: {track.unit[0]:.0f} pixels between the eyes' outer corners; expected "
                             f"{MIN_EYES_PHOTO:.0f} or more: use a larger photo or a closer crop")
        if abs(track.yaw[0]) > MAX_YAW:
            raise InputError(f"the face is turned away by {abs(track.yaw[0]):.0f} degrees; expected at most {MAX_YAW:.0f}: "
                             "use a photo that looks at the camera")
        box = track.crop_box()
        crop = cut(image[None], box, size)
        head, torso = segment(crop, track, box, size)
        picture = torch.from_numpy(crop[0]).permute(2, 0, 1).float() / 255
        shown = torch.from_numpy(np.concatenate([head, head | torso])).float()[None]
        mask, person = torch.nn.functional.interpolate(shown, size=(size, size), mode="bilinear", align_corners=False)[0, :, None]
        mesh = torch.from_numpy(track.mesh()[0])
        remarks += photo_remarks(mesh, head[0], box)
        return Portrait(picture, mask, track.cameras(box, size)[0], mesh, person), box, remarks


def photo_remarks(mesh: torch.Tensor, head: np.ndarray, box: CropBox) -> list[str]:
    """What the user should know of a photo whose landmarks [478, 3] lie as in `mesh` and whose crop shows a head where
    `head` [h, h] is true."""
    remarks = []
    if eye_opening(mesh) < SHUT_EYES:
        remarks.append("the eyes are shut in the photo and will stay so; use one in which they are open")
    edge = int(np.ceil(-box.top / box.side * len(head))) + 1  # the first row that is all of the photo
    if box.top < 0 and head[edge:edge + 1].sum() > CUT * len(head):
        remarks.append("the photo cuts the head off at the top: its edge is drawn out by --frame face, and wherever the head sinks or "
                       "is seen from above; leave room above the head")
    return remarks


def fit_pose(landmarks: np.ndarray, size: tuple[int, int],
             focals: tuple[float, ...] = FOCALS) -> tuple[float, np.ndarray, np.ndarray]:
    """Focal length (pixels), rotations [T, 3, 3] and translations [T, 3] (head to camera) of landmarks [T, 478, 2].

    One focal length for all frames: the one of least reprojection error on some of them, `FOCAL` unless another is
    clearly better. `focals` are in sides of the crop, which is `CROP_EXTENT` eye distances.
    """
    side = CROP_EXTENT * float(np.median(np.linalg.norm(np.diff(landmarks[:, EYE_CORNERS], axis=1)[:, 0], axis=1)))
    some = landmarks[:: max(1, len(landmarks) // 8)]
    errors = {focal: reprojection_error(some, size, focal * side, *solve_pnp(some, size, focal * side)).mean()
              for focal in focals} if len(focals) > 1 else {}
    best = min(errors, key=errors.get) if errors else focals[0]
    if errors and errors[best] > (1 - FLAT) * errors[FOCAL]:
        best = FOCAL
    return best * side, *solve_pnp(landmarks, size, best * side)


def intrinsic_matrix(size: tuple[int, int], focal: float) -> np.ndarray:
    """[3, 3] of a picture (height, width) whose optical axis meets its middle."""
    return np.array([[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1]])


def solve_pnp(landmarks: np.ndarray, size: tuple[int, int], focal: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotations and translations that carry the metric face's rigid points onto landmarks [T, 478, 2], frame by frame."""
    import cv2

    points, camera = metric_face()[list(RIGID)].astype(np.float64), intrinsic_matrix(size, focal)
    eyes = np.linalg.norm(landmarks[0, EYE_CORNERS[0]] - landmarks[0, EYE_CORNERS[1]])
    middle = (landmarks[0, list(RIGID)].mean(0) - np.array(size[::-1]) / 2) / eyes
    turn, shift = np.zeros((3, 1)), np.array([[middle[0]], [middle[1]], [focal / eyes]])
    rotations, translations = [], []
    for frame in np.ascontiguousarray(landmarks[:, list(RIGID)], np.float64):
        _, turn, shift = cv2.solvePnP(points, frame, camera, None, turn.copy(), shift.copy(), True, cv2.SOLVEPNP_ITERATIVE)
        rotations.append(cv2.Rodrigues(turn)[0])
        translations.append(shift[:, 0])
    return np.stack(rotations), np.stack(translations)


def reprojection_error(landmarks: np.ndarray, size: tuple[int, int], focal: float, rotations: np.ndarray,
                       translations: np.ndarray) -> np.ndarray:
    """[T] mean distance of the projected rigid points to the landmarks, percent of the eye distance."""
    points = metric_face()[list(RIGID)] @ rotations.transpose(0, 2, 1) + translations[:, None]
    pixels = points[..., :2] / points[..., 2:] * focal + np.array(size[::-1]) / 2
    distance = np.linalg.norm(pixels - landmarks[:, list(RIGID)], axis=-1).mean(1)
    return 100 * distance / (focal / translations[:, 2])


def smooth_pose(rotations: np.ndarray, translations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Poses [T] averaged over three frames; rotations are put back onto the rotation group."""

    def smooth(values):
        padded = np.pad(values, [(1, 1)] + [(0, 0)] * (values.ndim - 1), mode="edge")
        return sum(weight * padded[i:i + len(values)] for i, weight in enumerate(SMOOTHING))

    u, _, vt = np.linalg.svd(smooth(rotations))
    return u @ vt, smooth(translations)


def _measured(landmarks, rotations, translations, focal, size) -> Track:
    error = reprojection_error(landmarks, size, focal, rotations, translations)
    return Track(landmarks, rotations, translations, focal, tuple(size), error)


def segment(crops: np.ndarray, track: Track, box: CropBox, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Head and torso masks [T, size / 4, size / 4] of crops [T, size, size, 3].

    The head is what of the person lies inside the head's ellipsoid, and the face itself in any case.
    """
    import cv2

    small = size // 4
    outline = _ellipsoid_outline(track.cameras(box, size))
    face = (track.landmarks[:, list(FACE_OVAL)] - (box.left, box.top)) * (size / box.side)
    heads, torsos = [], []
    reduce = lambda mask: cv2.resize(mask.astype(np.float32), (small, small), interpolation=cv2.INTER_AREA) > 0.5
    with selfie_segmentation() as segmentation:
        for crop, ellipse, oval in zip(crops, outline, face):
            person = reduce(segmentation.process(np.ascontiguousarray(crop)).segmentation_mask)
            inner = cv2.dilate(_filled(oval, size), np.ones((7, 7), np.uint8))
            head = (reduce(_filled(ellipse, size)) & person) | reduce(inner)
            heads.append(head)
            torsos.append(person & ~head)
    return np.stack(heads), np.stack(torsos)


def mouth_masks(landmarks: np.ndarray, box: CropBox, size: int) -> np.ndarray:
    """[T, size / 4, size / 4] inside of the lips of landmarks [T, 478, 2] in pixels of the picture."""
    import cv2

    polygons = (landmarks[:, list(INNER_LIPS)] - (box.left, box.top)) * (size / box.side)
    masks = []
    for polygon in polygons:
        mask = np.zeros((size, size), np.uint8)
        cv2.fillPoly(mask, [np.round((polygon - 0.5) * 16).astype(np.int32)], 1, shift=4)
        masks.append(cv2.resize(mask.astype(np.float32), (size // 4, size // 4), interpolation=cv2.INTER_AREA) > 0.5)
    return np.stack(masks)


def _filled(points: np.ndarray, size: int) -> np.ndarray:
    import cv2

    mask = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(points).astype(np.int32)), 1)
    return mask


def _ellipsoid_outline(cameras: Cameras) -> np.ndarray:
    """[T, 600, 2] pixels of points all over the head's ellipsoid."""
    rank = np.arange(600) + 0.5
    height, turn = 1 - 2 * rank / 600, np.pi * (1 + 5 ** 0.5) * rank
    ring = np.sqrt(1 - height ** 2)
    sphere = np.stack([ring * np.cos(turn), height, ring * np.sin(turn)], 1)
    points = torch.from_numpy(sphere * HEAD_RADII + HEAD_CENTRE).float()
    return project(points.expand(len(cameras.intrinsics), -1, -1), cameras)[0].numpy()


def _largest(faces: list[np.ndarray]) -> tuple[Optional[np.ndarray], int]:
    """The face that covers most, and how many others there are."""
    if not faces:
        return None, 0
    return max(faces, key=lambda face: np.prod(np.ptp(face, axis=0))), len(faces) - 1


def _bridge(found: list[Optional[np.ndarray]]) -> np.ndarray:
    """Landmarks [T, 478, 2] with short gaps interpolated; InputError for long ones."""
    present = np.array([face is not None for face in found])
    missing = longest_run(~present)
    if missing > MAX_GAP or not present.any():
        raise InputError(f"no face in {int((~present).sum())} of {len(found)} frames; use a video that shows one face "
                         "throughout")
    times = np.flatnonzero(present)
    known = np.stack([face for face in found if face is not None]).reshape(len(times), -1)
    every = np.arange(len(found))
    right = np.clip(np.searchsorted(times, every), 1, max(1, len(times) - 1)) if len(times) > 1 else np.zeros(len(every), int)
    left = np.maximum(right - 1, 0)
    share = np.clip((every - times[left]) / np.maximum(times[right] - times[left], 1), 0, 1)[:, None]
    return (known[left] * (1 - share) + known[right] * share).reshape(len(found), -1, 2)


def longest_run(flags: np.ndarray) -> int:
    """Length of the longest stretch of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
