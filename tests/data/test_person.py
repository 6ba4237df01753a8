"""One person's recording: pixels are the recording's, boxes hold what they say, the end is never learned from."""
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from s3dnerf.data.person import PersonDataModule, above_mouth, lower_face, pixel_batch, read_person, within_face, without_neck
from s3dnerf.errors import DatasetError, InputError
from s3dnerf.face import FACE_OVAL
from s3dnerf.geometry import project


@pytest.fixture(scope="module")
def folder(person_shards):
    return person_shards


def module(folder, **options):
    found = PersonDataModule(folder, **{"frames": 4, "rays": 300, "steps_per_epoch": 3, **options})
    found.setup()
    return found


def test_pixels_are_what_the_recording_shows(folder):
    video = read_person(folder)
    pixels = torch.tensor([[[5, 7], [60, 3]]])
    batch = pixel_batch(video, torch.tensor([11]), pixels, lower_face(video))
    assert torch.allclose(batch.colour[0, 0], video.frames[11, 7, 5] / 255) and batch.pixels[0, 0].tolist() == [5.5, 7.5]
    assert torch.allclose(batch.background[0, 1], video.background[3, 60] / 255)
    assert torch.equal(batch.cameras.camera_to_world[0], video.cameras.camera_to_world[11])


def test_the_end_is_held_out_and_epochs_repeat(folder):
    data = module(folder)
    assert data.learned == 36 and len(data.video.frames) == 40
    first, again = list(data.train_dataloader()), list(data.train_dataloader())
    assert len(first) == 3 and all(batch.frame.max() < 36 for batch in first)
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(first, again))
    assert all(int(frame) >= 36 for frame in data.val_dataloader())


@pytest.mark.parametrize("region", range(4))
def test_pixels_lie_in_their_boxes(folder, region):
    shares = [0.0] * 4
    shares[region] = 1.0
    data = module(folder, shares=tuple(shares))
    batch = next(iter(data.train_dataloader()))
    box = data.boxes[batch.frame, region][:, None]
    assert ((batch.pixels >= box[..., :2].floor()) & (batch.pixels <= box[..., 2:] + 1)).all()
    lips = project(data.video.mesh[batch.frame][:, [13, 14]], batch.cameras)[0].mean(1)
    inside = ((lips >= box[:, 0, :2]) & (lips <= box[:, 0, 2:])).all(-1)
    assert inside.all() == (region != 2)


def test_patches_are_squares_around_the_mouth_every_second_time(folder):
    data = module(folder, patch=16, patch_frames=2)
    square, scattered, _ = data.train_dataloader()
    assert (square.patch, scattered.patch) == (16, 0) and square.pixels.shape == (2, 256, 2)
    grid = square.pixels.view(2, 16, 16, 2)
    assert (grid[:, :, 1:, 0] - grid[:, :, :-1, 0] == 1).all() and (grid[:, 1:, :, 1] - grid[:, :-1, :, 1] == 1).all()
    lips = project(data.video.mesh[square.frame][:, [13, 14]], square.cameras)[0].mean(1)
    assert ((lips - grid.mean((1, 2))).abs() < 6).all()


def test_still_is_outside_the_lower_face(folder):
    data = module(folder)
    batch = next(iter(data.train_dataloader()))
    above = batch.pixels[..., 1] < project(data.video.mesh[batch.frame][:, [9]], batch.cameras)[0][..., 1]
    assert batch.still[above].min() == 1 and 0.1 < batch.still.mean() < 0.9


def test_the_neck_is_no_head(folder):
    video = read_person(folder)
    lips, chin = (project(video.mesh[:, [point]], video.cameras)[0][:, 0] for point in (13, 152))
    kept = without_neck(video.cameras, video.mesh, 64)
    cell = lambda place: kept[torch.arange(len(kept)), (place[:, 1] / 4).long().clamp(0, 15), (place[:, 0] / 4).long().clamp(0, 15)]
    beside = torch.tensor([14.0, 0.0])
    assert cell(lips).all() and not cell(chin + torch.tensor([0.0, 8.0])).any()
    assert not cell(chin + beside).any() and not cell(chin - beside).any() and kept[:, :6].all()


