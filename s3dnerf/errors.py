"""Errors that a user can do something about.

Every message is one line: what was found, what was expected, and what helps. The command line prints it on stderr
and ends with status 2; Python callers catch `S3DNeRFError`.
"""
from __future__ import annotations

import re


class S3DNeRFError(Exception):
    """Base of every error that this package raises on purpose."""

    def __str__(self) -> str:
        # PyTorch puts a traceback before what a process of a loader raised
        return re.sub(r"\ACaught .*\ns3dnerf\.errors\.\w+: ", "", super().__str__(), flags=re.DOTALL).rstrip("\n")


class InputError(S3DNeRFError):
    """A photo, recording, video or option that cannot be used as it is."""


class DatasetError(S3DNeRFError):
    """Shards or a manifest that are missing, empty or of another format."""


class CheckpointError(S3DNeRFError):
    """Weights that are unknown, incomplete or of another version."""


class TrainingError(S3DNeRFError):
    """Training that cannot go on."""


class DependencyError(S3DNeRFError):
    """An optional package or network that is not installed."""
