"""One photo and speech in, a video out: what users call."""
from __future__ import annotations

import math
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, Optional, Protocol, Union

import numpy as np
import torch

from s3dnerf.data.tracking import CropBox, FaceTracker, Track
from s3dnerf.driving import FaceDrive, SpeechDrive
from s3dnerf.errors import InputError
from s3dnerf.geometry import orbit
from s3dnerf.media import (FPS, MIN_SECONDS, SAMPLE_RATE, PathLike, VideoWriter, check_output, frame_count, is_silent,
                           read_frames, read_image, read_sound, video_info)
from s3dnerf.models.hub import DEFAULT, load_model
from s3dnerf.models.one_shot import S3DNeRF
from s3dnerf.models.person import Person
from s3dnerf.paste import FaceFrame, FullFrame, shrink, to_bytes
from s3dnerf.personal import PersonPath, PersonScene, followed_lips, read_background
from s3dnerf.poses import LARGE_TURN, NaturalHead, RecordedHead, StillHead, move
from s3dnerf.progress import Progress
from s3dnerf.sheet import ContactSheet
from s3dnerf.types import Appearance, Portrait

BATCH = 8
"""frames that are rendered together"""
SAFE_ORBIT, MAX_ORBIT = 20.0, 45.0
"""degrees of the camera away from the photo's up to which the picture is good, and that are allowed"""


@dataclass
class Statistics:
    """What was made, and where the time went; the seconds of each stage add up as the video is rendered."""

    weights: str
    device: torch.device
    seed: int
    frames: int = 0
    width: int = 0
    height: int = 0
    remarks: list[str] = field(default_factory=list)
    """what the user should know: several faces, silence, large turns"""
    seconds: dict[str, float] = field(default_factory=dict)
    """of each stage: load, read, tracking, encode identity, speech features, motion, render, composite, encode video"""

    @contextmanager
    def stage(self, name: str):
        """Times what happens inside and adds it to a stage."""
        begin = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    def as_dict(self) -> dict:
        """Plain values for JSON; rendering speed counts motion, render and composite, end-to-end speed everything."""
        rendering = sum(self.seconds.get(name, 0.0) for name in ("motion", "render", "composite"))
        total = sum(self.seconds.values())
        return {"frames": self.frames, "length": self.frames / FPS, "fps": FPS,
                "width": self.width, "height": self.height, "weights": self.weights,
                "device": str(self.device), "seed": self.seed, "remarks": self.remarks,
                "seconds": {name: round(value, 4) for name, value in self.seconds.items()},
                "total_seconds": round(total, 3),
                "frames_per_second_rendering": round(self.frames / max(rendering, 1e-9), 2),
                "frames_per_second_end_to_end": round(self.frames / max(total, 1e-9), 2)}


class Scene(Protocol):
    """What a video shows: a person who speaks, frame by frame, however they are rendered."""

    width: int
    """pixels"""
    height: int
    """pixels"""
    region: tuple[slice, slice]
    """rows and columns of the frame that matter"""

    def frames(self, first: int, count: int) -> np.ndarray:
        """Frames [count, H, W, 3] uint8 from `first` on; they depend on nothing that was rendered before."""


class PhotoScene:
    """The person of a photo, rendered by the one-shot model."""

    def __init__(self, model: S3DNeRF, appearance: Appearance, drive: Union[SpeechDrive, FaceDrive],
                 head: Union[StillHead, NaturalHead, RecordedHead], canvas: Union[FaceFrame, FullFrame],
                 statistics: Statistics, camera: tuple[float, float] = (0.0, 0.0)):
        self.model, self.appearance, self.drive, self.head, self.canvas = model, appearance, drive, head, canvas
        self.statistics, self.width, self.height, self.region = statistics, canvas.width, canvas.height, canvas.region
        right, up = (torch.tensor(math.radians(angle)) for angle in camera)
        self.camera = orbit(appearance.portrait.cameras[0].to("cpu"), -right, up)
        self.opening = 0.12 + 0.1 * float(appearance.source_code[0, -1])

    def frames(self, first: int, count: int) -> np.ndarray:
        """See `Scene`."""
        stage = self.statistics.stage
        with stage("motion"):
            motion = self.drive.motion(first, count, self.head.eyes(first, count, self.opening))
            cameras = move(self.camera, self.head.sway(first, count))
            cameras = cameras.map(lambda x: x[None].to(self.statistics.device))
        with stage("render"):
            rendering = self.model.render(self.appearance, motion, cameras)
        with stage("composite"):
            return self.canvas.frames(rendering)


