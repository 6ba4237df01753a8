"""What makes a stretch fit to learn from: cuts, other people and blur, seen in real pictures."""
from importlib.resources import files

import cv2
import numpy as np
import pytest

from s3dnerf.data.cropping import CropBox, cut
from s3dnerf.data.detection import FaceDetector
from s3dnerf.data.quality import LOOK, MAX_BLUR, blur, company, longest, others, picture_shots, sample_rate
from s3dnerf.media import VideoWriter, read_image

SOFT = 0.06
"""of a Gaussian, eye distances"""


@pytest.fixture(scope="module")
def photo():
    """A sharp photo with its landmarks."""
    image = read_image(files("s3dnerf") / "assets" / "demo_photo.jpg")
    with FaceDetector(still=True) as detector:
        landmarks, = detector.faces(image)
    return image, landmarks


def shifted(image, pixels):
    return cv2.warpAffine(image, np.array([[1.0, 0, pixels], [0, 1, 0]]), image.shape[1::-1], borderMode=cv2.BORDER_REFLECT)


def test_a_cut_is_seen_and_motion_light_and_contrast_are_not(photo):
    image = cv2.resize(photo[0], (240, 300), interpolation=cv2.INTER_AREA)
    moving = [shifted(image, 2 * k) for k in range(10)]
    other = np.random.default_rng(0).integers(0, 256, (10, 8, 3), np.uint8)
    other = cv2.resize(other, (240, 300), interpolation=cv2.INTER_CUBIC)
    assert picture_shots(moving) == [(0, 10)]
    assert picture_shots([*moving, other, other, *moving[:4]]) == [(0, 10), (10, 12), (12, 16)]
    assert picture_shots([image, (image * 0.6).astype(np.uint8), image // 2 + 100]) == [(0, 3)]
    blank = np.full_like(image, 90)
    assert picture_shots([blank, blank + 3, image, image, blank]) == [(0, 2), (2, 4), (4, 5)]
    assert longest([(0, 2), (2, 7), (7, 12)]) == (2, 7)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_blur_is_told_from_sharpness_at_any_size(photo, scale):
    image, landmarks = photo
    eyes = np.linalg.norm(landmarks[33] - landmarks[263])
    small, points = cv2.resize(image, None, fx=scale * 75 / eyes, fy=scale * 75 / eyes, interpolation=cv2.INTER_AREA), \
        landmarks * scale * 75 / eyes
    measure = lambda sigma: blur([cv2.GaussianBlur(small, (0, 0), sigma * 75 * scale) if sigma else small], points[None])
    rising = [measure(sigma) for sigma in (0.0, 0.015, 0.03, SOFT)]
    assert rising == sorted(rising) and rising[0] < MAX_BLUR - 0.05 and rising[3] > MAX_BLUR
    darker = blur([(small * 0.5 + 20).astype(np.uint8)], points[None])
    assert darker == pytest.approx(rising[0], abs=0.03)


def test_blur_is_the_median_of_frames(photo):
    image, landmarks = photo
    soft = cv2.GaussianBlur(image, (0, 0), SOFT * np.linalg.norm(landmarks[33] - landmarks[263]))
    one = lambda *frames: blur(frames, np.tile(landmarks, (len(frames), 1, 1)))
    assert one(image, soft, image) == one(image) < one(soft, soft, image) == one(soft)


def test_people_beside_the_one_are_counted_unless_far_smaller(photo):
    assert [others(widths) for widths in ([], [80.0], [80.0, 39.0], [50.0, 80.0, 41.0])] == [0, 0, 0, 2]
    frame = cv2.resize(photo[0], (320, 320), interpolation=cv2.INTER_AREA)
    pair = np.concatenate([frame, frame[:, ::-1]], 1)
    alone = [frame] * (2 * LOOK)
    assert company(alone) == ""
    assert company([*alone[:LOOK], *[pair] * LOOK]).startswith("two faces in 1 of 2 frames looked at")


@pytest.mark.parametrize("box, size", [((300.3, 80.7, 300.2), 100), ((-50.5, -30.2, 300.9), 128), ((500, 300, 400), 100),
                                       ((200, 100, 100), 140)])
def test_a_crop_does_not_depend_on_what_is_far_from_it(box, size):
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    scale, box = size / box[2], CropBox(*box)
    whole = cv2.GaussianBlur(frame, (0, 0), 0.45 / scale) if scale < 0.8 else frame
    matrix = np.array([[scale, 0, (0.5 - box.left) * scale - 0.5], [0, scale, (0.5 - box.top) * scale - 0.5]])
    due = cv2.warpAffine(whole, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    assert np.array_equal(cut([frame], box, size)[0], due)


def test_the_rate_of_a_sound_is_told(tmp_path):
    for name, sound, due in (("spoken", np.zeros(16000, np.float32), 16000), ("mute", None, 0)):
        with VideoWriter(tmp_path / f"{name}.mp4", 32, 32, sound=sound) as writer:
            writer.write(np.zeros((32, 32, 3), np.uint8))
        assert sample_rate(tmp_path / f"{name}.mp4") == due
