"""What every request passes: limits on its body, keys, origins, and the headers of every answer."""
from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
import time
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from s3dnerf.service.settings import Refusal, Settings

COOKIE = "s3dnerf"
LINGER = 3.0
"""seconds for which a request that was answered before its end is still read"""
OPEN = ("/v1/limits", "/v1/logout")
"""below /v1, without a key"""
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-cache",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-opener-policy": b"same-origin",
    b"permissions-policy": b"camera=(self), microphone=(self), geolocation=()",
    b"content-security-policy": b"default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; "
                                b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}


class Gate:
    """ASGI middleware around the whole service; a request that is refused here reaches nothing else.

    Args:
        app: what is behind it.
        settings: of the service.
        refused: called with the code of every refusal.
    """

    def __init__(self, app, settings: Settings, refused=lambda code: None):
        self.app, self.settings, self.refused = app, settings, refused
        self.secret = secrets.token_bytes(32)

    async def __call__(self, scope, receive, send):
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = {name.lower(): value for name, value in scope["headers"]}
        try:
            self._check(scope, headers)
        except Refusal as refusal:
            return await self._refuse(scope, receive, send, refusal)
        if scope["type"] == "websocket":
            return await self.app(scope, receive, send)
        body = Body(receive, self.settings)
        await self.app(scope, body, Answer(send, body))

    def _check(self, scope, headers: dict[bytes, bytes]) -> None:
        """Refusal for a request that is not to be served."""
        self._check_origin(scope, headers)
        if scope["path"].startswith("/v1") and scope["path"] not in OPEN and scope.get("method") != "OPTIONS" \
                and not self.admitted(headers):
            raise Refusal(401, "unauthorized", "a key is wanted; send it in the header X-API-Key")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.settings.max_upload:
            raise too_large(self.settings)

    def _check_origin(self, scope, headers: dict[bytes, bytes]) -> None:
        """Pages of other sites, and other names that point here, are kept out unless they are listed."""
        host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
        try:
            named, place = urlsplit("//" + host).hostname, urlsplit(origin).netloc
        except ValueError:
            raise Refusal(400, "bad_request", "found a Host or an Origin that is no address") from None
        if self.settings.hosts and named not in self.settings.hosts:
            raise Refusal(400, "bad_request", f"found the host {host[:80]!r}; expected one of {', '.join(self.settings.hosts)}")
        changes = scope["type"] == "websocket" or scope.get("method") not in ("GET", "HEAD", "OPTIONS")
        if origin and changes and place != host and origin not in self.settings.origins:
            raise Refusal(403, "forbidden_origin", f"pages of {origin[:80]} may not use this service; it was started without "
                                                   "--origin for them")

    def admitted(self, headers: dict[bytes, bytes]) -> bool:
        """Whether a request brings the key, or the cookie that stands for it."""
        if self.settings.api_key is None:
            return True
        given = headers.get(b"x-api-key", b"")
        if hmac.compare_digest(given, self.settings.api_key.encode()):
            return True
        try:
            cookie = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode("latin-1", "replace"), self.token().encode())

    def token(self) -> str:
        """The cookie that stands for the key, until the service ends."""
        return hmac.new(self.secret, (self.settings.api_key or "").encode(), hashlib.sha256).hexdigest()

    async def _refuse(self, scope, receive, send, refusal: Refusal) -> None:
        self.refused(refusal.code)
        if scope["type"] == "websocket":
            await receive()
            return await send({"type": "websocket.close", "code": 4000 + refusal.status % 1000, "reason": refusal.message[:120]})
        content, answer = json.dumps(refusal.body()).encode(), Answer(send, Body(receive, self.settings))
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await answer({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await answer({"type": "http.response.body", "body": content})


class Body:
    """A request's body, refused as soon as it is too large or too late."""

    def __init__(self, receive, settings: Settings):
        self.receive, self.settings, self.size, self.over = receive, settings, 0, False  # over: read to its end
        self.until = time.monotonic() + settings.upload_seconds

    async def __call__(self):
        if self.over:  # whoever waits for the client to go away may wait
            return await self.receive()
        try:
            message = await asyncio.wait_for(self.receive(), max(0.01, self.until - time.monotonic()))
        except asyncio.TimeoutError:
            raise Refusal(408, "too_slow", f"the body did not arrive within {self.settings.upload_seconds:g} s") from None
        if message["type"] == "http.request":
            self.size += len(message.get("body", b""))
            self.over = not message.get("more_body", False)
            if self.size > self.settings.max_upload:
                raise too_large(self.settings)
        return message


    async def drain(self) -> None:
        """Reads on for a while and throws it away."""
        until, size = time.monotonic() + LINGER, 0
        while not self.over and size <= self.settings.max_upload:
            try:
                message = await asyncio.wait_for(self.receive(), max(0.01, until - time.monotonic()))
            except asyncio.TimeoutError:
                return
            self.over = message["type"] != "http.request" or not message.get("more_body", False)
            size += len(message.get("body", b""))


def too_large(settings: Settings) -> Refusal:
    """What is said of a body beyond the limit."""
    return Refusal(413, "too_large", f"the request is larger than {settings.max_upload >> 20} MB; send a smaller photo, or a "
                                     "shorter or compressed recording")


class Answer:
    """An answer, with the headers of every answer. Where the request has not been read to its end, what is left of it is thrown
    away for a while before the connection is closed: a client that still sends would lose the answer otherwise."""

    def __init__(self, send, body: Body):
        self.send, self.body, self.closes = send, body, False

    async def __call__(self, message):
        if message["type"] == "http.response.start":
            given = list(message.get("headers", []))
            there = {name.lower() for name, _ in given}
            self.closes = not self.body.over
            added = {**HEADERS, b"connection": b"close"} if self.closes else HEADERS
            message["headers"] = [*given, *((name, value) for name, value in added.items() if name not in there)]
        elif self.closes and not message.get("more_body", False):
            await self.send({**message, "more_body": True})
            await self.body.drain()
            message = {**message, "body": b""}
        await self.send(message)
