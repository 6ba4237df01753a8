"""The verb `validate` from shards to report, with a tiny model that has learned nothing."""
import json

import pytest
import torch

from s3dnerf.cli import main
from s3dnerf.errors import DatasetError
from s3dnerf.models.hub import save_model
from s3dnerf.models.one_shot import S3DNeRF
from s3dnerf.networks.lip_sync import LipSyncDiscriminator
from s3dnerf.validation.scenes import find_faces, read_clips
from s3dnerf.validation.suite import CHECKS


@pytest.fixture(scope="module")
def weights(tmp_path_factory, tiny_head):
    folder = tmp_path_factory.mktemp("weights")
    save_model(tiny_head, folder)
    torch.manual_seed(0)
    save_model(LipSyncDiscriminator(width=8, embedding=16), folder, "lip_sync", "lip_sync")
    return folder


def test_the_whole_way(weights, shards, tmp_path, capfd):
    path = tmp_path / "report.json"
    assert main(["validate", "--weights", str(weights), "--shards", str(shards), "--train", str(shards), "--clips", "2",
                 "--lip-sync", str(weights), "--output", str(path)]) == 1
    said, found = capfd.readouterr(), json.loads(path.read_text())
    assert {line["row"] for line in found["lines"]} == {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 20, 26}
    words = {line["name"]: line["verdict"] for line in found["lines"]}
    assert words["people in both splits"] == words["judging and training expert are two"] == "FAIL"
    assert words["lips change with the order of tokens, levels"] == "FAIL"
    assert [name for name, word in words.items() if word == "missing"] == ["identity, own minus other photo (CSIM)"]
    table = said.out.splitlines()
    assert len(table) == len(words) + 2 and table[-1] == found["verdict"] and found["verdict"].startswith("FAIL: ")
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"] and "Traceback" not in said.err


def test_a_person_is_no_one_shot_model(new_person, shards, tmp_path, capfd):
    save_model(new_person(), tmp_path)
    assert main(["validate", "--weights", str(tmp_path), "--shards", str(shards)]) == 2
    said = capfd.readouterr().err
    assert "found weights of class RADNeRF" in said and "one-shot-256" in said and "Traceback" not in said


def test_every_check_tells_its_row():
    assert all("Row" in check.__doc__ for check in CHECKS)


@pytest.mark.parametrize("options, word", [
    ({"shards": "nowhere"}, "nowhere"), ({"train": "nowhere"}, "nowhere"), ({"clips": "0"}, "found 0 clips"),
    ({"lip-sync": "nobody"}, "nobody"), ({"weights": "two-shot"}, "two-shot"), ({"output": "/nowhere/a.json"}, "nowhere")])
def test_mistakes_are_one_line_and_status_2(options, word, weights, shards, capfd):
    options = {"weights": str(weights), "shards": str(shards)} | options
    assert main(["validate", *(word for name, value in options.items() for word in (f"--{name}", value))]) == 2
    said = capfd.readouterr()
    assert said.err.count("\n") == 1 and word in said.err and not said.out


def test_clips_are_spread_over_people(shards):
    model = S3DNeRF(image_size=64)
    found = read_clips(model, str(shards), 3)
    assert len({person for person, _ in found[:2]}) == 2 and len({clip.keys[0] for _, clip in found}) == 3
    clip = found[0][1]
    assert clip.frames.shape == (1, 25, 3, 64, 64) and not torch.equal(clip.frames[0, 0], clip.portrait.image[0])


def test_other_sizes_and_short_clips_are_told(shards):
    with pytest.raises(DatasetError, match="64 pixels.*render 128"):
        read_clips(S3DNeRF(image_size=128), str(shards), 1)
    with pytest.raises(DatasetError, match="has 41 frames"):
        read_clips(S3DNeRF(image_size=64), str(shards), 1, 40)


def test_where_there_is_no_face_there_are_no_landmarks():
    assert find_faces(torch.rand(2, 3, 64, 64), True).isnan().all()
