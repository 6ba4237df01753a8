"""Compositing: what did not move is the photo itself, what moved keeps the photo's own resolution."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from s3dnerf.data.tracking import CropBox, cut
from s3dnerf.paste import Backdrop, FaceFrame, FullFrame, shrink, zoomed
from s3dnerf.types import Rendering

SIZE = 64


def photo(height=150, width=121, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def rendering(picture, box, frames=2, shift=(0.0, 0.0), inside=0.0, colour=None):
    """What a model returns that looks the crop up `shift` (crop units) away; `inside` of it is `colour`."""
    crop = torch.from_numpy(cut(picture[None], box, SIZE)).permute(0, 3, 1, 2).float() / 255
    own = lambda n: torch.stack(torch.meshgrid(*[(torch.arange(n) + 0.5) * (2 / n) - 1] * 2, indexing="xy"))[None]
    move = torch.tensor(shift)[None, :, None, None]
    warped = F.grid_sample(crop, (own(SIZE) + move).permute(0, 2, 3, 1), padding_mode="border", align_corners=False)
    image = warped * (1 - inside) + inside * (torch.zeros(3) if colour is None else colour)[None, :, None, None]
    rays = SIZE // 4
    one = lambda value: torch.full((1, 1, rays, rays), float(value))
    full = lambda value: torch.full((1, 1, SIZE, SIZE), float(value))
    maps = (image, warped, one(0).expand(-1, 3, -1, -1), one(0).expand(-1, 3, -1, -1), one(1), one(12),
            own(SIZE) + move, full(inside), full(inside), one(0))
    return Rendering(*(x[:, None].expand(1, frames, *x.shape[1:]) for x in maps))


BOXES = {"inside": CropBox(20.3, 30.7, 80.0), "larger than the photo": CropBox(-30.2, -10.4, 200.0),
         "beyond a corner": CropBox(70.5, -20.25, 90.0), "smaller than the model's": CropBox(40.1, 50.9, 37.3)}


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_a_rendering_that_equals_the_crop_leaves_the_photo_untouched(box):
    picture = photo()
    frames = FullFrame(picture, box, torch.device("cpu")).frames(rendering(picture, box, frames=3))
    assert frames.shape == (3, 150, 121, 3) and frames.dtype == np.uint8
    assert (frames == picture).all()


def test_pixels_are_moved_at_the_photos_own_resolution():
    """A shift by whole photo pixels moves the finest detail exactly; a crop that was resampled could not hold it."""
    picture, box = photo(200, 200), CropBox(30.0, 40.0, 128.0)
    moved = rendering(picture, box, shift=(2 * 3 / 128, 2 * -2 / 128))
    frames = FullFrame(picture, box, torch.device("cpu")).frames(moved)
    inner = np.s_[60:150, 50:140]
    expected = np.roll(picture, (2, -3), (0, 1))[inner]
    assert np.abs(frames[0][inner].astype(int) - expected).max() <= 1
    outer = np.ones((200, 200), bool)
    outer[40:168, 30:158] = False
    assert (frames[0][outer] == picture[outer]).all()


def test_half_a_pixel_of_motion_keeps_the_detail():
    """A grating of four pixels moved by half a pixel keeps 0.97 of its contrast (bilinear look-up: 0.71)."""
    wave = 127.5 + 100 * np.sin(np.arange(200) * np.pi / 2 + 0.4)
    picture = np.repeat(np.broadcast_to(wave, (200, 200))[..., None], 3, 2).round().astype(np.uint8)
    box = CropBox(30.0, 40.0, 128.0)
    flat = rendering(np.full_like(picture, 128), box, shift=(1 / 128, 0.0))  # the model itself adds nothing
    frame = FullFrame(picture, box, torch.device("cpu")).frames(flat)[0]
    contrast = lambda image: image[60:140, 60:140].astype(float).std()
    assert contrast(frame) / contrast(picture) == pytest.approx(0.972, abs=0.01)


def test_a_shift_fades_out_towards_the_border_of_the_crop():
    picture, box = photo(200, 200), CropBox(30.0, 40.0, 128.0)
    frames = FullFrame(picture, box, torch.device("cpu")).frames(rendering(picture, box, shift=(0.05, 0.0)))
    change = np.abs(frames[0].astype(int) - picture).mean(-1)
    assert change[100, 94] > 0 and change[60:150, 30].mean() < 6 < 20 < change[60:150, 60].mean()


def test_the_inside_of_the_mouth_hides_the_photo():
    """Where all is inside of the mouth nothing of the photo's detail may shine through."""
    picture, box, colour = photo(), CropBox(20.0, 30.0, 80.0), torch.tensor([0.2, 0.4, 0.6])
    frames = FullFrame(picture, box, torch.device("cpu")).frames(rendering(picture, box, inside=1.0, colour=colour))
    middle = frames[0][45:95, 35:85]
    assert np.abs(middle - np.array([51, 102, 153])).max() <= 1


