"""Fragmented MP4: what can be played while it is still being made."""
from __future__ import annotations

import struct
from fractions import Fraction
from typing import Iterator

import numpy as np

from s3dnerf.marking.marking import Marking
from s3dnerf.media import FPS, SAMPLE_RATE

PRIMING = 1024
"""samples that the sound's encoder puts before the first"""


class FragmentWriter:
    """Encodes frames and sound, as they come, to H.264 and AAC in fragments of MP4; `take` gives what there is.

    Args:
        width: pixels; odd sizes lose a row or column.
        height: pixels.
        marking: what the stream says of itself; its frames are marked before they come here.
        hurry: every packet is a fragment of its own and leaves at once, and a frame whose number is left out is the one before it,
            again, for players stop where pictures are missing; else half a second is a fragment.
    """

    def __init__(self, width: int, height: int, marking: Marking, hurry: bool = False):
        import av

        self.width, self.height, self.parts = width - width % 2, height - height % 2, []
        options = {"movflags": "empty_moov+default_base_moof", "flush_packets": "1", "frag_duration": "500000"}
        self.container = av.open(self, "w", format="mp4", options=options)
        self.video = self.container.add_stream("libx264", rate=FPS)
        self.video.width, self.video.height, self.video.pix_fmt = self.width, self.height, "yuv420p"
        # as MP4 has it: libav's muxer would turn the other form into it
        form = {"x264-params": "annexb=0"} if hurry else {}
        self.video.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "20", "g": str(2 * FPS), "threads": "1"} | form
        self.video.codec_context.color_range, self.video.codec_context.colorspace = 1, 6
        self.audio = self.container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        self.audio.bit_rate = 64_000
        self.hurry, self.heard, self.shown, self.count, self.held = hurry, 0, 0, 0, None
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
        missing = range(self.shown, number) if self.hurry else ()
        for late, shown in [(at, self.held or picture) for at in missing] + [(number, picture)]:
            shown.pts = late
            self._mux(self.video.encode(shown), self.video)
        self.held, self.shown = picture, number + 1

    def sound(self, samples: np.ndarray) -> None:
        """The next samples [N] float32."""
        import av

        if not len(samples):
            return
        frame = av.AudioFrame.from_ndarray(np.clip(samples, -1, 1)[None].astype(np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts = SAMPLE_RATE, self.heard
        self.heard += len(samples)
        self._mux(self.audio.encode(frame), self.audio)

    def take(self) -> bytes:
        """What has been written since the last call."""
        part, self.parts = b"".join(self.parts), []
        return part

    def close(self) -> bytes:
        """Ends it and gives the rest."""
        if self.container is not None:
            for stream in (self.video, self.audio):
                self._mux(stream.encode(None), stream)
            rest = len(self.parts)
            self.container.close()
            if self.hurry:  # an index of nothing
                del self.parts[rest:]
            self.container = None
        return self.take()

    def _mux(self, packets: list, stream) -> None:
        """Packets of one of both streams go out."""
        if not self.hurry:
            self.container.mux(packets)
            return
        # libav's muxer, told to make every packet a fragment, guesses durations from what waits beside it: times were some frames
        # wrong, sound was lost, and Chromium showed two frames of a film
        for packet in packets:
            self.count += 1
            self.parts.extend(self._fragment(packet, stream))

    def _fragment(self, packet, stream) -> Iterator[bytes]:
        """One packet as a fragment (ISO/IEC 14496-12, 8.8). The sound's encoder begins PRIMING samples early, so all is as much later;
        the first frame is there from the beginning on."""
        first = stream is self.video and packet.pts == 0
        begin = packet.pts * packet.time_base + Fraction(PRIMING, SAMPLE_RATE)
        end = begin + (Fraction(1, FPS) if stream is self.video else Fraction(packet.duration, SAMPLE_RATE))
        start, stop = 0 if first else round(begin / stream.time_base), round(end / stream.time_base)
        flags = 0x02000000 if packet.is_keyframe else 0x01010000
        head = _box(b"tfhd", struct.pack(">IIIII", 0x020038, stream.index + 1, stop - start, packet.size, flags))
        time = _box(b"tfdt", struct.pack(">IQ", 0x01000000, start))
        size = 8 + 16 + 8 + len(head) + len(time) + 20
        run = _box(b"trun", struct.pack(">III", 0x000001, 1, size + 8))
        yield _box(b"moof", _box(b"mfhd", struct.pack(">II", 0, self.count)) + _box(b"traf", head + time + run))
        yield _box(b"mdat", bytes(packet))


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content
