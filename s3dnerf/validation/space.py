"""Checks of the third dimension: samples along rays, cameras, depth."""
from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from s3dnerf.data.tracking import FOCAL, fit_pose
from s3dnerf.face import FACE_OVAL
from s3dnerf.geometry import HEAD_BACK, HEAD_FRONT, euler_from_rotation, orbit, rigid_inverse
from s3dnerf.losses import at_landmarks, landmark_pixels, reduced
from s3dnerf.metrics import correlation, psnr
from s3dnerf.models.one_shot import S3DNeRF
from s3dnerf.types import Cameras, Motion, RayColours
from s3dnerf.validation.parts import gradients, watched, with_even_samples, with_many_samples
from s3dnerf.validation.report import NOTHING, Line
from s3dnerf.validation.scenes import Scene, Shown, Subject, around_lips, by_lips, frames_of, head_mask, whole
from s3dnerf.validation.speech import mean

TURNS = (-20.0, -10.0, 0.0, 10.0, 20.0)
"""degrees of the cameras around the head"""
NOSE, EARS = 4, (234, 454)
SOLID = 0.5
"""opacity from which on a ray has hit something"""


def samples_find_the_surface(subject: Subject) -> list[Line]:
    """Rows 4 and 5: the second look must go where the first found something, without gradient, and never twice.

    The share of its samples near the depth mode counts those within an eighth of the ray on either side of the first look's
    heaviest interval: the method's two intervals of 16 or more, one of 8, as even samples would reach the method's limit of
    60 % within two of 8. The gain over as many even samples is that of the volume-rendered colour on the head, against the
    recording, as the method asks, and against the same colour with many more samples, where a blurred field hides nothing.
    Row 5 looks at rays that hit something: where the first look found nothing the second one is even, and falls on it.
    """
    share, again, loss, error = [], [], [], []
    for scene in subject.scenes:
        model, clip = subject.model, frames_of(scene.recorded, slice(-1, None))
        motion = by_lips(model, clip)
        with torch.no_grad():
            with watched(model.renderer) as seen:
                found = model.render(scene.appearance, motion, clip.cameras)
            with with_even_samples(model):
                even = model.render(scene.appearance, motion, clip.cameras).raw
            with with_many_samples(model):
                dense = model.render(scene.appearance, motion, clip.cameras).raw
        share.append(near_mode(*seen[0][1]))
        again.append(repeated(seen[0][1][1]))
        size = found.raw.shape[-1]
        frames, head = reduced(clip.frames, size, size), head_mask(clip, size)
        loss.append(float(psnr(found.raw, frames, head) - psnr(even, frames, head)))
        error.append(float(psnr(found.raw, dense, head) - psnr(even, dense, head)))
    with watched(model.renderer) as seen, torch.enable_grad():
        model.render(model.encode(clip.portrait), motion, clip.cameras, around_lips(model, clip))
    carried = seen[0][1][1].samples.middles.requires_grad
    return [Line(4, "share of the second look's samples near the depth mode", mean(share), 0.6),
            Line(4, "colour of the head loses with even samples, dB", mean(loss), 0.3),
            Line(4, "the same, against the colour with eight times the samples, dB", mean(error), 0.3),
            Line(5, "samples that carry gradient", float(carried), most=0),
            Line(5, "share of samples that repeat another", mean(again), most=0.01)]


