"""All stages of training, one after another, from shards to a bundle of weights."""
from __future__ import annotations

import ctypes
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Callable, Iterator, Optional, Sequence

import yaml

from s3dnerf.cli import fit
from s3dnerf.commands import bundle
from s3dnerf.commands.options import write_json
from s3dnerf.errors import InputError, TrainingError
from s3dnerf.shipped import shipped

CHANCE = 0.5
"""AUC of an expert that knows nothing"""


@dataclass(frozen=True)
class Stage:
    """One entry of a list of stages (configs/stages.yaml explains them)."""

    name: str
    does: str
    configs: list[str]
    overlays: Optional[list[str]] = None
    init_from: dict[str, str] = field(default_factory=dict)
    expert: Optional[str] = None
    gate: Optional[dict[str, float]] = None
    optional: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a finished stage reached; kept as done.json, whose presence says that the stage is finished."""

    steps: int
    seconds: float
    """of the run that finished it"""
    figures: dict[str, float]
    """of the best checkpoint, on validation clips"""


class Curriculum:
    """Runs the stages of a list, each as one `s3dnerf fit` that starts from the best checkpoints of earlier ones.

    A finished stage is never run again, and one that was cut goes on from its last.ckpt exactly, so that the same command
    takes up a run that was killed.

    Args:
        plan: the list of stages, YAML.
        train: folder of training shards.
        val: folder of validation shards.
        output: folder of the run: one sub-folder per stage, figures.json, and the bundle.
        overlays: YAML files that are stacked on every stage's own.
        gate: what happens below an expert's gate: its weight is reduced, the run stops, or (off) nothing.
        launch: command that starts a stage's processes, such as `torchrun --nproc-per-node 8`; None leaves that to the
            trainer, which starts one for every device of this machine.

    Raises:
        InputError: for files that are missing, for several machines without a command that starts processes there, and for
            an output that was begun with other data, overlays or stages.
    """

    def __init__(self, plan: str, train: str, val: str, output: str, overlays: Sequence[str] = (), gate: str = "reduce",
                 launch: Optional[str] = None):
        self.plan, self.data, self.output, self.gate = Path(shipped(plan)), (train, val), Path(output), gate
        self.launch = shlex.split(launch or "")
        self.overlays = [Path(shipped(path)) for path in overlays]
        self.stages = {stage.name: stage for stage in read_stages(self.plan)}
        missing = [path for stage in self.stages.values() for path in self.files(stage) if not path.is_file()]
        if missing:
            raise InputError(f"no file {missing[0]}, which the stages of {plan} stack; correct the list, or the --config")
        if not self.launch and any(self.setting(stage, "trainer.num_nodes") > 1 for stage in self.stages.values()):
            raise InputError("found trainer.num_nodes above 1; expected --launch with the command that starts processes on all "
                             "machines: see scripts/cluster/slurm.sh")

    def run(self, only: Optional[Sequence[str]] = None) -> None:
        """Runs the stages, or those named, and writes the bundle. InputError for an unknown name, or below the gate with
        `gate` at stop."""
        unknown = sorted(set(only or ()) - set(self.stages))
        if unknown:
            raise InputError(f"no stage {unknown[0]!r}; {self.plan} has {', '.join(self.stages)}")
        self._begin()
        chosen = [stage for stage in self.stages.values() if only is None or stage.name in only]
        for number, stage in enumerate(chosen, 1):
            title = f"stage {number} of {len(chosen)}, {stage.name}"
            outcome = self.outcome(stage.name)
            if outcome is not None:
                say(f"{title}: done before, {outcome.steps} steps; {told(outcome.figures)}")
            elif stage.optional and not self.strength(stage.expert):
                say(f"{title}: left out, there is no expert whose judgement counts")
            else:
                with quiet():
                    self._train(stage, title)
            if stage.gate:
                self._check_gate(stage)
            self._write_figures()
        self._finish()

    def files(self, stage: Stage) -> list[Path]:
        """The YAML files of a stage, in the order in which they are stacked."""
        return [self.plan.parent / name for name in stage.configs] + self.overlays

    def outcome(self, name: str) -> Optional[Outcome]:
        """What a stage reached, None if it is not finished."""
        path = self.output / name / "done.json"
        return Outcome(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def checkpoint(self, name: str) -> Optional[Path]:
        """The best checkpoint of a stage, or, where it was left out, of the one it would have started from."""
        if self.outcome(name):
            return self.output / name / "best.ckpt"
        before = self.stages[name].init_from.get("")
        return self.checkpoint(before) if before else None

    def strength(self, name: str) -> float:
        """Factor, 0 to 1, on the weight of an expert's judgement.

        1 for one that passes its gate, 0 for one whose median offset is beyond it or that was not trained; between, how far
        its AUC has come from chance to the gate.
        """
        outcome, gate = self.outcome(name), self.stages[name].gate
        if outcome is None:
            return 0.0
        if self.gate == "off" or gate is None:
            return 1.0
        if outcome.figures["offset_median"] > gate["offset_median"]:
            return 0.0
        return min(1.0, max(0.0, (outcome.figures["auc"] - CHANCE) / (gate["auc"] - CHANCE)))

    def setting(self, stage: Stage, key: str) -> float:
        """What the stacked files of a stage say about a dotted key; the last one wins, 0 if none does."""
        value = 0
        for path in self.files(stage):
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            if path in self.overlays:
                content = fitting(content, stage)
            for part in key.split("."):
                content = content.get(part, {}) if isinstance(content, dict) else {}
            value = content if content != {} else value
        return value

    def sources(self) -> dict[str, str]:
        """The options of the command line that say what is learned from."""
        return dict(zip(("--train", "--val"), (str(Path(folder).resolve()) for folder in self.data)))

    def data_options(self) -> dict[str, str]:
        """What `fit` is told about the data."""
        return dict(zip(("data.init_args.train", "data.init_args.val"), self.data))

    def _begin(self) -> None:
        """Checks the shards, and that the folder belongs to the same command."""
        from s3dnerf.data.module import shard_paths

        for folder in self.data:
            shard_paths(folder)
        command = self.sources() | {"--config": [path.read_text(encoding="utf-8") for path in self.overlays],
                                    "--plan": [asdict(stage) for stage in self.stages.values()]}
        path = self.output / "command.json"
        if path.is_file():
            begun = json.loads(path.read_text(encoding="utf-8"))
            for option, value in command.items():
                if begun.get(option) != value:
                    raise InputError(f"{self.output} was begun with another {option}; give the same one, or a new --output")
            return
        self.output.mkdir(parents=True, exist_ok=True)
        write_json(command, path)

    def _train(self, stage: Stage, title: str) -> None:
        folder, most = self.output / stage.name, self.setting(stage, "trainer.max_steps")
        cut = folder / "last.ckpt"
        begin = f", goes on from step {read(cut)['global_step']}" if cut.is_file() else ""
        say(f"{title}: {stage.does}; at most {most} steps{begin}")
        start = time.perf_counter()
        if self.launch or self.setting(stage, "trainer.devices") not in (0, 1):
            self._fit_in_processes(stage, self._arguments(stage, folder))
        else:
            fit(self._arguments(stage, folder))
        if not (folder / "best.ckpt").is_file():
            raise TrainingError(f"stage {stage.name} ended before its first validation; trainer.val_check_interval is above "
                                f"trainer.max_steps ({most}), lower it")
        seconds = round(time.perf_counter() - start, 1)
        outcome = Outcome(read(cut)["global_step"], seconds, read(folder / "best.ckpt")["figures"])
        write_json(asdict(outcome), folder / "done.json")
        ended = "" if outcome.steps >= most else f", ended on a plateau of {self.setting(stage, 'best.monitor')}"
        say(f"{title}: {outcome.steps} steps in {duration(outcome.seconds)}{ended}; {told(outcome.figures)}")

    def _fit_in_processes(self, stage: Stage, arguments: list[str]) -> None:
        """Runs `s3dnerf fit` outside of this process: every process of a stage begins with the command that was given to the
        first, which must not be that of the whole run. They end with this one."""
        words = [*(self.launch or [sys.executable]), "-m", "s3dnerf", *arguments]
        process = subprocess.Popen(words, start_new_session=True, preexec_fn=with_parent())
        try:
            status = process.wait()
        except BaseException:
            end_group(process)
            raise
        if status:
            raise TrainingError(f"stage {stage.name} ended with status {status}, see above; the same command goes on from its last "
                                "checkpoint")

    def _arguments(self, stage: Stage, folder: Path) -> list[str]:
        """The command line of `s3dnerf fit` for a stage."""
        folder.mkdir(exist_ok=True)
        place = {"trainer": {"logger": [{"class_path": "pytorch_lightning.loggers.CSVLogger",
                                         "init_args": {"save_dir": str(self.output), "name": stage.name}}],
                             "enable_progress_bar": sys.stdout.isatty(), "enable_model_summary": False}}
        layers = [place] + [fitting(yaml.safe_load(path.read_text(encoding="utf-8")), stage) for path in self.overlays]
        own = place["trainer"]["logger"][0]
        for logger in (one for layer in layers[1:] for one in (layer.get("trainer") or {}).get("logger") or []):
            if isinstance(logger, dict) and logger.get("class_path") == own["class_path"]:  # beside others, it stays in its place
                logger["init_args"] = own["init_args"]
        paths = [self.plan.parent / name for name in stage.configs]
        for number, layer in enumerate(layers):
            paths.append(folder / f"overlay{number}.yaml")
            paths[-1].write_text(yaml.safe_dump(layer), encoding="utf-8")
        options = self.data_options() | {"best.dirpath": str(folder)}
        if stage.init_from:
            options["model.init_args.init_from"] = json.dumps(self._starts(stage))
        if stage.expert:
            weight = "model.init_args.objective.lip_sync"
            options |= {weight: str(self.setting(stage, weight) * self.strength(stage.expert)),
                        "model.init_args.lip_sync": str(self.checkpoint(stage.expert))}
        if (folder / "last.ckpt").is_file():
            options["ckpt_path"] = str(folder / "last.ckpt")
        return ["fit", *(word for path in paths for word in ("--config", str(path))),
                *(word for name, value in options.items() for word in (f"--{name}", value))]

    def _starts(self, stage: Stage) -> dict[str, str]:
        """The checkpoint that each part starts from."""
        starts = {part: self.checkpoint(name) for part, name in stage.init_from.items()}
        for part, name in stage.init_from.items():
            if starts[part] is None:
                raise InputError(f"stage {stage.name} starts from {name}, which is not trained in {self.output}; "
                                 f"name it in --stages too")
        return {part: str(path) for part, path in starts.items()}

    def _check_gate(self, stage: Stage) -> None:
        """Says what is to be said below the gate, or stops."""
        figures, strength = self.outcome(stage.name).figures, self.strength(stage.name)
        found = (f"gate: {stage.name} has AUC {figures['auc']:.3f} and a median offset error of "
                 f"{figures['offset_median']:.0f} frames on validation people; expected at least {stage.gate['auc']:.2f} and at most "
                 f"{stage.gate['offset_median']:.0f}")
        if self.gate == "stop" and strength < 1:
            raise InputError(f"{found}; more people and clips raise it. --gate reduce goes on with less lip-sync weight")
        if strength < 1:
            rest = f"multiplied by {strength:.2f}" if strength else "left out"
            say(f"{found}; the lip-sync weight is {rest} (--gate stop ends here, --gate off takes it in full)")

    def _write_figures(self) -> None:
        gates = {stage.name: {"expected": stage.gate, "strength": self.strength(stage.name), "gate": self.gate}
                 for stage in self.stages.values() if stage.gate and self.outcome(stage.name)}
        stages = {name: asdict(outcome) for name in self.stages if (outcome := self.outcome(name))}
        write_json({"gates": gates, "stages": stages}, self.output / "figures.json")

    def _finish(self) -> None:
        """Bundles the last talking head, and says how to use it."""
        done = [stage for stage in self.stages.values() if self.outcome(stage.name)]
        heads = [stage for stage in done if read(self.checkpoint(stage.name))["model_description"]["class"] == "S3DNeRF"]
        say(f"figures of all stages: {self.output / 'figures.json'}")
        if not heads:
            say("no bundle yet: none of the finished stages is a talking head")
            return
        experts = [stage.expert for stage in self.stages.values() if stage.expert and self.outcome(stage.expert)]
        target = self.output / "bundle"
        bundle(str(self.checkpoint(heads[-1].name)), str(target), str(self.checkpoint(experts[0])) if experts else None)
        say(f"use it: s3dnerf speak --weights {target} --photo face.jpg --speech hello.wav --output out.mp4")


def with_parent() -> Optional[Callable[[], None]]:
    """What a new process does first so that it is asked to end when the one that started it is gone; None elsewhere than on
    Linux, where it would go on to its own end."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return lambda: library.prctl(1, signal.SIGTERM)


