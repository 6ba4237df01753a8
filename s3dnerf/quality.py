"""How closely a photo's head is looked at: as the weights were trained, or as closely as there is time for."""
from __future__ import annotations

import time
from dataclasses import replace
from typing import Callable, Optional

import numpy as np
import torch

from s3dnerf.errors import InputError
from s3dnerf.media import FPS
from s3dnerf.models.one_shot import S3DNeRF
from s3dnerf.types import Appearance

SAMPLES: dict[str, Optional[int]] = {"best": None, "balanced": 8, "fast": 4}
"""Points per ray that the field is asked about (`S3DNeRF.with_occupancy`); None looks everywhere, twice."""
QUALITIES = (*SAMPLES, "auto")
SPARE = 1.2
"""How many times faster than real time a quality must be to be said to keep up with it, because machines have more to do."""


def check_quality(quality: str) -> str:
    """InputError for what is no quality."""
    if quality not in QUALITIES:
        raise InputError(f"found quality {quality!r}; expected {', '.join(QUALITIES)}")
    return quality


def with_quality(model: S3DNeRF, appearance: Appearance, quality: str) -> Appearance:
    """An identity, ready to be rendered in one of `SAMPLES`."""
    samples = SAMPLES[quality]
    if samples is None:
        return replace(appearance, occupancy=None)
    return model.with_occupancy(appearance, samples, half=reckons_in_half(appearance.lattice.device))


def reckons_in_half(device: torch.device) -> bool:
    """Whether a processor multiplies numbers in bfloat16 by itself; others would only imitate it, slowly."""
    return device.type == "cuda" or bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def keeping_up(frames: Callable[[str], np.ndarray], workers: int) -> str:
    """The best quality in which `workers` threads keep up with real time, or the fastest; `frames` renders some in a quality, as
    one of the threads does."""
    frames("fast")  # the first of all is slower
    for quality in SAMPLES:
        begin = time.perf_counter()
        count = len(frames(quality))
        if workers * count > SPARE * FPS * (time.perf_counter() - begin):
            return quality
    return quality
