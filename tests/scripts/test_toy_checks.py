"""The page of the toy check: filled from a report, and naming what exists."""
import re
from pathlib import Path

import pytest

from s3dnerf.validation.report import Line, as_dict, missing
from s3dnerf.validation.suite import CHECKS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "toy_checks.md").read_text()


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("toy_checks")


def test_a_report_fills_its_rows_and_leaves_the_others(script):
    lines = [Line(2, "a", 0.5, 0.1), Line(2, "b", 1.5, 2.0), Line(2, "told", 3.0), missing(8, "c", "no expert", 0.9)]
    page = script.updated(PAGE, script.read_lines(as_dict(lines)))
    rows = dict(re.findall(r"^\| (\d+) \|.*?\| ([^|]*\|[^|]*) \|$", page, re.M))
    assert rows["2"] == ">= 0.1; >= 2 | 0.5; **1.5**" and rows["8"] == ">= 0.9 | missing"
    before = dict(re.findall(r"^\| (\d+) \|.*?\| ([^|]*\|[^|]*) \|$", PAGE, re.M))
    assert all(rows[name] == before[name] for name in before if name not in ("2", "8")) and len(before) == 22
    report = page.split("<!-- report -->")[1]
    assert "told" in report and "no expert" in report and script.updated(page, lines) == page


def test_every_row_and_every_check_is_on_the_page_and_what_it_names_exists():
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", PAGE, re.M)
    assert [int(number) for number, _ in rows] == [*range(1, 21), 26, 28]
    named = {name for _, row in rows for name in re.findall(r"`(\w+)`", row)}
    checks = {check.__name__ for check in CHECKS}
    assert checks <= named
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert all(f"def {name}(" in tests for name in named - checks)
