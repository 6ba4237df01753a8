"""Runs against the first of them: through the command line, against what was put into them."""
import csv

import pytest

from s3dnerf.cli import main
from s3dnerf.comparison.comparison import better, compared, read
from s3dnerf.comparison.run import Run


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_was_put_in_comes_out(two_runs, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["compare", *map(str, two_runs), "--output", str(page)]) == 0
    assert str(page) in capsys.readouterr().out
    first, second = (row for row in table(tmp_path / "page.csv") if row["figure"] == "psnr")
    assert (first["run"], second["run"]) == ("plain", "wide") and first["change"] == first["verdict"] == ""
    assert float(second["change"]) == pytest.approx(0.5, abs=1e-6) and second["clips"] == second["paired_clips"] == "8"
    assert float(second["p"]) == pytest.approx(2 / 2 ** 8) and second["verdict"] == "better"
    assert not any(row["figure"] == "lpips" for row in table(tmp_path / "page.csv"))  # nobody has it
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.csv", "page.html"]


def test_only_settings_that_differ_are_told(two_runs, tmp_path):
    found = compared(read([str(path) for path in two_runs], tmp_path))
    assert found.settings == {"model.width": [3, 5], "trainer.callbacks.EMA.decay": [0.1, 0.2]}


def run(name, **figures):
    clips = {f"clip{index}": {figure: values[index] for figure, values in figures.items()} for index in range(10)}
    return Run(name, "evaluation", name=name, clips=clips)


def test_all_tests_are_corrected_together_and_directions_are_the_figures_own():
    flat, rising = [5.0] * 10, [5.0 + 0.1 * index + 1 for index in range(10)]
    other = [5.0 + (-1) ** index * (1 + 0.01 * index) for index in range(10)]
    first = run("a", psnr=flat, lpips=flat, opacity=flat, ssim=flat)
    found = compared([first, run("b", psnr=rising, lpips=rising, opacity=rising, ssim=other), run("c", psnr=flat, lpips=flat)])
    assert [found.figures[name][1].verdict for name in ("psnr", "lpips", "opacity", "ssim")] == ["better", "worse", "differs", "same"]
    cell = found.figures["psnr"][1]
    assert cell.change.p == pytest.approx(2 / 2 ** 10) and cell.p == pytest.approx(6 * 2 / 2 ** 10)  # six tests in all
    assert [found.figures[name][2].verdict for name in ("psnr", "opacity")] == ["same", "open"]
    assert found.counts(1) == {"better": 1, "worse": 1, "differs": 1, "same": 1, "open": 0} and found.figures["psnr"][0].p is None


def test_too_many_tests_hide_a_difference_that_one_alone_shows():
    flat, rising = [5.0] * 10, [6.0 + index for index in range(10)]
    few = compared([run("a", psnr=flat), run("b", psnr=rising)])
    names = {f"figure{index}": flat for index in range(40)}
    many = compared([run("a", psnr=flat, **names), run("b", psnr=rising, **names)])
    assert few.figures["psnr"][1].verdict == "better" and many.figures["psnr"][1].verdict == "same"


@pytest.mark.parametrize("figure, sign", [("face_lip_psnr", 1), ("M-LMD", -1), ("lips_m_lmd", -1), ("Sync-C", 1), ("sync_d", -1),
                                          ("offset_within_1", 1), ("offset_lag", 0), ("offset_median", -1), ("opening_spread", 0),
                                          ("mouth_corr", 1), ("confidence", 0), ("full: psnr", 1), ("fid", -1), ("opacity", 0),
                                          ("judge_d", -1), ("judge_c", 1), ("sync_offset", 0), ("cpbd_truth", 0), ("jitter", 0),
                                           ("sync: face_opacity", 0), ("judge: offset", -1)])
def test_which_way_a_figure_gets_better(figure, sign):
    assert better(figure) == sign


CASES = {"one run": (lambda a, d: [a], "two or more"), "twice": (lambda a, d: [a, a], "twice"),
         "nothing there": (lambda a, d: [a, "nowhere"], "nowhere"), "an empty folder": (lambda a, d: [a, str(d)], "metrics.csv"),
         "a folder, not wandb": (lambda a, d: [a, "tests/comparison/nowhere"], "no run tests/comparison/nowhere; expected the folder"),
         "no page": (lambda a, d: [a, "b", "--output", "page.txt"], ".html"),
         "no folder": (lambda a, d: [a, "b", "--output", str(d / "x" / "page.html")], "no folder"),
         "no run": (lambda a, d: [], "--runs"), "push": (lambda a, d: [a, a, "--push", "a/b/c"], "entity/project")}


@pytest.mark.parametrize("words, told", CASES.values(), ids=CASES)
def test_mistakes_are_one_line(words, told, two_runs, tmp_path, capsys):
    words = words(str(two_runs[0]), tmp_path)
    if "--push" in words:
        words[1] = str(two_runs[1])
    assert main(["compare", *words, *([] if "--output" in words else ["--output", str(tmp_path / "page.html")])]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and told in said and not list(tmp_path.iterdir())


def test_runs_may_stand_before_and_after_the_options(two_runs, tmp_path):
    pages = []
    for order in (lambda a, b, o: [*o, a, b], lambda a, b, o: [a, *o, b], lambda a, b, o: ["--runs", a, "--runs", b, *o]):
        pages.append(tmp_path / f"{len(pages)}.html")
        assert main(["compare", *order(*map(str, two_runs), ["--output", str(pages[-1])])]) == 0
    assert len({page.read_text() for page in pages}) == 1
