"""Checks of lips and sound: does the sync loss reach the model, and do its experts know what they judge?"""
from __future__ import annotations

import copy
from typing import Optional

import torch
from torch import Tensor, nn

from s3dnerf.losses import landmark_pixels
from s3dnerf.metrics import auc
from s3dnerf.models.hub import digest
from s3dnerf.networks.lip_sync import HARD_SHIFT, LipSyncDiscriminator, crop_lips
from s3dnerf.validation.report import Line, missing
from s3dnerf.validation.scenes import Scene, Subject, around_lips, frames_of, whole

PARTS = ("encoder", "speech", "deformation", "radiance", "super_resolution")
SHIFT = 5
"""frames by which sound is shifted"""
FARTHEST = 7
"""frames by which sound is shifted at most when the best offset is looked for"""
NO_TEACHER = "the weights have no lip discriminator beside them"
NO_JUDGE = "give a judging expert as --lip-sync"
SHIFT_LOSS = 1e-3
"""rise of the distance that counts as one"""


def sync_reaches_every_part(subject: Subject) -> list[Line]:
    """Row 6, a lip discriminator that is computed but not in the graph: parts with a gradient of the sync distance.

    Figures: how many of encoder, speech, deformation, decoder and super-resolution get a gradient (those that the model has
    not are not asked for); and the largest change of the expert's weights in a step of the generator.
    """
    names = ("parts that the sync gradient does not reach", "change of the expert in a step of the generator")
    if subject.teacher is None:
        return [missing(6, name, NO_TEACHER, most=0) for name in names]
    model, expert = subject.model.requires_grad_(True), subject.teacher
    before, own = (copy.deepcopy(module.state_dict()) for module in (expert, model))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    distance = spoken_distance(subject)
    if distance.requires_grad:
        distance.backward()
    optimizer.step()
    unreached = [part for part in PARTS if getattr(model, part) is not None and not reached(getattr(model, part))]
    moved = max(float((value - before[name]).abs().max()) for name, value in expert.state_dict().items())
    for module in (model, expert):
        module.zero_grad()
    model.load_state_dict(own)
    return [Line(6, names[0], len(unreached), most=0, note=", ".join(unreached)), Line(6, names[1], moved, most=0)]


def spoken_distance(subject: Subject) -> Tensor:
    """The training expert's distance of lips and sound, of the first frames of a clip as the model renders them."""
    model, expert, scene = subject.model, subject.teacher, subject.scenes[0]
    clip = frames_of(scene.clip, slice(0, expert.frames + 1))
    window = around_lips(model, clip)
    image = model.render(model.encode(clip.portrait), model.drive(clip.speech), clip.cameras, window).image
    return expert.distance(crop_lips(image, landmark_pixels(clip.mesh, clip.cameras, window)), clip.mel)


def reached(part: nn.Module) -> bool:
    """Whether any parameter has a gradient that is not 0."""
    return any(parameter.grad is not None and bool(parameter.grad.abs().max() > 0) for parameter in part.parameters())


def sync_knows_the_offset(subject: Subject) -> list[Line]:
    """Row 7, repeated frames or a wrong offset: sound shifted by 5 frames must fit worse, and none may fit best.

    On recorded clips, which is a figure of the expert; and on those rendered from their speech, which is one of the model.
    The rise of 1 - cosine is the smaller one of both directions; the offset that fits best is that of the mean over clips.
    """
    lines = []
    for name, expert, why in experts(subject):
        for what in ("recorded", "rendered"):
            rise, best = (f"{name}: distance rises with sound shifted by 5 frames, {what}",
                          f"{name}: offset that fits best, {what}, frames")
            if expert is None:
                lines += [missing(7, rise, why, SHIFT_LOSS), missing(7, best, why, -1, 1)]
                continue
            profile = mean_profile([match(expert, scene, what) for scene in subject.scenes])
            middle = len(profile) // 2
            shifted = profile[[middle - SHIFT, middle + SHIFT]] if middle >= SHIFT else profile[[0, -1]]
            lines += [Line(7, rise, float(profile[middle] - shifted.max()), SHIFT_LOSS),
                      Line(7, best, int(profile.argmax()) - middle, -1, 1)]
    return lines


