"""The import table of ARCHITECTURE.md holds for the code; files and functions stay short."""
import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "s3dnerf"
FILES = sorted(PACKAGE.rglob("*.py"))


def table():
    text = (ROOT / "ARCHITECTURE.md").read_text().split("## Who may import whom")[1]
    rows = re.findall(r"^\| ([a-z_, ]+) \|([a-z_, ]*)\|$", text, re.M)
    allowed = {}
    for modules, imports in rows[0:]:
        for module in modules.split(","):
            allowed[module.strip()] = {name.strip() for name in imports.split(",") if name.strip()}
    allowed.pop("module", None)
    return allowed


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("s3dnerf"):
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("s3dnerf."))


def home(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", [p for p in FILES if home(p) not in ("__init__", "__main__", "cli", "commands")],
                         ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_keep_to_the_table(path):
    allowed = table()
    assert home(path) in allowed, f"{home(path)} is not in the table of ARCHITECTURE.md"
    assert set(imports(path)) <= allowed[home(path)]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_are_short_and_documented(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 40, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_texts_are_utf_8_whatever_the_machine_s_own_code_is(path):
    for call in (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)):
        plain = isinstance(call.func, ast.Name) and call.func.id == "open"
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        mode = [word.value for word in call.args[plain:plain + 1] if isinstance(word, ast.Constant)]
        of_path = method == "open" and ast.unparse(call.func.value) not in ("wave", "av", "Image", "tarfile", "slit", "os")
        opens = (plain or of_path) and "b" not in "".join(mode)
        if opens or method in ("read_text", "write_text"):
            assert "encoding" in {word.arg for word in call.keywords}, f"{path}:{call.lineno} names no encoding"


def test_using_the_model_loads_no_lightning():
    code = "import sys, s3dnerf.inference; sys.exit('pytorch_lightning' in sys.modules or 'mediapipe' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_datasets_folder_is_no_package():
    assert not list((ROOT / "datasets").rglob("__init__.py")) and not list((ROOT / "datasets").rglob("*.py"))
