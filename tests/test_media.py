"""Sound and video against files whose content is known."""
import os
import struct
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from s3dnerf import media
from s3dnerf.errors import InputError
from s3dnerf.media import (CONTAINERS, VideoWriter, check_file, check_output, is_silent, read_frames,
                           read_image, read_sound, video_info)

CODECS = {"wav": "pcm_s16le", "flac": "flac", "mp3": "libmp3lame", "m4a": "aac"}


def save_sound(path, sound, rate, codec=None, start=0):
    """Writes [channels, N] float32; returns the path."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(sound)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec or CODECS[path.suffix[1:]], rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound, np.float32), format="fltp", layout=layout)
        frame.rate, frame.pts = rate, start
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def save_video(path, frames, times, sound=None, fps=25):
    """Writes frames shown at times in milliseconds, and (seconds of its beginning, [N] at 16 kHz) of sound.

    `fps` is only what the file says of itself.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv444p"
        stream.options = {"crf": "5", "preset": "ultrafast"}
        track = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for frame, time in zip(frames, times):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = time
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if sound:
            chunk = av.AudioFrame.from_ndarray(sound[1][None].astype(np.float32), format="fltp", layout="mono")
            chunk.rate, chunk.pts = 16000, round(sound[0] * 16000)
            container.mux(track.encode(chunk))
            container.mux(track.encode(None))
    return path


def grey(value, height=32, width=48):
    return np.full((height, width, 3), value, np.uint8)


def sine(hertz, seconds, rate):
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def click(at, seconds, rate=16000):
    """Silence with 10 ms of noise-free click centred on a time."""
    sound = np.zeros(round(seconds * rate), np.float32)
    first, length = round((at - 0.005) * rate), round(0.01 * rate)
    sound[first:first + length] = np.hanning(length)
    return sound


def heard_at(sound):
    return np.abs(sound).argmax() / 16000


# --- files -----------------------------------------------------------------------------------------------------------


def test_files_that_cannot_be_read_are_named_with_what_is_wrong(tmp_path):
    (tmp_path / "empty.wav").touch()
    for path, words in ((tmp_path / "none.wav", "check the path"), (tmp_path, "is a folder"),
                        (tmp_path / "empty.wav", "is empty"), ("a" * 300, "check the path"), ("a\0b", "check the path")):
        with pytest.raises(InputError, match=words):
            check_file(path, "recording")


def test_a_file_without_permission_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "secret.jpg"
    path.write_bytes(b"x")
    monkeypatch.setattr(media.os, "access", lambda path, mode: False)  # a mode of 000 stops nobody who is root
    with pytest.raises(InputError, match="permissions"):
        read_image(path)


# --- sound -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", CODECS)
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_sines_keep_pitch_loudness_and_length(tmp_path, ending, rate, channels):
    wave = 0.5 * sine(440, 1, rate)[None].repeat(channels, 0)
    sound = read_sound(save_sound(tmp_path / f"tone.{ending}", wave, rate))
    assert sound.dtype == np.float32 and sound.ndim == 1
    assert 16000 <= len(sound) < 16000 + 1024 * 16000 / rate + 1  # aac fills up its last block
    middle = sound[4000:12000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(8000)))
    assert abs(spectrum.argmax() * 2 - 440) <= 2
    assert (spectrum[210:231] ** 2).sum() > 0.95 * (spectrum ** 2).sum()
    assert abs(np.sqrt((middle ** 2).mean()) - 0.5 / 2 ** 0.5) < 0.03


def test_the_length_of_sound_is_what_the_container_says_whatever_memory_held_before(tmp_path):
    """What is freed is overwritten in other processes, so that whoever reads it is found out."""
    path = tmp_path / "tone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(0.5 * sine(440, 20 * 1024 / 16000, 16000)[None], format="fltp", layout="mono")
        frame.rate, frame.pts = 16000, 0
        *packets, last = [*stream.encode(frame), *stream.encode(None)]
        last.duration = 512  # the rest fills it up
        for packet in (*packets, last):
            container.mux(packet)
    words = "import sys; from s3dnerf.media import read_sound; print(len(read_sound(sys.argv[1])))"
    for byte in ("85", "170"):
        told = subprocess.run([sys.executable, "-c", words, str(path)], env=os.environ | {"MALLOC_PERTURB_": byte},
                              capture_output=True, text=True, check=True).stdout
        assert abs(int(told) - (20 * 1024 - 512)) <= 16 and len(read_sound(path)) == int(told)


