"""What a worker does: videos, previews and sessions of one device, side by side."""
from __future__ import annotations

import dataclasses
import io
import sys
import time
import traceback
from collections import OrderedDict
from pathlib import Path
from typing import Iterator, Optional, Sequence

import numpy as np
import torch
from torch import Tensor

from s3dnerf.errors import InputError, S3DNeRFError
from s3dnerf.identities import Identities
from s3dnerf.inference import BATCH, PhotoScene, TalkingHead, TalkingVideo
from s3dnerf.marking.manifest import signer_of
from s3dnerf.marking.marking import Marking
from s3dnerf.media import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, film_size, is_silent, read_sound
from s3dnerf.service.faces import seen
from s3dnerf.service.finishing import Finishing, marking_of
from s3dnerf.service.fragments import FragmentWriter
from s3dnerf.service.live import Session
from s3dnerf.service.messages import (Advanced, Cancel, Failed, Finished, Heard, Listen, Look, Options, Preview,
                                      Render, Seen, Speaker, Staged, Touching)
from s3dnerf.service.settings import Settings
from s3dnerf.types import TensorRecord

PEOPLE = 2
"""learned persons that are kept loaded"""
GLANCE = 0.4
"""seconds between two previews of a video that is being made"""
OPEN = Path(__file__).parents[1] / "assets" / "demo_speech.wav"
REST_FRAME = 4
"""of a silent video: the photo has given the face over to the speech by then"""


class Running:
    """A video that is being made."""

    def __init__(self, task: Render, video: TalkingVideo, folder: Path, marking: Marking):
        self.task, self.video, self.done, self.begin, self.glanced = task, video, 0, time.monotonic(), 0.0
        self.stream = FragmentWriter(video.width, video.height, marking)
        self.finishing = Finishing(video, folder / f"{task.id}.mp4", marking)

    @property
    def left(self) -> int:
        """frames"""
        return len(self.video) - self.done

    def add(self, frames: np.ndarray) -> Advanced:
        """Takes the next frames [T, H, W, 3] uint8."""
        for frame in frames:
            with self.video.statistics.stage("encode video"):
                marked = self.finishing.write(frame)
                self.stream.frame(marked, self.done)
                self.stream.sound(self.video.sound[self.done * SAMPLES_PER_FRAME:(self.done + 1) * SAMPLES_PER_FRAME])
            self.done += 1
        now, preview = time.monotonic(), None
        if now - self.glanced > GLANCE:
            self.glanced, preview = now, jpeg(marked)
        rate = self.done / max(now - self.begin, 1e-6)
        return Advanced(self.task.id, self.done, rate, self.stream.take(), preview)

    def finish(self) -> Finished:
        """Completes the file."""
        with self.video.statistics.stage("encode video"):
            rest = self.stream.close()
            self.finishing.close()
        return Finished(self.task.id, str(self.finishing.path), None, rest, self.video.statistics.as_dict())

    def abandon(self) -> None:
        """Leaves nothing behind."""
        self.finishing.abandon()
        self.stream.close()


