"""What was found: a table for people, JSON for programs."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Sequence

from s3dnerf.evaluation.figures import FIGURES
from s3dnerf.evaluation.protocol import Protocol


@dataclass(frozen=True)
class Report:
    """The figures of some clips."""

    protocol: Protocol
    networks: dict[str, dict]
    """file and sha256 of the networks that judged"""
    rows: Sequence
    """`suite.Row` of every clip"""
    means: dict[str, dict]
    """mean, low, high (None where there is no interval) and number of clips by figure"""
    missing: dict[str, str]
    """why, by figure"""
    remarks: Sequence[str]
    generated: Optional[str] = None
    """folder of the videos, or the only one, as seen from the report's folder; None where none are kept"""

    def as_dict(self) -> dict:
        """As docs/evaluation.md describes it."""
        clips = [{"clip": row.clip, "frames": row.frames, **row.figures} for row in self.rows]
        return {"protocol": self.protocol.as_dict(), "networks": self.networks, "clips": clips, "means": self.means,
                "missing": self.missing, "remarks": list(self.remarks), "generated": self.generated}

    def table(self) -> str:
        """Figures in columns, then what is missing, and remarks."""
        cells = [("figure", "mean", "95 % interval", "clips", "better")]
        for name, found in self.means.items():
            bounds = "" if found["low"] is None else f"{found['low']:.4g} to {found['high']:.4g}"
            cells.append((f"{name}: {FIGURES[name].title}", f"{found['mean']:.4g}", bounds, str(found["clips"]),
                          FIGURES[name].better))
        widths = [max(map(len, column)) for column in zip(*cells)]
        pad = (str.ljust, str.rjust, str.rjust, str.rjust, str.ljust)
        lines = ["  ".join(fit(cell, width) for fit, cell, width in zip(pad, row, widths)).rstrip() for row in cells]
        reasons: dict[str, list[str]] = {}
        for name, why in self.missing.items():
            reasons.setdefault(why, []).append(name)
        lines += [f"missing: {', '.join(names)}: {why}" for why, names in reasons.items()]
        lines += [f"note: {remark}" for remark in self.remarks]
        frames = sum(row.frames for row in self.rows)
        return "\n".join([*lines, f"{len(self.rows)} clips, {frames} frames; protocol {self.protocol.version}, "
                                  f"{self.protocol.hash}"])
