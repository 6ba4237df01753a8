"""The command: every stage of a real run, and of real training steps."""
import json

import pytest
import torch

from s3dnerf.benchmark.machine import Machine
from s3dnerf.benchmark.report import run
from s3dnerf.benchmark.training import StepMeter, report
from s3dnerf.cli import main
from s3dnerf.comparison.benchmark import read_benchmark
from s3dnerf.errors import InputError
from s3dnerf.statistics import RENDERING


def test_a_run_from_files_to_file_is_told_by_its_stages(tmp_path, capsys):
    found = {}
    for quality in ("best", "fast"):
        path = tmp_path / f"{quality}.json"
        assert main(["benchmark", "--seconds", "0.24", "--quality", quality, "--output", str(path)]) == 0
        found[quality] = json.loads(path.read_text())
        assert "ray march" in capsys.readouterr().out
    best = found["best"]
    stages = {stage["name"]: stage for stage in best["stages"]}
    assert {"load", "read", "tracking", "speech features", "encode identity", "encode video", "mux", *RENDERING} <= set(stages)
    assert best["frames"] == 6 and best["parameters"] == 1_095_190 and not any(path.suffix == ".mp4" for path in
                                                                               tmp_path.iterdir())
    for stage in map(stages.get, RENDERING):  # what each figure is depends on the machine, and on what else it does
        least = 1000 * Machine(**best["machine"]).least_seconds(1e9 * stage["giga_operations"], 1e6 * stage["megabytes"])
        assert stage["share"] == pytest.approx(least / stage["milliseconds"], rel=0.05, abs=0.01) and stage["megabytes"] > 0
    assert stages["load"]["share"] is None
    assert best["frame"]["giga_operations"] == pytest.approx(sum(stages[name]["giga_operations"] for name in RENDERING), abs=1e-3)
    assert min(stages[name]["share"] for name in RENDERING) < best["frame"]["share"] < max(stages[name]["share"] for name in RENDERING)
    read = read_benchmark(tmp_path / "best.json")  # what `compare` makes of it
    assert read.whole["ray march: milliseconds per frame"] == stages["ray march"]["milliseconds"] and read.config["quality"] == "best"
    assert {name.split(":")[0] for name in read.whole} >= {*stages, "a frame", "end to end", "first frame", "memory of process"}
    fast = {stage["name"]: stage for stage in found["fast"]["stages"]}
    assert fast["ray march"]["giga_operations"] < 0.4 * stages["ray march"]["giga_operations"]
    assert fast["motion field"]["giga_operations"] == stages["motion field"]["giga_operations"]


@pytest.mark.parametrize("options, word", [(dict(seconds=0.1), "--seconds"), (dict(training=["a.yaml"], steps=0), "--steps")])
def test_what_cannot_be_measured_is_named(options, word):
    settings = dict(weights="one-shot-256", photo=None, speech=None, seconds=1.0, quality="best", frame="face", device="cpu",
                    training=None, steps=2)
    with pytest.raises(InputError, match=word):
        run(**(settings | options))


class Steps:
    """A trainer's calls, with a loader that is as slow as it is told to be, by a clock that nothing else moves."""

    device, now = torch.device("cpu"), 0.0

    def perf_counter(self):
        return self.now

    def run(self, meter, steps, wait, work):
        class Batch:
            def __init__(self):
                self.rows = torch.zeros(5, 2)

        for index in range(steps):
            self.now += wait
            meter.on_train_batch_start(None, self, Batch(), index)
            self.now += work
            torch.ones(4, 4) @ torch.ones(4, 4)
            meter.on_train_batch_end(None, self, None, Batch(), index)


def test_steps_and_waiting_for_the_loader_are_told_apart(monkeypatch):
    meter, steps = StepMeter(4), Steps()
    monkeypatch.setattr("s3dnerf.benchmark.training.time", steps)
    steps.run(meter, 8, 0.03, 0.01)
    found = report(meter, torch.device("cpu"))
    assert found["images"] == 20 and found["loader_share"] == pytest.approx(0.75)
    assert found["giga_operations_per_step"] == 0 and meter.operations == 2 * 4 ** 3
    assert found["images_per_second"] == pytest.approx(20 / 0.16)