def experts_tell_lips_from_shifted_lips(subject: Subject) -> list[Line]:
    """Row 8, an untrained expert, or one that knows the speaker: area under the ROC curve, negatives of the same clip."""
    lines = []
    for name, expert, why in experts(subject):
        title = f"{name}: AUC, negatives of the same clip"
        if expert is None:
            lines.append(missing(8, title, why, 0.9))
            continue
        tables = [match(expert, scene, "recorded") for scene in subject.scenes]
        lines.append(Line(8, title, float(auc(*right_and_wrong(tables))), 0.9))
    return lines


def judge_is_not_the_teacher(subject: Subject) -> list[Line]:
    """Row 20, graded by its own teacher: both experts' weights must differ; the distances of both are reported.

    By their digests, and by the cosine between their weights, which is near 0 for experts that began at different seeds and
    near 1 for two checkpoints of one training.
    """
    title, like = "judging and training expert are two", "cosine between the experts' weights"
    known = {name: expert for name, expert, _ in experts(subject) if expert is not None}
    if len(known) < 2:
        why = NO_JUDGE if subject.judge is None else NO_TEACHER
        lines = [missing(20, title, why, 2), missing(20, like, why, most=0.5)]
    else:
        hashes = {name: digest(expert) for name, expert in known.items()}
        note = ", ".join(f"{name} {value[:8]}" for name, value in hashes.items())
        lines = [Line(20, title, len(set(hashes.values())), 2, note=note), Line(20, like, likeness(*known.values()), most=0.5)]
    for name, expert, why in experts(subject):
        for what in ("recorded", "rendered"):
            title = f"{name}: distance of lips and sound, {what}"
            if expert is None:
                lines.append(missing(20, title, why))
            else:
                own = [match(expert, scene, what).diagonal().mean() for scene in subject.scenes]
                lines.append(Line(20, title, float(1 - torch.stack(own).mean())))
    return lines


def experts(subject: Subject) -> list[tuple[str, Optional[LipSyncDiscriminator], str]]:
    """Name of an expert, itself, and why it is missing."""
    return [("training expert", subject.teacher, NO_TEACHER), ("judging expert", subject.judge, NO_JUDGE)]


@torch.no_grad()
def match(expert: LipSyncDiscriminator, scene: Scene, what: str) -> Tensor:
    """Cosine [W, W] of every window of lips (row) and of sound (column) of a clip, "recorded" or "rendered"."""
    clip = scene.clip
    frames = clip.frames if what == "recorded" else scene.by_speech.image
    lips = expert.lip_features(crop_lips(frames, landmark_pixels(clip.mesh, clip.cameras, whole(clip))))
    return expert.embed_lips(lips)[0] @ expert.embed_sound(expert.sound_features(clip.mel))[0].T


def mean_profile(tables: list[Tensor]) -> Tensor:
    """Mean cosine [2 F + 1] over all pairs of all clips whose sound comes -F to F frames late, 0 in the middle.

    F is `FARTHEST`, or less where the shortest clip has no three pairs so far apart.
    """
    most = max(0, min(FARTHEST, min(len(table) for table in tables) - 3))
    return torch.stack([torch.cat([table.diagonal(shift) for table in tables]).mean() for shift in range(-most, most + 1)])


def right_and_wrong(tables: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Cosines of lips with their own sound [N], and with one of the same clip three frames away or more [M]."""
    apart = [(torch.arange(len(table))[:, None] - torch.arange(len(table))).abs() for table in tables]
    return (torch.cat([table.diagonal() for table in tables]),
            torch.cat([table[far >= HARD_SHIFT] for table, far in zip(tables, apart)]))


def likeness(one: nn.Module, other: nn.Module) -> float:
    """Cosine between the weights of two modules, those of layers alone; 0 where they are built differently."""
    weights = [{name: value for name, value in module.named_parameters() if value.dim() > 1} for module in (one, other)]
    shapes = [{name: value.shape for name, value in part.items()} for part in weights]
    if shapes[0] != shapes[1]:
        return 0.0
    rows = [torch.cat([value.detach().flatten() for value in part.values()]) for part in weights]
    return float(torch.nn.functional.cosine_similarity(*rows, dim=0))
