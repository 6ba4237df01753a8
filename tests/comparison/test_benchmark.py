"""Benchmarks on one page: the figures that their files hold, each with its ratio to the first."""
import csv
import json

import pytest

from s3dnerf.cli import main
from s3dnerf.comparison.comparison import better, read_one
from s3dnerf.errors import InputError


def speaking(folder, name, quality, march, machine="paper", rate=10.0):
    """A file such as `s3dnerf benchmark` writes (tests/benchmark/test_report.py holds what it writes to these names)."""
    stage = lambda name, milliseconds, share: {"name": name, "seconds": milliseconds / 4, "milliseconds": milliseconds,
                                               "giga_operations": None, "megabytes": None, "share": share}
    report = {"frames": 250, "width": 256, "height": 256, "quality": quality, "weights": "w", "device": "cpu", "workers": 4,
              "seconds": {"ray march": march / 4}, "frames_per_second_rendering": 2 * rate, "frames_per_second_after_loading": rate,
              "frames_per_second_end_to_end": rate, "first_frame_seconds": 3.0, "total_seconds": 250 / rate, "parameters": 7,
              "memory": {"process_mb": 900.0}, "machine": {"name": machine, "threads": 4, "product": 1e11, "copy": 1e10},
              "stages": [stage("ray march", march, 0.25), stage("mux", 0.5, None)]}
    (folder / f"{name}.json").write_text(json.dumps(report))
    return str(folder / f"{name}.json")


def training(folder, name, images):
    report = {"steps": 4, "images": 48, "seconds": {"step": 48 / images, "loader wait": 0.5}, "images_per_second": images,
              "loader_share": 0.1, "giga_operations_per_step": 8.3, "share_of_peak": 0.02, "memory": {"process_mb": 900.0},
              "machine": {"name": "paper", "threads": 1, "product": 1e11, "copy": 1e10}}
    (folder / f"{name}.json").write_text(json.dumps(report))
    return str(folder / f"{name}.json")


def test_every_stage_has_its_ratio_on_the_page_and_in_the_table(tmp_path):
    files = [speaking(tmp_path, "best", "best", 120.0), speaking(tmp_path, "fast", "fast", 30.0, rate=25.0)]
    assert main(["compare", *files, "--output", str(tmp_path / "page.html")]) == 0
    with (tmp_path / "page.csv").open(newline="") as file:
        rows = {(row["run"], row["figure"]): row for row in csv.DictReader(file)}
    march = rows["fast", "ray march: milliseconds per frame"]
    assert float(march["mean"]) == 30 and float(march["ratio"]) == 0.25 and march["verdict"] == ""
    assert rows["best", "ray march: milliseconds per frame"]["ratio"] == ""
    assert float(rows["fast", "end to end: frames per second"]["ratio"]) == 2.5
    assert ("fast", "mux: share of roofline reached") not in rows  # it has none
    page = (tmp_path / "page.html").read_text()
    assert "<small>× 0.25</small>" in page and "250 frames on paper, 4 threads; 2.50 times as fast as the first, end to end" in page
    assert "<td>best</td><td>fast</td>" in page and "Wilcoxon" not in page and "different machines" not in page


def test_training_has_its_own_figures_and_other_machines_are_told(tmp_path):
    files = [training(tmp_path, "before", 2.0), training(tmp_path, "after", 3.0)]
    assert main(["compare", *files, "--output", str(tmp_path / "a.html")]) == 0
    assert "4 steps on paper, 1 thread; 1.50 times as fast as the first, in images per second" in (tmp_path / "a.html").read_text()
    files = [speaking(tmp_path, "here", "best", 120.0), speaking(tmp_path, "there", "best", 60.0, machine="stone")]
    assert main(["compare", *files, "--output", str(tmp_path / "b.html")]) == 0
    assert "Benchmarks of different machines" in (tmp_path / "b.html").read_text()


@pytest.mark.parametrize("figure, sign", [("ray march: milliseconds per frame", -1), ("end to end: frames per second", 1),
                                          ("first frame: seconds", -1), ("ray march: share of roofline reached", 1),
                                          ("memory of process: megabytes", -1), ("training: share of waiting", -1),
                                          ("training: GFLOP per step", 0)])
def test_what_is_better_is_known(figure, sign):
    assert better(figure) == sign


def test_another_json_is_no_benchmark(tmp_path):
    (tmp_path / "other.json").write_text('{"stages": []}')
    with pytest.raises(InputError, match="no evaluation report"):
        read_one(str(tmp_path / "other.json"), tmp_path)
