"""A fake HDTF and a fake MEAD, made of synthetic heads in exactly their layouts, from links and folders to shards:
everything that is wrong with them is named, and the rest arrives."""
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from s3dnerf.commands.options import lip_matcher
from s3dnerf.data.download import LinkError, download, read_coverage
from s3dnerf.data.prepare import prepare
from s3dnerf.data.recipe import list_clips
from s3dnerf.data.shards import decode_sample
from s3dnerf.data.synthetic import draw_person, synthetic_clip
from s3dnerf.errors import InputError
from s3dnerf.media import read_frames, read_sound, video_info
from s3dnerf.models.hub import save_model
from s3dnerf.networks.lip_sync import LipSyncDiscriminator

ROOT = Path(__file__).parents[2]
HDTF, MEAD = (ROOT / "datasets" / name / "recipe.yaml" for name in ("hdtf", "mead"))
SIZE = 96


def film(path, frames, fps=25, sound=None, rate=48000):
    """Writes frames and, where there is some, sound at any rates."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width, stream.pix_fmt = (*frames[0].shape[:2], "yuv420p")
        stream.options = {"crf": "10", "preset": "ultrafast"}
        track = container.add_stream("aac", rate=rate, layout="mono") if sound is not None else None
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
        if track:
            say(container, track, sound, rate)


def record(path, sound, rate=48000):
    """Writes sound alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="ipod") as container:
        say(container, container.add_stream("aac", rate=rate, layout="mono"), sound, rate)


def say(container, track, sound, rate):
    times = np.arange(round(len(sound) * rate / 16000)) * 16000 / rate
    wave = np.interp(times, np.arange(len(sound)), sound)[None].astype(np.float32)
    frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
    frame.rate, frame.pts = rate, 0
    container.mux(track.encode(frame))
    container.mux(track.encode(None))


@pytest.fixture(scope="module")
def heads():
    """Frames and speech of two heads: two seconds, and one."""
    clips = []
    for index, seconds in ((0, 2.0), (1, 1.2)):
        draw = np.random.default_rng([7, index])
        clips.append(synthetic_clip(*draw_person(draw), "x", "x-0", seconds, SIZE, draw))
    return clips


def wide(frames, left=100, width=260, height=120):
    """Frames in a larger grey picture."""
    picture = np.full((len(frames), height, width, 3), 120, np.uint8)
    picture[:, height - SIZE:, left:left + SIZE] = frames
    return picture


def reports(folder):
    """Lines of the reports of all splits, by file and piece."""
    lines = {}
    for path in sorted(folder.glob("*/report.tsv")):
        with path.open() as file:
            for line in csv.DictReader(file, delimiter="\t"):
                lines[line["file"], line["piece"]] = line | {"split": path.parent.name}
    return lines


def samples(folder):
    import webdataset

    found = webdataset.WebDataset([str(path) for path in sorted(folder.glob("*/*.tar"))], shardshuffle=False)
    return {sample["__key__"]: decode_sample(sample) for sample in found}


# --- HDTF ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def web(heads, tmp_path_factory):
    """A folder of videos that links point at, and one with the lists."""
    (one, other), web, lists = heads, tmp_path_factory.mktemp("web"), tmp_path_factory.mktemp("lists")
    import cv2

    second = np.roll(wide(other.frames, 20)[..., ::-1], 40, 1)
    film(web / "ann0.mp4", np.concatenate([wide(one.frames)[:25], wide(one.frames)]), sound=np.tile(one.speech, 2))
    film(web / "ann1.mp4", np.repeat(wide(one.frames), 2, 0)[:60], fps=30, sound=one.speech, rate=44100)
    film(web / "mute.mp4", wide(one.frames))
    film(web / "cut.mp4", np.concatenate([wide(one.frames)[:30], second[:20]]), sound=one.speech)
    pair = wide(one.frames)[:25]
    pair[:, 24:, :SIZE] = other.frames[:25]
    film(web / "pair.mp4", pair, sound=one.speech)
    film(web / "soft.mp4", [cv2.GaussianBlur(frame, (0, 0), 2.5) for frame in wide(one.frames)[:25]], sound=one.speech)
    film(web / "short.mp4", wide(one.frames)[:25], sound=one.speech)
    (web / "broken.mp4").write_bytes((web / "cut.mp4").read_bytes()[500:2000])
    tables = {
        "RD_video_url": "Radio1 short.mp4\n", "RD_annotion_time": "Radio1.mp4 00:05-00:07\n",
        "RD_resolution": "Radio1.mp4 120\n",
        "RD_crop_wh": "Radio1_0.mp4 100 96 24 96\n",
        "WDA_video_url": "Ann0 ann0.mp4\nAnn1 ann1.mp4\nGone gone.mp4\nMute mute.mp4\nNobody cut.mp4\n",
        "WDA_annotion_time": "Ann0.mp4 00:01-00:03 00:00-00:01 \nAnn1.mp4 00:00-00:02\nGone.mp4 00:00-00:01 00:01-00:02\n"
                             "Mute.mp4 00:00-00:02\n",
        "WDA_resolution": "Ann0.mp4 240\nAnn1.mp4 120\nGone.mp4 720\nMute.mp4 120\n",
        "WDA_crop_wh": "Ann0_0.mp4 220 160 60 160\nAnn0_1.mp4 220 160 60 160\nGone_0.mp4 0 100 0 100\n",
        "WRA_video_url": "Cut cut.mp4\nEricCantor pair.mp4\nSoft soft.mp4\nBroken broken.mp4\n",
        "WRA_annotion_time": "Cut.mp4 00:00-00:02\nEricCantor.mp4 00:00-00:01\nSoft.mp4 00:00-00:01\n"
                             "Broken.mp4 00:00-00:01\n",
        "WRA_resolution": "Cut.mp4 120\n", "WRA_crop_wh": "Cut_0.mp4 60 140 0 120\n"}
    for name, text in tables.items():
        (lists / f"{name}.txt").write_text(text)
    return web, lists


