"""The figures of the loader, on shards whose drawing takes a known time, by a clock that nothing else moves."""
import sys
from types import SimpleNamespace

import pytest

from s3dnerf.data.module import ClipDataModule


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("loader_speed")


def test_speed_is_counted_in_examples_and_images(script, shards, monkeypatch):
    data = ClipDataModule(str(shards), frames=4, batch_size=2, images="none", workers=0, steps_per_epoch=1000)
    batches, now = data.train_dataloader(), [0.0]

    def slowly():
        batch = next(iter(batches))
        while True:
            now[0] += 0.05
            yield batch

    monkeypatch.setattr(data, "train_dataloader", slowly)
    monkeypatch.setattr(script, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    speed = script.measured(data, 0.49)
    assert speed.examples == pytest.approx(40) and speed.images == pytest.approx(160)
    assert speed.each == speed.images


@pytest.mark.parametrize("images, workers, need, count", [(100.0, 2, 200, 4), (100.0, 2, 201, 5), (300.0, 1, 200, 1), (50.0, 0, 200, 4)])
def test_workers_for_a_consumption(script, images, workers, need, count):
    assert script.needed(need, script.Speed(workers, images / 4, images)) == count


def test_it_prints_a_line_per_number_of_workers(script, shards, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["loader_speed.py", "--train", str(shards), "--workers", "0", "--seconds", "0.1",
                                      "--need", "1", "--images", "none", "--batch-size", "1"])
    script.main()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("workers 0:") and "4 clips found" in said[0] and "1 images a second need 1 workers" in said[1]
