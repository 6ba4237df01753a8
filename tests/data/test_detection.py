"""Finding faces with the networks that MediaPipe carries."""
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from s3dnerf.data.detection import FaceDetector, tiles
from s3dnerf.errors import InputError
from s3dnerf.face import EYE_CORNERS


@pytest.fixture(scope="module")
def astronaut():
    return pytest.importorskip("skimage.data").astronaut()


def eyes(face):
    return face[list(EYE_CORNERS)].mean(0)


def test_a_photo_inside_a_wide_picture_is_found_where_it_is(astronaut):
    """Far too small for the face mesh alone, and found once although tiles overlap."""
    picture = np.full((1024, 2048, 3), 90, np.uint8)
    picture[300:812, 900:1412] = astronaut
    with FaceDetector(still=True) as detector:
        alone, = detector.faces(astronaut)
        assert detector.faces(picture) == []
        face, = detector.small_faces(picture)
    assert np.abs(eyes(face) - (900, 300) - eyes(alone)).max() < 6
    assert np.ptp(face, axis=0) == pytest.approx(np.ptp(alone, axis=0), rel=0.15)


def test_nothing_is_found_where_nothing_is():
    noise = np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    with FaceDetector(still=True) as detector:
        assert detector.faces(noise) == [] and detector.small_faces(noise) == []


@pytest.mark.parametrize("size", [(1, 1), (2, 9000), (33_000, 400)], ids=str)
def test_a_strip_is_refused_before_it_holds_anything_up(size, monkeypatch):
    with FaceDetector(still=True) as detector:
        monkeypatch.setattr(detector, "faces", lambda image: pytest.fail("what comes now takes minutes, or ends the process"))
        with pytest.raises(InputError, match=f"{size[1]} x {size[0]} pixels.*crop"):
            detector.all_faces(np.zeros((*size, 3), np.uint8))


@pytest.mark.parametrize("size, side", [((100, 100), 100), ((100, 250), 100), ((90, 200), 45), ((5, 3), 1)])
def test_tiles_cover_the_picture(size, side):
    seen = np.zeros(size, int)
    for tile in tiles(size, side):
        seen[tile] += 1
    assert seen.min() >= 1


def test_faces_are_found_without_matplotlib_which_can_still_be_imported():
    code = """
import sys
from s3dnerf.data.detection import FaceDetector
with FaceDetector(still=True) as detector:
    detector.faces(__import__("numpy").zeros((64, 64, 3), "uint8"))
assert "matplotlib" not in sys.modules and "mediapipe" in sys.modules
import matplotlib.pyplot
assert matplotlib.pyplot.figure
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
