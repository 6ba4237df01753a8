"""The verbs of the command line; their signatures are its options, their docstrings its help."""
from __future__ import annotations

from typing import List, Literal, Optional, Union

POSES = ("still", "natural")


def speak(photo: Optional[str] = None, speech: Optional[str] = None, output: str = "out.mp4", weights: str = "one-shot-256",
          frame: Optional[Literal["full", "face"]] = None, pose: str = "natural", drive: Optional[str] = None,
          mouth_gain: Optional[float] = None, camera: str = "0,0", eyes: str = "keep", background: str = "keep",
          smooth: float = 0.0, device: Literal["auto", "cpu", "cuda"] = "auto", seed: int = 0, json: Optional[str] = None,
          sheet: Optional[str] = None, label: Union[bool, str] = False, consent: Optional[str] = None,
          certificate: Optional[str] = None, key: Optional[str] = None, manifest: Optional[bool] = None, unmarked: bool = False,
          batch: Optional[str] = None) -> Optional[int]:
    """Makes a photo speak: one photo and a recording of speech become a video with sound.

    The video is marked as synthetic: an invisible watermark, metadata, and a signed C2PA manifest where that extra is installed
    (docs/marking.md; `s3dnerf verify` reads them).

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
        label: draws a text in the lower left corner; without a text, AI-generated
        consent: statement of the consent of the person shown, kept in the video's metadata
        certificate: PEM chain that signs the C2PA manifest, signer first; by default a development certificate of your own, made
            when it is first needed, which nobody else trusts
        key: PEM private key of --certificate
        manifest: a C2PA manifest: true asks for it, false leaves it out; by default where `pip install 's3dnerf[c2pa]'` was run
        unmarked: leaves out watermark, metadata, manifest and label, so that nobody can tell from the file that the video is
            synthetic. Showing it without saying so may be against the law; it is meant for measuring pictures
        batch: table (CSV) of videos to make, whose columns are these options and whose rows replace what is given here; see
            docs/batch.md
    """
    options = {name: value for name, value in locals().items() if name != "batch"}
    from s3dnerf.batch import Speaker, speak_batch

    if batch is not None:
        return speak_batch(options, batch)
    Speaker().make(options)


def verify(video: str, json: bool = False) -> int:
    """Reads what a video says of itself: watermark, metadata, C2PA manifest.

    Prints a line for each. The exit status is 0 where one of them says that the video is synthetic, 1 where none does.

    Args:
        video: the video; it may have been compressed, cropped or resized since, which the watermark survives
        json: prints JSON in place of lines
    """
    from json import dumps

    from s3dnerf.marking.verify import verify as run

    found = run(video, progress=True)
    print(dumps(found.as_dict(), indent=1) if json else "\n".join(found.lines()))
    return int(not found.marked)


def doctor(photo: Optional[str] = None, speech: Optional[str] = None, video: Optional[str] = None) -> int:
    """Checks the installation, and a photo, a recording of speech or a video, and says what to do.

    Prints a line for each thing that was looked at: good; repaired (converted on the way in, nothing to do); careful (it works,
    but better with what the line says); stop (it does not work). The exit status is 1 where a line says stop, else 0.

    Args:
        photo: a photo that is to speak: face size, turn, sharpness, light, what covers the face, several faces
        speech: a recording: rate, channels, level, clipping, silence, noise
        video: a video to follow or to learn a person from: rate, rotation, cuts, faces, sound, and whether it is in step; its
            first minute is looked at
    """
    from functools import partial

    from s3dnerf.doctor.finding import State
    from s3dnerf.doctor.installation import examine_installation
    from s3dnerf.doctor.photo import examine_photo
    from s3dnerf.doctor.sound import examine_sound
    from s3dnerf.doctor.video import examine_video

    stopped = False
    for path, examine in (("", lambda _: examine_installation()), (photo, examine_photo), (speech, examine_sound),
                          (video, partial(examine_video, matcher=partial(lip_matcher, "one-shot-256")))):
        for finding in [] if path is None else examine(path):
            print(finding, flush=True)
            stopped |= finding.state is State.STOP
    return int(stopped)


