"""The lip-sync discriminator and its crops."""
import math

import pytest
import torch

from s3dnerf.face import LIPS, metric_face
from s3dnerf.networks.lip_sync import LipSyncDiscriminator, central_mel, contrastive_loss, crop_lips, sync_windows


def landmarks(batch=1, frames=5, size=128):
    face = torch.from_numpy(metric_face())[:, :2] * (size / 3) + size / 2
    return face.expand(batch, frames, -1, -1)


def test_crop_is_centred_on_the_lips_and_holds_them():
    points = landmarks()
    y, x = torch.meshgrid(torch.arange(128) + 0.5, torch.arange(128) + 0.5, indexing="ij")
    crops = crop_lips(torch.stack([x, y, x]).expand(1, 5, -1, -1, -1), points)
    assert crops.shape == (1, 5, 3, 48, 96)
    centre = points[0, 0, list(LIPS)].mean(0)
    assert torch.allclose(crops[0, 0, :2].mean((1, 2)), centre, atol=0.5)
    low, high = crops[0, 0, :2].amin((1, 2)), crops[0, 0, :2].amax((1, 2))
    lips = points[0, 0, list(LIPS)]
    assert (low < lips.amin(0)).all() and (high > lips.amax(0)).all()


def test_crop_does_not_tell_the_opening():
    """Opening the mouth evenly up and down leaves the box where it was."""
    closed = landmarks().clone()
    opened = closed.clone()
    opened[:, :, 13, 1] -= 5
    opened[:, :, 14, 1] += 5
    image = torch.rand(1, 5, 3, 128, 128)
    assert torch.allclose(crop_lips(image, closed), crop_lips(image, opened), atol=1e-4)


def test_crop_is_the_same_box_for_all_frames_and_differentiable():
    points = landmarks().clone()
    points[:, 2] += 4.0
    image = torch.rand(1, 1, 3, 128, 128).expand(1, 5, -1, -1, -1).clone().requires_grad_(True)
    crops = crop_lips(image, points)
    assert torch.equal(crops[0, 0], crops[0, 2])
    gradient, = torch.autograd.grad(crops.sum(), image)
    assert gradient.abs().sum() > 0


def test_windows_pair_five_frames_with_their_own_sound():
    lips = torch.arange(8.0)[None, :, None, None, None].expand(1, 8, 3, 48, 96)
    mel = torch.arange(8.0)[None, :, None, None].expand(1, 8, 80, 40)
    stacked, sound = sync_windows(lips, mel)
    assert stacked.shape == (4, 5, 3, 48, 96) and sound.shape == (4, 80, 16)
    assert torch.equal(stacked[:, 2, 0, 0, 0], sound[:, 0, 0])
    ramp = torch.arange(40.0).expand(80, -1)
    assert central_mel(ramp)[0].tolist() == list(range(12, 28))


def test_embeddings_are_unit_vectors_and_distance_is_one_minus_cosine():
    model = LipSyncDiscriminator(width=4, embedding=16).eval()
    lips, mel = torch.rand(2, 6, 3, 48, 96), torch.randn(2, 6, 80, 40)
    stacked, sound = sync_windows(lips, mel)
    assert torch.allclose(model.embed_lips(stacked).norm(dim=-1), torch.ones(4), atol=1e-5)
    assert model.distance(lips, mel).item() == pytest.approx(1 - model(stacked, sound).mean().item(), abs=1e-6)


def test_contrastive_loss_against_closed_forms():
    eye = torch.eye(12)[None]
    assert contrastive_loss(eye, eye, torch.tensor(50.0)) < 1e-6
    same = torch.ones(1, 12, 4) / 2
    expected = sum(math.log(12 - (min(w + 2, 11) - max(w - 2, 0))) for w in range(12)) / 12
    assert contrastive_loss(same, same, torch.tensor(10.0)).item() == pytest.approx(expected, abs=1e-5)


def test_it_learns_to_tell_a_toy_sync():
    """Lips whose brightness is the loudness: after a few steps their own sound wins over shifted ones."""
    model, draw = LipSyncDiscriminator(width=4, embedding=16), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)

    def batch():
        level = torch.rand(6, 14, generator=draw)
        lips = level[:, :, None, None, None].expand(-1, -1, 3, 48, 96)
        mel = level[:, :, None, None].expand(-1, -1, 80, 40) * 4 - 2
        stacked, sound = sync_windows(lips, mel)
        return model.embed_lips(stacked).unflatten(0, (6, -1)), model.embed_sound(sound).unflatten(0, (6, -1))

    losses = []
    for _ in range(40):
        loss = contrastive_loss(*batch(), torch.tensor(10.0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])