class Renderer:
    """Takes commands, and renders in steps between them.

    Args:
        settings: of the service.
        folder: where files are made; they are taken away from there.
        device: auto, cpu or cuda.

    Raises:
        DependencyError: for a certificate without the extra `c2pa`.
        InputError: for weights that cannot be loaded, and a certificate or key that cannot sign.
    """

    def __init__(self, settings: Settings, folder: Path, device: str = "auto"):
        self.settings, self.folder, self.device = settings, folder, device
        if settings.certificate is not None:
            signer_of(settings.certificate, settings.key)  # this may be another machine, with other files
        self.head = TalkingHead.load(settings.weights, device, settings.cache)
        self.identities = Identities(self.head, settings.identities, settings.face_seconds, most=settings.identity_bytes)
        self.people: OrderedDict[str, TalkingHead] = OrderedDict()
        self.waiting: list[Render] = []
        self.running: OrderedDict[str, Running] = OrderedDict()
        self.sessions: OrderedDict[str, Session] = OrderedDict()

    @property
    def busy(self) -> bool:
        """Whether a step would do something."""
        return bool(self.waiting or self.running or any(session.due for session in self.sessions.values()))

    def take(self, command) -> Iterator:
        """Notes a command, or does what is quick; yields messages."""
        if isinstance(command, Render):
            self.waiting.append(command)
        elif isinstance(command, Cancel):
            self._cancel(command.id)
        elif isinstance(command, Heard):
            session = self.sessions.get(command.id)
            if session is not None:
                session.hear(command)
        else:
            yield Touching((command.id,))
            act = {Look: self._look, Preview: self._preview, Listen: self._listen}[type(command)]
            yield from self._safely(command.id, lambda: act(command))

    def step(self) -> Iterator:
        """Renders something of everything that is under way; yields messages."""
        for id, session in list(self.sessions.items()):
            if session.due:
                yield Touching((id,))
                yield from self._safely(id, session.step)
                if session.over:
                    self.sessions.pop(id, None)
        if self.waiting:
            task = self.waiting.pop(0)
            yield Touching((task.id,))
            yield from self._safely(task.id, lambda: self._open(task))
        group = self._group()
        if group:
            yield Touching(tuple(one.task.id for one in group))
            yield from self._advance(group)

    def _safely(self, id: str, act) -> Iterator:
        """The messages of an act, and `Failed` where it goes wrong."""
        try:
            with torch.inference_mode():
                yield from act()
        except S3DNeRFError as error:
            self._cancel(id)
            yield Failed(id, "no_face" if str(error).startswith("no face") else "unusable", str(error))
        except Exception:
            traceback.print_exc(file=sys.stderr)
            self._cancel(id)
            yield Failed(id, "internal", "something went wrong inside the renderer; its log tells what")

    def _cancel(self, id: str) -> None:
        self.waiting = [task for task in self.waiting if task.id != id]
        running = self.running.pop(id, None)
        if running is not None:
            running.abandon()
        self.sessions.pop(id, None)

    def _look(self, command: Look) -> Iterator:
        yield Seen(command.id, seen(self.identities.of(command.speaker.key, command.speaker.photo)))

    def _preview(self, command: Preview) -> Iterator:
        sound = np.zeros(SAMPLE_RATE // 2, np.float32)
        frame = REST_FRAME
        if command.open:
            sound = read_sound(OPEN)
            frame = loudest(sound)
        video = self._video(command.speaker, sound, command.options, command.backdrop, {}, command.id)
        yield Seen(command.id, jpeg(video.scene.frames(frame, 1)[0]))

    def _listen(self, command: Listen) -> Iterator:
        if command.speaker.photo is None:
            raise InputError("found a learned person; sessions are made of photos alone")
        quiet = np.zeros(round(self.settings.max_seconds * SAMPLE_RATE), np.float32)
        video = self._video(command.speaker, quiet, command.options, None, {}, command.id)
        session = self.sessions[command.id] = Session(command, video)
        yield from session.ready()

    def _open(self, task: Render) -> Iterator:
        yield Staged(task.id, "identity")
        video = self._video(task.speaker, task.sound, task.options, task.backdrop, task.files, task.id)
        if len(video) > self.settings.max_seconds * FPS + 1:
            raise InputError(f"the speech lasts {len(video) / FPS:.0f} s; expected at most {self.settings.max_seconds:g} s")
        marking = marking_of(video, task.declaration, self.settings.certificate, self.settings.key)
        self.running[task.id] = Running(task, video, self.folder, marking)
        size = film_size(video.width, video.height)
        yield Staged(task.id, "rendering", len(video), size, tuple(video.statistics.remarks))

    def _video(self, speaker: Speaker, sound, options: Options, backdrop, files: dict[str, bytes], id: str) -> TalkingVideo:
        """As `TalkingHead.speak`; files of the task lie in a folder only as long as they are read."""
        head = self.head if speaker.photo is not None else self._person(speaker.key)
        photo = self.identities.of(speaker.key, speaker.photo) if speaker.photo is not None else None
        settings = dataclasses.asdict(options)
        paths = {name: self.folder / f"{id}.{name}" for name in files}
        picture = self.folder / f"{id}.background.png"
        drive = None
        try:
            for name, path in paths.items():
                path.write_bytes(files[name])
                if name.startswith("pose"):
                    settings["pose"] = str(path)
                else:
                    drive = str(path)
            if backdrop is not None:
                from PIL import Image

                Image.fromarray(backdrop).save(picture, compress_level=1)
                settings["background"] = str(picture)
            return head.speak(photo, sound, drive=drive, **settings)
        except InputError as error:
            raise InputError(str(error).replace(str(self.folder) + "/", "").replace(id + ".", "")) from None
        finally:
            for path in (*paths.values(), picture):
                path.unlink(missing_ok=True)

    def _person(self, folder: str) -> TalkingHead:
        head = self.people.pop(folder, None) or TalkingHead.load(folder, self.device)
        self.people[folder] = head
        while len(self.people) > PEOPLE:
            self.people.popitem(last=False)
        return head

    @property
    def _most(self) -> int:
        """Frames of videos that are rendered in a step: one where somebody speaks, who would have to wait for them."""
        return 1 if self.sessions else BATCH

    def _group(self) -> list[Running]:
        """Whose turn it is: all photos together, or one learned person."""
        if not self.running:
            return []
        first = next(iter(self.running.values()))
        photos = [one for one in self.running.values() if isinstance(one.video.scene, PhotoScene)]
        group = photos[:self._most] if first in photos else [first]
        for one in group:
            self.running.move_to_end(one.task.id)
        return group

    def _advance(self, group: list[Running]) -> Iterator:
        """The next frames of several videos, rendered together; a video that goes wrong goes alone."""
        count = min(max(1, self._most // len(group)), min(one.left for one in group))
        try:
            with torch.inference_mode():
                rendered = together([one.video.scene for one in group], [one.done for one in group], count)
        except Exception:
            if len(group) > 1:
                for one in group:
                    yield Touching((one.task.id,))
                    yield from self._advance([one])
                return
            rendered = [None]
        for one, frames in zip(group, rendered):
            yield from self._safely(one.task.id, lambda: self._add(one, frames, count))

    def _add(self, one: Running, frames: Optional[np.ndarray], count: int) -> Iterator:
        frames = one.video.scene.frames(one.done, count) if frames is None else frames
        yield one.add(frames)
        if one.left == 0:
            yield Staged(one.task.id, "finishing")
            finished = one.finish()
            del self.running[one.task.id]
            yield finished


def together(scenes: Sequence, firsts: Sequence[int], count: int) -> list[np.ndarray]:
    """Frames [count, H, W, 3] uint8 of each scene from its own `firsts` on; photos pass through the model as one batch, in
    which no row knows of another."""
    if len(scenes) == 1 or not all(isinstance(scene, PhotoScene) for scene in scenes):
        return [scene.frames(first, count) for scene, first in zip(scenes, firsts)]
    prepared = [scene.prepared(first, count) for scene, first in zip(scenes, firsts)]
    motion, cameras = (joined(records) for records in zip(*prepared))
    with scenes[0].statistics.stage("render"):
        rendering = scenes[0].model.render(joined([scene.appearance for scene in scenes]), motion, cameras)
    return [scene.composed(rendering[row:row + 1], first, count) for row, (scene, first) in enumerate(zip(scenes, firsts))]


def joined(records: Sequence[TensorRecord]) -> TensorRecord:
    """Records whose tensors have a leading size, one after another along it."""
    def join(values):
        if isinstance(values[0], TensorRecord):
            return joined(values)
        if isinstance(values[0], (tuple, list)):
            return tuple(torch.cat(parts) for parts in zip(*values))
        return torch.cat(values) if isinstance(values[0], Tensor) else values[0]

    fields = dataclasses.fields(records[0])
    return type(records[0])(**{field.name: join([getattr(record, field.name) for record in records]) for field in fields})


def loudest(sound: np.ndarray) -> int:
    """The frame around which speech [N] is loudest, so that the mouth is open."""
    frames = np.abs(sound[:len(sound) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]).reshape(-1, SAMPLES_PER_FRAME).mean(1)
    return 0 if is_silent(sound) else int(np.convolve(frames, np.ones(5), "same").argmax())


def jpeg(frame: np.ndarray) -> bytes:
    """A frame [H, W, 3] uint8 as a JPEG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=85)
    return file.getvalue()
