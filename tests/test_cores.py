"""The cores are the job's own, not the machine's, and one worker keeps to one."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

from s3dnerf import cores
from s3dnerf.commands.preparing import prepare
from s3dnerf.cores import THREADS, keep_to_quota, one_thread_each, own_cores


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine of 64 cores, of which the job may run on some, under a quota."""
    def made(allowed, quota):
        for name in THREADS:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr("os.cpu_count", lambda: 64)
        monkeypatch.setattr("os.sched_getaffinity", lambda _process: set(range(allowed)), raising=False)
        monkeypatch.setattr(cores, "QUOTA", tmp_path / "cpu.max")
        if quota is not None:
            cores.QUOTA.write_text(f"{quota}\n")

    return made


@pytest.mark.parametrize("allowed, quota, own", [(64, None, 64), (4, None, 4), (64, "max 100000", 64), (64, "200000 100000", 2),
                                                 (64, "250000 100000", 3), (2, "800000 100000", 2), (64, "1000 100000", 1)])
def test_cores_are_those_of_the_job(machine, allowed, quota, own):
    machine(allowed, quota)
    assert own_cores() == own


@pytest.mark.parametrize("quota, users, told", [("300000 100000", None, "3"), ("max 100000", None, None), (None, None, None),
                                                ("300000 100000", "7", "7")])
def test_libraries_are_told_of_a_quota_and_of_nothing_else(machine, monkeypatch, quota, users, told):
    machine(64, quota)
    if users:
        monkeypatch.setenv(THREADS[0], users)
    keep_to_quota()
    assert os.environ.get(THREADS[0]) == told
    for name in THREADS:
        os.environ.pop(name, None)


def test_one_thread_is_for_as_long_as_it_was_said_and_the_user_s_word_stands(machine, monkeypatch):
    machine(64, None)
    monkeypatch.setenv(THREADS[0], "5")
    with one_thread_each():
        assert [os.environ[name] for name in THREADS] == ["5", "1", "1"]
    assert [os.environ.get(name) for name in THREADS] == ["5", None, None]


@pytest.mark.parametrize("workers, threads", [(1, "1"), (2, None), (None, None)])
def test_one_worker_of_prepare_is_one_core(machine, monkeypatch, workers, threads):
    machine(64, None)
    found = []
    monkeypatch.setattr("s3dnerf.data.prepare.prepare", lambda *_, **__: found.append(os.environ.get(THREADS[1])))
    prepare("manifest.tsv", "videos", "shards", workers=workers, lip_sync="none")
    assert found == [threads]


def test_libraries_are_loaded_after_the_verb_has_begun():
    code = "import sys, s3dnerf.commands, s3dnerf.cli, s3dnerf.cores; s3dnerf.cli.parser('prepare'); " \
           "sys.exit(bool({'numpy', 'torch', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0
