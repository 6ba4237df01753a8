"""The routes of videos: make, follow, fetch, cancel, delete."""
from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import replace
from typing import AsyncIterator, Optional

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from s3dnerf.service.jobs import Inputs, Job, new_id
from s3dnerf.service.messages import Declaration
from s3dnerf.service.options import consent, flag, options
from s3dnerf.service.schema import ERRORS, GALLERY, KEY, VIDEO_FORM, VideoJob, VideoList, gives
from s3dnerf.service.settings import Refusal
from s3dnerf.service.state import Form, Service

router = APIRouter(prefix="/v1/videos", responses=ERRORS, dependencies=KEY, tags=["videos"])
LOOK, QUIET = 0.2, 10.0
"""seconds between two looks at a video, and after which an event stream says that it is still there"""


def service_of(request) -> Service:
    """The service that a request is for."""
    return request.app.state.service


def gallery(request) -> Optional[str]:
    """The name under which a client keeps its videos together. Refusal for one that could be guessed."""
    name = request.headers.get("x-gallery")
    if name is not None and not re.fullmatch("[A-Za-z0-9_-]{16,64}", name):
        raise Refusal(400, "bad_request", "found an X-Gallery of another form; expected 16 to 64 letters, digits, - and _")
    return name


@router.post("", status_code=202, response_model=VideoJob, openapi_extra=VIDEO_FORM | GALLERY)
async def make(request: Request, response: Response):
    """Makes a video; it is queued, and its address is in `Location`."""
    service, owner = service_of(request), gallery(request)
    service.book.reserve()
    job_id = new_id()
    folder = service.book.folder / job_id
    try:
        folder.mkdir(mode=0o700)
        form = await service.read(request, VIDEO_FORM, folder)
        job = service.book.add(await _job(service, form, Job, job_id, folder, owner))
    except BaseException:
        await asyncio.to_thread(_remove, folder)
        raise
    finally:
        service.book.release()
    service.crew.fill()
    response.headers["location"] = f"/v1/videos/{job.id}"
    return service.book.status(job)


async def _job(service: Service, form: Form, kind, id: str, folder, owner) -> Job:
    """The record of a request, its uploads decoded."""
    statement, keep, label = consent(form.fields), flag(form.fields, "keep"), flag(form.fields, "label")
    chosen = options(form.fields)
    if "speech" not in form.files and "drive_file" not in form.files:
        raise Refusal(422, "missing", "found neither speech nor drive_file; send a recording")
    inputs: Inputs = await service.speaker(form, folder)
    if inputs.photo is not None and inputs.photo.path.parent != folder:  # one that was left, and may go before its turn
        own = folder / f"{new_id()}.npy"
        os.link(inputs.photo.path, own)
        inputs.photo = replace(inputs.photo, path=own)
    if inputs.person is not None and chosen.frame == "full":
        raise Refusal(422, "invalid_option", "found frame full; a learned person has the square around the head alone")
    inputs.speech = await service.decoded(form, "sound", "speech", folder)
    inputs.backdrop = await service.decoded(form, "image", "background_file", folder)
    if "pose_file" in form.files:
        with open(form.files["pose_file"], "rb") as file:
            path = file.read(64).lstrip()[:1] == b"{"
        name = "pose.json" if path else "pose.mp4"
        inputs.files[name] = await service.decoded(form, "path" if path else "video", "pose_file", folder, name[4:])
    if "drive_file" in form.files:
        inputs.files["drive.mp4"] = await service.decoded(form, "video", "drive_file", folder, ".mp4")
    declaration = Declaration(statement, inputs.photo.digest if inputs.photo else "", label)
    return kind(id, folder, inputs, chosen, declaration, owner, keep)


def _remove(folder) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


@router.get("", response_model=VideoList, openapi_extra=GALLERY)
async def every(request: Request):
    """The videos that were made with the same `X-Gallery`, newest first."""
    book, owner = service_of(request).book, gallery(request)
    return {"videos": [book.status(job) for job in reversed(list(book)) if owner is not None and job.gallery == owner]}


@router.get("/{id}", response_model=VideoJob)
async def status(request: Request, id: str):
    """How far a video is."""
    book = service_of(request).book
    return book.status(book.find(id))


@router.get("/{id}/events", response_class=StreamingResponse, responses=gives("text/event-stream"))
async def events(request: Request, id: str):
    """Server-sent events `job`: the video, at once and whenever it changes, until it has ended."""
    book = service_of(request).book
    job = book.find(id)
    return StreamingResponse(_changes(book, job), media_type="text/event-stream", headers={"cache-control": "no-store"})


async def _changes(book, job: Job) -> AsyncIterator[str]:
    told, quiet = None, 0.0
    while True:
        status = book.status(job)
        if status != told:
            told, quiet = status, 0.0
            yield f"event: job\ndata: {json.dumps(status)}\n\n"
        elif quiet > QUIET:
            quiet = 0.0
            yield ": still here\n\n"
        if job.over or job.id not in book.jobs:
            return
        await asyncio.sleep(LOOK)
        quiet += LOOK


@router.get("/{id}/video", response_class=FileResponse, responses=gives("video/mp4"))
async def video(request: Request, id: str, stream: bool = False, download: bool = False):
    """The MP4; with `stream`, as fragments while it is rendered."""
    book = service_of(request).book
    job = book.find(id)
    if stream and not job.over:
        return StreamingResponse(_fragments(book, job), media_type="video/mp4", headers={"cache-control": "no-store"})
    if job.state != "done":
        advice = "make another" if job.over else "wait until it is done"
        raise Refusal(409, "conflict", f"the video is {job.state}; {advice}")
    name = f"s3dnerf-{job.id[:6]}.mp4" if download else None  # several may lie in one folder
    return FileResponse(job.video, media_type="video/mp4", filename=name, headers={"cache-control": "private, no-store"})


async def _fragments(book, job: Job) -> AsyncIterator[bytes]:
    """The fragmented file, as it grows; where it was made anew after a crash, what was sent before is all there is."""
    while not job.over and not job.stream.exists():
        await asyncio.sleep(LOOK / 2)
    path = job.stream if job.stream.exists() else job.video
    if not path.exists():
        return
    attempt = job.attempts
    with open(path, "rb") as file:
        while True:
            over = job.over or job.attempts != attempt or job.id not in book.jobs
            if part := file.read(1 << 16):
                yield part
            elif over:
                return
            else:
                await asyncio.sleep(LOOK / 2)


@router.get("/{id}/preview.jpg", response_class=Response, responses=gives("image/jpeg"))
async def preview(request: Request, id: str):
    """The newest frame."""
    job = service_of(request).book.find(id)
    if job.preview is None:
        raise Refusal(404, "not_found", "no frame is there yet; try again in a moment")
    return Response(job.preview, media_type="image/jpeg", headers={"cache-control": "no-store"})


@router.post("/{id}/cancel", response_model=VideoJob)
async def cancel(request: Request, id: str):
    """Gives a video up that waits or is being made."""
    service = service_of(request)
    job = service.book.find(id)
    if job.over:
        raise Refusal(409, "conflict", f"the video is {job.state} already")
    service.crew.cancel(job)
    return service.book.status(job)


@router.delete("/{id}", status_code=204)
async def delete(request: Request, id: str):
    """Gives a video up where it is not done, and deletes every file of it."""
    service = service_of(request)
    job = service.book.find(id)
    if not job.over:
        service.crew.cancel(job)
    service.book.delete(job)
    return Response(status_code=204)
