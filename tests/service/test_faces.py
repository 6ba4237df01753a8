"""What is told of a photo before a video is made of it."""
from types import SimpleNamespace

import numpy as np

from s3dnerf.data.cropping import CropBox
from s3dnerf.doctor.finding import Finding, State
from s3dnerf.service import faces


def test_what_a_remark_tells_already_is_not_told_again(monkeypatch):
    shut = "the eyes are shut in the photo"
    monkeypatch.setattr(faces, "landmarks", lambda identity: np.ones((478, 2)))
    monkeypatch.setattr(faces, "examine_face", lambda image, face: [
        Finding("eyes", State.CAREFUL, "shut"), Finding("light", State.CAREFUL, "too dark"), Finding("sharpness", State.GOOD, "")])
    photo = SimpleNamespace(image=np.zeros((9, 9, 3), np.uint8), box=CropBox(0, 0, 9), remarks=["found 2 faces", shut])
    told = [(warning["code"], warning["message"]) for warning in faces.seen(photo)["warnings"]]
    assert told == [("several", "found 2 faces"), ("other", shut), ("light", "light: too dark")]
