"""Form fields to options, checked before anything is computed; no field is ever taken for a path."""
from __future__ import annotations

import re
from typing import Iterable, Mapping, Optional, Sequence

from s3dnerf.controls import Controls
from s3dnerf.errors import InputError
from s3dnerf.service.messages import Options
from s3dnerf.service.settings import Refusal

CONSENT = 10, 500
"""characters"""
TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off", "")


def known(fields: Iterable[str], names: Sequence[str]) -> None:
    """Refusal for a field whose name is none of these: a slip of the pen would make another video than was meant."""
    unknown = sorted(set(fields) - set(names))
    if unknown:
        raise Refusal(422, "invalid_option", f"found {unknown[0][:40]!r}; expected only {', '.join(names)}")


def options(fields: Mapping[str, object], frame: Optional[str] = None) -> Options:
    """The options of a form, or of a session's first message. Refusal for one that cannot be used."""
    value = lambda name, default="": default if fields.get(name) in (None, "") else str(fields[name]).strip()
    pose, background = value("pose", "natural"), value("background", "keep")
    if pose not in ("natural", "still"):
        raise Refusal(422, "invalid_option", f"found pose {pose[:40]!r}; expected natural or still, or a file as pose_file")
    if background != "keep" and not re.fullmatch("#[0-9a-fA-F]{6}", background):
        raise Refusal(422, "invalid_option", f"found background {background[:40]!r}; expected keep or a colour such as #00ff00, or "
                                             "an image as background_file")
    gain = None if value("mouth_gain") in ("", "None") else number("mouth_gain", value("mouth_gain"))
    camera = tuple(number("camera", part) for part in value("camera", "0,0").split(","))
    seed = number("seed", value("seed", "0"))
    made = Options(value("frame") or frame, pose, gain, camera, value("eyes", "keep"), background,
                   number("smooth", value("smooth", "0")), int(seed))
    if seed != made.seed or seed >= 2 ** 63:
        raise Refusal(422, "invalid_option", f"found seed {seed:g}; expected a whole number, 0 or more")
    try:
        Controls(made.frame, made.pose, None, made.mouth_gain, made.camera, made.eyes, made.background, made.smooth, made.seed)
    except InputError as error:
        raise Refusal(422, "invalid_option", str(error)) from None
    return made


def number(name: str, text: str) -> float:
    """A finite number. Refusal for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise Refusal(422, "invalid_option", f"found {name} {text[:40]!r}; expected a number")
    return value


def flag(fields: Mapping[str, object], name: str) -> bool:
    """A field that is true or false; false where it is left out."""
    text = str(fields.get(name) or "").strip().lower()
    if text not in TRUE + FALSE:
        raise Refusal(422, "invalid_option", f"found {name} {text[:40]!r}; expected true or false")
    return text in TRUE


def consent(fields: Mapping[str, object]) -> str:
    """The statement of consent. Refusal where it is missing, or is none."""
    text = " ".join(str(fields.get("consent") or "").split())
    if not CONSENT[0] <= len(text) <= CONSENT[1] or not text.isprintable():
        found = f"a consent of {len(text)} characters" if text else "no consent"
        raise Refusal(422, "consent_missing", f"found {found}; expected a statement of {CONSENT[0]} to {CONSENT[1]} characters, such "
                                              "as \"I am the person shown\" or \"The person shown has agreed\"")
    return text
