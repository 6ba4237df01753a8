"""Clips and shards of synthetic heads: exact cameras, masks and landmarks, and a mouth that follows its speech."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Iterator

import numpy as np
import torch

from s3dnerf.data.shards import TrackedClip, encode_sample, write_people, write_shards, write_whole
from s3dnerf.data.synthetic_head import Expression, Proportions, SyntheticHead
from s3dnerf.data.synthetic_picture import Paint, paint_wall, take_picture
from s3dnerf.data.synthetic_speech import articulation, voice
from s3dnerf.errors import InputError
from s3dnerf.face import LANDMARKS_68
from s3dnerf.geometry import frontal_camera, project, rigid_inverse, rotation_from_euler
from s3dnerf.media import FPS
from s3dnerf.progress import Progress
from s3dnerf.types import Cameras
from s3dnerf.workers import alone

SHARP_SIZE = 256
"""pictures of fewer pixels are rendered twice as large, so that their edges are smooth"""
BLINK = (0.5, 1.0, 1.0, 0.6, 0.2)
"""how far the eyes are shut, frame by frame"""
TURNS = (9.0, 15.0, 6.0)
"""largest pitch, yaw and roll, degrees"""
SHIFTS = (0.1, 0.07, 0.4)
"""largest movement to the side, up or down, and to or from the camera, head units"""


def synthesize(output: Path, *, people: int, clips: int, seconds: float = 2.0, size: int = 128, seed: int = 0,
               clips_per_shard: int = 100) -> None:
    """Writes shards of `people` heads with `clips` clips each; the same files for the same numbers.

    People are called `synthetic_p` + seed + `_` + number: other seeds give other people, so training and validation folders
    made with different seeds share nobody. InputError for numbers that give nothing.
    """
    check(people, clips, seconds, size, clips_per_shard)
    progress = Progress("synthesizing", people * clips, "clips")
    sums: dict[str, tuple[np.ndarray, int]] = {}

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        for index in range(people):
            head, paint = draw_person(np.random.default_rng([seed, index]))
            name = f"synthetic_p{seed:03d}_{index:03d}"
            for number in range(clips):
                draw = np.random.default_rng([seed, index, number + 1])
                clip = synthetic_clip(head, paint, name, f"{name}-{number:03d}", seconds, size, draw)
                total, count = sums.get(name, (0, 0))
                sums[name] = (total + clip.mesh.sum(0, dtype=np.float64), count + len(clip.mesh))
                yield clip.key, encode_sample(clip)
                progress.advance()

    shards = write_shards(samples(), Path(output), "synthetic", clips_per_shard)
    progress.finish()
    write_people(sums, Path(output))
    index = {"clips": people * clips, "people": people, "seconds": people * clips * seconds,
             "shards": [path.name for path in shards]}
    write_whole(Path(output) / "index.json", json.dumps(index, indent=1).encode())


def check(people: int, clips: int, seconds: float, size: int, clips_per_shard: int) -> None:
    """InputError, naming the remedy, for numbers that cannot be."""
    for name, value in (("people", people), ("clips", clips), ("clips per shard", clips_per_shard)):
        if value < 1:
            raise InputError(f"found {value} {name}; expected 1 or more")
    if seconds * FPS < 1:
        raise InputError(f"found clips of {seconds} s; expected at least one frame: {1 / FPS} s or more")
    if size < 16 or size % 4:
        raise InputError(f"found frames of {size} pixels; expected a multiple of 4, 16 or more (masks are a quarter of it)")


def draw_person(draw: np.random.Generator) -> tuple[SyntheticHead, Paint]:
    """A random head and its colours."""
    uniform = lambda low, high, shape=None: torch.from_numpy(np.asarray(draw.uniform(low, high, shape))).float()
    number = lambda low, high: draw.uniform(low, high)
    proportions = Proportions(jaw=number(0.9, 1.1), chin=number(0.93, 1.08), nose=number(0.75, 1.25), mouth=number(0.86, 1.16),
                              eyes=number(0.85, 1.2), hairline=number(-1.0, -0.85), sideburn=number(-0.05, 0.55))
    skin = torch.tensor([0.97, 0.79, 0.68]) * uniform(0.42, 1.0) + uniform(-0.03, 0.03, 3)
    hair = torch.tensor([(0.10, 0.08, 0.07), (0.32, 0.19, 0.11), (0.78, 0.6, 0.3), (0.6, 0.25, 0.1), (0.6, 0.6, 0.62),
                         (0.25, 0.3, 0.5)])[draw.integers(6)] * uniform(0.8, 1.15)
    lips = skin * torch.tensor([0.86, 0.5, 0.52]) + uniform(-0.04, 0.04, 3)
    freckles = uniform([-0.75, -0.25], [0.75, 0.35], (draw.integers(0, 12), 2))
    paint = Paint(skin.clamp(0, 1), hair.clamp(0, 1), lips.clamp(0, 1), uniform(0.1, 0.65, 3), uniform(0.1, 0.85, 3),
                  uniform(0.2, 0.85, (4, 3)), uniform([0, 0, 0.03], [1, 0.9, 0.15], (6, 3)), uniform(0.15, 0.9, (6, 3)), freckles,
                  float(draw.integers(40, 90)))
    return SyntheticHead(proportions), paint


def head_cameras(frames: int, size: int, draw: np.random.Generator) -> Cameras:
    """Cameras [frames] of a head that turns within `TURNS` and moves within `SHIFTS`, smoothly."""
    time = np.arange(frames) / FPS
    wave = lambda most: most * draw.uniform(0.3, 1) * np.sin(2 * np.pi * draw.uniform(0.1, 0.5) * time + draw.uniform(0, 6.3))
    angles = [torch.from_numpy(np.radians(wave(most))).float() for most in TURNS]
    camera = frontal_camera(size)
    pose = torch.eye(4).repeat(frames, 1, 1)
    pose[:, :3, :3] = rotation_from_euler(*angles)
    pose[:, :3, 3] = torch.from_numpy(np.stack([wave(most) for most in SHIFTS], 1)) + rigid_inverse(camera.camera_to_world)[:3, 3]
    return Cameras(rigid_inverse(pose), camera.intrinsics.expand(frames, 3, 3))


def draw_blinks(frames: int, draw: np.random.Generator) -> np.ndarray:
    """[T] in [0, 1] how far the eyes are shut: blinks every one and a half to four seconds."""
    blinks, start = np.zeros(frames + len(BLINK)), draw.integers(0, 2 * FPS)
    while start < frames:
        blinks[start:start + len(BLINK)] = BLINK
        start += draw.integers(3 * FPS // 2, 4 * FPS)
    return blinks[:frames]


def synthetic_clip(head: SyntheticHead, paint: Paint, person: str, key: str, seconds: float, size: int,
                   draw: np.random.Generator) -> TrackedClip:
    """A clip of a head that speaks."""
    frames = max(1, round(seconds * FPS))
    opening, rounding = articulation(frames, draw)
    blinks = draw_blinks(frames, draw)
    cameras = head_cameras(frames, size, draw)
    expressions = [Expression(*map(float, numbers)) for numbers in zip(opening, rounding, blinks)]
    wall = paint_wall(paint, size)
    with alone():
        images, masks, mesh = film(head, paint, expressions, wall, cameras)
    landmarks = project(mesh, cameras)[0][:, list(LANDMARKS_68)].numpy()
    intrinsics = cameras.resized(1 / size).intrinsics
    rows = torch.cat([cameras.camera_to_world.flatten(1), intrinsics.flatten(1)], 1).numpy()
    info = {"dataset": "synthetic", "person": person, "clip": key, "reprojection_error": 0.0}
    return TrackedClip(key, images, voice(opening, rounding, draw), rows, landmarks, mesh.numpy(), masks, to_bytes(wall), info)


def film(head: SyntheticHead, paint: Paint, expressions: list[Expression], wall: torch.Tensor,
         cameras: Cameras) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Frames [T, S, S, 3] uint8, masks [T, 3, S/4, S/4] bool (head, torso, mouth) and landmarks [T, 478, 3]."""
    size, images, masks, mesh = len(wall), [], [], []
    body = rigid_inverse(frontal_camera(size).camera_to_world)
    for t, expression in enumerate(expressions):
        table = head.surface(expression)
        picture = take_picture(head, paint, expression, table, wall, cameras[t], body, 2 if size < SHARP_SIZE else 1)
        images.append(to_bytes(picture.image))
        masks.append(torch.nn.functional.avg_pool2d(torch.stack([picture.head, picture.torso, picture.mouth]), 4).numpy() > 0.5)
        mesh.append(head.landmarks(expression, table))
    return np.stack(images), np.stack(masks), torch.stack(mesh)


def to_bytes(image: torch.Tensor) -> np.ndarray:
    """uint8 of an image in [0, 1]."""
    return (image.clamp(0, 1) * 255).round().byte().numpy()