@pytest.mark.parametrize("ending, tolerance", [("wav", 1e-3), ("flac", 1e-3), ("mp3", 2e-3), ("m4a", 2e-3)])
def test_codecs_do_not_shift_the_sound(tmp_path, ending, tolerance):
    for rate in (16000, 44100):
        path = save_sound(tmp_path / f"{rate}.{ending}", click(0.3, 1, rate)[None], rate)
        assert abs(heard_at(read_sound(path)) - 0.3) < tolerance


def test_samples_of_a_16_khz_recording_come_through_unchanged(tmp_path):
    wave = np.random.default_rng(0).uniform(-1, 1, 5000).astype(np.float32)
    assert np.array_equal(read_sound(save_sound(tmp_path / "x.wav", wave[None], 16000, "pcm_f32le")), wave)


def test_full_scale_stays_within_one(tmp_path):
    loud = sine(300, 0.5, 44100)
    stereo = read_sound(save_sound(tmp_path / "stereo.wav", np.stack([loud, loud]), 44100))
    assert 0.98 < np.abs(stereo).max() <= 1 and np.sqrt((stereo ** 2).mean()) == pytest.approx(0.5 ** 0.5, abs=0.01)
    one_side = read_sound(save_sound(tmp_path / "left.wav", np.stack([loud, 0 * loud]), 44100))
    assert np.abs(one_side).max() == pytest.approx(0.5, abs=0.02)
    beyond = read_sound(save_sound(tmp_path / "beyond.wav", 3 * loud[None], 44100, "pcm_f32le"))
    surround = read_sound(save_sound(tmp_path / "surround.wav", np.stack([loud] * 6), 44100))
    assert np.abs(beyond).max() == np.abs(surround).max() == 1


def test_unusable_recordings_say_why(tmp_path):
    silence = save_sound(tmp_path / "silent.wav", np.zeros((1, 8000)), 16000)
    short = save_sound(tmp_path / "short.wav", np.zeros((1, 3000)), 16000)
    (tmp_path / "notes.wav").write_text("not a recording\n" * 20)
    mute = save_video(tmp_path / "mute.mp4", [grey(9)] * 5, range(0, 200, 40))
    for value in (np.nan, np.inf, -np.inf):
        wave = np.zeros((2, 8000), np.float32)
        wave[0, 600] = value
        with pytest.raises(InputError, match="no numbers"):
            read_sound(save_sound(tmp_path / "nan.wav", wave, 44100, "pcm_f32le"))
    assert not read_sound(silence).any() and is_silent(read_sound(silence))
    with pytest.raises(InputError, match="is silent"):
        read_sound(silence, allow_silence=False)
    for path, words in ((short, r"lasts 0\.19 s; expected at least 0\.2"), (tmp_path / "notes.wav", "not a recording"),
                        (mute, "no sound track")):
        with pytest.raises(InputError, match=words):
            read_sound(path)


def test_a_recording_that_breaks_off_keeps_its_beginning(tmp_path):
    whole = save_sound(tmp_path / "whole.mp3", 0.5 * sine(440, 2, 44100)[None], 44100)
    (tmp_path / "part.mp3").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    sound = read_sound(tmp_path / "part.mp3")
    assert 0.8 * 16000 < len(sound) < 1.2 * 16000
    assert np.sqrt((sound[4000:10000] ** 2).mean()) == pytest.approx(0.5 / 2 ** 0.5, abs=0.03)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("picture, sound", [(0, 0), (0, 0.24), (0.2, 0)])
def test_sample_0_is_frame_0_whichever_starts_first(tmp_path, ending, picture, sound):
    """Flash and click at second 0.6 of the file; time is counted from the first picture."""
    times = [round(1000 * picture) + 40 * k for k in range(25)]
    frames = [grey(250 if time == 600 else 10) for time in times]
    path = save_video(tmp_path / f"x.{ending}", frames, times, (sound, click(0.6 - sound, 1)))
    flash = int(np.argmax([frame.mean() for frame in read_frames(path)]))
    assert flash == round((0.6 - picture) * 25)
    assert abs(heard_at(read_sound(path)) - flash / 25) < 0.003


# --- video -----------------------------------------------------------------------------------------------------------


def shown(path):
    """The numbers of the source frames that are seen, told by their brightness."""
    return [round((frame.mean() - 4) / 4) for frame in read_frames(path)]


