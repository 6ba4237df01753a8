"""One person's recording: from a video to a shard, and from the shard to batches of pixels."""
from __future__ import annotations

from itertools import count, islice
from pathlib import Path
from typing import Iterator, Optional

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from s3dnerf.data.body import track_body
from s3dnerf.data.module import Epoch, read_array, read_cameras, shard_paths
from s3dnerf.data.shards import TrackedClip, decode_sample
from s3dnerf.errors import DatasetError
from s3dnerf.face import COLLAR, FACE_OVAL, LANDMARKS_68, LIPS
from s3dnerf.geometry import pixel_grid, project
from s3dnerf.media import mel_windows
from s3dnerf.progress import counting
from s3dnerf.types import Cameras, PersonVideo, PixelBatch

HELD_OUT = 11
"""the last of so many parts of a recording is held out"""
NOSE_BASE = slice(31, 36)
"""of the 68 landmarks"""
MOUTH = 0.66
"""where the mouth is on the way from brows to chin"""
SAME = 0.1
"""difference to the background plate up to which a pixel at the edge of the head's mask is background: masks are wide"""
BODY = "body.npy"
"""file beside the shards: the torso's motion"""
REGIONS = ("head", "mouth", "eyes", "frame")


class PersonDataModule(pl.LightningDataModule):
    """Pixels of one person's recording; all its frames are held in memory, a byte per colour.

    The first ten elevenths are learned from, the rest is held out. Validation shows whole frames of the rest.

    Args:
        shards: folder of shards with one person, as `s3dnerf personalize` makes them; of several clips the longest is taken.
        frames: frames per batch.
        rays: pixels per frame of a batch.
        patch: side of a square of pixels around the mouth that takes the place of scattered ones, so that what is judged is
            a picture; 0 scatters.
        patch_every: with patches, every so manieth batch is one, the others are scattered (2 in RAD-NeRF's code, 1 in the
            paper).
        patch_frames: frames of a batch of patches.
        shares: how the scattered pixels are spread over the boxes around head, mouth and eyes, and the whole frame.
        steps_per_epoch: batches per epoch.
        val_frames: held-out frames that are validated on, spread evenly.
        size: side of the frames, pixels; None takes them as the shards have them.
        seed: of the draws.
    """

    def __init__(self, shards: Optional[str] = None, frames: int = 8, rays: int = 256, patch: int = 0,
                 patch_every: int = 2, patch_frames: int = 2,
                 shares: tuple[float, float, float, float] = (0.45, 0.25, 0.1, 0.2), steps_per_epoch: int = 250,
                 val_frames: int = 12, size: Optional[int] = None, seed: int = 0):
        super().__init__()
        if len(shares) != len(REGIONS) or min(shares) < 0 or sum(shares) <= 0:
            raise DatasetError(f"found shares={list(shares)}; expected four numbers, for {', '.join(REGIONS)}")
        self.shards, self.frames, self.rays, self.patch, self.shares = shards, frames, rays, patch, shares
        self.patch_every, self.patch_frames = patch_every, patch_frames
        self.steps_per_epoch, self.val_frames, self.size, self.seed = steps_per_epoch, val_frames, size, seed
        self.video: Optional[PersonVideo] = None

    def setup(self, stage: Optional[str] = None) -> None:
        if self.video is None:
            self.video = read_person(self.shards, self.size)
            self.boxes = region_boxes(self.video)
            self.lower = lower_face(self.video)

    @property
    def learned(self) -> int:
        """Frames that are learned from; what follows is held out."""
        return learned_frames(len(self.video.frames))

    def train_dataloader(self) -> Epoch:
        epoch = self.trainer.current_epoch if self.trainer else 0
        if self.trainer and self.trainer.world_size > 1:
            raise DatasetError(f"found {self.trainer.world_size} processes; one person is learned in one: set trainer.devices to 1")
        draw = lambda: torch.Generator().manual_seed(10_000 * self.seed + epoch)
        return Epoch(lambda first: islice(self.batches(draw()), first, None), self.steps_per_epoch)

    def val_dataloader(self):
        chosen = torch.linspace(self.learned, len(self.video.frames) - 1, self.val_frames).long()
        return torch.utils.data.DataLoader(chosen, batch_size=1, num_workers=0)

    test_dataloader = predict_dataloader = val_dataloader

    def batches(self, draw: torch.Generator) -> Iterator[PixelBatch]:
        """Batches without end."""
        for number in count():
            if self.patch and number % self.patch_every == 0:
                frame = torch.randint(self.learned, (self.patch_frames,), generator=draw)
                yield pixel_batch(self.video, frame, self._patches(frame, draw), self.lower, self.patch)
            else:
                frame = torch.randint(self.learned, (self.frames,), generator=draw)
                yield pixel_batch(self.video, frame, self._scattered(frame, draw), self.lower)

    def _scattered(self, frame: Tensor, draw: torch.Generator) -> Tensor:
        """Pixels [F, R, 2] (whole numbers, x and y), each drawn from one of the boxes."""
        shares = torch.tensor(self.shares)
        kind = torch.multinomial(shares, self.frames * self.rays, replacement=True, generator=draw).view(self.frames, self.rays)
        box = self.boxes[frame[:, None], kind]
        place = torch.rand(self.frames, self.rays, 2, generator=draw)
        return (box[..., :2] + place * (box[..., 2:] - box[..., :2])).long().clamp(0, self.video.frames.shape[1] - 1)

    def _patches(self, frame: Tensor, draw: torch.Generator) -> Tensor:
        """Pixels [F, patch * patch, 2] of squares around the mouth."""
        size = self.video.frames.shape[1]
        box = self.boxes[frame, REGIONS.index("mouth")]
        middle = (box[:, :2] + box[:, 2:]) / 2 + 0.1 * self.patch * (torch.rand(len(frame), 2, generator=draw) - 0.5)
        corner = (middle - self.patch / 2).round().long().clamp(0, size - self.patch)
        y, x = torch.meshgrid(torch.arange(self.patch), torch.arange(self.patch), indexing="ij")
        return corner[:, None] + torch.stack([x, y], -1).flatten(0, 1)


