"""From shards to batches of clips."""
from __future__ import annotations

import json
import random
import time
from functools import cached_property, partial
from hashlib import sha256
from itertools import accumulate, islice
from pathlib import Path
from typing import Callable, Iterable, Iterator, Optional, Sequence, Union

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from kornia.enhance import adjust_saturation_with_gray_subtraction  # not in a loader process, whom wandb would stop there
from torch.utils.data import DataLoader, Dataset

from s3dnerf import media
from s3dnerf.cores import own_cores
from s3dnerf.data.shards import StoredClip, TrackedClip, decode_sample, read_people, stored_clips
from s3dnerf.data.whole_clips import whole_clips
from s3dnerf.errors import DatasetError
from s3dnerf.face import INNER_LIPS, eye_opening, mouth_opening
from s3dnerf.geometry import project
from s3dnerf.types import Cameras, Clip, Portrait

LONG_CLIP = 40
"""A clip is drawn once for every so many frames, so that long clips are seen as often as many short ones."""
UNUSED = ("bg.jpg", "lmk.npy", "wav")
"""fields of a shard that no example shows"""
HALVES = ("even", "odd")


class ClipDataModule(pl.LightningDataModule):
    """Reads folders of shards as `s3dnerf prepare` or `s3dnerf synthesize` writes them.

    Training draws clips with replacement, with a fixed number of batches per epoch, so that no process ever waits for
    another. Every example has a number, and what it shows follows from the seed, the epoch and that number alone; the
    processes and their workers share the numbers among them. So a batch of two processes is that of one with twice the
    `batch_size`, and training that is resumed goes on exactly, within an epoch too (with the trainer's
    `reload_dataloaders_every_n_epochs` at 1, as in configs/), without drawing again what it had drawn.
    Validation reads every clip once, `s3dnerf test` every clip whole: each process takes every so manieth, and so does each of its
    workers.

    Args:
        train: folder of training shards.
        val: folder of validation shards; None does without.
        frames: frames per example.
        spacing: largest distance between neighbouring frames of an example; 1 takes consecutive frames.
        batch_size: examples per batch and process.
        steps_per_epoch: batches per epoch and process.
        val_clips: at most so many validation clips; None takes all.
        val_frames: frames of a validation clip, spread evenly over it; 0 takes `frames` consecutive ones.
        images: "all", "photo" (only the photo is decoded) or "none"; what is left out comes as tensors of size 0.
        hard_pairs: share of examples whose photo has a more closed mouth than its frames, which are chosen open.
        blinks: share of the hard pairs that are chosen for closed eyes, from a photo with open ones, instead.
        jitter: strength of the brightness, contrast and colour changes made alike to photo and frames.
        speech_field: shard field of the speech features, "mel" or "aud".
        people: "all", or "even" or "odd": train on the half of the people whose name has such a hash, the same whatever
            other people there are. Models that are to be judged by each other share nobody that way.
        balance: 0 draws everybody as often as there is of them, 1 everybody alike, 0.5 lies between.
        size: side of the photo and the frames, pixels, a multiple of 4; None takes them as the shards have them, and larger
            than that they cannot be.
        workers: loader processes of each process; 0 loads in the process itself, and None takes as many as `usual_workers`.
        seed: of the draws.
    """

    def __init__(self, train: Optional[str] = None, val: Optional[str] = None, frames: int = 4, spacing: int = 8,
                 batch_size: int = 4, steps_per_epoch: int = 250, val_clips: Optional[int] = 16, val_frames: int = 12,
                 images: str = "all", hard_pairs: float = 0.5, blinks: float = 0.3, jitter: float = 0.2, speech_field: str = "mel",
                 people: str = "all", balance: float = 0.0, size: Optional[int] = None, workers: Optional[int] = None, seed: int = 0):
        super().__init__()
        if images not in ("all", "photo", "none"):
            raise DatasetError(f"found images={images!r}; expected all, photo or none")
        if people not in ("all", *HALVES):
            raise DatasetError(f"found people={people!r}; expected all, even or odd")
        self.train, self.val, self.batch_size, self.steps_per_epoch = train, val, batch_size, steps_per_epoch
        self.people, self.balance, self.frames = people, balance, frames
        self.val_clips, self.seed = val_clips, seed
        self.workers = usual_workers() if workers is None else workers
        self.left_out = UNUSED + (() if images != "none" else ("mp4",))
        self.training = partial(make_example, frames=frames, spacing=spacing, images=images, hard_pairs=hard_pairs,
                                blinks=blinks, jitter=jitter, speech_field=speech_field, size=size)
        self.validation = partial(make_validation_example, frames=val_frames or frames, even=val_frames > 0, images=images,
                                  speech_field=speech_field, size=size)

    @property
    def process(self) -> tuple[int, int]:
        """Which of how many processes this is."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @cached_property
    def learned_from(self) -> tuple[list[StoredClip], list[float], dict[str, np.ndarray]]:
        """The training clips, how often each is drawn, and the people; DatasetError where there is nothing to draw."""
        stored = stored_clips(shard_paths(self.train))
        people = half(read_people(self.train), self.people, self.train)
        clips = [clip for clip in stored if clip.info["person"] in people and clip.info["n_frames"] >= self.frames]
        if not clips:
            raise DatasetError(f"found no clip of {self.frames} frames among the {len(stored)} clips of {self.train}; prepare "
                               "longer ones, or lower data.frames")
        shares = balanced(clips, self.balance)
        weights = [shares[clip.info["person"]] * max(1, round(clip.info["n_frames"] / LONG_CLIP)) for clip in clips]
        return clips, weights, people

    def train_dataloader(self) -> Epoch:
        seed = 10_000 * self.seed + (self.trainer.current_epoch if self.trainer else 0)
        clips, weights, people = self.learned_from
        make = partial(drawn_example, seed=seed, clips=clips, weights=list(accumulate(weights)), left_out=self.left_out,
                       make=partial(self.training, people=people))
        return Epoch(partial(self._batches, make), self.steps_per_epoch)

    def _batches(self, make: Callable[[int], Clip], first: int) -> Iterable[Clip]:
        """This process's batches of an epoch, from batch `first` on."""
        rank, processes = self.process
        starts = ((step * processes + rank) * self.batch_size for step in range(first, self.steps_per_epoch))
        return self._loader(make, [range(start, start + self.batch_size) for start in starts])

    def _loader(self, make: Callable[[int], Clip], numbers: list[Sequence[int]]) -> Iterable[Clip]:
        return DataLoader(Numbered(make), batch_sampler=numbers, collate_fn=Clip.stack, num_workers=self.workers,
                          worker_init_fn=one_thread, pin_memory=torch.cuda.is_available())

    def val_dataloader(self):
        if self.val is None:
            return []
        rank, processes = self.process
        clips = self.validated_on
        own = range(rank, len(clips), processes)
        make = partial(stored_example, clips=clips, left_out=self.left_out,
                       make=partial(self.validation, people=read_people(self.val)))
        # Lightning leaves out the hooks of a process without a batch, and the others would wait for it
        return Epoch(lambda first: self._loader(make, [[number] for number in own[first:]]), max(1, len(own)))

    @cached_property
    def validated_on(self) -> list[StoredClip]:
        """The validation clips."""
        return stored_clips(shard_paths(self.val))[:self.val_clips]

    def test_dataloader(self):
        """All validation clips, whole, shared out among the processes."""
        if self.val is None:
            return []
        settings = self.validation.keywords
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return whole_clips(self.val, shard_paths(self.val), make_clip, rank=rank, world=world,
                           speech_field=settings["speech_field"], size=settings["size"])

    predict_dataloader = val_dataloader

    def transfer_batch_to_device(self, batch: Clip, device: torch.device, dataloader_idx: int) -> Clip:
        """Without waiting for it, where the loader has locked its pages."""
        return batch.to(device, non_blocking=device.type == "cuda")


