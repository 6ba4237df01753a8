"""Codes that are read off a picture, and the contrast that teaches them."""
import torch

from s3dnerf.networks.code_extractor import FACTORS, CodeExtractor, contrast


def test_codes_have_unit_length_and_tell_pictures_apart():
    codes = CodeExtractor((8, 8, 8), 4, 32)(torch.rand(3, 3, 64, 64))
    assert codes.shape == (3, len(FACTORS), 4) and torch.allclose(codes.norm(dim=-1), torch.ones(3, 4))
    assert (codes[0] - codes[1]).abs().max() > 1e-4


def test_light_is_not_normalised_away():
    extractor = CodeExtractor((8, 8, 8), 4, 32)
    image = torch.rand(1, 3, 32, 32)
    assert (extractor(image) - extractor(0.5 * image)).abs().max() > 1e-3


def test_contrast_is_cosines_with_the_partner_first():
    anchors = torch.eye(3)
    partners = torch.eye(3)[[0, 1, 0]]  # the third one's is wrong
    others = torch.zeros(3, 2, 3)
    others[1, 1, 1] = 0.5
    found = contrast(anchors, partners, others, 0.5)
    assert found.shape == (3, 1 + 2 + 2)
    assert found[:, 0].tolist() == [2, 2, 0] and found[0, 1:].tolist() == [0, 2, 0, 0] and found[1, 1:].tolist() == [0, 0, 0, 1]
