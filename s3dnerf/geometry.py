"""Cameras and rays. Conventions: `s3dnerf.types`."""
from __future__ import annotations

import torch
from torch import Tensor

from s3dnerf.precision import single_precision
from s3dnerf.types import Cameras, Rays

HEAD_FRONT, HEAD_BACK = 1.25, 0.95
"""The head is rendered between these distances before and behind the plane of the head frame's origin, in head units."""


def rotation_from_euler(pitch: Tensor, yaw: Tensor, roll: Tensor) -> Tensor:
    """Rotations [*, 3, 3] = R_z(roll) R_y(yaw) R_x(pitch), angles in radians, each [*].

    In the head frame (x right, y down, z away) a positive pitch lowers the chin's side of a camera-space face towards
    the camera, a positive yaw turns +z towards +x, a positive roll turns +x towards +y.
    """
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    cp, sp, cy, sy, cr, sr = pitch.cos(), pitch.sin(), yaw.cos(), yaw.sin(), roll.cos(), roll.sin()
    rows = lambda *values: torch.stack(values, -1).unflatten(-1, (3, 3))
    about_x = rows(one, zero, zero, zero, cp, -sp, zero, sp, cp)
    about_y = rows(cy, zero, sy, zero, one, zero, -sy, zero, cy)
    about_z = rows(cr, -sr, zero, sr, cr, zero, zero, zero, one)
    return about_z @ about_y @ about_x


def euler_from_rotation(rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(pitch, yaw, roll) in radians of rotations [*, 3, 3]; the inverse of `rotation_from_euler` for |yaw| < 90 degrees."""
    yaw = torch.asin((-rotation[..., 2, 0]).clamp(-1, 1))
    pitch = torch.atan2(rotation[..., 2, 1], rotation[..., 2, 2])
    roll = torch.atan2(rotation[..., 1, 0], rotation[..., 0, 0])
    return pitch, yaw, roll


def rigid_inverse(pose: Tensor) -> Tensor:
    """Inverse of rigid transforms [*, 4, 4]."""
    rotation = pose[..., :3, :3].transpose(-1, -2)
    translation = -(rotation @ pose[..., :3, 3:])
    top = torch.cat([rotation, translation], -1)
    return torch.cat([top, pose[..., 3:, :]], -2)


@single_precision
def project(points: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Pixels [*, N, 2] and depths [*, N, 1] along the optical axis of head-frame points [*, N, 3] seen by cameras [*]."""
    world_to_camera = rigid_inverse(cameras.camera_to_world)
    local = points @ world_to_camera[..., :3, :3].transpose(-1, -2) + world_to_camera[..., None, :3, 3]
    depth = local[..., 2:].clamp_min(1e-4)
    homogeneous = (local / depth) @ cameras.intrinsics.transpose(-1, -2)
    return homogeneous[..., :2], depth


@single_precision
def seen_shift(points: Tensor, offsets: Tensor, cameras: Cameras) -> Tensor:
    """Pixels [*, N, 2] by which head-frame points [*, N, 3] that move by `offsets` [*, N, 3] move for cameras [*]: the difference
    of two of `project`, at half its cost."""
    turn = rigid_inverse(cameras.camera_to_world)
    before = points @ turn[..., :3, :3].transpose(-1, -2) + turn[..., None, :3, 3]
    after = before + offsets @ turn[..., :3, :3].transpose(-1, -2)
    flat = lambda local: local[..., :2] / local[..., 2:].clamp_min(1e-4)
    return (flat(after) - flat(before)) @ cameras.intrinsics[..., :2, :2].transpose(-1, -2)


@single_precision
def unproject(pixels: Tensor, depth: Tensor, cameras: Cameras) -> Tensor:
    """Head-frame points [*, N, 3] of pixels [*, N, 2] at depths [*, N, 1] along the optical axis; inverse of `project`."""
    local = pixel_directions(pixels, cameras) * depth
    pose = cameras.camera_to_world
    return local @ pose[..., :3, :3].transpose(-1, -2) + pose[..., None, :3, 3]


def pixel_directions(pixels: Tensor, cameras: Cameras) -> Tensor:
    """Camera-space directions [*, N, 3] with z = 1 through pixels [*, N, 2]."""
    k = cameras.intrinsics
    focal = torch.stack([k[..., 0, 0], k[..., 1, 1]], -1)[..., None, :]
    centre = k[..., :2, 2][..., None, :]
    return torch.cat([(pixels - centre) / focal, torch.ones_like(pixels[..., :1])], -1)


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Centres [height * width, 2] of the pixels of an image, row by row: (x + 0.5, y + 0.5)."""
    y, x = torch.meshgrid(torch.arange(height, device=like.device, dtype=like.dtype) + 0.5,
                          torch.arange(width, device=like.device, dtype=like.dtype) + 0.5, indexing="ij")
    return torch.stack([x, y], -1).flatten(0, 1)


@single_precision
def cast_rays(cameras: Cameras, height: int, width: int) -> Rays:
    """One ray through every pixel centre of `height` x `width` images of cameras [*]; R = height * width.

    near and far are where a ray crosses the two planes, perpendicular to the optical axis, `HEAD_FRONT` before and
    `HEAD_BACK` behind the origin of the head frame; near is never less than 1e-3.
    """
    pose = cameras.camera_to_world
    pixels = pixel_grid(height, width, pose).expand(*pose.shape[:-2], -1, -1)
    local = pixel_directions(pixels, cameras)
    length = local.norm(dim=-1, keepdim=True)
    directions = (local / length) @ pose[..., :3, :3].transpose(-1, -2)
    origins = pose[..., None, :3, 3].expand_as(directions)
    head_depth = rigid_inverse(pose)[..., 2, 3][..., None, None]
    near = ((head_depth - HEAD_FRONT) * length).clamp_min(1e-3)
    return Rays(origins, directions, near, torch.maximum((head_depth + HEAD_BACK) * length, near + 1e-3))


def frontal_camera(size: int, focal: float = 4.0, extent: float = 3.0) -> Cameras:
    """A camera [] that looks straight at the head and shows `extent` head units across a square image of `size` pixels.

    `focal` is the focal length in image sizes.
    """
    pose = torch.eye(4)
    pose[2, 3] = -focal * extent
    return Cameras(pose, torch.tensor([[focal * size, 0, size / 2], [0, focal * size, size / 2], [0, 0, 1.0]]))


def orbit(cameras: Cameras, yaw: Tensor, pitch: Tensor) -> Cameras:
    """Cameras [*] moved around the origin of the head frame by angles in radians, still looking at the same spot.

    A positive yaw shows the face turned towards +x (the viewer's right), a positive pitch shows it looking down.
    """
    turn = torch.eye(4, dtype=yaw.dtype, device=yaw.device).repeat(*yaw.shape, 1, 1)
    turn[..., :3, :3] = rotation_from_euler(pitch, -yaw, torch.zeros_like(yaw)).transpose(-1, -2)
    return Cameras(turn @ cameras.camera_to_world, cameras.intrinsics)
