"""Whole clips of shards, with their sound, for `s3dnerf test`."""
from __future__ import annotations

import dataclasses
import json
from functools import partial
from itertools import islice
from typing import Optional

import numpy as np
import torch

from s3dnerf.data.shards import decode_wav, read_people
from s3dnerf.types import Clip


def whole_clips(folder: str, paths: list[str], make_clip, *, rank: int = 0, world: int = 1, speech_field: str = "mel",
                size: Optional[int] = None):
    """A loader of the clips of the shards at `paths`, one in a batch, all frames of it: every `world`-th clip from number
    `rank` on, so that processes share them out however the shards lie. `make_clip` is `data.module.make_clip`."""
    import webdataset as wds

    whole = partial(_whole, people=read_people(folder), make_clip=make_clip, speech_field=speech_field, size=size)
    dataset = wds.DataPipeline(wds.SimpleShardList(paths), wds.tarfile_to_samples(),
                               partial(_own, rank=rank, world=world), wds.map(whole), wds.batched(1, collation_fn=Clip.stack))
    return wds.WebLoader(dataset, batch_size=None, num_workers=0)


def _own(samples, rank: int, world: int):
    return islice(samples, rank, None, world)


def _whole(sample: dict, people: dict[str, np.ndarray], make_clip, speech_field: str, size: Optional[int]) -> Clip:
    frames = list(range(json.loads(sample["json"])["n_frames"]))
    clip = make_clip(sample, people, frames, 0, "all", speech_field, size)
    return dataclasses.replace(clip, sound=torch.from_numpy(decode_wav(sample["wav"])))