class TalkingVideo:
    """A video that is rendered while it is read: iterate over its frames [H, W, 3] uint8, or save it.

    Attributes: `sound` [N] float32 at 16 kHz, `photo` [H, W, 3] uint8 as it is shown, `width`, `height`, `statistics`.
    """

    def __init__(self, scene: Scene, photo: np.ndarray, sound: np.ndarray, statistics: Statistics):
        self.scene, self.photo, self.sound, self.statistics = scene, photo, sound, statistics
        self.width, self.height = scene.width, scene.height
        statistics.width, statistics.height = scene.width, scene.height

    def __len__(self) -> int:
        return self.statistics.frames

    def __iter__(self) -> Iterator[np.ndarray]:
        for first in range(0, len(self), BATCH):
            with torch.inference_mode():
                frames = self.scene.frames(first, min(BATCH, len(self) - first))
            yield from frames

    def save(self, output: PathLike, sheet: Optional[PathLike] = None, progress: bool = False) -> Statistics:
        """Writes the video with its sound, and a contact sheet where a path for one is given.

        `progress` says on stderr how far it is. InputError if the output cannot be written; nothing is left behind if
        anything goes wrong.
        """
        import av

        output = check_output(output)
        page = ContactSheet(self.photo, len(self), self.scene.region)
        try:
            with _progress("rendering", len(self), progress) as advance, \
                    VideoWriter(output, self.width, self.height, sound=self.sound) as writer:
                for index, frame in enumerate(self):
                    with self.statistics.stage("encode video"):
                        writer.write(frame)
                    page.add(index, frame)
                    advance()
            if sheet is not None:
                page.write(sheet)
        except (OSError, av.FFmpegError) as error:
            raise InputError(f"cannot write {output} ({error.strerror}); free some space or choose another folder") \
                from None
        return self.statistics


