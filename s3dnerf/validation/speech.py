"""Checks of what moves the face: speech and its order, region score, offsets, modulation, opening of the mouth."""
from __future__ import annotations

import torch
from torch import Tensor

from s3dnerf.face import LIPS, mouth_opening
from s3dnerf.geometry import project, unproject
from s3dnerf.losses import crop
from s3dnerf.metrics import correlation, psnr
from s3dnerf.models.one_shot import S3DNeRF
from s3dnerf.networks.deformation import face_window, to_face_box
from s3dnerf.types import Cameras, Clip, Motion
from s3dnerf.validation.parts import gradients, repeating, watched, without_modulation, without_offsets
from s3dnerf.validation.report import Line, missing
from s3dnerf.validation.scenes import Scene, Subject, around_lips, by_lips, frames_of, lip_box

FOREHEAD = (9, 8, 107, 336, 55, 285, 66, 296, 105, 334)
"""Landmarks on and between the brows. The skin above them lies outside the face box, where nothing moves by construction."""
MIN_FACES = 0.5
"""share of frames in which a face must be found"""


def tokens_have_order(subject: Subject) -> list[Line]:
    """Row 1, sound averaged over its window: tokens in reverse order must change the mouth, and each must count.

    Their contents are reversed and their place codes stay, so that a model that averages tokens would not notice. Figures:
    mean absolute change in the lip box at the loudest frames, levels of 255; smallest over largest norm of the gradient of
    a random projection of the lips with respect to a token.
    """
    change, shares = [], []
    for scene in subject.scenes:
        model, loud = subject.model, loudest(subject.model, scene)
        tokens = model.drive(scene.clip.speech).tokens[:, loud] - model.speech.position
        with torch.no_grad():
            before, after = (lips(model, scene, motion_of(model, some), loud) for some in (tokens, tokens.flip(2)))
        change.append(box_change(model, frames_of(scene.clip, loud), before, after))
        if len(shares) < 3:
            tokens = tokens[:, :2].detach().requires_grad_()
            image = lips(model, scene, motion_of(model, tokens), loud[:2])
            shares.append(smallest_share(*gradients(image, [tokens])))
    return [Line(1, "lips change with the order of tokens, levels", mean(change), 2.0),
            Line(1, "gradient of the least token over the greatest", mean(shares), 0.01)]


def motion_of(model: S3DNeRF, tokens: Tensor) -> Motion:
    """What `S3DNeRF.drive` makes of tokens [1, T, 8, D] that are without their place codes."""
    tokens = tokens + model.speech.position
    code = model.speech.code(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2]) * model.mouth_gain
    return Motion(torch.cat([code, torch.zeros_like(code[..., :1])], -1), tokens)


def smallest_share(gradient: Tensor) -> float:
    """Smallest over largest norm of gradients [1, T, 8, D] with respect to each of the tokens; 0 where all are 0."""
    norms = gradient.transpose(0, 2).flatten(1).norm(dim=1)
    return float(norms.min() / norms.max().clamp_min(1e-12))


def region_score_varies(subject: Subject) -> list[Line]:
    """Row 2, attention that is the same everywhere: the region score r(x) must differ over the face and prefer the lips.

    r is read at the landmarks inside the face box; those in its fading border are left out, so that the border does not
    count as variation.
    """
    spread, ratio = [], []
    for scene in subject.scenes:
        loud = loudest(subject.model, scene)
        with torch.no_grad():
            region, _ = at_mesh(subject.model, scene, subject.model.drive(scene.clip.speech)[:, loud])
        inside = face_window(to_face_box(scene.clip.portrait.mesh[0]))[:, 0] == 1
        spread.append(float(region[0, :, inside, 0].std(1).mean()))
        mean_at = lambda names: float(region[0, :, list(names), 0].mean())
        ratio.append(mean_at(LIPS) / max(mean_at(FOREHEAD), 1e-6))
    return [Line(2, "spread of the region score over the face", mean(spread), 0.1),
            Line(2, "region score of the lips over the brows'", mean(ratio), 2.0)]


