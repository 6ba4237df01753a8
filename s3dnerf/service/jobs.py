"""The videos that the service makes: their records, their folders, and how long they stay."""
from __future__ import annotations

import secrets
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from s3dnerf.service.messages import Declaration, Options
from s3dnerf.service.settings import Refusal, Settings
from s3dnerf.service.uploads import Decoded

ENDED = ("done", "failed", "cancelled")
ATTEMPTS = 2
"""of a video that was rendered beside others when its worker died; the second time it is rendered alone"""


def new_id() -> str:
    """A name that nobody can guess."""
    return secrets.token_urlsafe(16)


@dataclass
class Inputs:
    """What a video is made from."""

    photo: Optional[Decoded] = None
    person: Optional[str] = None
    """folder of a learned person's weights"""
    speech: Optional[Decoded] = None
    files: dict[str, Decoded] = field(default_factory=dict)
    """pose.mp4 or pose.json, drive.mp4"""
    backdrop: Optional[Decoded] = None


@dataclass
class Job:
    """A video, from its request to its end."""

    id: str
    folder: Path
    inputs: Inputs
    options: Options
    declaration: Declaration
    gallery: Optional[str] = None
    keep: bool = False
    created: float = field(default_factory=time.time)
    state: str = "queued"
    stage: str = "queued"
    done: int = 0
    total: Optional[int] = None
    rate: Optional[float] = None
    size: Optional[tuple[int, int]] = None
    remarks: tuple[str, ...] = ()
    error: Optional[dict] = None
    ended: Optional[float] = None
    version: int = 0
    """grows with every change"""
    attempts: int = 0
    alone: bool = False
    """whether it is rendered beside no other"""
    preview: Optional[bytes] = None

    @property
    def over(self) -> bool:
        """Whether it is done, failed or cancelled."""
        return self.state in ENDED

    @property
    def video(self) -> Path:
        """The complete file."""
        return self.folder / "video.mp4"

    @property
    def stream(self) -> Path:
        """The fragmented file that grows while it is rendered."""
        return self.folder / "stream.mp4"

    def change(self, **values) -> None:
        """Sets fields."""
        for name, value in values.items():
            setattr(self, name, value)
        self.version += 1

    def end(self, state: str, error: Optional[dict] = None) -> None:
        """Ends it; uploads go, unless they were to be kept."""
        self.change(state=state, stage=state, error=error, ended=time.time())
        self.stream.unlink(missing_ok=True)  # who reads it has it open
        if not self.keep:
            self.forget_uploads()

    def forget_uploads(self) -> None:
        """Deletes what was sent."""
        uploads = [self.inputs.photo, self.inputs.speech, self.inputs.backdrop, *self.inputs.files.values()]
        for upload in filter(None, uploads):
            if upload.path.parent == self.folder:  # a kept face and a stored person belong to others
                upload.path.unlink(missing_ok=True)

    def status(self, position: Optional[int], keep_seconds: float) -> dict:
        """What clients are told."""
        url = f"/v1/videos/{self.id}"
        left = (self.total - self.done) / self.rate if self.total and self.rate else None
        running = self.state == "running"
        return {"id": self.id, "state": self.state, "stage": self.stage, "position": position, "frames_done": self.done,
                "frames_total": self.total, "frames_per_second": self.rate and round(self.rate, 2),
                "seconds_left": round(left, 1) if running and left is not None else (0.0 if self.state == "done" else None),
                "width": self.size and self.size[0], "height": self.size and self.size[1], "remarks": list(self.remarks),
                "error": self.error, "created": self.created,
                "expires": None if self.ended is None else self.ended + keep_seconds, "url": url, "events_url": f"{url}/events",
                "video_url": f"{url}/video", "preview_url": f"{url}/preview.jpg"}


class JobBook:
    """All videos of a server, in a folder in which each has its own.

    Args:
        settings: of the service.
        folder: is made, and emptied.
    """

    def __init__(self, settings: Settings, folder: Path):
        self.settings, self.folder, self.jobs, self.reserved = settings, folder, {}, 0
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)

    def __iter__(self):
        return iter(list(self.jobs.values()))

    def find(self, id: str) -> Job:
        """A video by its id. Refusal where there is none."""
        job = self.jobs.get(id)
        if job is None:
            raise Refusal(404, "not_found", "no such video; it may have expired or been deleted")
        return job

    @property
    def queue(self) -> list[Job]:
        """Those that wait, the first first."""
        return [job for job in self.jobs.values() if job.state == "queued"]

    def position(self, job: Job) -> Optional[int]:
        """From 1 on; None where it does not wait."""
        return self.queue.index(job) + 1 if job.state == "queued" else None

    def status(self, job: Job) -> dict:
        """What clients are told of a video."""
        return job.status(self.position(job), self.settings.keep_seconds)

    def reserve(self) -> None:
        """Keeps a place in the queue while a request is read. Refusal where it is full."""
        waiting = len(self.queue)
        if waiting + self.reserved >= self.settings.queue:
            rates = [job.total / job.rate for job in self.jobs.values() if job.state == "running" and job.total and job.rate]
            seconds = max(1, min(60, round(sum(rates) / len(rates)) if rates else 2))
            raise Refusal(429, "busy", f"{waiting} videos wait already; try again in {seconds} s", seconds)
        self.reserved += 1

    def release(self) -> None:
        """Gives a reserved place back."""
        self.reserved -= 1

    def add(self, job: Job) -> Job:
        """Puts a video at the end of the queue."""
        self.jobs[job.id] = job
        return job

    def delete(self, job: Job) -> None:
        """Forgets a video and deletes every file of it."""
        self.jobs.pop(job.id, None)
        job.version += 1
        shutil.rmtree(job.folder, ignore_errors=True)

    def expire(self) -> None:
        """Deletes what ended long enough ago, and the first of what is too many."""
        ended = sorted((job for job in self if job.over), key=lambda job: job.ended)
        many = len(ended) - self.settings.most_videos
        for place, job in enumerate(ended):
            if place < many or time.time() - job.ended > self.settings.keep_seconds:
                self.delete(job)
