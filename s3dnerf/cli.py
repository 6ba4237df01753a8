"""The command `s3dnerf`: `fit` and its like go to LightningCLI, the other verbs to the functions of `commands`."""
from __future__ import annotations

import inspect
import re
import signal
import sys
import warnings
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pickle import UnpicklingError
from typing import AbstractSet, Iterator, Optional, Sequence

from s3dnerf.allocator import keep_freed_memory
from s3dnerf.cores import keep_to_quota
from s3dnerf.errors import InputError, S3DNeRFError
from s3dnerf.shipped import with_shipped

TRAINING = {"fit": "Trains a model on shards.", "test": "Measures a model on validation shards.",
            "predict": "Renders the clips of shards."}
MISTAKE, INTERRUPTED, TERMINATED = 2, 130, 143


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM); unwinds like Ctrl-C, so that nothing half-written stays."""


def main(args: Optional[Sequence[str]] = None) -> int:
    """Runs a command line and returns its exit status: 0, 1 where `validate` finds a failing check, 2
    for a user's mistake, 130 or 143 when interrupted."""
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if args[0] == "--version":
        from s3dnerf import __version__

        print(__version__)
        return 0
    keep_freed_memory()
    keep_to_quota()
    try:
        if args[0] not in TRAINING:
            return use(args)
        fit(args)
        return 0
    except S3DNeRFError as error:
        return say(str(error), MISTAKE)
    except OSError as error:
        if error.filename is None:
            raise
        return say(f"{error.filename}: {error.strerror}; check the path and its permissions", MISTAKE)
    except Terminated:
        return say("terminated", TERMINATED)
    except KeyboardInterrupt:
        return say("interrupted", INTERRUPTED)


def say(message: str, status: int) -> int:
    """Prints one line on stderr and returns the exit status."""
    print(f"s3dnerf: {' '.join(message.split())}", file=sys.stderr)
    return status


def overview() -> str:
    """What `s3dnerf` prints without a verb."""
    from s3dnerf.commands import VERBS

    lines = ["usage: s3dnerf VERB [options]", "", "One photo and a recording of speech in, a talking video out:", "",
             "    s3dnerf speak --photo face.jpg --speech hello.wav --output out.mp4", "", "use:"]
    lines += [f"  {name:<11} {summary(function)}" for name, function in VERBS.items()]
    lines += ["", "train (everything that varies is YAML, see configs/):"]
    lines += [f"  {name:<11} {text}" for name, text in TRAINING.items()]
    return "\n".join([*lines, "", "`s3dnerf VERB --help` tells the options of a verb."])


def summary(function) -> str:
    """The first line of a docstring."""
    return function.__doc__.strip().splitlines()[0]


def use(args: list[str]) -> int:
    """Runs one of the verbs of `commands`; its signature and docstring are the options and the help."""
    from s3dnerf.commands import VERBS

    verb, options = args[0], [re.sub(r"^--[\w-]+", lambda name: name[0].replace("-", "_").replace("__", "--", 1), word)
                              for word in args[1:]]
    if verb not in VERBS:
        return say(f"no verb {verb!r}; expected one of {', '.join([*VERBS, *TRAINING])}", MISTAKE)
    function = VERBS[verb]
    several = {f"--{name}" for name, kind in function.__annotations__.items() if "List" in str(kind)}
    switches = {f"--{name}" for name, kind in function.__annotations__.items() if "bool" in str(kind)}
    options = _named(options, function, switches)
    options = _joined([f"{word}+" if word in several else word for word in options], switches)
    if {"-h", "--help"} & set(options):
        print(re.sub(r"--\w+", lambda name: name[0].replace("_", "-"), parser(verb).format_help()), end="")
        return 0
    values = parse(verb, options)
    with _polite_end(), warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")  # the libraries', about their own future
        return function(**values) or 0


def parser(verb: str):
    """The jsonargparse parser of a verb of `commands`."""
    from jsonargparse import ArgumentParser, DefaultHelpFormatter

    from s3dnerf.commands import VERBS

    class Paragraphs(DefaultHelpFormatter):
        def _fill_text(self, text, width, indent):
            return "\n\n".join(super(Paragraphs, self)._fill_text(part, width, indent) for part in text.split("\n\n"))

    made = ArgumentParser(prog=f"s3dnerf {verb}", description=inspect.getdoc(VERBS[verb]).split("\n\nArgs:")[0],
                          exit_on_error=False, allow_abbrev=False, formatter_class=Paragraphs)
    made.add_function_arguments(VERBS[verb], as_group=False, as_positional=False)
    return made


def parse(verb: str, words: Sequence[str], defaults: Optional[dict] = None) -> dict:
    """The options of a verb from its words, `--name=value`; `defaults` stand in place of its own. InputError for a mistake."""
    from jsonargparse import ArgumentError

    from s3dnerf.commands import VERBS

    made = parser(verb)
    made.set_defaults(defaults or {})
    try:
        return vars(made.parse_args(list(words)))
    except ArgumentError as error:
        raise InputError(mistake(str(error), [f"--{name}" for name in inspect.signature(VERBS[verb]).parameters])) from None


def _named(words: list[str], function, switches: AbstractSet[str]) -> list[str]:
    """The words of a command line, where what follows no option gets the name of the function's first argument, if that one
    must be given (`s3dnerf verify out.mp4`): every such word if it is a list, one if it is not."""
    first = next(iter(inspect.signature(function).parameters.values()), None)
    if first is None or first.default is not first.empty:
        return words
    named, taken, many = [], False, "List" in str(first.annotation)
    for word in words:
        option, free = word.startswith("-") and not taken, many or f"--{first.name}" not in named
        named += [word] if option or taken or not free else [f"--{first.name}", word]
        taken = option and "=" not in word and word not in switches
    return named


