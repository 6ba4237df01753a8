"""The suite as a whole: nothing flatters, every region, and the report."""
import json
from dataclasses import fields, replace
from itertools import islice

import cv2
import numpy as np
import pytest
import torch

from s3dnerf.cli import main
from s3dnerf.comparison.folder import read_evaluation
from s3dnerf.errors import InputError
from s3dnerf.evaluation.figures import CLIP_FIGURES, FIGURES
from s3dnerf.evaluation.footage import Footage
from s3dnerf.evaluation.networks import Networks
from s3dnerf.evaluation.protocol import REGIONS, Protocol
from s3dnerf.evaluation.suite import Row, Suite, evaluate_files, find_pairs, left_out
from s3dnerf.media import VideoWriter
from s3dnerf.significance import Interval, interval

ORDER = [3, 0, 5, 1, 8, 2, 9, 4, 11, 6, 10, 7]
SET_FIGURES = ("fid", "fid_face", "fid_mouth", "kid", "kid_face", "kid_mouth")


@pytest.fixture(scope="module")
def suite():
    return Suite(Networks(missing={name: f"no {name} here" for name in
                                                     ("alexnet", "inception", "arcface", "syncnet", "judge")}))


@pytest.fixture(scope="module")
def rows(suite, recording, reorder):
    """The recording itself, its frames in another order, its first frame held, and blurred."""
    soft = lambda frame: cv2.GaussianBlur(frame, (0, 0), 1.5)
    every = range(len(recording))
    kinds = {"same": recording, "shuffled": reorder(recording, ORDER), "frozen": reorder(recording, [0] * len(recording)),
             "soft": reorder(recording, every, soft)}
    return {name: suite.measure(footage, recording).figures for name, footage in kinds.items()}


def test_the_recording_itself_is_the_best_there_is(rows):
    same = rows["same"]
    for region in ("", "_face", "_mouth"):
        assert same[f"psnr{region}"] == 100 and same[f"ssim{region}"] == pytest.approx(1) and same[f"sharpness{region}"] == 1
        assert same[f"cpbd{region}"] == same[f"cpbd_truth{region}"]
    assert all(same[name] == 0 for name in ("flicker", "f_lmd", "m_lmd", "f_lmd_percent", "m_lmd_percent", "lmd_centred"))
    assert same["mouth_correlation"] == pytest.approx(1) and same["mouth_spread"] == pytest.approx(1)
    assert same["jitter"] == same["jitter_truth"] > 0 and same["blinks"] == same["blinks_truth"] and same["faces"] == 1


def test_nothing_flatters_shuffled_frozen_or_soft_videos(rows):
    for wrong in ("shuffled", "frozen"):
        found = rows[wrong]
        assert found["mouth_correlation"] < 0.6 and found["m_lmd"] > 0.5 and found["lmd_centred"] > 0.2 and found["flicker"] > 0.3
        assert max(found[f"psnr{region}"] for region in REGIONS) < 40 and max(found[f"ssim{region}"] for region in REGIONS) < 0.98
        assert found["ssim_gaussian_mouth"] < found["ssim_gaussian"] < 1
    frozen = rows["frozen"]
    assert max(frozen["mouth_spread"], frozen["jitter"]) < 0.01 and abs(frozen["mouth_correlation"]) < 1e-6
    soft = rows["soft"]
    assert soft["sharpness_face"] < 0.3 and soft["cpbd"] < soft["cpbd_truth"] and soft["psnr"] < 45


def test_figures_are_those_of_plain_loops(rows, recording, suite):
    """Boxes are cut from both alike; pixels are of a frame of 256."""
    from s3dnerf.evaluation.boxes import boxes
    from s3dnerf.face import LANDMARKS_68

    box, frames = boxes(recording, Protocol())["_mouth"], np.stack(list(recording.frames())).astype(float)
    errors = []
    for t, (left, top) in enumerate(box.corners):
        cut = slice(top, top + box.side), slice(left, left + box.side)
        error = ((frames[ORDER[t]][cut] - frames[t][cut]) ** 2).mean()
        errors.append(100 if error == 0 else 10 * np.log10(255 ** 2 / error))
    assert rows["shuffled"]["psnr_mouth"] == pytest.approx(np.mean(errors), abs=1e-3)
    mouth = recording.landmarks[:, list(LANDMARKS_68[48:])]
    distance = np.linalg.norm(mouth[ORDER] - mouth, axis=-1).mean()
    eyes = np.linalg.norm(recording.landmarks[:, 33] - recording.landmarks[:, 263], axis=-1)
    assert rows["shuffled"]["m_lmd"] == pytest.approx(2 * distance, rel=1e-4)
    assert rows["shuffled"]["m_lmd_percent"] == pytest.approx(
        (100 * np.linalg.norm(mouth[ORDER] - mouth, axis=-1).mean(1) / eyes).mean(), rel=1e-4)


