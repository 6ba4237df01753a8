"""Networks from files of the user's, or missing; never random."""
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.inception import Inception3, InceptionA, InceptionE

from s3dnerf.errors import CheckpointError, InputError
from s3dnerf.evaluation.arcface import ArcFace, aligned, five_points
from s3dnerf.evaluation.inception import BlockA, FIDInception, LastBlockE
from s3dnerf.evaluation.networks import Networks, find
from s3dnerf.evaluation.picture import enlarged


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def test_what_is_missing_says_which_option_helps(empty_cache):
    networks = Networks.load(judge="none")
    assert set(networks.missing) == {"alexnet", "inception", "arcface", "syncnet", "judge"} and not networks.about
    assert all(f"--{name}" in why for name, why in networks.missing.items())
    assert all(getattr(networks, name) is None for name in networks.missing)


def test_what_torch_keeps_is_found_without_being_named(empty_cache, weights):
    os.symlink(weights.alexnet, empty_cache / "alexnet-owt-7be5be79.pth")
    os.symlink(weights.inception, empty_cache / "pt_inception-2015-12-05-6726825d.pth")
    assert find("alexnet", None).name.startswith("alexnet") and find("inception", None).name.startswith("pt_inception")
    assert find("syncnet", None) is None and find("arcface", None) is None


def test_files_that_are_something_else_are_refused_in_one_line(weights, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no weights")
    with pytest.raises(InputError, match="no file for --syncnet"):
        Networks.load(syncnet=str(tmp_path / "nothing"))
    for options, told in (({"syncnet": str(text)}, "SyncNet v2"), ({"syncnet": weights.alexnet}, "does not fit"),
                          ({"alexnet": weights.syncnet}, "AlexNet"), ({"inception": weights.alexnet}, "Inception"),
                          ({"arcface": str(text)}, "ONNX"), ({"arcface": str(text.rename(tmp_path / "x.onnx"))}, "ONNX")):
        if not Path(next(iter(options.values()))).is_file():
            options = {name: str(tmp_path / "x.onnx") for name in options}
        with pytest.raises(CheckpointError, match=told) as error:
            Networks.load(**options, judge="none")
        assert "\n" not in str(error.value)


def test_lpips_is_alex_on_images_brought_to_minus_one_to_one(weights):
    """Against torchmetrics' own network with the same weights; images left in [0, 1] would give another figure."""
    from torchmetrics.functional.image.lpips import _LPIPS

    network = Networks.load(alexnet=weights.alexnet, judge="none").alexnet
    reference = _LPIPS(net="alex", pnet_rand=True).eval()
    reference.net.load_state_dict(network.net.state_dict())
    a, b = torch.rand(2, 3, 72, 64), torch.rand(2, 3, 72, 64)
    with torch.no_grad():
        found, expected, plain = network(2 * a - 1, 2 * b - 1), reference(2 * a - 1, 2 * b - 1), network(a, b)
        assert torch.allclose(found.flatten(), expected.flatten(), rtol=1e-4)
        assert (found - plain).abs().min() > 1e-3 and network(2 * a - 1, 2 * a - 1).abs().max() == 0
    state = torch.load(weights.alexnet, weights_only=True)
    assert torch.equal(network.net.slice1[0].weight, state["features.0.weight"])
    assert torch.equal(network.net.slice5[0].weight, state["features.10.weight"])
    assert enlarged(a[..., :40], 64).shape[-2:] == (115, 64) and enlarged(a, 64) is a


def test_inception_differs_from_torchvision_s_in_its_pools_alone(weights):
    names = lambda network: {name for name in network.state_dict() if not name.startswith("fc")}
    assert names(FIDInception()) == names(Inception3(aux_logits=False, init_weights=False))
    for block, plain, inputs in ((BlockA(8, 4), InceptionA(8, 4), 8), (LastBlockE(8), InceptionE(8), 8)):
        plain.load_state_dict(block.state_dict())
        x = torch.rand(1, inputs, 9, 9) + 1
        with torch.no_grad():
            ours, theirs = block.eval()(x), plain.eval()(x)
        pooled = ours.shape[1] - (4 if isinstance(plain, InceptionA) else 192)
        assert torch.allclose(ours[:, :pooled], theirs[:, :pooled])
        rim = (ours - theirs)[:, pooled:].abs().amax((0, 1))
        assert rim[0, 0] > 0 and (rim[1:-1, 1:-1].max() < 1e-5) == isinstance(plain, InceptionA)
    network = Networks.load(inception=weights.inception, judge="none").inception
    with torch.inference_mode():
        found = network(torch.rand(2, 3, 40, 30))
    assert found.shape == (2, 2048) and found.isfinite().all() and (found[0] - found[1]).abs().max() > 0


def field(number, payload):
    """A field of a protocol buffer: bytes, text, or a whole number."""
    varint = lambda n: bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)
    if isinstance(payload, int):
        return varint(number << 3) + varint(payload)
    payload = payload.encode() if isinstance(payload, str) else payload
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def onnx_of(weight, bias):
    """An ONNX file of flatten and one linear layer [C, 3 * 112 * 112]."""
    def tensor(name, value):
        return field(5, b"".join(field(1, side) for side in value.shape) + field(2, 1) + field(8, name)
                     + field(9, value.astype("<f4").tobytes()))

    def told(number, name, sides):
        shape = b"".join(field(1, field(1, side)) for side in sides)
        return field(number, field(1, name) + field(2, field(1, field(1, 1) + field(2, shape))))

    flatten = field(1, field(1, "x") + field(2, "y") + field(4, "Flatten"))
    transposed = field(5, field(1, "transB") + field(3, 1) + field(20, 2))
    linear = field(1, field(1, "y") + field(1, "w") + field(1, "b") + field(2, "z") + field(4, "Gemm") + transposed)
    graph = flatten + linear + field(2, "g") + tensor("w", weight) + tensor("b", bias) + told(11, "x", (1, 3, 112, 112)) \
        + told(12, "z", (1, len(bias)))
    return field(1, 7) + field(7, graph) + field(8, field(1, "") + field(2, 11))


