"""Runs out of wandb: folders that were written offline, and runs of its server."""
from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Iterator, Optional

from s3dnerf.comparison.run import Run, commit_of, curves_of, flattened, number
from s3dnerf.errors import InputError

TABLE, VIDEO, PICTURE, RECORDING = "val/clips", "speech/", "regions/", "recording/"
"""keys under which `systems.tracking` logs"""


def offline_file(folder: Path) -> Optional[Path]:
    """The log of the wandb run that a folder holds, itself or as its only one below; None where there is none."""
    found = sorted(folder.glob("run-*.wandb")) or sorted(folder.rglob("run-*.wandb"))
    if len(found) > 1:
        names = ", ".join(str(path.parent) for path in found[:4])
        raise InputError(f"found {len(found)} wandb runs in {folder}; give one of them: {names}")
    return found[0] if found else None


def read_offline(path: Path) -> Run:
    """A run out of its run-ID.wandb and the files beside it."""
    config, rows, name = {}, [], ""
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            name = record.run.display_name or name
        if kind in ("run", "config"):
            update = record.run.config.update if kind == "run" else record.config.update
            for item in update:
                place(config, [item.key] if item.key else list(item.nested_key), json.loads(item.value_json))
        if kind == "history":
            row: dict[str, Any] = {}
            for item in record.history.item:
                place(row, [item.key] if item.key else list(item.nested_key), parsed(item.value_json))
            rows.append(row)
    files = path.parent / "files"
    return assembled(str(path.parent), name, config, rows, lambda media: files / media)


def read_online(path: str, cache: Path) -> Run:
    """A run of the server, by entity/project/run; its newest videos, pictures and table are fetched into a folder.

    InputError where wandb finds no such run or may not see it.
    """
    import wandb

    try:
        found = wandb.Api().run(path)
        config, rows = dict(found.config), [dict(row) for row in found.scan_history()]
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise InputError(f"no run {path}: {' '.join(str(error).split())}; expected a folder, a report (JSON), or "
                         "entity/project/run of a server that `wandb login` knows") from None
    folder = cache / path.replace("/", "-")

    def fetch(media: str) -> Path:
        found.file(media).download(root=str(folder), replace=True)
        return folder / media

    return assembled(path, found.name or "", config, rows, fetch)


def records(path: Path) -> Iterator[Any]:
    """The records of an offline run's file; one that was cut ends at its last whole record."""
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    store = DataStore()
    try:
        store.open_for_scan(str(path))
        while (data := store.scan_data()) is not None:
            record = Record()
            record.ParseFromString(data)
            yield record
    except (AssertionError, TypeError, struct.error):  # how the reader tells of a record that is not whole
        return
    except Exception as error:  # of no class of its own
        raise InputError(f"{path} is no file of wandb ({error}); give the folder of an offline run") from None


def assembled(source: str, name: str, config: dict, rows: list[dict[str, Any]], fetch) -> Run:
    """A run from its configuration and history; `fetch` makes a path of a medium's name."""
    logged = [row | {"step": row.get("trainer/global_step", row.get("_step"))} for row in rows]
    logged = [{key: value for key, value in row.items() if not key.startswith(("trainer/", "_"))} for row in logged]
    media: dict[str, str] = {}
    for row in rows:
        media |= {key: value["path"] for key, value in row.items() if isinstance(value, dict) and value.get("path")}

    def newest(prefix: str) -> dict[str, Path]:
        found = {key[len(prefix):]: fetch(path) for key, path in media.items() if key.startswith(prefix)}
        return {clip: path for clip, path in found.items() if path.is_file()}

    clips = {}
    if TABLE in media and (table := fetch(media[TABLE])).is_file():
        clips = clip_table(json.loads(table.read_text(encoding="utf-8")))
    chosen = config.get("experiment") or {key: value for key, value in config.items() if key not in ("_wandb", "git")}
    return Run(source, "wandb", name, flattened(chosen), commit_of(config.get("git")), curves_of(logged), clips,
               videos=newest(VIDEO), pictures=newest(PICTURE), recordings=newest(RECORDING))


def clip_table(table: dict) -> dict[str, dict[str, Optional[float]]]:
    """Figures by clip out of a wandb table with the columns step, clip and figures."""
    rows = [dict(zip(table["columns"], row)) for row in table["data"]]
    return {row["clip"]: {name: number(value) for name, value in row.items() if name not in ("step", "clip")} for row in rows}


def place(content: dict, keys: list[str], value: Any) -> None:
    """Sets a value below nested keys."""
    for key in keys[:-1]:
        content = content.setdefault(key, {})
    content[keys[-1]] = value


def parsed(text: str) -> Any:
    """A value of the history."""
    try:
        return json.loads(text)
    except ValueError:
        return None