def near_mode(coarse: RayColours, fine: RayColours) -> float:
    """Share of the samples that the second look adds within `reach` intervals of the first look's heaviest one, on rays
    that hit something; the interval itself counts as well."""
    bins = coarse.weights.shape[-2]
    reach = max(1, min(2, bins // 8))
    mode = coarse.weights.argmax(-2, keepdim=True)
    at = lambda values, index: values.gather(-2, index.clamp(0, bins - 1))
    low, high = at(coarse.samples.starts, mode - reach), at(coarse.samples.ends, mode + reach)
    count = lambda middles: ((middles >= low) & (middles <= high)).sum(-2).float()
    added = fine.samples.middles.shape[-2] - bins
    share = (count(fine.samples.middles) - count(coarse.samples.middles)) / max(added, 1)
    return float(share[coarse.opacity > SOLID].mean())


def repeated(fine: RayColours) -> float:
    """Share of samples, on rays that hit something, that lie where another lies, to a hundred thousandth of the ray."""
    samples = fine.samples
    length = samples.ends[..., -1:, :] - samples.starts[..., :1, :]
    gaps = samples.middles[..., 1:, :] - samples.middles[..., :-1, :]
    return float((gaps < 1e-5 * length)[(fine.opacity > SOLID)[..., 0]].float().mean())


def cameras_turn_the_head(subject: Subject) -> list[Line]:
    """Row 12, the photo pasted back, and row 15, no depth: faces tracked on frames seen from -20 to 20 degrees.

    The photo stays as it is, only the camera goes around the head. Row 12: correlation of the tracked yaw with the
    camera's; a face that is not found counts as one that has not turned. Row 15: distance, in pixels of the frame, of
    landmarks in one frame to the epipolar lines of those in another, seen 20 degrees apart.
    """
    follows, off, found = [], [], []
    middle = TURNS.index(0.0)
    for scene in subject.scenes:
        cameras = around(scene.clip.portrait.cameras[0], TURNS)
        images = turned(subject.model, scene, cameras)
        landmarks = subject.track(images, True)
        seen = ~landmarks.isnan().any(-1).any(-1)
        found.append(float(seen.float().mean()))
        asked, got = yaw_of(cameras), torch.zeros(len(TURNS))
        if seen.any():
            got[seen] = tracked_yaw(landmarks[seen], images.shape[-2:])
            got[~seen] = got[middle] if seen[middle] else got[seen].mean()
        follows.append(float(correlation(got, asked)))
        if seen[middle - 1] and seen[middle + 1]:
            off.append(epipolar_distance(landmarks[[middle - 1, middle + 1]], cameras[[middle - 1, middle + 1]]))
    note = f"found in {100 * mean(found):.0f} % of the frames"
    return [Line(12, "correlation of the face's yaw with the camera's", mean(follows), 0.95, note=note),
            Line(15, "distance of landmarks from epipolar lines, pixels", mean(off) if off else math.nan, most=2.0)]


def around(camera: Cameras, degrees: tuple[float, ...]) -> Cameras:
    """Cameras [N] that have gone around the head from where `camera` [] stands."""
    angles = torch.deg2rad(torch.tensor(degrees))
    return orbit(camera.map(lambda x: x.expand(len(degrees), *x.shape)), angles, torch.zeros_like(angles))


@torch.no_grad()
def turned(model: S3DNeRF, scene: Scene, cameras: Cameras) -> Tensor:
    """Images [N, 3, H, W] of a photo at rest, seen by cameras [N]."""
    motion = at_rest(model, scene, len(cameras.intrinsics))
    return model.render(scene.appearance, motion, cameras.map(lambda x: x[None])).image[0].clamp(0, 1)


def at_rest(model: S3DNeRF, scene: Scene, count: int) -> Motion:
    """Motion [1, count] that leaves the photo's lips and eyes as they are."""
    return model.drive_face(model.face_code.own(scene.appearance.portrait.mesh)[:, None].expand(-1, count, -1))


def yaw_of(cameras: Cameras) -> Tensor:
    """[N] yaw, degrees, of the head as cameras [N] see it."""
    return torch.rad2deg(euler_from_rotation(rigid_inverse(cameras.camera_to_world)[..., :3, :3])[1])


def tracked_yaw(landmarks: Tensor, size: tuple[int, int]) -> Tensor:
    """[N] yaw, degrees, of landmarks [N, 478, 2] of pictures of `size`."""
    rotations = fit_pose(landmarks.double().numpy(), tuple(size), focals=(FOCAL,))[1]
    return torch.from_numpy(np.degrees(np.arcsin(np.clip(-rotations[:, 2, 0], -1, 1)))).float()


def epipolar_distance(landmarks: Tensor, cameras: Cameras) -> float:
    """Mean distance, pixels, of landmarks [2, N, 2] to the epipolar lines of their partners, both ways, cameras [2].

    The fundamental matrix is that of the cameras (Hartley and Zisserman 2004, equation 9.1).
    """
    points = torch.cat([landmarks, torch.ones_like(landmarks[..., :1])], -1).double()
    pose, k = cameras.camera_to_world.double(), cameras.intrinsics.double()
    relative = rigid_inverse(pose[1]) @ pose[0]  # from the first camera's frame to the second's
    x, y, z = relative[:3, 3].tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    fundamental = torch.linalg.inv(k[1]).T @ cross @ relative[:3, :3] @ torch.linalg.inv(k[0])
    error = torch.einsum("ni,ij,nj->n", points[1], fundamental, points[0]).abs()
    lines = points[0] @ fundamental.T, points[1] @ fundamental
    return float(torch.stack([error / line[:, :2].norm(dim=-1) for line in lines]).mean())


def depth_is_a_faces(subject: Subject) -> list[Line]:
    """Row 15, flat pictures: spread of depth over the face, nose before ears, opacity neither 0 nor 1 everywhere.

    Depths are read at the tracked landmarks of the recorded frames, where the ray has hit something; the spread is a share
    of the depth of the box in which rays look for the head.
    """
    figures = []
    for scene in subject.scenes:
        pixels = landmark_pixels(scene.clip.mesh, scene.clip.cameras, whole(scene.clip))
        figures.append(depth_figures(scene.by_speech, pixels, scene))
    spread, nose, opacity = (mean(list(column)) for column in zip(*figures))
    return [Line(15, "spread of depth over the face, share of the box", spread, 0.05),
            Line(15, "nose nearer than ears, head units", nose, 0.01),
            Line(15, "mean opacity of the frame", opacity, 0.02, 0.98)]


def depth_figures(shown: Shown, pixels: Tensor, scene: Scene) -> tuple[float, float, float]:
    """Spread of depth over the face (share of the box), ears' minus nose's depth (head units), mean opacity."""
    window = whole(scene.clip)
    depth, opacity = (at_landmarks(maps, pixels, window)[0][0, ..., 0] for maps in (shown.depth, shown.opacity))
    solid = opacity > SOLID
    spreads = [depth[t][solid[t]].std() for t in range(len(depth)) if solid[t].sum() > len(FACE_OVAL)]
    spread = float(torch.stack(spreads).mean()) / (HEAD_FRONT + HEAD_BACK) if spreads else 0.0
    return spread, float((depth[:, list(EARS)].mean(1) - depth[:, NOSE]).mean()), float(shown.opacity.mean())


def cameras_have_gradient(subject: Subject) -> list[Line]:
    """Row 16, a camera that is ignored or fixed: gradient of the frame with respect to the pose of its camera."""
    norms = []
    for scene in subject.scenes[:3]:
        model, clip = subject.model, frames_of(scene.clip, slice(0, 1))
        pose = clip.cameras.camera_to_world.clone().requires_grad_()
        window = around_lips(model, clip)
        image = model.render(scene.appearance, by_lips(model, clip), Cameras(pose, clip.cameras.intrinsics), window).image
        norms.append(float(gradients(image, [pose])[0][..., :3, :].norm()))
    return [Line(16, "gradient of the frame with respect to its camera", mean(norms), NOTHING)]
