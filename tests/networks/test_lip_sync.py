"""The lip-sync discriminator and its crops."""
import math

import pytest
import torch

from s3dnerf.errors import InputError
from s3dnerf.face import LIPS, metric_face
from s3dnerf.media import log_mel, mel_windows
from s3dnerf.networks.lip_sync import (LipSyncDiscriminator, central_mel, contrastive_loss, crop_lips, mel_columns,
                                       sync_windows)


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


def test_crop_of_a_large_image_skips_no_pixel():
    """Fine stripes in an image four times as fine as the crop come out as their mean, not as whatever pixel was hit."""
    size = 128 * 8
    stripes = (torch.arange(size) % 2).float().expand(1, 1, 3, size, -1)
    assert (crop_lips(stripes, landmarks(frames=1, size=size)) - 0.5).abs().max() < 0.02


@pytest.mark.parametrize("size", [128, 300, 770])
def test_crop_covers_the_same_part_of_the_face_at_any_size(size):
    x = (torch.arange(size) + 0.5) / size
    picture = torch.stack(torch.meshgrid(x, x, indexing="ij") + (torch.zeros(size, size),))[None, None]
    crop = crop_lips(picture, landmarks(frames=1, size=size))[0, 0]
    lips = landmarks(frames=1, size=1)[0, 0, list(LIPS)].mean(0)
    eyes = (landmarks(frames=1, size=1)[0, 0, 33] - landmarks(frames=1, size=1)[0, 0, 263]).norm()
    columns = lips[0] + (torch.arange(96) + 0.5 - 48) / 96 * 1.1 * eyes
    rows = lips[1] + (torch.arange(48) + 0.5 - 24) / 96 * 1.1 * eyes
    assert torch.allclose(crop[1], columns.expand(48, -1), atol=1e-3)
    assert torch.allclose(crop[0], rows[:, None].expand(-1, 96), atol=1e-3)


@pytest.mark.parametrize("frames", [3, 5, 9])
def test_sound_of_a_window_is_heard_while_its_frames_are_seen(frames):
    """A click in the middle of a frame lies in the middle of the sound of the window around that frame."""
    sound = torch.zeros(16000 * 2)
    sound[round((24 + 0.5) / 25 * 16000)] = 1.0
    _, heard = sync_windows(torch.zeros(1, 50, 3, 48, 96), mel_windows(log_mel(sound), 50)[None], frames)
    assert heard.shape == (50 - frames + 1, 80, mel_columns(frames))
    loudness = heard[24 - frames // 2].mean(0) - heard.min()
    columns = torch.arange(mel_columns(frames)) + 0.5
    assert (loudness @ columns / loudness.sum()).item() == pytest.approx(mel_columns(frames) / 2, abs=1.0)


def test_too_few_frames_and_odd_windows_are_told():
    with pytest.raises(InputError, match="found 4 frames"):
        LipSyncDiscriminator(width=4).distance(torch.rand(1, 4, 3, 48, 96), torch.randn(1, 4, 80, 40))
    for frames in (1, 4, 13):
        with pytest.raises(InputError, match="expected 3, 5, 7, 9 or 11"):
            LipSyncDiscriminator(frames=frames)


def test_discriminator_is_rebuilt_from_its_arguments_and_stays_small():
    model = LipSyncDiscriminator(width=4, embedding=16, frames=7)
    LipSyncDiscriminator(**model.arguments).load_state_dict(model.state_dict())
    assert sum(parameter.numel() for parameter in LipSyncDiscriminator().parameters()) < 1e6


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
    within = [math.log(12 - (min(w + 2, 11) - max(w - 2, 0))) for w in range(12)]
    assert contrastive_loss(same, same, torch.tensor(10.0)).item() == pytest.approx(sum(within) / 12, abs=1e-5)
    both = [(math.log(math.exp(count) + 12) + count) / 2 for count in within]
    assert contrastive_loss(same.expand(2, -1, -1), same.expand(2, -1, -1), torch.tensor(10.0)).item() == pytest.approx(
        sum(both) / 12, abs=1e-5)
    sparse = [math.log(12 - (min(w + 1, 11) - max(w - 1, 0))) for w in range(12)]
    assert contrastive_loss(same, same, torch.tensor(10.0), spacing=2).item() == pytest.approx(sum(sparse) / 12, abs=1e-5)


def test_knowing_the_speaker_alone_leaves_the_loss_of_guessing_within_a_clip():
    """Embeddings that name the clip and not the moment: perfect between clips, as good as chance inside."""
    speaker = torch.eye(3)[:, None].expand(-1, 12, -1)
    guess = sum(math.log(12 - (min(w + 2, 11) - max(w - 2, 0))) for w in range(12)) / 12
    assert contrastive_loss(speaker, speaker, torch.tensor(50.0)).item() == pytest.approx(guess, abs=1e-4)


def test_it_learns_to_tell_a_toy_sync():
    """Lips whose brightness is the loudness: after a few steps their own sound wins over shifted ones."""
    model, draw = LipSyncDiscriminator(width=4, embedding=16), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)

    def batch():
        level = torch.rand(6, 12, generator=draw)
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
