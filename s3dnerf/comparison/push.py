"""The comparison as a run of wandb."""
from __future__ import annotations

import re
from pathlib import Path

from s3dnerf.comparison.comparison import Comparison, rows
from s3dnerf.errors import InputError


def pushed(comparison: Comparison, output: Path, target: str) -> None:
    """Sends the tables of figures, clips and settings, the page, and both files as an artifact, to a run of `entity/project`
    (or `project`); with WANDB_MODE=offline it is kept beside the page until `wandb sync`."""
    import wandb

    entity, project = target_of(target)
    try:
        run = wandb.init(project=project, entity=entity, job_type="compare", dir=str(output.parent), name=output.stem,
                         config={"runs": {run.name: run.source for run in comparison.runs}})
    except wandb.errors.Error as error:
        raise InputError(f"cannot push to {target}: {' '.join(str(error).split())}; `wandb login`, or set WANDB_MODE=offline "
                         "and `wandb sync` later") from None
    table, names = rows(comparison), [run.name for run in comparison.runs]
    text = lambda value: "" if value is None else str(value)
    settings = [[key, *map(text, values)] for key, values in comparison.settings.items()]
    run.log({"figures": wandb.Table(list(table[0]) if table else ["run", "figure"], [list(row.values()) for row in table]),
             "clips": clip_table(comparison),
             "settings": wandb.Table(["setting", *names], settings),
             "page": wandb.Html(output.read_text(encoding="utf-8"), inject=False)})
    artifact = wandb.Artifact(f"compare-{output.stem}", "comparison")
    artifact.add_file(str(output))
    artifact.add_file(str(output.with_suffix(".csv")))
    run.log_artifact(artifact)
    run.finish(quiet=True)


def target_of(target: str) -> tuple[str | None, str]:
    """Entity (None: one's own) and project; InputError for anything else."""
    if not re.fullmatch(r"([\w.-]+/)?[\w.-]+", target):
        raise InputError(f"found --push {target}; expected entity/project, or project")
    entity, _, project = target.rpartition("/")
    return entity or None, project


def clip_table(comparison: Comparison):
    """Figures of every clip of every run."""
    import wandb

    figures = list(comparison.figures)
    return wandb.Table(["run", "clip", *figures], [[run.name, clip, *map(row.get, figures)]
                                                   for run in comparison.runs for clip, row in run.clips.items()])