def prepare(manifest: str, videos: str, output: str, split: Optional[List[str]] = None, size: int = 256,
            workers: Optional[int] = None, clips_per_shard: int = 100, max_seconds: float = 5.0,
            lip_sync: str = "one-shot-256", engine: Literal["local", "ray"] = "local") -> None:
    """Turns videos into shards to train on: tracks faces, cuts and crops, refuses what is bad and says why.

    Recordings whose sound is out of step with their lips have it moved, where that is beyond doubt. A run that was
    killed goes on where it stopped. Look at OUTPUT/SPLIT/summary.html before you train; report.tsv beside it has every clip.

    Args:
        manifest: table (tab separated) with the columns file, person, split, source; see `download` and `manifest`
        videos: folder that the manifest's files are relative to
        output: folder for the shards, one sub-folder per split
        split: only these splits of the manifest
        size: side of the crops, pixels
        workers: processes; all cores by default
        clips_per_shard: clips in one tar file
        max_seconds: longer recordings are cut into pieces of this length
        lip_sync: the lip discriminator that tells how far sound is off, best one that has learned nothing from these people:
            installed weights, a bundle or a checkpoint; none leaves all sound where it is
        engine: local is the cores of this machine; ray those of the cluster that RAY_ADDRESS names, whose machines all see the
            folders, or of this machine
    """
    from functools import partial
    from pathlib import Path

    from s3dnerf.data.prepare import prepare as run

    expert = None if lip_sync == "none" else partial(lip_matcher, lip_sync)
    if expert is not None:
        expert()  # that it loads is better known before hours of tracking
    run(Path(manifest), Path(videos), Path(output), split=split, size=size, workers=workers,
        clips_per_shard=clips_per_shard, max_seconds=max_seconds, expert=expert, engine=engine)


def download(recipe: str, lists: str, output: str) -> None:
    """Fetches the clips of public lists of links, with sound, and accounts for those that could not be got.

    Needs `pip install 's3dnerf[download]'`. Goes on past dead links; the same command takes up a run that was killed, and tries
    dead links again. OUTPUT then holds the clips, coverage.tsv and the manifest.tsv that `prepare` takes.

    Example: s3dnerf download --recipe datasets/hdtf/recipe.yaml --lists HDTF_dataset --output raw/hdtf

    Args:
        recipe: the data set's recipe
        lists: folder of its lists (for HDTF: RD_video_url.txt, RD_annotion_time.txt and so on)
        output: folder for the clips
    """
    from pathlib import Path

    from s3dnerf.data.download import download as run

    run(Path(recipe), Path(lists), Path(output))


def manifest(recipe: str, root: str, output: str) -> None:
    """Lists the clips of a data set's folder for `prepare`: whom they show, in which split, whose sound they have.

    Example: s3dnerf manifest --recipe datasets/mead/recipe.yaml --root raw/mead --output mead.tsv

    Args:
        recipe: the data set's recipe
        root: folder that holds it, as it comes
        output: the table to write
    """
    from pathlib import Path

    from s3dnerf.data.recipe import list_clips

    list_clips(Path(recipe), Path(root), Path(output))


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


def evaluate(generated: str, truth: str, output: str = "report.json", align: Literal["none", "face"] = "none",
             alexnet: Optional[str] = None, inception: Optional[str] = None, arcface: Optional[str] = None,
             syncnet: Optional[str] = None, judge: str = "lip-judge", openface_generated: Optional[str] = None,
             openface_truth: Optional[str] = None, device: Literal["cpu", "cuda"] = "cpu") -> None:
    """Compares videos with the recordings that they imitate: prints a table, and writes a report.

    Figures whose network is missing are reported as missing. What each means is told in docs/evaluation.md.

    Example: s3dnerf evaluate --generated videos --truth recordings --output report.json

    Args:
        generated: folder of videos, or one of them
        truth: folder of recordings of the same base names, or one of them
        output: file for the report (JSON)
        align: none where both show the same square; face brings the face of every frame to the same place first
        alexnet: AlexNet's ImageNet weights, for LPIPS; by default those in torch's cache
        inception: Inception's weights of pytorch-fid, for FID; by default those in torch's cache
        arcface: an ArcFace network (ONNX or TorchScript), for CSIM
        syncnet: the weights of SyncNet v2, for Sync-C and Sync-D; by default those in torch's cache
        judge: a lip discriminator that has not taught the model: an installed one, a bundle or a checkpoint; none does without
        openface_generated: folder of OpenFace's CSV files of the videos, for AUE
        openface_truth: the same of the recordings
        device: what the networks run on
    """
    from s3dnerf.evaluation.networks import Networks
    from s3dnerf.evaluation.protocol import Protocol
    from s3dnerf.evaluation.suite import Suite, evaluate_files

    check_paths({}, {"--output of the report": output})
    suite = Suite(Networks.load(alexnet, inception, arcface, syncnet, judge, device), Protocol(align=align))
    report = evaluate_files(suite, generated, truth, openface_generated, openface_truth)
    write_json(report.as_dict(), output)
    print(report.table())


