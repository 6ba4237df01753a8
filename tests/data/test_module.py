"""Batches of clips: what is drawn, what is decoded, who sees which shard."""
import ast
import json
import pickle
import random
from collections import Counter
from pathlib import Path
from threading import Lock
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from s3dnerf.data import module as data_module
from s3dnerf.data.module import (ClipDataModule, Epoch, balanced, half, jitter_colours, make_clip, make_example,
                                 make_validation_example, usual_workers)
from s3dnerf.data.shards import read_people, stored_clips, write_shards
from s3dnerf.errors import DatasetError
from s3dnerf.face import INNER_LIPS, eye_opening, mouth_opening
from s3dnerf.geometry import project


def module(shards, **options):
    settings = dict(train=str(shards), val=str(shards), frames=4, batch_size=2, steps_per_epoch=3, workers=0, jitter=0.0)
    return ClipDataModule(**(settings | options))


def raw_samples(shards):
    import webdataset as wds

    return list(wds.WebDataset([str(p) for p in sorted(shards.glob("*.tar"))], shardshuffle=False))


def test_batches_have_the_shapes_of_the_record_and_the_epoch_its_length(shards):
    batches = list(module(shards).train_dataloader())
    assert len(batches) == 3
    clip = batches[0]
    assert clip.frames.shape == (2, 4, 3, 64, 64) and clip.head.shape == (2, 4, 1, 16, 16)
    assert clip.mesh.shape == (2, 4, 478, 3) and clip.speech.shape == clip.mel.shape == (2, 4, 80, 40)
    assert clip.portrait.image.shape == (2, 3, 64, 64) and clip.mean_mesh.shape == (2, 478, 3) and len(clip.keys) == 2


def test_validation_sees_every_clip_once_from_its_first_frame(shards):
    clips = list(module(shards, val_clips=None).val_dataloader())
    keys = [key for clip in clips for key in clip.keys]
    assert len(keys) == len(set(keys)) == 4
    assert torch.equal(clips[0].frames[0, 0], clips[0].portrait.image[0])


def test_landmarks_cameras_and_mouth_agree(shards):
    clip = next(iter(module(shards).train_dataloader()))
    pixels = project(clip.mesh[:, :, list(INNER_LIPS)], clip.cameras)[0]
    centre = pixels.mean(2).long()
    for row in range(2):
        for t in range(4):
            opening = mouth_opening(clip.mesh[row, t])
            if opening > 0.12:
                assert clip.mouth[row, t, 0, centre[row, t, 1], centre[row, t, 0]] == 1


def test_only_what_is_asked_for_is_decoded(shards):
    photo = next(iter(module(shards, images="photo").train_dataloader()))
    assert photo.frames.numel() == 0 and photo.portrait.image.shape == (2, 3, 64, 64)
    none = next(iter(module(shards, images="none").train_dataloader()))
    assert none.portrait.image.numel() == 0 and none.mesh.shape == (2, 4, 478, 3)


def test_hard_pairs_go_from_closed_to_open(shards):
    people, draw = read_people(shards), random.Random(0)
    gap = {}
    for share in (0.0, 1.0):
        examples = hard_pairs(shards, people, draw, hard_pairs=share, blinks=0.0)
        gap[share] = torch.stack([mouth_opening(e.mesh).max() - mouth_opening(e.portrait.mesh) for e in examples]).mean()
    assert gap[1.0] > gap[0.0] + 0.02


def test_blinks_go_from_open_to_closed_eyes(shards):
    people, draw = read_people(shards), random.Random(0)
    gap = {}
    for share in (0.0, 1.0):
        examples = hard_pairs(shards, people, draw, hard_pairs=1.0, blinks=share)
        gap[share] = torch.stack([eye_opening(e.portrait.mesh) - eye_opening(e.mesh).min() for e in examples]).mean()
    assert gap[1.0] > gap[0.0] + 0.02


def hard_pairs(shards, people, draw, **shares):
    """Many examples drawn with these shares of hard pairs."""
    options = dict(frames=3, spacing=2, images="none", jitter=0.0, speech_field="mel")
    return [make_example(s, people, draw, **options, **shares) for s in raw_samples(shards) * 6]


