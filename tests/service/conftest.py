"""A service in this process, with a small model that has learned nothing, and files to send it."""
import asyncio
import io
import math
import multiprocessing
import os
import socket
import threading
import time
from contextlib import contextmanager
from importlib.resources import files

import numpy as np
import pytest

ASSETS = files("s3dnerf") / "assets"


@pytest.fixture(scope="session")
def bundle(tiny_head, tmp_path_factory):
    """Folder with the weights of `tiny_head`."""
    from s3dnerf.models.hub import save_model

    folder = tmp_path_factory.mktemp("weights") / "tiny"
    save_model(tiny_head, folder)
    return str(folder)


@pytest.fixture(scope="session")
def photo():
    """The demo photo, as a client sends it."""
    return (ASSETS / "demo_photo.jpg").read_bytes()


def as_wav(sound):
    """Samples [N] in [-1, 1] as a WAV file's content."""
    import wave

    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1), out.setsampwidth(2), out.setframerate(16000)
        out.writeframes((np.asarray(sound) * 32767).astype("<i2").tobytes())
    return file.getvalue()


def noise_of(seconds, seed=0):
    """Noise whose loudness changes four times a second, [N] of numbers that 16 bits hold."""
    time = np.arange(round(seconds * 16000)) / 16000
    noise = np.random.default_rng(seed).normal(0, 0.2, len(time)) * np.sin(2 * np.pi * 2 * time) ** 2
    return ((noise.clip(-1, 1) * 32767).round() / 32768).astype(np.float32)


@pytest.fixture(scope="session")
def speech():
    """0.8 s of noise, 20 frames, as a client sends it."""
    return as_wav(noise_of(0.8))


@pytest.fixture(scope="session")
def wav():
    """Makes the content of a WAV file of samples [N] in [-1, 1]."""
    return as_wav


@pytest.fixture(scope="session")
def babble():
    """Makes so many seconds of noise whose loudness changes."""
    return noise_of


@pytest.fixture(scope="session")
def serve():
    """Starts a service of some settings; workers are threads unless another crew is given."""
    started = []

    def start(settings, crew=None):
        started.append(Running(settings, crew or thread_crew()))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def thread_crew():
    """A crew whose workers are threads of this process, which need not load everything again."""
    from s3dnerf.service.crew import Crew
    from s3dnerf.service.worker import Worker, work

    class Thread(Worker):
        def launch(self, settings):
            self.pipe, theirs = multiprocessing.Pipe()
            self.thread = threading.Thread(target=work, args=(theirs, settings, str(self.folder), self.device), daemon=True)
            self.thread.start()

        def end(self):
            self.sender.shutdown(wait=True)
            with socket.socket(fileno=os.dup(self.pipe.fileno())) as both:  # wakes both ends up, as the end of a process does
                both.shutdown(socket.SHUT_RDWR)

        def join(self):
            self.thread.join(20)

    return type("ThreadCrew", (Crew,), {"kind": Thread})


@pytest.fixture(scope="session")
def hold():
    """Lets no video of workers in threads get further than about so many frames, however fast the machine is; what is yielded
    sets another number. Photos, views and cancellations are taken meanwhile."""
    from s3dnerf.service.renderer import Renderer

    @contextmanager
    def held(frames=math.inf):
        most, turn = [frames], Renderer._group

        def group(renderer):
            return [one for one in turn(renderer) if one.done < most[0]] or time.sleep(0.01) or []

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Renderer, "_group", group)
            yield lambda further: most.__setitem__(0, further)

    return held


class Running:
    """A service behind a real web server, in a thread."""

    consent, gallery = "I am the person shown.", "0123456789abcdef"

    def __init__(self, settings, crew=None):
        import httpx
        import uvicorn

        from s3dnerf.service.app import create_app
        from s3dnerf.service.crew import Crew

        self.app = create_app(settings, crew or Crew)
        own = socket.create_server(("127.0.0.1", 0))  # held from here on: nobody else gets the port
        self.port = own.getsockname()[1]
        self.server = uvicorn.Server(uvicorn.Config(self.app, log_level="error", ws_max_size=65536))
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve([own])), daemon=True)
        self.thread.start()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=120)
        self.until(lambda: self.server.started)

    @property
    def service(self):
        return self.app.state.service

    def until(self, condition, seconds=120):
        """Waits for something to hold, and returns it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := condition():
                return found
            time.sleep(0.02)
        raise AssertionError("waited in vain")

    def ready(self):
        self.until(lambda: self.client.get("/readyz").status_code == 200)
        return self

    def make(self, photo, speech, **fields):
        sent = {"photo": ("x", photo), "speech": ("x", speech)}
        return self.client.post("/v1/videos", files={name: file for name, file in sent.items() if file[1] is not None},
                                data={"consent": self.consent} | fields, headers={"X-Gallery": self.gallery})

    def ended(self, job):
        """The job, after it has ended."""
        return self.until(lambda: (found := self.client.get(job["url"]).json())["state"] in ("done", "failed", "cancelled")
                          and found)

    def stop(self):
        self.server.should_exit = True
        self.thread.join(120)
        self.client.close()


@pytest.fixture(scope="module")
def running(bundle, tmp_path_factory):
    """A service with a worker in a thread."""
    from s3dnerf.service.settings import Settings

    folder = tmp_path_factory.mktemp("service")
    people = tmp_path_factory.mktemp("people")
    (people / "eileen.jpg").write_bytes((ASSETS / "demo_photo.jpg").read_bytes())
    (people / "notes.txt").write_text("none")
    settings = Settings(bundle, folder=str(folder), people=str(people), max_seconds=4.0, queue=6, spare=False, max_upload=2 ** 21,
                        max_pixels=4_000_000, hosts=("127.0.0.1",), origins=("https://friend.example",))
    service = Running(settings, thread_crew())
    yield service.ready()
    service.stop()
    assert not list(folder.rglob("*")), "something was left on disk"
