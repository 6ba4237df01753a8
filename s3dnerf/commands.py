"""The verbs of the command line; their signatures are its options, their docstrings its help."""
from __future__ import annotations

from typing import List, Literal, Optional

POSES = ("still", "natural")


def speak(photo: Optional[str] = None, speech: Optional[str] = None, output: str = "out.mp4", weights: str = "one-shot-256",
          frame: Optional[Literal["full", "face"]] = None, pose: str = "natural", drive: Optional[str] = None,
          mouth_gain: Optional[float] = None, camera: str = "0,0", eyes: str = "keep", background: str = "keep",
          smooth: float = 0.0, device: Literal["auto", "cpu", "cuda"] = "auto", seed: int = 0, json: Optional[str] = None,
          sheet: Optional[str] = None, quality: Literal["fast", "balanced", "best", "auto"] = "best") -> None:
    """Makes a photo speak: one photo and a recording of speech become a video with sound.

    Example: s3dnerf speak --photo face.jpg --speech hello.wav --output out.mp4

    Args:
        photo: the photo (JPEG, PNG, WebP and the like); one face that looks at the camera works best. Left out with weights of
            `s3dnerf personalize`
        speech: any file with a sound track, a video too; may be left out when --drive is given
        output: the video to write (mp4, m4v, mov or mkv)
        weights: name of installed weights (see `s3dnerf models`), a folder, or a training checkpoint
        frame: full is the photo at its own size (at most 1080 on the long side), face is the square crop; by default full with
            a photo, and face with weights of `s3dnerf personalize`, which have no other
        pose: still, natural (small head motion and blinks), a video whose head motion is followed, or a camera path, JSON such
            as {"keys": [{"time": 0}, {"time": 2, "yaw": 15, "pitch": 5, "roll": 0, "zoom": 1.3}]} or
            {"fps": 25, "frames": [{"yaw": 0}, {"yaw": 1}]}
        drive: a video whose lips move the mouth in place of the speech
        mouth_gain: factor on the mouth's motion; the weights have their own
        camera: degrees that the camera goes around the head, to the right and up, and a zoom where wanted, such as 20,0 or
            -15,5,1.5
        eyes: keep (as --pose has them), how wide they stay, from 0, shut, to 1, as usual, or blinks a minute, such as 15/min
        background: keep, a colour such as #00ff00, or an image, behind the person
        smooth: seconds, the standard deviation of a Gaussian over which the speech's (or --drive's) lips and a followed --pose
            are averaged; 0.08 is two frames
        device: what to compute on; auto takes a CUDA device where there is one
        seed: another number gives other natural motion
        json: file for the statistics: seconds of every stage, frames per second, remarks
        sheet: picture (PNG) with the photo, where there is one, and frames of the video side by side
        quality: best is what the weights were trained for; balanced and fast leave out what is hardly seen (see
            docs/performance.md); auto is the best that keeps up with real time on this machine
    """
    import os
    import sys
    import time

    begin = time.perf_counter()
    check_paths({"--photo": photo, "--speech": speech, "--drive": drive, "--pose": None if pose in POSES else pose,
                 "--background": background if os.path.isfile(background) else None},
                {"--output": output, "--json": json, "--sheet": sheet})
    from s3dnerf.inference import TalkingHead

    view = _numbers(camera)
    head = TalkingHead.load(weights, device)
    loading = time.perf_counter() - begin
    video = head.speak(photo, speech, frame=frame, pose=pose, drive=drive, mouth_gain=mouth_gain, camera=view,
                       eyes=eyes, background=background, smooth=smooth, seed=seed, quality=quality, progress=True)
    for remark in video.statistics.remarks:
        print(f"s3dnerf: note: {remark}", file=sys.stderr)
    video.statistics.stopwatch.add("load", loading)
    statistics = video.save(output, sheet, progress=True).as_dict()
    if json is not None:
        write_json(statistics, json)
    print(f"{output}: {statistics['frames']} frames, {statistics['width']} x {statistics['height']}, "
          f"{statistics['frames_per_second_end_to_end']:.1f} frames per second end to end")


