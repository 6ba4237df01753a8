"""From shards to batches of clips."""
from __future__ import annotations

import json
import random
import tarfile
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Iterable, Iterator, Optional, Union

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from s3dnerf import media
from s3dnerf.data.shards import TrackedClip, decode_sample, read_people
from s3dnerf.data.whole_clips import whole_clips
from s3dnerf.errors import DatasetError
from s3dnerf.face import INNER_LIPS, eye_opening, mouth_opening
from s3dnerf.geometry import project
from s3dnerf.types import Cameras, Clip, Portrait

LONG_CLIP = 40
"""A clip gives one example for every so many frames, so that long clips are seen as often as many short ones."""
HALVES = ("even", "odd")


class ClipDataModule(pl.LightningDataModule):
    """Reads folders of shards as `s3dnerf prepare` or `s3dnerf synthesize` writes them.

    Training draws shards with replacement, each worker of each process its own, with a fixed number of batches per epoch,
    so that no process ever waits for another. What an epoch draws follows from the seed and the epoch's number alone:
    training that is resumed goes on exactly, within an epoch too (with the trainer's `reload_dataloaders_every_n_epochs` at 1, as in
    configs/).
    Validation reads every clip once, `s3dnerf test` every clip whole.

    Args:
        train: folder of training shards.
        val: folder of validation shards; None does without.
        frames: frames per example.
        spacing: largest distance between neighbouring frames of an example; 1 takes consecutive frames.
        batch_size: examples per batch.
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
        balance: 0 draws everybody as often as there is of them, 1 everybody alike (and reads all the more to find the rare
            ones), 0.5 lies between.
        size: side of the photo and the frames, pixels, a multiple of 4; None takes them as the shards have them, and larger
            than that they cannot be.
        workers: loader processes.
        shuffle: clips that are held in memory to draw from.
        seed: of the draws.
    """

    def __init__(self, train: Optional[str] = None, val: Optional[str] = None, frames: int = 4, spacing: int = 8,
                 batch_size: int = 4, steps_per_epoch: int = 250, val_clips: Optional[int] = 16, val_frames: int = 12,
                 images: str = "all", hard_pairs: float = 0.5, blinks: float = 0.3, jitter: float = 0.2, speech_field: str = "mel",
                 people: str = "all", balance: float = 0.0, size: Optional[int] = None, workers: int = 1, shuffle: int = 200,
                 seed: int = 0):
        super().__init__()
        if images not in ("all", "photo", "none"):
            raise DatasetError(f"found images={images!r}; expected all, photo or none")
        if people not in ("all", *HALVES):
            raise DatasetError(f"found people={people!r}; expected all, even or odd")
        self.train, self.val, self.batch_size, self.steps_per_epoch = train, val, batch_size, steps_per_epoch
        self.people, self.balance = people, balance
        self.val_clips, self.workers, self.shuffle, self.seed = val_clips, workers, shuffle, seed
        self.training = partial(make_examples, frames=frames, spacing=spacing, images=images, hard_pairs=hard_pairs,
                                blinks=blinks, jitter=jitter, speech_field=speech_field, size=size)
        self.validation = partial(make_validation_example, frames=val_frames or frames, even=val_frames > 0, images=images,
                                  speech_field=speech_field, size=size)

    def train_dataloader(self):
        import webdataset as wds

        seed = 10_000 * self.seed + (self.trainer.current_epoch if self.trainer else 0)
        shards = wds.ResampledShards(shard_paths(self.train), seed=seed, deterministic=True)
        people = half(read_people(self.train), self.people, self.train)
        shares = balanced(self.train, people, self.balance) if self.balance else dict.fromkeys(people, 1.0)
        dataset = wds.DataPipeline(shards, wds.tarfile_to_samples(), wds.shuffle(self.shuffle, rng=random.Random(seed)),
                                   partial(self._examples, people=people, shares=shares, seed=seed))
        dataset.append(wds.batched(self.batch_size, collation_fn=Clip.stack, partial=False))
        loader = wds.WebLoader(dataset, batch_size=None, num_workers=self.workers, worker_init_fn=one_thread)
        return Epoch(loader, self.steps_per_epoch)

    def _examples(self, samples, people, shares, seed):
        worker = torch.utils.data.get_worker_info()
        draw = random.Random(f"{seed} {worker.id if worker else 0} {self.trainer.global_rank if self.trainer else 0}")
        for sample in samples:
            share = shares.get(json.loads(sample["json"])["person"], 0.0)
            if share == 1 or share > 0 and draw.random() < share:
                yield from self.training(sample, people, draw)

    def val_dataloader(self):
        if self.val is None:
            return []
        import webdataset as wds

        people = read_people(self.val)
        dataset = wds.WebDataset(shard_paths(self.val), shardshuffle=False, nodesplitter=wds.split_by_node,
                                 workersplitter=wds.split_by_worker, empty_check=False)
        dataset = dataset.map(lambda sample: self.validation(sample, people))
        if self.val_clips is not None:
            dataset = dataset.slice(self.val_clips)
        return wds.WebLoader(dataset.batched(1, collation_fn=Clip.stack), batch_size=None, num_workers=0)

    def test_dataloader(self):
        """All validation clips, whole, shared out among the processes."""
        if self.val is None:
            return []
        settings = self.validation.keywords
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return whole_clips(self.val, shard_paths(self.val), make_clip, rank=rank, world=world,
                           speech_field=settings["speech_field"], size=settings["size"])

    predict_dataloader = val_dataloader


