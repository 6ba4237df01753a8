"""What is told of a photo before a video is made of it."""
from __future__ import annotations

import numpy as np
import torch

from s3dnerf.data.cropping import cut
from s3dnerf.face import CROP_EXTENT, FACE_OVAL
from s3dnerf.geometry import project
from s3dnerf.inference import Identity

SMALL = 80.0
"""pixels between the eyes' outer corners below which the photo limits the video: its crop has 256 / 3 of them"""
TURNED = 25.0
"""degrees"""
SHARP = 12.0
"""standard deviation of the Laplacian of the face, at 128 pixels, below which it is blurred: the demo photo has 36, and 9
after a Gaussian of 1.5 pixels there"""


def seen(identity: Identity) -> dict:
    """The box, the face and the warnings of a photo, in its pixels, for JSON."""
    box, portrait = identity.box, identity.appearance.portrait[0].to("cpu")
    size = portrait.image.shape[-1]
    pixels = project(portrait.mesh[list(FACE_OVAL)][None], portrait.cameras[None])[0][0].numpy() * (box.side / size)
    low, high = pixels.min(0) + (box.left, box.top), pixels.max(0) + (box.left, box.top)
    height, width = identity.image.shape[:2]
    several = [remark for remark in identity.remarks if remark.startswith("found ")]
    return {"width": width, "height": height,
            "box": {"left": round(box.left, 1), "top": round(box.top, 1), "width": round(box.side, 1),
                    "height": round(box.side, 1)},
            "face": {"left": round(float(low[0]), 1), "top": round(float(low[1]), 1),
                     "width": round(float(high[0] - low[0]), 1), "height": round(float(high[1] - low[1]), 1)},
            "faces": int(several[0].split()[1]) if several else 1,
            "warnings": [{"code": code, "message": message} for code, message in _warnings(identity, several)]}


def _warnings(identity: Identity, several: list[str]) -> list[tuple[str, str]]:
    """Codes and messages."""
    told = [("several", remark) for remark in several]
    told += [("other", remark) for remark in identity.remarks if remark not in several]
    eyes = identity.box.side / CROP_EXTENT
    if eyes < SMALL:
        told.append(("small", f"the face is small: {eyes:.0f} pixels between the eyes' outer corners; {SMALL:.0f} or more give a "
                              "sharper video"))
    pose = identity.appearance.portrait.cameras.camera_to_world[0].cpu()
    yaw, pitch = (float(torch.rad2deg(torch.arcsin(pose[axis, 2].clamp(-1, 1)))) for axis in (0, 1))
    if max(abs(yaw), abs(pitch)) > TURNED:
        told.append(("turned", f"the face is turned away by {max(abs(yaw), abs(pitch)):.0f} degrees; one that looks at the camera "
                               "works best"))
    if sharpness(identity) < SHARP:
        told.append(("blurred", "the face is blurred; a sharper photo gives a sharper video"))
    return told


def sharpness(identity: Identity) -> float:
    """Standard deviation of the Laplacian of the grey face at 128 pixels a crop."""
    import cv2

    crop = cut(identity.image[None], identity.box, 128)[0]
    return float(cv2.Laplacian(cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY), cv2.CV_32F)[32:96, 32:96].std())
