"""The same service over several machines: a Ray Serve deployment for the API, a Ray actor per renderer.

The API keeps records and files and is one replica, because it does next to nothing; the work is the renderers', which Ray places
wherever the cluster has room, and starts anew where one dies.
"""
from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

from s3dnerf.errors import DependencyError, InputError
from s3dnerf.service.crew import Crew
from s3dnerf.service.messages import Finished
from s3dnerf.service.settings import Settings
from s3dnerf.service.worker import Worker, work

NAME = "s3dnerf"
ONGOING = 512
"""requests that may be under way"""


class RemoteRenderer:
    """The actor: a renderer in a thread, and files sent by their content."""

    def __init__(self, settings: Settings, device: str):
        folder = own_folder(Path(tempfile.gettempdir()) / f"s3dnerf-renderers-{os.getuid()}")
        self.pipe, theirs = multiprocessing.Pipe()
        threading.Thread(target=work, args=(theirs, settings, str(folder), device), daemon=True).start()

    def take(self, command) -> None:
        """Passes a command on."""
        self.pipe.send(command)

    def messages(self):
        """What the renderer says, as it says it."""
        while True:
            try:
                message = self.pipe.recv()
            except EOFError:
                return
            if isinstance(message, Finished):
                path = Path(message.path)
                message = replace(message, path=None, content=path.read_bytes())
                path.unlink()
            yield message


def own_folder(root: Path) -> Path:
    """A new folder of this process in `root`, from which what processes that are gone have left is deleted: an actor is killed
    and cannot do it itself."""
    root.mkdir(mode=0o700, exist_ok=True)
    if root.is_symlink() or root.stat().st_uid != os.getuid():
        raise InputError(f"{root} belongs to somebody else; delete it")
    root.chmod(0o700)
    for left in root.iterdir():
        try:
            os.kill(int(left.name), 0)
        except (ProcessLookupError, PermissionError):  # gone, or its number is another user's now
            shutil.rmtree(left, ignore_errors=True)
        except ValueError:  # none of ours
            continue
    folder = root / str(os.getpid())
    folder.mkdir(exist_ok=True)
    return folder


class RayWorker(Worker):
    """A worker that is an actor of the cluster; see `worker.Worker`."""

    def launch(self, settings: Settings) -> None:
        """Asks the cluster for an actor."""
        import ray

        gpus = 1 if self.device == "cuda" else 0
        actor = ray.remote(num_cpus=1, num_gpus=gpus, max_concurrency=2)(RemoteRenderer)  # one that listens, one that tells
        self.actor = actor.remote(settings, self.device)
        self.messages = self.actor.messages.options(num_returns="streaming").remote()

    def receive(self):
        """See `worker.Worker`."""
        import ray

        try:
            return ray.get(next(self.messages))
        except (StopIteration, ray.exceptions.RayError):
            raise EOFError from None

    def _send(self, command) -> None:
        import ray

        try:
            ray.get(self.actor.take.remote(command))  # waits, so that commands keep their order
        except ray.exceptions.RayError:  # it has ended; the listener tells
            pass

    def end(self) -> None:
        """See `worker.Worker`."""
        import ray

        ray.kill(self.actor)
        self.sender.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Nothing to wait for."""


class RayCrew(Crew):
    """A crew whose workers are actors of the cluster."""

    kind = RayWorker


def deployment(settings: Settings):
    """The service as a Ray Serve application, for `ray.serve.run`. DependencyError without the extra `ray`."""
    try:
        from ray import serve
    except ImportError as error:
        raise DependencyError(f"several machines need {error.name}; run `pip install 's3dnerf[serve,ray]'`") from None

    def build():
        from s3dnerf.service.app import create_app

        return create_app(settings, RayCrew)

    return serve.deployment(name="api", num_replicas=1, max_ongoing_requests=ONGOING)(serve.ingress(build)()).bind()


def deploy(settings: Settings, host: str, port: int) -> None:
    """Serves over the cluster that this machine belongs to, or one of its own, until it is interrupted."""
    application = deployment(settings)
    import ray
    from ray import serve

    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    serve.start(http_options={"host": host, "port": port})
    serve.run(application, name=NAME, route_prefix="/")
    try:
        while True:
            time.sleep(3600)
    finally:
        serve.shutdown()
