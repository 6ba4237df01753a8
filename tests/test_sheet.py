"""Contact sheets: the right frames, the photo, a whole file."""
import numpy as np
from PIL import Image

from s3dnerf.sheet import CELL, ContactSheet


def test_evenly_spaced_frames_and_the_photo_are_on_it(tmp_path):
    photo = np.full((100, 80, 3), (255, 0, 0), np.uint8)
    sheet = ContactSheet(photo, 23)
    for index in range(23):
        sheet.add(index, np.full((100, 80, 3), (0, 10 * index, 255), np.uint8))
    assert sorted(sheet.cells) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]
    sheet.write(tmp_path / "sheet.png")
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert (pixels[CELL, 50] == (255, 0, 0)).all()
    for index in sheet.cells:
        assert (pixels == (0, 10 * index, 255)).all(-1).sum() > 0.9 * CELL * CELL * 0.8


def test_short_videos_have_short_sheets():
    sheet = ContactSheet(np.zeros((50, 50, 3), np.uint8), 2)
    for index in range(2):
        sheet.add(index, np.zeros((50, 50, 3), np.uint8))
    assert sheet.image().width < 2 * CELL + 2 * CELL


def test_only_the_region_is_shown():
    frame = np.zeros((100, 100, 3), np.uint8)
    frame[10:30, 40:80] = (200, 100, 50)
    sheet = ContactSheet(frame, 1, (slice(10, 30), slice(40, 80)))
    sheet.add(0, frame)
    cell = np.asarray(sheet.cells[0])
    assert cell.shape == (CELL // 2, CELL, 3) and (cell == (200, 100, 50)).all()


def test_without_a_photo_there_are_frames_alone():
    sheet, with_photo = (ContactSheet(photo, 4) for photo in (None, np.full((100, 100, 3), 9, np.uint8)))
    for index in range(4):
        for page in (sheet, with_photo):
            page.add(index, np.full((100, 100, 3), (200, 100, 50), np.uint8))
    pixels = np.asarray(sheet.image())
    assert sheet.image().width < with_photo.image().width - 2 * CELL
    assert (pixels[10:CELL, 10:CELL] == (200, 100, 50)).all()
