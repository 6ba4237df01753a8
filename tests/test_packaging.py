"""What a fresh machine gets: pinned versions, the Makefile's set-up, the files that ship, the cards of data sets."""
import os
import re
import shlex
import shutil
import subprocess
import sys
import wave
from importlib.metadata import PackageNotFoundError, distribution
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from PIL import Image

import s3dnerf
from s3dnerf.commands import VERBS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
ASSETS = ROOT / "s3dnerf" / "assets"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PYTHONS = ("3.10", "3.11", "3.12")
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line]
EXTRAS = PROJECT["project"]["optional-dependencies"]
DEV = PROJECT["project"]["dependencies"] + [text for wanted in EXTRAS.values() for text in wanted if not text.startswith("s3dnerf")]
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def pins(python):
    """{name: version} that hold for one Python."""
    found = {}
    for line in LINES:
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            assert pin.name not in found, f"{pin.name} is pinned twice for Python {python}"
            found[pin.name] = Version(str(pin.specifier).removeprefix("=="))
    return found


def closure(requirements):
    """Names of all that the requirements need on this machine, directly or not, as far as it is installed."""
    todo, seen = [Requirement(text) for text in requirements], set()
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        for extra in ("", *wanted.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                needs = [Requirement(text) for text in distribution(name).requires or ()]
            except PackageNotFoundError:
                continue
            todo += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


@pytest.mark.parametrize("line", LINES)
def test_constraints_are_names_and_versions_only(line):
    assert re.fullmatch(r'[a-z0-9]+(-[a-z0-9]+)*==[0-9][a-z0-9.]*(; python_version (<|>=) "3\.1[12]")?', line)


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_is_pinned_to_a_version_it_allows(python):
    assert Version(python) in Requirement(f"x{PROJECT['project']['requires-python']}").specifier
    versions = pins(python)
    for wanted in map(Requirement, DEV):
        assert versions[canonicalize_name(wanted.name)] in wanted.specifier, str(wanted)


def test_what_the_dependencies_need_is_pinned_too():
    needed = closure(DEV)
    assert {"torch", "filelock", "typeshed-client", "opencv-contrib-python"} <= needed
    assert needed <= set(pins("%d.%d" % sys.version_info[:2]))


def test_both_wheels_of_opencv_have_one_version():
    for python in PYTHONS:
        assert pins(python)["opencv-contrib-python"] == pins(python)["opencv-contrib-python-headless"]


def test_version_and_licence():
    assert str(Version(s3dnerf.__version__)) == s3dnerf.__version__
    assert PROJECT["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0" in text and "END OF TERMS AND CONDITIONS" in text


# the Makefile --------------------------------------------------------------------------------------------------------

FAKE_PYTHON = """#!/bin/sh
# stands in for Python: keeps a log of its calls; `-m venv` puts a copy of itself into the environment
echo "$@" >> "$LOG"
case "$*" in
    *"$FAIL"*) test -n "$FAIL" && exit 1 ;;
esac
case "$*" in
    "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && cp "$0" .venv/bin/s3dnerf ;;
esac
exit 0
"""


@pytest.fixture
def bench(tmp_path):
    """Runs make in a folder with nothing but the Makefile and its inputs; the answer has the calls made by this run."""
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)

    def run(*words, fail="", python=python):
        log.write_text("")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
        done = subprocess.run(["make", f"PYTHON={python}", *words], cwd=tmp_path, capture_output=True, text=True,
                              timeout=60, env=environment | {"LOG": str(log), "FAIL": fail})
        done.calls = log.read_text().splitlines()
        return done

    run.folder = tmp_path
    return run


def installs(done):
    return [call for call in done.calls if " install " in call or " uninstall " in call or "-m venv" in call]


@needs_make
def test_set_up_happens_once_and_again_when_its_inputs_change(bench):
    first = bench("test")
    assert first.returncode == 0 and first.calls[-1] == "-m pytest"
    made, install, away, headless = installs(first)
    assert "venv" in made and "-c constraints.txt -e .[dev]" in install
    assert "uninstall" in away and away.endswith("opencv-contrib-python")
    assert "--no-deps" in headless and headless.endswith("-c constraints.txt opencv-contrib-python-headless")
    assert bench("test").calls == ["-m pytest"]
    os.utime(bench.folder / "constraints.txt", (2e9, 2e9))
    again = installs(bench("setup"))
    assert again == [install, away, headless], "an environment that works is kept"


@needs_make
def test_set_up_that_failed_is_taken_up_again(bench):
    assert bench("test", fail="opencv-contrib-python-headless").returncode != 0
    assert not (bench.folder / ".venv" / ".installed").exists()
    again = bench("test")
    assert again.returncode == 0 and len(installs(again)) == 3
    os.utime(bench.folder / "pyproject.toml", (2e9, 2e9))
    broken = bench("test", fail="-m pip --version")
    assert "-m venv --clear .venv" in broken.calls, "an environment without pip is made anew"


@needs_make
@pytest.mark.parametrize("python", ["false", "no-such-python", ""])
def test_wrong_python_is_one_line(bench, python):
    done = bench("demo", python=python)
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode != 0 and len(said) == 1 and "3.10, 3.11 or 3.12" in said[0] and "PYTHON=" in said[0]
    assert not (bench.folder / ".venv").exists()


@needs_make
def test_version_check_of_the_makefile():
    check = re.search(r"^SUPPORTED = (.*)$", (ROOT / "Makefile").read_text(), re.M)[1]
    for version, status in (((3, 9), 1), ((3, 10), 0), ((3, 11), 0), ((3, 12), 0), ((3, 13), 1), ((2, 7), 1)):
        code = check.replace("sys.version_info[:2]", str(version))
        assert code != check and subprocess.run([sys.executable, "-c", code]).returncode == status


@needs_make
def test_demo_is_made_from_the_files_that_ship(bench):
    assert bench("demo").returncode == 0
    command, = [call for call in bench("demo").calls if call.startswith("speak")]
    values = options("s3dnerf " + command)
    assert values["output"] == "demo.mp4" and values["sheet"] == "demo.png"
    assert (ROOT / values["photo"]).parent == (ROOT / values["speech"]).parent == ASSETS
    assert (ROOT / values["photo"]).is_file() and (ROOT / values["speech"]).is_file()


def test_ci_runs_the_tests_from_any_folder(tmp_path):
    make = tmp_path / "make"
    make.write_text('#!/bin/sh\necho "$PWD $@"\nexit 3\n')
    make.chmod(0o755)
    done = subprocess.run([ROOT / ".ci" / "run"], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                          env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"})
    assert done.stdout.split() == [str(ROOT), "test"] and done.returncode == 3


# documents -----------------------------------------------------------------------------------------------------------

def options(command):
    """{option: value} of a command line `s3dnerf VERB ...`; its verb and options must exist."""
    words = shlex.split(command, comments=True)
    assert words[0] == "s3dnerf" and words[1] in VERBS, command
    assert all(word.startswith("--") for word in words[2::2]), command
    names = [word[2:].replace("-", "_") for word in words[2::2]]
    assert set(names) <= set(signature(VERBS[words[1]]).parameters), command
    return dict(zip(names, words[3::2]))


def commands(path):
    """The command lines in the code blocks of a document."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", path.read_text().replace("\\\n", " "), re.M | re.S)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_commands_of_the_cards_exist():
    cards = (ROOT / "datasets").rglob("*.md")
    lines = [line for card in cards for line in commands(card) if line.startswith("s3dnerf ")]
    assert len(lines) >= 5
    for line in lines:
        options(line)


def test_data_sets_are_cards_without_code():
    folder = ROOT / "datasets"
    assert not list(folder.rglob("*.py"))
    sets = {path.name for path in folder.iterdir() if path.is_dir()}
    assert {"hdtf", "mead", "person", "synthetic"} <= sets
    for name in sets:
        card = (folder / name / "README.md").read_text()
        assert all(f"**{word}" in card for word in ("What", "Counts", "Licence and consent", "Get")), name
        assert f"]({name}/README.md)" in (folder / "README.md").read_text()


# files that ship -----------------------------------------------------------------------------------------------------

def test_every_asset_is_packaged_and_explained():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["s3dnerf"]
    packaged = {path for pattern in patterns for path in (ROOT / "s3dnerf").glob(pattern) if path.is_file()}
    folders = (ROOT / "s3dnerf", ROOT / "s3dnerf" / "configs")  # a link, which is not followed from above
    assert packaged == {path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert len(list((ROOT / "configs").rglob("*.yaml"))) == sum(folders[1] in path.parents for path in packaged) > 40
    listed = set(re.findall(r"^\| `([^`]+)`", (ASSETS / "ASSETS.md").read_text(), re.M))
    assert {path.name + "/" * path.is_dir() for path in ASSETS.iterdir()} <= listed | {"ASSETS.md"}


def test_demo_photo_is_the_portrait_that_scikit_image_carries():
    photo = np.asarray(Image.open(ASSETS / "demo_photo.jpg").convert("RGB")).astype(float)
    portrait = pytest.importorskip("skimage.data").astronaut()
    assert photo.shape == portrait.shape == (512, 512, 3)
    assert 10 * np.log10(255**2 / ((photo - portrait) ** 2).mean()) > 36


def test_demo_speech_has_words_and_pauses():
    path = ASSETS / "demo_speech.wav"
    assert path.stat().st_size < 250_000
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    assert 4 < len(sound) / 16000 < 8 and 0.5 < np.abs(sound).max() < 0.95
    loud = np.sqrt((sound[:len(sound) // 640 * 640].reshape(-1, 640) ** 2).mean(1)) > 0.01
    runs = [len(run) for run in "".join(".#"[int(is_loud)] for is_loud in loud).strip(".").split("#") if run]
    assert 0.5 < loud.mean() < 0.95
    assert sum(run >= 3 for run in runs) >= 2, "two pauses of 0.12 s or more within the speech"


def test_face_assets():
    face = np.load(ASSETS / "metric_face.npy")
    assert face.dtype == np.float32 and face.shape == (478, 3) and np.isfinite(face).all()
    with np.load(ASSETS / "face_basis.npz") as basis:
        assert basis.files and all(np.isfinite(basis[name]).all() for name in basis.files)
