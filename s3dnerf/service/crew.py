"""Who renders what: videos go from the queue to workers, and what workers say goes into the records."""
from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from pathlib import Path
from typing import Optional

from s3dnerf.service.jobs import ATTEMPTS, Inputs, Job, JobBook, new_id
from s3dnerf.service.messages import Advanced, Cancel, Failed, Finished, Full, Heard, Ready, Render, Seen, Speaker, Staged
from s3dnerf.service.metrics import Metrics
from s3dnerf.service.settings import Refusal, Settings
from s3dnerf.service.uploads import load
from s3dnerf.service.worker import Worker

CRASHED = {"code": "crashed", "message": "the renderer went away while it made this video; another attempt may work"}
GIVE_UP = 3
"""workers that may end in a row without having loaded their weights"""


class Crew:
    """The workers of a server, one per device, and a spare one; `kind` is what they are.

    Args:
        settings: of the service.
        book: the records.
        folder: in which workers work.
        metrics: what is counted.
    """

    kind = Worker

    def __init__(self, settings: Settings, book: JobBook, folder: Path, metrics: Metrics):
        self.settings, self.book, self.folder, self.metrics = settings, book, folder, metrics
        self.workers: list[Worker] = []
        self.spare: Optional[Worker] = None
        self.successors: dict[Worker, Worker] = {}
        """workers that load, and whose place they take: of one that has grown too large"""
        self.leaving: set[Worker] = set()
        """those, until they have finished what they began"""
        self.numbers, self.failures, self.closing = itertools.count(), 0, False
        self.answers: dict[str, asyncio.Future] = {}
        self.sending: set[asyncio.Future] = set()
        self.sessions: dict[str, asyncio.Queue] = {}
        self.places: dict[str, Worker] = {}
        """which worker has a video or a session"""

    def start(self) -> None:
        """Starts a worker per device."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.workers = [self._worker(device) for device in self.settings.devices]

    async def stop(self) -> None:
        """Ends all of them."""
        self.closing = True
        everyone = [*self.workers, *self.successors, *self.leaving, *filter(None, [self.spare])]
        for worker in everyone:
            worker.end()
        await asyncio.to_thread(lambda: [worker.join() for worker in everyone])
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def ready(self) -> bool:
        """Whether a worker has loaded its weights."""
        return any(worker.ready for worker in self.workers)

    @property
    def why(self) -> str:
        """Why none has, in a line; empty while they are loading."""
        return next((worker.why for worker in self.workers if worker.why), "")

    def _worker(self, device: str) -> Worker:
        return self.kind(self.settings, self.folder / f"worker-{next(self.numbers)}", device, self._hear)

    def fill(self) -> None:
        """Gives waiting videos to workers that have room."""
        for job in self.book.queue:
            free = [worker for worker in self.workers if worker.ready and self._room(worker, job)]
            if free:
                self._begin(job, min(free, key=lambda worker: len(worker.jobs)))
            elif job.alone:  # nothing overtakes it, or a worker would never be free
                return

    def _room(self, worker: Worker, job: Job) -> bool:
        beside = [self.book.jobs[id] for id in worker.jobs if id in self.book.jobs]
        if job.alone or any(other.alone for other in beside):
            return not worker.jobs
        return len(worker.jobs) < self.settings.share

    def _begin(self, job: Job, worker: Worker) -> None:
        job.change(state="running", stage="reading", attempts=job.attempts + 1)
        worker.jobs.add(job.id)
        self.places[job.id] = worker
        self.sending.add(task := asyncio.ensure_future(self._send(job, worker)))
        task.add_done_callback(self.sending.discard)

    async def _send(self, job: Job, worker: Worker) -> None:
        try:
            task = await asyncio.to_thread(render_task, job)
        except (OSError, ValueError):  # deleted meanwhile
            self._leave(job)
            if not job.over:
                job.end("failed", {"code": "internal", "message": "the uploads of this video are gone; send them again"})
            return
        if job.state == "running" and self.places.get(job.id) is worker:
            worker.send(task)

    def cancel(self, job: Job) -> None:
        """Ends a video that waits or runs."""
        worker = self.places.get(job.id)
        if worker is not None:
            worker.send(Cancel(job.id))
        job.end("cancelled")
        self.metrics.videos.labels("cancelled").inc()
        self._leave(job)

    def _leave(self, job: Job) -> None:
        worker = self.places.pop(job.id, None)
        if worker is not None:
            worker.jobs.discard(job.id)
            self._dismiss(worker)
        if not self.closing:
            asyncio.get_running_loop().call_soon(self.fill)

    async def ask(self, make, seconds: float = 60.0):
        """The answer to `Look` or `Preview`, which `make` makes of an id. Refusal where there is none."""
        worker, id = self._least(), new_id()
        future = self.answers[id] = asyncio.get_running_loop().create_future()
        self.places[id] = worker
        try:
            worker.send(make(id))
            return await asyncio.wait_for(future, seconds)
        except asyncio.TimeoutError:
            raise Refusal(503, "not_ready", "the renderer is too busy; try again later", 5) from None
        finally:
            self.answers.pop(id, None)
            self.places.pop(id, None)
            self._dismiss(worker)

    def listen(self, make) -> tuple[str, asyncio.Queue]:
        """Begins a session, which `make` makes of an id; what is said of it comes through the queue, None at the end."""
        worker, id = self._least(), new_id()
        queue = self.sessions[id] = asyncio.Queue()
        self.places[id] = worker
        worker.send(make(id))
        return id, queue

    def speak(self, id: str, sound: bytes, last: bool = False) -> None:
        """More speech of a session."""
        worker = self.places.get(id)
        if worker is not None:
            worker.send(Heard(id, sound, last))

    def hang_up(self, id: str) -> None:
        """Ends a session."""
        worker = self.places.pop(id, None)
        self.sessions.pop(id, None)
        if worker is not None:
            worker.send(Cancel(id))
            self._dismiss(worker)

    def _least(self) -> Worker:
        ready = [worker for worker in self.workers if worker.ready]
        if not ready:
            raise Refusal(503, "not_ready", self.why or "the weights are being loaded; try again in a moment", 3)
        return min(ready, key=lambda worker: len(worker.jobs))

    def _hear(self, worker: Worker, message) -> None:
        """What a worker says; None when it has ended."""
        if message is None:
            return self._lost(worker)
        if isinstance(message, Full):
            return self._relieve(worker)
        id = getattr(message, "id", "")
        if id in self.answers and not self.answers[id].done():
            if isinstance(message, Seen):
                self.answers[id].set_result(message.content)
            elif isinstance(message, Failed):
                status = 500 if message.code == "internal" else 422
                self.answers[id].set_exception(Refusal(status, message.code, message.message))
        elif id in self.sessions:
            self.sessions[id].put_nowait(message)
        elif id in self.book.jobs and self.places.get(id) is worker and not self.book.jobs[id].over:
            self._keep(worker, self.book.jobs[id], message)
        elif isinstance(message, Finished) and message.path:  # of a video that was cancelled meanwhile
            Path(message.path).unlink(missing_ok=True)
        if isinstance(message, Ready):
            self.failures = 0
            self._succeed(worker)
            if self.settings.spare and self.spare is None and not self.closing:
                self.spare = self._worker(self.settings.devices[0])
            self.fill()

    def _keep(self, worker: Worker, job: Job, message) -> None:
        """`_note`; a video that cannot be stored fails, and its worker goes on with others."""
        try:
            self._note(job, message)
        except OSError as error:
            worker.send(Cancel(job.id))
            if isinstance(message, Finished) and message.path:
                Path(message.path).unlink(missing_ok=True)
            job.end("failed", {"code": "internal", "message": f"the service cannot store the video ({error.strerror})"})
            self.metrics.videos.labels("failed").inc()
            self._leave(job)

    def _note(self, job: Job, message) -> None:
        """What is said of a video goes into its record."""
        if isinstance(message, Staged):
            job.change(stage=message.stage, total=message.frames or job.total, size=message.size or job.size,
                       remarks=message.remarks or job.remarks)
        elif isinstance(message, Advanced):
            self.metrics.frames.inc(message.done - job.done)
            append(job.stream, message.fragment)
            job.change(done=message.done, rate=message.rate, preview=message.preview or job.preview)
        elif isinstance(message, Finished):
            append(job.stream, message.fragment)
            if message.path:
                os.replace(message.path, job.video)
            else:
                job.video.write_bytes(message.content)
            self.metrics.finished(job, message.statistics)
            job.end("done")
            self._leave(job)
        elif isinstance(message, Failed):
            job.end("failed", {"code": message.code, "message": message.message})
            self.metrics.videos.labels("failed").inc()
            self._leave(job)

    def _relieve(self, worker: Worker) -> None:
        """Loads a worker in place of one that takes too much memory, which goes on until then."""
        if worker in self.workers and worker not in self.successors.values() and not self.closing:
            self.successors[self._worker(worker.device)] = worker

    def _succeed(self, worker: Worker) -> None:
        """A worker that has loaded takes its place; the one before it finishes what it began."""
        before = self.successors.pop(worker, None)
        if before is None:
            return
        if before in self.workers:
            self.workers[self.workers.index(before)] = worker
            self.metrics.replaced.inc()
        else:  # it has died meanwhile, and another has taken over
            before = worker
        self.leaving.add(before)
        self._dismiss(before)

    def _dismiss(self, worker: Worker) -> None:
        """Ends a worker that was replaced, once nothing is left of it to do."""
        if worker in self.leaving and worker not in self.places.values() and not self.closing:
            worker.end()

    def _lost(self, worker: Worker) -> None:
        """A worker has ended: what it was touching fails, the rest goes back to the queue, another worker takes over."""
        if self.closing:
            return
        for id, future in list(self.answers.items()):
            if self.places.get(id) is worker and not future.done():
                future.set_exception(Refusal(503, "crashed", "the renderer went away over this request; try again", 2))
        for id, queue in list(self.sessions.items()):
            if self.places.get(id) is worker:
                queue.put_nowait(Failed(id, "crashed", "the renderer went away; begin again"))
        for id in list(worker.jobs):
            if id in self.book.jobs and not self.book.jobs[id].over:
                self._crash(self.book.jobs[id], guilty=id in worker.touching, alone=len(worker.touching) < 2)
        if worker is self.spare:
            self.spare = None
            return
        if worker in self.leaving or self.successors.pop(worker, None):
            self.leaving.discard(worker)
            return self.fill()
        self.metrics.restarts.inc()
        self.failures += 0 if worker.jobs or self.spare else 1
        place = self.workers.index(worker)
        if self.spare is not None and self.spare.device == worker.device:
            self.workers[place], self.spare = self.spare, None
            if self.workers[place].ready and self.settings.spare:
                self.spare = self._worker(worker.device)
        elif self.failures < GIVE_UP:
            self.workers[place] = self._worker(worker.device)
        self.fill()

    def _crash(self, job: Job, guilty: bool, alone: bool) -> None:
        """A video whose worker has died: it fails where it was being touched alone, else it is made again."""
        self.places.pop(job.id, None)
        if guilty and (alone or job.attempts >= ATTEMPTS):
            job.end("failed", CRASHED)
            self.metrics.videos.labels("failed").inc()
            return
        job.stream.unlink(missing_ok=True)
        job.change(state="queued", stage="queued", done=0, rate=None, alone=job.alone or guilty)


def append(path: Path, content: bytes) -> None:
    """Adds to a file."""
    if content:
        with open(path, "ab") as file:
            file.write(content)


def speaker(inputs: Inputs) -> Speaker:
    """Who speaks, read from where uploads were decoded to."""
    return Speaker(None, inputs.person) if inputs.photo is None else Speaker(load(inputs.photo), inputs.photo.digest)


def render_task(job: Job) -> Render:
    """What a worker is sent."""
    inputs = job.inputs
    files = {name: decoded.path.read_bytes() for name, decoded in inputs.files.items()}
    return Render(job.id, speaker(inputs), None if inputs.speech is None else load(inputs.speech), job.options, job.declaration,
                  files, None if inputs.backdrop is None else load(inputs.backdrop))
