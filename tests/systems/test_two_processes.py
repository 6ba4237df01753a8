"""Every kind of stage: two processes with a clip each find the losses and the gradient of one process with both clips."""
import datetime
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from s3dnerf.cli import lightning
from s3dnerf.curriculum import Stage, fitting, read_stages
from s3dnerf.systems.shared_draws import SharedDraws

ROOT = Path(__file__).parents[2]
ALIKE = ("judge", "dynamic", "full")
"""stages that differ from others in numbers alone"""
STAGES = {stage.name: stage for stage in read_stages(ROOT / "configs" / "stages.yaml") if stage.name not in ALIKE}
SMALL = {
    "trainer": {"accelerator": "cpu", "logger": False}, "data": {"init_args": {"size": 64, "workers": 0}},
    "model": {"init_args": {"model": {"init_args": {
        "image_size": 64, "encoder_channels": [8, 8], "plane_channels": 4, "width": 16, "modulation_channels": 6,
        "lattice": [8, 8, 4], "token_channels": 8, "speech_width": 16, "coarse_samples": 4, "fine_samples": 4,
        "feature_channels": 6, "super_resolution_channels": [8, 8]}}}}}
TERMS = {"lip_sync": {"contrast", "seen", "heard"}, "speech": {"code", "correlation"},
         "static": {"photometric", "edges", "flow"}, "sync": {"offset", "lip_sync"},
         "adversarial": {"photometric", "adversarial", "features", "critic"}}
"""what is looked at, at least, in some stages"""
STATE = 2
"""random state of the step; in this one speech drives where it may, and the window is on the lips"""


def built(stage: Stage, shards: Path, folder: Path):
    """A stage's system, the same in every process, and its data, as `s3dnerf train` stacks them."""
    path = folder / f"{stage.name}-{os.getpid()}.yaml"
    changes = deepcopy(fitting(SMALL, stage))
    if "one_shot.yaml" in stage.configs:
        changes["model"]["init_args"]["window"] = 32
    if not (stage.expert or stage.gate or stage.overlays):  # experts want many frames
        changes["data"]["init_args"]["frames"] = 2
    path.write_text(yaml.safe_dump(changes))
    options = {"data.init_args.train": shards, "data.init_args.people": "all"}
    options |= {"model.init_args.lip_sync": "one-shot-256"} if stage.expert else {}
    words = [word for name in (*stage.configs, path) for word in ("--config", str(ROOT / "configs" / name))]
    made = lightning([*words, *(word for name, value in options.items() for word in (f"--{name}", str(value)))], run=False)
    return made.model, made.datamodule


def step(system, data, rank: int, processes: int) -> tuple[dict, torch.Tensor]:
    """The terms of a training step of one of so many processes that have two clips together, and its gradient."""
    data.trainer = SimpleNamespace(global_rank=rank, world_size=processes, current_epoch=0)
    data.batch_size = 2 // processes
    terms: dict = {}
    system.log_terms = lambda _stage, found, _size: terms.update({name: value.item() for name, value in found.items()})
    clip = next(iter(data.train_dataloader()))
    system.zero_grad()
    torch.manual_seed(STATE)
    with SharedDraws(rank, processes):
        system.training_step(clip, 0).backward()
    own = [parameter for parameter in system.parameters() if parameter.requires_grad]
    return terms, torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in own])


def shared(rank: int, shards: Path, folder: Path) -> dict:
    """The terms of both processes, and the mean of their gradients that DDP takes, by stage."""
    store, patience = torch.distributed.FileStore(str(folder / "store"), 2), datetime.timedelta(seconds=400)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=patience)
    found = {}
    try:
        for name, stage in STAGES.items():
            system, data = built(stage, shards, folder)
            terms, gradient = step(system, data, rank, 2)
            parts: list = [None, None]
            torch.distributed.all_gather_object(parts, terms)
            torch.distributed.all_reduce(gradient)
            found[name] = parts, gradient / 2
    finally:
        torch.distributed.destroy_process_group()
    return found


@pytest.fixture(scope="module")
def two(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    words = [sys.executable, __file__, str(shards), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE) as other:
        try:
            found = shared(0, shards, folder)
        except RuntimeError:
            other.kill()
            raise AssertionError(other.stderr.read().decode()) from None
        assert other.wait(240) == 0
    return found


@pytest.mark.parametrize("name", STAGES)
def test_both_find_what_one_finds_with_all_clips(name, two, shards, tmp_path):
    terms, gradient = step(*built(STAGES[name], shards, tmp_path), 0, 1)
    parts, mean = two[name]
    assert parts[0].keys() == parts[1].keys() == terms.keys() >= TERMS.get(name, set()) and parts[0] != parts[1]
    for term, value in terms.items():
        assert (parts[0][term] + parts[1][term]) / 2 == pytest.approx(value, rel=2e-5, abs=1e-6), term
    assert gradient.norm() > 0 and (mean - gradient).norm() < 2e-4 * gradient.norm()


if __name__ == "__main__":
    torch.set_num_threads(1)
    shared(1, *map(Path, sys.argv[1:]))
