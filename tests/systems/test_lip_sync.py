"""Training of the lip-sync discriminator: what it is shown, and the figures that judge it."""
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from s3dnerf.data.module import ClipDataModule
from s3dnerf.errors import DatasetError
from s3dnerf.geometry import project
from s3dnerf.metrics import auc
from s3dnerf.networks.lip_sync import LipSyncDiscriminator, crop_lips
from s3dnerf.systems import LipSyncSystem
from s3dnerf.systems.lip_sync import augment_lips, augment_sound, best_offset, jitter_box


@pytest.fixture(scope="module")
def clip(shards):
    data = ClipDataModule(str(shards), str(shards), frames=20, spacing=1, batch_size=2, hard_pairs=0.0, jitter=0.0, workers=0)
    return next(iter(data.train_dataloader()))


def system(**options):
    return LipSyncSystem(LipSyncDiscriminator(width=8, channels=32, embedding=16, frames=5), **options)


@pytest.mark.parametrize("shift", [-3, 0, 2])
def test_best_offset_is_the_shift_of_the_sound(shift):
    time = torch.arange(20)
    cosine = (time[:, None] + shift == time).float() + 0.1 * torch.rand(20, 20)
    assert best_offset(cosine) == shift


def test_validation_figures_of_a_discriminator_that_hears_two_frames_late(clip):
    """Embeddings that know the moment exactly, but are two frames off: no right pair wins, and the lag says so."""
    judged, figures = system().eval(), {}
    judged.log_terms = lambda stage, terms, _size: figures.update({name: float(value) for name, value in terms.items()})
    moments = torch.eye(24)
    for lag, expected in ((0, 1.0), (2, 0.5)):
        judged.model.embed_lips = lambda lips: moments[None, 2:2 + lips.shape[1] - 4]
        judged.model.embed_sound = lambda sound: moments[None, 2 - lag:2 - lag + sound.shape[1] - 4]
        judged.on_validation_epoch_start()
        judged.validation_step(clip[:1], 0)
        judged.on_validation_epoch_end()
        assert figures["offset_lag"] == figures["offset"] == figures["offset_median"] == lag
        assert figures["offset_within_1"] == (1.0 if lag == 0 else 0.0)
        assert figures["auc"] == pytest.approx(expected) and figures["auc_clip"] == pytest.approx(expected)


def test_probes_are_taught_by_the_code_and_teach_both_branches(clip):
    """Without them the terms are gone; with them the error is of the changing code, whatever the person's mean face."""
    taught, terms = system(code_weight=1.0), {}
    taught.log_terms = lambda _stage, found, _size: terms.update({name: value.item() for name, value in found.items()})
    taught.eval()
    for probe in (taught.seen, taught.heard):
        torch.nn.init.zeros_(probe.weight)
    taught.training_step(clip, 0)
    code = taught.face_code.relative(clip.mesh, clip.mean_mesh[:, None])[..., :-1]
    expected = F.smooth_l1_loss(code, code.mean(1, keepdim=True).expand_as(code)).item()
    assert terms["seen"] == pytest.approx(expected, rel=1e-4) and terms["heard"] == pytest.approx(expected, rel=1e-4)
    without, terms = system(code_weight=0.0), {}
    without.log_terms = lambda _stage, found, _size: terms.update(found)
    without.training_step(clip, 0)
    assert set(terms) == {"contrast", "total"}


def test_a_jittered_box_is_the_same_in_all_frames(clip):
    landmarks = project(clip.mesh, clip.cameras)[0]
    moved = jitter_box(landmarks)
    ratio = (moved - moved.mean(2, keepdim=True)).norm(dim=-1) / (landmarks - landmarks.mean(2, keepdim=True)).norm(dim=-1)
    assert torch.allclose(ratio, ratio[:, :1, :1], atol=1e-3) and 0.9 < ratio.min() and ratio.max() < 1.1
    assert not torch.allclose(ratio[0], ratio[1], atol=1e-3)


def test_disturbances_are_alike_in_all_frames_and_keep_the_range(clip):
    lips = crop_lips(clip.frames, project(clip.mesh, clip.cameras)[0])[:, :1].expand(-1, 6, -1, -1, -1)
    changed = augment_lips(lips)
    assert changed.shape == lips.shape and 0 <= changed.min() and changed.max() <= 1
    assert torch.equal(changed[:, 0], changed[:, 5]) and not torch.allclose(changed, lips, atol=0.01)
    blanked = (augment_sound(clip.mel) == -2).all(-1).all(1).sum(-1)
    assert (blanked <= 11).all()


def test_validation_sees_clips_undisturbed(clip):
    judged = system()
    judged.eval()
    assert all(torch.equal(a, b) for a, b in zip(judged.inputs(clip), judged.inputs(clip)))
    judged.train()
    assert not any(torch.equal(a, b) for a, b in zip(judged.inputs(clip), judged.inputs(clip)))


def test_clips_without_a_sound_out_of_step_are_told(clip):
    short = dataclasses.replace(clip, frames=clip.frames[:, :7], mel=clip.mel[:, :7])
    with pytest.raises(DatasetError, match="found clips of 7 frames; expected 8"):
        system().inputs(short)


def test_it_learns_the_sync_of_a_synthetic_head(clip):
    """The mouth of the synthetic heads follows their speech: after some steps on two clips their own sounds win."""
    torch.manual_seed(0)
    taught = system(optimizer=lambda parameters: torch.optim.Adam(parameters, 3e-3))
    taught.log_terms = lambda *_: None
    optimizer = taught.configure_optimizers()
    assert any(parameter is taught.seen.weight for group in optimizer.param_groups for parameter in group["params"])
    for _ in range(40):
        loss = taught.training_step(clip, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    taught.eval()
    with torch.no_grad():
        cosine = taught.model(*taught.inputs(clip))[0]
    apart = (torch.arange(16)[:, None] - torch.arange(16)).abs() >= 3
    assert auc(cosine.diagonal().contiguous(), cosine[apart]) > 0.8
