"""What a validation found: one line per figure, with its limit and whether it is kept."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Sequence

NOTHING = 1e-7
"""limit of figures that have to be something rather than nothing, such as gradients"""


@dataclass(frozen=True)
class Line:
    """One figure of the report."""

    row: int
    """of docs/toy_checks.md"""
    name: str
    figure: Optional[float]
    """None where a network or data that it needs is missing; `note` says which"""
    least: Optional[float] = None
    """smallest figure that passes"""
    most: Optional[float] = None
    """largest figure that passes"""
    note: str = ""

    @property
    def verdict(self) -> str:
        """pass, FAIL, missing, or "reported" where there is no limit; a figure that is no number fails."""
        if self.figure is None:
            return "missing"
        if not math.isfinite(self.figure):
            return "FAIL"
        if self.least is None and self.most is None:
            return "reported"
        kept = (self.least is None or self.figure >= self.least) and (self.most is None or self.figure <= self.most)
        return "pass" if kept else "FAIL"

    @property
    def limit(self) -> str:
        """The limit in words."""
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        if self.least is not None:
            return "> 0" if self.least == NOTHING else f">= {self.least:g}"
        return "" if self.most is None else f"<= {self.most:g}"


def missing(row: int, name: str, why: str, least: Optional[float] = None, most: Optional[float] = None) -> Line:
    """The line of a figure that cannot be had."""
    return Line(row, name, None, least, most, why)


def failed(lines: Sequence[Line]) -> bool:
    """Whether any check fails; what is missing does not."""
    return any(line.verdict == "FAIL" for line in lines)


def verdict(lines: Sequence[Line]) -> str:
    """One sentence about all lines."""
    count = {word: sum(line.verdict == word for line in lines) for word in ("pass", "FAIL", "missing", "reported")}
    word = "FAIL" if failed(lines) else "pass"
    return (f"{word}: {count['pass']} pass, {count['FAIL']} fail, {count['missing']} missing, "
            f"{count['reported']} reported without a limit")


def table(lines: Sequence[Line]) -> str:
    """Lines in columns: row, name, figure, limit, verdict, note."""
    figure = lambda line: "" if line.figure is None else f"{line.figure:.4g}"
    cells = [("row", "check", "figure", "limit", "", "")]
    cells += [(str(line.row), line.name, figure(line), line.limit, line.verdict, line.note) for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells)]
    pad = (str.rjust, str.ljust, str.rjust, str.ljust, str.ljust, str.ljust)
    return "\n".join("  ".join(fit(cell, width) for fit, cell, width in zip(pad, row, widths)).rstrip() for row in cells)


def as_dict(lines: Sequence[Line], **about) -> dict:
    """The report as what JSON can hold: `about` (weights, shards and so on), the verdict, and the lines."""
    plain = lambda x: x if x is None or math.isfinite(x) else str(x)
    rows = [{"row": line.row, "name": line.name, "figure": plain(line.figure), "least": line.least, "most": line.most,
             "verdict": line.verdict, "note": line.note} for line in lines]
    return about | {"verdict": verdict(lines), "lines": rows}
