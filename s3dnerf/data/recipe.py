"""How the files of a data set become rows of a manifest: what their names say, whose sound they have, who is held out."""
from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from string import Formatter
from typing import Any, Optional

from s3dnerf.data.manifest import COLUMNS, KEPT, write_manifest
from s3dnerf.errors import DatasetError, InputError

LEARNED = "train"
"""the split of people whom no list holds out"""


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


_text = ("a text", lambda value: isinstance(value, str))
_list = ("a list of texts, each in quotes where it is a number", _texts)
KINDS = {"name": _text, "clips": _text, "in_step_with": _text, "sound": _list, "lists": _list,
         "held_out": ("a list of people for each split, such as {val: [ann, '007']}",
                      lambda value: isinstance(value, dict) and all(map(_texts, value.values()))),
         "same_person": ("a name for each other name, such as {ann2: ann}",
                         lambda value: isinstance(value, dict) and _texts([*value, *value.values()])),
         "margin": ("a number, 1 or more", lambda value: isinstance(value, (int, float)) and value >= 1)}
"""what a recipe's keys must hold, in words and as a test"""


@dataclass(frozen=True)
class Recipe:
    """One data set, as `datasets/*/recipe.yaml` describes it."""

    name: str
    clips: str
    """regular expression of a clip's path below the data set's folder. Its group `person` says who it shows; `view`, `emotion`,
    `level` and `take` are kept; `split` is believed, where one person is in several"""
    held_out: dict[str, list[str]] = field(default_factory=dict)
    """people (shell patterns) by split; everybody else is in `train`"""
    same_person: dict[str, str] = field(default_factory=dict)
    """who goes by another name: the other name, and theirs"""
    sound: list[str] = field(default_factory=list)
    """where a clip is heard, a path with groups in braces; the first that exists and holds sound. None: in the clip itself"""
    in_step_with: Optional[str] = None
    """the clip, recorded at once and heard in the same sound, whose lips tell how far that is off; a path in the same way"""
    lists: list[str] = field(default_factory=list)
    """subsets whose public lists of links `s3dnerf download` reads"""
    margin: float = 1.0
    """factor on the boxes of those lists"""

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """From a YAML file; InputError for one that is missing or not to be understood."""
        import yaml

        if not path.is_file():
            raise InputError(f"no recipe {path}; expected a file such as datasets/hdtf/recipe.yaml")
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise InputError(f"{path} is no YAML ({' '.join(str(error).split())}); correct it") from None
        known = [one.name for one in fields(cls)]
        if not isinstance(content, dict) or {"name", "clips"} - set(content) or set(content) - set(known):
            found = ", ".join(content) if isinstance(content, dict) else type(content).__name__
            raise InputError(f"{path} has {found}; expected name and clips, and of {', '.join(known[2:])} what applies")
        wrong = next((name for name, value in content.items() if not KINDS[name][1](value)), None)
        if wrong:
            raise InputError(f"{path} has {wrong}: {content[wrong]!r}; expected {KINDS[wrong][0]}")
        recipe = cls(**content)
        recipe.check(path)
        return recipe

    def check(self, path: Path) -> None:
        """InputError for an expression without a person, for a path of groups that it does not have, or for people who are held out
        twice."""
        try:
            groups = re.compile(self.clips).groupindex
        except re.error as error:
            raise InputError(f"{path}: clips is no regular expression ({error}); correct it") from None
        if "person" not in groups:
            raise InputError(f"{path}: clips has the groups {', '.join(groups) or 'none'}; expected (?P<person>...) among them")
        for text in [*self.sound, *filter(None, [self.in_step_with])]:
            named = braces(text)
            if named is None or not set(named) <= set(groups):
                raise InputError(f"{path} has the path {text!r}; expected of {', '.join(f'{{{name}}}' for name in groups)} what it needs, "
                                 "for these are the groups of clips")
        every = [person for people in self.held_out.values() for person in people]
        twice = {person for person in every if every.count(person) > 1}
        if twice:
            raise InputError(f"{path} holds {', '.join(sorted(twice))} out twice; a person belongs to one split")

    def split(self, person: str) -> str:
        """Where a person belongs."""
        return next((split for split, people in self.held_out.items()
                     if any(fnmatchcase(person, pattern) for pattern in people)), LEARNED)

    def row(self, file: str, root: Path) -> Optional[dict]:
        """Of the manifest, for a file below a folder; None if it is no clip."""
        match = re.fullmatch(self.clips, file)
        if not match:
            return None
        told = match.groupdict()
        person = self.same_person.get(told["person"], told["person"])
        row = dict(zip(COLUMNS, (file, person, told.get("split") or self.split(person), self.name)))
        row |= {name: told.get(name) or "" for name in KEPT if name in told}
        heard = [pattern.format(**told) for pattern in self.sound]
        if heard:
            row["sound"] = next((path for path in heard if holds_sound(root / path)), heard[-1])
        if self.in_step_with:
            leader = self.in_step_with.format(**told)
            row["in_step_with"] = leader if (root / leader).is_file() else ""
        return row

    def rows(self, root: Path) -> tuple[list[dict], list[str]]:
        """Of the manifest, for all files below a folder in their order, and the videos that are no clips.

        DatasetError if there is none at all.
        """
        files = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) if root.is_dir() else []
        files = [file for file in files if not any(part.startswith(".") for part in Path(file).parts)]
        rows = {file: self.row(file, root) for file in files}
        found = [row for row in rows.values() if row]
        if not found:
            raise DatasetError(f"{root} has {len(files)} files and no clip of {self.name}; expected paths like {self.clips}")
        heard = {row.get("sound") for row in found}
        return found, [file for file, row in rows.items() if row is None and file not in heard
                       and Path(file).suffix in (".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".m4v")]


def braces(text: str) -> Optional[list[str]]:
    """The names in braces of a text; None where the braces do not fit together."""
    try:
        return [name for _, name, _, _ in Formatter().parse(text) if name is not None]
    except ValueError:
        return None


def holds_sound(path: Path) -> bool:
    """Whether a file is there and has a sound track."""
    import av

    if not path.is_file():
        return False
    try:
        with av.open(str(path)) as container:
            return bool(container.streams.audio)
    except (av.FFmpegError, OSError, ValueError):
        return False


def list_clips(recipe: Path, root: Path, output: Path) -> None:
    """Writes the manifest of a data set's folder, and tells how many clips, people and splits there are."""
    rows, left = Recipe.read(recipe).rows(root)
    write_manifest(rows, output)
    splits = sorted({row["split"] for row in rows})
    told = [f"{name} {sum(row['split'] == name for row in rows)} clips of {len({row['person'] for row in rows if row['split'] == name})}"
            " people" for name in splits]
    print(f"{output}: {', '.join(told)}" + (f"; left out {len(left)} videos that are no clips, such as {left[0]}" if left else ""))
