"""The sample format: one tracked clip per sample, many samples per tar file (WebDataset).

| field | content |
|---|---|
| `.mp4` | S x S, 25 fps, H.264 at crf 14, 4:4:4 (lips are red: halving the colour's resolution blurs them), a key frame every 12 |
| `.wav` | 16 kHz mono, 16 bit |
| `.json` | what the clip is and how it was tracked |
| `.cam.npy` | float32 [T, 25]: camera-to-world (16), intrinsics divided by S (9) |
| `.lmk.npy` | float32 [T, 68, 2]: iBUG landmarks, pixels of the crop |
| `.mesh.npy` | float32 [T, 478, 3]: face mesh in the head frame |
| `.mask.npz` | bits [T, 3, S/4, S/4]: head, torso, mouth |
| `.bg.jpg` | S x S: the background without the person |
| `.mel.npy` | float16 [80, M]: log-mel |

Beside the shards lie `index.json` (counts) and `people.npz` (each person's mean face mesh, [478, 3]).
"""
from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Iterable, Optional, Sequence, Union

import numpy as np

from s3dnerf.errors import DatasetError
from s3dnerf.media import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, log_mel

VERSION = 1
KEY_FRAME_EVERY = 12


@dataclass(frozen=True)
class TrackedClip:
    """T frames of a face, cropped to S x S, with everything that tracking found out."""

    key: str
    """name without dots"""
    frames: np.ndarray
    """[T, S, S, 3] uint8 RGB; after partial decoding, the frames that were asked for"""
    speech: np.ndarray
    """[T * 640] float32, 16 kHz"""
    cameras: np.ndarray
    """[T, 25] float32: camera-to-world row by row, then intrinsics divided by S"""
    landmarks: np.ndarray
    """[T, 68, 2] float32, pixels"""
    mesh: np.ndarray
    """[T, 478, 3] float32, head frame"""
    masks: np.ndarray
    """[T, 3, S/4, S/4] bool: head, torso, mouth"""
    background: np.ndarray
    """[S, S, 3] uint8"""
    info: dict
    """dataset, person, clip, and what else is known; becomes the .json"""


