"""Fragmented MP4: what can be played while it is still being made."""
from __future__ import annotations

import numpy as np

from s3dnerf.marking.marking import Marking
from s3dnerf.media import FPS, SAMPLE_RATE


class FragmentWriter:
    """Encodes frames and sound, as they come, to H.264 and AAC in fragments of MP4; `take` gives what there is.

    Args:
        width: pixels; odd sizes lose a row or column.
        height: pixels.
        marking: what the stream says of itself; its frames are marked before they come here.
        hurry: every frame is a fragment of its own and leaves the encoder at once; else half a second is one.
    """

    def __init__(self, width: int, height: int, marking: Marking, hurry: bool = False):
        import av

        self.width, self.height, self.parts = width - width % 2, height - height % 2, []
        flags = "empty_moov+default_base_moof" + ("+frag_every_frame" if hurry else "")
        options = {"movflags": flags, "flush_packets": "1"} | ({} if hurry else {"frag_duration": "500000"})
        self.container = av.open(self, "w", format="mp4", options=options)
        self.video = self.container.add_stream("libx264", rate=FPS)
        self.video.width, self.video.height, self.video.pix_fmt = self.width, self.height, "yuv420p"
        self.video.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "20", "g": str(2 * FPS), "threads": "1"}
        self.video.codec_context.color_range, self.video.codec_context.colorspace = 1, 6
        self.audio = self.container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        self.audio.bit_rate = 64_000
        self.heard, self.size = 0, 0
        self.container.metadata.update(marking.tags)
        self.container.start_encoding()
        beginning = b"".join(self.parts)
        self.parts.append(marking.box)
        place = beginning.find(b"avcC") + 5
        self.mime = f'video/mp4; codecs="avc1.{beginning[place:place + 3].hex().upper()},mp4a.40.2"'

    def write(self, part: bytes) -> int:
        """What the container calls."""
        self.parts.append(bytes(part))
        return len(part)

    def frame(self, frame: np.ndarray, number: int) -> None:
        """Frame [H, W, 3] uint8 that is shown from number / 25 s on; numbers ascend and may leave some out."""
        import av

        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:self.height, :self.width]), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace="ITU601", dst_color_range="MPEG")
        picture.pts = number
        self.container.mux(self.video.encode(picture))

    def sound(self, samples: np.ndarray) -> None:
        """The next samples [N] float32."""
        import av

        if not len(samples):
            return
        frame = av.AudioFrame.from_ndarray(np.clip(samples, -1, 1)[None].astype(np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts = SAMPLE_RATE, self.heard
        self.heard += len(samples)
        self.container.mux(self.audio.encode(frame))

    def take(self) -> bytes:
        """What has been written since the last call."""
        part, self.parts = b"".join(self.parts), []
        return part

    def close(self) -> bytes:
        """Ends it and gives the rest."""
        if self.container is not None:
            for stream in (self.video, self.audio):
                self.container.mux(stream.encode(None))
            self.container.close()
            self.container = None
        return self.take()