@pytest.mark.parametrize("fps", [12, 24, 25, 29.97, 30, 50, 60])
def test_rates_are_converted_by_time(tmp_path, fps):
    times = [round(1000 * k / fps) for k in range(60)]
    path = save_video(tmp_path / "x.mkv", [grey(4 + 4 * k) for k in range(60)], times, fps=fps)
    found = shown(path)
    due = [max(k for k in range(60) if times[k] <= 40 * n + 20) for n in range(len(found))]
    assert found == due
    assert abs(len(found) / 25 - 60 / fps) <= 0.04


def test_variable_rates_become_constant(tmp_path):
    draw = np.random.default_rng(0)
    times = np.concatenate([[0], np.cumsum(draw.choice([11, 33, 47, 90, 200], 50))])
    path = save_video(tmp_path / "x.mkv", [grey(4 + 4 * k) for k in range(51)], times.tolist(), fps=15)
    found = shown(path)
    assert found == [int(np.searchsorted(times, 40 * n + 20, "right")) - 1 for n in range(len(found))]
    assert times[-1] - 20 < len(found) * 40 < times[-1] + 150  # the last picture has no end; it stays for about 1 / 15 s


def turn(path, degrees):
    """Sets the display matrix of an mp4's picture to a clockwise turn, as telephones do."""
    a, b = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44
    fixed = lambda x: x * 65536
    content[place:place + 36] = struct.pack(">9i", fixed(a), fixed(b), 0, fixed(-b), fixed(a), 0, 0, 0, 1 << 30)
    path.write_bytes(content)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_videos_are_upright(tmp_path, degrees):
    frame = grey(0)
    frame[:16, :24], frame[:16, 24:], frame[16:, :24], frame[16:, 24:] = 30, 90, 150, 210
    path = save_video(tmp_path / "phone.mp4", [frame] * 5, range(0, 200, 40))
    assert np.abs(next(read_frames(path)).astype(int) - frame).mean() < 4
    turn(path, degrees)
    expected = np.rot90(frame, -degrees // 90)
    found = next(read_frames(path))
    assert found.shape == expected.shape and np.abs(found.astype(int) - expected).mean() < 4
    info = video_info(path)
    assert (info.height, info.width) == expected.shape[:2]


def test_video_info(tmp_path):
    frames = [grey(9)] * 30
    info = video_info(save_video(tmp_path / "x.mp4", frames, range(0, 1200, 40), (0, click(0.5, 1.2))))
    assert (info.width, info.height, info.has_sound) == (48, 32, True)
    assert info.fps == pytest.approx(25, abs=0.9) and info.seconds == pytest.approx(1.2, abs=0.05)
    assert not video_info(save_video(tmp_path / "y.mp4", frames, range(0, 1200, 40))).has_sound


def test_unusable_videos_say_why(tmp_path):
    (tmp_path / "notes.mp4").write_text("not a video\n" * 20)
    sound = save_sound(tmp_path / "x.m4a", click(0.3, 1)[None], 16000)
    whole = save_video(tmp_path / "whole.mp4", [grey(9)] * 30, range(0, 1200, 40))
    (tmp_path / "part.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])  # its index is at the end
    for read in (lambda path: next(read_frames(path)), video_info):
        for path, words in ((tmp_path / "notes.mp4", "not a video"), (sound, "has no picture"),
                            (tmp_path / "part.mp4", "not a video|damaged"), (tmp_path / "none.mp4", "check the path")):
            with pytest.raises(InputError, match=words) as caught:
                read(path)
            assert "\n" not in str(caught.value)


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", CONTAINERS)
def test_what_is_written_comes_back_in_step(tmp_path, ending):
    """Flash in frame 30, click in its middle, in a size that is odd both ways."""
    draw = np.random.default_rng(0)
    texture = np.kron(draw.integers(60, 190, (5, 7, 3)), np.ones((9, 9, 1))).astype(np.uint8)  # 45 x 63
    path = tmp_path / f"out{ending}"
    with VideoWriter(path, 63, 45, sound=click(30.5 / 25, 2)) as writer:
        for k in range(50):
            writer.write(np.full_like(texture, 255) if k == 30 else texture)
    frames = list(read_frames(path))
    assert len(frames) == 50 and frames[0].shape == (46, 64, 3)
    assert int(np.argmax([frame.mean() for frame in frames])) == 30
    assert abs(heard_at(read_sound(path)) - 30.5 / 25) < 0.003
    assert np.abs(frames[5][:45, :63].astype(int) - texture).mean() < 6  # colour has half the pixels: tiles of 9 lose their edges
    assert np.abs(frames[5][45].astype(int) - frames[5][44]).mean() < 3  # the last row, once more
    assert np.abs(frames[5][:, 63].astype(int) - frames[5][:, 62]).mean() < 3
    assert os.listdir(tmp_path) == [path.name]


def test_colours_survive(tmp_path):
    colours = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (0, 0, 0), (255, 255, 255), (224, 172, 140)]
    with VideoWriter(tmp_path / "x.mp4", 96, 64) as writer:
        for colour in colours:
            writer.write(np.full((64, 96, 3), colour, np.uint8))
    change = np.array([frame.astype(float) - colour for frame, colour in zip(read_frames(tmp_path / "x.mp4"), colours, strict=True)])
    assert np.abs(change).max() <= 2
    assert np.abs(change.mean((0, 1, 2))).max() < 0.7  # swscale's quick way: 1
    import cv2

    naive = cv2.VideoCapture(str(tmp_path / "x.mp4"))
    for colour in colours:
        assert np.abs(naive.read()[1][..., ::-1].astype(int) - colour).max() <= 4
    assert not video_info(tmp_path / "x.mp4").has_sound


@pytest.mark.parametrize("frames, samples", [(10, 32000), (63, 16000), (25, 16000), (1, 100)])
def test_sound_is_as_long_as_the_frames(tmp_path, frames, samples):
    wave = 0.5 * sine(500, samples / 16000, 16000)
    with VideoWriter(tmp_path / "x.mp4", 16, 16, sound=wave) as writer:
        for _ in range(frames):
            writer.write(grey(9, 16, 16))
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert container.streams.video[0].frames == frames
        audio = container.streams.audio[0]
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio)])
        assert audio.profile == "LC" and container.streams.video[0].codec_context.name == "h264"
        seconds = float(audio.duration * audio.time_base)
    assert frames / 25 <= seconds + 1e-6 and len(heard) - frames * 640 < 1024  # aac comes in blocks of 1024
    length = min(samples, frames * 640)
    assert np.abs(heard[length + 600:]).max(initial=0) < 0.02  # what is added is silent
    if length > 6000:
        assert np.abs(heard[2000:length - 2000] - wave[2000:length - 2000]).max() < 0.05


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("written", [0, 1, 60])
def test_an_interrupted_writer_leaves_what_was_there(tmp_path, error, written):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"the video of yesterday")
    with pytest.raises(error):
        with VideoWriter(path, 32, 32, sound=sine(300, 3, 16000)) as writer:
            for _ in range(written):
                writer.write(grey(9, 32, 32))
            raise error
    assert os.listdir(tmp_path) == ["out.mp4"] and path.read_bytes() == b"the video of yesterday"


