"""Verbs that make weights."""
from __future__ import annotations

from typing import List, Literal, Optional


def train(train: str, val: str, output: str, config: Optional[List[str]] = None, stages: Optional[List[str]] = None,
          gate: Literal["reduce", "stop", "off"] = "reduce", plan: str = "configs/stages.yaml",
          launch: Optional[str] = None) -> None:
    """Trains everything, from shards to a bundle of weights: all stages, one after another.

    Shards come from `s3dnerf prepare` or `s3dnerf synthesize`. Every stage ends by itself when its validation figure no
    longer moves, and the next one starts from its best checkpoint. The same command takes up a run that was killed where it was
    cut. At the end OUTPUT/bundle holds the weights, and OUTPUT/figures.json what every stage reached.

    The lip-sync expert has a gate: AUC 0.9 (sounds of the same clip) and a median offset error of 1 frame, on validation
    people. Below it the weight of its judgement is multiplied by (AUC - 0.5) / (0.9 - 0.5), and left out beyond 1 frame.

    Example: s3dnerf train --train data/train --val data/val --output runs/mine

    Args:
        train: folder of training shards
        val: folder of validation shards, of other people
        output: folder of the run; given again, the run goes on
        config: YAML stacked on every stage, such as configs/overlays/tiny.yaml; may be given several times
        stages: run only this stage; may be given several times. Where one is left out, the next starts from the one before
        gate: below the expert's gate, reduce its weight, stop, or take it in full (off)
        plan: the list of stages
        launch: command that starts the processes of a stage, such as 'torchrun --nproc-per-node 8'; not needed for the devices
            of one machine (configs/overlays/multi_gpu.yaml)
    """
    from s3dnerf.curriculum import Curriculum

    Curriculum(plan, train, val, output, config or (), gate, launch).run(stages)


def personalize(video: str, output: str, method: Literal["rad-nerf", "ad-nerf", "disentangled", "adapt"] = "rad-nerf",
                config: Optional[List[str]] = None, size: Optional[int] = None) -> None:
    """Learns one person from a video of them: weights with which `speak` needs no photo.

    One to five minutes of one person who speaks to the camera, with sound. The last eleventh is held out; training ends by
    itself when that part no longer gets better. The same command takes up a run that was killed. OUTPUT then holds the
    weights, held_out.mp4 (the held-out part, driven by its sound and motion; with rad-nerf also held_out_head.mp4, by the head's
    motion alone), recording.mp4 (the same as recorded), preview.png and figures.json.

    Example: s3dnerf personalize --video me.mp4 --output runs/me

    Args:
        video: the recording
        output: folder of the run and of the weights; given again, the run goes on
        method: how the person is learned
        config: YAML stacked on every stage, such as configs/person/ad_nerf_paper.yaml; may be given several times
        size: side of the square frames, pixels; by default what the method's YAML says, 128 for ad-nerf and disentangled, else
            256
    """
    from pathlib import Path

    from s3dnerf.personalize import personalize as run

    run(video, Path(output), method, config or (), size)


def models() -> None:
    """Lists the weights that are installed."""
    from s3dnerf.models.hub import DEFAULT, available_models

    for name in available_models():
        print(name + (" (default)" if name == DEFAULT else ""))


def bundle(checkpoint: str, output: str, lip_sync: Optional[str] = None, mouth_gain: Optional[float] = None) -> None:
    """Turns a training checkpoint into a bundle of weights that `speak --weights` takes.

    Args:
        checkpoint: a .ckpt of `s3dnerf fit`
        output: folder for the bundle
        lip_sync: checkpoint of the lip discriminator, to be kept beside the model
        mouth_gain: factor on the mouth's motion that the bundle shall have
    """
    from s3dnerf.errors import InputError
    from s3dnerf.models.hub import load_lip_sync, load_model, save_model

    model = load_model(checkpoint)
    if mouth_gain is not None:
        if not getattr(model, "by_lips", True) or not 0 <= mouth_gain <= 10:
            raise InputError(f"found --mouth-gain {mouth_gain}; expected a number from 0 to 10, and weights that know a lip code")
        model.arguments["mouth_gain"] = mouth_gain
    save_model(model, output)
    if lip_sync is not None:
        save_model(load_lip_sync(lip_sync), output, "lip_sync", "lip_sync")
    print(f"wrote {output}")
