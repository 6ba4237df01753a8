"""Where speech and eyes are heard: the same as in the field of grids."""
import torch

from s3dnerf.face import LIPS, metric_face
from s3dnerf.networks.decomposed_field import DecomposedField
from s3dnerf.networks.regions import FaceRegions


def test_regions_are_those_of_the_decomposed_field():
    points = torch.randn(50, 3)
    grids = DecomposedField(levels=2, channels=2, finest=8, entries=64, audio_levels=1, width=8)
    speech, lids = FaceRegions()(points)
    assert torch.allclose(speech, grids.hears(points)) and torch.allclose(lids, grids.near_eyes(points), atol=1e-5)


def test_lips_hear_speech_and_lids_do_not():
    face = torch.from_numpy(metric_face())
    speech, lids = FaceRegions()(face)
    assert speech[list(LIPS)].min() > 0.9 and speech[[159, 386, 10]].max() == 0
    assert lids[[159, 386]].min() > 0.5 and lids[list(LIPS)].max() == 0
    assert all(torch.equal(share, torch.ones_like(share)) for share in FaceRegions(False, None)(face))
