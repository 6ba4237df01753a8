"""Videos of a person as people have them: what can be converted is, and told; what cannot is refused with what to do.

A face is a red square here, and the detector one that looks for red squares; everything else is the real thing.
"""
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from scipy.ndimage import find_objects, label

from s3dnerf.data import recording, tracking
from s3dnerf.data.recording import conversions, read_recording
from s3dnerf.errors import InputError
from s3dnerf.face import metric_face

HEIGHT, WIDTH, SIDE = 96, 192, 32


class RedSquares:
    """Takes the place of `detection.FaceDetector`."""

    pictures = 0

    def __init__(self, still):
        self.still = still

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def faces(self, image):
        RedSquares.pictures += 1
        squares = find_objects(label((image[..., 0] > 150) & (image[..., 1] < 100))[0])
        found = [self.face(*((part.start + part.stop) / 2 for part in square), square[1].stop - square[1].start)
                 for square in squares if square[1].stop - square[1].start > 4]
        return found if self.still else found[:1]

    @staticmethod
    def face(y, x, side):
        points = metric_face() + (0, 0, 12)
        return points[:, :2] / points[:, 2:] * 12 * side * 0.9 + (x, y)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for module in (recording, tracking):
        monkeypatch.setattr(module, "FaceDetector", RedSquares)
    for name, value in (("LEAST", 1.0), ("RECOMMENDED", 1.0), ("LOOK", 5)):
        monkeypatch.setattr(recording, name, value)
    monkeypatch.setattr(RedSquares, "pictures", 0)