@pytest.mark.parametrize("order", (1, -1))
def test_the_face_ends_two_pixels_beyond_its_outline(order):
    landmarks, angles = torch.zeros(1, 478, 2), torch.arange(len(FACE_OVAL)) * (order * 2 * math.pi / len(FACE_OVAL))
    landmarks[0, list(FACE_OVAL)] = 60 + 40 * torch.stack([angles.cos(), angles.sin()], 1)
    places = torch.tensor([[[60.0, 60], [60, 98], [60, 101], [60, 103], [140, 60]]])
    assert within_face(landmarks, places)[0].tolist() == pytest.approx([1, 1, 0.5, 0, 0], abs=0.1)
    assert within_face(2 * landmarks, 2 * places, 2.0)[0, 2].item() == pytest.approx(0.5, abs=0.1)


def test_at_its_edge_the_head_is_what_differs_from_the_plate(folder):
    """The mask's outermost cell is head where the recording shows something else than the background."""
    video = read_person(folder)
    grid = torch.stack(torch.meshgrid(torch.arange(64), torch.arange(64), indexing="xy"), -1).flatten(0, 1)[None]
    above = above_mouth(project(video.mesh[3:4], video.cameras[3:4])[0], grid + 0.5)[0, :, 0]
    same = replace(video, frames=video.background[None].expand(40, -1, -1, -1))
    other = replace(video, frames=255 - same.frames, background=torch.zeros_like(video.background))
    mask = {name: pixel_batch(found, torch.tensor([3]), grid, lower_face(video)).head[0, above, 0]
            for name, found in (("same", same), ("other", other))}
    core = -torch.nn.functional.max_pool2d(-video.head[3:4].float()[:, None], 3, 1, 1)
    core = torch.nn.functional.interpolate(core, size=64, mode="bilinear").flatten()[above]
    assert (mask["same"] <= core + 1e-6).all() and mask["same"].sum() < 0.9 * mask["other"].sum()


def test_frames_can_be_reduced_but_not_enlarged(folder):
    small = read_person(folder, 32)
    assert small.frames.shape[1:] == (32, 32, 3) and small.head.shape[1:] == (8, 8)
    whole = read_person(folder)
    assert torch.allclose(project(small.mesh, small.cameras)[0] * 2, project(whole.mesh, whole.cameras)[0], atol=1e-3)
    with pytest.raises(DatasetError, match="at most"):
        read_person(folder, 128)


def test_several_people_are_refused(shards):
    with pytest.raises(DatasetError, match="2 people"):
        read_person(str(shards))


def test_around_the_head_there_is_background_but_not_where_the_torso_is(folder):
    video = read_person(folder)
    grid = torch.stack(torch.meshgrid(torch.arange(64), torch.arange(64), indexing="xy"), -1).flatten(0, 1)[None]
    batch = pixel_batch(video, torch.tensor([3]), grid, lower_face(video))
    torso = torch.nn.functional.interpolate(video.torso[3:4].float()[:, None], size=64).flatten()
    above = above_mouth(project(video.mesh[3:4], video.cameras[3:4])[0], batch.pixels)[0, :, 0]
    assert (batch.free[0, :, 0] >= batch.head[0, :, 0] * (1 - torso))[above].all() and batch.free.mean() > batch.head.mean()
    core = torch.nn.functional.avg_pool2d(video.torso[3:4].float()[:, None], 3, 1, 1)
    core = torch.nn.functional.interpolate(core, size=64).flatten() == 1
    assert core.any() and batch.free[0, core].max() == 0


def test_a_video_that_cannot_be_used_is_told_before_it_is_tracked(tmp_path):
    from s3dnerf.data.person_video import prepare_person
    from s3dnerf.media import VideoWriter

    for name, sound, words in (("mute.mp4", None, "no sound track"), ("silent.mp4", np.zeros(32000, np.float32), "silent")):
        with VideoWriter(tmp_path / name, 64, 64, sound=sound) as video:
            for _ in range(50):
                video.write(np.zeros((64, 64, 3), np.uint8))
        with pytest.raises(InputError, match=words):
            prepare_person(str(tmp_path / name), tmp_path / "shards")
    assert not (tmp_path / "shards").exists()