def drawn_example(number: int, *, seed: int, clips: list[StoredClip], weights: list[float], left_out: Sequence[str],
                  make: Callable[..., Clip]) -> Clip:
    """Training example `number` of an epoch: a clip drawn by cumulative weights, and what `make` draws of it."""
    draw = random.Random(f"{seed} {number}")
    return make(draw.choices(clips, cum_weights=weights)[0].read(left_out), draw=draw)


def stored_example(number: int, *, clips: list[StoredClip], left_out: Sequence[str], make: Callable[..., Clip]) -> Clip:
    """What `make` makes of clip `number`."""
    return make(clips[number].read(left_out))


class Numbered(Dataset):
    """What a function makes of numbers."""

    def __init__(self, make: Callable[[int], Clip]):
        self.make = make

    def __getitem__(self, number: int) -> Clip:
        return self.make(number)


class Epoch:
    """So many batches of a loader. Its state is how many were drawn: Lightning keeps it in checkpoints, and an epoch that is
    taken up again goes on with the next.

    Args:
        batches: called with a number, gives the batches of the epoch from that one on.
        length: how many batches the epoch has.
    """

    def __init__(self, batches: Callable[[int], Iterable[Clip]], length: int):
        self.batches, self.length, self.drawn, self.first = batches, length, 0, 0
        self.waited = 0.0
        """seconds that the last batch was waited for"""

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Clip]:
        first, self.first = self.first, 0  # read now, not when the first batch is drawn
        return self._batches(first)

    def _batches(self, first: int) -> Iterator[Clip]:
        begin = time.perf_counter()
        for index, batch in enumerate(islice(self.batches(first), self.length - first), first):
            self.waited = time.perf_counter() - begin
            self.drawn = index + 1
            yield batch
            begin = time.perf_counter()

    def state_dict(self) -> dict[str, int]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.drawn = self.first = state["drawn"]


