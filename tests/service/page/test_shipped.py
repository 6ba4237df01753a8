"""The page as it is shipped: what it needs, what it names, and how a browser to test it gets there."""
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

ASSETS = files("s3dnerf") / "assets"
PAGE = files("s3dnerf") / "service" / "page"
PHOTO = str(ASSETS / "demo_photo.jpg")


def test_the_page_needs_nobody_else_and_nothing_inline():
    html = (PAGE / "index.html").read_text()
    assert "<style" not in html and not re.search(r"\sstyle=|\son\w+=", html)
    assert re.findall(r"<script[^>]*>", html) == ['<script type="module" src="page.js">'] and "></script>" in html
    for file in PAGE.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.[a-z]", text), file
        assert len(text.splitlines()) <= 400, file
        for name in re.findall(r'from "\./([\w.]+)"', text):
            assert (PAGE / name).is_file()


def test_labels_and_scripts_name_what_is_there():
    html = (PAGE / "index.html").read_text()
    ids = re.findall(r'\bid="([\w-]+)"', html)
    assert len(ids) == len(set(ids))
    named = re.findall(r'\b(?:for|aria-labelledby|aria-describedby|aria-controls)="([\w-]+)"', html)
    for file in PAGE.glob("*.js") if hasattr(PAGE, "glob") else []:
        named += re.findall(r'\$\("([\w-]+)"\)', file.read_text())
    assert len(named) > 100 and set(named) <= set(ids), set(named) - set(ids)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.mark.parametrize("user, there, told", [(0, True, ["pytest"]), (0, False, ["update", "install", "pytest"]),
                                               (7, False, [])])
def test_make_installs_a_browser_only_where_it_is_missing_and_may(tmp_path, user, there, told):
    scripts = {"apt-get": 'echo "$@" >> $LOG', "python": 'echo "$@" >> $LOG', "id": f"echo {user}"}
    for name, line in (scripts | (dict.fromkeys(("chromium", "chromedriver"), "exit 0") if there else {})).items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    make, log = shutil.which("make"), tmp_path / "log"
    log.touch()
    (tmp_path / "sh").symlink_to("/bin/sh")
    made = subprocess.run([make, "-o", "setup", "test-browser", f"RUN={tmp_path}", f"PATH={tmp_path}", "PYTHON=python"],
                          text=True, cwd=Path(__file__).parents[3], capture_output=True,
                          env={"PATH": str(tmp_path), "LOG": str(log)})
    lines = log.read_text().splitlines()
    assert [next(word for word in line.split() if word in ("update", "install", "pytest")) for line in lines] == told
    assert (made.returncode == 0) == bool(told), made.stderr
    assert told or "apt-get install chromium" in made.stderr


def test_a_new_version_of_the_page_is_seen_at_once(running):
    for name in ("", "page.js", "page.css"):
        answer = running.client.get("/" + name)
        assert answer.status_code == 200 and answer.headers["cache-control"] == "no-cache" and answer.headers["etag"]
    assert running.client.get("/example/photo.jpg").content == Path(PHOTO).read_bytes()
    assert {running.client.get(f"/example/{name}").status_code for name in ("speech.mp3", "..%2fASSETS.md", "%2e%2e")} == {404}
