"""The marking of one video: the single place that every generated video goes through."""
from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Optional

import numpy as np

from s3dnerf.marking import manifest
from s3dnerf.marking.label import Label
from s3dnerf.marking.marks import Marks, Origin
from s3dnerf.marking.metadata import BOXED, box, comment, record
from s3dnerf.marking.watermark import Watermark
from s3dnerf.media import VideoWriter


class Marking:
    """Marks the frames of a video as they come, tells its container what to say, and finishes its file.

    Args:
        marks: which marks.
        origin: where the video is from.
        width: of the frames, pixels.
        height: of the frames, pixels.
        region: rows and columns of the square around the head, on whose face the watermark is weaker; None where there is none.

    Raises:
        DependencyError: for a manifest that is asked for without the extra `c2pa`.
        InputError: for a certificate or key that cannot sign.
    """

    def __init__(self, marks: Marks, origin: Origin, width: int, height: int, region: Optional[tuple[slice, slice]] = None):
        self.told = record(origin, marks)
        wanted = manifest.installed() if marks.manifest is None else marks.manifest
        self.signer = manifest.signer_of(marks.certificate, marks.key) if wanted else None
        self.label = None if marks.text is None else Label(marks.text, width, height)
        self.watermark = Watermark(origin.tag, width, height, region)

    def frame(self, frame: np.ndarray) -> np.ndarray:
        """A frame [H, W, 3] uint8 RGB with label and watermark; the one that is given stays as it was."""
        return self.watermark.frame(frame if self.label is None else self.label.frame(frame))

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the container, for any that is written."""
        return {"comment": comment(self.told)}

    @cached_property
    def box(self) -> bytes:
        """XMP as a box that may stand behind any other of a file or stream of boxes (mp4, mov, fragmented mp4)."""
        return box(self.told)

    def finish(self, path: Path) -> None:
        """Adds XMP and the manifest to a finished file, as far as its container takes them; nothing may change it later.

        InputError where it cannot be signed.
        """
        if path.suffix.lower() in BOXED:
            with path.open("ab") as file:
                file.write(self.box)
        if self.signer is not None and path.suffix.lower() in manifest.KINDS:
            manifest.sign(path, self.told, self.signer)


class MarkedWriter(VideoWriter):
    """A `VideoWriter` whose video is marked; the file appears when all marks are in it.

    Args:
        path: mp4, m4v, mov or mkv.
        width: pixels.
        height: pixels.
        marking: of this video.
        options: of `VideoWriter`.
    """

    def __init__(self, path, width: int, height: int, marking: Marking, **options):
        super().__init__(path, width, height, **options)
        self.marking = marking
        self.container.metadata.update(marking.tags)

    def write(self, frame: np.ndarray) -> None:
        """Appends a frame [H, W, 3] uint8 RGB, marked."""
        super().write(self.marking.frame(frame))

    def complete(self) -> None:
        """See `VideoWriter`."""
        self.marking.finish(self.part)
