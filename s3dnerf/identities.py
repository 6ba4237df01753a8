"""Encoded photos, kept: in memory for as long as there is room, and on disk for the next time."""
from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Callable, Optional, Protocol, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from s3dnerf.data.cropping import CropBox
from s3dnerf.device import cache_folder
from s3dnerf.models.hub import digest
from s3dnerf.types import Appearance, TensorRecord

MEGABYTES = 256
"""that identities may take on disk; a photo takes three"""
PART = ".part"
"""ending of a file that is being written"""
OWN = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}\.(safetensors|.*\.part)")
"""names of the files that are kept or being written; others that lie beside them, such as weights, are not ours"""


@dataclass(frozen=True)
class Identity:
    """A photo that was looked at and encoded (`TalkingHead.identify`), for as many videos as are wanted."""

    image: np.ndarray
    """[H, W, 3] uint8: the photo"""
    box: CropBox
    """where the model looks"""
    appearance: Appearance
    """[1]"""
    remarks: list[str]
    """what the user should know of the photo"""
    source: str
    """SHA-256 of the photo's file, hexadecimal (`marks.photo_hash`)"""


class IdentityFolder:
    """Encoded photos on disk, found again by the photo's pixels and by everything that encodes them: weights, settings, the
    program's own code, the versions of the libraries, the device. The one used longest ago goes first.

    Files are safetensors: reading one runs nothing. One that is damaged or of something else is encoded anew. Each shows a
    face, so that files, and a folder that is made for them, are the user's alone.

    Args:
        folder: where they lie; made when it is first needed.
        model: that encodes them.
        device: that they are encoded on.
        megabytes: that all of them may take.
    """

    def __init__(self, folder: Path, model: nn.Module, device: torch.device, megabytes: float = MEGABYTES):
        self.folder, self.model, self.device, self.megabytes = Path(folder), model, device, megabytes

    @staticmethod
    def users_own() -> Optional[Path]:
        """In `cache_folder`; None for a user who has none."""
        folder = cache_folder()
        return folder and folder / "identities"

    def find(self, image: np.ndarray, source: str) -> Optional[Identity]:
        """The identity of a photo [H, W, 3] uint8; None where it is not there, or not whole."""
        from safetensors import safe_open

        path = self._file(image)
        try:
            with safe_open(str(path), "pt") as file:
                told = json.loads(file.metadata()["identity"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            if told["file"] != path.name:
                return None
            appearance = restored(Appearance, tensors).to(self.device)
            identity = Identity(image, CropBox(*told["box"]), appearance, list(told["remarks"]), source)
            with suppress(OSError):  # in a folder that may only be read
                os.utime(path)
            return identity
        except Exception:  # safetensors raises its own types for damaged files; a foreign one lacks what is looked for
            return None

    def keep(self, identity: Identity) -> None:
        """Writes an identity, whole or not at all, and deletes others where there is no room. OSError where it cannot."""
        from safetensors.torch import save

        path, box = self._file(identity.image), identity.box
        told = {"file": path.name, "box": [float(edge) for edge in (box.left, box.top, box.side)], "remarks": identity.remarks}
        tensors = {name: value.cpu().contiguous() for name, value in flat(replace(identity.appearance, occupancy=None))}
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        number, part = tempfile.mkstemp(PART, path.stem + ".", self.folder)  # only this user may read it
        part = Path(part)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(save(tensors, {"identity": json.dumps(told)}))
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        self._make_room(path)

    def _make_room(self, latest: Path) -> None:
        """Deletes what was used longest ago, never the latest, and what was never finished; of identities alone."""
        found = []
        for path in self.folder.iterdir():
            if not OWN.fullmatch(path.name):
                continue
            try:
                found.append((path.stat().st_mtime, path.stat().st_size, path))
            except FileNotFoundError:  # another program has made room
                continue
        total = sum(size for _, size, _ in found)
        for used, size, path in sorted(found):
            left_over = path.suffix == PART and time.time() - used > 3600
            if left_over or (path.suffix == ".safetensors" and path != latest and total > self.megabytes * 1e6):
                path.unlink(missing_ok=True)
                total -= size

    def _file(self, image: np.ndarray) -> Path:
        photo = hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes())
        return self.folder / f"{photo.hexdigest()[:32]}-{self._encoder}.safetensors"

    @cached_property
    def _encoder(self) -> str:
        """Hash of all that has a part in what a photo is encoded to."""
        total = hashlib.sha256(digest(self.model).encode())
        total.update(repr((sorted(self.model.arguments.items()), self.device.type)).encode())
        for library in ("torch", "mediapipe", "opencv-contrib-python", "opencv-contrib-python-headless", "numpy"):
            try:
                total.update(version(library).encode())
            except PackageNotFoundError:
                total.update(b"-")
        package = Path(__file__).parent
        parts = [*package.glob("*.py"), *package.glob("assets/*.np[yz]")]
        for part in ("data", "models", "networks", "rendering"):
            parts += package.glob(f"{part}/*.py")
        for path in sorted(parts):
            total.update(path.name.encode() + path.read_bytes())
        return total.hexdigest()[:32]


class Encoder(Protocol):
    """What encodes photos: `inference.TalkingHead`."""

    def identify(self, photo: np.ndarray) -> Identity:
        """The face of a photo, found and encoded."""


class Identities:
    """Encoded photos in memory, by a name that says which; the one used longest ago goes first.

    Args:
        head: what encodes them.
        size: how many are kept.
        seconds: after whose last use one is forgotten.
        now: the time.
        most: bytes that they take together; the one used last may take more.
    """

    def __init__(self, head: Encoder, size: int, seconds: float, now: Callable[[], float] = time.monotonic,
                 most: float = float("inf")):
        self.head, self.size, self.seconds, self.now, self.most = head, size, seconds, now, most
        self.kept: OrderedDict[str, tuple[Identity, float]] = OrderedDict()
        self.encoded = 0
        """how often one was asked of `head`"""

    def of(self, key: str, photo: np.ndarray) -> Identity:
        """The photo [H, W, 3] uint8 of that name, the hash of its file, encoded. InputError for one that cannot be used."""
        self.forget()
        found = self.kept.pop(key, (None, 0.0))[0]
        if found is None:
            found = replace(self.head.identify(photo), source=key)
            self.encoded += 1
        self.kept[key] = found, self.now()
        while len(self.kept) > self.size or len(self.kept) > 1 and sum(weight(one) for one, _ in self.kept.values()) > self.most:
            self.kept.popitem(last=False)
        return found

    def forget(self) -> None:
        """Drops what has not been used for long."""
        for key in [key for key, (_, used) in self.kept.items() if self.now() - used > self.seconds]:
            del self.kept[key]


def weight(identity: Identity) -> int:
    """Bytes of a photo that was encoded."""
    return identity.image.nbytes + sum(tensor.nbytes for _, tensor in flat(identity.appearance))


def flat(record: TensorRecord, before: str = "") -> list[tuple[str, Tensor]]:
    """The tensors of a record and of those in it, each with its place, such as portrait.mesh or planes.0."""
    found = []
    for field in fields(record):
        value, name = getattr(record, field.name), before + field.name
        if isinstance(value, TensorRecord):
            found += flat(value, name + ".")
        elif isinstance(value, tuple):
            found += [(f"{name}.{index}", part) for index, part in enumerate(value)]
        elif value is not None:
            found.append((name, value))
    return found


def restored(kind: type, tensors: dict[str, Tensor], before: str = "") -> TensorRecord:
    """The record of that kind whose tensors were made `flat`; KeyError where one is missing that has to be there."""
    values, hints = {}, get_type_hints(kind)
    for field in fields(kind):
        name, hint = before + field.name, hints[field.name]
        if isinstance(hint, type) and issubclass(hint, TensorRecord):
            values[field.name] = restored(hint, tensors, name + ".")
        elif hint is tuple:
            count = sum(1 for place in tensors if place.startswith(name + "."))
            values[field.name] = tuple(tensors[f"{name}.{index}"] for index in range(count))
        elif name in tensors or field.default is MISSING:
            values[field.name] = tensors[name]
    return kind(**values)
