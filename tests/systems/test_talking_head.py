"""A step of training: waits for nothing that the device alone knows, and can do without what it keeps for the gradient."""
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml

from s3dnerf.data.module import ClipDataModule
from s3dnerf.errors import TrainingError
from s3dnerf.losses import Objective, crop
from s3dnerf.models.one_shot import S3DNeRF
from s3dnerf.networks.lip_sync import crop_lips, shrink_of
from s3dnerf.systems.motion import landmark_error
from s3dnerf.systems.talking_head import TalkingHeadSystem

OVERLAYS = Path(__file__).parents[2] / "configs" / "overlays"
KINDS = {"mouth": dict(lip_windows=1.0, full_frames=0.0), "anywhere": dict(lip_windows=0.0, full_frames=0.0),
         "whole": dict(lip_windows=0.0, full_frames=1.0)}
"""the windows that a step may render, and shares that leave no other"""


@pytest.fixture(scope="module")
def data(shards):
    return ClipDataModule(train=str(shards), frames=9, spacing=1, batch_size=2, workers=0)


@pytest.fixture(scope="module")
def clip(data):
    return next(iter(data.train_dataloader()))


@pytest.fixture
def new_system(tiny_head, data, in_training):
    def make(**options):
        return in_training(TalkingHeadSystem(deepcopy(tiny_head), **({"window": 32} | options)), data)

    return make


def test_a_head_that_is_empty_at_the_start_is_refused_in_a_line(new_system, data):
    """And one that is somewhere is not."""
    system = new_system()
    system.trainer.train_dataloader = data.train_dataloader()
    system.print = print
    system.on_train_start()
    torch.nn.init.constant_(system.model.radiance.out.bias, -1e3)
    with pytest.raises(TrainingError, match="opacity of 0.000 .* change seed_everything, or begin with trained weights") as told:
        system.on_train_start()
    assert "\n" not in str(told.value)


def stepped(system, clip):
    """The loss, the gradients, and the bytes that were kept for them."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = system.training_step(clip, 0)
    loss.backward()
    return loss, {name: p.grad for name, p in system.named_parameters() if p.grad is not None}, sum(kept.values())


@pytest.mark.parametrize("kind, options", [("mouth", dict(face_share=0.0, speech_pixels=True)), ("whole", dict(face_share=1.0))])
def test_a_step_on_shapes_alone_asks_for_no_number(new_system, clip, kind, options):
    """Tensors without numbers refuse whatever a GPU would be waited for: `item`, `tolist`, `nonzero`, a branch."""
    terms = Objective(lip_sync=1.0, adversarial=0.1, features=0.1, deformation=0.1, squared=0.1)
    system = new_system(objective=terms, lip_sync="one-shot-256", **options, **KINDS[kind]).to("meta")
    loss = system.training_step(clip.to("meta"), 0)
    loss.backward()
    assert loss.device.type == "meta" and ("lip_sync" in system.noted) == (kind == "mouth")
    assert {"photometric", "offset", "critic", "deformation"} <= set(system.noted)
    with pytest.raises((RuntimeError, NotImplementedError)):
        float(loss.detach())


def test_neither_does_a_window_anywhere(new_system, clip):
    window, _, on_lips = new_system(**KINDS["anywhere"]).choose_window(clip.to("meta"))
    assert not on_lips and crop(clip.to("meta").frames, window).shape[-2:] == (32, 32)


def test_lips_are_averaged_down_by_what_their_landmarks_say():
    images, landmarks = torch.rand(1, 3, 3, 512, 512), torch.rand(1, 3, 478, 2) * 512
    for width in (86, 97):  # of the crop, in frames of 256 pixels, as they are prepared
        for side in (128, 256, 512):
            landmarks[:, :, 33], landmarks[:, :, 263] = torch.tensor([0.0, 0]), torch.tensor([width / 1.1 * side / 256, 0])
            found = crop_lips(images, landmarks)
            assert torch.equal(found, crop_lips(images, landmarks, shrink_of(side)))


def test_computing_again_keeps_less_and_gives_the_same_gradients(new_system, clip):
    found = {}
    for recompute in (False, True):
        found[recompute] = stepped(new_system(recompute=recompute, face_share=1.0, full_stride=2, **KINDS["whole"]), clip)
    (loss, gradients, kept), (same, again, less) = found[False], found[True]
    assert torch.equal(loss, same) and gradients.keys() == again.keys()
    assert all(torch.allclose(gradients[name], again[name], rtol=1e-5, atol=1e-8) for name in gradients)
    assert less < 0.6 * kept


def test_what_moves_the_face_is_the_same_for_pixels_and_landmarks(new_system, clip, monkeypatch):
    """Worked out once, in place of once for each."""
    system, calls = new_system(face_share=1.0, **KINDS["anywhere"]), []
    flow = type(system.model).flow
    monkeypatch.setattr(type(system.model), "flow", lambda *inputs: calls.append(1) or flow(*inputs))
    torch.manual_seed(1)
    system.training_step(clip, 0)
    appearance = system.model.encode(clip.portrait)
    alone = landmark_error(system.model, appearance, system.drive(clip, True), clip)
    assert torch.equal(system.noted["offset"], alone) and len(calls) == 2  # the step's, and this one's


@pytest.mark.parametrize("preset", ["tiny", "base"])
def test_both_presets_learn_in_half_precision_what_they_learn_in_single(preset, data, clip, in_training):
    """As `trainer.precision: bf16-mixed` has it: weights, loss and gradients are single, networks reckon in half."""
    arguments = yaml.safe_load((OVERLAYS / f"{preset}.yaml").read_text())["model"]["init_args"]["model"]["init_args"]
    torch.manual_seed(0)
    model, found, kinds = S3DNeRF(**arguments | {"image_size": 64, "encoder_channels": [8, 8, 8, 8]}), {}, set()
    model.encoder.register_forward_hook(lambda _part, _inputs, planes: kinds.add(planes[0].dtype))
    for half in (False, True):
        system = in_training(TalkingHeadSystem(deepcopy(model), window=32, face_share=1.0, **KINDS["mouth"]), data)
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = system.training_step(clip, 0)
        loss.backward()
        found[half] = loss, torch.cat([p.grad.flatten() for p in system.model.parameters() if p.grad is not None])
    (loss, gradient), (near, other) = found[False], found[True]
    assert kinds == {torch.float32, torch.bfloat16} and near.dtype == other.dtype == torch.float32
    assert near.item() == pytest.approx(loss.item(), rel=0.02)
    assert torch.nn.functional.cosine_similarity(gradient, other, 0) > 0.95
