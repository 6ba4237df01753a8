"""Verbs that measure models and compare them."""
from __future__ import annotations

from typing import List, Literal, Optional

from s3dnerf.commands.options import check_paths, write_json


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
    from dataclasses import replace
    from os.path import relpath
    from pathlib import Path

    from s3dnerf.evaluation.networks import Networks
    from s3dnerf.evaluation.protocol import Protocol
    from s3dnerf.evaluation.suite import Suite, evaluate_files

    check_paths({}, {"--output of the report": output})
    suite = Suite(Networks.load(alexnet, inception, arcface, syncnet, judge, device), Protocol(align=align))
    report = evaluate_files(suite, generated, truth, openface_generated, openface_truth)
    place = relpath(Path(generated).resolve(), Path(output).parent.resolve())
    write_json(replace(report, generated=place).as_dict(), output)
    print(report.table())


def compare(runs: List[str], output: str, push: Optional[str] = None, embed: float = 30.0) -> None:
    """Compares runs with the first of them, on one page: settings, figures with significance, curves and videos.

    Example: s3dnerf compare runs/full runs/no_deformation --output compare.html

    The page (HTML) holds everything and opens without a network; the table of figures is written beside it as CSV. What the
    figures and tests are is told in docs/compare.md.

    Args:
        runs: what is compared, named without --runs: folders of runs, of stages or of scripts/ablations.py, checkpoints in
            them, folders of offline wandb runs, entity/project/run of wandb's server, reports of `s3dnerf evaluate`, files of
            `s3dnerf benchmark`
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
