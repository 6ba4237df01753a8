"""How a service is set up, and the errors that it answers with."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from s3dnerf.errors import S3DNeRFError


@dataclass(frozen=True)
class Settings:
    """What whoever runs the service decides."""

    weights: str = "one-shot-256"
    """name, folder or checkpoint"""
    devices: tuple[str, ...] = ("auto",)
    """one worker process each"""
    folder: Optional[str] = None
    """where jobs lie while they live; None is a new temporary folder, deleted at the end"""
    people: Optional[str] = None
    """folder of stored people"""
    cache: Optional[str] = None
    """folder in which encoded photos are kept, too; None keeps them in memory alone"""
    api_key: Optional[str] = None
    """wanted from every request; None wants none"""
    certificate: Optional[str] = None
    """PEM chain that signs the manifest of every finished video, signer first; None is a development certificate"""
    key: Optional[str] = None
    """PEM private key of the certificate"""
    origins: tuple[str, ...] = ()
    """other sites whose pages may use the API"""
    hosts: tuple[str, ...] = ()
    """names under which the service is reached; () is any"""
    max_upload: int = 50 * 2 ** 20
    """bytes of a request's body"""
    max_pixels: int = 25_000_000
    """of an image"""
    max_seconds: float = 120.0
    """of speech and of recordings, and of a streamed session"""
    upload_seconds: float = 60.0
    """within which a body has to have arrived"""
    decode_seconds: int = 30
    """within which an upload has to be decoded"""
    decode_bytes: int = 2 ** 30
    """that its decoding may take"""
    queue: int = 16
    """jobs that wait"""
    share: int = 4
    """jobs that a worker renders side by side"""
    keep_seconds: float = 3600.0
    """after which an ended job and its files go"""
    face_seconds: float = 600.0
    """after whose last use a kept photo goes, and what a worker remembers of any"""
    identities: int = 16
    """encoded photos in a worker's memory"""
    identity_bytes: int = 2 ** 28
    """that they take together at most; the one used last may take more"""
    worker_bytes: int = 2 ** 32
    """resident memory beyond which a worker is replaced as soon as another has loaded; beyond twice as much it ends at once"""
    most_videos: int = 1000
    """ended videos that are kept; of more, the first that ended go before their time"""
    spare: bool = True
    """keeps one more worker loaded, which takes over at once where another dies"""


class Refusal(S3DNeRFError):
    """A request that is answered with an error.

    Args:
        status: of HTTP.
        code: for programs.
        message: one line, for people.
        retry_after: seconds after which another attempt makes sense.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: Optional[int] = None):
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after

    def __reduce__(self):
        return Refusal, (self.status, self.code, self.message, self.retry_after)

    def body(self) -> dict:
        """What the client gets."""
        return {"error": {"code": self.code, "message": self.message}}