def test_what_super_resolution_adds_is_added():
    picture = np.full((150, 121, 3), 100, np.uint8)
    box = CropBox(20.0, 30.0, 80.0)
    made = rendering(picture, box)
    lighter = Rendering(made.image + 20 / 255, *(getattr(made, name) for name in list(vars(made))[1:]))
    frames = FullFrame(picture, box, torch.device("cpu")).frames(lighter)
    assert (frames[0][45:95, 35:85] == 120).all() and (frames[0][:30] == 100).all()


def test_the_face_frame_is_the_rendering():
    picture, box = photo(), BOXES["inside"]
    made = rendering(picture, box)
    frames = FaceFrame(SIZE).frames(made)
    assert frames.shape == (2, SIZE, SIZE, 3)
    assert (frames == cut(picture[None], box, SIZE)).all()


def test_large_photos_are_shrunk_with_their_box():
    picture, box = np.repeat(np.repeat(photo(30, 40), 50, 0), 50, 1), CropBox(100.0, 200.0, 600.0)
    small, moved = shrink(picture, box)
    assert small.shape == (810, 1080, 3) and (moved.left, moved.top, moved.side) == (54.0, 108.0, 324.0)
    same, kept = shrink(photo(), box)
    assert same.shape == (150, 121, 3) and kept is box


def test_another_background_follows_what_a_pixel_shows():
    """A person who fills the left half and moves by an eighth of the crop: the edge goes along, in either frame."""
    box, shift = CropBox(30.0, 40.0, 128.0), 0.25
    picture = np.full((200, 200, 3), (200, 40, 40), np.uint8)
    colour = torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    moved = rendering(picture, box, shift=(-shift, 0.0))  # what is shown comes from the left: everything goes right
    half = lambda size, edge: (torch.arange(size) < edge).float().expand(1, size, size)
    face = FaceFrame(SIZE, Backdrop(colour.expand(3, SIZE, SIZE), half(SIZE, 32))).frames(moved)[0]
    assert (face[:, :39] == (200, 40, 40)).all() and (face[:, 41:] == (0, 0, 255)).all()
    full = FullFrame(picture, box, torch.device("cpu"), Backdrop(colour.expand(3, 200, 200), half(200, 94))).frames(moved)[0]
    inner = full[50:150, 40:150]
    assert (inner[:, :69] == (200, 40, 40)).all() and (inner[:, 72:] == (0, 0, 255)).all()  # 94 + 16 - 40
    assert (full[:30, :94] == (200, 40, 40)).all() and (full[:30, 94:] == (0, 0, 255)).all()  # beside the crop nothing moves


def test_a_soft_edge_is_a_blend():
    picture, box = np.full((150, 121, 3), 100, np.uint8), CropBox(20.0, 30.0, 80.0)
    backdrop = lambda *size: Backdrop(torch.zeros(3, *size), torch.full((1, *size), 0.25))
    assert (FaceFrame(SIZE, backdrop(SIZE, SIZE)).frames(rendering(picture, box)) == 25).all()
    assert (FullFrame(picture, box, torch.device("cpu"), backdrop(150, 121)).frames(rendering(picture, box)) == 25).all()


def test_zoom_is_about_the_middle_of_the_region():
    frames = np.zeros((2, 90, 120, 3), np.uint8)
    frames[:, 36:44, 56:64] = 255  # a square of 8 whose middle is (60, 40)
    near = zoomed(frames, torch.tensor([1.0, 3.0]), (slice(20, 60), slice(40, 80)))
    assert (near[0] == frames[0]).all()
    y, x = np.nonzero(near[1, ..., 0] > 127)
    assert (x.min(), x.max(), y.min(), y.max()) == (48, 71, 28, 51)  # 24 wide, about the same middle
    aside = zoomed(frames, torch.tensor([1.0, 2.0]), (slice(0, 40), slice(0, 80)))[1]
    y, x = np.nonzero(aside[..., 0] > 127)
    assert (x.mean() + 0.5, y.mean() + 0.5) == (80, 60)  # about (40, 20)
