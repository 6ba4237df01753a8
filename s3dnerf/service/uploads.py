"""What people send: told by its content, and decoded in a process that may take only so much time and memory.

An upload is written under a name of ours, decoded by a child of a fork server (which has no connection, weights or key of the
service), and deleted. What is used afterwards is what the child wrote: bare pixels (.npy), samples (.npy), an H.264 file of our own
encoding, or numbers (.json).
"""
from __future__ import annotations

import multiprocessing
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import numpy as np

from s3dnerf.cores import own_cores
from s3dnerf.digest import file_digest
from s3dnerf.service.settings import Refusal, Settings

IMAGES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
SOUNDS = {"wav": "WAV", "mp3": "MP3", "ogg": "Ogg", "flac": "FLAC", "mov": "MP4/M4A", "matroska": "WebM/Matroska", "aac": "AAC"}
"""demuxers of libav by name; nothing is left to its guess, which also knows play lists"""
VIDEOS = ("mov", "matroska")
FOREIGN = (b"PK\x03\x04", b"PK\x05\x06", b"%PDF-", b"<script", b"<html", b"<!DOCTYPE", b"<?php", b"\x7fELF", b"#!/bin/", b"#!/usr/",
           b"Rar!\x1a")
"""beginnings of what has no business behind the end of a picture"""
VIDEO_TIMES = 4
"""how much longer a recording with a picture may take, which is encoded again, too"""
AT_ONCE = max(1, min(4, own_cores() // 2))
"""uploads that are decoded at the same time"""


@dataclass(frozen=True)
class Decoded:
    """What came out of an upload."""

    path: Path
    """of the file that was written"""
    digest: str
    """SHA-256 of what was sent, hexadecimal"""
    size: tuple[int, ...]
    """height and width of a picture; samples of sound; frames, height and width of a video; () of a camera path"""


def image_type(head: bytes) -> Optional[str]:
    """JPEG, PNG or WEBP by the first bytes of a file; None for anything else."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    return "WEBP" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def sound_type(head: bytes) -> Optional[str]:
    """The demuxer for a recording by the first bytes of its file; None for what is none that is taken."""
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "wav"
    if head[4:8] == b"ftyp":
        return "mov"
    for mark, kind in ((b"OggS", "ogg"), (b"fLaC", "flac"), (b"\x1aE\xdf\xa3", "matroska"), (b"ID3", "mp3")):
        if head.startswith(mark):
            return kind
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"
    return "mp3" if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06 else None


def expected(kind: str) -> str:
    """The types that are taken, for a message."""
    return {"image": "JPEG, PNG or WebP", "sound": "WAV, MP3, Ogg, FLAC, MP4/M4A, WebM or AAC", "video": "MP4 or WebM",
            "path": "a camera path (JSON)"}[kind]


class Sandbox:
    """Decodes uploads; blocks, and may be called from several threads.

    Args:
        settings: has the limits.
    """

    def __init__(self, settings: Settings):
        self.settings, self.slots = settings, threading.BoundedSemaphore(AT_ONCE)
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["s3dnerf.service.decoding"])

    def decode(self, kind: str, name: str, upload: Path, target: Path) -> Decoded:
        """An upload as an "image", a "sound", a "video" or a "path", into `target`; the upload is deleted in any case.

        Args:
            kind: what it should be.
            name: what people call it, for messages.
            upload: the file as it was sent.
            target: the file to write; nothing is left there if anything goes wrong.

        Raises:
            Refusal: in one line, for what is of another type, damaged, or larger than the limits.
        """
        try:
            with self.slots:
                return Decoded(target, file_digest(upload), self._run(kind, name, upload, target))
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        finally:
            upload.unlink(missing_ok=True)

    def _run(self, kind: str, name: str, upload: Path, target: Path) -> tuple[int, ...]:
        from s3dnerf.service.decoding import child

        seconds = self.settings.decode_seconds * (VIDEO_TIMES if kind == "video" else 1)
        told = replace(self.settings, decode_seconds=seconds, api_key=None, certificate=None, key=None)
        ours, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(target=child, args=(theirs, kind, name, str(upload), str(target), told),
                                       daemon=True)
        process.start()
        theirs.close()
        try:
            if not ours.poll(2 * seconds):
                raise Refusal(422, "damaged", f"the {name} took longer than {seconds} s to decode; convert it to a plain "
                                              f"{'JPEG' if kind == 'image' else 'WAV or MP4'}")
            answer = ours.recv()
        except (EOFError, OSError):
            raise Refusal(422, "damaged", f"the {name} could not be decoded within {seconds} s and "
                                          f"{self.settings.decode_bytes >> 20} MB; it is damaged or no real file of its type") \
                from None
        finally:
            process.kill()
            process.join()
            process.close()
            ours.close()
        if isinstance(answer, Refusal):
            raise answer
        return answer


def load(decoded: Decoded) -> np.ndarray:
    """The pixels [H, W, 3] uint8 or samples [N] float32 of a decoded upload."""
    return np.load(decoded.path, allow_pickle=False)
