"""The child process that decodes one upload and ends; imports no more than it needs, because a fork server holds it ready."""
from __future__ import annotations

import io
import math
import resource
from pathlib import Path

import av
import numpy as np
from PIL import Image

from s3dnerf.errors import InputError
from s3dnerf.media import FPS, VideoWriter, read_frames, read_image, read_sound
from s3dnerf.service.settings import Refusal, Settings
from s3dnerf.service.uploads import FOREIGN, IMAGES, VIDEOS, expected, image_type, sound_type

FILE_BYTES = 2 ** 30
"""that a child may write"""
LONG_SIDE = 720
"""of a recording that is followed, pixels"""
TEXT_BYTES = 2 ** 20
"""of a camera path"""
Image.init()
Image.MAX_IMAGE_PIXELS = None  # the limit is ours, told from the header


def child(answers, kind: str, name: str, upload: str, target: str, settings: Settings) -> None:
    """Decodes, and sends the size of what came out, or a Refusal."""
    restrain(settings)
    try:
        answers.send(DECODERS[kind](name, Path(upload), Path(target), settings))
    except Refusal as refusal:
        answers.send(refusal)
    except InputError as error:
        answers.send(Refusal(422, "damaged", str(error).replace(upload, f"the {name}").replace(Path(upload).name, name)))
    except MemoryError:
        answers.send(Refusal(413, "too_large", f"the {name} takes more than {settings.decode_bytes >> 20} MB to decode; "
                                               "shrink it"))
    except Exception as error:  # whatever decoders raise over damaged files
        answers.send(Refusal(422, "damaged", f"the {name} is damaged ({type(error).__name__}); save it again"))


def restrain(settings: Settings) -> None:
    """Bounds time, memory, files and what may be written of this process, for good."""
    try:
        taken = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    except OSError:  # no such file system; what is counted from then is all of it
        taken = 2 ** 31
    limits = {resource.RLIMIT_CPU: settings.decode_seconds, resource.RLIMIT_AS: taken + settings.decode_bytes,
              resource.RLIMIT_FSIZE: FILE_BYTES, resource.RLIMIT_NOFILE: 64, resource.RLIMIT_CORE: 0}
    for which, value in limits.items():
        try:
            resource.setrlimit(which, (value, value))
        except (ValueError, OSError):  # a harder limit is there already
            pass


def decode_image(name: str, upload: Path, target: Path, settings: Settings) -> tuple[int, ...]:
    """Pixels [H, W, 3] uint8, upright; returns H, W."""
    content = upload.read_bytes()
    kind = image_type(content[:16])
    if kind is None:
        raise _wrong(name, "image", content)
    if any(mark in behind(kind, content) for mark in FOREIGN):
        raise Refusal(415, "unsupported_type", f"the {name} holds another file behind its picture; save it again as a plain "
                                               "JPEG or PNG")
    try:
        with Image.open(io.BytesIO(content), formats=[kind]) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError, EOFError):
        raise Refusal(422, "damaged", f"the {name} begins like {kind} and cannot be read; save it again") from None
    if width * height > settings.max_pixels:
        raise Refusal(413, "too_large", f"the {name} has {width} x {height} pixels; expected at most {settings.max_pixels}: "
                                        "shrink it first")
    typed = upload.with_suffix(IMAGES[kind])
    upload.rename(typed)
    try:
        pixels = read_image(typed, settings.max_pixels)
    except InputError as error:
        raise Refusal(422, "damaged", str(error).replace(str(typed), f"the {name}")) from None
    finally:
        typed.rename(upload)
    np.save(target, pixels)
    return pixels.shape[:2]


def behind(kind: str, content: bytes) -> bytes:
    """What a file has after the end of its picture."""
    if kind == "PNG":
        end = content.rfind(b"IEND")
        return content[end + 8:] if end >= 0 else b""
    if kind == "WEBP":
        return content[8 + int.from_bytes(content[4:8], "little"):]
    place = 2  # from segment to segment, over the thumbnail that one of them may hold, to where the picture begins
    while content[place:place + 1] == b"\xff" and content[place + 1:place + 2] not in (b"", b"\xda"):
        place += 1 if content[place + 1] == 0xFF else 2 + int.from_bytes(content[place + 2:place + 4], "big")
    end = content.find(b"\xff\xd9", place)
    return content[end + 2:] if end >= 0 else b""


