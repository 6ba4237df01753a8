"""The verb `serve`: the application behind a web server of its own."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from s3dnerf.errors import DependencyError, InputError
from s3dnerf.service.settings import Settings

LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(settings: Settings, host: str, port: int, ray: bool = False) -> None:
    """Serves until it is interrupted, with `ray` over its cluster. InputError for settings that cannot work, DependencyError
    without the extra `serve`, and for a certificate without the extra `c2pa`."""
    try:
        import uvicorn

        from s3dnerf.service.app import create_app
        from s3dnerf.service.deployment import deploy
    except ImportError as error:
        raise DependencyError(f"the service needs {error.name}; run `pip install 's3dnerf[serve]'`") from None
    from s3dnerf.marking.manifest import signer_of
    from s3dnerf.marking.marks import Marks
    from s3dnerf.models.hub import find_weights

    find_weights(settings.weights)
    marks = Marks(certificate=settings.certificate, key=settings.key)
    if marks.certificate is not None:
        signer_of(marks.certificate, marks.key)
    key = settings.api_key or ""
    if not (key.isascii() and key.isprintable() and key == key.strip()):
        raise InputError("S3DNERF_API_KEY has what no header can bring; expected ASCII letters, digits and signs, and no space at "
                         "either end")
    if settings.people is not None and not Path(settings.people).is_dir():
        raise InputError(f"no folder {settings.people} of people; make it, or leave --people out")
    if host in LOCAL:
        settings = replace(settings, hosts=LOCAL)
    elif settings.api_key is None:
        print(f"s3dnerf: note: everybody who reaches {host} may use the service; set S3DNERF_API_KEY to ask for a key")
    print(f"s3dnerf: serving on http://{host}:{port}", flush=True)
    if ray:
        return deploy(settings, host, port)
    uvicorn.run(create_app(settings), host=host, port=port, log_level="warning", timeout_keep_alive=15, limit_concurrency=512,
                ws_max_size=65_536, server_header=False, timeout_graceful_shutdown=5)