def learned_frames(total: int) -> int:
    """How many of a recording's frames are learned from."""
    return total * (HELD_OUT - 1) // HELD_OUT


def pixel_batch(video: PersonVideo, frame: Tensor, pixels: Tensor, lower: Tensor, patch: int = 0) -> PixelBatch:
    """What a recording shows at pixels [F, R, 2] (whole numbers, x and y) of its frames [F]; see `lower_face`."""
    x, y = pixels.unbind(-1)
    colour = video.frames[frame[:, None], y, x].float() / 255
    size = video.frames.shape[1]
    middles = pixels + 0.5
    own, torso = video.head[frame].float()[:, None], video.torso[frame].float()[:, None]
    inner = lambda mask: -F.max_pool2d(-mask, 3, 1, 1)
    masks = torch.cat([own, inner(own), torso, inner(torch.maximum(own, torso)), F.max_pool2d(own, 3, 1, 1) * (1 - torso)], 1)
    masks = F.grid_sample(masks, (middles * (2 / size) - 1)[:, :, None], align_corners=False, padding_mode="border")[..., 0]
    head, core, torso, person, free = masks.transpose(1, 2).split(1, -1)
    background = video.background[y, x].float() / 255
    head = torch.where((colour - background).abs().amax(-1, keepdim=True) < SAME, torch.minimum(head, core), head)
    landmarks = project(video.mesh[frame], video.cameras[frame])[0]
    head = torch.where(above_mouth(landmarks, middles), head, within_face(landmarks, middles, size / 256)[..., None])
    box = lower[frame][:, None]
    inside = ((middles >= box[..., :2]) & (middles <= box[..., 2:])).all(-1, keepdim=True)
    return PixelBatch(frame, video.cameras[frame], middles, colour, background, head, torso, person, free,
                      (~inside).float(), patch)


def region_boxes(video: PersonVideo) -> Tensor:
    """[T, 4, 4]: left, top, right and bottom of the boxes of `REGIONS` in every frame, pixels."""
    size = video.frames.shape[1]
    landmarks = project(video.mesh, video.cameras)[0]
    columns, rows = video.head.any(1), video.head.any(2)
    first = lambda flags: flags.float().argmax(1)
    last = lambda flags: flags.shape[1] - flags.flip(1).float().argmax(1)
    head = 4 * torch.stack([first(columns) - 1, first(rows) - 1, last(columns) + 1, last(rows) + 1], 1).float()
    eyes = landmarks[:, [33, 133, 263, 362, 159, 145, 386, 374, 105, 334]]
    whole = torch.tensor([0.0, 0.0, size, size]).expand(len(head), 4)
    boxes = torch.stack([head, around(landmarks[:, list(LIPS)], 0.25), around(eyes, 0.1), whole], 1)
    return boxes.clamp(0, size)


def around(points: Tensor, margin: float) -> Tensor:
    """[T, 4] boxes around points [T, N, 2], wider by `margin` of their width on every side."""
    low, high = points.amin(1), points.amax(1)
    border = margin * (high - low)[:, :1]
    return torch.cat([low - border, high + border], 1)


def lower_face(video: PersonVideo) -> Tensor:
    """[T, 4]: left, top, right and bottom of the box, pixels, outside which speech should move nothing: from the base of the
    nose to the lowest landmark, as wide as the face (RAD-NeRF's code)."""
    points = project(video.mesh[:, list(LANDMARKS_68)], video.cameras)[0]
    low, high = points.amin(1), points.amax(1)
    return torch.stack([low[:, 0], points[:, NOSE_BASE, 1].amin(1), high[:, 0], high[:, 1]], 1)


