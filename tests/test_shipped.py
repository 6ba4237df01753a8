"""Files of configs/ are found without the project's folder."""
from pathlib import Path

import s3dnerf
from s3dnerf.shipped import shipped, with_shipped

CONFIGS = Path(s3dnerf.__file__).parent / "configs"


def test_what_is_there_is_taken_and_else_what_was_installed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped("configs/one_shot.yaml") == str(CONFIGS / "one_shot.yaml")
    assert shipped("configs/other.yaml") == "configs/other.yaml" and shipped("one_shot.yaml") == "one_shot.yaml"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "one_shot.yaml").write_text("seed_everything: 1")
    assert shipped("configs/one_shot.yaml") == "configs/one_shot.yaml"


def test_words_of_a_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_shipped(["fit", "--config", "configs/motion.yaml", "--config=configs/overlays/tiny.yaml", "--data.train=data/a=b"]) == [
        "fit", "--config", str(CONFIGS / "motion.yaml"), f"--config={CONFIGS / 'overlays' / 'tiny.yaml'}", "--data.train=data/a=b"]
