"""Verbs that make shards."""
from __future__ import annotations

from typing import List, Literal, Optional

from s3dnerf.commands.options import lip_matcher


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
        workers: processes, of one core each; as many as this job has cores by default
        clips_per_shard: clips in one tar file
        max_seconds: longer recordings are cut into pieces of this length
        lip_sync: the lip discriminator that tells how far sound is off, best one that has learned nothing from these people:
            installed weights, a bundle or a checkpoint; none leaves all sound where it is
        engine: local is the cores of this machine; ray those of the cluster that RAY_ADDRESS names, whose machines all see the
            folders, or of this machine
    """
    from contextlib import nullcontext
    from functools import partial
    from pathlib import Path

    from s3dnerf.cores import one_thread_each

    expert = None if lip_sync == "none" else partial(lip_matcher, lip_sync)
    with one_thread_each() if workers == 1 else nullcontext():  # one worker is this process, and its libraries are loaded here
        from s3dnerf.data.prepare import prepare as run

        if expert is not None:
            expert()  # that it loads is better known before hours of tracking
        run(Path(manifest), Path(videos), Path(output), split=split, size=size, workers=workers,
            clips_per_shard=clips_per_shard, max_seconds=max_seconds, expert=expert, engine=engine)


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