class TalkingHead:
    """A talking head, ready to use: the one-shot model, which wants a photo, or a person who was learned from a video.

    >>> TalkingHead.load().speak("face.jpg", "hello.wav").save("out.mp4")  # doctest: +SKIP
    >>> TalkingHead.load("runs/me").speak(speech="hello.wav").save("out.mp4")  # doctest: +SKIP
    """

    def __init__(self, model: Union[S3DNeRF, Person], name: str = "", device: Union[str, torch.device] = "cpu"):
        self.model, self.name, self.device = model.to(device).eval(), name, torch.device(device)

    @classmethod
    def load(cls, weights: PathLike = DEFAULT, device: str = "auto") -> "TalkingHead":
        """From a name, a folder or a training checkpoint, on the device auto, cpu or cuda.

        CheckpointError if there are no such weights, InputError if there is no such device.
        """
        if device not in ("auto", "cpu", "cuda"):
            raise InputError(f"found device {device!r}; expected auto, cpu or cuda")
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("found no CUDA device; use --device cpu or auto")
        device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        return cls(load_model(weights, device), str(weights), device)

    def speak(self, photo: Union[PathLike, np.ndarray, None] = None, speech: Union[PathLike, np.ndarray, None] = None, *,
              frame: str = "full", pose: PathLike = "natural", drive: Optional[PathLike] = None,
              mouth_gain: Optional[float] = None, camera: tuple[float, float] = (0.0, 0.0), eyes: Optional[float] = None,
              background: PathLike = "keep", seed: int = 0, progress: bool = False) -> TalkingVideo:
        """The person of the photo saying the speech, as a video that is rendered when it is read or saved.

        Args:
            photo: image file, or [H, W, 3] uint8 RGB; None for a person who was learned from a video, whose frame is
                always the square around the head and whose natural pose is how they moved there.
            speech: any file with sound, or [N] float32 in [-1, 1] at 16 kHz; None takes the sound of `drive`.
            frame: "full" (the photo, its long side at most 1080) or "face" (the square crop around the head).
            pose: "still", "natural", or a recording whose head motion (and blinks) is followed, played back and forth.
            drive: recording whose lips and eyes move the face in place of the speech, played back and forth.
            mouth_gain: factor on the mouth's motion; None is the weights' own.
            camera: degrees that the camera goes around the head from where the photo was taken, to the right and up.
            eyes: how wide the eyes are, from 0, shut, to 1, as usual; None lets them blink. Only of a learned person.
            background: "keep", "#rrggbb" or an image, behind a learned person.
            seed: of natural motion and blinks, 0 or more.
            progress: says on stderr how far the tracking of a recording is.

        Raises:
            InputError: for a photo, sound, recording or option that cannot be used.
        """
        learned = isinstance(self.model, Person)
        _check_options(speech, drive, frame, mouth_gain, seed, camera)
        _check_person(learned, photo, eyes, background)
        statistics = Statistics(self.name, self.device, seed)
        with statistics.stage("read"):
            sound = _sound(drive if speech is None else speech)
            image = None if learned else _photo(photo)
        statistics.frames = frame_count(len(sound))
        if is_silent(sound):
            statistics.remarks.append("the speech is silent; the mouth stays still")
        with statistics.stage("tracking"):
            recordings = {path for path in (str(pose), drive and str(drive)) if path not in (None, "still", "natural")}
            tracks = {path: _track(path, progress) for path in sorted(recordings)}
        if learned:
            scene = self._person(sound, pose, drive, tracks, mouth_gain, camera, eyes, background, statistics)
            return TalkingVideo(scene, to_bytes(self.model.background[None])[0], sound, statistics)
        return self._photo_speaks(image, sound, frame, pose, drive, tracks, mouth_gain, camera, statistics)

    def _photo_speaks(self, image, sound, frame, pose, drive, tracks, mouth_gain, camera, statistics) -> TalkingVideo:
        """The one-shot model's way of `speak`."""
        with statistics.stage("tracking"):
            portrait, box, remarks = FaceTracker().portrait(image, self.model.image_size)
        statistics.remarks += remarks
        head = _head(str(pose), tracks, statistics)
        if max(map(abs, camera)) > SAFE_ORBIT:
            statistics.remarks.append(f"the camera is {max(map(abs, camera)):.0f} degrees away from the photo's; beyond "
                                      f"{SAFE_ORBIT:.0f} the picture suffers")
        with torch.inference_mode():
            with statistics.stage("encode identity"):
                appearance = self.model.with_detail(self.model.encode(Portrait.stack([portrait]).to(self.device)))
            with statistics.stage("speech features"):
                driver = (SpeechDrive(self.model, sound, appearance.portrait.mesh[0], mouth_gain) if drive is None
                          else FaceDrive(self.model, tracks[str(drive)], mouth_gain))
        photo, box = shrink(image, box)
        canvas = FullFrame(photo, box, self.device) if frame == "full" else FaceFrame(self.model.image_size)
        scene = PhotoScene(self.model, appearance, driver, head, canvas, statistics, camera)
        return TalkingVideo(scene, photo, sound, statistics)


    def _person(self, sound, pose, drive, tracks, mouth_gain, camera, eyes, background, statistics) -> PersonScene:
        """A learned person's way of `speak`."""
        with torch.inference_mode(), statistics.stage("speech features"):
            if drive is None:
                code = self.model.speech_codes(torch.from_numpy(sound), mouth_gain)
            else:
                code = followed_lips(self.model, tracks[str(drive)], statistics.frames, mouth_gain)
        paths = {"natural": PersonPath.natural, "still": PersonPath.still}
        path = paths[str(pose)](self.model) if str(pose) in paths else PersonPath.recorded(self.model, tracks[str(pose)])
        behind = read_background(background, self.model.image_size)
        return PersonScene(self.model, code, path, statistics, camera, eyes, behind)


