"""Lines of the report: what passes, what fails, what is only told."""
import json
import math

from s3dnerf.validation.report import NOTHING, Line, as_dict, failed, missing, table, verdict

LINES = [Line(1, "enough", 2.0, 2.0), Line(2, "too little", 1.9, 2.0), Line(3, "too much", 3.0, most=2.0),
         Line(4, "between", 1.0, 0.7, 1.3), Line(5, "nothing", 0.0, NOTHING), Line(6, "no number", math.nan, 0.0),
         Line(7, "told", 4.2), missing(8, "absent", "give it")]


def test_verdicts():
    assert [line.verdict for line in LINES] == ["pass", "FAIL", "FAIL", "pass", "FAIL", "FAIL", "reported", "missing"]


def test_limits_in_words():
    assert [line.limit for line in LINES[:5]] == [">= 2", ">= 2", "<= 2", "0.7 to 1.3", "> 0"] and LINES[6].limit == ""


def test_only_failing_lines_fail_the_whole():
    assert failed(LINES) and not failed([LINES[0], LINES[6], LINES[7]])
    assert verdict(LINES) == "FAIL: 2 pass, 4 fail, 1 missing, 1 reported without a limit"
    assert verdict(LINES[:1]).startswith("pass: 1 pass, 0 fail")


def test_a_row_of_the_table_per_line():
    rows = table(LINES).splitlines()
    assert len(rows) == 1 + len(LINES) and rows[8].split() == ["8", "absent", "missing", "give", "it"]
    assert len({row.index(word) for row, word in zip(rows[1:], ("pass", "FAIL", "FAIL"))}) == 1


def test_the_report_is_json_even_where_a_figure_is_no_number():
    found = json.loads(json.dumps(as_dict(LINES, weights="mine"), allow_nan=False))
    assert found["weights"] == "mine" and found["verdict"] == verdict(LINES)
    assert [line["verdict"] for line in found["lines"]] == [line.verdict for line in LINES]