def test_networks_judge_each_region(recording, reorder, weights, suite):
    """LPIPS of images in [-1, 1], CSIM with frames and with the first one, features of the frames themselves."""
    networks = Networks.load(alexnet=weights.alexnet, arcface=weights.arcface, judge="none")
    class Inception(torch.nn.Module):
        def forward(self, images):
            assert 0 <= images.min() and images.max() <= 1
            return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
    whole = Suite(replace(networks, inception=Inception()))
    true = recording.first(6)
    same, other = whole.measure(true, true), whole.measure(reorder(true, [3, 4, 5, 0, 1, 2]), true)
    for region in ("", "_face", "_mouth"):
        assert same.figures[f"lpips{region}"] == 0 < other.figures[f"lpips{region}"]
        assert len(other.features[f"made{region}"]) == 6
        assert np.allclose(other.features[f"made{region}"][0], other.features[f"true{region}"][3], atol=0.2)
    frames = [torch.from_numpy(np.stack(list(x.frames()))).permute(0, 3, 1, 2) / 127.5 - 1
              for x in (reorder(true, [3, 4, 5, 0, 1, 2]), true)]
    with torch.no_grad():
        assert other.figures["lpips"] == pytest.approx(networks.alexnet(*frames).mean().item(), rel=1e-4)
    assert same.figures["csim"] == pytest.approx(1, abs=1e-5) and other.figures["csim"] < 1 - 1e-6
    assert same.figures["csim_photo"] < 1 - 1e-6
    report = whole.report([same, replace(other, clip="b")])
    assert report.means["fid"]["clips"] == 2 and report.means["fid"]["low"] is None and report.means["kid_mouth"]["mean"] is not None
    assert any("2048" in remark for remark in report.remarks)


def test_what_is_missing_is_said_and_never_a_number(suite, rows, recording):
    nobody = Footage("clip", lambda: (np.full((128, 128, 3), 99, np.uint8) for _ in range(12)), np.full((12, 478, 2), np.nan), (128, 128))
    row = suite.measure(nobody, recording)
    assert row.figures["psnr_face"] is not None and row.figures["faces"] == 0
    assert all(row.figures[name] is None for name in ("f_lmd", "mouth_correlation", "csim", "judge_c"))
    assert "a face in 0 frames" in row.remarks[0]
    report = suite.report([row])
    assert set(report.means) | set(report.missing) == set(FIGURES) and not set(report.means) & set(report.missing)
    assert report.missing["lpips"] == "no alexnet here" and "--openface-generated" in report.missing["aue"]
    assert "no clip shows a face" in report.missing["m_lmd"]
    table = report.table()
    assert "missing: lpips, lpips_face, lpips_mouth: no alexnet here" in table and report.protocol.hash in table
    content = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert set(content) == {"protocol", "networks", "clips", "means", "missing", "remarks", "generated"}
    assert set(content["clips"][0]) == {"clip", "frames", *CLIP_FIGURES} and content["clips"][0]["lpips"] is None


def test_frames_of_other_sizes_are_refused_unless_aligned(suite, recording):
    larger = replace(recording, frames=lambda: (cv2.resize(f, (160, 160)) for f in recording.frames()), size=(160, 160),
                     landmarks=recording.landmarks * 1.25)
    with pytest.raises(InputError, match="160 x 160 .* 128 x 128.*--align face"):
        suite.measure(larger, recording)
    row = Suite(suite.networks, Protocol(align="face")).measure(larger.first(5), recording)
    assert row.frames == 5 and row.figures["psnr_face"] > 30 and row.figures["m_lmd"] < 0.1
    assert "5 frames against 12" in row.remarks[0]


def test_short_clips_are_told_where_sync_is_scored(suite):
    row = Row("a", 30, dict.fromkeys(CLIP_FIGURES) | {"sync_c": 3.0})
    assert any("1 of 1 clips have fewer than 100 frames" in remark for remark in suite.report([row]).remarks)
    assert not suite.report([replace(row, frames=100)]).remarks[1:]


# the report ----------------------------------------------------------------------------------------------------------

def test_a_clip_that_came_twice_counts_once_in_the_order_of_names(suite):
    rows = [Row(name, 10, dict.fromkeys(CLIP_FIGURES) | {"psnr": value}) for name, value in (("b", 20.0), ("a", 30.0), ("b", 20.0))]
    report = suite.report(rows)
    assert [row.clip for row in report.rows] == ["a", "b"] and report.means["psnr"]["mean"] == 25
    assert report.as_dict() == suite.report(rows[1:]).as_dict()


