"""The command `s3dnerf`."""
from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from typing import List, Optional

TRAINING = {"fit": "trains a model", "validate": "measures a model on validation shards",
            "test": "measures a model on test shards", "predict": "renders clips of shards"}


def main(args: Optional[List[str]] = None) -> int:
    """Runs a command line and returns its exit status: 0, 2 for a user's mistake, 130 or 143 when interrupted."""
    args = sys.argv[1:] if args is None else list(args)
    from s3dnerf.errors import S3DNeRFError

    if not args or args[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if args[0] == "--version":
        from s3dnerf import __version__

        print(__version__)
        return 0
    previous = _terminate_politely()
    try:
        return train(args) if args[0] in TRAINING else use(args)
    except S3DNeRFError as error:
        return fail(str(error))
    except Terminated:
        return 143
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


class Terminated(BaseException):
    """The process was asked to end; unwinds, so that nothing half-written stays."""


def _terminate_politely():
    """Makes SIGTERM unwind the stack; returns the handler that was there, None outside the main thread."""

    def stop(_signal, _frame):
        raise Terminated

    try:
        return signal.signal(signal.SIGTERM, stop)
    except ValueError:
        return None


def fail(message: str) -> int:
    """Prints one line on stderr and returns the exit status of a user's mistake."""
    print(f"s3dnerf: {' '.join(message.split())}", file=sys.stderr)
    return 2


def overview() -> str:
    """What `s3dnerf` prints without a verb."""
    from s3dnerf.commands import VERBS

    first_line = lambda function: function.__doc__.strip().splitlines()[0]
    lines = ["usage: s3dnerf VERB [options]", "", "One photo and a recording of speech in; a talking video out:", "",
             "    s3dnerf speak --photo face.jpg --speech hello.wav --output out.mp4", "", "use:"]
    lines += [f"  {name:<11} {first_line(function)}" for name, function in VERBS.items()]
    lines += ["", "train (Lightning; all that varies is YAML, see configs/):"]
    lines += [f"  {name:<11} {text}" for name, text in TRAINING.items()]
    lines += ["", "s3dnerf VERB --help tells the options of a verb."]
    return "\n".join(lines)


def use(args: List[str]) -> int:
    """Runs one of the verbs of commands.py."""
    from s3dnerf.commands import VERBS

    if args[0] not in VERBS:
        return fail(f"no verb {args[0]!r}; expected one of {', '.join([*VERBS, *TRAINING])}")
    from jsonargparse import ArgumentParser

    function = VERBS[args[0]]
    parser = ArgumentParser(prog=f"s3dnerf {args[0]}", description=function.__doc__.split("Args:")[0].strip())
    parser.add_function_arguments(function, as_positional=False)
    values = parse(parser, args[1:])
    if isinstance(values, int):
        return values
    function(**vars(values))
    return 0


def parse(parser, args: List[str]):
    """The parsed options, or the exit status where there is nothing to run."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parser.parse_args(args)
    except SystemExit as stop:
        return fail(_what_was_wrong(said.getvalue())) if stop.code else 0


def _what_was_wrong(message: str) -> str:
    """The line of jsonargparse's message that names the mistake."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("error:") or "rror:" in line] or lines[-1:]
    return told[0].split("rror:", 1)[-1].strip() + "; see --help" if told else "the options cannot be read; see --help"


def train(args: List[str]) -> int:
    """Runs LightningCLI; systems and data modules are known by their bare names."""
    os.environ.setdefault("WANDB_MODE", "offline")
    import warnings

    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*with_length.*")
    import pytorch_lightning as pl
    from pytorch_lightning.cli import LightningCLI

    import s3dnerf.data.module  # noqa: F401  (YAML names its classes)
    import s3dnerf.systems  # noqa: F401

    said = io.StringIO()
    parsing = True

    class Parsed(LightningCLI):
        def before_instantiate_classes(self):
            nonlocal parsing
            parsing = False
            guard.close()

    guard = contextlib.ExitStack()
    guard.enter_context(contextlib.redirect_stderr(said))
    try:
        Parsed(pl.LightningModule, pl.LightningDataModule, subclass_mode_model=True, subclass_mode_data=True,
               auto_configure_optimizers=False, save_config_kwargs={"overwrite": True}, args=args)
    except SystemExit as stop:
        guard.close()
        if not stop.code:
            return 0
        return fail(_what_was_wrong(said.getvalue())) if parsing else int(stop.code)
    finally:
        guard.close()
    return 0
