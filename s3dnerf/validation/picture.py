"""Checks of the picture: whose face it is, the scales of the encoder, super-resolution, who is in which split."""
from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from s3dnerf.losses import reduced
from s3dnerf.metrics import psnr
from s3dnerf.validation.parts import gradients, watched, without_super_resolution
from s3dnerf.validation.report import NOTHING, Line, missing
from s3dnerf.validation.scenes import Subject, around_lips, by_lips, frames_of, head_mask, lip_box, whole
from s3dnerf.validation.space import at_rest
from s3dnerf.validation.speech import mean

PEOPLE = 10
"""photos that are compared with each other"""


def slots_weigh_scales(subject: Subject) -> list[Line]:
    """Row 3, slot attention with one slot: how slots weigh the scales must not be uniform (Locatello et al. 2020, eq. 1).

    Largest minus smallest weight of a slot over the scales, mean over slots and lattice points of real faces.
    """
    ranges = []
    for scene in subject.scenes:
        with torch.no_grad(), watched(subject.model.fusion) as seen:
            subject.model.encode(scene.clip.portrait)
            weights = subject.model.fusion.attend(seen[0][0][0])[1]
        ranges.append(float((weights.amax(-1) - weights.amin(-1)).mean()))
    return [Line(3, "slots' weights of scales, largest minus smallest", mean(ranges), 0.05)]


def photos_matter(subject: Subject) -> list[Line]:
    """Row 11, a mean face whatever the photo: L1 between outputs of two photos over that between the photos, on the heads.

    Rendered at rest by the photo's own camera. The final frame takes its pixels from the photo, so that a mean face could
    hide in the volume rendering alone: its colours are compared as well.
    """
    photos, frames, raws, masks, people = [], [], [], [], set()
    for scene in subject.scenes:
        if scene.person in people or len(people) == PEOPLE:
            continue
        people.add(scene.person)
        portrait, motion = scene.clip.portrait, at_rest(subject.model, scene, 1)
        with torch.no_grad():
            shown = subject.model.render(scene.appearance, motion, portrait.cameras.map(lambda x: x[None]))
        photos.append(portrait.image[0])
        masks.append(portrait.mask[0])
        frames.append(shown.image[0, 0])
        raws.append(shown.raw[0, 0])
    names = ("difference of two people's frames over their photos'", "the same of volume-rendered colours")
    csim = missing(11, "identity, own minus other photo (CSIM)", "needs a face-recognition network; none is a dependency",
                   0.2)
    if len(photos) < 2:
        return [*(missing(11, name, "needs shards of two people or more", 0.5) for name in names), csim]
    return [Line(11, names[0], identity_ratio(photos, frames, masks), 0.5),
            Line(11, names[1], identity_ratio(photos, raws, masks), 0.5), csim]


def identity_ratio(photos: list[Tensor], outputs: list[Tensor], masks: list[Tensor]) -> float:
    """Sum over pairs of people of the L1 between outputs [3, h, w] over that between photos [3, H, W], where either has its
    head (masks [1, H, W])."""
    size = outputs[0].shape[-2:]
    small = lambda image: F.interpolate(image[None], size=size, mode="area")[0]
    photos, masks = [small(x) for x in photos], [small(x) for x in masks]
    apart = lambda images, a, b: float(((images[a] - images[b]).abs() * torch.maximum(masks[a], masks[b])).sum())
    pairs = list(combinations(range(len(photos)), 2))
    return sum(apart(outputs, *pair) for pair in pairs) / max(sum(apart(photos, *pair) for pair in pairs), 1e-6)


def scales_contribute(subject: Subject) -> list[Line]:
    """Row 13, an encoder of one scale: each tri-plane zeroed in turn, and the gradient with respect to each.

    The final frame takes its pixels from the photo, so what a scale is worth is seen in the volume-rendered colour: PSNR on
    the head, driven by tracked lips.
    """
    losses: list[list[float]] = []
    for scene in subject.scenes:
        model, clip = subject.model, frames_of(scene.recorded, slice(-1, None))
        planes = scene.appearance.planes
        with torch.no_grad():
            full = raw_psnr(model, scene.appearance, clip)
            lamed = [replace(scene.appearance, planes=tuple(plane * (i != zeroed) for i, plane in enumerate(planes)))
                     for zeroed in range(len(planes))]
            losses.append([full - raw_psnr(model, appearance, clip) for appearance in lamed])
    planes = tuple(plane.clone().requires_grad_() for plane in planes)
    appearance = replace(scene.appearance, planes=planes)
    raw = model.render(appearance, by_lips(model, clip), clip.cameras, around_lips(model, clip)).raw
    lines = [Line(13, f"head loses without planes of {plane.shape[-1]} x {plane.shape[-2]}, dB", mean(list(column)), 0.2)
             for plane, column in zip(planes, zip(*losses))]
    least = min(float(gradient.norm()) for gradient in gradients(raw, planes))
    return [*lines, Line(13, "smallest gradient with respect to a scale", least, NOTHING)]