def test_the_interval_holds_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(3)
    samples = generator.exponential(size=(200, 40))
    held = [found.low <= 1 <= found.high for found in (interval(sample, 400) for sample in samples)]
    assert 0.86 <= np.mean(held) <= 0.99
    found = interval(samples[0])
    assert found == interval(samples[0]) and found.mean == pytest.approx(samples[0].mean())
    half = 1.96 * samples[0].std(ddof=1) / 40 ** 0.5
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)
    assert interval([2.0]) == Interval(2.0, None, None, 1)


def test_the_protocol_is_frozen():
    """Who changes what the figures mean raises the version, and then this hash."""
    assert (Protocol().version, Protocol().hash) == (1, "10559d1eef64")
    others = {Protocol(align="face").hash, Protocol(version=2).hash, replace(Protocol(), mouth_box=0.9).hash}
    assert len(others | {Protocol().hash}) == 4
    settings = Protocol().as_dict()["settings"]
    assert set(settings) == {field.name for field in fields(Protocol)} - {"version"}
    with pytest.raises(AttributeError):
        Protocol().fps = 30


# the command ---------------------------------------------------------------------------------------------------------

def test_folders_and_files_are_paired_by_name(tmp_path):
    made, true = tmp_path / "made", tmp_path / "true"
    for folder in (made, true):
        folder.mkdir()
    with pytest.raises(InputError, match="no video in"):
        find_pairs(str(made), str(true))
    for path in (made / "a.mp4", made / "b.mov", made / "notes.txt", true / "a.mkv", true / "c.mp4"):
        path.write_bytes(b"x")
    with pytest.raises(InputError, match="1 of 2 videos have no recording .* such as b"):
        find_pairs(str(made), str(true))
    (true / "b.mp4").write_bytes(b"x")
    assert [(x.name, y.name) for x, y in find_pairs(str(made), str(true))] == [("a.mp4", "a.mkv"), ("b.mov", "b.mp4")]
    assert find_pairs(str(made / "a.mp4"), str(true / "c.mp4"))[0][1].name == "c.mp4"
    with pytest.raises(InputError, match="two folders, or two files"):
        find_pairs(str(made / "a.mp4"), str(true))
    (true / "b.mov").write_bytes(b"x")
    with pytest.raises(InputError, match="true has b.mov and b.mp4; expected one video of each"):
        find_pairs(str(made), str(true))


def test_recordings_without_a_video_are_told_as_their_absence_flatters(suite, recording, tmp_path):
    for name in ("made/x", "true/x", "true/y", "true/z"):
        path = tmp_path / f"{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        with VideoWriter(path, 128, 128, sound=recording.sound[:5 * 640]) as video:
            for frame in islice(recording.frames(), 5):
                video.write(frame)
    report = evaluate_files(suite, str(tmp_path / "made"), str(tmp_path / "true"))
    assert report.remarks[0] == "2 of 3 recordings have no video of their name, such as y; they are left out"
    assert not left_out(str(tmp_path / "true/z.mp4"), [(tmp_path / "made/x.mp4", tmp_path / "true/z.mp4")])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_in_a_line(tmp_path, capsys):
    for name in ("made", "true"):
        (tmp_path / name).mkdir()
    words = ["--generated", str(tmp_path / "made"), "--truth", str(tmp_path / "true"), "--output", str(tmp_path / "report.json")]
    assert main(["evaluate", *words, "--device", "cuda"]) == 2 and "no CUDA device" in capsys.readouterr().err


def test_the_command_writes_a_whole_report_and_prints_the_table(recording, tmp_path, capsys):
    frames = list(recording.frames())
    for name, order in (("made", [0] * 12), ("true", range(12))):
        (tmp_path / name).mkdir()
        with VideoWriter(tmp_path / name / "a.mp4", 128, 128, sound=recording.sound, crf=4) as video:
            for index in order:
                video.write(frames[index])
    (tmp_path / "reports").mkdir()
    output, words = tmp_path / "reports" / "r.json", ["evaluate", "--generated", str(tmp_path / "made"), "--truth", str(tmp_path / "true")]
    assert main([*words, "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    assert report["generated"] == "../made" and read_evaluation(output).videos == {"a": tmp_path / "made" / "a.mp4"}
    assert report["clips"][0]["clip"] == "a" and report["clips"][0]["mouth_spread"] < 0.3
    assert report["networks"]["judge"]["file"] == "lip-judge" and report["clips"][0]["judge_c_truth"] is not None
    assert report["protocol"]["hash"] == Protocol().hash in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "reports", "true"]
    assert [path.name for path in output.parent.iterdir()] == ["r.json"]
    assert main([*words, "--openface-truth", str(tmp_path)]) == 2 and "give both" in capsys.readouterr().err
    assert main([*words, "--syncnet", str(tmp_path / "no")]) == 2 and "no file for --syncnet" in capsys.readouterr().err
