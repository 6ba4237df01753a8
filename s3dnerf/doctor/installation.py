"""Looks at the installation: Python, libraries, device, codecs, weights, optional extras, room on the disk."""
from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.util import find_spec

from s3dnerf.doctor.finding import Finding, State, graded
from s3dnerf.errors import S3DNeRFError
from s3dnerf.media import read_image

PYTHONS = (3, 10), (3, 12)
LEAST_TORCH = (2, 6)
MEDIAPIPE = "0.10.21"
ENCODERS, DECODERS = ("libx264", "aac"), ("h264", "hevc", "vp9", "av1", "mpeg4", "aac", "mp3", "flac", "opus", "vorbis", "pcm_s16le")
EXTRAS = {"serve": ("fastapi", "uvicorn"), "ray": ("ray",), "download": ("yt_dlp",), "c2pa": ("c2pa",)}
"""extra -> modules that it brings"""
LEAST_DISK, GOOD_DISK = 0.2, 2.0
"""gigabytes free where the videos go"""


def examine_installation() -> list[Finding]:
    """What there is to say of what is installed; every check is run, whatever the others say."""
    checks = {"python": python, "torch": torch_and_device, "libraries": libraries, "codecs": codecs, "tracking": tracking,
              "weights": weights, "extras": extras, "disk": disk}
    findings = []
    for subject, check in checks.items():
        try:
            findings.append(check())
        except (ImportError, OSError, S3DNeRFError) as error:
            findings.append(Finding(subject, State.STOP, f"{' '.join(str(error).split())}; run `make setup`, or install again as README "
                                    "says"))
    return findings


def python() -> Finding:
    """The interpreter's version."""
    found, (low, high) = sys.version_info[:2], PYTHONS
    wrong = "" if low <= found <= high else f"expected {low[0]}.{low[1]} to {high[0]}.{high[1]}: make an environment with one of them"
    return graded("python", ".".join(map(str, sys.version_info[:3])), wrong)


def torch_and_device() -> Finding:
    """PyTorch's version and what it computes on."""
    import torch

    old = tuple(int(part) for part in torch.__version__.split(".")[:2]) < LEAST_TORCH
    wrong = f"expected {LEAST_TORCH[0]}.{LEAST_TORCH[1]} or later: install it again" if old else ""
    if torch.cuda.is_available():
        device = f"CUDA device {torch.cuda.get_device_name()}"
    else:
        device = f"no CUDA device, {torch.get_num_threads()} CPU threads: see `s3dnerf benchmark`"
    return graded("torch", f"{torch.__version__}, {device}", wrong)


def libraries() -> Finding:
    """Versions of what reads faces, pictures and sound."""
    import cv2  # noqa: F401
    import kornia  # noqa: F401
    import safetensors  # noqa: F401

    found = {}
    for name in ("mediapipe", "av", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            return Finding("libraries", State.STOP, f"no {name}; install again as README says")
    other = found["mediapipe"] != MEDIAPIPE
    advice = f"the face tracking was measured with mediapipe {MEDIAPIPE}: run `pip install mediapipe=={MEDIAPIPE}`" if other else ""
    return graded("libraries", ", ".join(f"{name} {number}" for name, number in found.items()), careful=advice)


def codecs() -> Finding:
    """Whether videos can be written, and the usual ones read."""
    import av
    from av.codec import Codec

    def has(name: str, mode: str) -> bool:
        try:
            return bool(Codec(name, mode))
        except av.FFmpegError:
            return False
        except ValueError:  # what some versions raise for an unknown name
            return False

    unwritten = [name for name in ENCODERS if not has(name, "w")]
    unread = [name for name in DECODERS if not has(name, "r")]
    wrong = f"this PyAV cannot write {', '.join(unwritten)}: install PyAV from a wheel (`pip install --only-binary :all: av`)"
    return graded("codecs", "H.264 and AAC out; " + f"{len(DECODERS) - len(unread)} of {len(DECODERS)} usual ones in",
                  wrong if unwritten else "", f"{', '.join(unread)} cannot be read: convert such files first" if unread else "")


def tracking() -> Finding:
    """Whether the face tracker finds the face of the photo that ships."""
    from s3dnerf.data.detection import FaceDetector

    with FaceDetector(still=True) as detector:
        found = len(detector.faces(read_image(str(files("s3dnerf") / "assets" / "demo_photo.jpg"))))
    return graded("tracking", f"{found} face found in the photo that ships", "" if found == 1 else "expected 1: install mediapipe again")


def weights() -> Finding:
    """Whether the default weights load."""
    from s3dnerf.models.hub import DEFAULT, available_models, load_model

    count = sum(parameter.numel() for parameter in load_model(DEFAULT).parameters())
    return graded("weights", f"{DEFAULT} loads, {count / 1e6:.1f} million parameters; installed: {', '.join(available_models())}")


def extras() -> Finding:
    """Which optional parts are there; none of them is needed to speak."""
    there = [name for name, modules in EXTRAS.items() if all(find_spec(module) for module in modules)]
    rest = [f"`pip install 's3dnerf[{name}]'`" for name in EXTRAS if name not in there]
    told = ", ".join(there) or "none"
    return Finding("extras", State.GOOD, f"{told}; where wanted: {', '.join(rest)}" if rest else told)


def disk(folder: str = ".") -> Finding:
    """Room where the videos go."""
    free = shutil.disk_usage(folder).free / 1e9
    full = "free some space" if free < LEAST_DISK else ""
    return graded("disk", f"{free:.1f} GB free in {os.path.abspath(folder)}", full,
                  "little room for long videos" if free < GOOD_DISK else "")
