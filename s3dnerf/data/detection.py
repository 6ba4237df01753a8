"""MediaPipe's networks: where faces are, and what of a picture is a person. Offline, silent, imported when needed."""
from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from types import ModuleType
from typing import Iterator

import numpy as np

from s3dnerf.errors import DependencyError, InputError

SIDE = 512
"""smaller pictures are enlarged before faces are looked for"""
LEAST_SIDE, STRIP = 16, 20
"""pixels of a photo's short side, and how many times as long the other one may be: a strip has thousands of tiles, and MediaPipe
fails over a single pixel, and ends the process over sides beyond 32,767"""


class FaceDetector:
    """The face mesh, used as a context manager; `still` for unrelated photos, else it follows one face through frames."""

    def __init__(self, still: bool):
        self.still = still

    def __enter__(self) -> "FaceDetector":
        self._context = _solution("face_mesh", "FaceMesh", static_image_mode=self.still, refine_landmarks=True,
                                  max_num_faces=4 if self.still else 1, min_detection_confidence=0.4,
                                  min_tracking_confidence=0.4)
        self._mesh = self._context.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._context.__exit__(*error)

    def faces(self, image: np.ndarray, enlarge: float = 2.0) -> list[np.ndarray]:
        """Landmarks [478, 2], in pixels, of every face of a picture [H, W, 3] uint8; `enlarge` bounds its enlargement."""
        import cv2

        height, width = image.shape[:2]
        factor = min(enlarge, max(1.0, SIDE / max(height, width)))
        if factor > 1:
            image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
        result = self._mesh.process(np.ascontiguousarray(image))
        return [np.array([(point.x * width, point.y * height) for point in face.landmark])
                for face in result.multi_face_landmarks or []]

    def all_faces(self, image: np.ndarray) -> list[np.ndarray]:
        """`faces` of a photo, or, where there are none, `small_faces`. InputError for next to nothing, and for a strip."""
        height, width = image.shape[:2]
        if min(height, width) < max(LEAST_SIDE, max(height, width) / STRIP):
            raise InputError(f"the photo has {width} x {height} pixels, in which no face can be; expected {LEAST_SIDE} or more, "
                             f"and no side {STRIP} times as long as the other: crop it around the face")
        return self.faces(image) or self.small_faces(image)

    def small_faces(self, image: np.ndarray) -> list[np.ndarray]:
        """Like `faces`, of faces too small for the face mesh to find by itself: another network looks for them in ever
        smaller tiles of the picture, and the mesh looks closely."""
        faces, short = [], min(image.shape[:2])
        with _solution("face_detection", "FaceDetection", model_selection=1, min_detection_confidence=0.5) as detection:
            for side in (max(image.shape[:2]), short, short // 2):
                for tile in tiles(image.shape[:2], side):
                    part = np.ascontiguousarray(image[tile])
                    for found in detection.process(part).detections or []:
                        box = found.location_data.relative_bounding_box
                        middle = np.array([box.xmin + box.width / 2, box.ymin + box.height / 2]) * part.shape[1::-1]
                        middle += (tile[1].start, tile[0].start)
                        if not any(_holds(face, middle) for face in faces):
                            faces += self._closely(image, middle, max(box.width * part.shape[1], 16))
                if faces:
                    break
        return faces

    def _closely(self, image: np.ndarray, middle: np.ndarray, reach: float) -> list[np.ndarray]:
        """The face in the square of half side `reach` around a place of the picture."""
        left, top = np.maximum(middle - reach, 0).astype(int)
        right, bottom = np.ceil(middle + reach).astype(int)
        return [face + (left, top) for face in self.faces(image[top:bottom, left:right], enlarge=4.0)[:1]]


def _holds(face: np.ndarray, place: np.ndarray) -> bool:
    return bool(np.all((face.min(0) < place) & (place < face.max(0))))


def tiles(size: tuple[int, int], side: int) -> list[tuple[slice, slice]]:
    """Rows and columns of half-overlapping squares that cover a picture (height, width)."""
    starts = [range(0, max(1, length - side // 2), max(1, side // 2)) for length in size]
    return [(slice(top, top + side), slice(left, left + side)) for top in starts[0] for left in starts[1]]


class FaceSearch:
    """Finds where faces are, near and far and several at once, better than the face mesh does by itself; used as a context
    manager."""

    def __enter__(self) -> "FaceSearch":
        self._context = _solution("face_detection", "FaceDetection", model_selection=1, min_detection_confidence=0.5)
        self._network = self._context.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._context.__exit__(*error)

    def widths(self, image: np.ndarray) -> list[float]:
        """Of every face of a picture [H, W, 3] uint8, pixels."""
        found = self._network.process(np.ascontiguousarray(image)).detections or []
        return [face.location_data.relative_bounding_box.width * image.shape[1] for face in found]


def selfie_segmentation():
    """Context manager: `process(image).segmentation_mask` is the share [H, W] of a person."""
    return _solution("selfie_segmentation", "SelfieSegmentation", model_selection=0)


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keeps what libraries write straight to the terminal from being seen; Python's own errors still raise."""
    kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


@contextmanager
def nothing_to_plot() -> Iterator[None]:
    """Imports inside find an empty matplotlib where none was imported before: MediaPipe wants it for drawings that nobody asks
    for, and it takes two thirds of the time of its import."""
    names = [name for name in ("matplotlib", "matplotlib.pyplot") if "matplotlib" not in sys.modules]
    empty = {name: ModuleType(name) for name in names}
    sys.modules.update(empty)
    try:
        yield
    finally:
        for name in names:
            if sys.modules.get(name) is empty[name]:
                del sys.modules[name]


@contextmanager
def _solution(module: str, name: str, **options):
    """A MediaPipe solution, silent, closed at the end."""
    os.environ.setdefault("GLOG_minloglevel", "3")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_stderr():
        try:
            with nothing_to_plot():
                import mediapipe
        except ImportError as error:
            raise DependencyError(f"face tracking needs mediapipe 0.10.21 ({error}); run `pip install mediapipe==0.10.21`") \
                from None
        solution = getattr(getattr(mediapipe.solutions, module), name)(**options)
        solution.process(np.zeros((64, 64, 3), np.uint8))  # the graph starts, and logs, at the first frame
        try:
            yield solution
        finally:
            solution.close()
