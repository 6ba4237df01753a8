"""What a video says of itself: watermark, metadata and manifest, read together."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from s3dnerf.errors import DependencyError
from s3dnerf.marking import manifest
from s3dnerf.marking.manifest import Manifest
from s3dnerf.marking.metadata import SYNTHETIC, read_comment, read_xmp
from s3dnerf.marking.trace import MOST_FRAMES, Trace, average_luma, find
from s3dnerf.media import FPS, PathLike, check_file, read_frames, video_info
from s3dnerf.progress import counting


@dataclass(frozen=True)
class Verification:
    """The marks that were found in a video."""

    watermark: Trace
    metadata: Optional[dict[str, str]]
    """what comment and XMP say; None where neither says that the video is synthetic"""
    manifest: Optional[Manifest]
    """None where there is none, or it cannot be read"""
    remark: Optional[str] = None
    """why a manifest could not be looked for"""

    @property
    def marked(self) -> bool:
        """Whether any of the three says that the video is synthetic."""
        signed = self.manifest is not None and self.manifest.synthetic and self.manifest.state != "Invalid"
        return self.watermark.found or self.metadata is not None or signed

    def as_dict(self) -> dict:
        """Plain values for JSON."""
        mark, told = self.watermark, self.manifest
        return {"marked": self.marked, "metadata": self.metadata,
                "watermark": {"found": mark.found, "tag": _tag(mark), "score": round(mark.score, 2), "sync": round(mark.sync, 2),
                              "size": round(mark.size, 3)},
                "manifest": None if told is None else {"state": told.state, "signer": told.signer, "synthetic": told.synthetic,
                                                       "problems": list(told.problems)},
                "remark": self.remark}

    def lines(self) -> list[str]:
        """A line for each mark."""
        return [f"watermark: {self._watermark()}", f"metadata: {self._metadata()}", f"manifest: {self._manifest()}"]

    def _watermark(self) -> str:
        mark = self.watermark
        figures = f"(score {mark.score:.1f}, first pattern {mark.sync:.1f})"
        if not mark.found:
            return f"none {figures}"
        resized = "" if abs(mark.size - 1) < 0.002 else f", resized by {mark.size:.2f}"
        tag = "payload damaged" if mark.tag is None else f"photo {_tag(mark)}..."
        return f"found, {tag}{resized} {figures}{self._same_photo()}"

    def _same_photo(self) -> str:
        """Whether watermark and metadata name the same photo, where both name one."""
        photo = (self.metadata or {}).get("photo_sha256")
        if photo is None or self.watermark.tag is None:
            return ""
        return "; the same photo as the metadata's" if photo.startswith(_tag(self.watermark)) else "; ANOTHER photo than the metadata's"

    def _metadata(self) -> str:
        told = self.metadata
        if told is None:
            return "none that says the video is synthetic"
        parts = [f"{name} {told[key]}" for name, key in (("made by", "generator"), ("version", "version"), ("model", "model"),
                                                         ("photo", "photo_sha256"), ("time", "time"), ("consent:", "consent"))
                 if key in told]
        return "synthetic" + (": " if parts else "") + ", ".join(parts)

    def _manifest(self) -> str:
        told = self.manifest
        if self.remark is not None:
            return self.remark
        if told is None:
            return "none"
        says = "says that a trained model made the video" if told.synthetic else "says nothing of a trained model"
        problems = f" ({', '.join(told.problems)})" if told.problems else ""
        return f"{told.state.lower()}, signed by {told.signer or 'nobody that can be read'}, {says}{problems}"


def verify(video: PathLike, progress: bool = False) -> Verification:
    """Reads all marks of a video. InputError for what is missing or no video; `progress` says on stderr how far it is."""
    path = check_file(video, "video")
    total = min(MOST_FRAMES, max(1, round(video_info(path).seconds * FPS)))
    with counting("looking for the watermark", total, progress) as advance:

        def frames():
            for frame in read_frames(path):
                yield frame
                advance()

        mark = find(average_luma(frames()))
    told = read_comment(path)
    xmp = read_xmp(path)
    if told is None and xmp is not None and xmp["digitalSourceType"] == SYNTHETIC:
        told = xmp
    try:
        return Verification(mark, told, manifest.read_manifest(path))
    except DependencyError:
        return Verification(mark, told, None, "not looked for; run `pip install 's3dnerf[c2pa]'`")


def _tag(mark: Trace) -> Optional[str]:
    return None if mark.tag is None else f"{mark.tag:08x}"
