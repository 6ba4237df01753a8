"""A process that renders for the service, and the server's end of it."""
from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

from s3dnerf.allocator import give_back_freed_memory, keep_freed_memory
from s3dnerf.errors import InputError, S3DNeRFError
from s3dnerf.service.messages import Failed, Finished, Full, Ready, Touching
from s3dnerf.service.settings import Settings

TIDY = 10.0
"""seconds after which a worker that has nothing to do looks what it may forget"""
AGAIN = 60.0
"""seconds after which a worker that takes too much memory says so again"""


def main(pipe, settings: Settings, folder: str, device: str) -> None:
    """The process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server says when to end
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    keep_freed_memory()
    work(pipe, settings, folder, device)


def work(pipe, settings: Settings, folder: str, device: str) -> None:
    """Renders until the pipe is closed at its other end, or too much memory is taken."""
    from s3dnerf.service.renderer import Renderer

    try:
        renderer = Renderer(settings, Path(folder), device)
        room = Room(settings.worker_bytes)
        pipe.send(Ready(os.getpid()))
        while True:
            while pipe.poll(0 if renderer.busy else TIDY):
                for message in renderer.take(pipe.recv()):
                    pipe.send(message)
            ended = False
            for message in renderer.step():
                pipe.send(message)
                ended |= isinstance(message, (Finished, Failed))
            renderer.identities.forget()
            if ended:  # what is kept has holes, in which the next video, of another size, finds no room
                give_back_freed_memory()
            taken = room.exceeded()
            if taken > 2 * room.size:
                print(f"s3dnerf: a worker took {taken >> 20} MB and has been ended", file=sys.stderr)
                return
            if taken:
                pipe.send(Full(taken))
    except S3DNeRFError as error:  # of loading; what goes wrong with a video is told of that video
        pipe.send(Failed("", "weights", str(error)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    finally:
        pipe.close()


class Room:
    """The memory that this process may take.

    Args:
        size: bytes; InputError where as much is taken already.
    """

    def __init__(self, size: int, now: Callable[[], float] = time.monotonic):
        import psutil

        self.size, self.now, self.told = size, now, -math.inf
        self.process = psutil.Process()
        if self.taken() > size:
            raise InputError(f"a worker takes {self.taken() >> 20} MB with nothing to do; give --worker-memory more than "
                             f"{size >> 20}, about twice that")

    def taken(self) -> int:
        """Bytes that are resident."""
        return self.process.memory_info().rss

    def exceeded(self) -> int:
        """The bytes that are taken where they are too many, even after free ones were given back; else, and for a while after
        that was told, 0."""
        if self.taken() <= self.size:
            return 0
        give_back_freed_memory()
        taken, now = self.taken(), self.now()
        if taken <= self.size or now - self.told < AGAIN and taken <= 2 * self.size:
            return 0
        self.told = now
        return taken


class Worker:
    """A worker process, seen from the server's event loop.

    Args:
        settings: of the service.
        folder: of this worker alone; emptied when it ends.
        device: auto, cpu or cuda.
        hear: called in the event loop with every message, and with None when the process has ended.
    """

    def __init__(self, settings: Settings, folder: Path, device: str, hear: Callable[["Worker", object], None]):
        self.folder, self.device, self.hear = folder, device, hear
        self.ready, self.ended, self.touching, self.jobs, self.why = False, False, (), set(), ""
        self.loop = asyncio.get_running_loop()
        folder.mkdir(parents=True, exist_ok=True)
        self.sender = ThreadPoolExecutor(1, "to-worker")
        self.launch(settings)
        threading.Thread(target=self._listen, name="from-worker", daemon=True).start()

    def launch(self, settings: Settings) -> None:
        """Starts the process."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=main, args=(theirs, settings, str(self.folder), self.device), daemon=True)
        self.process.start()
        theirs.close()

    def send(self, command) -> None:
        """Sends a command, after those before it, without waiting."""
        self.sender.submit(self._send, command)

    def receive(self):
        """The next message; waits. EOFError or OSError where the process has ended."""
        return self.pipe.recv()

    def _send(self, command) -> None:
        try:
            self.pipe.send(command)
        except (OSError, ValueError):  # it has ended; the listener tells
            pass

    def _listen(self) -> None:
        while True:
            try:
                message = self.receive()
            except (EOFError, OSError):
                break
            self._tell(message)
        self.join()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._tell(None)

    def _tell(self, message) -> None:
        try:
            self.loop.call_soon_threadsafe(self._heard, message)
        except RuntimeError:  # the loop is closed
            pass

    def _heard(self, message) -> None:
        if isinstance(message, Ready):
            self.ready = True
        elif isinstance(message, Touching):
            self.touching = message.ids
            return
        elif isinstance(message, Failed) and not message.id:
            self.why = message.message
            print(f"s3dnerf: {message.message}", file=sys.stderr)
        elif message is None:
            self.ready, self.ended = False, True
        self.hear(self, message)

    def end(self) -> None:
        """Kills the process; what it was doing is lost."""
        self.process.kill()
        self.sender.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Waits until it is gone."""
        self.process.join(5)
