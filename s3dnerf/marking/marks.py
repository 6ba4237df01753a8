"""What a generated video is marked with, and where it is from: the records that users and callers set."""
from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Optional, Union

import numpy as np

import s3dnerf
from s3dnerf.digest import file_digest
from s3dnerf.errors import InputError
from s3dnerf.media import PathLike, check_file

DEFAULT_LABEL = "AI-generated"
LONGEST_LABEL, LONGEST_CONSENT = 60, 2000
"""characters"""


@dataclass(frozen=True)
class Marks:
    """The marks of a generated video; as it stands: a watermark, metadata, and a manifest where the extra is installed.

    InputError for a label or a statement that is too long or empty, and for a certificate without a key or the other way round.
    """

    label: Union[bool, str] = False
    """text drawn in a corner of the picture; True is `DEFAULT_LABEL`, False draws none"""
    consent: Optional[str] = None
    """statement of the consent of the person shown, kept in metadata and manifest"""
    time: Optional[str] = None
    """when the video was made, ISO 8601; None says nothing, so that the same inputs give the same video"""
    manifest: Optional[bool] = None
    """a C2PA manifest: None where the extra `c2pa` is installed, True in any case (or DependencyError), False never"""
    certificate: Optional[PathLike] = None
    """PEM chain that signs the manifest, signer first; None is a development certificate, made when it is first needed"""
    key: Optional[PathLike] = None
    """PEM private key of the certificate"""

    def __post_init__(self):
        for option, text, longest in (("--label", self.label, LONGEST_LABEL), ("--consent", self.consent, LONGEST_CONSENT)):
            if isinstance(text, str) and (not text.strip() or len(text) > longest or not text.isprintable()):
                raise InputError(f"found a text of {len(text)} characters for {option}; expected one line of 1 to {longest}")
        if (self.certificate is None) != (self.key is None):
            given, missing = ("--key", "--certificate") if self.certificate is None else ("--certificate", "--key")
            raise InputError(f"found {given} alone; give {missing} too")
        if self.certificate is not None:
            check_file(self.certificate, "certificate")
            check_file(self.key, "key")

    @property
    def text(self) -> Optional[str]:
        """The label as it is drawn; None for none."""
        return (DEFAULT_LABEL if self.label is True else self.label) or None


@dataclass(frozen=True)
class Origin:
    """Where a generated video is from."""

    model: str
    """name of the weights"""
    photo: Optional[str] = None
    """SHA-256 of the photo's file, hexadecimal; None where there is no photo (a learned person)"""
    version: str = s3dnerf.__version__
    """of this package"""

    @property
    def tag(self) -> int:
        """32 bits that the watermark carries: the first of the photo's hash, or of the hash of the model's name."""
        return int((self.photo or hashlib.sha256(self.model.encode()).hexdigest())[:8], 16)


def photo_hash(photo: Union[PathLike, np.ndarray]) -> str:
    """SHA-256, hexadecimal, of the file of a photo, or of the bytes of pixels [H, W, 3] uint8."""
    if isinstance(photo, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(photo).tobytes()).hexdigest()
    return file_digest(check_file(photo, "photo"))
