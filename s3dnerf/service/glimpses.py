"""The routes that look before a video is made: faces, previews, people."""
from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import Iterator

from fastapi import APIRouter, Request, Response

from s3dnerf.service.crew import speaker
from s3dnerf.service.jobs import Inputs
from s3dnerf.service.messages import Look, Preview
from s3dnerf.service.options import flag, options
from s3dnerf.service.schema import ERRORS, FACE_FORM, GALLERY, KEY, PREVIEW_FORM, FaceSeen, PeopleList, gives
from s3dnerf.service.settings import Refusal
from s3dnerf.service.uploads import load
from s3dnerf.service.videos import gallery, service_of

router = APIRouter(prefix="/v1", responses=ERRORS, dependencies=KEY, tags=["before"])
WAITING = 32
"""looks and previews that may wait"""


@contextmanager
def _room(service) -> Iterator[None]:
    """Holds one of the places of requests that are read, decoded and looked at."""
    if service.looking >= WAITING:
        raise Refusal(429, "busy", f"{WAITING} requests wait already; try again in 2 s", 2)
    service.looking += 1
    try:
        yield
    finally:
        service.looking -= 1


@router.post("/faces", response_model=FaceSeen, openapi_extra=FACE_FORM)
async def look(request: Request):
    """What is seen in a photo: the face, the square that the model sees, and warnings."""
    service = service_of(request)
    with _room(service):
        return await _look(service, request)


async def _look(service, request: Request) -> dict:
    form = await service.read(request, FACE_FORM, service.faces.folder)
    photo = None
    try:
        keep = flag(form.fields, "keep")
        photo = await service.decoded(form, "image", "photo", service.faces.folder)
        if photo is None:
            raise Refusal(422, "missing", "found no photo; send one as a file")
        content = await asyncio.to_thread(speaker, Inputs(photo=photo))
        seen = await service.crew.ask(lambda id: Look(id, content))
    except BaseException:
        form.discard()
        if photo is not None:
            photo.path.unlink(missing_ok=True)
        raise
    if keep:
        return {"id": service.faces.add(photo), **seen}
    photo.path.unlink(missing_ok=True)
    return {"id": None, **seen}


@router.delete("/faces/{id}", status_code=204)
async def forget(request: Request, id: str):
    """Forgets a photo that was kept."""
    service_of(request).faces.delete(id)
    return Response(status_code=204)


@router.post("/preview", response_class=Response, responses=gives("image/jpeg"), openapi_extra=PREVIEW_FORM | GALLERY)
async def preview(request: Request):
    """One frame, as JPEG. Where a newer request of the same `X-Gallery` has come in meanwhile, 409."""
    service, owner = service_of(request), gallery(request)
    with _room(service):
        return await _preview(service, request, owner)


async def _preview(service, request: Request, owner) -> Response:
    number = service.newest[owner] = service.newest.get(owner, 0) + 1
    form = await service.read(request, PREVIEW_FORM, service.root / "scratch")
    inputs, backdrop = None, None
    try:
        chosen = options(form.fields, None if form.fields.get("person") else "face")
        mouth = form.fields.get("mouth") or "rest"
        if mouth not in ("rest", "open"):
            raise Refusal(422, "invalid_option", f"found mouth {mouth[:40]!r}; expected rest or open")
        inputs = await service.speaker(form, service.root / "scratch")
        backdrop = await service.decoded(form, "image", "background_file", service.root / "scratch")
        who = await asyncio.to_thread(speaker, inputs)
        behind = None if backdrop is None else await asyncio.to_thread(load, backdrop)
    finally:
        form.discard()
        sent = [backdrop, inputs.photo if inputs and not (form.fields.get("face") or form.fields.get("person")) else None]
        for upload in filter(None, sent):
            upload.path.unlink(missing_ok=True)
    async with asyncio.Lock() if owner is None else service.turns.setdefault(owner, asyncio.Lock()):
        if owner is not None and number < service.newest.get(owner, number):
            raise Refusal(409, "conflict", "a newer preview was asked for meanwhile")
        picture = await service.crew.ask(lambda id: Preview(id, who, chosen, mouth == "open", behind))
    return Response(picture, media_type="image/jpeg", headers={"cache-control": "no-store"})


@router.get("/people", response_model=PeopleList)
async def people(request: Request):
    """Everybody whom the service knows."""
    known = service_of(request).people.known()
    return {"people": [{"name": name, "kind": "learned" if path.is_dir() else "photo"} for name, path in known.items()]}