def taking(web, fetched):
    """Fetches from a folder, and notes what."""
    def fetch(address, folder, height):
        if not (web / address).is_file():
            raise LinkError("Video unavailable. This video has been removed by the uploader")
        fetched.append((address, height))
        return [Path(shutil.copy(web / address, folder))]

    return fetch


@pytest.fixture(scope="module")
def tiny_expert(tmp_path_factory):
    """The bundle of a lip discriminator that has learned nothing."""
    folder = tmp_path_factory.mktemp("expert")
    torch.manual_seed(0)
    save_model(LipSyncDiscriminator(width=8, channels=8, embedding=4), folder, "lip_sync", "lip_sync")
    return str(folder)


@pytest.fixture(scope="module")
def hdtf(web, tiny_expert, tmp_path_factory):
    """The clips that were got, and the shards made of them."""
    raw, data, fetched = tmp_path_factory.mktemp("hdtf"), tmp_path_factory.mktemp("data"), []
    download(HDTF, web[1], raw, taking(web[0], fetched))
    prepare(raw / "manifest.tsv", raw, data, size=64, workers=1, expert=partial(lip_matcher, tiny_expert))
    return raw, data, fetched


def test_the_coverage_names_every_span_and_why_it_is_missing(hdtf):
    raw, _, fetched = hdtf
    got = {one.clip: one for one in read_coverage(raw / "coverage.tsv")}
    status = {name: one.status for name, one in got.items()}
    assert status == {
        "RD_Radio1_000": "too short", "WDA_Ann0_000": "got", "WDA_Ann0_001": "got", "WDA_Ann1_000": "got",
        "WDA_Gone_000": "dead link", "WDA_Gone_001": "dead link", "WDA_Mute_000": "no sound", "WDA_Nobody": "not listed",
        "WRA_Cut_000": "got", "WRA_EricCantor_000": "got", "WRA_Soft_000": "got", "WRA_Broken_000": "unreadable"}
    assert "removed by the uploader" in got["WDA_Gone_001"].reason and got["WDA_Gone_001"].address == "gone.mp4"
    assert "the video ends after 1.0 s; the span begins at 5 s" in got["RD_Radio1_000"].reason
    assert "30 frames per second, converted to 25" in got["WDA_Ann1_000"].remarks
    assert "120 lines; the lists promise 240" in got["WDA_Ann0_000"].remarks
    assert [one.seconds for one in got.values()][:4] == [2, 2, 1, 2]
    assert dict(fetched)["ann0.mp4"] == 240 and not any((raw / ".raw").iterdir())
    assert {path.stem for path in raw.glob("*.mp4")} == {name for name, state in status.items() if state == "got"}


def test_clips_are_cut_at_their_frames_with_their_sound_and_in_their_box(web, hdtf):
    raw = hdtf[0]
    whole, sound = np.stack(list(read_frames(web[0] / "ann0.mp4"))), read_sound(web[0] / "ann0.mp4")
    for name, first, count in (("WDA_Ann0_000", 25, 50), ("WDA_Ann0_001", 0, 25)):
        frames = np.stack(list(read_frames(raw / f"{name}.mp4"))).astype(float)
        # the box 220, 60, 160 x 160 of 240 lines is 110, 30, 80 x 80 of 120, grown 1.8 times and kept inside the picture
        due = whole[first:first + count, :, 78:222].astype(float)
        assert frames.shape == due.shape
        assert np.abs(frames - due).mean() < 3
        heard = read_sound(raw / f"{name}.mp4")
        assert len(heard) == count * 640
        assert np.corrcoef(heard[2000:], sound[first * 640:first * 640 + len(heard)][2000:])[0, 1] > 0.95
    assert np.abs(np.diff(whole[24:27, :, 78:222].astype(float), axis=0)).mean() > 0.5  # another frame would be seen


