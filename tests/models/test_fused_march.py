"""The fused march, interpreted, against the field and the compositing that it stands for."""
import pytest
import torch

from s3dnerf.face import EYELIDS, metric_face
from s3dnerf.geometry import cast_rays, frontal_camera, orbit, project
from s3dnerf.models import one_shot
from s3dnerf.models.fused_march import FusedMarch, fusable, known, padded
from s3dnerf.models.one_shot import S3DNeRF
from s3dnerf.networks.mesh_motion import LASHES, MeshFlow
from s3dnerf.precision import half_on_gpu
from s3dnerf.rendering.compositing import composite
from s3dnerf.rendering.renderer import points_on
from s3dnerf.rendering.sampling import stratified_samples
from s3dnerf.types import Portrait

pytest.importorskip("triton", reason="Triton is not installed; it comes with torch for Linux and CUDA")
pytestmark = [pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled here; tests/test_gpu.py has them"),
              pytest.mark.filterwarnings("ignore:overflow encountered in exp")]  # of what is far from 0 or 1 anyway
SIZE, SIDE = 64, 8
NAMES = ("features", "source", "inside", "motion", "opacity", "weights")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = S3DNeRF(image_size=SIZE, encoder_channels=(8, 8), plane_channels=3, width=20, modulation_channels=5,
                    lattice=(7, 8, 4), token_channels=8, coarse_samples=2, fine_samples=2, feature_channels=6,
                    super_resolution_channels=(8, 8)).eval()
    with torch.no_grad():  # what starts near zero is made to matter
        model.deformation.out.weight.normal_(std=1)
        for layer in (model.radiance.features, model.radiance.modulate, model.radiance.inside[0], model.radiance.out):
            layer.weight.mul_(3)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def people(model):
    """Two identities, what they say in a frame, and cameras that see them from the side."""
    camera = frontal_camera(SIZE)
    mesh = torch.from_numpy(metric_face()).expand(2, -1, -1) * torch.tensor([1.0, 1.1])[:, None, None]
    person = torch.nn.functional.interpolate((torch.rand(2, 1, 6, 6) > 0.3).float(), size=SIZE)
    portrait = Portrait(torch.rand(2, 3, SIZE, SIZE), torch.ones(2, 1, SIZE, SIZE), camera.map(lambda x: x.expand(2, *x.shape)),
                        mesh, person)
    cameras = orbit(camera.map(lambda x: x.expand(2, 1, *x.shape)), torch.tensor([[0.3], [-0.2]]), torch.tensor([[0.1], [-0.2]]))
    motion = model.drive(torch.randn(2, 1, model.features.channels, model.features.window), 10.0)
    return model.encode(portrait), motion, cameras


def parts(model, people):
    appearance, motion, cameras = people
    flow = model.flow(appearance, motion)
    return cast_rays(cameras.resized(SIDE / SIZE), SIDE, SIDE), flow, lambda points: model.field(appearance, motion, points, flow)


def off(found, expected):
    return max(float((getattr(found, name) - getattr(expected, name)).abs().max()) for name in NAMES)


def test_the_kernel_is_the_field_composited(model, people):
    rays, flow, look = parts(model, people)
    samples = stratified_samples(rays, 3, False)
    field = look(points_on(rays, samples.middles))
    expected = composite(samples, field)
    found = FusedMarch(model, people[0], flow.lattice, flow.mesh, rest=0.0, block=64)(rays, samples)
    assert off(found, expected) < 2e-5
    solid = expected.opacity > 0.05
    assert (found.depth - expected.depth)[solid].abs().max() < 1e-3
    # all that it reads is at work here
    assert field.inside.max() > 0.1 and field.motion.max() > 0.1 and flow.lattice.offset.abs().max() > 0.02
    assert 0.2 < expected.opacity.gt(0.5).float().mean() < 0.9 and (field.density == 0).any()


