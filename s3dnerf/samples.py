"""Sound while it is decoded: of an hour too."""
from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import numpy as np

from s3dnerf.errors import InputError

KEPT = 1 << 24
"""bytes of sound that are kept in memory, 4 minutes; more lies in a temporary file"""


class Samples:
    """Samples as they come: in memory, or, where there are many, in a file without a name, so that memory does not grow.

    Args:
        path: of the recording, for messages.

    Raises:
        InputError: where there is no room for them.
    """

    def __init__(self, path: Path):
        self.path, self.file, self.count, self.finite = path, tempfile.SpooledTemporaryFile(KEPT), 0, True

    def add(self, chunk: np.ndarray) -> None:
        """Appends samples [N]."""
        self.finite &= bool(np.isfinite(chunk).all())
        self.count += len(chunk)
        with self._room():
            self.file.write(np.clip(chunk, -1, 1).astype(np.float32).tobytes())

    def array(self) -> np.ndarray:
        """[N] float32 in [-1, 1]; what is changed in it stays in memory. InputError for values that are no numbers."""
        if not self.finite:
            raise InputError(f"{self.path} holds values that are no numbers (NaN or infinite); record or convert it again")
        if self.count * 4 <= KEPT:
            self.file.seek(0)
            return np.frombuffer(bytearray(self.file.read()), np.float32)
        with self._room():
            self.file.flush()
        return np.asarray(np.memmap(self.file, np.float32, "c", shape=(self.count,)))  # the mapping outlives the file

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"cannot keep the sound of {self.path} in {tempfile.gettempdir()} ({error.strerror}); free some "
                             "space, or set TMPDIR to another folder") from None