def test_what_is_there_is_not_fetched_again_and_dead_links_are(web, hdtf, tmp_path):
    again, fetched = tmp_path / "again", []
    shutil.copytree(hdtf[0], again)
    (web[0] / "gone.mp4").write_bytes((web[0] / "ann0.mp4").read_bytes())  # the link has come back
    (again / "WRA_Cut_000.mp4").unlink()
    try:
        download(HDTF, web[1], again, taking(web[0], fetched))
    finally:
        (web[0] / "gone.mp4").unlink()
    assert sorted(address for address, _ in fetched) == ["broken.mp4", "cut.mp4", "gone.mp4"]
    status = {one.clip: one.status for one in read_coverage(again / "coverage.tsv")}
    assert status["WDA_Gone_000"] == status["WRA_Cut_000"] == status["WDA_Ann0_000"] == "got"


def test_nothing_but_dead_links_is_an_error_in_one_line(web, tmp_path):
    with pytest.raises(InputError, match="nothing could be got of 10 videos, Video unavailable"):
        download(HDTF, web[1], tmp_path / "none", taking(tmp_path, []))


def test_preparation_of_hdtf_names_cuts_two_faces_rates_and_blur(hdtf):
    lines = reports(hdtf[1])
    assert {file for file, _ in lines} == {f"{name}.mp4" for name in (
        "WDA_Ann0_000", "WDA_Ann0_001", "WDA_Ann1_000", "WRA_Cut_000", "WRA_EricCantor_000", "WRA_Soft_000")}
    reason = {file: line["reason"] for (file, _), line in lines.items()}
    assert reason["WRA_EricCantor_000.mp4"].startswith("two faces in 1 of 1")
    assert reason["WRA_Soft_000.mp4"].startswith("blur 0.")
    kept = {file for file, why in reason.items() if not why}
    assert kept == {"WDA_Ann0_000.mp4", "WDA_Ann0_001.mp4", "WDA_Ann1_000.mp4", "WRA_Cut_000.mp4"}
    assert lines["WRA_Cut_000.mp4", "0"]["remarks"] == "a cut: took 1.20 of 2.00 s, from 0.00 s on"
    assert lines["WRA_EricCantor_000.mp4", "0"]["split"] == "test"  # held out
    clips = samples(hdtf[1])
    assert {clip.info["person"] for clip in clips.values()} == {"Ann", "Cut"}  # Ann0 and Ann1 are one
    assert len(clips["WRA_Cut_000-000"].frames) == 30


# --- MEAD ------------------------------------------------------------------------------------------------------------


def brightness(frames, level):
    return (frames * (0.75 + 0.25 * level[:, None, None, None])).astype(np.uint8)


LATE = 3


@pytest.fixture(scope="module")
def mead(heads, brightness_expert, tmp_path_factory):
    """The folder, its manifest's rows, and the shards."""
    root, data = tmp_path_factory.mktemp("mead"), tmp_path_factory.mktemp("shards")
    noise = np.random.default_rng(0).uniform(0, 1, 52)
    level = 0.1 + 0.3 * (noise[:-2] + noise[1:-1] + noise[2:])
    loud = np.interp(np.arange(50 * 640), 640 * np.arange(50) + 320, np.roll(level, LATE))
    voice = (0.5 * np.sin(np.arange(50 * 640) * 0.17) * loud).astype(np.float32)
    frames, other = heads[0].frames, heads[1].frames
    side = np.ascontiguousarray(frames[:, :, ::-1])
    film(root / "M030/video/front/happy/level_2/001.mp4", brightness(frames, level), sound=voice)
    film(root / "M030/video/left_30/happy/level_2/001.mp4", side)
    film(root / "M030/video/top/happy/level_2/001.mp4", np.full_like(side[:25], 90))  # nobody in it
    record(root / "M030/audio/happy/level_2/001.m4a", voice)
    film(root / "W011/video/front/neutral/level_1/001.mp4", np.repeat(other, 2, 0)[:36], fps=30)  # its sound lies beside it
    record(root / "W011/audio/neutral/level_1/001.m4a", heads[1].speech)
    film(root / "W011/video/front/neutral/level_1/002.mp4", other)  # and this one has none at all
    (root / "W011/video/front/neutral/level_1/notes.txt").write_text("?")
    film(root / "W011/video/behind/neutral/level_1/001.mp4", other[:2])  # no such camera
    list_clips(MEAD, root, root / "mead.tsv")
    prepare(root / "mead.tsv", root, data, size=64, workers=1, expert=brightness_expert)
    with (root / "mead.tsv").open() as file:
        return root, list(csv.DictReader(file, delimiter="\t")), data


