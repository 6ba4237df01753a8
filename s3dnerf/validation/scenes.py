"""What is examined: clips of people who were never trained on, rendered by the model."""
from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Callable, Optional

import numpy as np
import torch
from torch import Tensor

from s3dnerf.data.detection import FaceDetector
from s3dnerf.data.module import make_clip, shard_paths
from s3dnerf.data.shards import read_people
from s3dnerf.errors import DatasetError
from s3dnerf.face import LIPS, MESH_POINTS
from s3dnerf.losses import landmark_pixels, lip_weights
from s3dnerf.models.one_shot import S3DNeRF
from s3dnerf.networks.lip_sync import LipSyncDiscriminator
from s3dnerf.progress import Progress
from s3dnerf.types import Appearance, Clip, Motion, Rendering, TensorRecord, Window

FRAMES = 25
"""frames of a clip that are looked at: a second"""
LATE = 25
"""frames after the photo at which they begin, where the clip is long enough: a photo is its own neighbours' best copy"""
EVERY = 2
"""of the frames driven by tracked lips, which need not be neighbours"""
LIP_WINDOW = 80 / 256
"""side of the window around the lips, frames"""


@dataclass(frozen=True)
class Shown(TensorRecord):
    """What is kept of a rendering."""

    image: Tensor
    """[1, T, 3, H, W]"""
    raw: Tensor
    """[1, T, 3, h, w]"""
    opacity: Tensor
    """[1, T, 1, h, w]"""
    depth: Tensor
    """[1, T, 1, h, w]"""

    @classmethod
    def of(cls, rendering: Rendering) -> "Shown":
        """The part of a rendering that checks want."""
        return cls(rendering.image.clamp(0, 1), rendering.raw, rendering.opacity, rendering.depth)


@dataclass(frozen=True)
class Scene:
    """A clip [1, T], its photo as the model has encoded it, and the clip rendered again from the photo."""

    clip: Clip
    person: str
    appearance: Appearance
    by_speech: Shown
    """[1, T]"""
    by_lips: Shown
    """[1, T / EVERY]: every `EVERY`th frame, driven by the tracked lips of the recording"""

    @property
    def recorded(self) -> Clip:
        """The frames that `by_lips` shows."""
        return frames_of(self.clip, slice(None, None, EVERY))


@dataclass(frozen=True)
class Subject:
    """A talking head, the clips that it is examined on, and who knows about lips."""

    model: S3DNeRF
    scenes: list[Scene]
    teacher: Optional[LipSyncDiscriminator] = None
    """the lip-sync expert that the model was trained with"""
    judge: Optional[LipSyncDiscriminator] = None
    """another one, which only judges"""
    people: tuple[str, ...] = ()
    """of the shards"""
    trained_on: Optional[tuple[str, ...]] = None
    """people of the training shards"""
    track: Callable[[Tensor, bool], Tensor] = field(default_factory=lambda: find_faces)
    """finds landmarks, as `find_faces` does"""


def read_clips(model: S3DNeRF, folder: str, count: int, frames: int = FRAMES) -> list[tuple[str, Clip]]:
    """(person, clip [1, frames]) of `count` clips, as many people as there are first, their first frames as photos.

    DatasetError where no clip is long enough or the frames have another size than the model's.
    """
    people = read_people(folder)
    places = _spread(shard_paths(folder), frames + 1)[:count]
    if not places:
        raise DatasetError(f"no clip in {folder} has {frames + 1} frames; prepare longer ones")
    found, progress = [], Progress("reading clips", len(places), "clips")
    for person, path, key in places:
        sample = _read_sample(path, key)
        info = json.loads(sample["json"])
        if info["size"] != model.image_size:
            raise DatasetError(f"found frames of {info['size']} pixels in {folder}; these weights render "
                               f"{model.image_size}: make shards with --size {model.image_size}")
        first = min(info["n_frames"] - frames, LATE)
        speech = "mel" if model.arguments["speech"] == "mel" else "aud"
        clip = make_clip(sample, people, list(range(first, first + frames)), 0, "all", speech)
        found.append((person, Clip.stack([clip])))
        progress.advance()
    progress.finish()
    return found


