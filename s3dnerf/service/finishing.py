"""Where the service finishes a file: the one place at which a video is written, marked and declared."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from s3dnerf.inference import TalkingVideo
from s3dnerf.media import VideoWriter
from s3dnerf.service.messages import Declaration


class Finishing:
    """Writes the frames of a video into a file that appears whole, at `close`, or not at all.

    Args:
        video: has the size, the sound and the photo.
        path: of the MP4.
        declaration: what the file says of itself.
    """

    def __init__(self, video: TalkingVideo, path: Path, declaration: Declaration):
        self.path, self.declaration = path, declaration
        self.writer = VideoWriter(path, video.width, video.height, sound=video.sound)

    def write(self, frame: np.ndarray) -> np.ndarray:
        """Appends a frame [H, W, 3] uint8, and returns it as it was written, with its mark."""
        self.writer.write(frame)
        return frame

    def close(self) -> None:
        """Completes the file."""
        self.writer.__exit__(None, None, None)

    def abandon(self) -> None:
        """Leaves nothing behind."""
        self.writer.__exit__(RuntimeError, None, None)
