"""What was found, a line each."""
from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How a finding is to be taken."""

    GOOD = "good"
    REPAIRED = "repaired"
    """converted on the way in, nothing to be done"""
    CAREFUL = "careful"
    """it works, but better with what the line says"""
    STOP = "stop"
    """it does not work before the line is followed"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    state: State
    text: str

    def __str__(self) -> str:
        return f"{self.state.value:<9}{self.subject}: {self.text}"


def graded(subject: str, told: str, stop: str = "", careful: str = "") -> Finding:
    """A finding that is good as `told`, unless there is something to stop for or to be careful of."""
    state = State.STOP if stop else State.CAREFUL if careful else State.GOOD
    advice = stop or careful
    return Finding(subject, state, f"{told}; {advice}" if advice else told)
