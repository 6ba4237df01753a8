"""Photos that clients have left for a while, and people whom the service knows."""
from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from s3dnerf.service.jobs import new_id
from s3dnerf.service.settings import Refusal
from s3dnerf.service.uploads import IMAGES, Decoded, Sandbox

ENDINGS = (*IMAGES.values(), ".jpeg")


class People:
    """The folder of stored people: a folder is one who was learned, an image is a photo.

    Args:
        folder: None for nobody.
        sandbox: decodes the photos.
        scratch: where they are decoded to.
    """

    def __init__(self, folder: Optional[str], sandbox: Sandbox, scratch: Path):
        self.folder, self.sandbox, self.scratch = None if folder is None else Path(folder), sandbox, scratch
        self.decoded: dict[tuple[str, float], Decoded] = {}

    def known(self) -> dict[str, Path]:
        """Everybody by name. Names come from the folder alone, and a client's is only looked up among them."""
        if self.folder is None or not self.folder.is_dir():
            return {}
        found = sorted(path for path in self.folder.iterdir() if not path.name.startswith("."))
        learned = {path.name: path for path in found if path.is_dir() and (path / "model.safetensors").is_file()}
        return {path.stem: path for path in found if path.is_file() and path.suffix.lower() in ENDINGS} | learned

    def find(self, name: str) -> Path:
        """A learned person's folder or a photo. Refusal for somebody unknown."""
        path = self.known().get(name)
        if path is None:
            raise Refusal(404, "not_found", "no such person; GET /v1/people lists them")
        return path

    def photo(self, path: Path) -> Decoded:
        """A stored photo, decoded once; blocks."""
        key = str(path), path.stat().st_mtime
        if key not in self.decoded:
            copy = self.scratch / f"{new_id()}.upload"
            shutil.copyfile(path, copy)
            self.decoded[key] = self.sandbox.decode("image", f"photo of {path.stem}", copy, self.scratch / f"{new_id()}.npy")
        return self.decoded[key]


@dataclass
class Face:
    """A photo that a client has left."""

    photo: Decoded
    used: float = field(default_factory=time.monotonic)


class Faces:
    """Photos that clients have left, each until some time after its last use.

    Args:
        folder: where they lie.
        seconds: how long they stay.
        limit: how many there may be; the one used longest ago goes first.
    """

    def __init__(self, folder: Path, seconds: float, limit: int = 64):
        self.folder, self.seconds, self.limit = folder, seconds, limit
        self.kept: dict[str, Face] = {}

    def add(self, photo: Decoded) -> str:
        """Keeps a photo, and gives the id that stands for it."""
        while len(self.kept) >= self.limit:
            self.delete(min(self.kept, key=lambda id: self.kept[id].used))
        id = new_id()
        self.kept[id] = Face(photo)
        return id

    def find(self, id: str) -> Decoded:
        """The photo. Refusal where there is none."""
        face = self.kept.get(id)
        if face is None:
            raise Refusal(404, "not_found", "no such face; it may have expired: send the photo again")
        face.used = time.monotonic()
        return face.photo

    def delete(self, id: str) -> None:
        """Forgets a photo and deletes its file. Refusal where there is none."""
        self.find(id).path.unlink(missing_ok=True)
        del self.kept[id]

    def expire(self) -> None:
        """Deletes what has not been used for long."""
        for id in [id for id, face in self.kept.items() if time.monotonic() - face.used > self.seconds]:
            self.delete(id)
