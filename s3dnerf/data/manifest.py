"""The table of clips that preparation takes: one row per video, tab separated."""
from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Optional, Sequence

from s3dnerf.data.shards import write_whole
from s3dnerf.errors import DatasetError

COLUMNS = ("file", "person", "split", "source")
"""that every manifest has"""
KEPT = ("view", "emotion", "level", "take")
"""that are kept in the clips' metadata where a manifest has them"""


def read_manifest(path: Path, split: Optional[Sequence[str]]) -> list[dict]:
    """The rows of the wanted splits; DatasetError if the file, a column or a value is missing, names clash, or no row is left."""
    if not path.is_file():
        raise DatasetError(f"no manifest {path}; give a table with the columns {', '.join(COLUMNS)}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin with a mark
            rows = list(csv.DictReader(file, delimiter="\t"))
    except UnicodeDecodeError:
        raise DatasetError(f"{path} is no text in UTF-8; save it as one, separated by tabs") from None
    missing = set(COLUMNS) - set(rows[0] if rows else ())
    if missing:
        raise DatasetError(f"{path} has no column {', '.join(sorted(missing))}; expected {', '.join(COLUMNS)}, separated by tabs")
    for number, row in enumerate(rows, 2):
        empty = [name for name in COLUMNS if not row[name]]
        if empty:
            raise DatasetError(f"{path} has no {empty[0]} in line {number}; expected {', '.join(COLUMNS)} in each, separated by tabs")
    chosen = [row for row in rows if split is None or row["split"] in split]
    if not chosen:
        raise DatasetError(f"{path} has no clip of split {', '.join(split or ())}; it has "
                           f"{', '.join(sorted({row['split'] for row in rows}))}")
    names = Counter((row["split"], clip_name(row["file"])) for row in chosen)
    (_, name), count = names.most_common(1)[0]
    if count > 1:
        raise DatasetError(f"{path} has {count} files that would all be called {name} in a split; rename one")
    return sorted(chosen, key=lambda row: row["file"])


def write_manifest(rows: Sequence[dict], path: Path) -> None:
    """Writes rows that all have the same columns, in the order of the first; the file appears whole."""
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, table.getvalue().encode())


def clip_name(file: str) -> str:
    """The name of a file's clips, from its whole path, so that `ann/001.mp4` and `bob/001.mp4` stay apart."""
    return str(Path(file).with_suffix("")).replace("/", "-").replace(".", "_")
