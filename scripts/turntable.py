"""Looks at photos from the side: a sheet with a row per photo, and whether the face turns as far as the camera goes.

    python scripts/turntable.py sheet.png face.jpg other.jpg --weights one-shot-256

The turn is measured on the rendered pictures by tracking them, relative to the picture from straight ahead.
"""
import argparse
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from s3dnerf.data.tracking import FaceTracker
from s3dnerf.errors import InputError
from s3dnerf.inference import TalkingHead
from s3dnerf.media import read_image
from s3dnerf.paste import to_bytes
from s3dnerf.types import Portrait
from s3dnerf.validation.space import around

ANGLES = (-30, -20, -10, 0, 10, 20, 30)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("sheet", type=Path)
parser.add_argument("photos", nargs="+")
parser.add_argument("--weights", default="one-shot-256")
options = parser.parse_args()


def measured_yaw(picture: np.ndarray) -> float:
    """Degrees, positive to the viewer's right; NaN where no face is found."""
    try:
        return -float(FaceTracker().track([picture]).yaw[0])
    except InputError:
        return math.nan


@torch.inference_mode()
def turned(model, photo: str) -> np.ndarray:
    """The photo's crop, and the face from every angle, [8, S, S, 3] uint8."""
    portrait = Portrait.stack([FaceTracker().portrait(read_image(photo), model.image_size)[0]])
    cameras = around(portrait.cameras[0], ANGLES)
    appearance = model.with_detail(model.encode(portrait))
    code = model.face_code.own(portrait.mesh)[:, None].expand(-1, len(ANGLES), -1)
    rendering = model.render(appearance, model.drive_face(code), cameras.map(lambda x: x[None]))
    return np.concatenate([to_bytes(portrait.image), to_bytes(rendering.image[0])])


model = TalkingHead.load(options.weights, "cpu").model
rows = []
for photo in options.photos:
    pictures = turned(model, photo)
    rows.append(np.concatenate(list(pictures), 1))
    found = np.array([measured_yaw(picture) for picture in pictures[1:]])
    near = np.isfinite(found) & (np.abs(ANGLES) <= 20)
    line = " ".join(f"{angle:+d}: {value - found[3]:+.0f}" for angle, value in zip(ANGLES, found))
    print(f"{Path(photo).name}: correlation within 20 degrees {np.corrcoef(np.array(ANGLES)[near], found[near])[0, 1]:.3f}; {line}",
          flush=True)
Image.fromarray(np.concatenate(rows)).save(options.sheet)
print(f"wrote {options.sheet}; columns: the photo, then {', '.join(map(str, ANGLES))} degrees")