def offsets_move_the_lips(subject: Subject) -> list[Line]:
    """Row 9, deformation collapsed to nothing: offsets at the lips of open-mouth frames, and what the lips are without.

    Offsets are the landmarks' share and the learned one together, at the photo's landmarks (head units; the face box is
    two of them wide). The loss of PSNR is that in the lip box, driven by tracked lips, with offsets and modulation zero.
    """
    at_lips, at_brows, loss = [], [], []
    for scene in subject.scenes:
        loud = loudest(subject.model, scene)
        with torch.no_grad():
            _, offset = at_mesh(subject.model, scene, subject.model.drive(scene.clip.speech)[:, loud])
            length = offset.norm(dim=-1).mean((0, 1))
            at_lips.append(float(length[list(LIPS)].mean()))
            at_brows.append(float(length[list(FOREHEAD)].mean()))
            whole = lips_again(subject.model, scene)
            with without_offsets(subject.model), without_modulation(subject.model):
                loss.append(lip_loss(subject.model, scene, whole, lips_again(subject.model, scene)))
    return [Line(9, "offset at the lips, mouth open, head units", mean(at_lips), 0.005),
            Line(9, "offset of the lips over the brows'", mean(at_lips) / max(mean(at_brows), 1e-6), 3.0),
            Line(9, "lips lose without offsets and modulation, dB", mean(loss), 1.0)]


def parts_contribute(subject: Subject) -> list[Line]:
    """Row 10, one part does everything: the lips without offsets, without modulation, and speech that goes past the field.

    What each part contributes is reported as PSNR of the lip box, driven by tracked lips; modulation must change it by a
    tenth of a level at least, or it is not there. For the last line the motion of the face is held and the speech changed:
    whatever changes then has heard the speech without the field (super-resolution, decoder), and nothing may.
    """
    without = {"offsets": [], "modulation": []}
    change, past = [], []
    for scene in subject.scenes:
        model = subject.model
        with torch.no_grad():
            whole = lips_again(model, scene)
            with without_offsets(model):
                still = lips_again(model, scene)
            with without_modulation(model):
                flat = lips_again(model, scene)
        without["offsets"].append(lip_loss(model, scene, whole, still))
        without["modulation"].append(lip_loss(model, scene, whole, flat))
        change.append(box_change(model, scene.recorded, whole, flat))
        past.append(heard_past_the_field(model, scene))
    modulates = model.deformation.mode != "deform"
    return [Line(10, "lips lose without offsets, dB", mean(without["offsets"])),
            Line(10, "lips lose without modulation, dB", mean(without["modulation"])),
            Line(10, "lips change without modulation, levels", mean(change), 0.1) if modulates
            else missing(10, "lips change without modulation, levels", "this model only deforms"),
            Line(10, "speech past the field, largest change", max(past), most=0.0)]


@torch.no_grad()
def heard_past_the_field(model: S3DNeRF, scene: Scene) -> float:
    """Largest change of a frame when the speech is another and the motion of the face is held."""
    clip = frames_of(scene.clip, slice(0, 1))
    window = around_lips(model, clip)
    loud, quiet = model.drive(clip.speech), silent(model, 1)
    with watched(model.mesh_motion) as mesh, watched(model.deformation) as learned:
        one = model.render(scene.appearance, loud, clip.cameras, window).image
    with repeating(model.mesh_motion, mesh), repeating(model.deformation, learned):
        other = model.render(scene.appearance, quiet, clip.cameras, window).image
    return float((one - other).abs().max())


def silence_differs_from_speech(subject: Subject) -> list[Line]:
    """Row 12, the photo pasted back: the loudest frames of speech and silence must show different lips."""
    change = []
    for scene in subject.scenes:
        model, loud = subject.model, loudest(subject.model, scene)
        with torch.no_grad():
            spoken = lips(model, scene, model.drive(scene.clip.speech)[:, loud], loud)
            quiet = lips(model, scene, silent(model, len(loud)), loud)
        change.append(box_change(model, frames_of(scene.clip, loud), spoken, quiet))
    return [Line(12, "lips change from silence to speech, levels", mean(change), 2.0)]