def benchmark(weights: str = "one-shot-256", photo: Optional[str] = None, speech: Optional[str] = None, seconds: float = 10.0,
              quality: Literal["fast", "balanced", "best", "auto"] = "best", frame: Literal["full", "face"] = "face",
              device: Literal["auto", "cpu", "cuda"] = "auto", training: Optional[List[str]] = None, steps: int = 20,
              output: Optional[str] = None) -> None:
    """Tells how fast this machine is, where the time goes, and how near that is to what the machine can do.

    The table has a row for every stage of `speak`: seconds of all threads, per frame milliseconds, operations and bytes, and the
    share of the roofline that was reached. With --training it is about training steps.

    Args:
        weights: as for speak
        photo: as for speak; by default the demonstration's
        speech: as for speak; by default the demonstration's, which is repeated
        seconds: how long the speech lasts
        quality: as for speak
        frame: as for speak
        device: as for speak
        training: what `s3dnerf fit` is given, one by one: --training configs/one_shot.yaml --training data.train=data/tiny; YAML
            files are its --config, the others its options. Measures its steps in place of speak
        steps: of training that are measured, after three to warm up
        output: JSON file for the figures
    """
    from s3dnerf.benchmark.report import run

    check_paths({"--photo": photo, "--speech": speech}, {"--output of the figures": output})
    report, text = run(weights, photo, speech, seconds, quality, frame, device, training, steps)
    if output is not None:
        write_json(report, output)
    print(text)


def prepare(manifest: str, videos: str, output: str, split: Optional[List[str]] = None, size: int = 256,
            workers: Optional[int] = None, clips_per_shard: int = 100, max_seconds: float = 5.0,
            lip_sync: str = "one-shot-256") -> None:
    """Turns videos into shards to train on: tracks faces, cuts and crops, refuses what is bad and says why.

    Recordings whose sound is out of step with their lips have it moved, where that is beyond doubt. A run that was
    killed goes on where it stopped.

    Args:
        manifest: table (tab separated) with the columns file, person, split, source
        videos: folder that the manifest's files are relative to
        output: folder for the shards, one sub-folder per split
        split: only these splits of the manifest
        size: side of the crops, pixels
        workers: processes; all cores by default
        clips_per_shard: clips in one tar file
        max_seconds: longer recordings are cut into pieces of this length
        lip_sync: the lip discriminator that tells how far sound is off, best one that has learned nothing from these people:
            installed weights, a bundle or a checkpoint; none leaves all sound where it is
    """
    from functools import partial
    from pathlib import Path

    from s3dnerf.data.prepare import prepare as run

    expert = None if lip_sync == "none" else partial(lip_matcher, lip_sync)
    if expert is not None:
        expert()  # that it loads is better known before hours of tracking
    run(Path(manifest), Path(videos), Path(output), split=split, size=size, workers=workers,
        clips_per_shard=clips_per_shard, max_seconds=max_seconds, expert=expert)


def lip_matcher(weights: str):
    """What tells how well lips go with sounds (`data.sync.Matcher`), from the weights of a lip discriminator."""
    from s3dnerf.models.hub import load_lip_sync

    return load_lip_sync(weights).match


def synthesize(output: str, people: int = 4, clips: int = 4, seconds: float = 2.0, size: int = 128, seed: int = 0,
               clips_per_shard: int = 100) -> None:
    """Writes shards of an analytic 3-D head whose mouth follows its speech, to try and test with.

    Args:
        output: folder for the shards
        people: how many heads
        clips: clips of each
        seconds: length of a clip
        size: side of the frames, pixels
        seed: another number gives other people
        clips_per_shard: clips in one tar file
    """
    from pathlib import Path

    from s3dnerf.data.synthetic import synthesize as run

    run(Path(output), people=people, clips=clips, seconds=seconds, size=size, seed=seed,
        clips_per_shard=clips_per_shard)


