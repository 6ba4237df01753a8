"""The scripts for clusters, with stand-ins for the scheduler's commands. tests/test_processes.py runs the one for torchrun."""
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

SCRIPTS = Path(__file__).parents[2] / "scripts" / "cluster"
STANDINS = {
    "scontrol": 'case "$1" in show) echo first; echo second;; *) echo "$@" >> "$NOTES/queued";; esac',
    "python": 'printf "%s\\n" "$@" > "$NOTES/asked.part"; for word; do case "$word" in *-??????.yaml) cat "$word" > "$NOTES/$(basename '
              '"$word" | cut -c1-7)";; esac; done; trap "echo ended > $NOTES/ended; kill %1; exit 143" TERM\n'
              'mv "$NOTES/asked.part" "$NOTES/asked"; eval "$THEN" & wait $!',
}


@pytest.fixture
def job(tmp_path):
    """Starts the SLURM script as a job of two machines with eight GPUs each, in which the training does something."""
    for name, does in STANDINS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "gpu[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_ID": "77",
             "NOTES": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def start(then):
        return subprocess.Popen(["bash", str(SCRIPTS / "slurm.sh"), "--train", "data"], env=os.environ | slurm | {"THEN": then},
                                cwd=tmp_path)

    return start


@pytest.mark.parametrize("name", ["torchrun.sh", "slurm.sh"])
def test_scripts_are_bash(name):
    assert subprocess.run(["bash", "-n", str(SCRIPTS / name)]).returncode == 0


@pytest.mark.parametrize("then, status", [("true", 0), ("exit 3", 3)])
def test_a_job_asks_for_processes_on_all_machines_and_ends_as_its_training(job, tmp_path, then, status):
    process = job(then)
    assert process.wait(240) == status and not (tmp_path / "queued").exists()
    asked = (tmp_path / "asked").read_text().splitlines()
    launch = asked[asked.index("--launch") + 1].split()
    assert asked[:3] == ["-m", "s3dnerf", "train"] and asked[-2:] == ["--train", "data"]
    assert launch[0] == "srun" and "torch.distributed.run" in launch and launch[-1] == "first:29500"
    assert [launch[launch.index(name) + 1] for name in ("--nnodes", "--nproc-per-node")] == ["2", "8"]
    assert yaml.safe_load((tmp_path / "s3dnerf").read_text()) == {"trainer": {"num_nodes": 2, "devices": 8}}
    assert not list(tmp_path.glob("*.yaml"))


def test_a_job_whose_time_is_over_ends_its_training_and_is_queued_again(job, tmp_path):
    process = job("sleep 60")
    while not (tmp_path / "asked").is_file() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(240) == 0
    assert (tmp_path / "ended").is_file() and (tmp_path / "queued").read_text() == "requeue 77\n"