def compare(runs: List[str], output: str, push: Optional[str] = None, embed: float = 30.0) -> None:
    """Compares runs with the first of them, on one page: settings, figures with significance, curves and videos.

    Example: s3dnerf compare runs/full runs/no_deformation --output compare.html

    The page (HTML) holds everything and opens without a network; the table of figures is written beside it as CSV. What the
    figures and tests are is told in docs/compare.md.

    Args:
        runs: what is compared, named without --runs: folders of runs, of stages or of scripts/ablations.py, checkpoints in
            them, folders of offline wandb runs, entity/project/run of wandb's server, reports of `s3dnerf evaluate`
        output: the page to write (html)
        push: entity/project of wandb to which tables, page and CSV are sent as well; WANDB_MODE=offline keeps them here
        embed: megabytes of videos and pictures that the page holds at most; what is beyond is linked
    """
    from pathlib import Path

    from s3dnerf.comparison.comparison import compare as run
    from s3dnerf.errors import InputError

    if Path(output).suffix not in (".html", ".htm"):
        raise InputError(f"found --output {output}; expected a name that ends in .html")
    check_paths({}, {"--output of the page": output})
    run(runs, Path(output), push, embed)
    print(f"wrote {output} and {Path(output).with_suffix('.csv')}")


def serve(host: str = "127.0.0.1", port: int = 8000, weights: str = "one-shot-256", people: Optional[str] = None,
          device: Optional[List[str]] = None, origin: Optional[List[str]] = None, folder: Optional[str] = None,
          cache: Optional[str] = None, max_seconds: float = 120.0, queue: int = 16, keep_minutes: float = 60.0,
          spare: bool = True, ray: bool = False) -> None:
    """Serves a page and an HTTP API that make videos of a photo and a voice; see docs/service.md.

    Where the environment has S3DNERF_API_KEY, every request has to bring it.

    Args:
        host: address to listen on; 127.0.0.1 is reached from this machine alone
        port: of the address
        weights: name of installed weights (see `s3dnerf models`), a folder, or a training checkpoint
        people: folder of stored people: folders of `s3dnerf personalize`, and photos
        device: auto, cpu or cuda; given several times, a worker each
        origin: another site whose pages may use the API, such as https://example.org; may be given several times
        folder: where videos lie while they live; emptied at the start. By default a temporary one
        cache: folder in which encoded photos are kept for good; by default they are kept in memory for a while
        max_seconds: longest speech
        queue: videos that may wait; what comes after is told to come again
        keep_minutes: after which a finished video is deleted
        spare: keeps one more worker loaded, which takes over at once where another dies
        ray: runs as a Ray Serve deployment, on the cluster that this machine belongs to or else on one of its own
    """
    import os

    from s3dnerf.service.server import serve as run
    from s3dnerf.service.settings import Settings

    run(Settings(weights, tuple(device or ["auto"]), folder, people, cache, os.environ.get("S3DNERF_API_KEY") or None,
                 tuple(origin or ()), max_seconds=max_seconds, queue=queue, keep_seconds=60 * keep_minutes, spare=spare),
        host, port, ray)


def chosen_marks(label: Union[bool, str], consent: Optional[str], certificate: Optional[str], key: Optional[str],
                 manifest: Optional[bool], unmarked: bool):
    """The `Marks` of the options of `speak`; None with --unmarked. InputError where both are asked for."""
    from s3dnerf.errors import InputError
    from s3dnerf.marking.marks import Marks

    if unmarked and (label or consent or certificate or key or manifest):
        raise InputError("found --unmarked beside an option of the marks (--label, --consent, --certificate, --key, --manifest); "
                         "leave one of them out")
    return None if unmarked else Marks(label, consent, None, manifest, certificate, key)


def numbers(camera: str) -> tuple[float, ...]:
    """The angles and the zoom of --camera; InputError for what are no numbers."""
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


VERBS = {"speak": speak, "verify": verify, "doctor": doctor, "serve": serve, "download": download, "manifest": manifest,
         "prepare": prepare, "synthesize": synthesize, "train": train, "personalize": personalize, "models": models,
         "bundle": bundle, "validate": validate, "evaluate": evaluate, "compare": compare}
