"""The lip-sync discriminator and its crops."""
import math

import pytest
import torch

from s3dnerf.errors import InputError
from s3dnerf.face import LIPS, RIGID, metric_face
from s3dnerf.networks.lip_sync import LipSyncDiscriminator, contrastive_loss, crop_lips


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


def ramps(frames, size=128):
    """Images whose red is x and whose green is y, in pixels."""
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    return torch.stack([x, y, x]).expand(1, frames, -1, -1, -1)


def test_crop_goes_with_the_head_and_not_with_the_lips():
    """A head that moves takes its box along; lips that move within the face leave every frame's box where the head is."""
    still, nod, talk = landmarks(), landmarks().clone(), landmarks().clone()
    nod[:, 2] += torch.tensor([4.0, -3.0])
    talk[:, 2, [point for point in LIPS if point not in RIGID]] += torch.tensor([0.0, 5.0])
    places = crop_lips(ramps(5), still).mean((-1, -2))[0, :, :2]
    moved = crop_lips(ramps(5), nod).mean((-1, -2))[0, :, :2] - places
    assert torch.allclose(moved[2], torch.tensor([4.0, -3.0]), atol=1e-3) and moved[[0, 1, 3, 4]].abs().max() < 1e-3
    drawn = crop_lips(ramps(5), talk).mean((-1, -2))[0, :, :2] - places
    assert torch.allclose(drawn, torch.tensor([0.0, 1.0]).expand(5, 2), atol=0.01)


def test_crop_is_differentiable():
    image = torch.rand(1, 5, 3, 128, 128, requires_grad=True)
    gradient, = torch.autograd.grad(crop_lips(image, landmarks()).sum(), image)
    assert gradient.abs().sum() > 0


def test_crop_of_a_large_image_skips_no_pixel():
    """Fine stripes in an image four times as fine as the crop come out as their mean, not as whatever pixel was hit."""
    size = 128 * 8
    stripes = (torch.arange(size) % 2).float().expand(1, 1, 3, size, -1)
    assert (crop_lips(stripes, landmarks(frames=1, size=size)) - 0.5).abs().max() < 0.02


def test_a_clip_s_crop_is_its_own_whatever_lies_beside_it():
    """A large face is averaged down before it is looked up, also where a small one is in the batch."""
    images, near = torch.rand(2, 1, 3, 600, 600), landmarks(frames=1, size=600)
    points = torch.cat([near, (near - 300) * 0.25 + 300])
    alone = [crop_lips(images[i:i + 1], points[i:i + 1]) for i in range(2)]
    assert torch.equal(crop_lips(images, points), torch.cat(alone))


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


def small(frames=5, **options):
    return LipSyncDiscriminator(width=8, channels=16, embedding=8, frames=frames, **options).eval()


def test_too_few_frames_are_told():
    with pytest.raises(InputError, match="found 4 frames; the lip-sync discriminator needs 5"):
        small().distance(torch.rand(1, 4, 3, 48, 96), torch.randn(1, 4, 80, 40))
    with pytest.raises(InputError, match="found frames=2"):
        LipSyncDiscriminator(frames=2)


def test_discriminator_is_rebuilt_from_its_arguments_and_stays_small():
    model = small(frames=7)
    LipSyncDiscriminator(**model.arguments).load_state_dict(model.state_dict())
    assert sum(parameter.numel() for parameter in LipSyncDiscriminator().parameters()) * 4 < 3e6


def test_a_window_knows_its_own_frames_alone():
    """Embeddings of all windows of a clip are those of each window cut out by itself."""
    model, lips, mel = small(), torch.rand(1, 8, 3, 48, 96), torch.randn(1, 8, 80, 40)
    seen, heard = model.embed_lips(model.lip_features(lips)), model.embed_sound(model.sound_features(mel))
    assert seen.shape == heard.shape == (1, 4, 5 * 8)
    for first in range(4):
        part = slice(first, first + 5)
        assert torch.allclose(model.embed_lips(model.lip_features(lips[:, part]))[:, 0], seen[:, first], atol=1e-5)
        assert torch.allclose(model.embed_sound(model.sound_features(mel[:, part]))[:, 0], heard[:, first], atol=1e-5)