def half(people: dict[str, np.ndarray], which: str, folder: str) -> dict[str, np.ndarray]:
    """The people of one of `HALVES`, told apart by a hash of their names, or all; DatasetError if nobody is left."""
    if which == "all":
        return people
    chosen = {name: mesh for name, mesh in people.items() if HALVES[sha256(name.encode()).digest()[0] % 2] == which}
    if not chosen:
        raise DatasetError(f"found none of the {len(people)} people of {folder} in the {which} half; add people, or set "
                           "data.people to all")
    return chosen


def balanced(clips: Iterable[StoredClip], balance: float) -> dict[str, float]:
    """How often each person's clips are drawn: 1 for the person of whom there is least, n ** -balance for one of whom there
    is n times as much."""
    frames: dict[str, int] = {}
    for clip in clips:
        frames[clip.info["person"]] = frames.get(clip.info["person"], 0) + clip.info["n_frames"]
    return {person: (min(frames.values()) / count) ** balance for person, count in frames.items()}


def usual_workers() -> int:
    """Loader processes that keep up with most models: beside a GPU, its share of the cores and at most 8; beside a model on the
    cores themselves, which takes ten times as long as its loader, 1."""
    if not torch.cuda.is_available():
        return 1
    return max(1, min(8, own_cores() // max(1, torch.cuda.device_count()) - 1))


def one_thread(_worker: int) -> None:
    """Loader processes leave the cores to the model."""
    torch.set_num_threads(1)


def shard_paths(folder: Optional[str]) -> list[str]:
    """The shards of a folder, in order; DatasetError if there are none."""
    paths = sorted(str(path) for path in Path(folder or "").glob("*.tar"))
    if not folder or not paths:
        raise DatasetError(f"no shards (*.tar) in {folder}; make some with `s3dnerf prepare` or `s3dnerf synthesize`")
    return paths


def make_example(sample: dict, people: dict[str, np.ndarray], draw: random.Random, *, frames: int, spacing: int,
                 images: str, hard_pairs: float, blinks: float, jitter: float, speech_field: str,
                 size: Optional[int] = None) -> Clip:
    """A training example of a shard sample of `frames` frames or more: a photo, and frames in order, drawn at random."""
    total = json.loads(sample["json"])["n_frames"]
    mesh = torch.from_numpy(read_array(sample["mesh.npy"]))
    step = draw.randint(1, max(1, min(spacing, total // frames)))
    starts = range(total - (frames - 1) * step)
    photo, start = draw.randrange(total), draw.choice(starts)
    if draw.random() < hard_pairs:
        eyes = draw.random() < blinks
        extent, tries = (-eye_opening(mesh).numpy(), 16) if eyes else (mouth_opening(mesh).numpy(), 4)
        photo = int(draw.choice(np.argsort(extent)[: max(1, total // 4)]))
        start = max(draw.sample(starts, min(tries, len(starts))), key=lambda s: extent[s:s + frames * step:step].max())
    clip = make_clip(sample, people, [start + step * i for i in range(frames)], photo, images, speech_field, size)
    return jitter_colours(clip, jitter, draw) if jitter and images == "all" else clip


def make_validation_example(sample: dict, people: dict[str, np.ndarray], *, frames: int, images: str,
                            speech_field: str, even: bool = True, size: Optional[int] = None) -> Clip:
    """The first frame as the photo, and `frames` frames spread evenly over the clip, or its first ones."""
    total = json.loads(sample["json"])["n_frames"]
    chosen = [int(x) for x in np.linspace(0, total - 1, frames).round()] if even else list(range(min(frames, total)))
    return make_clip(sample, people, chosen, 0, images, speech_field, size)


def make_clip(sample: dict, people: dict[str, np.ndarray], chosen: list[int], photo: int, images: str,
              speech_field: str, size: Optional[int] = None) -> Clip:
    """The record of one example [no batch size] from a shard sample; decodes only the frames that it needs.

    DatasetError if a `size` is larger than the shards'.
    """
    wanted = {"all": chosen + [photo], "photo": [photo], "none": []}[images]
    tracked = decode_sample(sample, frames=wanted)
    pictures = torch.from_numpy(tracked.frames).permute(0, 3, 1, 2).float() / 255
    masks = torch.from_numpy(tracked.masks[[*chosen, photo]]).float()
    stored, size = tracked.info["size"], size or tracked.info["size"]
    if size > stored:
        raise DatasetError(f"clip {tracked.key}: found frames of {stored} pixels; expected {size} or more: prepare the "
                           f"videos with --size {size}, or ask for smaller frames (data.size, image_size)")
    if size < stored:
        pictures = F.interpolate(pictures, size=(size, size), mode="area") if wanted else pictures
        masks = F.interpolate(masks, size=(size // 4, size // 4), mode="area")
    cameras = read_cameras(tracked.cameras, size)
    mesh = torch.from_numpy(tracked.mesh)
    none = torch.zeros(0, 3, 0, 0)
    shown = torch.stack([masks[-1, 0], masks[-1, :2].amax(0)])[None]
    head, person = F.interpolate(shown, size=(size, size), mode="bilinear", align_corners=False)[0, :, None]
    portrait = Portrait(pictures[-1] if wanted else none[:, 0], head, cameras[photo], mesh[photo], person)
    mel, speech = speech_windows(tracked, sample, speech_field, chosen)
    return Clip(frames=pictures[:-1] if images == "all" else none, head=masks[:-1, :1],
                mouth=mouth_masks(mesh[chosen], cameras[chosen], size), cameras=cameras[chosen], mesh=mesh[chosen],
                speech=speech, mel=mel, mean_mesh=torch.from_numpy(people[tracked.info["person"]]),
                portrait=portrait, keys=tracked.key)


def speech_windows(tracked: TrackedClip, sample: dict, field: str, chosen: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-mel windows [T, 80, 40] and speech features [T, C, W] around the chosen frames."""
    mel = torch.from_numpy(read_array(sample["mel.npy"])).float()
    windows = media.mel_windows(mel, len(tracked.cameras))[chosen]
    if field == "mel":
        return windows, windows
    if f"{field}.npy" not in sample:
        raise DatasetError(f"clip {tracked.key} has no field {field}.npy; prepare the shards with those speech features")
    features = F.pad(torch.from_numpy(read_array(sample[f"{field}.npy"])).float(), (7, 8))
    return windows, torch.stack([features[:, 2 * t:2 * t + 16] for t in chosen])


def mouth_masks(mesh: torch.Tensor, cameras: Cameras, size: int) -> torch.Tensor:
    """[T, 1, size, size] in {0, 1}: the polygon of the inner lips of landmarks [T, 478, 3]."""
    import cv2

    corners = project(mesh[:, list(INNER_LIPS)], cameras)[0].numpy()
    masks = np.zeros((len(mesh), size, size), np.uint8)
    for mask, polygon in zip(masks, corners):
        cv2.fillPoly(mask, [np.round((polygon - 0.5) * 16).astype(np.int32)], 1, shift=4)
    return torch.from_numpy(masks).float()[:, None]


def jitter_colours(clip: Clip, strength: float, draw: random.Random) -> Clip:
    """The same random brightness, contrast, colour cast and saturation on photo and frames."""
    import dataclasses

    gain = torch.tensor([draw.uniform(1 - strength, 1 + strength) * draw.uniform(1 - strength / 3, 1 + strength / 3)
                         for _ in range(3)])[:, None, None]
    shift = draw.uniform(-strength / 3, strength / 3)
    colour = draw.uniform(1 - strength, 1 + strength)
    change = lambda image: adjust_saturation_with_gray_subtraction((image * gain + shift).clamp(0, 1), colour)
    portrait = dataclasses.replace(clip.portrait, image=change(clip.portrait.image))
    return dataclasses.replace(clip, frames=change(clip.frames), portrait=portrait)


def read_cameras(rows: np.ndarray, size: int) -> Cameras:
    """Cameras [T] of shard rows [T, 25] for images of `size` pixels."""
    rows = torch.from_numpy(rows)
    scale = torch.tensor([[size], [size], [1.0]])
    return Cameras(rows[:, :16].unflatten(1, (4, 4)), rows[:, 16:].unflatten(1, (3, 3)) * scale)


def read_array(value: Union[bytes, np.ndarray]) -> np.ndarray:
    """A NumPy array from a shard field."""
    import io

    return value if isinstance(value, np.ndarray) else np.load(io.BytesIO(value))
