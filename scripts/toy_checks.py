"""Puts a report of `s3dnerf validate` into docs/toy_checks.md: its table of limits and figures, and the report as printed.

    s3dnerf validate --shards data/val --train data/train --output report.json
    python scripts/toy_checks.py report.json
"""
import json
import re
import sys
from pathlib import Path

from s3dnerf.validation.report import Line, table

PAGE = Path(__file__).parent.parent / "docs" / "toy_checks.md"


def read_lines(report: dict) -> list[Line]:
    """The lines of a report."""
    return [Line(row["row"], row["name"], None if row["figure"] is None else float(row["figure"]), row["least"], row["most"],
                 row["note"]) for row in report["lines"]]


def limits(lines: list[Line]) -> str:
    """Limits side by side, for a row of the page."""
    return "; ".join(line.limit for line in lines)


def figures(lines: list[Line]) -> str:
    """Figures side by side; those that fail in bold."""
    plain = lambda line: "missing" if line.figure is None else f"{line.figure:.3g}"
    return "; ".join(f"**{plain(line)}**" if line.verdict == "FAIL" else plain(line) for line in lines)


def updated(page: str, lines: list[Line]) -> str:
    """The page with new limits, figures and report; rows without lines in the report stay."""

    def fill(match: re.Match) -> str:
        limited = [line for line in lines if line.row == int(match[1]) and line.limit]
        return f"{match[0].rsplit('|', 3)[0]}| {limits(limited)} | {figures(limited)} |" if limited else match[0]

    page = re.sub(r"^\| (\d+) \|.*\|$", fill, page, flags=re.M)
    report = f"<!-- report -->\n```text\n{table(lines)}\n```\n<!-- end of report -->"
    return re.sub(r"<!-- report -->.*<!-- end of report -->", lambda _: report, page, flags=re.S)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the report: python scripts/toy_checks.py report.json")
    lines = read_lines(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), lines), encoding="utf-8")