def mouth_opens_like_the_recording(subject: Subject) -> list[Line]:
    """Row 26, smooth because frozen: variance of the mouth's opening over the recording's, and their correlation.

    Openings are tracked on the rendered frames, with the camera known. Driven by tracked lips the limits are the method's;
    speech does not tell lips that well, so that driven by speech the correlation has a limit of its own.
    """
    lines = []
    for name, least in (("lips", 0.8), ("speech", 0.45)):
        found, truths = [], []
        for scene in subject.scenes:
            clip, shown = (scene.recorded, scene.by_lips) if name == "lips" else (scene.clip, scene.by_speech)
            landmarks = subject.track(shown.image[0], False)
            found.append(opening_of(landmarks, clip.mesh[0], clip.cameras[0]))
            truths.append(mouth_opening(clip.mesh[0]))
        ratio, match = compare_openings(found, truths)
        lines += [Line(26, f"variance of the opening over the truth's, by {name}", ratio, 0.7, 1.3),
                  Line(26, f"correlation of the opening, by {name}", match, least)]
    return lines


def opening_of(landmarks: Tensor, mesh: Tensor, cameras: Cameras) -> Tensor:
    """[T] opening of the mouth, head units, of landmarks [T, 478, 2] in pixels; depths are those of `mesh` [T, 478, 3]."""
    return mouth_opening(unproject(landmarks, project(mesh, cameras)[1], cameras))


def compare_openings(found: list[Tensor], truths: list[Tensor]) -> tuple[float, float]:
    """Sum of variances over the true ones', and mean correlation, of rows [T]; NaN in `found` is a frame without a face.

    NaN where a face is missing in half of the frames of a clip or more.
    """
    variances, matches = [], []
    for guess, truth in zip(found, truths):
        seen = ~guess.isnan()
        if seen.float().mean() <= MIN_FACES:
            return float("nan"), float("nan")
        variances.append((float(guess[seen].var()), float(truth[seen].var())))
        matches.append(float(correlation(guess[seen], truth[seen])))
    return sum(a for a, _ in variances) / max(sum(b for _, b in variances), 1e-12), mean(matches)


def loudest(model: S3DNeRF, scene: Scene) -> Tensor:
    """The quarter of the frames, in order, whose mouth the speech opens widest."""
    with torch.no_grad():
        opening = model.face_code.opening(model.drive(scene.clip.speech).code[0])
    return opening.topk(max(2, len(opening) // 4)).indices.sort().values


def silent(model: S3DNeRF, frames: int) -> Motion:
    """Motion [1, frames] of silence."""
    sequence = model.features.sequence(torch.zeros(640 * (frames + 20)))
    return model.drive(model.features.windows(sequence, 10, frames)[None])


def at_mesh(model: S3DNeRF, scene: Scene, motion: Motion) -> tuple[Tensor, Tensor]:
    """Region score [1, T, 478, 1] and offset [1, T, 478, 3] at the photo's landmarks."""
    points = scene.clip.portrait.mesh[:, None].expand(-1, motion.code.shape[1], -1, -1)
    moved, _ = model.displace(scene.appearance, motion, model.flow(scene.appearance, motion, "point"), points)
    return moved.region, moved.offset


def lips(model: S3DNeRF, scene: Scene, motion: Motion, frames: Tensor) -> Tensor:
    """The window around the lips [1, T, 3, h, w] of some of the frames, moved by `motion` [1, T]."""
    clip = frames_of(scene.clip, frames)
    return model.render(scene.appearance, motion, clip.cameras, around_lips(model, clip)).image


def lips_again(model: S3DNeRF, scene: Scene) -> Tensor:
    """The window around the lips [1, T, 3, h, w] of the frames of `scene.by_lips`, rendered again."""
    clip = scene.recorded
    return model.render(scene.appearance, by_lips(model, clip), clip.cameras, around_lips(model, clip)).image.clamp(0, 1)


def lip_loss(model: S3DNeRF, scene: Scene, whole: Tensor, lamed: Tensor) -> float:
    """By how many dB the PSNR of the lip box falls from `whole` to `lamed`, both of `lips_again`."""
    window = around_lips(model, scene.recorded)
    frames, box = crop(scene.recorded.frames, window), lip_box(scene.recorded, window)
    return float(psnr(whole, frames, box) - psnr(lamed, frames, box))


def box_change(model: S3DNeRF, clip: Clip, before: Tensor, after: Tensor) -> float:
    """Mean absolute difference in the lip box, levels of 255, of windows [1, T, 3, h, w] around the lips of a clip."""
    box = lip_box(clip, around_lips(model, clip))
    return 255 * float(((before - after).abs().mean(2, keepdim=True) * box).sum() / box.sum())


def mean(figures: list[float]) -> float:
    """Plain mean."""
    return sum(figures) / len(figures)