def test_jitter_changes_photo_and_frames_alike(shards):
    people = read_people(shards)
    clip = make_validation_example(raw_samples(shards)[0], people, frames=3, images="all", speech_field="mel")
    changed = jitter_colours(clip, 0.3, random.Random(1))
    assert not torch.allclose(changed.frames, clip.frames)
    assert torch.equal(changed.frames[0], changed.portrait.image)


def test_same_seed_draws_the_same_and_epochs_differ(shards):
    def keys(**options):
        torch.manual_seed(0)
        return [b.frames.sum().item() for b in module(shards, **options).train_dataloader()]

    assert keys() == keys() and keys() != keys(seed=1)


@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_draw_together_what_one_draws(shards, workers):
    """Every batch of one process is the batches of two, one behind the other, whoever loads them."""
    def batches(rank, processes, **options):
        data = module(shards, frames=2, jitter=0.2, batch_size=4 // processes, **options)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=processes, current_epoch=1)
        return list(data.train_dataloader())

    alone, *shared = batches(0, 1), *(batches(rank, 2, workers=workers) for rank in range(2))
    for whole, *parts in zip(alone, *shared):
        assert torch.equal(whole.frames, torch.cat([part.frames for part in parts]))
        assert torch.equal(whole.mel, torch.cat([part.mel for part in parts])) and whole.keys == parts[0].keys + parts[1].keys


def test_an_epoch_that_is_taken_up_draws_nothing_again(shards, monkeypatch):
    data, asked = module(shards, images="none"), []
    whole = list(data.train_dataloader())
    rest = data.train_dataloader()
    monkeypatch.setattr("s3dnerf.data.module.make_clip", lambda *args, **_: asked.append(args) or make_clip(*args))
    rest.load_state_dict({"drawn": 2})
    assert [torch.equal(clip.mesh, whole[2].mesh) for clip in rest] == [True] and len(asked) == 2


def test_loader_processes_that_know_nothing_of_this_one_draw_the_same(shards):
    """Where processes are not forked, what they do is pickled, without trainer and data module."""
    data = module(shards, images="none")
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, current_epoch=0, lock=Lock())
    dataset = data.train_dataloader().batches(0).dataset
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3].mesh, dataset[3].mesh)


@pytest.mark.parametrize("folder", [None, "missing"])
def test_missing_shards_are_named_with_the_remedy(tmp_path, folder):
    data = ClipDataModule(train=str(tmp_path / folder) if folder else None)
    with pytest.raises(DatasetError, match="s3dnerf prepare"):
        data.train_dataloader()


def test_missing_speech_features_are_named(shards):
    with pytest.raises(DatasetError, match="aud.npy"):
        next(iter(module(shards, speech_field="aud").train_dataloader()))


def test_halves_share_nobody_and_everybody_is_in_one():
    people = {f"person{number}": number for number in range(60)}
    even, odd = (half(people, which, "here") for which in ("even", "odd"))
    assert not set(even) & set(odd) and even | odd == people and half(people, "all", "here") == people
    assert min(len(even), len(odd)) > 15
    few = dict(list(people.items())[:7])
    assert set(half(few, "even", "here")) == set(even) & set(few), "a person stays in its half whoever joins"


def test_shards_without_a_clip_of_so_many_frames_are_told(shards):
    with pytest.raises(DatasetError, match="no clip of 99 frames among the 4 clips"):
        module(shards, frames=99).train_dataloader()


def test_training_draws_from_its_half_alone(shards, monkeypatch):
    def seen(which):
        return {key.rsplit("-", 1)[0] for batch in module(shards, people=which, steps_per_epoch=6).train_dataloader()
                for key in batch.keys}

    assert len(seen("odd")) == 2
    with pytest.raises(DatasetError, match="none of the 2 people .* in the even half"):
        seen("even")
    first = lambda people, which, folder: {min(people): people[min(people)]} if which == "even" else people
    monkeypatch.setattr("s3dnerf.data.module.half", first)
    assert len(seen("even")) == 1
    with pytest.raises(DatasetError, match="expected all, even or odd"):
        module(shards, people="both")


