"""Jobs at once are all made, and what they take is told per second of video."""
import re
import sys

from s3dnerf.models.hub import save_model


def test_it_tells_what_a_second_of_video_takes_for_each_number_of_jobs(load_script, tiny_head, tmp_path, monkeypatch, capsys):
    save_model(tiny_head, tmp_path / "weights")
    monkeypatch.setattr(sys, "argv", ["concurrent_jobs.py", "--weights", str(tmp_path / "weights"), "--jobs", "1", "3",
                                      "--seconds", "0.2", "--rounds", "1"])
    load_script("concurrent_jobs").main()
    lines = capsys.readouterr().out.splitlines()
    found = [re.fullmatch(r"(\d) at once: ([\d.]+) frames per second, ([\d.]+) s of the processor for a second of video", line)
             for line in lines]
    assert [line[1] for line in found] == ["1", "3"] and all(float(line[2]) > 0 and float(line[3]) >= 0 for line in found)
