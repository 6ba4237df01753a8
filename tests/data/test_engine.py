"""Many jobs at once: each is done, in processes of its own, and what goes wrong is told."""
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from s3dnerf.cores import THREADS
from s3dnerf.data.engine import AHEAD, KILLED, each_done, in_order
from s3dnerf.errors import DependencyError, InputError, S3DNeRFError


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


KILLED_PARENT = """
import sys
from functools import partial
from test_engine import stay
from s3dnerf.data.engine import each_done, in_order
if __name__ == "__main__":
    start = {"each_done": partial(each_done, workers=2), "in_order": partial(in_order, workers=2)}[sys.argv[2]]
    list(start(partial(stay, sys.argv[1]), [0, 1]))
"""


def stay(folder, job):
    """Leaves the number of its process, and takes an hour."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(3600)


@pytest.mark.parametrize("start", ["each_done", "in_order"])
def test_workers_end_where_the_program_is_killed(tmp_path, start):
    script, found = tmp_path / "program.py", tmp_path / "found"
    found.mkdir()
    script.write_text(KILLED_PARENT)
    places = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    program = subprocess.Popen([sys.executable, str(script), str(found), start], env=os.environ | {"PYTHONPATH": places})
    workers = lambda: [int(path.name) for path in found.iterdir()]
    try:
        assert waited(lambda: len(workers()) == 2)
    finally:
        program.kill()
        program.wait()
    gone = waited(lambda: not any(map(alive, workers())), 60)
    for process in filter(alive, workers()):
        os.kill(process, signal.SIGKILL)
    assert gone


def alive(process):
    """Whether a process is there, and no zombie that nobody asks for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def waited(true, seconds=240):
    """Whether something came true in time."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


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


@pytest.mark.parametrize("address", ["", "nowhere"])
def test_an_address_without_a_cluster_is_told_in_a_line(monkeypatch, address):
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=f"no Ray cluster at RAY_ADDRESS={address} .*unset it"):
        list(each_done(int, ["1"], "ray"))


def meet(folder, job):
    """Who does the job, once two have begun one; the first jobs take longest."""
    (Path(folder) / str(os.getpid())).touch()
    begin = time.monotonic()
    while len(list(Path(folder).iterdir())) < 2 and time.monotonic() < begin + 240:
        time.sleep(0.01)
    time.sleep(0.2 * (job == 0))
    return job, os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


def test_results_come_in_order_from_workers_that_take_turns_with_a_device_each(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    asked = []
    jobs = (asked.append(job) or job for job in range(12))
    results = in_order(partial(meet, tmp_path), jobs, workers=2, devices=2)
    found = [next(results)]
    assert len(asked) == 2 * AHEAD  # memory does not grow
    found += results
    assert [job for job, _, _ in found] == list(range(12))
    devices = {process: device for _, process, device in found}
    assert len(devices) == 2 and os.getpid() not in devices and set(devices.values()) == {"0", "1"}


def test_a_worker_has_a_device_of_those_that_the_program_was_left(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5")
    assert list(in_order(os.getenv, ["CUDA_VISIBLE_DEVICES"], workers=1, devices=2)) == ["2"]


def test_a_worker_that_is_killed_ends_what_waits_for_results():
    with pytest.raises(S3DNeRFError, match=KILLED):
        list(in_order(signal.raise_signal, [signal.SIGKILL, signal.SIGKILL], workers=1))


def test_what_a_job_raises_is_raised_where_its_result_is_asked_for():
    results = in_order(int, ["1", "x", "2"], workers=1)
    assert next(results) == 1
    with pytest.raises(ValueError, match="invalid literal"):
        next(results)
    with pytest.raises(DependencyError), pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        list(in_order(int, ["1"], "ray"))
