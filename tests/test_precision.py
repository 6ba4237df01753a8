"""Half precision leaves places where they are."""
import pytest
import torch

from s3dnerf.data.module import ClipDataModule
from s3dnerf.geometry import project
from s3dnerf.precision import raised, single_precision
from s3dnerf.rendering.compositing import composite
from s3dnerf.types import FieldSamples, Motion, Samples


@pytest.fixture(scope="module")
def clip(shards):
    return next(iter(ClipDataModule(val=str(shards), val_frames=2, val_clips=1, workers=0).val_dataloader()))


def half():
    return torch.autocast("cpu", torch.bfloat16)


def test_projection_is_exact_where_a_product_in_half_precision_is_pixels_off(clip):
    truth = project(clip.mesh, clip.cameras)[0]
    with half():
        assert torch.equal(project(clip.mesh, clip.cameras)[0], truth)
        assert (project.__wrapped__(clip.mesh, clip.cameras)[0] - truth).abs().max() > 0.1


def test_sums_along_rays_are_single_and_convert_what_comes_in_half():
    edges = torch.linspace(1, 2, 17)[None, :, None]
    samples = Samples(edges[:, :-1], edges[:, 1:], (edges[:, :-1] + edges[:, 1:]) / 2)
    ones = torch.ones(1, 16, 1)
    field = FieldSamples(3 * ones, 0.3 * ones.expand(-1, -1, 3), ones.expand(-1, -1, 2), ones, ones)
    with half():
        found = composite(samples, field.map(lambda x: x.to(torch.bfloat16)))
    assert found.opacity.dtype == torch.float32
    assert found.opacity.item() == pytest.approx(1 - torch.tensor(-3.0).exp().item(), abs=1e-6)


def test_a_head_looks_the_photo_up_at_the_same_places(tiny_head, clip):
    """Within a fiftieth of a pixel; its networks do reckon in half precision."""
    speech = torch.randn(1, 2, 80, 40)
    tiny_head.eval()

    @torch.no_grad()
    def rendered():
        motion = tiny_head.drive_face(tiny_head.face_code.driving(clip.mesh, clip.mean_mesh[:, None]))
        tokens = tiny_head.drive(speech).tokens
        appearance = tiny_head.encode(clip.portrait)
        return tiny_head.render(appearance, Motion(motion.code, tokens.to(motion.tokens.dtype)), clip.cameras), appearance

    truth, _ = rendered()
    with half():
        found, appearance = rendered()
    assert appearance.planes[0].dtype == torch.bfloat16
    assert found.source.dtype == found.opacity.dtype == found.image.dtype == torch.float32
    assert (found.source - truth.source).abs().max() * 32 < 0.02
    assert 0 < (found.image - truth.image).abs().mean() < 0.01


def test_without_autocast_a_function_is_as_it_was():
    double = single_precision(lambda values: values * 2)
    assert double(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with half():
        assert double(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float32
    assert raised("x") == "x" and raised(torch.ones(1, dtype=torch.long)).dtype == torch.long
