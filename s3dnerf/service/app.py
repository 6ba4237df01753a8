"""The web application: routes, error bodies, limits, keys, the page."""
from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

import s3dnerf
from s3dnerf.media import FPS, SAMPLE_RATE
from s3dnerf.service import glimpses, streaming, videos
from s3dnerf.service.crew import Crew
from s3dnerf.service.schema import ERRORS, KEY, LimitsBody
from s3dnerf.service.security import COOKIE, HEADERS, Gate
from s3dnerf.service.settings import Refusal, Settings
from s3dnerf.service.state import Service
from s3dnerf.service.uploads import IMAGES, SOUNDS

PAGE = Path(__file__).parent / "page"
EXAMPLE = {name: PAGE.parents[1] / "assets" / f"demo_{name}" for name in ("photo.jpg", "speech.wav")}
CODES = {400: "bad_request", 404: "not_found", 405: "not_found", 413: "too_large"}
NOTHING = "nothing answers this here; /openapi.json lists what does"


def create_app(settings: Settings, crew=Crew) -> FastAPI:
    """The service as an ASGI application; `app.state.service` is what it holds while it runs.

    Args:
        settings: how it is set up.
        crew: makes its workers, as `crew.Crew`.
    """
    @asynccontextmanager
    async def life(app: FastAPI):
        service = app.state.service = Service(settings, crew)
        app.state.gate.refused = lambda code: service.metrics.refused.labels(code).inc()
        await service.start()
        yield
        await service.stop()

    app = FastAPI(title="s3dnerf", version=s3dnerf.__version__, lifespan=life, docs_url=None, redoc_url=None,
                  description="A photo and a voice become a video.")
    app.state.gate = Gate(None, settings)
    for error in (Refusal, HTTPException, RequestValidationError):
        app.add_exception_handler(error, refuse)
    app.add_exception_handler(Exception, fail)
    for part in (videos.router, glimpses.router, streaming.router):
        app.include_router(part)
    _about(app)
    _keys(app, settings)
    _page(app)
    app.add_middleware(_Gated, gate=app.state.gate)
    if settings.origins:
        app.add_middleware(CORSMiddleware, allow_origins=list(settings.origins), allow_methods=["GET", "POST", "DELETE"],
                           allow_headers=["X-API-Key", "X-Gallery", "Range"], expose_headers=["Location", "Retry-After"])
    return app


class _Gated:
    """Puts the application's gate in front of it."""

    def __init__(self, app, gate: Gate):
        gate.app, self.gate = app, gate

    async def __call__(self, scope, receive, send):
        await self.gate(scope, receive, send)


def _page(app: FastAPI) -> None:
    """The page, and a photo and a voice to try it with."""
    @app.get("/example/{name}", include_in_schema=False)
    async def example(name: str):
        if name not in EXAMPLE:
            raise HTTPException(404, "no such example")
        return FileResponse(EXAMPLE[name], headers={"cache-control": "max-age=3600"})

    app.mount("/", StaticFiles(directory=PAGE, html=True))


def _about(app: FastAPI) -> None:
    """Routes about the service itself."""
    @app.get("/healthz", tags=["service"])
    async def healthz():
        """Whether the server answers."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: ERRORS[503]}, tags=["service"])
    async def readyz(request: Request):
        """Whether a worker has loaded its weights."""
        crew = request.app.state.service.crew
        if not crew.ready:
            raise Refusal(503, "not_ready", crew.why or "the weights are being loaded; try again in a moment", 2)
        return {"status": "ready"}

    @app.get("/metrics", response_class=PlainTextResponse, tags=["service"])
    def metrics(request: Request):
        """Figures for Prometheus."""
        service = request.app.state.service
        running = sum(job.state == "running" for job in service.book)
        text = service.metrics.text(len(service.book.queue), running, len(service.crew.sessions))
        return Response(text, media_type="text/plain; version=0.0.4")


def _keys(app: FastAPI, settings: Settings) -> None:
    """Routes about what is allowed."""
    @app.get("/v1/limits", response_model=LimitsBody, tags=["service"])
    async def limits():
        """What is too much."""
        return {"max_upload_bytes": settings.max_upload, "max_pixels": settings.max_pixels, "max_seconds": settings.max_seconds,
                "sample_rate": SAMPLE_RATE, "fps": FPS, "api_key": settings.api_key is not None,
                "image_types": [f"image/{kind.lower()}" for kind in IMAGES], "sound_types": list(SOUNDS.values())}

    @app.post("/v1/login", status_code=204, responses={401: ERRORS[401]}, dependencies=KEY, tags=["service"])
    async def login(request: Request):
        """Gives a cookie that stands for the key."""
        response = Response(status_code=204)
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, request.app.state.gate.token(), httponly=True, samesite="strict", secure=secure)
        return response

    @app.post("/v1/logout", status_code=204, tags=["service"])
    async def logout():
        """Takes the cookie away."""
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response


async def refuse(request: Request, error: Exception) -> JSONResponse:
    """The body of every error that is the client's, or time's."""
    if isinstance(error, RequestValidationError):
        told = error.errors()[0]
        error = Refusal(422, "invalid_option", f"found {'.'.join(map(str, told['loc'][1:]))}: {told['msg']}")
    elif isinstance(error, HTTPException):
        told = str(error.detail).splitlines()[0]
        told = NOTHING if told in ("Not Found", "Method Not Allowed") else told
        error = Refusal(error.status_code, CODES.get(error.status_code, "bad_request"), told)
    request.app.state.service.metrics.refused.labels(error.code).inc()
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return JSONResponse(error.body(), error.status, headers)


async def fail(request: Request, error: Exception) -> JSONResponse:
    """What a client sees of a mistake of ours; the log has the rest. It goes out past the gate, which adds headers else."""
    headers = {name.decode(): value.decode() for name, value in HEADERS.items()}
    headers["connection"] = "close"  # uvicorn closes it after an error, and who was not told sends the next request into it
    return JSONResponse(Refusal(500, "internal", "something went wrong; the service's log tells what").body(), 500, headers)
