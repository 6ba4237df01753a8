"""One photo and speech in, a video out: what users call."""
from __future__ import annotations

import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Iterator, Optional, Protocol, Sequence, Union

import numpy as np
import torch

from s3dnerf.camera_path import SAFE_ORBIT, CameraPath
from s3dnerf.controls import Controls, filling
from s3dnerf.data.tracking import CropBox, FaceTracker, Track, cut
from s3dnerf.device import settled, upload
from s3dnerf.driving import FaceDrive, SpeechDrive
from s3dnerf.errors import InputError
from s3dnerf.face import opening_of
from s3dnerf.identities import Identity, IdentityFolder
from s3dnerf.marking.marking import MarkedWriter, Marking
from s3dnerf.marking.marks import Marks, Origin, photo_hash
from s3dnerf.media import (FPS, MIN_SECONDS, SAMPLE_RATE, PathLike, VideoWriter, check_output, film_size, frame_count,
                           is_silent, read_frames, read_image, read_sound, video_info)
from s3dnerf.models.hub import DEFAULT, load_model
from s3dnerf.models.one_shot import S3DNeRF
from s3dnerf.models.person import Person
from s3dnerf.paste import Backdrop, FaceFrame, FullFrame, person_matte, photo_matte, shrink, zoomed
from s3dnerf.personal import PersonPath, PersonScene, followed_body, followed_lips
from s3dnerf.poses import LARGE_TURN, Blinks, FixedEyes, NaturalHead, RecordedHead, StillHead, move, smoothed
from s3dnerf.progress import counting
from s3dnerf.quality import check_quality, keeping_up, with_quality
from s3dnerf.sheet import ContactSheet
from s3dnerf.statistics import Statistics
from s3dnerf.streamed import streamed
from s3dnerf.types import Appearance, Cameras, Motion, Portrait, Rendering
from s3dnerf.workers import Workers, alone

BATCH, CPU_BATCH = 8, 4
"""frames that are rendered together on a GPU, and by each thread of a CPU, where more would not fit the cache"""


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
                 statistics: Statistics, camera: CameraPath,
                 eyes: Union[FixedEyes, Blinks, StillHead, NaturalHead, RecordedHead]):
        self.model, self.appearance, self.drive, self.head, self.canvas = model, appearance, drive, head, canvas
        self.statistics, self.width, self.height, self.region = statistics, canvas.width, canvas.height, canvas.region
        self.camera, self.eyes = camera, eyes
        self.opening = opening_of(float(appearance.source_code[0, -1]))
        self.seen = appearance.portrait.cameras[0].to("cpu")

    def render_in(self, quality: str, workers: Workers) -> None:
        """Changes to a quality (`quality.QUALITIES`); `workers` are those that will render."""
        def use(chosen: str) -> None:
            with torch.inference_mode(), alone():
                self.appearance = with_quality(self.model, self.appearance, chosen)
            self.statistics.quality = chosen

        def some(chosen: str) -> np.ndarray:
            use(chosen)
            return self.frames(0, min(CPU_BATCH, self.statistics.frames))

        if quality == "auto":
            known = dict(self.statistics.seconds)
            quality = next(workers.map(lambda _: keeping_up(some, workers.count), [0]))
            self.statistics.stopwatch.seconds = known  # what was tried is no frame of the video
        use(quality)

    def cameras(self, first: int, count: int) -> Cameras:
        """Where the frames [count] from `first` on are seen from."""
        moved = move(self.seen, self.head.sway(first, count))
        return self.camera.at(first, count).around(moved)

    def frames(self, first: int, count: int) -> np.ndarray:
        """See `Scene`."""
        motion, cameras = self.prepared(first, count)
        with self.statistics.stage("render"):
            rendering = self.model.render(self.appearance, motion, cameras)
        return self.composed(rendering, first, count)

    def prepared(self, first: int, count: int) -> tuple[Motion, Cameras]:
        """What moves the face and where it is seen from, each [1, count], in the frames from `first` on."""
        with self.statistics.stage("motion"):
            eyes = self.eyes.eyes(first, count, self.opening)
            cameras = self.cameras(first, count).map(lambda x: upload(x[None], self.statistics.device))
            return self.drive.motion(first, count, eyes), cameras

    def composed(self, rendering: Rendering, first: int, count: int) -> np.ndarray:
        """Frames [count, H, W, 3] uint8 of a rendering [1, count] of what was `prepared`."""
        with self.statistics.stage("composite"):
            return self.put_together(self.canvas.shown(rendering), first, count)

    def put_together(self, shown: torch.Tensor, first: int, count: int) -> np.ndarray:
        """The same of what the canvas has `shown`."""
        with self.statistics.stage("composite"):
            return zoomed(self.canvas.placed(shown.cpu().numpy()), self.camera.at(first, count).zoom, self.region)