def read_person(folder: Optional[str], size: Optional[int] = None) -> PersonVideo:
    """The longest clip of a folder of shards; DatasetError where there is none, or several people are in it."""
    import json

    import webdataset as wds

    best, people = None, set()
    for sample in wds.WebDataset(shard_paths(folder), shardshuffle=False, empty_check=False):
        info = json.loads(sample["json"])
        people.add(info["person"])
        if best is None or info["n_frames"] > json.loads(best["json"])["n_frames"]:
            best = sample
    if len(people) != 1:
        raise DatasetError(f"found {len(people)} people in {folder}; expected one: make it with `s3dnerf personalize`")
    return person_video(decode_sample(best), torch.from_numpy(read_array(best["mel.npy"])).float(), size, body_motion(folder))


def body_motion(folder: str) -> Optional[np.ndarray]:
    """[T, 4] the torso's motion that was found when the shards were made; None where it was not looked for."""
    path = Path(folder) / BODY
    return np.load(path) if path.is_file() else None


def without_neck(cameras: Cameras, mesh: Tensor, size: int) -> Tensor:
    """[T, size / 4, size / 4] bool: above the mouth, or within the face's outline: what is left below is neck and collar, which
    are the torso's."""
    landmarks = project(mesh, cameras)[0]
    cells = pixel_grid(size // 4, size // 4, mesh) * 4
    kept = [above_mouth(part, cells[None])[..., 0] | (within_face(part, cells[None], size / 256) > 0.5)
            for part in landmarks.split(1)]
    return torch.cat(kept).unflatten(1, (size // 4, size // 4))


def above_mouth(landmarks: Tensor, places: Tensor) -> Tensor:
    """[F, R, 1] bool: places [F, R, 2] nearer to the brows than the mouth of landmarks [F, 478, 2], along the face."""
    brow, chin = landmarks[:, [9, 152]].unbind(1)
    down = chin - brow
    depth = ((places - brow[:, None]) * F.normalize(down, dim=-1)[:, None]).sum(-1, keepdim=True)
    return depth < MOUTH * down.norm(dim=-1)[:, None, None]


def within_face(landmarks: Tensor, places: Tensor, pixel: float = 1.0) -> Tensor:
    """[F, R]: 1 at places [F, R, 2] within the outline of landmarks [F, 478, 2], falling to 0 two pixels beyond it, which is
    as far as the tracked outline can be trusted; a `pixel` is a 256th of the frame."""
    outline = landmarks[:, list(FACE_OVAL)]
    edges = outline.roll(-1, 1) - outline
    inward = F.normalize(torch.stack([-edges[..., 1], edges[..., 0]], -1), dim=-1)
    turns = torch.sign((outline * edges.flip(-1) * edges.new_tensor([1.0, -1.0])).sum((1, 2)))[:, None]
    farthest = ((inward * outline).sum(-1) * turns)[:, None]
    distance = (places @ (inward * turns[..., None]).transpose(1, 2) - farthest).amin(-1)
    return (1 + distance / (2 * pixel)).clamp(0, 1)


def torso_motion(clip: TrackedClip) -> np.ndarray:
    """[T, 4] how the torso of a tracked clip moves about `COLLAR`, as in `data.body.BodyTrack`."""
    with counting("following the torso", len(clip.frames)) as advance:

        def frames() -> Iterator[np.ndarray]:
            for frame in clip.frames:
                yield frame
                advance()

        return track_body(frames(), clip.masks[:, 1], clip.masks[:, 0], pivot=COLLAR).motion


def person_video(clip: TrackedClip, mel: Tensor, size: Optional[int] = None, body: Optional[np.ndarray] = None) -> PersonVideo:
    """The record of a tracked clip, its frames reduced to `size` pixels where that is given; the torso's motion [T, 4] is looked
    for where it is not."""
    body = torso_motion(clip) if body is None else body
    stored = clip.frames.shape[1]
    size = size or stored
    if size > stored or size % 4:
        raise DatasetError(f"clip {clip.key}: found frames of {stored} pixels; expected size, a multiple of 4, to be at most "
                           "that")
    frames, background = clip.frames, clip.background
    if size < stored:
        import cv2

        reduce = lambda image: cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
        frames, background = np.stack([reduce(frame) for frame in frames]), reduce(background)
    head, torso = torch.from_numpy(clip.masks[:, 0]), torch.from_numpy(clip.masks[:, 1])
    if size < stored:
        head, torso = (F.interpolate(mask.float()[:, None], size=size // 4, mode="area")[:, 0] > 0.5 for mask in (head, torso))
    windows = mel_windows(mel, len(clip.cameras))
    cameras, mesh = read_cameras(clip.cameras, size), torch.from_numpy(clip.mesh)
    own = without_neck(cameras, mesh, size)
    return PersonVideo(torch.from_numpy(frames), head & own, torso | head & ~own, cameras, mesh, windows,
                       torch.from_numpy(background.copy()), torch.from_numpy(clip.speech), torch.from_numpy(body))