def _check_person(learned: bool, photo, eyes: Optional[float], background: PathLike) -> None:
    if learned and photo is not None:
        raise InputError("these weights are of one person, who was learned from a video; leave the photo out")
    if not learned and photo is None:
        raise InputError("found no photo; give one by --photo, or weights of a person by --weights (see s3dnerf personalize)")
    if not learned and (eyes is not None or str(background) != "keep"):
        raise InputError("--eyes and --background are for a person who was learned from a video (s3dnerf personalize); leave "
                         "them out")
    if eyes is not None and not (math.isfinite(eyes) and 0 <= eyes <= 1.5):
        raise InputError(f"found eyes {eyes}; expected a number from 0, shut, to 1, as usual, or a little more")


def _check_options(speech, drive, frame: str, mouth_gain: Optional[float], seed: int, camera: tuple[float, float]) -> None:
    if frame not in ("full", "face"):
        raise InputError(f"found frame {frame!r}; expected full or face")
    if speech is None and drive is None:
        raise InputError("found neither speech nor a recording that drives the face; give --speech or --drive")
    if mouth_gain is not None and not (math.isfinite(mouth_gain) and 0 <= mouth_gain <= 10):
        raise InputError(f"found mouth gain {mouth_gain}; expected a number from 0 (still) to 10, about 1")
    if len(camera) != 2 or not all(math.isfinite(angle) and abs(angle) <= MAX_ORBIT for angle in camera):
        raise InputError(f"found camera {','.join(map(str, camera))}; expected two angles, right and up, of at most "
                         f"{MAX_ORBIT:.0f} degrees, such as 20,0")
    if seed < 0:
        raise InputError(f"found seed {seed}; expected 0 or more")


def _photo(photo: Union[PathLike, np.ndarray]) -> np.ndarray:
    if not isinstance(photo, np.ndarray):
        return read_image(photo)
    if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        raise InputError(f"found a photo of {photo.dtype} {list(photo.shape)}; expected uint8 [H, W, 3]")
    return photo


def _sound(speech: Union[PathLike, np.ndarray]) -> np.ndarray:
    if not isinstance(speech, np.ndarray):
        return read_sound(speech)
    if speech.ndim != 1 or speech.dtype.kind != "f" or len(speech) < MIN_SECONDS * SAMPLE_RATE:
        raise InputError(f"found speech of {speech.dtype} {list(speech.shape)}; expected floats [N] at 16 kHz, "
                         "0.2 s or more")
    if not np.isfinite(speech).all():
        raise InputError("the speech holds values that are no numbers (NaN or infinite); record or convert it again")
    return speech.astype(np.float32)


def _track(path: str, progress: bool) -> Track:
    """The face of a recording, followed; no frame is kept."""
    total = max(1, round(video_info(path).seconds * FPS))
    with _progress("tracking", total, progress) as advance:

        def frames():
            for frame in read_frames(path):
                yield frame
                advance()

        try:
            return FaceTracker().track(frames())
        except InputError as error:
            raise InputError(f"{Path(path).name}: {error}") from None


def _head(pose: str, tracks: dict[str, Track], statistics: Statistics) -> Union[StillHead, NaturalHead, RecordedHead]:
    if pose == "still":
        return StillHead()
    if pose == "natural":
        return NaturalHead(statistics.seed, statistics.frames)
    head = RecordedHead(tracks[pose])
    if head.largest_turn > LARGE_TURN:
        statistics.remarks.append(f"the head of {Path(pose).name} turns by {head.largest_turn:.0f} degrees; beyond "
                                  f"{LARGE_TURN:.0f} the picture suffers")
    return head


@contextmanager
def _progress(task: str, total: int, shown: bool):
    """What is to be called after every frame."""
    if not shown:
        yield lambda: None
        return
    with os.fdopen(os.dup(2), "w") as stream:  # its own, because tracking keeps the libraries' stderr from being seen
        progress = Progress(task, total, "frames", stream=stream)
        try:
            yield progress.advance
        finally:
            progress.finish()
