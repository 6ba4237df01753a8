"""Photos in files of all kinds, against pictures that are known."""
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from s3dnerf.errors import InputError
from s3dnerf.media import read_image


@pytest.fixture
def picture():
    """Left-top red, right-top green, left-bottom blue, right-bottom grey."""
    image = np.zeros((16, 24, 3), np.uint8)
    image[:8, :12], image[:8, 12:], image[8:, :12], image[8:, 12:] = (250, 0, 0), (0, 250, 0), (0, 0, 250), (90, 90, 90)
    return image


UPRIGHT = {1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
           5: lambda x: x.swapaxes(0, 1), 6: lambda x: np.rot90(x, -1), 7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
           8: lambda x: np.rot90(x, 1)}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_exif_orientation_is_undone(tmp_path, picture, orientation, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{ending}"
    Image.fromarray(picture).save(path, exif=exif, **({"quality": 95, "subsampling": 0} if ending == "jpg" else {}))
    expected = UPRIGHT[orientation](picture).astype(int)
    found = read_image(path)
    assert found.dtype == np.uint8 and found.shape == expected.shape
    assert np.abs(found - expected).mean() < (4 if ending == "jpg" else 1e-9)


def test_transparency_lies_over_white(tmp_path, picture):
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[:4], alpha[4:8] = 0, 51
    share = alpha[..., None] / 255
    over = lambda colour: colour * share + 255 * (1 - share)
    Image.fromarray(np.dstack([picture, alpha])).save(tmp_path / "rgba.png")
    assert np.abs(read_image(tmp_path / "rgba.png") - over(picture)).max() <= 1
    luma = picture[..., 0]
    Image.fromarray(np.dstack([luma, alpha]), "LA").save(tmp_path / "la.png")
    assert np.abs(read_image(tmp_path / "la.png") - over(luma[..., None].repeat(3, 2))).max() <= 1
    Image.fromarray(np.dstack([picture, alpha])).save(tmp_path / "rgba.webp", lossless=True, exact=True)
    assert np.abs(read_image(tmp_path / "rgba.webp") - over(picture)).max() <= 1


def test_palettes_keep_their_colours_and_their_transparent_entry(tmp_path, picture):
    paletted = Image.fromarray(picture).quantize(8)
    paletted.save(tmp_path / "p.png")
    assert np.array_equal(read_image(tmp_path / "p.png"), picture)
    red = paletted.getpixel((0, 0))
    for name in ("t.png", "t.gif"):
        paletted.save(tmp_path / name, transparency=red)
        expected = np.where((picture == (250, 0, 0)).all(-1, keepdims=True), 255, picture)
        assert np.array_equal(read_image(tmp_path / name), expected)


def test_sixteen_bits_one_bit_and_grey(tmp_path):
    ramp = np.linspace(0, 65535, 24 * 16).reshape(16, 24).astype(np.uint16)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
        found = read_image(tmp_path / name)
        assert found.shape == (16, 24, 3) and np.abs(found - ramp[..., None] / 257.0).max() <= 1
    Image.fromarray((ramp // 257).astype(np.uint8)).save(tmp_path / "grey.jpg", quality=98)
    assert np.abs(read_image(tmp_path / "grey.jpg") - ramp[..., None] / 257.0).max() < 6
    Image.fromarray(ramp > 30000).save(tmp_path / "bit.png")
    assert np.array_equal(read_image(tmp_path / "bit.png")[..., 1], (ramp > 30000) * 255)


def test_cmyk_becomes_rgb(tmp_path, picture):
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "print.jpg", quality=98, subsampling=0)
    assert np.abs(read_image(tmp_path / "print.jpg").astype(int) - picture).mean() < 5


def png_header(width, height):
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))


def bmp_header(width, height):
    return struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 200, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + b"\0" * 146


@pytest.mark.parametrize("header, ending", [(png_header, "png"), (bmp_header, "bmp")])
def test_bombs_are_refused_by_their_header(tmp_path, header, ending, monkeypatch):
    path = tmp_path / f"bomb.{ending}"
    path.write_bytes(header(40000, 25000))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("the pixels were decoded"))
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(InputError, match="40000 x 25000 pixels"):
        read_image(path)
    assert Image.MAX_IMAGE_PIXELS == limit


def test_the_limit_on_pixels_is_exact(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "photo.png")
    assert read_image(tmp_path / "photo.png", max_pixels=16 * 24).shape == (16, 24, 3)
    with pytest.raises(InputError, match="at most 383"):
        read_image(tmp_path / "photo.png", max_pixels=16 * 24 - 1)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif", "gif"])
def test_truncated_images_are_damaged_or_no_images(tmp_path, ending):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = tmp_path / f"whole.{ending}"
    Image.fromarray(noise).save(whole)
    content = whole.read_bytes()
    for share in (0.02, 0.3, 0.6, 0.9):
        part = tmp_path / f"part.{ending}"
        part.write_bytes(content[: max(1, int(len(content) * share))])
        with pytest.raises(InputError, match="damaged|not an image") as caught:
            read_image(part)
        assert "\n" not in str(caught.value)


def test_text_called_a_photo_is_no_image(tmp_path):
    (tmp_path / "notes.jpg").write_text("not a photo at all\n" * 50)
    with pytest.raises(InputError, match="not an image"):
        read_image(tmp_path / "notes.jpg")
