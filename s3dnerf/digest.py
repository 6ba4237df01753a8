"""What identifies a file: the hash of its content."""
from __future__ import annotations

import hashlib
from os import PathLike
from typing import Union


def file_digest(path: Union[str, PathLike]) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits; read in blocks, so that it may be large."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()
