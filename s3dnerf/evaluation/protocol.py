"""Everything that defines the figures, frozen, with a hash."""
from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

REGIONS = ("", "_face", "_mouth")
"""endings of picture figures: full frame, face box, mouth box"""


@dataclass(frozen=True)
class Protocol:
    """What the figures are measured under. Who changes a value, or what a figure means, raises the version."""

    version: int = 1
    align: Literal["none", "face"] = "none"
    """none: both videos show the same square; face: each frame is brought to the aligned face first"""
    fps: int = 25
    """both videos are read at this rate, by time stamps"""
    aligned_size: int = 256
    """side of the aligned face, pixels"""
    face_box: float = 1.1
    """side of the face box, in the larger side of the box around the truth's 68 landmarks"""
    mouth_box: float = 1.0
    """side of the mouth box, in outer eye-corner distances"""
    ssim_window: int = 7
    """side of the uniform window of `ssim`, samples' covariance, as scikit-image has it"""
    ssim_gaussian_sigma: float = 1.5
    """standard deviation of the window (11 x 11) of `ssim_gaussian`"""
    lpips_network: str = "alex"
    lpips_least: int = 64
    """boxes with a shorter side are enlarged to it"""
    landmark_size: int = 256
    """F-LMD and M-LMD are in pixels of a frame whose shorter side is this"""
    closed_eye: float = 0.5
    """a blink goes below this share of the clip's median eye opening"""
    sync_shift: int = 15
    """frames, either way"""
    sync_least: int = 100
    """frames below which SyncNet's own pipeline drops a track; such clips are told"""
    sync_scale: float = 0.4
    """margin of SyncNet's crop, in sides of the face box"""
    judge_piece: int = 125
    """frames that the judging expert looks at as one"""
    fid_least: int = 2048
    """frames per side below which FID says little"""
    kid_subset: int = 100
    """frames of a subset of KID (all where there are fewer), 100 subsets"""
    bootstrap: int = 2000
    """resamples of the clips"""
    seed: int = 0

    @property
    def hash(self) -> str:
        """12 hex digits of the SHA-256 of all values."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def as_dict(self) -> dict:
        """As the report has it."""
        settings = asdict(self)
        return {"version": settings.pop("version"), "hash": self.hash, "settings": settings}
