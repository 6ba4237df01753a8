"""What is said about a long task, when, and where to."""
import io
import re
from types import SimpleNamespace

import pytest

from s3dnerf import progress
from s3dnerf.progress import Progress


class Stream(io.StringIO):
    """A terminal, or a file."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand; it starts late, as after days without a restart."""
    now = [1e6]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))  # not that of other threads
    return now


def counted(clock, stream, total, step, **options):
    task = Progress("counting", total, "sheep", stream=stream, **options)
    for _ in range(total):
        clock[0] += step
        task.advance()
    task.finish()
    return stream.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_done_within_two_seconds_is_not_talked_about(clock, terminal):
    assert counted(clock, Stream(terminal), 19, 0.1) == ""
    assert counted(clock, Stream(terminal), 0, 0.1) == ""


def test_a_file_gets_a_plain_line_every_ten_seconds(clock):
    text = counted(clock, Stream(False), 100, 0.5)
    lines = text.splitlines()
    assert "\r" not in text and 3 <= len(lines) <= 5
    done = [int(re.search(r"(\d+)/100 sheep", line)[1]) for line in lines]
    assert all(after - before >= 20 for before, after in zip(done, done[1:]))  # two a second


def test_a_terminal_gets_one_line_that_is_rewritten_and_ended(clock):
    text = counted(clock, Stream(True), 50, 0.1)
    assert text.count("\n") == 1 and text.endswith("\n") and text.startswith("\r")
    lines = text[1:-1].split("\r")
    assert 10 <= len(lines) <= 17  # three seconds, five times a second
    assert len({len(line) for line in lines}) == 1  # a shorter line wipes out a longer one
    assert lines[-1].startswith("counting: 50/50 sheep") and "0 s left" in lines[-1]


def test_rate_and_time_left_are_true(clock):
    stream = Stream(False)
    task = Progress("counting", 100, "sheep", stream=stream)
    task.advance()
    clock[0] += 5
    task.advance(24)
    assert stream.getvalue() == "counting: 25/100 sheep, 5.0 per second, 15 s left\n"


def test_the_first_of_many_that_come_together_tells_no_rate(clock):
    """Sixteen frames of four threads come after three seconds, and sixteen more every second."""
    stream = Stream(False)
    task = Progress("rendering", 160, "frames", stream=stream)
    clock[0] += 2
    for _ in range(10):
        clock[0] += 1
        for _ in range(16):
            task.advance()
    left = [int(re.search(r"(\d+) s left", line)[1]) for line in stream.getvalue().splitlines()]
    assert len(left) == 1 and 5 <= left[0] <= 15  # it was seven; with the start in the rate twice that, not the 477 of the first alone


def test_the_quiet_time_is_an_argument(clock):
    assert counted(clock, Stream(False), 2, 1.0, quiet=0.5).startswith("counting: 2/2")
    assert counted(clock, Stream(False), 2, 30.0, quiet=60) == ""


def test_it_speaks_on_stderr(clock, capsys):
    task = Progress("counting", 2, "sheep")
    task.advance()
    clock[0] += 3
    task.advance()
    task.finish()
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("counting: 2/2 sheep")
