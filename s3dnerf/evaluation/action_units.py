"""AUE: what OpenFace's FeatureExtraction says of the muscles of two faces."""
from __future__ import annotations

import csv
from pathlib import Path

import torch

from s3dnerf.errors import InputError
from s3dnerf.media import check_file
from s3dnerf.metrics import action_unit_error

LOWER = (10, 12, 14, 15, 17, 20, 23, 25, 26)
UPPER = (1, 2, 4, 5, 6, 7, 9, 45)
UNITS = LOWER + UPPER


def read_units(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Intensities [T, 17] of the units of `UNITS`, and whether the face was found [T]; InputError for another table."""
    with check_file(path, "table of OpenFace").open(newline="", encoding="utf-8") as file:
        rows = [{(key or "").strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
    names = [f"AU{unit:02d}_r" for unit in UNITS]
    lacking = [name for name in names if not rows or name not in rows[0]]
    if lacking:
        raise InputError(f"{path} has no column {lacking[0]}; expected the CSV of OpenFace's FeatureExtraction (with -aus)")
    try:
        values = torch.tensor([[float(row[name]) for name in names] for row in rows])
        return values, torch.tensor([float(row.get("success") or 1) > 0 for row in rows])
    except (TypeError, ValueError):
        raise InputError(f"{path} has a value that is no number; run FeatureExtraction again") from None


def unit_figures(made: Path, true: Path) -> dict[str, float]:
    """AUE over frames in which both have a face, of all 17 units and of the lower and the upper face's; empty without one."""
    (found, seen), (truth, known) = read_units(made), read_units(true)
    count = min(len(found), len(truth))
    both = seen[:count] & known[:count]
    if not both.any():
        return {}
    found, truth, low = found[:count][both], truth[:count][both], len(LOWER)
    parts = {"aue": slice(None), "aue_lower": slice(low), "aue_upper": slice(low, None)}
    return {name: action_unit_error(found[:, part], truth[:, part]).item() for name, part in parts.items()}
