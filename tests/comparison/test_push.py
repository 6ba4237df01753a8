"""The comparison as a run of wandb, written offline and read back."""
import csv
import json

import pytest
import wandb

from s3dnerf.cli import main
from s3dnerf.comparison.push import target_of
from s3dnerf.comparison.wandb_run import parsed, place, records
from s3dnerf.errors import InputError


def test_tables_page_and_files_are_pushed_offline(two_runs, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    page = tmp_path / "page.html"
    assert main(["compare", *map(str, two_runs), "--output", str(page), "--push", "team/heads"]) == 0
    wandb.teardown()  # waits until its service has written everything
    [path] = tmp_path.rglob("run-*.wandb")
    row, kinds, project = {}, [], None
    for record in records(path):
        kinds.append(record.WhichOneof("record_type"))
        project = record.run.project or project
        for item in record.history.item:
            place(row, [item.key] if item.key else list(item.nested_key), parsed(item.value_json))
    media = lambda name: path.parent / "files" / row[name]["path"]
    pushed, settings, clips = (json.loads(media(name).read_text()) for name in ("figures", "settings", "clips"))
    with page.with_suffix(".csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert pushed["columns"] == list(written[0]) and len(pushed["data"]) == len(written) == 2
    assert pushed["data"][1][pushed["columns"].index("change")] == pytest.approx(float(written[1]["change"]))
    assert settings["data"] == [["model.width", "3", "5"], ["trainer.callbacks.EMA.decay", "0.1", "0.2"]]
    assert len(clips["data"]) == 16 and clips["columns"] == ["run", "clip", "psnr"]
    assert media("page").read_text() == page.read_text() and project == "heads" and "artifact" in " ".join(map(str, kinds)) + str(
        list(path.parent.rglob("*")))


def test_where_to():
    assert target_of("team/heads") == ("team", "heads") and target_of("heads") == (None, "heads")
    for wrong in ("", "a/b/c", "a b", "/a"):
        with pytest.raises(InputError, match="entity/project"):
            target_of(wrong)
