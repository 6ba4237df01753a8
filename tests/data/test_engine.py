"""Many jobs at once: each is done, in processes of its own, and what goes wrong is told."""
import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from s3dnerf.data.engine import THREADS, each_done
from s3dnerf.errors import DependencyError, S3DNeRFError


def mark(folder, job):
    """Leaves a file that says which process did the job, on how many threads."""
    (Path(folder) / f"{job}.txt").write_text(f"{os.getpid()} {os.environ.get(THREADS[0])}")


def test_one_worker_is_this_process(tmp_path):
    assert sum(1 for _ in each_done(partial(mark, tmp_path), range(3), workers=1)) == 3
    assert {path.read_text().split()[0] for path in tmp_path.iterdir()} == {str(os.getpid())}
    assert list(each_done(partial(mark, tmp_path), [])) == []


def test_a_worker_that_is_killed_is_an_error_in_one_line_and_not_a_wait():
    with pytest.raises(S3DNeRFError, match="a worker was killed.*goes on where it stopped"):
        list(each_done(signal.raise_signal, [signal.SIGKILL, signal.SIGKILL], workers=2))


def test_what_a_job_raises_is_raised():
    with pytest.raises(ValueError, match="invalid literal"):
        list(each_done(int, ["1", "x", "2"], workers=2))


def test_processes_have_one_thread_unless_the_user_says_otherwise(tmp_path, monkeypatch):
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    script = tmp_path / "environment.txt"
    command = f'echo "$OMP_NUM_THREADS $OPENBLAS_NUM_THREADS" > {script}'
    list(each_done(os.system, [command, "true"], workers=2))
    assert script.read_text().split() == ["1", "1"] and THREADS[0] not in os.environ


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match=r"pip install 's3dnerf\[ray\]'"):
        list(each_done(int, ["1"], "ray"))