def test_lids_that_are_half_shut_are_those_of_the_plain_march(model, people, monkeypatch):
    """Rays at the eyes, beside which nothing tells the faces above and beneath the lids' edge apart."""
    appearance, motion, cameras = (record[:1] for record in people)
    motion = model.drive_face(torch.cat([motion.code[..., :-1], torch.full_like(motion.code[..., -1:], -1.0)], -1))
    eyes = project(torch.from_numpy(metric_face())[None, EYELIDS], cameras[:, 0])[0][0] * 4
    left, top = eyes.amin(0).round()
    right, bottom = eyes.amax(0).round().int().tolist()
    near = cameras.resized(4.0).cropped(left.expand(1, 1), top.expand(1, 1))
    rays, flow = cast_rays(near, bottom - int(top), right - int(left)), model.flow(appearance, motion)
    samples = stratified_samples(rays, 3, False)
    plain = lambda: composite(samples, model.field(appearance, motion, points_on(rays, samples.middles), flow))
    expected = plain()
    found = FusedMarch(model, appearance, flow.lattice, flow.mesh, rest=0.0, block=2048)(rays, samples)
    assert off(found, expected) < 2e-5
    monkeypatch.setattr(one_shot, "RAYS", LASHES)
    assert off(plain(), expected) > 0.01, "the lids' edge is seen"
    above, beneath, rest = flow.mesh.maps.split(2, 2)
    for maps in (torch.cat([above, above, rest], 2), torch.cat([beneath, beneath, rest], 2)):
        one_face = FusedMarch(model, appearance, flow.lattice, MeshFlow(maps, flow.mesh.shown), rest=0.0, block=2048)(rays, samples)
        assert off(one_face, expected) > 0.01


def test_rays_that_are_left_out_gather_nothing(model, people):
    rays, flow, look = parts(model, people)
    samples = stratified_samples(rays, 1, False)
    live = (torch.arange(SIDE * SIDE)[None, None, :, None] % 3 > 0).expand(2, 1, -1, 1)
    expected = composite(samples, look(points_on(rays, samples.middles)))
    found = FusedMarch(model, people[0], flow.lattice, flow.mesh, block=64)(rays, samples, live)
    assert not any(getattr(found, name)[~live[..., 0]].any() for name in NAMES)
    assert (found.features - expected.features)[live[..., 0]].abs().max() < 2e-5 < expected.opacity[~live].max()


def test_a_block_ends_where_no_light_is_left(model, people):
    """Light is 1 before the first sample, so that there it may end at once."""
    rays, flow, look = parts(model, people)
    samples = stratified_samples(rays, 3, False)
    expected = composite(samples, look(points_on(rays, samples.middles)))
    order = (expected.weights[0, 0, :, :2].sum((-1, -2)) > 1 - 1e-3).nonzero()[:16, 0]
    one = lambda record: record.map(lambda x: x[:1, :, order])
    march = lambda rest: FusedMarch(model, people[0][:1], flow.lattice[:1], flow.mesh[:1], rest=rest, block=16)
    found = march(1e-3)(one(rays), one(samples))
    torch.testing.assert_close(found.weights[..., :2, :], expected.weights[:1, :, order, :2], atol=2e-5, rtol=0)
    assert (expected.weights[:1, :, order, 2] > 0).any() and not found.weights[..., 2, :].any()
    assert not march(1.0)(one(rays), one(samples)).opacity.any()


@pytest.mark.parametrize("samples", [None, 3])
def test_frames_are_those_of_the_plain_march(model, people, samples, monkeypatch):
    appearance, motion, cameras = (record[:1] for record in people)
    monkeypatch.setattr(FusedMarch.__init__, "__defaults__", (0.0, 256))
    if samples is not None:
        appearance = model.with_occupancy(appearance, samples)
    expected = model.render(appearance, motion, cameras)
    monkeypatch.setattr(one_shot, "fusable", known)
    found = model.render(appearance, motion, cameras)
    for name in ("image", "raw", "source", "opacity"):
        assert (getattr(found, name) - getattr(expected, name)).abs().max() < 2e-3, name
    assert expected.opacity.max() > 0.9


def test_networks_in_half_the_precision_move_nothing_far(model, people):
    """As `half_on_gpu` has it there."""
    whole = parts(model, people)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.flow(*people[:2])
    assert torch.equal(half.mesh.maps, whole.mesh.maps), "what landmarks do stays in single precision"
    assert half.lattice.modulation.dtype != torch.float32 or (half.lattice.offset != whole.lattice.offset).any()
    assert 0 < (half.lattice.offset - whole.lattice.offset).abs().max() < 0.02 < whole.lattice.offset.abs().max()
    with half_on_gpu(people[0]):
        assert not torch.is_autocast_enabled("cpu"), "and nothing on a processor"


def test_who_takes_the_kernel(model, people):
    assert known(model, people[0]) and not fusable(model, people[0]), "not on a processor"
    for options in (dict(evaluation="point"), dict(mesh_motion=False), dict(width=200)):
        assert not known(S3DNeRF(image_size=SIZE, encoder_channels=(8, 8), **options), people[0])
    assert [padded(count) for count in (1, 16, 17, 48, 64)] == [16, 16, 32, 64, 64]
