"""Looks at a photo: is there one face, large, frontal, sharp, lit and uncovered, with open eyes?"""
from __future__ import annotations

from pathlib import Path

import numpy as np

from s3dnerf.data.detection import FaceDetector
from s3dnerf.data.tracking import FOCAL, MAX_YAW, MIN_EYES_PHOTO, SHUT_EYES, fit_pose
from s3dnerf.doctor.finding import Finding, State, graded
from s3dnerf.errors import InputError
from s3dnerf.face import EYE_CORNERS, eye_opening
from s3dnerf.media import check_file, read_image

GOOD_EYES = 56.0
"""pixels between the eyes' outer corners; the default weights see 85, and what is much smaller is enlarged and soft"""
GOOD_TURN, GOOD_NOD = 20.0, 25.0
"""degrees to the side, and up or down or leaning, that need no remark"""
MIDDLE_EYES = 64.0
"""eye distance, pixels, at which sharpness is measured, so that large photos are not taken for sharp ones"""
SHARP = 0.045
"""detail finer than two pixels there, as a share of the face's contrast, below which a face is blurred"""
DARK, BRIGHT = 45, 225
"""grey levels of the skin"""
PLACES = (151, 9, 69, 299, 50, 280, 205, 425, 187, 411, 5, 195, 164, 199, 175)
"""landmarks on bare skin: forehead, cheeks, nose, above the lips, chin"""
EYES = (468, 473)
"""landmarks in the middle of the eyes"""
REACH = 0.07
"""radius of a place, eye distances"""
COLOUR_DISTANCE = 18.0
"""between a place's colour and the skin's usual one, in a and b of CIE Lab, from which on something covers it"""
DARK_GLASSES = 0.45
"""brightness of the eyes as a share of the skin's, below which they are covered"""


def examine_photo(path: str) -> list[Finding]:
    """What there is to say of a photo's file."""
    try:
        image = read_image(path)
    except InputError as error:
        return [Finding("photo", State.STOP, str(error))]
    findings = [_file(path, image)]
    try:
        with FaceDetector(still=True) as detector:
            faces = detector.all_faces(image)
    except InputError as error:
        return [*findings, Finding("face", State.STOP, str(error))]
    if not faces:
        return [*findings, Finding("face", State.STOP, "none was found; use a sharp, frontal photo in which the face fills a third")]
    faces.sort(key=lambda face: -np.prod(np.ptp(face, axis=0)))
    others = "" if len(faces) == 1 else "the largest is taken: cut the others away if another one is meant"
    return [*findings, graded("faces", f"{len(faces)}", careful=others), *examine_face(image, faces[0])]


def examine_face(image: np.ndarray, face: np.ndarray) -> list[Finding]:
    """What there is to say of a face by its landmarks [478, 2], pixels: size, turn, sharpness, light, occlusion, eyes."""
    eyes = float(np.linalg.norm(face[EYE_CORNERS[0]] - face[EYE_CORNERS[1]]))
    small = f"expected {MIN_EYES_PHOTO:.0f} or more: use a larger photo or a closer crop" if eyes < MIN_EYES_PHOTO else ""
    soft = f"better {GOOD_EYES:.0f} or more: the face is enlarged and stays soft" if eyes < GOOD_EYES else ""
    pitch, yaw, roll = turn(image, face)
    aside = f"expected at most {MAX_YAW:.0f}: use a photo that looks at the camera" if abs(yaw) > MAX_YAW else ""
    leaning = "a photo that looks straight at the camera works better" if (
        abs(yaw) > GOOD_TURN or max(abs(pitch), abs(roll)) > GOOD_NOD) else ""
    sharp, light, covered, glasses = sharpness(image, face), brightness(image, face), *coverage(image, face)
    blurred = "the face is blurred: use a sharper photo" if sharp < SHARP else ""
    unlit = "the face is too dark: use a photo with light on it" if light < DARK else (
        "the face is overexposed: use a darker photo" if light > BRIGHT else "")
    hidden = [f"{covered} of {len(PLACES)} places of the skin have another colour"] * (covered > 2) + ["dark glasses"] * glasses
    apart = lids(face)
    return [graded("face size", f"{eyes:.0f} pixels between the eyes' outer corners", small, soft),
            graded("face turn", f"{abs(yaw):.0f} degrees to the side, {abs(pitch):.0f} up or down, {abs(roll):.0f} leaning", aside,
                   leaning),
            graded("sharpness", f"{100 * sharp:.1f} % of the face's contrast is fine detail (sharp from {100 * SHARP:.1f} on)",
                   careful=blurred),
            graded("light", f"skin at {light:.0f} of 255", careful=unlit),
            graded("occlusion", "nothing of another colour than skin, which is all that is looked for (a hand is not seen)"
                   if not hidden else ", ".join(hidden),
                   careful="mask, glasses, hair, a beard or strong shadow? What covers the face moves with it" if hidden else ""),
            graded("eyes", f"lids {100 * apart:.0f} % of the eyes' distance apart (shut below {100 * SHUT_EYES:.1f} %)",
                   careful="" if apart >= SHUT_EYES else "they will stay shut: use a photo in which they are open")]


