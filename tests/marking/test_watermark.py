"""The watermark: what it changes, that it is found after compression, a crop and resizing, and never where it is not."""
from dataclasses import replace
from importlib.resources import files

import cv2
import numpy as np
import pytest

from s3dnerf.marking import watermark
from s3dnerf.marking.trace import LEAST_SCORE, LEAST_SYNC, Trace, average_luma, correlation, find, folded, read, trace, white
from s3dnerf.marking.watermark import (BITS, LOUDEST, PERIOD, STEP, STRENGTH, SYMBOLS, Watermark, decode, encode, frequencies,
                                       patterns, tile)
from s3dnerf.media import VideoWriter, read_frames, read_image

TAG = 0x9E3779B9
FIRST_PHASES = 0.455673 + 0.890147j, -0.663275 + 0.748375j, -0.582508 - 0.812825j
FIRST_PLACES = [796, 6828, 1236, 600, 7424, 8264]


@pytest.fixture(scope="module")
def photo():
    return read_image(files("s3dnerf") / "assets" / "demo_photo.jpg")


@pytest.fixture(scope="module")
def clip(photo):
    """A second of a face of 256 pixels that sways."""
    return [photo[10 + k % 3:266 + k % 3, 90 + k // 4:346 + k // 4] for k in range(25)]


def marked(frames, tag=TAG):
    mark = Watermark(tag, frames[0].shape[1], frames[0].shape[0])
    return [mark.frame(frame) for frame in frames]


def test_the_face_is_spared_and_the_mark_found_all_the_same(clip, tmp_path):
    whole, spared = Watermark(TAG, 256, 256), Watermark(TAG, 256, 256, (slice(0, 256), slice(0, 256)))
    face, corner = (slice(100, 180), slice(90, 166)), (slice(0, 40), slice(0, 40))
    loud = lambda mark, part: np.abs(mark.frame(clip[0])[part].astype(int) - clip[0][part]).mean()
    assert loud(spared, face) < 0.6 * loud(whole, face) and loud(spared, corner) > 1.1 * loud(whole, corner)
    frames = [spared.frame(frame) for frame in clip]
    assert find(average_luma(compressed(frames, tmp_path, crop=(26, 0, 0, 26)))).tag == TAG
    assert decibels(frames, clip) > 40


def compressed(frames, folder, crf=28, crop=(0, 0, 0, 0)):
    """Frames that were cut (top, bottom, left, right) and went through x264."""
    top, bottom, left, right = crop
    height, width = frames[0].shape[:2]
    path = folder / "again.mp4"
    with VideoWriter(path, width - left - right, height - top - bottom, crf=crf, preset="medium") as writer:
        for frame in frames:
            writer.write(frame[top:height - bottom, left:width - right])
    return read_frames(path)


def decibels(a, b):
    return 10 * np.log10(255 ** 2 / np.mean((np.stack(a).astype(float) - np.stack(b)) ** 2))


@pytest.mark.parametrize("tag", [0, 1, TAG, 2 ** 32 - 1])
def test_tags_come_back_and_wrong_symbols_do_not_pass(tag):
    symbols = encode(tag)
    assert len(symbols) == SYMBOLS and all(0 <= symbol < 1 << BITS for symbol in symbols) and decode(symbols) == tag
    for place in range(SYMBOLS):
        assert all(decode([*symbols[:place], symbols[place] ^ flip, *symbols[place + 1:]]) is None for flip in range(1, 1 << BITS))


def test_few_words_by_chance_hold():
    """Format and check bits let one of 2 ** 18 through."""
    words = np.random.RandomState(1).randint(0, 1 << BITS, (200_000, SYMBOLS)).tolist()
    assert sum(decode(word) is not None for word in words) <= 6  # 0.76 expected


def test_patterns_share_no_frequency_and_stay_as_they_are():
    places = np.concatenate(patterns().places)
    assert len(places) == len(set(places.tolist()))
    assert np.abs(patterns().phases[:3].round(6) - np.array(FIRST_PHASES)).max() < 2e-6, "videos of the past would not be found"
    assert [int(one[0]) for one in patterns().places] == FIRST_PLACES


def test_a_symbol_is_a_shift_of_its_pattern_alone():
    picture = tile(TAG)
    assert picture.shape == (PERIOD, PERIOD) and abs(picture.mean()) < 1e-4 and picture.std() == pytest.approx(STRENGTH, rel=1e-4)
    spectrum = np.fft.rfft2(picture)
    for index, symbol in enumerate([0, *encode(TAG)]):
        surface = correlation(spectrum, index)
        assert np.unravel_index(surface.argmax(), surface.shape) == (STEP * (symbol // 32), STEP * (symbol % 32))
    other = np.fft.rfft2(tile(TAG ^ 1 << 31))  # the first two symbols hold the highest bits, the last the check
    same = [np.allclose(correlation(spectrum, index), correlation(other, index), atol=1e-3) for index in range(SYMBOLS + 1)]
    assert same[0] and not all(same[1:])


def test_colour_stays_and_frames_know_nothing_of_each_other(photo):
    mark = Watermark(TAG, 512, 512)
    middle = np.full((512, 512, 3), (90, 120, 150), np.uint8)
    change = mark.frame(middle).astype(int) - middle
    assert change.any() and (change == change[..., :1]).all() and abs(change.mean()) < 0.05
    first = mark.frame(photo)
    mark.frame(middle)
    assert np.array_equal(mark.frame(photo), first) and np.array_equal(Watermark(TAG, 512, 512).frame(photo), first)
    dark = mark.frame(np.zeros((512, 512, 3), np.uint8))
    assert dark.max() < 10, "no wrapping at the ends of the range"


@pytest.mark.parametrize("size", [(256, 256), (512, 512), (360, 640)])
def test_the_change_is_above_40_decibels_and_greater_in_texture(photo, size):
    pictures = [cv2.resize(photo, size[::-1]), np.random.RandomState(0).randint(0, 256, (*size, 3)).astype(np.uint8),
                np.full((*size, 3), 128, np.uint8)]
    found = [decibels([picture], marked([picture])) for picture in pictures]
    assert min(found) > 40.5 and found[1] < found[0] < found[2]
    assert decibels([pictures[1]], marked([pictures[1]])) >= 20 * np.log10(255 / LOUDEST) - 0.3


@pytest.mark.parametrize("crop", [(26, 0, 0, 26), (0, 26, 26, 0), (7, 19, 13, 13)])
def test_it_survives_compression_and_a_crop_anywhere(clip, tmp_path, crop):
    found = find(average_luma(compressed(marked(clip), tmp_path, crop=crop)))
    assert found.found and found.tag == TAG and found.size == 1 and found.score > LEAST_SCORE + 2


def test_nothing_is_found_where_nothing_is(clip, photo, tmp_path):
    for frames in (compressed(clip, tmp_path), [photo], [np.full((256, 256, 3), 128, np.uint8)],
                   [np.random.RandomState(2).randint(0, 256, (256, 256, 3)).astype(np.uint8)]):
        found = find(average_luma(frames))
        assert not found.found and found.tag is None and found.sync < LEAST_SYNC - 1 and found.score < LEAST_SCORE + 0.5


@pytest.mark.parametrize("size", [0.5, 0.75, 1.5])
def test_it_is_found_at_another_size(photo, size):
    luma, = average_luma(marked([photo]))
    found = find([cv2.resize(luma, None, fx=size, fy=size, interpolation=cv2.INTER_AREA if size < 1 else cv2.INTER_CUBIC)])
    assert found.found and found.tag == TAG and found.size == pytest.approx(size, rel=0.01)


def test_other_peoples_patterns_are_not_ours(photo, monkeypatch):
    monkeypatch.setattr(watermark, "SEED", watermark.SEED + 1)
    patterns.cache_clear()
    theirs = marked([photo])
    monkeypatch.undo()
    patterns.cache_clear()
    assert not trace(*average_luma(theirs)).found and trace(*average_luma(marked([photo]))).found


def test_frames_add_up_and_the_first_ones_count_for_themselves(photo, clip, tmp_path):
    """Where only noise moves, more frames make the mark clearer; where all moves, prediction drags the mark along."""
    noise = np.random.RandomState(4)
    still = [np.clip(photo[:256, 128:384] + noise.normal(0, 12, (256, 256, 3)), 0, 255).astype(np.uint8) for _ in range(12)]
    many, few = (trace(mean) for mean in average_luma(marked(still)))
    assert many.score > few.score + 1
    many, few = (trace(mean) for mean in average_luma(compressed(marked(clip), tmp_path)))
    assert few.score > many.score + 1


def test_one_weak_symbol_is_mended_and_no_more():
    symbols = encode(TAG)
    surfaces = [np.zeros(1 << BITS) for _ in symbols]
    for surface, symbol in zip(surfaces, symbols):
        surface[symbol] = 5
    assert read(surfaces) == TAG
    surfaces[2][(symbols[2] + 7) % 1024] = 6
    assert read(surfaces) == TAG
    surfaces[4][(symbols[4] + 7) % 1024] = 6
    assert read(surfaces) is None


def test_a_mark_is_found_by_its_score_with_bits_or_its_first_pattern_alone():
    base = Trace(None, 0.0, 0.0, 1.0)
    assert replace(base, tag=1, score=LEAST_SCORE + 0.1).found and not replace(base, tag=1, score=LEAST_SCORE - 0.1).found
    assert replace(base, sync=LEAST_SYNC + 0.1).found and not replace(base, score=LEAST_SCORE + 9).found


def test_folding_adds_tiles_and_whitening_evens_power():
    one = np.random.RandomState(3).normal(size=(PERIOD, PERIOD))
    np.testing.assert_allclose(folded(np.tile(one, (2, 3))), one * 6 / 6 ** 0.5, atol=1e-5)
    part = folded(np.tile(one, (2, 2))[:200, :130])
    np.testing.assert_allclose(part[:72, 2:], one[:72, 2:] * 2 ** 0.5, atol=1e-5)
    rows, columns = frequencies()
    steep = np.fft.rfft2(one) / (1 + np.hypot(rows, columns)) ** 2
    power = np.abs(white(steep)) ** 2
    assert 0.7 < power[:20, :20].mean() / power[40:60, 30:60].mean() < 1.4
