"""What is told of a photo before a video is made of it."""
from __future__ import annotations

import numpy as np

from s3dnerf.doctor.finding import State
from s3dnerf.doctor.photo import examine_face
from s3dnerf.face import FACE_OVAL
from s3dnerf.geometry import project
from s3dnerf.identities import Identity

CODES = {"face size": "small", "face turn": "turned", "sharpness": "blurred", "light": "light", "occlusion": "covered"}
"""of the doctor's findings; of shut eyes a remark tells already"""


def seen(identity: Identity) -> dict:
    """The box, the face and the warnings of a photo, in its pixels, for JSON."""
    box, face = identity.box, landmarks(identity)
    low, high = face[list(FACE_OVAL)].min(0), face[list(FACE_OVAL)].max(0)
    height, width = identity.image.shape[:2]
    several = [remark for remark in identity.remarks if remark.startswith("found ")]
    told = [("several" if remark in several else "other", remark) for remark in identity.remarks]
    told += [(CODES[finding.subject], f"{finding.subject}: {finding.text}") for finding in examine_face(identity.image, face)
             if finding.state is not State.GOOD and finding.subject in CODES]
    return {"width": width, "height": height, "box": _rectangle(box.left, box.top, box.side, box.side),
            "face": _rectangle(*low, *(high - low)), "faces": int(several[0].split()[1]) if several else 1,
            "warnings": [{"code": code, "message": message} for code, message in told]}


def landmarks(identity: Identity) -> np.ndarray:
    """[478, 2] landmarks of the face, pixels of the photo."""
    box, portrait = identity.box, identity.appearance.portrait[0].to("cpu")
    pixels = project(portrait.mesh[None], portrait.cameras[None])[0][0].numpy()
    return pixels * (box.side / portrait.image.shape[-1]) + (box.left, box.top)


def _rectangle(left: float, top: float, width: float, height: float) -> dict[str, float]:
    return {name: round(float(value), 1) for name, value in (("left", left), ("top", top), ("width", width), ("height", height))}
