"""From raw videos to shards: what is kept, what is refused and why, and that a run can be resumed."""
import csv
import io
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from s3dnerf.data import prepare as module
from s3dnerf.data.manifest import read_manifest
from s3dnerf.data.prepare import Job, background_plate, in_step, pieces, prepare, run
from s3dnerf.data.quality import longest_shot, refusal, track_slice
from s3dnerf.data.shards import decode_sample, read_people
from s3dnerf.data.sync import FARTHEST, SURE, SyncEstimate, cut_sound
from s3dnerf.data.tracking import CropBox, Track, cut
from s3dnerf.errors import DatasetError, InputError
from s3dnerf.face import LANDMARKS_68, metric_face
from s3dnerf.geometry import project
from s3dnerf.media import VideoWriter, log_mel, mel_windows, read_frames, read_sound
from s3dnerf.types import Cameras

FRAMES = 30
MANIFEST = """file\tperson\tsplit\tsource
ann/one.mp4\tann\ttrain\ttest
ann/two.mp4\tann\ttrain\ttest
bob/one.mp4\tbob\ttrain\ttest
faceless.mp4\tcat\ttrain\ttest
short.mp4\tcat\ttrain\ttest
broken.mp4\tcat\ttrain\ttest
mute.mp4\tcat\ttrain\ttest
silent.mp4\tcat\ttrain\ttest
missing.mp4\tcat\ttrain\ttest
eve.mp4\teve\tval\ttest
"""


def tone(hertz, seconds):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * 16000)) / 16000).astype(np.float32)


def film(path, image, seconds=1.2, fps=25, hertz=440, drift=1.0, zoom=0.0, mirrored=False):
    """A photo that moves to the left and comes nearer, with a tone; `hertz` 0 has no sound."""
    import cv2

    image = np.ascontiguousarray(image[:, ::-1]) if mirrored else image
    path.parent.mkdir(exist_ok=True, parents=True)
    with VideoWriter(path, 256, 256, fps=fps, sound=tone(hertz, seconds) if hertz else None) as writer:
        for k in range(round(seconds * fps)):
            scale, shift = 1 + zoom * k / fps, drift * 25 * k / fps
            matrix = np.array([[scale, 0, 128 - scale * (128 + shift)], [0, scale, 128 - scale * 128]])
            writer.write(cv2.warpAffine(image, matrix, (256, 256), borderMode=cv2.BORDER_REPLICATE))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    from skimage.data import astronaut

    folder, head = tmp_path_factory.mktemp("videos"), np.ascontiguousarray(astronaut()[:256, 96:352])
    film(folder / "ann" / "one.mp4", head)
    film(folder / "ann" / "two.mp4", head, seconds=2.4, fps=30, hertz=600, drift=-0.4, zoom=0.05)
    film(folder / "bob" / "one.mp4", head, mirrored=True, hertz=300)
    film(folder / "eve.mp4", head, drift=0.3, zoom=0.1)
    film(folder / "faceless.mp4", np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8))
    film(folder / "short.mp4", head, seconds=0.8)
    film(folder / "mute.mp4", head, hertz=0)
    film(folder / "silent.mp4", head, hertz=1e-9)
    (folder / "broken.mp4").write_bytes((folder / "bob" / "one.mp4").read_bytes()[300:2000])
    (folder / "manifest.tsv").write_text(MANIFEST)
    return folder


def make(videos, output, **options):
    prepare(videos / "manifest.tsv", videos, output, size=64, workers=2, clips_per_shard=3, max_seconds=1.2, **options)


