"""Runs as the folders that training, ablations and evaluation leave, written by hand."""
import csv
import json

import numpy as np
import pytest
import yaml
from PIL import Image

from s3dnerf.media import VideoWriter


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_film(path, shade=90, frames=5):
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = 0.3 * np.sin(np.arange(frames * 640) / 9).astype(np.float32)
    with VideoWriter(path, 32, 32, sound=sound) as video:
        for _ in range(frames):
            video.write(np.full((32, 32, 3), shade, np.uint8))


@pytest.fixture(scope="session")
def write_run():
    """Makes a folder as `s3dnerf fit` does: a log, a table of clips at two validations, a configuration, a commit, and videos."""

    def write(folder, shift=0.0, clips=8, lr=0.1, first=0, films=("a",), **settings):
        rng = np.random.default_rng(7)
        log = [{"step": step, "train/total": 1 / (step + 1) + shift} for step in range(first, first + 60)]
        tables = []
        for step in (30, 60):
            rows = [{"step": first + step, "clip": f"clip{index}", "psnr": level + shift + 0.01 * rng.normal() + step / 60, "lpips": ""}
                    for index, level in enumerate(np.linspace(20, 30, clips))]
            mean = float(np.mean([row["psnr"] for row in rows]))
            log += [{"step": first + step - 1, "val/psnr": mean},
                    {"step": first + step - 1, "interval/psnr_low": mean - 1, "interval/psnr_high": mean + 1}]
            tables += rows
        write_rows(folder / "metrics.csv", log)
        write_rows(folder / "clips.csv", tables)
        model = {"class_path": "a.b.Model", "init_args": {"width": 3, "sizes": [1, 2]} | settings}
        config = {"model": model, "best": {"dirpath": str(folder / "checkpoints")},
                  "trainer": {"callbacks": [{"class_path": "x.EMA", "init_args": {"decay": lr}}, {"class_path": "x.Guard"}]}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "run.json").write_text(json.dumps({"git": {"commit": "0123456789abcdef", "dirty": bool(shift)}}))
        for name in films:
            for step in (30, 60):
                write_film(folder / "renderings" / f"clip-{name}-step{step:06d}-speech.mp4", shade=step)
                Image.fromarray(np.full((8, 8, 3), step, np.uint8)).save(
                    folder / "renderings" / f"clip-{name}-step{step:06d}-regions.png")
        return folder

    return write


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory, write_run):
    """A run, and one that is better in every clip by 0.5 and has another rate and width."""
    folder = tmp_path_factory.mktemp("runs")
    return [write_run(folder / "plain" / "version_0"), write_run(folder / "wide" / "version_0", shift=0.5, lr=0.2, width=5)]


@pytest.fixture(scope="session")
def write_report():
    """Makes a report as `s3dnerf evaluate` does."""

    def write(path, values, hash_="aaa"):
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"clip": clip, "frames": 30, "psnr": value, "lpips": None} for clip, value in values.items()]
        path.write_text(json.dumps({"protocol": {"version": 1, "hash": hash_, "settings": {"fps": 25}}, "clips": rows,
                                    "means": {}, "missing": {"lpips": "no network"}, "remarks": []}))
        return path

    return write
