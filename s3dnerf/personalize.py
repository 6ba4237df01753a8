"""From a video of one person to that person's weights: preparation, training, weights, preview, figures."""
from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Optional, Sequence

import numpy as np
import torch

from s3dnerf.commands.options import lip_matcher, write_json
from s3dnerf.curriculum import Curriculum, say, told
from s3dnerf.data.person import learned_frames, read_person
from s3dnerf.data.person_video import prepare_person
from s3dnerf.errors import InputError
from s3dnerf.marking.marking import MarkedWriter, Marking
from s3dnerf.marking.marks import Marks, Origin
from s3dnerf.media import SAMPLES_PER_FRAME, VideoWriter, check_file
from s3dnerf.models.hub import DEFAULT, load_model, save_model
from s3dnerf.paste import to_bytes
from s3dnerf.progress import counting
from s3dnerf.sheet import compare
from s3dnerf.types import Cameras, Condition

METHODS = {"rad-nerf": "rad_nerf_stages.yaml", "ad-nerf": "ad_nerf_stages.yaml", "disentangled": "disentangled_stages.yaml",
           "adapt": "adapt_stages.yaml"}
"""Name on the command line -> its list of stages in configs/person. A method is a model, a
`models.person.Person`, and a list of stages."""
SIZE, LEAST_SIZE = 256, 32
"""side of the frames where no file says it, and the least, pixels"""


class PersonCurriculum(Curriculum):
    """The stages of a method, on one person's recording; see `Curriculum`.

    Args:
        plan: the list of stages.
        shards: folder of the prepared recording.
        output: folder of the run.
        overlays: YAML files that are stacked on every stage's own.
        size: side of the frames, pixels, in place of what the files say.
    """

    def __init__(self, plan: str, shards: Path, output: Path, overlays: Sequence[str] = (), size: Optional[int] = None):
        super().__init__(plan, str(shards), str(shards), str(output), overlays)
        self.size = size

    @property
    def prepared_size(self) -> int:
        """Side of the frames that are cut out of the recording, pixels."""
        return self.size or max(self.setting(stage, "data.init_args.size") for stage in self.stages.values()) or SIZE

    def sources(self) -> dict[str, str]:
        """See `Curriculum`."""
        return {"--video": str(Path(self.data[0]).resolve())}

    def data_options(self) -> dict[str, str]:
        """See `Curriculum`."""
        sizes = ("data.init_args.size", "model.init_args.model.init_args.image_size") if self.size else ()
        return {"data.init_args.shards": self.data[0]} | {name: str(self.size) for name in sizes}

    def _finish(self) -> None:
        """Nothing: the person's weights are written by `personalize`."""


def personalize(video: str, output: Path, method: str = "rad-nerf", config: Sequence[str] = (), size: Optional[int] = None,
                plans: str = "configs/person") -> None:
    """Learns one person from a video; see `commands.personalize`.

    InputError for a video that cannot be used, for an unknown method or a size that it cannot have, and for an output that
    was begun with another video, method or size.
    """
    if method not in METHODS:
        raise InputError(f"found method {method!r}; expected one of {', '.join(METHODS)}")
    if size is not None and (method == "adapt" or size < LEAST_SIZE or size % 4):
        raise InputError(f"found --size {size}; expected a multiple of 4, {LEAST_SIZE} or more, and none at all with adapt, whose "
                         "frames are as large as the one-shot model's")
    check_file(video, "video")
    begin = time.perf_counter()
    told_of = _same_run(output, video, method, size)
    shards = output / "shards"
    curriculum = PersonCurriculum(f"{plans}/{METHODS[method]}", shards, output, config, size)
    for remark in prepare_person(video, shards, curriculum.prepared_size, partial(lip_matcher, DEFAULT)):
        say(f"note: {remark}")
    write_json(told_of, str(output / "run.json"))
    prepared = time.perf_counter() - begin
    curriculum.run()
    stages = json.loads((output / "figures.json").read_text(encoding="utf-8"))["stages"]
    model = load_model(curriculum.checkpoint(list(curriculum.stages)[-1]))
    save_model(model, output)
    show_held_out(model, shards, output)
    figures = {"method": method, "parameters": sum(p.numel() for p in model.parameters()),
               "prepare_seconds": round(prepared, 1), "train_seconds": sum(stage["seconds"] for stage in stages.values()),
               "stages": stages}
    write_json(figures, str(output / "figures.json"))
    say(f"held out: {told(list(stages.values())[-1]['figures'])}")
    say(f"use it: s3dnerf speak --weights {output} --speech hello.wav --output out.mp4")


def _same_run(output: Path, video: str, method: str, size: Optional[int]) -> dict:
    """What a folder belongs to; InputError where it was begun with something else."""
    told_of = {"--video": [str(Path(video).resolve()), Path(video).stat().st_size], "--method": method, "--size": size}
    path = output / "run.json"
    begun = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else told_of
    other = [option for option, value in told_of.items() if begun[option] != value]
    if other:
        raise InputError(f"{output} was begun with another {' and '.join(other)}; give the same, or a new --output")
    return told_of


@torch.inference_mode()
def show_held_out(model, shards: Path, output: Path, frames: Optional[int] = None) -> None:
    """Writes held_out.mp4, the end of the recording that was not learned from, driven by its own speech, eyes and motion of
    head and torso; held_out_head.mp4, the same by the head's motion alone, where that makes a difference; recording.mp4, the same
    as it was; and preview.png, recording and held_out.mp4 side by side."""
    video = read_person(str(shards), model.image_size)
    first = learned_frames(len(video.frames))
    last = min(len(video.frames), first + (frames or len(video.frames)))
    sound = video.sound[first * SAMPLES_PER_FRAME:last * SAMPLES_PER_FRAME]
    codes, eyes = model.speech_codes(sound), model.lip_codes(video.mesh)[1][first:last]
    heard, count = sound.numpy(), last - first
    condition = Condition(codes, eyes, torch.full((count,), -1), video.body[first:last])
    shown = {"held_out": condition}
    if model.path_body is not None:
        shown["held_out_head"] = replace(condition, body=None)
    for name, driven in shown.items():
        _write_marked(output / f"{name}.mp4", model, video.cameras[first:last], driven, heard)
    recorded = video.frames[first:last].numpy()
    with VideoWriter(output / "recording.mp4", model.image_size, model.image_size, sound=heard) as theirs:
        for frame in recorded:
            theirs.write(frame)
    some = np.arange(0, count, max(1, count // 10))[:10]
    ours = [to_bytes(model.render(video.cameras[first + k:first + k + 1], condition[k:k + 1]).image)[0] for k in some]
    compare([np.concatenate(pair) for pair in zip(recorded[some], ours)], output / "preview.png")


def _write_marked(path: Path, model, cameras: Cameras, condition: Condition, heard: np.ndarray) -> None:
    """Writes a marked video of what cameras [T] see under conditions [T]."""
    size = model.image_size
    marking = Marking(Marks(), Origin(path.parent.resolve().name), size, size, (slice(0, size), slice(0, size)))
    with MarkedWriter(path, size, size, marking, sound=heard) as writer, counting("rendering", len(condition.code)) as advance:
        for index in range(len(condition.code)):
            writer.write(to_bytes(model.render(cameras[index:index + 1], condition[index:index + 1]).image)[0])
            advance()