def train(train: str, val: str, output: str, config: Optional[List[str]] = None, stages: Optional[List[str]] = None,
          gate: Literal["reduce", "stop", "off"] = "reduce", plan: str = "configs/stages.yaml") -> None:
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
    """
    from s3dnerf.curriculum import Curriculum

    Curriculum(plan, train, val, output, config or (), gate).run(stages)


def personalize(video: str, output: str, method: Literal["rad-nerf", "ad-nerf", "disentangled", "adapt"] = "rad-nerf",
                config: Optional[List[str]] = None, size: Optional[int] = None) -> None:
    """Learns one person from a video of them: weights with which `speak` needs no photo.

    One to five minutes of one person who speaks to the camera, with sound. The last eleventh is held out; training ends by
    itself when that part no longer gets better. The same command takes up a run that was killed. OUTPUT then holds the
    weights, held_out.mp4 (the held-out part, driven by its sound), recording.mp4 (the same as recorded), preview.png and
    figures.json.

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


def validate(shards: str, weights: str = "one-shot-256", lip_sync: Optional[str] = "lip-judge", train: Optional[str] = None,
             clips: int = 12, output: Optional[str] = None) -> int:
    """Checks that every part of a model is at work, on clips of people whom it has never seen.

    Prints a line per figure with its limit, and a verdict. The exit status is 0 where every check passes, 1 where one
    fails: that is a result, and the report is whole. What a figure means and catches is told in docs/toy_checks.md.

    Args:
        shards: folder of validation shards
        weights: name of installed weights (see `s3dnerf models`), a folder, or a training checkpoint
        lip_sync: a lip discriminator that has not taught the model, to judge it: an installed one, a bundle or a checkpoint
        train: folder of the training shards, whose people must not be in the validation shards
        clips: how many clips are looked at, spread over people
        output: file for the report (JSON)
    """
    from s3dnerf.validation.report import as_dict, failed, table, verdict
    from s3dnerf.validation.suite import examine, prepare_subject

    check_paths({}, {"--output of the report": output})
    lines = examine(prepare_subject(weights, shards, lip_sync, train, clips))
    if output is not None:
        write_json(as_dict(lines, weights=weights, shards=shards, lip_sync=lip_sync, clips=clips), output)
    print(table(lines), verdict(lines), sep="\n")
    return int(failed(lines))


def _numbers(camera: str) -> tuple[float, ...]:
    from s3dnerf.errors import InputError

    try:
        return tuple(float(number) for number in camera.split(","))
    except ValueError:
        raise InputError(f"found --camera {camera}; expected two angles in degrees, right and up, and a zoom where wanted, "
                         "such as 20,0 or -15,5,1.5") from None


def check_paths(inputs: dict[str, Optional[str]], outputs: dict[str, Optional[str]]) -> None:
    """InputError, before anything is computed, for files that are missing or cannot be written; None is left aside.

    Both are paths by option. `--output` is a video; an output may not be one of the inputs.
    """
    from pathlib import Path

    from s3dnerf.errors import InputError
    from s3dnerf.media import check_file, check_output

    for option, path in inputs.items():
        if path is not None:
            kind = {"--photo": "photo", "--speech": "recording", "--background": "image"}.get(option, "video")
            check_file(path, "camera path" if kind == "video" and path.lower().endswith(".json") else kind)
    used = {Path(path).resolve(): option for option, path in inputs.items() if path is not None}
    for option, path in outputs.items():
        if path is None:
            continue
        same = used.setdefault(Path(path).resolve(), option)
        if same != option:
            raise InputError(f"{option} and {same} are the same file {path}; choose another name for {option}")
        # a small file may have any ending; its folder is what is checked
        check_output(path if option == "--output" else Path(path).with_name("any.mp4"))
        if Path(path).is_dir():
            raise InputError(f"{path} is a folder; give a file for {option}")


def write_json(content: dict, path: str) -> None:
    """Writes a JSON file that appears whole."""
    import json
    from pathlib import Path

    part = Path(path).with_name(f".{Path(path).name}.part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(path)


VERBS = {"speak": speak, "prepare": prepare, "synthesize": synthesize, "train": train,
         "personalize": personalize, "models": models, "bundle": bundle, "validate": validate, "benchmark": benchmark}