def test_a_writer_without_frames_writes_nothing(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", 32, 32):
        pass
    assert os.listdir(tmp_path) == []


def test_a_writer_that_cannot_finish_leaves_nothing(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(media.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        with VideoWriter(tmp_path / "out.mp4", 32, 32) as writer:
            writer.write(grey(9, 32, 32))
    assert os.listdir(tmp_path) == []


def test_outputs_that_cannot_be_written_are_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "folder.mp4").mkdir()
    for path, words in ((tmp_path / "x.avi", "ends in .mp4"), (tmp_path / "x", "ends in"),
                        (tmp_path / "none" / "x.mp4", "make it first"), (tmp_path / "folder.mp4", "is a folder"),
                        (tmp_path / ("a" * 300 + ".mp4"), "shorter name"), (tmp_path / ("a" * 300) / "x.mp4", "no folder")):
        with pytest.raises(InputError, match=words):
            VideoWriter(path, 32, 32)

    def denied(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(media.tempfile, "TemporaryFile", denied)  # a mode of 500 stops nobody who is root
    with pytest.raises(InputError, match="cannot write into"):
        check_output(tmp_path / "x.mp4")
    assert os.listdir(tmp_path) == ["folder.mp4"]


def test_names_up_to_the_limit_and_capital_endings_are_fine(tmp_path):
    for name in ("a" * 251 + ".mp4", "UPPER.MP4"):
        with VideoWriter(tmp_path / name, 32, 32) as writer:
            writer.write(grey(9, 32, 32))
        assert video_info(tmp_path / name).width == 32
