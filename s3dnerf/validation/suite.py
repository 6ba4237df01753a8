"""All checks, one after another."""
from __future__ import annotations

from typing import Optional

import torch

from s3dnerf.data.shards import read_people
from s3dnerf.errors import CheckpointError, InputError
from s3dnerf.models.hub import load_lip_sync, load_model
from s3dnerf.models.one_shot import S3DNeRF
from s3dnerf.progress import Progress
from s3dnerf.validation import picture, space, speech, sync
from s3dnerf.validation.report import Line
from s3dnerf.validation.scenes import Subject, film, read_clips

CHECKS = (speech.tokens_have_order, speech.region_score_varies, picture.slots_weigh_scales, space.samples_find_the_surface,
          sync.sync_reaches_every_part, sync.sync_knows_the_offset, sync.experts_tell_lips_from_shifted_lips,
          speech.offsets_move_the_lips, speech.parts_contribute, picture.photos_matter, space.cameras_turn_the_head,
          speech.silence_differs_from_speech, picture.scales_contribute, space.depth_is_a_faces, space.cameras_have_gradient,
          picture.super_resolution_sharpens, picture.people_are_apart, sync.judge_is_not_the_teacher,
          speech.mouth_opens_like_the_recording)


def examine(subject: Subject, checks=CHECKS) -> list[Line]:
    """The lines of all checks, by row; repeatable."""
    lines, progress = [], Progress("checking", len(checks), "checks")
    for check in checks:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            lines += check(subject)
        progress.advance()
    progress.finish()
    return sorted(lines, key=lambda line: line.row)


def prepare_subject(weights: str, shards: str, lip_sync: Optional[str], train: Optional[str], clips: int) -> Subject:
    """Loads weights, experts and clips, and renders the clips.

    InputError for no clips; DatasetError and CheckpointError for what cannot be read.
    """
    if clips < 1:
        raise InputError(f"found {clips} clips; expected 1 or more")
    model = load_model(weights)
    if not isinstance(model, S3DNeRF):
        raise InputError(f"found weights of class {type(model).__name__} in {weights}; these checks are about one-shot models "
                         "(S3DNeRF), such as one-shot-256")
    judge = None if lip_sync is None else load_lip_sync(lip_sync)
    trained_on = None if train is None else tuple(read_people(train))
    people, scenes = tuple(read_people(shards)), []
    found = read_clips(model, shards, clips)
    progress = Progress("rendering clips", len(found), "clips")
    for person, clip in found:
        scenes.append(film(model, person, clip))
        progress.advance()
    progress.finish()
    return Subject(model, scenes, teacher_of(weights), judge, people, trained_on)


def teacher_of(weights: str):
    """The lip discriminator beside weights, or None."""
    try:
        return load_lip_sync(weights)
    except CheckpointError:
        return None
