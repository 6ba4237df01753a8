"""Runs of wandb: files that were cut, several in a folder, and the server, which is played."""
import json
import shutil
from types import SimpleNamespace

import pytest
import wandb

from s3dnerf.comparison.comparison import read_one
from s3dnerf.errors import InputError

HISTORY = [{"train/total": 2.0, "trainer/global_step": 0, "_step": 0, "_runtime": 3.0},
           {"speech/clip-a": {"_type": "video-file", "path": "media/videos/old.mp4"}, "trainer/global_step": 5},
           {"val/psnr": 21.0, "interval/psnr_low": 20.0, "trainer/global_step": 9},
           {"speech/clip-a": {"_type": "video-file", "path": "media/videos/new.mp4"}, "trainer/global_step": 10,
            "regions/clip-a": {"_type": "image-file", "path": "media/images/new.png"},
            "val/clips": {"_type": "table-file", "path": "media/table/clips.json"}}]
TABLE = {"columns": ["step", "clip", "psnr"], "data": [[10, "a", 20.0], [10, "b", 22.0], [10, "c", None]]}


@pytest.fixture
def server(monkeypatch):
    """wandb's server with one run; what was fetched from it is in the list."""
    fetched = []

    class File:
        def __init__(self, name):
            self.name = name

        def download(self, root, replace):
            fetched.append(self.name)
            path = shutil.os.path.join(root, self.name)
            shutil.os.makedirs(shutil.os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(json.dumps(TABLE) if self.name.endswith("json") else self.name)

    class Api:
        def run(self, path):
            if path != "team/heads/abc123":
                raise wandb.errors.CommError(f"Could not find run\n<Run {path}>")
            config = {"experiment": {"model": {"class_path": "x.Net", "init_args": {"width": 4}}}, "git": {"commit": "f" * 40, "dirty": True}}
            return SimpleNamespace(config=config, name="brave-lips-7", scan_history=lambda: iter(HISTORY), file=File)

    monkeypatch.setattr(wandb, "Api", Api)
    return fetched


def test_a_run_of_the_server_with_its_newest_media(server, tmp_path):
    run = read_one("team/heads/abc123", tmp_path)
    assert (run.name, run.kind, run.commit, run.source) == ("brave-lips-7", "wandb", "f" * 10 + "+", "team/heads/abc123")
    assert run.config == {"model": "Net", "model.width": 4}
    assert run.curves == {"train/total": [(0, 2.0)], "val/psnr": [(9, 21.0)], "interval/psnr_low": [(9, 20.0)]}
    assert run.values("psnr") == {"a": 20.0, "b": 22.0} and run.clips["c"] == {"psnr": None}
    assert run.videos["clip-a"].read_text() == "media/videos/new.mp4" and run.videos["clip-a"].is_relative_to(tmp_path)
    assert list(run.pictures) == ["clip-a"] and "media/videos/old.mp4" not in server


def test_what_the_server_does_not_have_is_one_line(server, tmp_path):
    with pytest.raises(InputError, match="no run team/heads/nobody: Could not find run <Run") as error:
        read_one("team/heads/nobody", tmp_path)
    assert "\n" not in str(error.value) and "wandb login" in str(error.value)


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """The folder of a real offline run, of no training."""
    folder = tmp_path_factory.mktemp("wandb")
    run = wandb.init(project="heads", mode="offline", dir=str(folder), name="brave", config={"width": 3})
    for step in range(30):
        run.log({"train/total": 1 / (step + 1), "trainer/global_step": step})
    run.finish(quiet=True)
    wandb.teardown()  # waits until its service has written everything
    return next(folder.rglob("run-*.wandb")).parent


def test_an_offline_run_by_its_folder_the_one_above_or_its_file(offline, tmp_path):
    run = read_one(str(offline), tmp_path)
    assert run.name == "brave" and run.config == {"width": 3} and len(run.curves["train/total"]) == 30 and run.steps == 30
    for path in (offline.parent, next(offline.glob("*.wandb"))):
        assert read_one(str(path), tmp_path).curves == run.curves


def test_a_run_that_was_killed_ends_at_its_last_whole_record(offline, tmp_path):
    whole = next(offline.glob("*.wandb")).read_bytes()
    lengths = set()
    for number, share in enumerate((0.5, 0.8, 0.97)):
        path = tmp_path / str(number) / "run-cut.wandb"
        path.parent.mkdir()
        path.write_bytes(whole[:int(len(whole) * share)])
        curve = read_one(str(path.parent), tmp_path).curves.get("train/total", [])
        assert curve == [(step, pytest.approx(1 / (step + 1))) for step in range(len(curve))]
        lengths.add(len(curve))
    assert max(lengths) > 0 and min(lengths) < 30


def test_several_runs_in_a_folder_and_files_of_no_run_are_told(offline, tmp_path):
    for name in "ab":
        shutil.copytree(offline, tmp_path / name)
    with pytest.raises(InputError, match="found 2 wandb runs"):
        read_one(str(tmp_path), tmp_path)
    (tmp_path / "run-x.wandb").write_bytes(b"dear diary, today")
    with pytest.raises(InputError, match="no file of wandb"):
        read_one(str(tmp_path / "run-x.wandb"), tmp_path)