@pytest.fixture(scope="module")
def output(videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    make(videos, folder)
    return folder


def samples(folder):
    import webdataset

    paths = [str(path) for path in sorted(folder.glob("*.tar"))]
    found = list(webdataset.WebDataset(paths, shardshuffle=False))
    return {sample["__key__"]: decode_sample(sample) for sample in found}


@pytest.fixture(scope="module")
def clips(output):
    return samples(output / "train")


def contents(folder):
    """Every file beside .work, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and ".work" not in path.parts}


# --- what is written -------------------------------------------------------------------------------------------------


def test_every_file_is_in_the_report_with_its_reason(output):
    with (output / "train" / "report.tsv").open() as file:
        lines = list(csv.DictReader(file, delimiter="\t"))
    status = {(line["file"], line["piece"]): (line["status"], line["reason"]) for line in lines}
    good = {("ann/one.mp4", "0"), ("ann/two.mp4", "0"), ("ann/two.mp4", "1"), ("bob/one.mp4", "0")}
    assert {key for key, (state, _) in status.items() if state == "accepted"} == good
    due = {"faceless.mp4": "no face in 30 of 30 frames", "short.mp4": "lasts 0.80 s; expected 0.9 s", "broken.mp4": "not a ",
           "mute.mp4": "mute.mp4 has no sound track", "missing.mp4": "no recording missing.mp4; check the path",
           "silent.mp4": "the sound is silent"}
    refused = {file: reason for (file, _), (state, reason) in status.items() if state == "rejected"}
    assert refused.keys() == due.keys()
    assert all(due[file] in reason for file, reason in refused.items()), refused
    for line in lines:
        if line["status"] == "accepted":
            assert line["reason"] == "" and int(line["frames"]) == FRAMES and 0 < float(line["reprojection_error"]) < 6
            assert 50 < float(line["eyes"]) < 70
            assert all(abs(int(degrees)) < 10 for degrees in line["yaw"].split(".."))


def test_index_and_people_are_right(output, clips):
    assert sorted(clips) == ["ann-one-000", "ann-two-000", "ann-two-001", "bob-one-000"]
    index = json.loads((output / "train" / "index.json").read_text())
    assert index == {"clips": 4, "people": 2, "seconds": 4 * 1.2, "shards": ["train-000000.tar", "train-000001.tar"]}
    assert json.loads((output / "val" / "index.json").read_text())["clips"] == 1
    people = read_people(output / "train")
    assert sorted(people) == ["ann", "bob"] and list(read_people(output / "val")) == ["eve"]
    for person, mean in people.items():
        meshes = [clip.mesh for clip in clips.values() if clip.info["person"] == person]
        assert len(meshes) == {"ann": 3, "bob": 1}[person]
        assert np.abs(mean - np.concatenate(meshes).mean(0)).max() < 1e-5
    assert sorted(contents(output)) == sorted(
        [f"train/{name}" for name in (*index["shards"], "index.json", "people.npz", "report.tsv", "summary.html")]
        + [f"val/{name}" for name in ("val-000000.tar", "index.json", "people.npz", "report.tsv", "summary.html")])


def test_clips_hold_the_pictures_of_their_file(videos, clips):
    for clip in clips.values():
        box = CropBox(*clip.info["crop"])
        first = FRAMES * int(clip.key[-3:])
        raw = list(read_frames(videos / clip.info["file"]))[first:first + FRAMES]
        due = cut(raw, box, 64).astype(float)
        assert clip.frames.shape == due.shape == (FRAMES, 64, 64, 3)
        assert 10 * np.log10(255 ** 2 / ((clip.frames - due) ** 2).mean()) > 32
        neighbour = np.abs(clip.frames[1:] - due[:-1]).mean()
        assert np.abs(clip.frames[1:] - due[1:]).mean() < 0.7 * neighbour  # the right frame, not the one before


def test_clips_hold_the_sound_of_their_file(clips):
    for clip in clips.values():
        hertz = {"ann/one.mp4": 440, "ann/two.mp4": 600, "bob/one.mp4": 300}[clip.info["file"]]
        assert len(clip.speech) == FRAMES * 640
        middle = clip.speech[3000:19000 - 3000]
        spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
        assert abs(spectrum.argmax() * 16000 / len(middle) - hertz) < 2
    second = clips["ann-two-001"].speech
    due = tone(600, 2.4)[FRAMES * 640:]
    assert np.corrcoef(second[2000:-2000], due[2000:-2000])[0, 1] > 0.98  # in phase: not a sample off


def test_landmarks_mesh_cameras_and_masks_agree(clips):
    for clip in clips.values():
        pose, intrinsics = clip.cameras[:, :16].reshape(-1, 4, 4), clip.cameras[:, 16:].reshape(-1, 3, 3).copy()
        intrinsics[:, :2] *= 64
        cameras = Cameras(torch.from_numpy(pose), torch.from_numpy(intrinsics))
        pixels = project(torch.from_numpy(clip.mesh[:, list(LANDMARKS_68)]), cameras)[0].numpy()
        assert np.abs(pixels - clip.landmarks).max() < 0.02
        assert np.abs(clip.mesh[:, :468, :2] - metric_face()[:468, :2]).mean() < 0.06
        nose = clip.landmarks[:, 30] / 4
        head, torso, mouth = clip.masks.transpose(1, 0, 2, 3)
        assert head[np.arange(FRAMES), nose[:, 1].astype(int), nose[:, 0].astype(int)].all()
        assert not (head & torso).any() and torso.any() and mouth.any()
        lips = clip.landmarks[:, 60:].mean(1) / 4
        y, x = np.mgrid[:16, :16] + 0.5
        for t in range(0, FRAMES, 7):
            assert np.hypot(x[mouth[t]].mean() - lips[t, 0], y[mouth[t]].mean() - lips[t, 1]) < 1.5


def test_a_face_that_comes_nearer_does_so_in_its_cameras(output):
    clip = next(iter(samples(output / "val").values()))
    depth = np.linalg.norm(clip.cameras[:, :16].reshape(-1, 4, 4)[:, :3, 3], axis=1)
    scale = depth[2] / depth[-3]
    assert scale == pytest.approx((1 + 0.1 * 27 / 25) / (1 + 0.1 * 2 / 25), rel=0.03)


# --- resumption ------------------------------------------------------------------------------------------------------


def test_resuming_and_starting_anew_give_the_same_bytes(videos, output, tmp_path, monkeypatch):
    due = contents(output)
    resumed = tmp_path / "resumed"
    shutil.copytree(output / ".work", resumed / ".work")
    for name in ("train-bob-one", "val-eve"):  # killed before these two were finished
        next((resumed / ".work").glob(f"{name}*")).unlink()
    kept = {path: path.stat().st_mtime_ns for path in (resumed / ".work").iterdir()}
    make(videos, resumed)
    assert contents(resumed) == due
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # what was finished was not done again
    fresh = tmp_path / "fresh"
    make(videos, fresh)
    assert contents(fresh) == due
    only = tmp_path / "only"
    shutil.copytree(output / ".work", only / ".work")
    make(videos, only, split=["val"])
    assert contents(only) == {path: content for path, content in due.items() if path.startswith("val")}


def test_results_are_kept_whole_or_not_at_all(videos, tmp_path, monkeypatch):
    job = Job(videos / "short.mp4", {"file": "short.mp4", "person": "x", "split": "s", "source": "t"}, 64, 5.0,
              tmp_path / "x.pkl")
    monkeypatch.setattr(module.pickle, "dumps", lambda results: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(job)
    assert not job.done.exists()


def test_a_bad_file_ends_as_a_line_and_not_as_an_error(tmp_path):
    job = Job(tmp_path / "none.mp4", {"file": "none.mp4", "person": "x", "split": "s", "source": "t"}, 64, 5.0,
              tmp_path / "x.pkl")
    run(job)
    piece, = pickle.loads(job.done.read_bytes())
    assert (piece.number, piece.fields, piece.mesh, piece.line["status"]) == (0, None, None, "rejected")
    assert "none.mp4" in piece.line["reason"]


def test_long_videos_are_split_and_a_short_rest_is_dropped(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "one_piece", lambda job, number, frames, sound: (number, len(frames), frames[0]))
    for frames, due in ((100, [(0, 50, 0), (1, 50, 50)]), (60, [(0, 50, 0)]), (75, [(0, 50, 0), (1, 25, 50)]),
                        (10, [(0, 10, 0)])):
        monkeypatch.setattr(module, "read_frames", lambda path: iter(range(frames)))
        assert list(pieces(Job(tmp_path, {}, 64, 2.0, tmp_path), np.zeros(0))) == due


# --- sound out of step -----------------------------------------------------------------------------------------------


def flicker(path, image, late, frames=66):
    """A still photo that is as bright, frame by frame, as a tone is loud `late` frames after."""
    noise = np.random.default_rng(0).uniform(0, 1, frames + 2)
    level = 0.1 + 0.3 * (noise[:-2] + noise[1:-1] + noise[2:])
    loud = np.interp(np.arange(frames * 640), 640 * np.arange(frames) + 320, np.roll(level, late)).astype(np.float32)
    with VideoWriter(path, 256, 256, sound=tone(440, frames / 25) * loud) as writer:
        for value in level:
            writer.write((image * (0.7 + 0.3 * value)).astype(np.uint8))


@pytest.fixture(scope="module", params=[3, -5, 0])
def moved(request, brightness_expert, tmp_path_factory):
    """How late, the sound of the whole file, and the pieces of a recording of 66 frames."""
    from skimage.data import astronaut

    path = tmp_path_factory.mktemp("flicker") / "film.mp4"
    flicker(path, np.ascontiguousarray(astronaut()[:256, 96:352]), request.param)
    row = {"file": "film.mp4", "person": "x", "split": "s", "source": "t"}
    run(Job(path, row, 64, 1.2, path.with_suffix(".pkl"), brightness_expert))
    return request.param, read_sound(path), pickle.loads(path.with_suffix(".pkl").read_bytes())


def test_sound_out_of_step_is_moved_alike_in_all_pieces(moved, brightness_expert):
    late, sound, found = moved
    assert [(piece.number, piece.first) for piece in found] == [(0, 0), (1, 30)]
    for piece in found:
        clip = decode_sample(piece.fields)
        assert clip.info["sync_offset"] == piece.line["sync_offset"] == late
        assert clip.info["sync_confidence"] == piece.line["sync_confidence"]
        assert (piece.line["sync_confidence"] >= SURE) == (late != 0)
        due = cut_sound(sound, piece.first + late, FRAMES)
        assert np.abs(clip.speech - due).max() < 1e-4
        assert np.abs(np.load(io.BytesIO(piece.fields["mel.npy"])).astype(np.float32) - log_mel(due).numpy()).max() < 0.1
        match = brightness_expert()(torch.from_numpy(clip.frames).permute(0, 3, 1, 2)[None] / 255.0, None,
                                 mel_windows(log_mel(clip.speech), FRAMES)[None])
        assert match[0].diagonal()[6:-6].min() > 0.8  # in step now


def test_prepare_tells_what_was_moved_and_nothing_without_an_expert(videos, brightness_expert, tmp_path, capsys):
    only = dict(split=["val"], size=64, workers=1, clips_per_shard=3, max_seconds=1.2)
    table = {}
    for name, expert in (("with", brightness_expert), ("without", None), ("with", brightness_expert)):
        prepare(videos / "manifest.tsv", videos, tmp_path, expert=expert, **only)
        with (tmp_path / "val" / "report.tsv").open() as file:
            table[name], = csv.DictReader(file, delimiter="\t")
        info = next(iter(samples(tmp_path / "val").values())).info
        assert str(info["sync_offset"]) == (table[name]["sync_offset"] or "None")
    assert table["with"]["sync_offset"] == "0" and 0 <= float(table["with"]["sync_confidence"]) < SURE
    assert table["without"]["sync_offset"] == table["without"]["sync_confidence"] == ""
    assert len(list((tmp_path / ".work").iterdir())) == 2  # what was found with an expert is not taken for without
    assert "0 recordings brought into step" in capsys.readouterr().out


def test_sound_as_far_off_as_can_be_told_is_refused(moved):
    _, sound, found = moved
    for offset, words in ((FARTHEST, "10 frames or more too late"), (-FARTHEST, "10 frames or more too early"), (4, "")):
        after = in_step(found, sound, SyncEstimate(offset, 1.0))
        assert [(piece.fields is None, piece.line["status"]) for piece in after] == 2 * [
            (True, "rejected") if words else (False, "accepted")]
        assert all(words in piece.line["reason"] for piece in after)


# --- what is refused -------------------------------------------------------------------------------------------------


def track_of(count=40, places=None, unit=80.0, yaw=0.0, error=1.0):
    """The metric face, looking straight or turned, at places [T, 2] in pixels."""
    from s3dnerf.geometry import rotation_from_euler

    turn = rotation_from_euler(*(torch.tensor(np.radians(x)) for x in (0.0, yaw, 0.0))).double().numpy()
    places = np.zeros((count, 2)) if places is None else np.asarray(places, float)
    shift = np.concatenate([places / unit, np.full((len(places), 1), 12.0)], 1)
    landmarks = metric_face()[None, :, :2] * unit + places[:, None] + 320
    return Track(landmarks, np.tile(turn, (len(places), 1, 1)), shift, unit * 12, (640, 640), np.full(len(places), error))


def test_only_the_longest_shot_is_kept():
    places = np.zeros((60, 2))
    places[:, 0] = np.arange(60) * 2.0  # moving is no cut
    places[10:], places[45:] = places[10:] + (60, 0), places[45:] + (0, -70)
    assert longest_shot(track_of(places=places)) == (10, 45)
    assert longest_shot(track_of(places=places[10:45])) == (0, 35)
    part = track_slice(track_of(places=places), 10, 45)
    assert len(part.landmarks) == len(part.rotations) == len(part.translations) == len(part.error) == 35
    assert np.array_equal(part.landmarks, track_of(places=places).landmarks[10:45])


@pytest.mark.parametrize("options, words", [(dict(), ""), (dict(count=23), ""), (dict(count=22), "cuts leave 0.88 s"),
                                            (dict(yaw=44.0), ""), (dict(yaw=47.0), "turned away by 47"),
                                            (dict(yaw=-47.0), "turned away by 47"), (dict(unit=24.5), ""),
                                            (dict(unit=20.0), "20 pixels between the eyes"), (dict(error=5.9), ""),
                                            (dict(error=7.25), "reprojection error 7.2 %")])
def test_bad_tracks_are_refused_for_their_reason(options, words):
    found = refusal(track_of(**options))
    assert found.startswith(words) if words else found == ""


def test_the_background_is_what_the_person_does_not_hide():
    draw = np.random.default_rng(0)
    smooth = np.kron(draw.integers(60, 200, (8, 8, 3)), np.ones((16, 16, 1)))
    crops, person = np.tile(smooth, (12, 1, 1, 1)).astype(np.uint8), np.zeros((12, 32, 32), bool)
    for t in range(12):  # walks from the left to the right; its middle column is hidden in all frames
        person[t, 8:, 2 * t:2 * t + 6] = True
        person[t, 20:, 15:17] = True
        crops[t][np.kron(person[t], np.ones((4, 4), bool))] = 0
    plate = background_plate(crops, person)
    hidden = np.zeros((128, 128), bool)
    hidden[68:, 48:80] = True
    assert plate.dtype == np.uint8 and np.array_equal(plate[~hidden], smooth[~hidden])
    assert plate[70:, 50:78].min() > 20  # filled in from around it


# --- manifests -------------------------------------------------------------------------------------------------------


def test_manifests_are_sorted_and_split(tmp_path):
    path = tmp_path / "manifest.tsv"
    path.write_text(MANIFEST)
    rows = read_manifest(path, ["val"])
    assert [row["file"] for row in rows] == ["eve.mp4"]
    everything = [row["file"] for row in read_manifest(path, None)]
    assert everything == sorted(everything) and len(everything) == 10


@pytest.mark.parametrize("text, split, words", [
    ("file\tperson\na\tb\n", None, "no column source, split"), ("", None, "no column file"),
    (MANIFEST + "ann/one.mp4\tann\ttrain\ttest\n", None, "2 files that would all be called ann-one"),
    (MANIFEST + "ann-one.mov\tann\ttrain\ttest\n", None, "2 files that would all be called ann-one"),
    (MANIFEST, ["test"], "no clip of split test; it has train, val"), (None, None, "no manifest"),
    (MANIFEST + "one.mp4\tann\n", ["test"], "no split in line 12"), (MANIFEST.replace("\t", ","), None, "separated by tabs"),
    (MANIFEST.encode("utf-16"), None, "no text in UTF-8"), (MANIFEST, None, "none of the 10 files")])
def test_manifests_that_cannot_be_used_say_why(tmp_path, text, split, words):
    path = tmp_path / "manifest.tsv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DatasetError, match=words):
        prepare(path, Path("."), tmp_path / "out", split=split)
    assert not (tmp_path / "out").exists()


def test_a_manifest_out_of_a_spreadsheet_is_read(tmp_path):
    path = tmp_path / "manifest.tsv"
    path.write_text(MANIFEST, encoding="utf-8-sig")
    assert len(read_manifest(path, None)) == 10


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 255}, {"clips_per_shard": 0}, {"workers": -1}, {"workers": 0},
                                     {"max_seconds": 0.5}, {"max_seconds": float("nan")}])
def test_numbers_that_make_no_clips_are_told_before_the_work(videos, tmp_path, options):
    with pytest.raises(InputError, match=f"found --{next(iter(options)).replace('_', '-')} .*expected"):
        prepare(videos / "manifest.tsv", videos, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_files_that_came_later_or_changed_are_looked_at_again(tmp_path):
    from s3dnerf.data.prepare import make_jobs

    rows = [{"file": "a.mp4", "person": name, "split": name, "source": "x"} for name in ("train", "val")]
    jobs = lambda: [job.done for job in make_jobs(rows, tmp_path, tmp_path, 64, 5.0, None)]
    missing = jobs()
    (tmp_path / "a.mp4").write_bytes(b"one")
    there = jobs()
    (tmp_path / "a.mp4").write_bytes(b"another")
    assert len({*missing, *there, *jobs()}) == 6 and jobs() == jobs()
