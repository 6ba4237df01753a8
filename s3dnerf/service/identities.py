"""Encoded photos, kept for as long as there is room, and on disk where that is asked for."""
from __future__ import annotations

import os
import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Callable, Optional

import numpy as np
import torch

from s3dnerf.data.cropping import CropBox
from s3dnerf.inference import Identity, TalkingHead
from s3dnerf.models.hub import digest
from s3dnerf.service.messages import Speaker
from s3dnerf.types import Appearance, Cameras, Portrait


class Identities:
    """The photos that a worker has encoded, by the hash of what was sent; the one used longest ago goes first.

    Args:
        head: the model that encodes.
        size: how many are kept in memory.
        seconds: after whose last use one is forgotten.
        folder: where they are kept for good, too; None keeps nothing.
        now: the time.
    """

    def __init__(self, head: TalkingHead, size: int, seconds: float, folder: Optional[str] = None,
                 now: Callable[[], float] = time.monotonic):
        self.head, self.size, self.seconds, self.now = head, size, seconds, now
        self.folder = None if folder is None else Path(folder)
        self.kept: OrderedDict[str, tuple[Identity, float]] = OrderedDict()
        self.encoded = 0
        self.weights = "" if folder is None else digest(head.model)[:16]  # encodings of one model are of no use to another

    def of(self, speaker: Speaker) -> Identity:
        """The photo, encoded. InputError for one that cannot be used."""
        self.forget()
        found = self.kept.pop(speaker.key, (None, 0.0))[0] or self._stored(speaker.key)
        if found is None:
            found = replace(self.head.identify(speaker.photo), source=speaker.key)
            self.encoded += 1
            self._store(speaker.key, found)
        self.kept[speaker.key] = found, self.now()
        while len(self.kept) > self.size:
            self.kept.popitem(last=False)
        return found

    def forget(self) -> None:
        """Drops what has not been used for long."""
        for key in [key for key, (_, used) in self.kept.items() if self.now() - used > self.seconds]:
            del self.kept[key]

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}-{self.weights}.pt"

    def _store(self, key: str, identity: Identity) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        appearance, box = identity.appearance.to("cpu"), identity.box
        portrait = appearance.portrait
        content = {"image": torch.from_numpy(np.array(identity.image)), "box": [box.left, box.top, box.side],
                   "remarks": list(identity.remarks), "planes": list(appearance.planes), "lattice": appearance.lattice,
                   "code": appearance.source_code, "detail": appearance.detail,
                   "portrait": [portrait.image, portrait.mask, portrait.cameras.camera_to_world, portrait.cameras.intrinsics,
                                portrait.mesh, portrait.person]}
        part = self._file(key).with_suffix(f".{os.getpid()}.part")
        torch.save(content, part)
        os.replace(part, self._file(key))

    def _stored(self, key: str) -> Optional[Identity]:
        if self.folder is None or not self._file(key).is_file():
            return None
        try:
            content = torch.load(self._file(key), map_location="cpu", weights_only=True)
            image, mask, pose, intrinsics, mesh, person = content["portrait"]
            portrait = Portrait(image, mask, Cameras(pose, intrinsics), mesh, person)
            appearance = Appearance(tuple(content["planes"]), content["lattice"], portrait, content["code"], content["detail"])
            return Identity(content["image"].numpy(), CropBox(*content["box"]), appearance.to(self.head.device),
                            content["remarks"], key)
        except Exception:  # a damaged file is encoded anew
            return None