def test_the_manifest_of_mead_has_views_emotions_levels_and_whose_sound(mead, capsys):
    root, rows, _ = mead
    table = {row["file"]: row for row in rows}
    assert len(table) == 5 and not any("behind" in file for file in table)
    front = "M030/video/front/happy/level_2/001.mp4"
    for view in ("front", "left_30", "top"):
        row = table[f"M030/video/{view}/happy/level_2/001.mp4"]
        assert (row["person"], row["split"], row["view"], row["emotion"], row["level"], row["take"]) == (
            "M030", "val", view, "happy", "2", "001")
        assert row["sound"] == row["in_step_with"] == front
    assert table["W011/video/front/neutral/level_1/001.mp4"]["sound"] == "W011/audio/neutral/level_1/001.m4a"
    list_clips(MEAD, root, root / "again.tsv")
    told = capsys.readouterr().out
    assert "train 2 clips of 1 people, val 3 clips of 1 people; left out 1 videos that are no clips" in told


def test_side_views_have_the_sound_and_the_offset_of_the_front_view(mead):
    root, _, data = mead
    clips = {clip.info["view"]: clip for clip in samples(data).values() if clip.info["person"] == "M030"}
    assert set(clips) == {"front", "left_30"}
    for view, clip in clips.items():
        assert clip.info["sync_offset"] == LATE
        assert (clip.info["emotion"], clip.info["level"], clip.info["take"], clip.info["first"]) == ("happy", "2", "001", 0)
    assert np.array_equal(clips["front"].speech, clips["left_30"].speech)
    sound = read_sound(root / "M030/video/front/happy/level_2/001.mp4")
    assert np.abs(clips["left_30"].speech[:640 * 40] - sound[640 * LATE:640 * (40 + LATE)]).max() < 1e-3


def test_preparation_of_mead_names_missing_sound_missing_faces_and_rates(mead):
    lines = reports(mead[2])
    reason = {file: line["reason"] for (file, _), line in lines.items()}
    missing = reason["W011/video/front/neutral/level_1/002.mp4"]
    assert missing == "no recording W011/audio/neutral/level_1/002.m4a; check the path"  # wherever the set lies
    assert "no face in 25 of 25" in reason["M030/video/top/happy/level_2/001.mp4"]
    line = lines["W011/video/front/neutral/level_1/001.mp4", "0"]
    assert line["status"] == "accepted" and (line["fps"], line["sample_rate"]) == ("30", "48000")
    assert "30 frames per second, converted to 25" in line["remarks"]


# --- killed, and taken up by another engine --------------------------------------------------------------------------


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and ".work" not in path.parts}


KILLED = """
import os, signal, sys
from s3dnerf.cli import main
from s3dnerf.data import prepare

def kept(path, content, write=prepare.write_whole, done=[]):
    write(path, content)
    done.append(path)
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

prepare.write_whole = kept
main(sys.argv[1:])
"""
"""the command line, killed once two files are done"""


def test_one_worker_two_and_ray_after_a_kill_give_the_same_bytes_with_an_expert(hdtf, tiny_expert, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    raw, one, _ = hdtf
    how, two = {"size": 64, "expert": partial(lip_matcher, tiny_expert)}, tmp_path / "two"
    monkeypatch.setenv("MALLOC_PERTURB_", "85")  # in the others, what is freed is overwritten: nothing may depend on it
    prepare(raw / "manifest.tsv", raw, two, workers=2, **how)
    assert contents(two) == contents(one)
    told = [line["sync_confidence"] for line in reports(two).values() if line["status"] == "accepted"]
    assert len(told) == 4 and all(0 < float(confidence) < 1 for confidence in told)
    killed, options = tmp_path / "killed", {"--manifest": raw / "manifest.tsv", "--videos": raw, "--size": 64, "--workers": 1,
                                            "--lip-sync": tiny_expert, "--output": tmp_path / "killed"}
    words = [sys.executable, "-c", KILLED, "prepare", *(str(word) for pair in options.items() for word in pair)]
    assert subprocess.run(words, cwd=ROOT, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    assert len(list(killed.glob(".work/*.pkl"))) == 2 and not (killed / "train").exists()
    folder = Path("/tmp") / f"r{os.getpid()}"  # Ray's sockets need a short path
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        prepare(raw / "manifest.tsv", raw, killed, workers=2, engine="ray", **how)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert not ray.is_initialized()
    assert contents(killed) == contents(one) and len(list(killed.glob(".work/*.pkl"))) == 6  # nothing was done twice
    assert json.loads((killed / "train" / "index.json").read_text())["clips"] == 4
