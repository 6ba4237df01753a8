"""An analytic 3-D head with exact cameras, masks and landmarks, whose mouth follows its speech."""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np
import torch

from s3dnerf.data.shards import TrackedClip, encode_sample, write_people, write_shards, write_whole
from s3dnerf.data.synthetic_speech import articulation, voice
from s3dnerf.face import EYELIDS, INNER_LIPS, JAW, LANDMARKS_68, LIPS, metric_face
from s3dnerf.geometry import cast_rays, frontal_camera, project, rigid_inverse, rotation_from_euler
from s3dnerf.media import FPS
from s3dnerf.progress import Progress
from s3dnerf.types import Cameras

SKULL_CENTRE, SKULL_RADII = np.array([0.0, -0.12, 0.3]), np.array([0.92, 1.3, 1.05])
NOSE_CENTRE, NOSE_HEIGHT, NOSE_WIDTH = np.array([0.0, 0.0]), 0.26, np.array([0.13, 0.22])
MOUTH = np.array([0.0, 0.42])
EYES = np.array([[-0.34, -0.35], [0.34, -0.35]])
EYE_RADII = np.array([0.15, 0.075])
NECK_RADIUS, NECK_TOP = 0.55, 0.75
MARCH_STEPS = 14


@dataclass(frozen=True)
class Person:
    """How one head looks; colours are RGB in [0, 1]."""

    skin: np.ndarray
    hair: np.ndarray
    lips: np.ndarray
    iris: np.ndarray
    shirt: np.ndarray
    wall: np.ndarray
    """[4, 3] colours of the background's corners"""
    hairline: float
    """height of the hair's edge on the brow, head units"""
    mouth_width: float
    """half, head units"""
    cheek: float
    """factor on the skull's width"""
    nose: float
    """factor on the nose's height"""
    freckles: np.ndarray
    """[N, 2] where on the face, head units"""


def draw_person(draw: np.random.Generator) -> Person:
    """A random head."""
    colour = lambda low, high: draw.uniform(low, high, 3)
    skin = np.array([0.93, 0.76, 0.66]) * draw.uniform(0.45, 1.0) + draw.uniform(-0.04, 0.04, 3)
    return Person(np.clip(skin, 0, 1), colour(0.05, 0.6), np.clip(skin * [0.95, 0.55, 0.55], 0, 1), colour(0.1, 0.7),
                  colour(0.1, 0.9), draw.uniform(0.15, 0.85, (4, 3)), draw.uniform(-1.0, -0.75), draw.uniform(0.24, 0.31),
                  draw.uniform(0.92, 1.06), draw.uniform(0.8, 1.2), draw.uniform([-0.6, -0.1], [0.6, 0.6], (12, 2)))