def end_group(process: subprocess.Popen, patience: float = 30.0) -> None:
    """Ends a process that leads a session, and all of it: asks, and after so many seconds does not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def read_stages(path: Path) -> list[Stage]:
    """The stages of a YAML file; InputError for one that is missing, or whose entries have other keys."""
    if not path.is_file():
        raise InputError(f"no list of stages {path}; give `train` a YAML file such as configs/stages.yaml by --plan")
    known = {entry.name for entry in fields(Stage)}
    stages: list[Stage] = []
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
        if set(entry) - known or not {"name", "does", "configs"} <= set(entry):
            raise InputError(f"{path}: found a stage with {', '.join(entry)}; expected name, does, configs and any of "
                             f"{', '.join(sorted(known))}")
        stage = Stage(**entry)
        named = [*stage.init_from.values(), *filter(None, [stage.expert])]
        late = [name for name in named if name not in {earlier.name for earlier in stages}]
        if late:
            raise InputError(f"{path}: stage {stage.name} needs {late[0]}, which is no earlier stage")
        stages.append(stage)
    return stages


def fitting(overlay: dict, stage: Stage) -> dict:
    """The sections of an overlay that a stage takes."""
    return {name: part for name, part in overlay.items() if stage.overlays is None or name in stage.overlays}


def read(checkpoint: Path) -> dict:
    """A checkpoint's content."""
    import torch

    return torch.load(checkpoint, map_location="cpu", weights_only=True)


def told(figures: dict[str, float]) -> str:
    """Figures in words: `auc 0.807, offset 1.2`."""
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items()) or "no figures"


def duration(seconds: float) -> str:
    """`48 s`, `12 min`, `3 h 20 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def say(line: str) -> None:
    """One line on stdout, at once."""
    print(line, flush=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' own remarks."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