def raw_psnr(model, appearance, clip) -> float:
    """PSNR of the volume-rendered colour on the head, driven by tracked lips."""
    raw = model.render(appearance, by_lips(model, clip), clip.cameras).raw
    size = raw.shape[-1]
    return float(psnr(raw, reduced(clip.frames, size, size), head_mask(clip, size)))


def super_resolution_sharpens(subject: Subject) -> list[Line]:
    """Row 17, super-resolution that blurs, or paints what is not there.

    Spectrum: energy of the head above half the Nyquist frequency over the recording's. Ours is added to the photo warped by
    the rendered source coordinate and not to the volume-rendered colour, which is far coarser; so that what it may not
    repaint is the frame without it, both reduced to the size of the rays. Bicubic enlargement of the colour is still beaten.
    """
    energy, before, change, better, gain = [], [], [], [], []
    for scene in subject.scenes:
        model, clip = subject.model, scene.recorded
        clip, shown = frames_of(clip, slice(-2, None)), scene.by_lips[:, -2:]
        size, small = clip.frames.shape[-1], shown.raw.shape[-1]
        head = head_mask(clip, size)
        energy.append(high_frequencies(shown.image, clip.frames, head))
        coarse = F.interpolate(shown.raw.flatten(0, 1), size=(size, size), mode="bicubic", align_corners=False)[None]
        better.append(float(psnr(shown.image, clip.frames, head) - psnr(coarse.clamp(0, 1), clip.frames, head)))
        if model.super_resolution is not None:
            with torch.no_grad(), without_super_resolution(model):
                plain = model.render(scene.appearance, by_lips(model, clip), clip.cameras).image
            mask, box = head_mask(clip, small), lip_box(clip, whole(clip))
            apart = (reduced(shown.image, small, small) - reduced(plain, small, small)).abs() * mask
            change.append(float(apart.sum() / (3 * mask.sum())))
            before.append(high_frequencies(plain, clip.frames, head))
            gain.append(float(psnr(shown.image, clip.frames, box) - psnr(plain, clip.frames, box)))
    lines = [Line(17, "energy above half Nyquist over the recording's", mean(energy), 0.7),
             Line(17, "frame beats the colour enlarged by bicubic, dB", mean(better), 1.0)]
    names = ("super-resolution repaints, L1 at the rays' size", "lips gain by super-resolution, dB",
             "energy above half Nyquist without super-resolution")
    if not change:
        return lines + [missing(17, name, "this model has no super-resolution") for name in names]
    return lines + [Line(17, names[0], mean(change), most=0.03), Line(17, names[1], mean(gain), 0.0),
                    Line(17, names[2], mean(before))]


def high_frequencies(images: Tensor, targets: Tensor, masks: Tensor) -> float:
    """Energy of images [1, T, 3, H, W] above half the Nyquist frequency over that of targets, in the square that holds the
    middle of the head (masks [1, T, 1, H, W]) and is half the frame wide, under a Hann window."""
    size = images.shape[-1]
    side = size // 2
    hann = torch.hann_window(side, periodic=False)
    frequency = torch.fft.fftfreq(side)
    high = (frequency[:, None] ** 2 + frequency ** 2).sqrt() > 0.25
    energies = [0.0, 0.0]
    for t in range(images.shape[1]):
        rows, columns = masks[0, t, 0].sum(1), masks[0, t, 0].sum(0)
        middle = lambda weights: float((weights * torch.arange(size)).sum() / weights.sum().clamp_min(1e-6))
        top, left = (int(min(max(middle(weights) - side / 2, 0), size - side)) for weights in (rows, columns))
        for which, frames in enumerate((images, targets)):
            grey = frames[0, t, :, top:top + side, left:left + side].mean(0)
            spectrum = torch.fft.fft2((grey - grey.mean()) * hann[:, None] * hann).abs() ** 2
            energies[which] += float(spectrum[high].sum())
    return energies[0] / max(energies[1], 1e-12)


def people_are_apart(subject: Subject) -> list[Line]:
    """Row 18, leakage by clip: people of these shards who are in the training's too, Name0 and Name1 being one."""
    name = "people in both splits"
    if subject.trained_on is None:
        return [missing(18, name, "give the training shards as --train", most=0)]
    shared = shared_people(subject.people, subject.trained_on)
    return [Line(18, name, len(shared), most=0, note=", ".join(shared))]


def shared_people(some, others) -> list[str]:
    """Names without their numbers that occur on both sides."""
    return sorted({person_stem(name) for name in some} & {person_stem(name) for name in others})


def person_stem(name: str) -> str:
    """A person's name without the data set's subset before it and the recording's number after it.

    A number after fewer than four letters is no recording's: p07 and s1 are other people than p08 and s2.
    """
    return re.sub(r"(?<=[A-Za-z]{4})\d+$", "", re.sub(r"^(RD|WDA|WRA)_", "", name))