def check(clip: TrackedClip) -> None:
    """DatasetError if a clip's arrays do not belong together."""
    count, size = len(clip.cameras), clip.frames.shape[1]
    expected = {"frames": (count, size, size, 3), "speech": (count * SAMPLES_PER_FRAME,), "cameras": (count, 25),
                "landmarks": (count, 68, 2), "mesh": (count, 478, 3), "masks": (count, 3, size // 4, size // 4),
                "background": (size, size, 3)}
    for name, shape in expected.items():
        if getattr(clip, name).shape != shape:
            raise DatasetError(f"clip {clip.key}: found {name} of shape {getattr(clip, name).shape}; expected {shape}")
    if "." in clip.key or "/" in clip.key:
        raise DatasetError(f"clip {clip.key!r}: a key must hold neither dots nor slashes, they split a sample's name")


def encode_sample(clip: TrackedClip) -> dict[str, bytes]:
    """The fields of a sample, by their endings; DatasetError if shapes do not agree."""
    check(clip)
    size = clip.frames.shape[1]
    movie = encode_video(clip.frames)
    info = clip.info | {"fps": FPS, "n_frames": len(clip.cameras), "size": size, "version": VERSION,
                        "hash": hashlib.sha256(movie).hexdigest()[:16]}
    return {"mp4": movie, **encode_sound(clip.speech), "json": encode_info(info),
            "cam.npy": _npy(clip.cameras.astype(np.float32)), "lmk.npy": _npy(clip.landmarks.astype(np.float32)),
            "mesh.npy": _npy(clip.mesh.astype(np.float32)), "mask.npz": _masks(clip.masks),
            "bg.jpg": _jpeg(clip.background)}


def encode_sound(speech: np.ndarray) -> dict[str, bytes]:
    """The fields of a sample that hold its sound [T * 640]."""
    return {"wav": encode_wav(speech), "mel.npy": _npy(log_mel(speech).numpy().astype(np.float16))}


def encode_info(info: dict) -> bytes:
    """The field of a sample that says what it is."""
    return json.dumps(info, sort_keys=True).encode()


def decode_sample(sample: dict[str, bytes], frames: Optional[Sequence[int]] = None) -> TrackedClip:
    """A clip from the fields of a sample; `frames` chooses the images that are decoded, in that order (None: all).

    Everything but the images is whole. What is not in the sample (sound, landmarks, background, and the images where none
    is chosen) comes as an array of size 0.
    """
    info = json.loads(sample["json"])
    count, size = info["n_frames"], info["size"]
    chosen = range(count) if frames is None else frames
    there = lambda field, decode: decode(sample[field]) if field in sample else np.zeros(0, np.float32)
    bits = np.unpackbits(read_array(sample["mask.npz"])["bits"])[: count * 3 * (size // 4) ** 2]
    return TrackedClip(
        key=sample.get("__key__", info.get("clip", "")), frames=decode_video(sample.get("mp4", b""), chosen, size),
        speech=there("wav", decode_wav), cameras=read_array(sample["cam.npy"]), landmarks=there("lmk.npy", read_array),
        mesh=read_array(sample["mesh.npy"]), masks=bits.reshape(count, 3, size // 4, size // 4).astype(bool),
        background=there("bg.jpg", _read_jpeg), info=info)


def encode_video(frames: np.ndarray) -> bytes:
    """An mp4 of frames [T, S, S, 3] whose every twelfth frame is a key frame."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv444p"
        every = str(KEY_FRAME_EVERY)
        stream.options = {"crf": "14", "preset": "fast", "g": every, "keyint_min": every, "sc_threshold": "0", "bf": "0",
                          "threads": "1"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def decode_video(movie: bytes, chosen: Sequence[int], size: int) -> np.ndarray:
    """Frames [N, S, S, 3] of an mp4 by number; decodes from the key frame before each only."""
    import av

    wanted, found, position = sorted(set(chosen)), {}, -1
    if not wanted:
        return np.zeros((0, size, size, 3), np.uint8)
    with av.open(io.BytesIO(movie)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        decoder = container.decode(stream)
        for number in wanted:
            if number // KEY_FRAME_EVERY * KEY_FRAME_EVERY > position + 1:
                container.seek(round(number / FPS / stream.time_base), stream=stream)
                decoder = container.decode(stream)
            while position < number or number not in found:
                frame = next(decoder, None)
                if frame is None:
                    raise DatasetError(f"found {position + 1} frames in a clip; expected frame {number}: prepare it again")
                position = round(float(frame.pts * stream.time_base) * FPS)
                if position == number:
                    found[number] = frame.to_ndarray(format="rgb24")
    return np.stack([found[number] for number in chosen])


@dataclass(frozen=True)
class StoredClip:
    """Where the fields of a clip lie in a shard, and what it is."""

    shard: str
    """path of the tar file"""
    key: str
    """name without dots"""
    fields: dict[str, tuple[int, int]]
    """first byte and length in the tar file, by ending"""
    info: dict
    """content of its .json"""

    def read(self, leave_out: Sequence[str] = ()) -> dict[str, bytes]:
        """The sample that `decode_sample` takes, with the fields that are not left out."""
        with open(self.shard, "rb") as file:
            sample = {ending: _bytes_at(file, *place) for ending, place in self.fields.items() if ending not in leave_out}
        return {"__key__": self.key, **sample}


def stored_clips(paths: Iterable[str]) -> list[StoredClip]:
    """All clips of shards, in order; reads the headers of the tar files and what the clips are, not the clips."""
    clips = []
    for path in paths:
        fields: dict[str, dict[str, tuple[int, int]]] = {}
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, ending = member.name.partition(".")
                fields.setdefault(key, {})[ending] = (member.offset_data, member.size)
        with open(path, "rb") as file:
            clips += [StoredClip(str(path), key, found, json.loads(_bytes_at(file, *found["json"])))
                      for key, found in fields.items()]
    return clips


def _bytes_at(file: BinaryIO, first: int, length: int) -> bytes:
    file.seek(first)
    return file.read(length)


def write_shards(samples: Iterable[tuple[str, dict[str, bytes]]], folder: Path, prefix: str,
                 clips_per_shard: int = 100) -> list[Path]:
    """Writes samples (key, fields), in their order, as `prefix`-000000.tar and so on; each file appears whole."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, tar, count = [], None, 0
    for key, fields in samples:
        if count % clips_per_shard == 0:
            _close(tar, paths)
            paths.append(folder / f"{prefix}-{len(paths):06d}.tar")
            tar = tarfile.open(_part(paths[-1]), "w")
        for ending, content in fields.items():
            member = tarfile.TarInfo(f"{key}.{ending}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        count += 1
    _close(tar, paths)
    for path in set(folder.glob(f"{prefix}-{'[0-9]' * 6}.tar")) - set(paths):  # of an earlier, longer set
        path.unlink()
    return paths


def write_people(sums: dict[str, tuple[np.ndarray, int]], folder: Path) -> None:
    """Writes each person's mean face from the sum of their meshes and the number of frames."""
    means = {person: (total / count).astype(np.float32) for person, (total, count) in sorted(sums.items())}
    buffer = io.BytesIO()
    np.savez(buffer, **means)
    write_whole(folder / "people.npz", buffer.getvalue())


def read_people(folder: Union[str, Path, None]) -> dict[str, np.ndarray]:
    """Each person's mean face mesh [478, 3]; DatasetError if the folder has none."""
    path = Path(folder or "") / "people.npz"
    if not folder or not path.is_file():
        raise DatasetError(f"no people.npz in {folder}; make the shards with `s3dnerf prepare` or `s3dnerf synthesize`")
    with np.load(path) as stored:
        return {person: stored[person] for person in stored.files}


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file that appears at once and complete."""
    _part(path).write_bytes(content)
    os.replace(_part(path), path)


def read_array(value: Union[bytes, np.ndarray]):
    """A NumPy array (or archive) from a field."""
    return np.load(io.BytesIO(value)) if isinstance(value, bytes) else value


def encode_wav(speech: np.ndarray) -> bytes:
    """A 16-bit wav of [N] float32 in [-1, 1]."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(speech, -1, 1) * 32767).round().astype("<i2").tobytes())
    return buffer.getvalue()


def decode_wav(content: bytes) -> np.ndarray:
    """[N] float32 of a 16-bit wav."""
    with wave.open(io.BytesIO(content)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32767


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _close(tar: Optional[tarfile.TarFile], paths: list[Path]) -> None:
    if tar is not None:
        tar.close()
        os.replace(_part(paths[-1]), paths[-1])


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _masks(masks: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, bits=np.packbits(masks))
    return buffer.getvalue()


def _jpeg(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _read_jpeg(content: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
