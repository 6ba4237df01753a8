"""Samples come back from their files as they went in."""
import io
import json
import tarfile

import numpy as np
import pytest

from s3dnerf.data import shards as module
from s3dnerf.data.shards import (KEY_FRAME_EVERY, TrackedClip, decode_sample, decode_video, decode_wav, encode_sample,
                                 encode_video, encode_wav, read_people, stored_clips, write_people, write_shards,
                                 write_whole)
from s3dnerf.errors import DatasetError
from s3dnerf.media import SAMPLES_PER_FRAME, log_mel

COUNT, SIZE = 40, 64


def make(key="ann-000", count=COUNT, size=SIZE, seed=0, **changes):
    """A clip whose every frame differs from every other: a smooth picture under a bar that moves and brightens."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    frames = np.stack([np.stack([120 + 80 * np.sin(4 * x + k / 9), 100 + 60 * y, 90 + k * 2 + 0 * x], -1)
                       for k in range(count)]).astype(np.uint8)
    for k in range(count):
        frames[k, :, k % size] = 255
    values = dict(
        key=key, frames=frames, speech=draw.uniform(-0.9, 0.9, count * SAMPLES_PER_FRAME).astype(np.float32),
        cameras=draw.normal(size=(count, 25)).astype(np.float32), landmarks=draw.uniform(0, size, (count, 68, 2)).astype("f"),
        mesh=draw.normal(size=(count, 478, 3)).astype(np.float32), masks=draw.random((count, 3, size // 4, size // 4)) > 0.5,
        background=frames[0], info={"person": "ann", "clip": key, "emotion": None, "score": 1.5, "name": "Zoë"})
    return TrackedClip(**(values | changes))


@pytest.fixture(scope="module")
def clip():
    return make()


@pytest.fixture(scope="module")
def fields(clip):
    return encode_sample(clip)


def psnr(first, second):
    return 10 * np.log10(255 ** 2 / np.mean((first.astype(float) - second) ** 2))


def test_everything_comes_back(clip, fields):
    back = decode_sample(fields)
    assert np.array_equal(back.cameras, clip.cameras) and np.array_equal(back.landmarks, clip.landmarks)
    assert np.array_equal(back.mesh, clip.mesh) and np.array_equal(back.masks, clip.masks)
    assert back.masks.dtype == bool and back.key == "ann-000"
    assert np.abs(back.speech - clip.speech).max() <= 0.5 / 32767 + 1e-7
    assert back.frames.shape == clip.frames.shape and back.frames.dtype == np.uint8
    assert min(psnr(a, b) for a, b in zip(back.frames, clip.frames)) > 35
    assert psnr(back.background, clip.background) > 30
    assert clip.info.items() <= back.info.items()
    assert (back.info["fps"], back.info["n_frames"], back.info["size"], back.info["version"]) == (25, COUNT, SIZE, 1)


def test_mel_is_that_of_the_speech(clip, fields):
    mel = np.load(io.BytesIO(fields["mel.npy"]))
    assert mel.dtype == np.float16 and np.abs(mel - log_mel(clip.speech).numpy()).max() < 4 / 2 ** 10


def test_encoding_is_the_same_every_time(clip, fields):
    assert encode_sample(clip) == fields


@pytest.mark.parametrize("size", [62, 66, 100])
def test_sizes_that_are_no_multiples_of_sixteen(size):
    back = decode_sample(encode_sample(make(count=3, size=size)))
    assert back.frames.shape == (3, size, size, 3) and back.masks.shape == (3, 3, size // 4, size // 4)
    assert np.array_equal(back.masks, make(count=3, size=size).masks)


@pytest.mark.parametrize("chosen", [[0], [39], [11, 12, 13], [5, 25, 38], [38, 25, 5], [7, 7, 30, 7], [12, 24, 36], [23],
                                    range(3, 40, 9), np.array([2, 31])])
def test_some_frames_are_those_of_all(fields, chosen):
    whole = decode_sample(fields)
    part = decode_sample(fields, chosen)
    assert np.array_equal(part.frames, whole.frames[list(chosen)])
    assert len(part.mesh) == len(part.cameras) == len(part.masks) == COUNT and len(part.speech) == COUNT * 640


def test_no_frames_may_be_asked_for(fields):
    assert decode_sample(fields, ()).frames.shape == (0, SIZE, SIZE, 3)


def test_every_subset_of_a_long_clip_is_found():
    movie, draw = encode_video(make(count=110).frames), np.random.default_rng(1)
    whole = decode_video(movie, range(110), SIZE)
    for _ in range(25):
        chosen = draw.choice(110, draw.integers(1, 6), replace=False).tolist()
        assert np.array_equal(decode_video(movie, chosen, SIZE), whole[chosen])


def test_key_frames_are_where_seeking_expects_them(fields):
    import av

    with av.open(io.BytesIO(fields["mp4"])) as container:
        keys = [k for k, frame in enumerate(container.decode(video=0)) if frame.key_frame]
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.codec_context.pix_fmt) == (25, "yuv444p")
    assert keys == list(range(0, COUNT, KEY_FRAME_EVERY))


def test_a_frame_beyond_the_end_is_an_error(fields):
    with pytest.raises(DatasetError, match="expected frame 40"):
        decode_sample(fields, [40])


def test_through_webdataset(tmp_path):
    import webdataset

    clips = [make(f"ann-{k:03d}", count=5, size=32, seed=k) for k in range(5)]
    paths = write_shards(((clip.key, encode_sample(clip)) for clip in clips), tmp_path / "train", "train", 2)
    assert [path.name for path in paths] == ["train-000000.tar", "train-000001.tar", "train-000002.tar"]
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == [path.name for path in paths]
    samples = list(webdataset.WebDataset([str(path) for path in paths], shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [clip.key for clip in clips]
    for sample, clip in zip(samples, clips):
        back = decode_sample(sample)
        assert back.key == clip.key and np.array_equal(back.mesh, clip.mesh) and np.array_equal(back.masks, clip.masks)
        assert np.array_equal(back.frames, decode_sample(encode_sample(clip)).frames)


def test_clips_are_read_by_their_place(tmp_path):
    clips = [make(f"ann-{k:03d}", count=5, size=32, seed=k) for k in range(3)]
    fields = [encode_sample(clip) for clip in clips]
    stored = stored_clips(write_shards(zip((clip.key for clip in clips), fields), tmp_path, "some", 2))
    assert [clip.key for clip in stored] == [clip.key for clip in clips] and stored[0].info["n_frames"] == 5
    assert [clip.read() for clip in stored] == [{"__key__": clip.key} | found for clip, found in zip(clips, fields)]
    part = stored[2].read(leave_out=("mp4", "wav", "bg.jpg", "lmk.npy"))
    assert set(part) == {"__key__", *fields[2]} - {"mp4", "wav", "bg.jpg", "lmk.npy"}
    back = decode_sample(part, ())
    assert np.array_equal(back.mesh, clips[2].mesh) and back.speech.size == back.background.size == back.landmarks.size == 0


def test_frames_that_nobody_asked_for_are_not_looked_at(fields):
    """The second half of the pictures is destroyed; the first frames come all the same."""
    movie = fields["mp4"]
    data = movie.index(b"mdat")
    spoilt = movie[:data + len(movie) // 2] + bytes(2000) + movie[data + len(movie) // 2 + 2000:]
    whole = decode_video(movie, range(COUNT), SIZE)
    assert np.array_equal(decode_video(spoilt, range(6), SIZE), whole[:6])
    try:
        assert not np.array_equal(decode_video(spoilt, range(COUNT), SIZE), whole)
    except (DatasetError, OSError, ValueError):
        pass


def test_only_frames_from_a_key_frame_on_are_decoded(fields, monkeypatch):
    import av

    opened, decoded = av.open, []

    class Counted:
        def __init__(self, *words):
            self.container = opened(*words)
            self.streams, self.seek = self.container.streams, self.container.seek

        def __enter__(self):
            return self

        def __exit__(self, *_error):
            self.container.close()

        def decode(self, stream):
            for frame in self.container.decode(stream):
                decoded.append(round(frame.time * 25))
                yield frame

    monkeypatch.setattr(av, "open", Counted)
    decode_video(fields["mp4"], [38, 13], SIZE)
    assert decoded == [12, 13, 36, 37, 38]


def test_shards_hold_no_time_and_no_user(tmp_path, fields):
    paths = [write_shards([("a", fields)], tmp_path / name, "x")[0] for name in ("one", "two")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with tarfile.open(paths[0]) as tar:
        assert {(member.mtime, member.uid, member.uname) for member in tar} == {(0, 0, "")}


def test_a_shard_that_is_not_finished_does_not_appear(tmp_path, fields):
    def broken():
        yield "a", fields
        yield "b", fields
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(broken(), tmp_path, "x", clips_per_shard=1)
    assert [path.name for path in tmp_path.glob("*.tar")] == ["x-000000.tar"]


def test_no_samples_make_no_shards(tmp_path):
    assert write_shards([], tmp_path / "x", "x") == []


WRONG = {"frames": np.zeros((39, 64, 64, 3), np.uint8), "speech": np.zeros(COUNT * 640 - 1, np.float32),
         "cameras": np.zeros((COUNT, 24), np.float32), "landmarks": np.zeros((COUNT, 68, 3), np.float32),
         "mesh": np.zeros((COUNT, 468, 3), np.float32), "masks": np.zeros((COUNT, 2, 16, 16), bool),
         "background": np.zeros((32, 32, 3), np.uint8)}


@pytest.mark.parametrize("name", WRONG)
def test_arrays_that_do_not_belong_together_are_refused(name):
    with pytest.raises(DatasetError, match="found (frames|" + name + ") of shape") as caught:
        encode_sample(make(**{name: WRONG[name]}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["a.b", "a/b", ".a"])
def test_keys_that_would_split_a_sample_are_refused(key):
    with pytest.raises(DatasetError, match="key"):
        encode_sample(make(key=key, count=2))


def test_wav_is_exact_to_half_a_step_and_clips():
    wave = np.array([-2, -1, -0.5, 0, 1e-5, 0.25, 1, 3], np.float32)
    back = decode_wav(encode_wav(wave))
    assert back.dtype == np.float32 and np.abs(back - np.clip(wave, -1, 1)).max() <= 0.5 / 32767 + 1e-7


def test_people_are_means_over_all_their_frames(tmp_path):
    first, second = make(count=3, seed=1).mesh, make(count=7, seed=2).mesh
    write_people({"bea": (second.sum(0), 7), "ann": (first.sum(0) + second.sum(0), 10)}, tmp_path)
    people = read_people(tmp_path)
    assert list(people) == ["ann", "bea"] and people["ann"].dtype == np.float32
    assert np.abs(people["ann"] - np.concatenate([first, second]).mean(0)).max() < 1e-6
    assert np.abs(people["bea"] - second.mean(0)).max() < 1e-6


@pytest.mark.parametrize("folder", [None, "", "nowhere"])
def test_missing_people_are_named(folder):
    with pytest.raises(DatasetError, match="s3dnerf prepare"):
        read_people(folder)


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_whole(path, json.dumps([1]).encode())
    monkeypatch.setattr(module.os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError):
        write_whole(path, b"[2")
    assert json.loads(path.read_text()) == [1]


def test_shards_of_an_earlier_longer_set_do_not_stay(tmp_path):
    samples = [(f"k{index}", {"json": b"{}"}) for index in range(5)]
    assert len(write_shards(samples, tmp_path, "x", 2)) == 3
    other = tmp_path / "x-y.tar"
    other.write_bytes(b"")
    paths = write_shards(samples, tmp_path, "x", 4)
    assert sorted(tmp_path.glob("*.tar")) == sorted([*paths, other]) and len(paths) == 2