def test_what_does_not_change_says_nothing():
    """The mean over a window, a speaker's traits, is taken out; the order of the frames is not."""
    model, found = small(), torch.randn(1, 5, 16)
    assert torch.allclose(model.embed_lips(found), model.embed_lips(found + torch.randn(16)), atol=1e-5)
    assert torch.allclose(model.embed_sound(found), model.embed_sound(found + torch.randn(16)), atol=1e-5)
    assert not torch.allclose(model.embed_lips(found), model.embed_lips(found.flip(1)), atol=0.05)


def test_distance_is_one_minus_the_mean_cosine_of_unit_vectors():
    model, lips, mel = small(), torch.rand(2, 6, 3, 48, 96), torch.randn(2, 6, 80, 40)
    seen, heard = model.embed_lips(model.lip_features(lips)), model.embed_sound(model.sound_features(mel))
    assert torch.allclose(seen.norm(dim=-1), torch.ones(2, 2), atol=1e-5)
    assert torch.allclose(model(lips, mel), seen @ heard.transpose(1, 2), atol=1e-6) and model(lips, mel).shape == (2, 2, 2)
    assert model.distance(lips, mel).item() == pytest.approx(1 - (seen * heard).sum(-1).mean().item(), abs=1e-6)


def test_every_frame_of_the_lips_gets_a_gradient():
    lips = torch.rand(1, 6, 3, 48, 96, requires_grad=True)
    gradient, = torch.autograd.grad(small().distance(lips, torch.randn(1, 6, 80, 40)), lips)
    assert (gradient.abs().amax((0, 2, 3, 4)) > 0).all()


def test_contrastive_loss_against_closed_forms():
    eye = torch.eye(12)[None]
    assert contrastive_loss(eye, eye, torch.tensor(50.0)) < 1e-6
    same = torch.ones(1, 12, 4) / 2
    within = [math.log(12 - (min(w + 2, 11) - max(w - 2, 0))) for w in range(12)]
    assert contrastive_loss(same, same, torch.tensor(10.0)).item() == pytest.approx(sum(within) / 12, abs=1e-5)
    both = [(math.log(math.exp(count) + 12) + count) / 2 for count in within]
    assert contrastive_loss(same.expand(2, -1, -1), same.expand(2, -1, -1), torch.tensor(10.0)).item() == pytest.approx(
        sum(both) / 12, abs=1e-5)


def test_knowing_the_speaker_alone_leaves_the_loss_of_guessing_within_a_clip():
    """Embeddings that name the clip and not the moment: perfect between clips, as good as chance inside."""
    speaker = torch.eye(3)[:, None].expand(-1, 12, -1)
    guess = sum(math.log(12 - (min(w + 2, 11) - max(w - 2, 0))) for w in range(12)) / 12
    assert contrastive_loss(speaker, speaker, torch.tensor(50.0)).item() == pytest.approx(guess, abs=1e-4)


def test_it_learns_to_tell_a_toy_sync():
    """Lips whose brightness is the loudness: after a few steps their own sound wins over shifted ones."""
    torch.manual_seed(0)
    model, draw = small(dropout=0.0), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)

    def batch():
        level = torch.rand(6, 16, generator=draw)
        lips = level[:, :, None, None, None].expand(-1, -1, 3, 48, 96)
        mel = level[:, :, None, None].expand(-1, -1, 80, 40) * 4 - 2
        return model.embed_lips(model.lip_features(lips)), model.embed_sound(model.sound_features(mel))

    losses = []
    for _ in range(40):
        loss = contrastive_loss(*batch(), torch.tensor(10.0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])
