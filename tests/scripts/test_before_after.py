"""The table of two states: what is counted as which, and how many times less."""
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("before_after")


def test_cores_that_shared_a_frame_and_cores_that_had_their_own_are_told_alike(script):
    before = script.seconds_of({"seconds": {"motion": 0.5, "render": 7.5, "composite": 2.0, "load": 1.0}}, 20.0, 50.0, 4)
    after = script.seconds_of({"seconds": {"ray march": 8.0, "render": 8.0, "load": 1.0, "tracking": 0.5}, "workers": 4,
                               "first_frame_seconds": 2.5}, 8.0, 20.0, 4)
    assert (before["rendering, clock"], before["rendering, cores"]) == (10.0, 40.0)
    assert (after["rendering, clock"], after["rendering, cores"]) == (4.0, 16.0)
    lines = {line.split(" | ")[0][2:]: line for line in script.table({"before": [before], "fast": [after]}).splitlines()}
    assert lines["rendering, clock"].endswith("| 10.00 (1.0 x) | 4.00 (2.5 x) |")
    assert lines["command, processor"].endswith("20.00 (2.5 x) |") and lines["tracking"].endswith("| 0.00 | 0.50 |")
    assert lines["first frame"].endswith("| nan | 2.50 |")


def test_the_speech_lasts_as_long_as_is_asked(script, tmp_path):
    from s3dnerf.media import read_sound

    script.speech_of(0.8, tmp_path / "speech.wav")
    assert len(read_sound(tmp_path / "speech.wav")) == pytest.approx(0.8 * 16000, abs=2)


def test_a_state_that_keeps_encoded_photos_is_told_not_to(script, tmp_path, monkeypatch):
    told = []

    def noted(command, **_):
        told.append(command)
        (tmp_path / "said.json").write_text('{"seconds": {}}')

    monkeypatch.setattr(script.subprocess, "run", noted)
    for state in (tmp_path, Path(__file__).parents[2]):
        script.run(state, (), tmp_path / "speech.wav", tmp_path, 1)
    assert "--identity-cache" not in told[0] and told[1][-2:] == ["--identity-cache", "off"]