class TalkingVideo:
    """A video that is rendered while it is read: iterate over its frames [H, W, 3] uint8, or save it.

    Attributes: `sound` [N] float32 at 16 kHz, `photo` [H, W, 3] uint8 as it is shown (None where there is none), `width`,
    `height`, `statistics`, `origin` (what its marks tell). Frames that are read are not marked (`marking` does that); a saved
    file is, unless it is asked not to be.
    """

    def __init__(self, scene: Scene, photo: Optional[np.ndarray], sound: np.ndarray, statistics: Statistics,
                 source: Optional[str] = None):
        self.scene, self.photo, self.sound, self.statistics = scene, photo, sound, statistics
        self.origin = Origin(Path(statistics.weights).name, source)
        self.width, self.height = scene.width, scene.height
        statistics.width, statistics.height = film_size(scene.width, scene.height)

    def __len__(self) -> int:
        return self.statistics.frames

    @property
    def workers(self) -> Workers:
        """Who renders: on a CPU, threads on all its cores."""
        return Workers(torch.get_num_threads() if self.statistics.device.type == "cpu" else 1)

    def __iter__(self, as_planar: bool = False) -> Iterator[np.ndarray]:
        statistics, begin, workers = self.statistics, time.perf_counter(), self.workers
        batch = CPU_BATCH if statistics.device.type == "cpu" else BATCH
        statistics.workers, statistics.first_frame = workers.count, 0.0
        on_gpu = statistics.device.type == "cuda" and isinstance(self.scene, PhotoScene)
        for frames in streamed(self.scene, len(self), batch, as_planar) if on_gpu else workers.map(
                lambda first: self.scene.frames(first, min(batch, len(self) - first)), range(0, len(self), batch)):
            statistics.first_frame = statistics.first_frame or time.perf_counter() - begin
            yield from frames

    def marking(self, marks: Marks = Marks()) -> Marking:
        """What marks the frames and the file of this video, for those who write it themselves."""
        return Marking(marks, self.origin, self.width, self.height, self.scene.region)

    def save(self, output: PathLike, sheet: Optional[PathLike] = None, progress: bool = False,
             marks: Optional[Marks] = Marks()) -> Statistics:
        """Writes the video with its sound, and a contact sheet where a path for one is given.

        `progress` says on stderr how far it is. The video is marked as synthetic (docs/marking.md); with `marks` None nothing
        tells that it is. InputError if the output cannot be written; nothing is left behind if anything goes wrong.
        """
        import av

        output, begin = check_output(output), time.perf_counter()
        page = ContactSheet(self.photo, len(self), self.scene.region)
        open_writer = VideoWriter if marks is None else partial(MarkedWriter, marking=self.marking(marks))
        try:
            with counting("rendering", len(self), progress) as advance, self.statistics.stage("wait"), \
                    open_writer(output, self.width, self.height, sound=self.sound) as writer:
                for index, frame in enumerate(self.__iter__(as_planar=sheet is None)):
                    writer.write(frame)
                    if sheet is not None:
                        page.add(index, frame)
                    advance()
            if sheet is not None:
                page.write(sheet)
            self.statistics.elapsed = time.perf_counter() - begin
        except (OSError, av.FFmpegError) as error:
            raise InputError(f"cannot write {output} ({error.strerror}); free some space or choose another folder") \
                from None
        return self.statistics


