"""The page: whole, of one file, and as a browser shows it."""
import base64
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from s3dnerf.comparison.charts import MOST, framed, short, smoothed, thinned, ticks
from s3dnerf.comparison.comparison import compared, read
from s3dnerf.comparison.page import Media, page
from s3dnerf.comparison.run import Run

EMPTY = {"meta", "br", "wbr", "img", "link", "input", "hr"}


class Outline(HTMLParser):
    """Checks that elements are closed in order, and keeps their attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def made(paths, folder, limit=30.0):
    return page(compared(read([str(path) for path in paths], folder)), Media(folder / "page.html", limit, folder / "passing"))


def test_the_page_needs_nothing_beside_it_and_says_what_differs(two_runs, tmp_path):
    text = made(two_runs, tmp_path)
    outline = Outline(text)
    assert not re.search(r"(src|href)=\"(?!data:)", text) and "@import" not in text and "http" not in text.replace("http-equiv", "")
    assert "plain</strong> (training, 60 steps, commit 0123456789) is what the others are compared with" in text
    assert "differs in 2 settings; it is better in 1 of 1 figure, and no difference is shown in 0" in text
    assert "commit 0123456789 with changes" in text and "prefers-color-scheme: dark" in text
    assert len(outline.all("video")) == 2 and len(outline.all("table")) == 2 and len(outline.all("caption")) == 2
    assert all(head["scope"] in ("col", "row") for head in outline.all("th"))
    assert {figure["aria-label"] for figure in outline.all("svg") if "aria-label" in figure} >= {
        "val/psnr: plain ends at 26.00; wide ends at 26.50"}
    videos = [base64.b64decode(video["src"].split(",")[1]) for video in outline.all("video")]
    assert videos[0] == (two_runs[0] / "renderings" / "clip-a-step000060-speech.mp4").read_bytes()
    assert all(video["poster"].startswith("data:image/jpeg") for video in outline.all("video"))


def test_media_beyond_the_limit_are_linked_and_what_passes_is_kept(two_runs, tmp_path):
    outline = Outline(made(two_runs, tmp_path, limit=0.0))
    for video in outline.all("video"):
        assert (tmp_path / video["src"]).resolve().is_relative_to(two_runs[0].parents[1])
    passing = tmp_path / "passing" / "a.mp4"
    passing.parent.mkdir()
    passing.write_bytes(b"film")
    media = Media(tmp_path / "page.html", 0.0, tmp_path / "passing")
    link = media.source(passing)
    assert link == "page-media/a.mp4" and (tmp_path / link).read_bytes() == b"film"


def test_names_cannot_break_the_page(tmp_path):
    runs = [Run(f"<b>{name}</b>", "wandb", name=f'"{name}<script>', clips={"<i>": {"a<b": 1.0}}, config={"<k>": name}, curves={
        "val/<x>": [(0, 1.0)]}) for name in "ab"]
    text = page(compared(runs), Media(tmp_path / "page.html", 1.0, tmp_path))
    outline = Outline(text)
    assert not outline.all("b") and not outline.all("i") and len(outline.all("script")) == 1


def test_protocols_that_differ_are_told(tmp_path, write_report):
    values = {f"clip{index}": float(index) for index in range(8)}
    paths = [write_report(tmp_path / name / "report.json", values, name) for name in ("aaa", "bbb")]
    assert "Protocols differ" in made(paths, tmp_path)
    same = [paths[0], write_report(tmp_path / "c" / "report.json", values, "aaa")]
    assert "Protocols differ" not in made(same, tmp_path)


def test_few_clips_are_told(two_runs, tmp_path, write_run):
    few = [write_run(tmp_path / name / "version_0", clips=3, shift=shift, films=()) for name, shift in (("a", 0), ("b", 1))]
    assert "In 3 clips this test cannot come below 0.25" in made(few, tmp_path)
    assert "cannot come below" not in made(two_runs, tmp_path)


def test_ticks_are_round_and_within():
    for low, high in ((0, 1), (-3.2, 17), (1e-4, 3e-4), (25.3, 25.31), (0, 4e5)):
        found = ticks(low, high, 5)
        assert 2 <= len(found) <= 6 and low - 1e-9 <= found[0] and found[-1] <= high + 1e-9
        steps = {round((b - a) / 10 ** math.floor(math.log10(b - a)), 6) for a, b in zip(found, found[1:])}
        assert steps <= {1.0, 2.0, 5.0, 10.0}


def test_curves_keep_their_level_when_smoothed_and_thinned():
    flat, long = [(step, 3.0) for step in range(50)], [(step, step / 10) for step in range(5000)]
    assert [y for _, y in smoothed(flat)] == pytest.approx([3.0] * 50) and [x for x, _ in smoothed(flat)] == list(range(50))
    assert len(thinned(long)) == MOST and thinned(flat) == flat
    assert sum(y for _, y in thinned(long)) / MOST == pytest.approx(249.95, rel=0.02)
    frame = framed([(0, 1.0), (10, 3.0)], [(0, 0.5, 4.0)])
    assert frame.bottom < 0.5 and frame.top > 4.0 and frame.x(0) < frame.x(10) and frame.y(4) < frame.y(1)
    assert framed([(5, 2.0)], []).left < 5 < framed([(5, 2.0)], []).right


def test_numbers_have_four_digits():
    assert [short(value) for value in (None, 0, 12.3456, 0.98765, 123.456, 1e-5, -3.14159, 123456.0)] == \
        ["–", "0", "12.35", "0.9877", "123.5", "1e-05", "-3.142", "1.23e+05"]


PROBE = """<script>addEventListener("load", () => { const heads = document.querySelectorAll("table.sortable th[scope=col] button");
heads[1].click(); const frame = document.querySelector(".scroll tbody"); const video = document.querySelector("video");
document.title = [innerWidth, document.documentElement.scrollWidth, heads.length, frame.rows[0].cells[0].textContent,
document.querySelectorAll("button.play:not([hidden])").length, document.querySelector(".chart svg").getBoundingClientRect().width > 100]
.join("|"); });</script>"""


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_overflow_and_sorts_it(width, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium on this machine")
    clips = {f"clip{index}": {"ssim": 1.0 + index, "psnr": 30.0 + index, "opacity": 0.2} for index in range(8)}
    runs = [Run(name, "training", name=f"{name} with a name as long as those of runs are", clips=clips, videos={}, config={
        "a.very.long.name.of.a.setting.that.does.not.break": name}, curves={"val/psnr": [(0, 1.0), (9, 2.0)]}) for name in "abcd"]
    (tmp_path / "page.html").write_text(page(compared(runs), Media(tmp_path / "page.html", 1.0, tmp_path)) + PROBE)
    (tmp_path / "frame.html").write_text(f'<iframe src="page.html" style="width:{width}px;height:900px;border:0" onload="setTimeout(() => '
                                         'document.title = this.contentDocument.title, 100)"></iframe>')
    done = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
                           f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom",
                           (tmp_path / "frame.html").as_uri()], capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title, done.stderr[-500:]
    inner, needed, heads, first, _, drawn = title[1].split("|")
    assert int(inner) == width and int(needed) <= width and heads == "10" and first.startswith("psnr") and drawn == "true"
