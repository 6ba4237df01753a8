"""Files of configs/ that came with the package."""
from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent


def shipped(path: str) -> str:
    """A path as it is given where there is something; else, of `configs/…`, the file of that name that came with the package, so that
    commands do not need the project's folder."""
    if Path(path).exists() or not path.startswith("configs/") or not (HERE / path).exists():
        return path
    return str(HERE / path)


def with_shipped(args: list[str]) -> list[str]:
    """The words of a command line, those that are `configs/…`, or end in `=configs/…`, as `shipped` has them."""
    words = []
    for word in args:
        option, equals, path = word.rpartition("=") if word.startswith("--") else ("", "", word)
        words.append(option + equals + shipped(path))
    return words
