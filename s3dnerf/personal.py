"""A person whose own video was learned from, speaking: where the head is and how wide its eyes are, frame by frame."""
from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Iterator, Optional, Union

import numpy as np
import torch
from torch import Tensor

from s3dnerf.camera_path import CameraPath
from s3dnerf.data.body import track_body
from s3dnerf.data.cropping import cut
from s3dnerf.data.tracking import Track, segment
from s3dnerf.face import COLLAR, opening_of
from s3dnerf.geometry import rigid_inverse
from s3dnerf.media import read_frames
from s3dnerf.models.hub import build
from s3dnerf.models.person import Person
from s3dnerf.paste import to_bytes, zoomed
from s3dnerf.poses import Blinks, FixedEyes, RecordedHead, bounce, smoothed, smoothed_rotations
from s3dnerf.progress import counting
from s3dnerf.types import Cameras, Condition


@dataclass(frozen=True)
class PersonPath:
    """Where a head is and how wide its eyes are, frame by frame, played back and forth."""

    cameras: Cameras
    """[P] that see it"""
    eyes: Tensor
    """[P] eye opening, as in `types.Condition`"""
    body: Optional[Tensor] = None
    """[P, 4] the torso's own motion, as in `types.Condition`; where None, it goes by the head's pose"""

    @classmethod
    def natural(cls, model: Person) -> "PersonPath":
        """The motion of head and torso and the blinks of the recording that the model was learned from."""
        return cls(Cameras(model.path, model.intrinsics.expand(len(model.path), 3, 3)), model.path_eyes, model.path_body)

    @classmethod
    def still(cls, model: Person) -> "PersonPath":
        """Neither head nor torso nor eyes move."""
        body = None if model.path_body is None else model.path_body[:1]
        return cls(Cameras(model.path[:1], model.intrinsics[None]), model.path_eyes.median()[None], body)

    @classmethod
    def recorded(cls, model: Person, track: Track, body: Optional[Tensor] = None) -> "PersonPath":
        """The head motion and the blinks of a tracked recording, brought to the model's own focal length and frame, and to how
        wide the model's eyes usually are; and its torso's motion [P, 4], counted from where either torso usually is."""
        size = model.image_size
        seen, own = track.cameras(track.crop_box(), size), model.intrinsics.cpu()
        head = rigid_inverse(seen.camera_to_world)
        place = head[:, :3, 3]
        pixel = place[:, :2] / place[:, 2:] * seen.intrinsics[:, [0, 1], [0, 1]] + seen.intrinsics[:, :2, 2]
        depth = place[:, 2:] * own[0, 0] / seen.intrinsics[:, :1, 0]
        shift = (pixel - own[:2, 2]) / own[[0, 1], [0, 1]] * depth
        head = head.clone()
        head[:, :3, 3] = torch.cat([shift, depth], -1)
        usual = float(model.path_eyes.median())
        eyes = usual + RecordedHead(track).eyes(0, len(head), opening_of(usual))
        body = None if body is None else body - body.mean(0) + model.path_body.cpu().mean(0)
        return cls(Cameras(rigid_inverse(head), own.expand(len(head), 3, 3)), eyes, body)

    def smoothed(self, seconds: float) -> "PersonPath":
        """The same with its motion, not its blinks, smoothed; see `poses.smoothed`."""
        head = rigid_inverse(self.cameras.camera_to_world)
        turn, place = smoothed_rotations(head[:, :3, :3], seconds), smoothed(head[:, :3, 3:], seconds)
        head = torch.cat([torch.cat([turn, place], -1), head[:, 3:]], 1)
        body = None if self.body is None else smoothed(self.body, seconds)
        return PersonPath(Cameras(rigid_inverse(head), self.cameras.intrinsics), self.eyes, body) if seconds else self

    def at(self, first: int, count: int) -> tuple[Cameras, Tensor, Optional[Tensor]]:
        """Cameras, eye openings [count] and the torso's motion [count, 4] of the frames from `first` on."""
        shown = torch.from_numpy(bounce(first, count, len(self.eyes)))
        body = None if self.body is None else self.body.cpu()[shown]
        return self.cameras.map(lambda x: x.cpu()[shown]), self.eyes.cpu()[shown], body


def followed_body(model: Person, video: str, track: Track, progress: bool = False) -> Optional[Tensor]:
    """[P, 4] the torso's motion in a tracked recording; None where the model has no use for it. The recording is read twice, so
    that no frame is kept."""
    if model.path_body is None:
        return None
    box, size = track.crop_box(), model.image_size
    with counting("following the torso", 2 * len(track.error), progress) as advance:

        def crops() -> Iterator[np.ndarray]:
            for frame in islice(read_frames(video), len(track.error)):
                yield cut([frame], box, size)[0]
                advance()

        head, torso = segment(crops(), track, box, size)
        return torch.from_numpy(track_body(crops(), torso, head, pivot=COLLAR).motion)


def followed_lips(model: Person, track: Track, count: int, gain: Optional[float] = None, smooth: float = 0.0) -> Tensor:
    """[count, 12] lip codes of a tracked recording, played back and forth, `smoothed` over so many seconds."""
    codes = smoothed(model.lip_codes(torch.from_numpy(track.mesh()).to(model.path.device))[0], smooth)
    return codes[torch.from_numpy(bounce(0, count, len(codes)))] * (1.0 if gain is None else gain)


class PersonScene:
    """A learned person who speaks; see `inference.Scene`.

    Args:
        model: the person.
        code: [T, K] speech code of every frame.
        path: where the head is.
        statistics: notes where the time goes (`inference.Statistics`).
        camera: where the camera goes from there.
        eyes: how wide the eyes are; None leaves them to the path.
        background: [3, S, S] what is behind the person; None is what was recorded there.
    """

    def __init__(self, model: Person, code: Tensor, path: PersonPath, statistics, camera: CameraPath,
                 eyes: Union[FixedEyes, Blinks, None] = None, background: Optional[Tensor] = None):
        self.model, self.code, self.path, self.statistics, self.eyes = model, code, path, statistics, eyes
        self.background, self.camera = background, camera
        self.usual = float(model.path_eyes.median())
        self.width = self.height = model.image_size
        self.region = slice(0, self.height), slice(0, self.width)

    def __getstate__(self) -> dict:
        """What another process is told; of the model what a bundle holds, because layers with adapters cannot be pickled."""
        described = {"class": type(self.model).__name__, "arguments": self.model.arguments}
        return {**vars(self), "model": (described, self.model.state_dict())}

    def __setstate__(self, state: dict) -> None:
        described, weights = state["model"]
        model = build(described)
        model.load_state_dict(weights)
        vars(self).update(state, model=model.to(state["code"].device).eval())

    def frames(self, first: int, count: int) -> np.ndarray:
        """See `inference.Scene`."""
        device = self.code.device
        with self.statistics.stage("motion"):
            cameras, eyes, body = self.path.at(first, count)
            view = self.camera.at(first, count)
            cameras = view.around(cameras)
            if self.eyes is not None:
                eyes = self.usual + self.eyes.eyes(first, count, opening_of(self.usual))
            condition = Condition(self.code[first:first + count], eyes[:, None].to(device),
                                  torch.full((count,), -1, device=device),
                                  None if body is None or self.camera.largest_turn else body.to(device))
        with self.statistics.stage("render"):
            rendering = self.model.render(cameras.to(device), condition, self.background)
        with self.statistics.stage("composite"):
            return zoomed(to_bytes(rendering.image), view.zoom, self.region)