class TalkingHead:
    """A talking head, ready to use: the one-shot model, which wants a photo, or a person who was learned from a video.

    >>> TalkingHead.load().speak("face.jpg", "hello.wav").save("out.mp4")  # doctest: +SKIP
    >>> TalkingHead.load("runs/me").speak(speech="hello.wav").save("out.mp4")  # doctest: +SKIP
    """

    def __init__(self, model: Union[S3DNeRF, Person], name: str = "", device: Union[str, torch.device] = "cpu",
                 identities: Optional[PathLike] = None):
        self.model, self.name, self.device = settled(model.to(device).eval()), name, torch.device(device)
        self.identities = None if identities is None else IdentityFolder(identities, self.model, self.device)

    @classmethod
    def load(cls, weights: PathLike = DEFAULT, device: str = "auto", identities: Optional[PathLike] = None) -> "TalkingHead":
        """From a name, a folder or a training checkpoint, on the device auto, cpu or cuda. `identities` is a folder in which
        photos are kept encoded for the next time (`IdentityFolder`); None keeps none.

        CheckpointError if there are no such weights, InputError if there is no such device.
        """
        if device not in ("auto", "cpu", "cuda"):
            raise InputError(f"found device {device!r}; expected auto, cpu or cuda")
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("found no CUDA device; use --device cpu or auto")
        device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        return cls(load_model(weights, device), str(weights), device, identities)

    def identify(self, photo: Union[PathLike, np.ndarray], statistics: Optional[Statistics] = None) -> Identity:
        """The face of a photo, found and encoded once; `speak` takes it in place of the photo.

        `statistics` notes where the time goes. InputError for a photo that cannot be used, or weights that need none.
        """
        self._check_mode(isinstance(self.model, Person), photo, Controls())
        statistics = statistics or Statistics(self.name, self.device, 0)
        with statistics.stage("read"):
            image, source = _photo(photo), photo_hash(photo)
            found = self.identities and self.identities.find(image, source)
        if found:
            return found
        with alone(), statistics.stage("tracking"):
            portrait, box, remarks = FaceTracker().portrait(image, self.model.image_size)
        with torch.inference_mode(), alone(), statistics.stage("encode identity", whole=True):
            appearance = self.model.with_detail(self.model.encode(Portrait.stack([portrait]).to(self.device)))
        identity = Identity(image, box, appearance, remarks, source)
        if self.identities is not None:
            try:
                self.identities.keep(identity)
            except OSError as error:
                statistics.remarks.append(f"cannot keep the encoded photo in {self.identities.folder} ({error.strerror}); give "
                                          "--identity-cache another folder, or off")
        return identity

    def speak(self, photo: Union[PathLike, np.ndarray, Identity, None] = None, speech: Union[PathLike, np.ndarray, None] = None, *,
              frame: Optional[str] = None, pose: PathLike = "natural", drive: Optional[PathLike] = None,
              mouth_gain: Optional[float] = None, camera: Sequence[float] = (0.0, 0.0), eyes: Union[str, float] = "keep",
              background: PathLike = "keep", smooth: float = 0.0, seed: int = 0, quality: str = "best",
              progress: bool = False) -> TalkingVideo:
        """The person of the photo saying the speech, as a video that is rendered when it is read or saved.

        Args:
            photo: image file, [H, W, 3] uint8 RGB, or what `identify` made of one; None for a person who was learned from a video.
            speech: any file with sound, or [N] float32 in [-1, 1] at 16 kHz; None takes the sound of `drive`.
            frame: "full" (the photo, its long side at most 1080; None where there is one) or "face" (the square around the
                head; None for a learned person, who has no other).
            pose: "still", "natural" (of a learned person: as they moved in the video), a recording whose head motion (and
                blinks) is followed, or a camera path (JSON, `camera_path.CameraPath`) before which the head keeps still; played
                back and forth.
            drive: recording whose lips (and, with a photo, eyes) move the face in place of the speech, played back and forth.
            mouth_gain: factor on the mouth's motion; None is the weights' own.
            camera: degrees that the camera goes around the head from where the picture was taken, to the right and up, and,
                where there is a third number, the zoom, 1 or more.
            eyes: "keep" (as `pose` or `drive` has them), how wide they stay, from 0, shut, to 1, as usual, or blinks a minute,
                such as "15/min".
            background: "keep", "#rrggbb" or an image, behind the person.
            smooth: standard deviation, in seconds, of a Gaussian over which the speech (or the lips of `drive`) and a followed
                pose or path are averaged, on top of what models and tracking do by themselves.
            seed: of natural motion and blinks, 0 or more.
            quality: "best", as the weights were trained; "balanced" and "fast", which leave out what is hardly seen; "auto", the
                best of them that keeps up with real time on this machine. A learned person has only one.
            progress: says on stderr how far the tracking of a recording is.

        Raises:
            InputError: for a photo, sound, recording or option that cannot be used.
        """
        learned = isinstance(self.model, Person)
        controls = Controls(frame, pose, drive, mouth_gain, camera, eyes, background, smooth, seed)
        self._check_mode(learned, photo, controls)
        check_quality(quality)
        if speech is None and drive is None:
            raise InputError("found neither speech nor a recording that drives the face; give --speech or --drive")
        statistics = Statistics(self.name, self.device, seed)
        with statistics.stage("read"):
            sound = _sound(drive if speech is None else speech)
        identity = photo if learned or isinstance(photo, Identity) else self.identify(photo, statistics)
        statistics.frames = frame_count(len(sound))
        statistics.remarks += _remarks(sound, controls)
        with statistics.stage("tracking"):
            tracks = {path: _track(path, progress) for path in controls.recordings}
        if learned:
            if quality not in ("best", "auto"):
                statistics.remarks.append(f"a learned person is rendered in one quality; {quality} changes nothing")
            return TalkingVideo(self._person(sound, tracks, controls, statistics, progress), None, sound, statistics)
        statistics.remarks += identity.remarks
        video = self._photo_speaks(identity, sound, tracks, controls, statistics)
        with statistics.stage("encode identity", whole=True):
            video.scene.render_in(quality, video.workers)
        return video

    def _check_mode(self, learned: bool, photo, controls: Controls) -> None:
        """InputError for what these weights cannot do, or lack."""
        if not learned and photo is None:
            raise InputError("missing --photo; only the weights of a person (--weights, see s3dnerf personalize) need none")
        if not learned:
            return
        if photo is not None:
            raise InputError("these weights are of one person, who was learned from a video; leave the photo out")
        if controls.frame == "full":
            raise InputError("found --frame full; the weights of a person hold the square around the head alone: leave it out")
        if not self.model.by_lips and (controls.drive is not None or controls.mouth_gain is not None):
            option = "--mouth-gain" if controls.drive is None else "--drive"
            raise InputError(f"these weights know no lip code, which {option} is about; leave it out")

    def _photo_speaks(self, identity: Identity, sound, tracks, controls: Controls, statistics: Statistics) -> TalkingVideo:
        """The one-shot model's way of `speak`."""
        appearance, drive = identity.appearance, controls.drive
        head, small = _head(tracks, controls, statistics), self.model.arguments["speech"] == "mel"
        with torch.inference_mode(), alone() if small else nullcontext(), statistics.stage("speech features"):
            gain, smooth, mesh = controls.mouth_gain, controls.smooth, appearance.portrait.mesh[0]
            driver = (SpeechDrive(self.model, sound, mesh, gain, smooth, controls.fixed_eyes) if drive is None
                      else FaceDrive(self.model, tracks[str(drive)], gain, smooth))
        photo, box = shrink(identity.image, identity.box)
        with statistics.stage("tracking"):
            canvas = self._canvas(photo, box, controls)
        eyes = controls.eyes_over(statistics.frames) or (head if drive is None else RecordedHead(tracks[str(drive)]))
        scene = PhotoScene(self.model, appearance, driver, head, canvas, statistics, controls.path, eyes)
        return TalkingVideo(scene, photo, sound, statistics, identity.source)

    def _canvas(self, photo: np.ndarray, box: CropBox, controls: Controls) -> Union[FaceFrame, FullFrame]:
        """What the frames of a photo are put together on."""
        face, size, backdrop = controls.frame == "face", self.model.image_size, None
        if controls.backdrop is not None:
            person = person_matte(cut(photo[None], box, size)[0]) if face else photo_matte(photo, box)
            backdrop = Backdrop(filling(controls.backdrop, *person.shape[::-1]), torch.from_numpy(person)[None]).to(self.device)
        return FaceFrame(size, backdrop) if face else FullFrame(photo, box, self.device, backdrop)

    def _person(self, sound, tracks, controls: Controls, statistics: Statistics, progress: bool) -> PersonScene:
        """A learned person's way of `speak`."""
        model, pose, drive = self.model, str(controls.pose), controls.drive
        with torch.inference_mode(), statistics.stage("speech features"):
            if drive is None:
                code = smoothed(model.speech_codes(torch.from_numpy(sound), controls.mouth_gain), controls.smooth)
            else:
                code = followed_lips(model, tracks[str(drive)], statistics.frames, controls.mouth_gain, controls.smooth)
        if pose in tracks:
            with statistics.stage("tracking"):
                body = followed_body(model, pose, tracks[pose], progress)
            path = PersonPath.recorded(model, tracks[pose], body)
        else:
            path = PersonPath.natural(model) if pose == "natural" else PersonPath.still(model)
        behind = None if controls.backdrop is None else filling(controls.backdrop, model.image_size, model.image_size)
        eyes = controls.eyes_over(statistics.frames)
        return PersonScene(model, code, path.smoothed(controls.smooth), statistics, controls.path, eyes, behind)