def surface_depth(person: Person, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """z of the front of the head at (x, y), head frame; NaN beside the head."""
    radii = SKULL_RADII * [person.cheek, 1, 1]
    square = 1 - ((x - SKULL_CENTRE[0]) / radii[0]) ** 2 - ((y - SKULL_CENTRE[1]) / radii[1]) ** 2
    skull = SKULL_CENTRE[2] - radii[2] * np.sqrt(np.where(square > 0, square, np.nan))
    across, down = (x - NOSE_CENTRE[0]) / NOSE_WIDTH[0], (y - NOSE_CENTRE[1]) / NOSE_WIDTH[1]
    return skull - person.nose * NOSE_HEIGHT * np.exp(-(across ** 2 + down ** 2) / 2)


def to_rest(y: np.ndarray, opening: float) -> np.ndarray:
    """Height, on the resting face, of what is seen at height y while the mouth is open: chin and jaw have dropped."""
    drop = opening * np.clip((y - MOUTH[1]) / 0.5, 0, 1)
    return y - drop


def moved_landmarks(person: Person, opening: float, rounding: float, blink: float) -> np.ndarray:
    """[478, 3] landmarks on the surface, with the mouth opened (head units), rounded and the eyes shut (0 to 1)."""
    points = metric_face().astype(np.float64).copy()
    lips, jaw = list(LIPS), [i for i in JAW]
    centre, half = points[lips, :2].mean(0), np.ptp(points[lips, 0]) / 2
    ring = (points[lips, :2] - centre) / half
    inner = np.isin(lips, INNER_LIPS)
    angle = np.arctan2(ring[:, 1], ring[:, 0])
    width = person.mouth_width * (1 - 0.35 * rounding) * np.where(inner, 0.82, 1.0)
    height = np.where(inner, opening / 2 + 0.004, opening / 2 + 0.075)
    points[lips, 0], points[lips, 1] = MOUTH[0] + width * np.cos(angle), MOUTH[1] + height * np.sin(angle)
    points[jaw, 1] += opening * np.clip((points[jaw, 1] - MOUTH[1]) / 0.5, 0, 1)
    for eye, lids in zip(EYES, (EYELIDS[:6], EYELIDS[6:])):
        for upper, lower in zip(lids[0::2], lids[1::2]):
            place = np.clip((points[upper, 0] - eye[0]) / EYE_RADII[0], -0.95, 0.95)
            half_height = EYE_RADII[1] * np.sqrt(1 - place ** 2)
            points[lower, :2] = points[upper, 0], eye[1] + half_height
            points[upper, 1] = eye[1] + half_height * (2 * blink - 1)
    inside = np.abs(points[:, 0]) < 0.86 * person.cheek
    points[~inside, 0] *= 0.9
    depth = surface_depth(person, points[:, 0], points[:, 1])
    points[:, 2] = np.where(np.isfinite(depth), depth, points[:, 2])
    return points.astype(np.float32)


def render_frame(person: Person, cameras: Cameras, size: int, opening: float, rounding: float,
                 blink: float) -> tuple[np.ndarray, np.ndarray]:
    """One frame [size, size, 3] uint8 and its masks [3, size, size] bool (head, torso, mouth) from a camera []."""
    rays = cast_rays(cameras, size, size)
    origin, ray = rays.origins.double().numpy(), rays.directions.double().numpy()
    head, point = hit_head(person, origin, ray, rays.near[:, 0].numpy())
    torso, on_torso = hit_torso(origin, ray)
    torso &= ~head
    y, x = np.divmod(np.arange(size * size), size)
    picture = background(person, (x + 0.5) / size, (y + 0.5) / size)
    picture[torso] = shade(np.broadcast_to(person.shirt, (size * size, 3)), on_torso, 0.6)[torso]
    colour, mouth = paint(person, point, opening, rounding, blink)
    picture[head] = colour[head]
    masks = np.stack([head, torso, head & mouth]).reshape(3, size, size)
    return (np.clip(picture, 0, 1) * 255).round().astype(np.uint8).reshape(size, size, 3), masks


def hit_head(person: Person, origin: np.ndarray, ray: np.ndarray, near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rays meet the head, and where, [R, 3]: a few secant steps towards the height field from the skull's surface."""
    radii = SKULL_RADII * [person.cheek, 1, 1]
    start, direction = (origin - SKULL_CENTRE) / radii, ray / radii
    a, b, c = (direction ** 2).sum(1), (start * direction).sum(1), (start ** 2).sum(1) - 1
    square = b ** 2 - a * c
    hit = square > 0
    distance = (-b - np.sqrt(np.where(hit, square, 0))) / a
    point = origin + ray * distance[:, None]
    for _ in range(MARCH_STEPS):
        gap = point[:, 2] - surface_depth(person, point[:, 0], point[:, 1])
        step = np.where(np.isfinite(gap) & hit & (point[:, 2] < SKULL_CENTRE[2]), gap, 0) / np.maximum(ray[:, 2], 0.3)
        point = point - ray * (0.8 * step)[:, None]
    return hit, point


def hit_torso(origin: np.ndarray, ray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rays meet the shoulders, an ellipsoid below the head, and where."""
    centre, radii = np.array([0.0, 2.3, 0.7]), np.array([1.9, 1.0, 0.9])
    start, direction = (origin - centre) / radii, ray / radii
    a, b, c = (direction ** 2).sum(1), (start * direction).sum(1), (start ** 2).sum(1) - 1
    square = b ** 2 - a * c
    point = origin + ray * ((-b - np.sqrt(np.maximum(square, 0))) / a)[:, None]
    return square > 0, (point - centre) / radii


def background(person: Person, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Colours [N, 3] of the wall at places in [0, 1]: four corners mixed."""
    x, y = x[:, None], y[:, None]
    top = person.wall[0] * (1 - x) + person.wall[1] * x
    return top * (1 - y) + (person.wall[2] * (1 - x) + person.wall[3] * x) * y


def shade(colour: np.ndarray, normal: np.ndarray, ambient: float) -> np.ndarray:
    """Colours lit from the upper left front."""
    light = np.array([-0.35, -0.55, -0.76])
    facing = (normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)) @ light
    return colour * (ambient + (1 - ambient) * np.clip(facing, 0, 1))[:, None]


def paint(person: Person, point: np.ndarray, opening: float, rounding: float,
          blink: float) -> tuple[np.ndarray, np.ndarray]:
    """Colours [R, 3] of points of the head's surface, and which are the inside of the mouth."""
    normal = surface_normal(person, point)
    x, y = point[:, 0], point[:, 1]
    front = point[:, 2] < 0
    colour = np.broadcast_to(person.skin, point.shape).copy()
    for freckle in person.freckles:
        colour[(x - freckle[0]) ** 2 + (to_rest(y, opening) - freckle[1]) ** 2 < 0.0009] *= 0.75
    colour[(y < person.hairline + 0.5 * x ** 2) | (point[:, 2] > 0.25)] = person.hair
    brow = (np.abs(np.abs(x) - 0.34) < 0.17) & (np.abs(y + 0.55 - 0.2 * (np.abs(x) - 0.34)) < 0.035) & front
    colour[brow] = person.hair * 0.8
    colour = shade(colour, normal, 0.45)
    for eye in EYES:
        _paint_eye(person, colour, x - eye[0], y - eye[1], blink, front)
    width = person.mouth_width * (1 - 0.35 * rounding)
    ellipse = lambda w, h: ((x - MOUTH[0]) / w) ** 2 + ((y - MOUTH[1]) / h) ** 2 < 1
    lips = ellipse(width, opening / 2 + 0.075) & front
    mouth = ellipse(width * 0.82, opening / 2 + 0.004) & front
    colour[lips] = shade(np.broadcast_to(person.lips, point.shape), normal, 0.5)[lips]
    colour[mouth] = [0.18, 0.05, 0.06]
    colour[mouth & (y < MOUTH[1] - opening / 2 + 0.35 * opening) & (opening > 0.05)] = [0.88, 0.86, 0.82]
    return colour, mouth


def surface_normal(person: Person, point: np.ndarray) -> np.ndarray:
    """Outward normals [R, 3], not of unit length: of the height field, nose and all, where it faces forward, else the skull's."""
    skull = (point - SKULL_CENTRE) / SKULL_RADII ** 2
    x, y, step = point[:, 0], point[:, 1], 0.01
    across = surface_depth(person, x + step, y) - surface_depth(person, x - step, y)
    down = surface_depth(person, x, y + step) - surface_depth(person, x, y - step)
    field = np.stack([across, down, np.full_like(x, -2 * step)], 1)
    usable = np.isfinite(field).all(1) & (point[:, 2] < 0)
    return np.where(usable[:, None], field, skull)


def _paint_eye(person: Person, colour: np.ndarray, x: np.ndarray, y: np.ndarray, blink: float, front: np.ndarray) -> None:
    """White, iris and pupil below the upper lid; a dark line where the lids meet."""
    half = EYE_RADII[1] * np.sqrt(np.clip(1 - (x / EYE_RADII[0]) ** 2, 0, 1))
    lid = half * (2 * blink - 1)
    shown = (np.abs(x) < EYE_RADII[0]) & (y > lid) & (y < half) & front
    colour[shown] = [0.93, 0.93, 0.92]
    colour[shown & (x ** 2 + y ** 2 < 0.0042)] = person.iris
    colour[shown & (x ** 2 + y ** 2 < 0.0012)] = 0.03
    colour[(np.abs(x) < EYE_RADII[0]) & (np.abs(y - lid) < 0.014) & front] = person.skin * 0.45


def head_cameras(frames: int, size: int, draw: np.random.Generator) -> Cameras:
    """Cameras [frames] of a head that moves smoothly within about 15 degrees and a twentieth of the frame."""
    time = np.arange(frames) / FPS
    wave = lambda most: most * draw.uniform(0.3, 1) * np.sin(2 * np.pi * draw.uniform(0.1, 0.5) * time + draw.uniform(0, 6.3))
    angles = [torch.from_numpy(np.radians(wave(most))).float() for most in (8.0, 15.0, 5.0)]
    camera = frontal_camera(size)
    pose = torch.eye(4).repeat(frames, 1, 1)
    pose[:, :3, :3] = rotation_from_euler(*angles)
    pose[:, :3, 3] = torch.from_numpy(np.stack([wave(0.08), wave(0.06), -float(camera.camera_to_world[2, 3]) + wave(0.4)], 1))
    return Cameras(rigid_inverse(pose), camera.intrinsics.expand(frames, 3, 3))


def synthetic_clip(person: Person, name: str, key: str, seconds: float, size: int, draw: np.random.Generator) -> TrackedClip:
    """A clip of one head that speaks."""
    frames = max(1, round(seconds * FPS))
    opening, rounding = articulation(frames, draw)
    blink = np.zeros(frames)
    start = draw.integers(0, max(1, frames - 5))
    blink[start:start + 5] = np.array([0.5, 1, 1, 0.6, 0.2])[: len(blink[start:start + 5])]
    cameras = head_cameras(frames, size, draw)
    pictures, masks, meshes = [], [], []
    for t in range(frames):
        picture, mask = render_frame(person, cameras[t], size, opening[t], rounding[t], blink[t])
        pictures.append(picture)
        masks.append(mask.reshape(3, size // 4, 4, size // 4, 4).mean((2, 4)) > 0.5)
        meshes.append(moved_landmarks(person, opening[t], rounding[t], blink[t]))
    mesh = np.stack(meshes)
    landmarks = project(torch.from_numpy(mesh), cameras)[0][:, list(LANDMARKS_68)].numpy()
    rows = [cameras.camera_to_world.flatten(1).numpy(), (cameras.intrinsics.numpy() / [[size], [size], [1]]).reshape(-1, 9)]
    y, x = np.divmod(np.arange(size * size), size)
    wall = (background(person, (x + 0.5) / size, (y + 0.5) / size) * 255).round().astype(np.uint8).reshape(size, size, 3)
    info = {"dataset": "synthetic", "person": name, "clip": key, "reprojection_error": 0.0}
    return TrackedClip(key, np.stack(pictures), voice(opening, rounding, draw), np.concatenate(rows, 1).astype(np.float32),
                       landmarks, mesh, np.stack(masks), wall, info)


def synthesize(output: Path, *, people: int, clips: int, seconds: float = 2.0, size: int = 128, seed: int = 0,
               clips_per_shard: int = 100) -> None:
    """Writes shards of `people` heads with `clips` clips each; the same files for the same numbers."""
    progress = Progress("synthesizing", people * clips, "clips")
    sums: dict[str, tuple[np.ndarray, int]] = {}

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        for index in range(people):
            person, name = draw_person(np.random.default_rng([seed, index])), f"synthetic_p{seed:03d}_{index:03d}"
            for number in range(clips):
                key = f"{name}-{number:03d}"
                clip = synthetic_clip(person, name, key, seconds, size, np.random.default_rng([seed, index, number + 1]))
                total, count = sums.get(name, (0, 0))
                sums[name] = (total + clip.mesh.sum(0, dtype=np.float64), count + len(clip.mesh))
                yield key, encode_sample(clip)
                progress.advance()

    shards = write_shards(samples(), Path(output), "synthetic", clips_per_shard)
    progress.finish()
    write_people(sums, Path(output))
    index = {"clips": people * clips, "people": people, "seconds": people * clips * seconds,
             "shards": [path.name for path in shards]}
    write_whole(Path(output) / "index.json", json.dumps(index, indent=1).encode())
