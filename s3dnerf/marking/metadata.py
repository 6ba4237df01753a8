"""Metadata that says, to machines, that a video is synthetic: a comment in any container, and XMP in mp4 and mov.

The comment is a sentence for people and JSON for programs. The XMP packet stands in a `uuid` box (ISO 16684-3) and has IPTC's
digital source type, which photo and video services look for.
"""
from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Iterator, Optional
from uuid import UUID
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from s3dnerf.marking.marks import Marks, Origin

SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
SENTENCE = "AI-generated video: a synthetic person, made from a photo and speech."
XMP_BOX = UUID("be7acfcb-97a9-42e8-9c71-999491e3afac").bytes
OURS, IPTC, XMP = "https://s3dnerf.org/ns/1.0/", "http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "http://ns.adobe.com/xap/1.0/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
BOXED = (".mp4", ".m4v", ".mov")
"""containers made of boxes"""
LARGEST_PACKET = 1_000_000
"""bytes of a box that are looked at"""


def record(origin: Origin, marks: Marks) -> dict[str, str]:
    """What metadata and manifest tell; nothing that is not known."""
    told = {"generator": "s3dnerf", "version": origin.version, "model": origin.model, "photo_sha256": origin.photo,
            "consent": marks.consent, "time": marks.time}
    return {"digitalSourceType": SYNTHETIC, **{name: value for name, value in told.items() if value is not None}}


def comment(told: dict[str, str]) -> str:
    """The container's comment."""
    return f"{SENTENCE} {json.dumps(told, ensure_ascii=False, sort_keys=True)}"


def xmp(told: dict[str, str]) -> bytes:
    """An XMP packet of the record."""
    own = " ".join(f"s3dnerf:{name}={quoteattr(value)}" for name, value in told.items()
                   if name not in ("digitalSourceType", "generator", "time"))
    made = f" xmp:CreateDate={quoteattr(told['time'])}" if "time" in told else ""
    tool = quoteattr(f"{told['generator']} {told['version']}")
    return (f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">'
            f'<rdf:Description rdf:about="" xmlns:xmp="{XMP}" xmlns:Iptc4xmpExt="{IPTC}" xmlns:s3dnerf="{OURS}" '
            f'xmp:CreatorTool={tool}{made} Iptc4xmpExt:DigitalSourceType="{told["digitalSourceType"]}" {own}/>'
            '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>').encode()


def box(told: dict[str, str]) -> bytes:
    """The XMP packet as a box, which may stand behind any other box of a file or stream."""
    packet = xmp(told)
    return struct.pack(">I4s16s", 24 + len(packet), b"uuid", XMP_BOX) + packet


def read_comment(path: Path) -> Optional[dict[str, str]]:
    """The record in the comment of a file; None where there is none of ours."""
    import av

    with av.open(str(path)) as container:
        text = {name.lower(): value for name, value in container.metadata.items()}.get("comment", "")
    try:
        told = json.loads(text[text.index("{"):])
    except ValueError:
        return None
    return told if isinstance(told, dict) and told.get("digitalSourceType") == SYNTHETIC else None


def read_xmp(path: Path) -> Optional[dict[str, str]]:
    """What the XMP packet of a file says, with IPTC's digital source type; None where there is none."""
    for packet in _packets(path):
        try:
            root = ElementTree.fromstring(packet.decode("utf-8", "replace").strip("\x00 \n\ufeff"))
        except ElementTree.ParseError:
            continue
        told = {}
        for node in root.iter(f"{{{RDF}}}Description"):
            told |= {name.split("}")[-1]: value for name, value in node.attrib.items()}
            told |= {child.tag.split("}")[-1]: (child.text or "").strip() for child in node if not len(child)}
        if "DigitalSourceType" in told:
            return {"digitalSourceType": told.pop("DigitalSourceType"), **told}
    return None


def _packets(path: Path) -> Iterator[bytes]:
    """The XMP packets among the outermost boxes of a file."""
    length = os.path.getsize(path)
    with path.open("rb") as file:
        begin = 0
        while begin + 8 <= length:
            file.seek(begin)
            size, kind = struct.unpack(">I4s", file.read(8))
            if size == 1:
                size = struct.unpack(">Q", file.read(8).rjust(8, b"\0"))[0]
            size = size or length - begin
            if size < 8:
                return
            if kind == b"uuid" and 24 < size < LARGEST_PACKET and file.read(16) == XMP_BOX:
                yield file.read(size - 24)
            begin += size
