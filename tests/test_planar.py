"""Pictures for encoders, against swscale's; marks in them, against marks in RGB."""
from importlib.resources import files

import numpy as np
import pytest
import torch

from s3dnerf.marking.label import Label
from s3dnerf.marking.trace import average_luma, find
from s3dnerf.marking.watermark import Watermark
from s3dnerf.media import VideoWriter, read_frames, read_image
from s3dnerf.planar import is_planar, picture_of, planar

SIZE = 96, 128


@pytest.fixture(scope="module")
def picture():
    """[96, 128, 3] uint8: soft colours with texture."""
    draw = np.random.default_rng(0)
    soft = torch.nn.functional.interpolate(torch.from_numpy(draw.random((1, 3, 6, 8))), size=SIZE, mode="bicubic")[0]
    grain = torch.from_numpy(draw.normal(0, 0.02, (1, *SIZE)))
    return ((soft + grain).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def as_planar(picture):
    return planar(torch.from_numpy(picture.copy())[None])[0].numpy()


def test_brightness_and_colour_are_swscale_s(picture):
    found, expected = as_planar(picture), picture_of(picture, ()).to_ndarray(format="yuv420p")
    assert found.shape == expected.shape == (144, 128) and is_planar(found) and not is_planar(picture)
    off = np.abs(found.astype(int) - expected)
    assert off[:96].max() <= 1
    assert off[96:].mean() < 0.6 and off[96:].max() <= 4  # how it averages four pixels is its own affair


@pytest.mark.parametrize("colour, expected", [((255, 255, 255), (235, 128, 128)), ((0, 0, 0), (16, 128, 128)),
                                              ((255, 0, 0), (81, 90, 240)), ((0, 0, 255), (41, 240, 110))])
def test_plain_colours_are_the_standard_s(colour, expected):
    frame = as_planar(np.full((6, 4, 3), colour, np.uint8))
    assert frame.shape == (9, 4)
    assert [set(part.flatten().tolist()) for part in (frame[:6], frame[6:].reshape(2, 6)[0], frame[6:].reshape(2, 6)[1])] == [
        {value} for value in expected]


@pytest.mark.parametrize("mark", [Watermark(77, 128, 96), Label("AI-generated", 128, 96)], ids=["watermark", "label"])
def test_marks_are_those_of_rgb(picture, mark):
    plain = as_planar(picture)
    kept = plain.copy()
    found, expected = mark.frame(plain), as_planar(mark.frame(picture))
    assert (plain == kept).all(), "what is given stays as it was"
    change, wanted = (marked[:96].astype(int) - plain[:96] for marked in (found, expected))
    assert wanted.std() > 1 and np.abs(change - wanted).mean() < 0.5  # white and black are clipped otherwise
    assert np.corrcoef(change.ravel(), wanted.ravel())[0, 1] > 0.93
    assert np.abs(found.astype(int) - expected)[96:].mean() < 1


def test_the_watermark_is_read_again(tmp_path):
    photo = read_image(files("s3dnerf") / "assets" / "demo_photo.jpg")
    clip = [photo[10 + k % 3:266 + k % 3, 90 + k // 4:346 + k // 4] for k in range(20)]
    mark = Watermark(0x9E3779B9, 256, 256, (slice(0, 256), slice(0, 256)))
    with VideoWriter(tmp_path / "marked.mp4", 256, 256, crf=23) as writer:
        for frame in clip:
            writer.write(mark.frame(as_planar(frame)))
    assert find(average_luma(read_frames(tmp_path / "marked.mp4"))).tag == 0x9E3779B9


def test_a_writer_takes_both(picture, tmp_path):
    for name, frame in (("rgb.mp4", picture), ("planar.mp4", as_planar(picture))):
        with VideoWriter(tmp_path / name, 128, 96) as writer:
            for _ in range(3):
                writer.write(frame)
    one, other = (next(read_frames(tmp_path / name)).astype(int) for name in ("rgb.mp4", "planar.mp4"))
    assert np.abs(one - other).mean() < 1.5