def _remarks(sound: np.ndarray, controls: Controls) -> list[str]:
    """What the user should know of the speech and of the camera."""
    remarks, turn = [], controls.path.largest_turn
    if is_silent(sound):
        remarks.append("the speech is silent; the mouth stays still")
    if turn > SAFE_ORBIT:
        remarks.append(f"the camera is {turn:.0f} degrees away from where the picture was taken; beyond {SAFE_ORBIT:.0f} the "
                       "picture suffers")
    return remarks


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
        raise InputError(f"found speech of {speech.dtype} {list(speech.shape)}; expected floats [N], 16 kHz, 0.2 s or more")
    if not np.isfinite(speech).all():
        raise InputError("the speech holds values that are no numbers (NaN or infinite); record or convert it again")
    return speech.astype(np.float32)


def _track(path: str, progress: bool) -> Track:
    """The face of a recording, followed; no frame is kept."""
    with counting("tracking", max(1, round(video_info(path).seconds * FPS)), progress) as advance:
        def frames():
            for frame in read_frames(path):
                yield frame
                advance()

        try:
            track = FaceTracker().track(frames())
        except InputError as error:
            raise InputError(f"{Path(path).name}: {error}") from None
    if len(track.error) == 1:
        raise InputError(f"{Path(path).name} is a single picture, by which nothing moves; give a video")
    return track


def _head(tracks: dict[str, Track], controls: Controls, statistics: Statistics) -> Union[StillHead, NaturalHead, RecordedHead]:
    pose = str(controls.pose)
    if pose not in tracks:
        return NaturalHead(statistics.seed, statistics.frames) if pose == "natural" else StillHead()
    head = RecordedHead(tracks[pose], controls.smooth)
    if head.largest_turn > LARGE_TURN:
        statistics.remarks.append(f"the head of {Path(pose).name} turns by {head.largest_turn:.0f} degrees; beyond "
                                  f"{LARGE_TURN:.0f} the picture suffers")
    return head