def decode_sound(name: str, upload: Path, target: Path, settings: Settings) -> tuple[int, ...]:
    """Samples [N] float32 at 16 kHz; returns N."""
    sound = _heard(name, upload, _sound(name, upload, "sound"), settings.max_seconds)
    np.save(target, sound)
    return sound.shape


def _heard(name: str, upload: Path, kind: str, most: float) -> np.ndarray:
    """Samples [N] float32 at 16 kHz of at most so many seconds."""
    try:
        return read_sound(upload, kind=kind, max_seconds=most)
    except InputError as error:
        text = str(error).replace(str(upload), f"the {name}")
        long = "expected at most" in text
        raise Refusal(413 if long else 422, "too_large" if long else "damaged", text) from None


def decode_video(name: str, upload: Path, target: Path, settings: Settings) -> tuple[int, ...]:
    """A recording, encoded anew at 25 fps without more than its picture and sound; returns T, H, W."""
    kind = _sound(name, upload, "video")
    if kind not in VIDEOS:
        raise _wrong(name, "video", upload.read_bytes()[:64])
    with av.open(str(upload), format=kind) as container:
        sounding = bool(container.streams.audio)
        for stream in container.streams.video:
            if stream.width * stream.height > settings.max_pixels:
                raise Refusal(413, "too_large", f"the {name} has {stream.width} x {stream.height} pixels; expected at most "
                                                f"{settings.max_pixels}")
    sound = _heard(name, upload, kind, settings.max_seconds + 1) if sounding else None
    writer, count, size = None, 0, (0, 0)
    for frame in read_frames(upload, kind=kind):
        small = np.asarray(_shrunk(frame))
        writer = writer or VideoWriter(target, small.shape[1], small.shape[0], sound=sound)
        count, size = count + 1, small.shape[:2]
        if count > settings.max_seconds * FPS:
            writer.__exit__(Refusal, None, None)
            raise Refusal(413, "too_large", f"the {name} is too long; expected at most {settings.max_seconds:g} s: cut it")
        writer.write(small)
    writer.__exit__(None, None, None)
    return (count, *size)


def _shrunk(frame: np.ndarray) -> Image.Image:
    image = Image.fromarray(frame)
    factor = LONG_SIDE / max(image.size)
    return image if factor >= 1 else image.resize([max(2, round(side * factor)) for side in image.size])


def decode_path(name: str, upload: Path, target: Path, settings: Settings) -> tuple[int, ...]:
    """A camera path: JSON that is written anew, so that nothing but its numbers stays. What it means is checked later."""
    import json

    content = upload.read_bytes()
    try:
        if len(content) > TEXT_BYTES:
            raise ValueError(f"{len(content)} bytes")
        told = json.loads(content)
        entries = told["keys"] if "keys" in told else told["frames"]
        known = ("time", "yaw", "pitch", "roll", "zoom")
        entries = [{key: _number(value) for key, value in entry.items() if key in known} for entry in entries]
        told = {"keys": entries} if "keys" in told else {"fps": _number(told.get("fps", FPS)), "frames": entries}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Refusal(422, "damaged", f"the {name} is no camera path; expected JSON such as "
                                      '{"keys": [{"time": 0}, {"time": 2, "yaw": 10}]}, at most 1 MB') from None
    target.write_text(json.dumps(told), encoding="utf-8")
    return ()


def _number(value) -> float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError(value)
    return float(value)


def _sound(name: str, upload: Path, wanted: str) -> str:
    with open(upload, "rb") as file:
        head = file.read(64)
    kind = sound_type(head)
    if kind is None:
        raise _wrong(name, wanted, head)
    return kind


def _wrong(name: str, wanted: str, content: bytes) -> Refusal:
    if not content:
        return Refusal(422, "damaged", f"the {name} is empty; expected {expected(wanted)}")
    return Refusal(415, "unsupported_type", f"the {name} is of an unknown type (it begins with {content[:4].hex(' ')}); expected "
                                            f"{expected(wanted)}")


DECODERS = {"image": decode_image, "sound": decode_sound, "video": decode_video, "path": decode_path}
