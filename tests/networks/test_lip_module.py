"""Expression codes of what lips do."""
import torch

from s3dnerf.networks.lip_module import LipModule, on_sphere


def test_codes_lie_on_a_sphere_and_tell_lips_apart():
    found = LipModule(12, 20)(torch.randn(6, 12))
    assert torch.allclose(found.norm(dim=-1), torch.full((6,), 20 ** 0.5))
    assert torch.pdist(found).min() > 0.01
    assert torch.allclose(on_sphere(3 * found), found)