def _spread(paths: list[str], least: int) -> list[tuple[str, str, str]]:
    """(person, shard, key) of all clips of `least` frames or more: every person's first, then every person's second ..."""
    clips: dict[str, list] = {}
    for path in paths:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    info = json.load(tar.extractfile(member))
                    if info["n_frames"] >= least:
                        clips.setdefault(info["person"], []).append((info["person"], path, member.name[:-len(".json")]))
    return [clip for rank in zip_longest(*(clips[person] for person in sorted(clips))) for clip in rank if clip]


def _read_sample(path: str, key: str) -> dict[str, bytes]:
    """The fields of one sample of a shard."""
    with tarfile.open(path) as tar:
        fields = {member.name[len(key) + 1:]: tar.extractfile(member).read() for member in tar
                  if member.name.startswith(key + ".")}
    return fields | {"__key__": Path(key).name}


@torch.no_grad()
def film(model: S3DNeRF, person: str, clip: Clip) -> Scene:
    """A clip [1, T] rendered from its photo, driven by its speech and by its tracked lips."""
    appearance = model.with_detail(model.encode(clip.portrait))
    some = frames_of(clip, slice(None, None, EVERY))
    spoken = Shown.of(model.render(appearance, model.drive(clip.speech), clip.cameras))
    return Scene(clip, person, appearance, spoken, Shown.of(model.render(appearance, by_lips(model, some), some.cameras)))


def by_lips(model: S3DNeRF, clip: Clip) -> Motion:
    """Motion of a clip's tracked lips and eyes."""
    return model.drive_face(model.face_code.driving(clip.mesh, clip.mean_mesh[:, None]))


def frames_of(clip: Clip, index) -> Clip:
    """Some of the frames of a clip [B, T]; `index` along T."""
    along = ("frames", "head", "mouth", "cameras", "mesh", "speech", "mel")
    return replace(clip, **{name: getattr(clip, name)[:, index] for name in along})


def whole(clip: Clip) -> Window:
    """The window that is the full frame."""
    zero = torch.zeros(len(clip.keys))
    return Window(zero, zero, *clip.frames.shape[-2:])


def around_lips(model: S3DNeRF, clip: Clip) -> Window:
    """A window around the mean place of the lips."""
    size = model.image_size
    unit = max(4, model.stride)
    side = max(unit, round(size * LIP_WINDOW / unit) * unit)
    centre = landmark_pixels(clip.mesh, clip.cameras, whole(clip))[:, :, list(LIPS)].mean((1, 2))
    corner = (centre - side / 2).round().clamp(0, size - side)
    return Window(corner[:, 0], corner[:, 1], side, side)


def lip_box(clip: Clip, window: Window) -> Tensor:
    """[1, T, 1, h, w] in {0, 1}: the box around the lips, pixels of the window."""
    return lip_weights(landmark_pixels(clip.mesh, clip.cameras, window)[:, :, list(LIPS)], window, 2.0) - 1


def head_mask(clip: Clip, size: int) -> Tensor:
    """[1, T, 1, size, size] in [0, 1]: the head."""
    return torch.nn.functional.interpolate(clip.head.flatten(0, 1), size=(size, size), mode="area")[None]


def find_faces(images: Tensor, still: bool) -> Tensor:
    """Landmarks [T, 478, 2], in pixels, of images [T, 3, H, W]; NaN where there is no face. `still`: they are unrelated."""
    pictures = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    nobody = np.full((MESH_POINTS, 2), np.nan)
    with FaceDetector(still=still) as detector:
        found = [(detector.faces(picture) or [nobody])[0] for picture in pictures]
    return torch.from_numpy(np.stack(found)).float()