def _file(path: str, image: np.ndarray) -> Finding:
    """Size, and what reading the file changes."""
    from PIL import Image

    with Image.open(check_file(path, "photo")) as file:
        kind, mode, turned = file.format, file.mode, file.getexif().get(0x0112, 1) != 1
    changes = ["turned upright as its EXIF says"] * turned + [f"{mode} converted to RGB"] * (mode != "RGB")
    told = f"{Path(path).name}, {kind}, {image.shape[1]} x {image.shape[0]}"
    return Finding("photo", State.REPAIRED if changes else State.GOOD, "; ".join([told, *changes]))


def turn(image: np.ndarray, face: np.ndarray) -> tuple[float, float, float]:
    """Pitch, yaw and roll of a face's landmarks [478, 2], degrees."""
    import torch

    from s3dnerf.geometry import euler_from_rotation

    rotation = fit_pose(face[None], image.shape[:2], focals=(FOCAL,))[1][0]
    return tuple(float(np.degrees(angle)) for angle in euler_from_rotation(torch.from_numpy(rotation)))


def lids(face: np.ndarray) -> float:
    """How far apart the lids are, eye distances, by a face's landmarks [478, 2]."""
    import torch

    return float(eye_opening(torch.from_numpy(face))) / float(np.linalg.norm(face[EYE_CORNERS[0]] - face[EYE_CORNERS[1]]))


def sharpness(image: np.ndarray, face: np.ndarray) -> float:
    """Deviation of the detail that a Gaussian of one pixel takes away, as a share of the deviation of grey, in a face whose
    eyes are `MIDDLE_EYES` apart (one that is smaller is taken as it is)."""
    import cv2

    left, top = np.maximum(face.min(0), 0).astype(int)
    right, bottom = np.ceil(face.max(0)).astype(int)
    grey = cv2.cvtColor(np.ascontiguousarray(image[top:bottom, left:right]), cv2.COLOR_RGB2GRAY)
    factor = MIDDLE_EYES / float(np.linalg.norm(face[EYE_CORNERS[0]] - face[EYE_CORNERS[1]]))
    if factor < 1:
        grey = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    grey = grey.astype(np.float32)
    return float((grey - cv2.GaussianBlur(grey, (0, 0), 1.0)).std() / max(grey.std(), 1.0))


def brightness(image: np.ndarray, face: np.ndarray) -> float:
    """Median grey level of the places of bare skin."""
    return float(np.median([np.median(patch @ (0.299, 0.587, 0.114)) for patch in _patches(image, face, PLACES)]))


def coverage(image: np.ndarray, face: np.ndarray) -> tuple[int, bool]:
    """How many of the places of bare skin differ in colour from most of them, and whether the eyes are much darker than skin."""
    import cv2

    lab = np.array([np.median(cv2.cvtColor(patch[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0], axis=0)
                    for patch in _patches(image, face, PLACES)])
    usual = np.median(lab, axis=0)
    other = np.linalg.norm(lab[:, 1:] - usual[1:], axis=1) > COLOUR_DISTANCE
    eyes = np.mean([patch.mean() for patch in _patches(image, face, EYES, 2 * REACH)])
    skin = np.mean([patch.mean() for patch in _patches(image, face, PLACES)])
    return int(other.sum()), bool(eyes < DARK_GLASSES * skin)


def _patches(image: np.ndarray, face: np.ndarray, landmarks: tuple[int, ...], reach: float = REACH) -> list[np.ndarray]:
    """Pixels [N, 3] uint8 of the squares around landmarks."""
    half = max(1, round(reach * float(np.linalg.norm(face[EYE_CORNERS[0]] - face[EYE_CORNERS[1]]))))
    height, width = image.shape[:2]
    squares = []
    for x, y in face[list(landmarks)]:
        column, row = int(np.clip(x, 0, width - 1)), int(np.clip(y, 0, height - 1))
        squares.append(image[max(0, row - half):row + half + 1, max(0, column - half):column + half + 1].reshape(-1, 3))
    return squares