def picture(*faces):
    """Faces as (x of the middle, side)."""
    frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for x, side in faces:
        frame[48 - side // 2:48 + side // 2, x - side // 2:x + side // 2] = (220, 30, 30)
    return frame


def film(path, shown, times=None, seconds=None, rate=25):
    """Writes one picture per entry, a place or a list of faces, at times in milliseconds, with a tone of so many seconds."""
    times = times or [round(1000 * k / rate) for k in range(len(shown))]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.height, stream.width, stream.pix_fmt, stream.options = HEIGHT, WIDTH, "yuv444p", {"preset": "ultrafast"}
        track = container.add_stream("aac", rate=16000, layout="mono")
        for faces, time in zip(shown, times):
            faces = [(faces, SIDE)] if isinstance(faces, int) else faces
            frame = av.VideoFrame.from_ndarray(picture(*faces), format="rgb24")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        count = round(16000 * (seconds or (times[-1] / 1000 + 1 / rate)))
        wave = (0.3 * np.sin(np.arange(count) / 9))[None].astype(np.float32)
        tone = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        tone.rate, tone.pts = 16000, 0
        container.mux(track.encode(tone))
        container.mux(track.encode(None))
    return str(path)


def read(tmp_path, shown, **options):
    return read_recording(film(tmp_path / "me.mkv", shown, **options))


def test_a_good_video_is_taken_whole_and_nothing_is_said(tmp_path):
    found = read(tmp_path, [60 + k // 4 for k in range(40)])
    assert (found.first, found.last, found.remarks) == (0, 40, []) and len(found.track.error) == 40
    assert found.seconds == 1.6 and abs(len(found.sound) - 25600) < 1100
    assert abs(found.track.landmarks[36, :, 0].mean() - found.track.landmarks[0, :, 0].mean() - 9) < 1


def test_a_stretch_without_a_face_is_left_out(tmp_path):
    found = read(tmp_path, [60] * 10 + [[]] * 6 + [60] * 34)
    assert (found.first, found.last) == (16, 50) and len(found.track.error) == 34
    assert found.remarks == ["took the longest stretch with a face and without a cut: 1.4 of 2.0 s, from 0.6 s on"]
    found = read(tmp_path, [[]] * 5 + [60] * 14 + [[]] * 3 + [60] * 20 + [[]] * 7)  # three frames are bridged
    assert (found.first, found.last) == (5, 42)


def test_a_face_that_is_often_missing_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"me.mkv has 0.2 s at most .*no face in 25 of 50 frames.*in one take"):
        read(tmp_path, ([60] * 5 + [[]] * 5) * 5)
    with pytest.raises(InputError, match="has 0.0 s at most .*no face in 40 of 40 frames"):
        read(tmp_path, [[]] * 40)


@pytest.mark.parametrize("between", [[], [[], []]], ids=["a cut", "a cut at which the face is lost"])
def test_of_cuts_the_longest_shot_is_taken(tmp_path, between):
    found = read(tmp_path, [50] * 12 + between + [130] * 35 + [60] * 9)
    first = 12 + len(between)
    assert (found.first, found.last) == (first, first + 35) and "longest stretch" in found.remarks[0]
    assert found.track.landmarks[:, :, 0].mean(1).std() < 1


def test_two_people_are_refused_and_small_or_passing_ones_are_not(tmp_path):
    with pytest.raises(InputError, match="two people in 8 of 8 frames looked at.*record one person alone"):
        read(tmp_path, [[(50, SIDE), (130, SIDE)]] * 40)
    assert read(tmp_path, [[(50, SIDE), (130, 12)]] * 40).remarks == []
    passing = read(tmp_path, [[(50, SIDE), (130, SIDE)] if k == 55 else 50 for k in range(60)])
    assert passing.remarks == ["another face in 1 of 12 frames looked at; the one that is there throughout was taken"]
    apart = read(tmp_path, [[(50, SIDE), (130, SIDE)]] * 20 + [[]] * 5 + [50] * 40)  # not in what is learned from
    assert (apart.first, apart.last, len(apart.remarks)) == (25, 65, 1)


def test_a_short_video_is_refused_before_it_is_tracked(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="me.mkv lasts 0.[89] s; expected 1 s or more, better a minute"):
        read(tmp_path, [60] * 20)
    assert RedSquares.pictures == 0
    monkeypatch.setattr(recording, "RECOMMENDED", 2.0)
    assert read(tmp_path, [60] * 28).remarks == ["1 s of speech; a minute or more makes better lips"]


def test_sound_that_ends_early_ends_the_recording(tmp_path):
    found = read(tmp_path, [60] * 60, seconds=1.4)
    assert found.first == 0 and 34 <= found.last <= 36 and len(found.remarks) == 1
    assert found.remarks[0].startswith("the sound ends after 1.4 of 2.4 s")
    with pytest.raises(InputError, match="has sound for 0.6 of 2.4 s; expected 1 s or more"):
        read(tmp_path, [60] * 60, seconds=0.6)


@pytest.mark.parametrize("rate, told", [(25, []), (30, ["30 frames per second, converted to 25"]),
                                        (50, ["50 frames per second, converted to 25"])])
def test_other_rates_are_converted_and_said(tmp_path, rate, told):
    path = film(tmp_path / "me.mkv", [60] * (2 * rate), rate=rate)
    assert conversions(path) == told
    assert abs(read_recording(path).last - 50) <= 1


def test_a_rate_that_varies_is_converted_by_time_and_said(tmp_path):
    draw = np.random.default_rng(0)
    times = np.concatenate([[0], np.cumsum(draw.choice([20, 33, 60], 49))]).tolist()
    path = film(tmp_path / "me.mkv", [60 + k // 2 for k in range(50)], times=times)
    assert conversions(path) == ["the frame rate varies from 17 to 50; converted to 25 by the frames' times"]
    found = read_recording(path)
    shown = [max(k for k in range(50) if times[k] <= 40 * n + 20) for n in range(found.last)]
    drift = found.track.landmarks[:, :, 0].mean(1) - found.track.landmarks[0, :, 0].mean()
    assert np.abs(drift - np.array([k // 2 for k in shown])).max() < 2


def test_a_video_from_a_telephone_is_turned_upright_and_said(tmp_path):
    path = film(tmp_path / "me.mp4", [60] * 40)
    content = bytearray((tmp_path / "me.mp4").read_bytes())
    place = content.index(b"tkhd") + 44
    content[place:place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    (tmp_path / "me.mp4").write_bytes(content)
    found = read_recording(path)
    assert found.remarks == ["the picture is turned by 90 degrees, as the file says"] and found.track.size == (WIDTH, HEIGHT)
    assert abs(found.track.landmarks[0, :, 1].mean() - 60) < 6  # along the turned picture, from its upper edge


def test_a_face_that_is_too_small_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(InputError, match="me.mkv: 1[0-9] pixels between the eyes; .*fills a third"):
        read(tmp_path, [[(60, 16)]] * 40)
