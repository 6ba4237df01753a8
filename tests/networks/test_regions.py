"""Where speech and eyes are heard."""
import torch

from s3dnerf.face import LIPS, metric_face
from s3dnerf.networks.regions import FaceRegions


def test_lips_hear_speech_and_lids_do_not():
    face = torch.from_numpy(metric_face())
    speech, lids = FaceRegions()(face)
    assert speech[list(LIPS)].min() > 0.9 and speech[[159, 386, 10]].max() == 0
    assert lids[[159, 386]].min() > 0.5 and lids[list(LIPS)].max() == 0
    assert all(torch.equal(share, torch.ones_like(share)) for share in FaceRegions(False, None)(face))