class Epoch:
    """So many batches of an endless loader. Its state is how many were drawn: Lightning keeps it in checkpoints, and an
    epoch that is taken up again passes over them."""

    def __init__(self, loader: Iterable[Clip], length: int):
        self.loader, self.length, self.drawn, self.first = loader, length, 0, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Clip]:
        first, self.first = self.first, 0  # read now, not when the first batch is drawn
        return self._batches(first)

    def _batches(self, first: int) -> Iterator[Clip]:
        for index, batch in enumerate(islice(self.loader, self.length)):
            if index >= first:
                self.drawn = index + 1
                yield batch

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


def balanced(folder: str, people: Iterable[str], balance: float) -> dict[str, float]:
    """The share of each one's clips that is taken: all of the person of whom there is least, n ** -balance of one of whom
    there is n times as much."""
    frames = dict.fromkeys(people, 0)
    for path in shard_paths(folder):
        with tarfile.open(path) as tar:
            for info in (json.load(tar.extractfile(member)) for member in tar if member.name.endswith(".json")):
                if info["person"] in frames:
                    frames[info["person"]] += info["n_frames"]
    least = min(count for count in frames.values() if count)
    return {person: (least / count) ** balance for person, count in frames.items() if count}


def one_thread(_worker: int) -> None:
    """Loader processes leave the cores to the model."""
    torch.set_num_threads(1)


def shard_paths(folder: Optional[str]) -> list[str]:
    """The shards of a folder, in order; DatasetError if there are none."""
    paths = sorted(str(path) for path in Path(folder or "").glob("*.tar"))
    if not folder or not paths:
        raise DatasetError(f"no shards (*.tar) in {folder}; make some with `s3dnerf prepare` or `s3dnerf synthesize`")
    return paths


def make_examples(sample: dict, people: dict[str, np.ndarray], draw: random.Random, *, frames: int, spacing: int,
                  images: str, hard_pairs: float, blinks: float, jitter: float, speech_field: str,
                  size: Optional[int] = None) -> Iterator[Clip]:
    """Training examples of one shard sample: a photo and `frames` frames in order, drawn at random."""
    total = json.loads(sample["json"])["n_frames"]
    mesh = torch.from_numpy(read_array(sample["mesh.npy"]))
    opening, closing = mouth_opening(mesh).numpy(), -eye_opening(mesh).numpy()
    for _ in range(max(1, round(total / LONG_CLIP))):
        if total < frames:
            return
        step = draw.randint(1, max(1, min(spacing, total // frames)))
        starts = range(total - (frames - 1) * step)
        photo, start = draw.randrange(total), draw.choice(starts)
        if draw.random() < hard_pairs:
            extent, tries = (closing, 16) if draw.random() < blinks else (opening, 4)
            photo = int(draw.choice(np.argsort(extent)[: max(1, total // 4)]))
            start = max(draw.sample(starts, min(tries, len(starts))), key=lambda s: extent[s:s + frames * step:step].max())
        chosen = [start + step * i for i in range(frames)]
        clip = make_clip(sample, people, chosen, photo, images, speech_field, size)
        yield jitter_colours(clip, jitter, draw) if jitter and images == "all" else clip


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
    masks = torch.from_numpy(tracked.masks).float()
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
    shown = torch.stack([masks[photo, 0], masks[photo, :2].amax(0)])[None]
    head, person = F.interpolate(shown, size=(size, size), mode="bilinear", align_corners=False)[0, :, None]
    portrait = Portrait(pictures[-1] if wanted else none[:, 0], head, cameras[photo], mesh[photo], person)
    mel, speech = speech_windows(tracked, sample, speech_field, chosen)
    return Clip(frames=pictures[:-1] if images == "all" else none, head=masks[chosen, :1],
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
    """The same random brightness, contrast and colour cast on photo and frames."""
    import dataclasses

    gain = torch.tensor([draw.uniform(1 - strength, 1 + strength) * draw.uniform(1 - strength / 3, 1 + strength / 3)
                         for _ in range(3)])[:, None, None]
    shift = draw.uniform(-strength / 3, strength / 3)
    change = lambda image: (image * gain + shift).clamp(0, 1)
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
