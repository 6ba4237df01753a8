"""Where the service finishes a file: the one place at which a video is written, marked and declared."""
from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Optional

import numpy as np

from s3dnerf.errors import S3DNeRFError
from s3dnerf.inference import TalkingVideo
from s3dnerf.marking.marking import MarkedWriter, Marking
from s3dnerf.marking.marks import Marks
from s3dnerf.media import VideoWriter
from s3dnerf.service.messages import Declaration


def marking_of(video: TalkingVideo, declaration: Declaration, certificate: Optional[str] = None,
               key: Optional[str] = None) -> Marking:
    """What marks the frames and the file of a video of the service; certificate and key as in `Settings`. RuntimeError where
    they cannot sign any more: that is no mistake of the client's."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    try:
        return video.marking(Marks(declaration.label, declaration.consent, now, None, certificate, key))
    except S3DNeRFError as error:
        raise RuntimeError(f"the video cannot be signed: {error}") from error


class Finishing(MarkedWriter):
    """Writes the frames of a video into a file that appears whole, at `close`, or not at all.

    Args:
        video: has the size, the sound and the photo.
        path: of the MP4.
        marking: of this video.
    """

    def __init__(self, video: TalkingVideo, path: Path, marking: Marking):
        super().__init__(path, video.width, video.height, marking, sound=video.sound)

    def write(self, frame: np.ndarray) -> np.ndarray:
        """Appends a frame [H, W, 3] uint8, and returns it as it was written, marked."""
        marked = self.marking.frame(frame)
        VideoWriter.write(self, marked)
        return marked

    def close(self) -> None:
        """Completes the file."""
        self.__exit__(None, None, None)

    def abandon(self) -> None:
        """Leaves nothing behind."""
        self.__exit__(RuntimeError, None, None)