def _joined(words: list[str], switches: AbstractSet[str] = frozenset()) -> list[str]:
    """The words of a command line, with values that begin with a minus (`--camera -15,5`) tied to their options, and true for
    switches without a value (`--unmarked`)."""
    joined: list[str] = []
    for word, after in zip(words, [*words[1:], "--"]):
        if word in switches and after.startswith("--"):
            word += "=true"
        if re.match(r"-[\d.]", word) and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


@contextmanager
def _polite_end() -> Iterator[None]:
    """Makes SIGTERM unwind the stack, again after two seconds where a library's callback swallowed the exception."""
    again = getattr(signal, "SIGALRM", None)

    def stop(_signal, _frame):
        if again:
            signal.setitimer(signal.ITIMER_REAL, 2.0)
        raise Terminated

    try:
        previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, again) if number}
    except ValueError:  # only the main thread may; elsewhere the caller looks after signals
        yield
        return
    try:
        yield
    finally:
        if again:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in previous.items():
            signal.signal(number, handler)


def fit(args: list[str]) -> None:
    """Runs a verb of LightningCLI; InputError for a mistake in its options, KeyboardInterrupt where it is interrupted."""
    from jsonargparse import ArgumentError
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    try:
        lightning(args)
    except ArgumentError as error:
        raise InputError(mistake(str(error))) from None
    except ValueError as error:  # what jsonargparse makes of an error raised by a class that it builds
        if not isinstance(error.__cause__, S3DNeRFError):
            raise
        raise error.__cause__ from None
    except MisconfigurationException as error:
        raise InputError(str(error)) from None
    except FileNotFoundError as error:
        if error.filename is not None:
            raise
        raise InputError(f"{error}; correct --ckpt_path") from None  # Lightning's words
    except UnpicklingError:
        raise InputError("the file of --ckpt_path is no checkpoint; give a .ckpt that `s3dnerf fit` wrote") from None
    except SystemExit as end:  # what Lightning makes of an interruption
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise
        raise end.__context__ from None


def lightning(args: list[str], run: bool = True):
    """The experiment of a command line; YAML knows systems and data modules by their bare names.

    With `run` False the command line has no verb, and what it describes is built and not run: `.model` is the system,
    `.datamodule` its data.
    """
    import pytorch_lightning as pl

    import s3dnerf.data.module  # noqa: F401
    import s3dnerf.data.person  # noqa: F401
    import s3dnerf.data.person_frames  # noqa: F401
    import s3dnerf.data.person_windows  # noqa: F401
    from s3dnerf.experiment import Experiment
    from s3dnerf.systems.tracking import SaveConfig

    strict = {"exit_on_error": False}
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*with_length.*")
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    return Experiment(pl.LightningModule, pl.LightningDataModule, subclass_mode_model=True, subclass_mode_data=True,
                      auto_configure_optimizers=False, save_config_callback=SaveConfig, save_config_kwargs={"overwrite": True},
                      args=with_shipped(args), run=run,
                      parser_kwargs={**strict, **({verb: strict for verb in TRAINING} if run else {})})


def mistake(message: str, known: Sequence[str] = ()) -> str:
    """What is wrong, in one line, out of a message of jsonargparse; names a similar option where there is one."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    found = re.sub(r"<class '([\w.]+)'>", r"\1", re.sub(r"typing\.Literal\[(.*?)\]", r"one of \1", _telling(lines)))
    if match := re.match(r"the following arguments are required: (.*)", found):
        names = ", ".join("--" + name.split(".")[-1] for name in match[1].split(", "))
        return f"missing {names}; see --help"
    problems = re.findall(r"class_path '([\w.]+)'", message)
    if match := re.search(r"Option '([\w.]+)' is not accepted", found):
        owner = _class(problems[-1]) if problems else None
        known = list(inspect.signature(owner).parameters) if owner else []
        return f"{found}{f' by {owner.__name__}' if owner else ''}; {_similar(match[1], known)}"
    word = re.search(r"unrecognized arguments: (\S+)", found)
    key = re.search(r'Parser key "([\w.]+)"', message)
    place = f"{_option(key[1], known)}: " if key and not word else ""
    found = re.sub(r'^Parser key "[\w.]+": ?', "", found)
    found = found.replace("xpected a one", "xpected one").replace(" a int", " an int")
    if word:
        found = re.sub(r"--\w+", lambda name: name[0].replace("_", "-"), found)
    return f"{place}{found[:1].lower()}{found[1:]}; {_similar(word[1].split('=')[0] if word else '', known)}"


def _telling(lines: list[str]) -> str:
    """The line that names the mistake: the deepest one that is no frame around another."""
    frames = ("Does not validate", "Subtypes:", "Errors:", "Given value", "Expected a <class 'NoneType'>")
    told = [line for line in lines if not line.startswith(frames) and not line.endswith(":")]
    return (told or lines)[-1]


def _class(path: str):
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def _option(key: str, known: Sequence[str]) -> str:
    """A key as the user types it."""
    return "--" + key.replace("_", "-") if f"--{key}" in known else key


def _similar(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word.replace("-", "_").replace("__", "--", 1), known, 1)
    if not close:
        return "see --help"
    return f"did you mean {_option(close[0][2:], known) if close[0].startswith('--') else close[0]}?"
