"""The WebSocket of a session: speech comes in as it is spoken, a video leaves."""
from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from s3dnerf.media import SAMPLE_RATE
from s3dnerf.service.crew import speaker
from s3dnerf.service.messages import Declaration, Failed, Listen, Spoken
from s3dnerf.service.options import consent, known, options
from s3dnerf.service.settings import Refusal
from s3dnerf.service.videos import service_of

router = APIRouter()
MESSAGE = 32_000
"""bytes of speech in a message"""
FIRST = 10.0
"""seconds within which a client says what it wants"""
FIELDS = ("face", "person", "consent", "format", "frame", "camera", "eyes", "background", "pose", "mouth_gain", "seed")


@router.websocket("/v1/stream")
async def stream(socket: WebSocket):
    """A session."""
    service, id = service_of(socket), None
    await socket.accept()
    try:
        command = await _wanted(socket, service)
        if len(service.crew.sessions) >= service.settings.share:
            raise Refusal(429, "busy", f"{len(service.crew.sessions)} sessions are open already; try again later", 10)
        id, said = service.crew.listen(command)
        await _talk(socket, service, id, said)
    except Refusal as refusal:
        service.metrics.refused.labels(refusal.code).inc()
        with suppress(RuntimeError, WebSocketDisconnect):
            await socket.send_text(json.dumps({"type": "error", **refusal.body()}))
            await socket.close(4000 + refusal.status % 1000)
    except (WebSocketDisconnect, RuntimeError):  # the client went away
        pass
    finally:
        if id is not None:
            service.crew.hang_up(id)


async def _wanted(socket: WebSocket, service):
    """What the first message asks for: makes a `Listen` of an id. Refusal for what cannot be."""
    try:
        first = await asyncio.wait_for(socket.receive_text(), FIRST)
        fields = json.loads(first[:16_384])
        if not isinstance(fields, dict) or not all(isinstance(fields[name], (str, int, float, type(None))) for name in fields):
            raise ValueError
    except (asyncio.TimeoutError, ValueError, KeyError):
        raise Refusal(400, "bad_request", "expected a JSON object with face or person, consent and options as the first "
                                          "message") from None
    known(fields, FIELDS)
    named = [name for name in ("face", "person") if fields.get(name)]
    if len(named) != 1:
        raise Refusal(422, "missing", "expected exactly one of face and person")
    if fields.get("format", "mp4") not in ("mp4", "jpeg"):
        raise Refusal(422, "invalid_option", f"found format {str(fields['format'])[:40]!r}; expected mp4 or jpeg")
    statement, chosen = consent(fields), options(fields, "face")
    inputs = await service.named(named[0], str(fields[named[0]]))
    who = await asyncio.to_thread(speaker, inputs)
    declaration = Declaration(statement, inputs.photo.digest if inputs.photo else "")
    return lambda id: Listen(id, who, chosen, declaration, fields.get("format", "mp4"))


async def _talk(socket: WebSocket, service, id: str, said: asyncio.Queue) -> None:
    """Passes speech on and sends what comes back, until either ends."""
    hearing = asyncio.create_task(_hear(socket, service, id))
    speaking = asyncio.create_task(_speak(socket, said))
    done, pending = await asyncio.wait((hearing, speaking), return_when=asyncio.FIRST_COMPLETED,
                                       timeout=2 * service.settings.max_seconds + 60)
    for task in (hearing, speaking):
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()


async def _hear(socket: WebSocket, service, id: str) -> None:
    room = 2 * SAMPLE_RATE * (service.settings.max_seconds + 2)
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        sound = message.get("bytes")
        if sound is not None:
            if len(sound) > MESSAGE or len(sound) % 2:
                raise Refusal(413, "too_large", f"found a message of {len(sound)} bytes; expected an even number, {MESSAGE} at most")
            room -= len(sound)
            if room < 0:
                raise Refusal(413, "too_large", f"found more than {service.settings.max_seconds:g} s of speech; begin anew")
            service.crew.speak(id, sound)
        else:
            service.crew.speak(id, b"", last=True)


async def _speak(socket: WebSocket, said: asyncio.Queue) -> None:
    while True:
        message = await said.get()
        if isinstance(message, Failed):
            raise Refusal({"crashed": 503, "internal": 500}.get(message.code, 422), message.code, message.message)
        if not isinstance(message, Spoken):
            continue
        for part in message.parts:
            if part:
                await socket.send_bytes(part)
        if message.told is not None:
            await socket.send_text(json.dumps(message.told))
            if message.told["type"] == "end":
                await socket.close()
                raise WebSocketDisconnect(1000)
