"""The service on a local Ray cluster: the same API."""
import contextlib
import json
import os
import socket
import time

import httpx
import pytest

from s3dnerf.service.settings import Settings


@pytest.fixture(scope="module")
def cluster(bundle, tmp_path_factory):
    """The address of a deployment. Ray ends what is slow to begin, and processes where a machine's memory is nearly full, whoever filled
    it: not here, where other tests have the machine too."""
    import ray
    from ray import serve

    from s3dnerf.service.deployment import NAME, deployment

    port = next(port for port in range(20_000 + os.getpid() % 10_000, 32_000) if free(port))
    folder = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")
        for check in ("READY", "HEALTH"):
            patch.setenv(f"RAY_SERVE_PROXY_{check}_CHECK_TIMEOUT_S", "120")
        ray.init("local", num_cpus=3, include_dashboard=False, log_to_driver=False, configure_logging=False,
                 object_store_memory=80 * 2 ** 20, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}})
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(deployment(Settings(bundle, ("cpu",), str(folder), spare=False)), name=NAME, route_prefix="/")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()
    ray.shutdown()


def free(port):
    """Whether nobody listens there; below those that the system gives to whoever asks for any, so that it stays so."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_the_same_api_over_a_cluster(cluster, photo, speech):
    with httpx.Client(base_url=cluster, timeout=240) as client:
        wait(lambda: patiently(lambda: client.get("/readyz")).status_code == 200)
        refused = patiently(lambda: client.post("/v1/videos", files={"photo": ("x", b"none"), "speech": ("x", speech)},
                                                data={"consent": "I am the person shown."}))
        assert refused.status_code == 415 and refused.json()["error"]["code"] == "unsupported_type"
        job = client.post("/v1/videos", files={"photo": ("x", photo), "speech": ("x", speech)},
                          data={"consent": "I am the person shown.", "frame": "face"})
        assert job.status_code == 202
        with client.stream("GET", job.json()["events_url"]) as events:
            told = [json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: ")]
        assert told[-1]["state"] == "done" and told[-1]["frames_done"] == 20, told[-1]
        assert client.get(job.json()["video_url"]).content[4:8] == b"ftyp"
        assert client.delete(job.json()["url"]).status_code == 204
        talk(cluster, client.post("/v1/faces", files={"photo": ("x", photo)}, data={"keep": "true"}).json()["id"])


def talk(cluster, face):
    """A session of no speech at all."""
    from websockets.sync.client import connect

    with connect(cluster.replace("http", "ws") + "/v1/stream") as link:
        link.send(json.dumps({"face": face, "consent": "I am the person shown.", "format": "jpeg"}))
        assert json.loads(link.recv())["type"] == "ready"


def patiently(ask, times=5):
    """What is answered; a cluster's proxy that has just begun may hang up."""
    for _ in range(times):
        with contextlib.suppress(httpx.TransportError):
            return ask()
        time.sleep(1)
    return ask()


def wait(condition, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def test_what_a_renderer_that_is_gone_has_left_is_deleted(tmp_path):
    import subprocess
    import sys

    from s3dnerf.service.deployment import own_folder

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for process in (gone.pid, os.getppid()):
        (tmp_path / str(process)).mkdir()
        (tmp_path / str(process) / "half.mp4").write_bytes(b"half")
    assert own_folder(tmp_path) == tmp_path / str(os.getpid())
    assert {path.name for path in tmp_path.iterdir()} == {str(os.getpid()), str(os.getppid())}


def test_a_cluster_does_jobs_in_order(cluster):
    """What renders the parts of a split video."""
    from functools import partial

    from s3dnerf.data.engine import in_order

    assert list(in_order(partial(pow, 2), range(9), "ray", workers=2)) == [2 ** number for number in range(9)]
