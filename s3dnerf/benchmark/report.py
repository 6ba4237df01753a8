"""One report for whatever is measured."""
from __future__ import annotations

from typing import Optional, Sequence

from s3dnerf.benchmark import speaking
from s3dnerf.errors import InputError
from s3dnerf.media import MIN_SECONDS


def run(weights: str, photo: Optional[str], speech: Optional[str], seconds: float, quality: str, frame: str, device: str,
        training: Optional[Sequence[str]], steps: int) -> tuple[dict, str]:
    """Plain values, and a table of them; see `commands.benchmark`."""
    if training:
        from s3dnerf.benchmark import training as steps_of

        report = steps_of.measure(training, steps)
        return report, steps_of.table(report)
    if not MIN_SECONDS <= seconds <= 3600:
        raise InputError(f"found --seconds {seconds:g}; expected {MIN_SECONDS} to 3600")
    report = speaking.measure(weights, photo, speech, seconds, quality, frame, device)
    return report, speaking.table(report)