def test_balance_draws_the_rare_more_often(shards, tmp_path):
    """Two people, one with six clips and one with one: as they come, by the root of it, and alike."""
    first = {json.loads(sample["json"])["person"]: sample for sample in raw_samples(shards)}
    common, rare = sorted(first)
    copies = [(f"{person}-{number}", {name: content for name, content in first[person].items() if name[:2] != "__"})
              for person, count in ((common, 6), (rare, 1)) for number in range(count)]
    write_shards(copies, tmp_path, "some")
    np.savez(tmp_path / "people.npz", **read_people(shards))
    stored = stored_clips(sorted(tmp_path.glob("*.tar")))
    assert balanced(stored, 0.5) == pytest.approx({common: 6 ** -0.5, rare: 1.0})
    for balance, due in ((0.0, 6.0), (0.5, 6 ** 0.5), (1.0, 1.0)):
        source = module(tmp_path, frames=2, batch_size=20, steps_per_epoch=10, images="none", balance=balance)
        drawn = Counter(key.rsplit("-", 1)[0] for batch in source.train_dataloader() for key in batch.keys)
        assert drawn[common] / drawn[rare] == pytest.approx(due, rel=0.3)


def test_an_epoch_is_taken_up_where_it_was_left():
    def drawn(epoch, count):
        return [batch for batch, _ in zip(epoch, range(count))]

    whole, cut, rest = (Epoch(lambda first: range(100 + first, 200), 6) for _ in range(3))
    assert len(whole) == 6 and list(whole) == list(range(100, 106))
    begun = iter(cut)
    assert [next(begun) for _ in range(4)] == [100, 101, 102, 103] and cut.state_dict() == {"drawn": 4}
    rest.load_state_dict(cut.state_dict())
    begun = iter(rest)
    assert drawn(rest, 1) == [100], "whoever else looks in starts at the beginning"
    assert list(begun) == [104, 105] and list(rest) == list(whole)


def test_smaller_frames_are_the_larger_ones_averaged_with_cameras_that_fit(shards):
    whole, half = (next(iter(module(shards, size=size).train_dataloader())) for size in (None, 32))
    assert half.frames.shape[-1] == half.portrait.image.shape[-1] == half.mouth.shape[-1] == 32 and half.head.shape[-1] == 8
    mean = torch.nn.functional.avg_pool2d(whole.frames.flatten(0, 1), 2).unflatten(0, whole.frames.shape[:2])
    assert torch.allclose(half.frames, mean, atol=1e-5)
    pixels = [project(clip.mesh, clip.cameras)[0] for clip in (whole, half)]
    assert torch.allclose(pixels[1], pixels[0] / 2, atol=1e-3)
    assert next(iter(module(shards, size=32, images="none").train_dataloader())).portrait.image.numel() == 0


def test_frames_larger_than_the_shards_are_refused(shards):
    with pytest.raises(DatasetError, match="--size 96"):
        next(iter(module(shards, size=96).train_dataloader()))


@pytest.mark.parametrize("devices, cores, workers", [(0, 64, 1), (1, 4, 3), (8, 64, 7), (2, 96, 8), (8, 8, 1)])
def test_loaders_share_the_cores_of_the_job_beside_gpus(shards, monkeypatch, devices, cores, workers):
    monkeypatch.setattr("torch.cuda.is_available", lambda: devices > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: devices)
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: set(range(cores)), raising=False)
    assert usual_workers() == workers == ClipDataModule(train=str(shards)).workers
    assert ClipDataModule(train=str(shards), workers=5).workers == 5


@pytest.mark.parametrize("file", ["module.py", "person.py", "person_frames.py", "person_windows.py", "shards.py"])
def test_loader_processes_import_nothing_that_wandb_listens_for(file):
    """At the first import of these packages wandb waits for a thread of its own, which a loader process, being a fork, does not
    have: training with wandb would stand still at its first batch, for ever."""
    from wandb.sdk.lib.telemetry import list_telemetry_imports

    code = ast.parse((Path(data_module.__file__).parent / file).read_text())
    later = [inner for function in ast.walk(code) if isinstance(function, ast.FunctionDef) for inner in ast.walk(function)]
    names = {alias.name for inner in later if isinstance(inner, ast.Import) for alias in inner.names}
    names |= {inner.module for inner in later if isinstance(inner, ast.ImportFrom)}
    assert {"torch", "kornia"} <= set(list_telemetry_imports())
    assert not {name.split(".")[0] for name in names} & set(list_telemetry_imports())
