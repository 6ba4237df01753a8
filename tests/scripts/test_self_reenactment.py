"""Videos that are measured are of the weights and options that were asked for, not of an earlier run's."""
import subprocess
import sys
from pathlib import Path

from s3dnerf.models.hub import save_model

ROOT = Path(__file__).parents[2]


def test_a_folder_of_other_options_is_not_taken_for_these(tiny_head, tmp_path):
    save_model(tiny_head, tmp_path / "weights")
    (tmp_path / "list.tsv").write_text("file\tsplit\tsource\nno.mp4\tval\tx\n")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "no.mp4").write_bytes(b"")

    def run(*words):
        return subprocess.run([sys.executable, "scripts/self_reenactment.py", str(tmp_path / "list.tsv"), str(tmp_path),
                               str(tmp_path / "made"), "--weights", str(tmp_path / "weights"), *words], cwd=ROOT,
                              capture_output=True, text=True)

    first = run()
    assert first.returncode == 0 and "1 of 1 were made before, and stay" in first.stderr
    other = run("--mouth-gain", "1.5")
    assert other.returncode == 1 and "other weights or options" in other.stderr.splitlines()[-1]
    assert "no.mp4" in run("--truth", str(tmp_path / "truth")).stderr  # recordings that are not there yet are made