def test_arcface_by_onnx_and_by_torchscript_is_the_same_network(portrait, tmp_path):
    generator = np.random.default_rng(0)
    weight, bias = generator.normal(size=(5, 3 * 112 * 112)).astype(np.float32) / 100, np.arange(5, dtype=np.float32)
    (tmp_path / "face.onnx").write_bytes(onnx_of(weight, bias))
    script = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(weight.shape[1], 5))
    script.load_state_dict({"1.weight": torch.from_numpy(weight), "1.bias": torch.from_numpy(bias)})
    torch.jit.script(script).save(str(tmp_path / "face.pt"))
    image, points = portrait
    one, two = (ArcFace(tmp_path / name).embed(image[None].repeat(2, 0), points[None].repeat(2, 0))
                for name in ("face.onnx", "face.pt"))
    assert one.shape == (2, 5) and np.allclose(one, two, atol=1e-4) and np.allclose(np.linalg.norm(one, axis=1), 1)
    face = aligned(image, points).transpose(2, 0, 1).astype(np.float64)
    expected = weight @ ((face - 127.5) / 127.5).ravel() + bias
    assert np.allclose(one[0], expected / np.linalg.norm(expected), atol=1e-3)


def test_the_face_is_where_arcface_was_taught_to_have_it(portrait):
    from s3dnerf.evaluation.arcface import GOAL
    from s3dnerf.evaluation.footage import similarity

    points = five_points(portrait[1])
    move = similarity(points, GOAL)
    assert np.abs(points @ move[:, :2].T + move[:, 2] - GOAL).max() < 6
    assert points[0, 0] < points[2, 0] < points[1, 0] and points[0, 1] < points[2, 1] < points[3, 1]
