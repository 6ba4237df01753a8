"""What README.md says works: every block is run, or, where it needs the reader's own data, checked word by word."""
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from s3dnerf.commands import VERBS

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
LINES = [line.split("  #")[0].strip() for kind, block in BLOCKS if kind == "bash" for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A folder with what the README's commands refer to, where they may write."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("s3dnerf", "configs"):
        os.symlink(ROOT / name, folder / name)
    return folder


def run(command, folder):
    environment = dict(os.environ, PYTHONPATH=str(ROOT), PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shutil.which("s3dnerf", path=environment["PATH"]) is None:
        command = command.replace("s3dnerf ", f"{sys.executable} -m s3dnerf ", 1)
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"


def test_the_first_block_is_the_two_commands_and_they_are_targets():
    assert LINES[:2] == ["make demo", "make test"]
    for line in LINES[:2]:
        subprocess.run(shlex.split(line) + ["-n"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("kind, block", [(kind, block) for kind, block in BLOCKS if kind in ("bash", "python")][1:],
                         ids=lambda value: value.splitlines()[0][:40])
def test_blocks_run(kind, block, copy):
    if kind == "python":
        (copy / "block.py").write_text(block)
        run(f"{shlex.quote(sys.executable)} block.py", copy)
    else:
        for line in block.splitlines():
            run(line, copy)
    if "out.mp4" in block:
        assert (copy / "out.mp4").stat().st_size > 10_000


def test_other_blocks_name_verbs_options_and_files_that_exist():
    import inspect

    for kind, block in BLOCKS:
        for line in block.splitlines() if kind == "text" else []:
            words = shlex.split(line, comments=True)
            assert words[0] == "s3dnerf" and words[1] in {*VERBS, "fit"}
            for word in words[2:]:
                if word.startswith("configs/"):
                    assert (ROOT / word).is_file()
                if word.startswith("--") and words[1] in VERBS:
                    assert word[2:].replace("-", "_") in inspect.signature(VERBS[words[1]]).parameters


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
