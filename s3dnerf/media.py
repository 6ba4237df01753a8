"""Images, sound and video: any container and rate in; RGB, 25 fps and 16 kHz mono inside; H.264 with AAC out."""
from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, Optional, Union

import numpy as np

from s3dnerf.errors import InputError
from s3dnerf.planar import EXACT, picture_of
from s3dnerf.samples import Samples
from s3dnerf.stopwatch import stage

if TYPE_CHECKING:
    from torch import Tensor

PathLike = Union[str, Path]
FPS = 25
SAMPLE_RATE = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
MEL_BINS = 80
MEL_HOP = 200
"""samples between two mel frames: 80 mel frames per second"""
MEL_WINDOW = 800
MEL_CONTEXT = 40
"""mel frames around a video frame: half a second"""
MEL_SILENCE = -4.0
MAX_PIXELS = 100_000_000
MIN_SECONDS = 0.2
FILLING = 4096
"""samples at 16 kHz by which decoded sound may outlast what its container says, as filling of the last packet"""
CONTAINERS = (".mp4", ".m4v", ".mov", ".mkv")


def check_file(path: PathLike, what: str) -> Path:
    """The path of an existing, non-empty file; InputError otherwise. `what` names it in the message ("photo")."""
    path = Path(path)
    if not os.path.exists(path):  # unlike Path.exists, False for a name that is too long
        raise InputError(f"no {what} {path}; check the path")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the file of the {what}")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} cannot be read; check its permissions")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; give a {what} with content")
    return path


def read_image(path: PathLike, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """An image [H, W, 3] uint8 RGB, turned upright by its EXIF orientation; transparency lies over white.

    InputError for what is missing, empty, truncated, no image, or of more than `max_pixels` (told from the header).
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = check_file(path, "photo")
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise InputError(f"{path} has {width} x {height} pixels; expected at most {max_pixels}: shrink it first")
            image = ImageOps.exif_transpose(image)
            return np.asarray(_to_rgb(image))
    except UnidentifiedImageError:
        raise InputError(f"{path} is not an image that can be read; expected JPEG, PNG, WebP or the like") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(f"{path} is damaged ({error}); save it again from its source") from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _to_rgb(image):
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, np.float64)
        top = 65535.0 if values.max() > 255 else 255.0
        image = Image.fromarray((np.clip(values / top, 0, 1) * 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _open(path: Path, what: str, kind: Optional[str] = None):
    import av

    try:
        return av.open(str(path), format=kind)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path} is not a {what} that can be read ({getattr(error, 'strerror', None) or error}); convert it to "
                         "wav or mp4") from None


def read_sound(path: PathLike, allow_silence: bool = True, kind: Optional[str] = None,
               max_seconds: Optional[float] = None) -> np.ndarray:
    """A recording [N] float32, mono, 16 kHz, in [-1, 1]; takes any container with a sound track, a video too.

    Sound that starts later than the picture is padded at its beginning, so that sample 0 is frame 0. InputError for what is
    missing, unreadable, without sound, shorter than 0.2 s or not finite, and, unless allowed, for silence; and for more than
    `max_seconds`, as soon as they are decoded. `kind` is libav's name of the container; None leaves it to its guess.
    """
    import av

    path = check_file(path, "recording")
    with _open(path, "recording", kind) as container:
        if not container.streams.audio:
            raise InputError(f"{path} has no sound track; give a recording of speech")
        stream = container.streams.audio[0]
        resampler, sound = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE), Samples(path)
        begin, heard = None, 0.0
        keep = lambda chunks: [sound.add(chunk.to_ndarray()[0] * gain) for chunk in chunks]
        try:
            for frame in container.decode(stream):
                heard += frame.samples / frame.sample_rate
                if max_seconds is not None and heard > max_seconds + FILLING / SAMPLE_RATE:
                    raise InputError(f"{path} lasts longer than {max_seconds:g} s; expected at most that: cut it")
                if begin is None:
                    begin = round(_late_start(container, frame) * SAMPLE_RATE)
                    sound.add(np.zeros(max(begin, 0)))
                gain = 0.5 ** 0.5 if frame.layout.nb_channels == 2 else 1.0  # the mixer adds equal channels up to 1.4
                keep(resampler.resample(frame))
            keep(resampler.resample(None) if begin is not None else ())
        except av.FFmpegError as error:
            if begin is None:
                raise InputError(f"{path} is damaged ({error.strerror}); record or convert it again") from None
        before, after = max(begin or 0, 0), max(-(begin or 0), 0)
        end = before + _told_length(stream, sound.count - before)  # while it is open: the stream's memory goes with it
    return _checked(sound.array()[after:end], path, allow_silence)


def _told_length(stream, decoded: int) -> int:
    """Samples that the container says the sound has; encoders fill their last packet up, and decoders return the filling."""
    told = round(float(stream.duration * stream.time_base) * SAMPLE_RATE) if stream.duration else decoded
    return told if decoded - FILLING < told < decoded else decoded


def _late_start(container, frame) -> float:
    """Seconds by which the sound starts after the picture; 0 where there is no picture."""
    video = container.streams.video[0] if container.streams.video else None
    if video is None or video.start_time is None or frame.time is None:
        return 0.0
    return min(max(frame.time - float(video.start_time * video.time_base), -5.0), 5.0)


def _checked(sound: np.ndarray, path: Path, allow_silence: bool) -> np.ndarray:
    if len(sound) < MIN_SECONDS * SAMPLE_RATE:
        raise InputError(f"{path} lasts {len(sound) / SAMPLE_RATE:.2f} s; expected at least {MIN_SECONDS} s of speech")
    if not allow_silence and is_silent(sound):
        raise InputError(f"{path} is silent; check the microphone or the sound track")
    return sound


def is_silent(sound: np.ndarray) -> bool:
    """Whether nothing reaches -60 dB of full scale."""
    return -1e-3 < sound.min(initial=0) and sound.max(initial=0) < 1e-3


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds."""

    width: int
    """pixels, after rotation"""
    height: int
    """pixels, after rotation"""
    fps: float
    seconds: float
    has_sound: bool


def video_info(path: PathLike) -> VideoInfo:
    """Size, rate and length of a video; InputError for what is missing, unreadable or has no picture."""
    path = check_file(path, "video")
    with _open(path, "video") as container:
        stream = _video_stream(container, path)
        frame = next(container.decode(stream), None)
        if frame is None:
            raise InputError(f"{path} holds no picture that can be decoded; convert it to mp4")
        height, width = _upright(frame).shape[:2]
        length = stream.duration * stream.time_base if stream.duration else (container.duration or 0) / 1e6
        return VideoInfo(width, height, float(stream.average_rate or FPS), float(length), bool(container.streams.audio))


def _video_stream(container, path: Path):
    if not container.streams.video:
        raise InputError(f"{path} has no picture; give a video")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return stream


def _upright(frame) -> np.ndarray:
    """[H, W, 3] uint8 RGB, turned as the display matrix says (frame.rotation: counter-clockwise degrees)."""
    return np.rot90(frame.reformat(format="rgb24", interpolation=EXACT).to_ndarray(), round(frame.rotation / 90) % 4)


def read_frames(path: PathLike, fps: float = FPS, kind: Optional[str] = None) -> Iterator[np.ndarray]:
    """Frames [H, W, 3] uint8 RGB, upright, at a constant rate, one after another.

    Output frame k shows what the video shows at (k + 0.5) / fps s after its first picture, so that rates are converted by
    time stamps and variable rates come out constant; `kind` as for `read_sound`. InputError for what has no readable picture.
    """
    import av

    path = check_file(path, "video")
    with _open(path, "video", kind) as container:
        stream = _video_stream(container, path)
        step = 1 / float(stream.average_rate or fps)
        shown, begin, count = None, None, 0
        try:
            for index, frame in enumerate(container.decode(stream)):
                time = frame.time if frame.time is not None else index * step
                begin = time if begin is None else begin
                while shown is not None and (count + 0.5) / fps < time - begin - 1e-6:
                    yield shown
                    count += 1
                shown, last = _upright(frame), time - begin
        except av.FFmpegError as error:
            if shown is None:
                raise InputError(f"{path} is damaged ({error.strerror}); convert it to mp4") from None
        if shown is None:
            raise InputError(f"{path} holds no picture that can be decoded; convert it to mp4")
        while (count + 0.5) / fps < last + step:
            yield shown
            count += 1


def check_output(path: PathLike) -> Path:
    """The path of a video that can be written; InputError for a missing or read-only folder or another ending."""
    path, folder = Path(path), Path(path).parent
    if path.suffix.lower() not in CONTAINERS:
        raise InputError(f"found output {path.name}; expected a name that ends in {', '.join(CONTAINERS)}")
    if not os.path.isdir(folder):
        raise InputError(f"no folder {folder} for the output; make it first")
    try:
        with tempfile.TemporaryFile(dir=folder):
            is_folder = path.is_dir()
    except OSError as error:
        raise InputError(f"cannot write into {folder} ({error.strerror}); choose another folder or a shorter name for the "
                         "output") from None
    if is_folder:
        raise InputError(f"{path} is a folder; give a file for the output")
    return path


class VideoWriter:
    """Writes frames, as they come, to H.264 (yuv420p) with AAC sound; the file appears whole or not at all.

    Used as a context manager. Sound is cut or padded with silence to the length of the frames. Sizes that are odd grow by
    one repeated row or column. InputError for an output that cannot be written.

    Args:
        path: mp4, m4v, mov or mkv.
        width, height: pixels.
        sound: [N] float32, mono, 16 kHz; None writes no sound.
        fps: frames per second.
        crf: quality, 0 lossless to 51.
        preset: x264's speed.
    """

    def __init__(self, path: PathLike, width: int, height: int, *, sound: Optional[np.ndarray] = None, fps: int = FPS,
                 crf: int = 14, preset: str = "veryfast"):
        import av

        self.path, self.sound, self.fps, self.count, self.heard = check_output(path), sound, fps, 0, 0
        self.part = self.path.with_name(f".{self.path.stem[:100]}.{os.getpid()}{self.path.suffix}")
        self.pad = ((0, height % 2), (0, width % 2), (0, 0))
        options = {} if self.path.suffix.lower() == ".mkv" else {"movflags": "+faststart"}
        self.container = av.open(str(self.part), "w", options=options)
        self.video = self.container.add_stream("libx264", rate=fps)
        self.video.width, self.video.height = film_size(width, height)
        self.video.pix_fmt = "yuv420p"
        self.video.options = {"crf": str(crf), "preset": preset}
        context = self.video.codec_context
        # The matrix is BT.601: readers that look at no tag, OpenCV among them, take that one for granted.
        context.color_range, context.colorspace, context.color_primaries, context.color_trc = 1, 6, 1, 1
        self.audio = None
        if sound is not None:
            self.audio = self.container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
            self.audio.bit_rate = 96_000

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None or self.count == 0:
            self._abandon()
            return
        try:
            with stage("encode video"):
                self._write_sound(self.count * SAMPLE_RATE // self.fps)
                for stream in filter(None, (self.video, self.audio)):
                    self._mux(stream.encode(None))
            with stage("mux"):
                self.container.close()
                self.complete()
            os.replace(self.part, self.path)
        except BaseException:
            self._abandon()
            raise

    @stage("encode video")
    def write(self, frame: np.ndarray) -> None:
        """Appends a frame [H, W, 3] uint8 RGB, or a planar one (`planar.py`)."""
        picture = picture_of(frame, self.pad)
        picture.pts = self.count
        self._mux(self.video.encode(picture))
        self.count += 1
        if self.count % self.fps == 0:
            self._write_sound(self.count * SAMPLE_RATE // self.fps)

    def complete(self) -> None:
        """Nothing; for what is to be done to the whole file, `part`, before it appears."""

    def _write_sound(self, until: int) -> None:
        """Encodes the sound up to a sample."""
        import av

        if self.audio is None or until <= self.heard:
            return
        chunk = self.sound[self.heard:until]
        chunk = np.pad(chunk, (0, until - self.heard - len(chunk))).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.clip(chunk, -1, 1)[None], format="fltp", layout="mono")
        frame.rate, frame.pts = SAMPLE_RATE, self.heard
        self._mux(self.audio.encode(frame))
        self.heard = until

    @stage("mux")
    def _mux(self, packets) -> None:
        self.container.mux(packets)

    def _abandon(self) -> None:
        import av

        try:
            self.container.close()
        except (av.FFmpegError, OSError, ValueError):
            self.count = 0  # nothing was written that closing could complete
        self.part.unlink(missing_ok=True)


def film_size(width: int, height: int) -> tuple[int, int]:
    """Pixels of the file that `VideoWriter` makes of frames of a size."""
    return width + width % 2, height + height % 2


def frame_count(samples: int) -> int:
    """Frames that speech of so many samples lasts, to the nearest frame, at least 1."""
    return max(1, (samples + SAMPLES_PER_FRAME // 2) // SAMPLES_PER_FRAME)


def mel_filters() -> np.ndarray:
    """[80, 401] triangular filters from 55 to 7600 Hz on Slaney's mel scale, each of unit area."""
    top, bottom, knee, step = 7600.0, 55.0, 1000.0, np.log(6.4) / 27
    to_mel = lambda hz: hz * 3 / 200 if hz < knee else 15 + np.log(hz / knee) / step
    mels = np.linspace(to_mel(bottom), to_mel(top), MEL_BINS + 2)
    edges = np.where(mels < 15, mels * 200 / 3, knee * np.exp(step * (mels - 15)))
    hertz = np.linspace(0, SAMPLE_RATE / 2, MEL_WINDOW // 2 + 1)
    rising = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]


def log_mel(sound: "Union[np.ndarray, Tensor]") -> "Tensor":
    """Log-mel spectrogram [*, 80, N // 200 + 1] in [-4, 4] of sound [*, N]; column m is centred on sample 200 m.

    Pre-emphasis 0.97, Hann windows of 800 samples, decibels from -100 to 0 against 20 dB mapped to [-4, 4], as for Wav2Lip's
    expert.
    """
    import torch

    sound = torch.as_tensor(sound, dtype=torch.float32)
    lifted = torch.cat([sound[..., :1], sound[..., 1:] - 0.97 * sound[..., :-1]], -1)
    window = torch.hann_window(MEL_WINDOW, device=sound.device)
    spectrum = torch.stft(lifted.reshape(-1, sound.shape[-1]), MEL_WINDOW, MEL_HOP, MEL_WINDOW, window, center=True,
                          pad_mode="constant", return_complex=True).abs()
    spectrum = spectrum.reshape(*sound.shape[:-1], *spectrum.shape[1:])
    filters = torch.as_tensor(mel_filters(), dtype=torch.float32, device=sound.device)
    decibels = 20 * torch.log10((filters @ spectrum).clamp_min(1e-5)) - 20
    return (8 * (decibels + 100) / 100 - 4).clamp(-4, 4)


def mel_windows(mel: "Tensor", frames: int, first: int = 0) -> "Tensor":
    """Windows [*, frames, 80, 40] of a spectrogram [*, 80, M], centred on the middles of video frames from `first` on.

    The middle of frame t is at (t + 0.5) / 25 s. Beyond its ends the recording is silent.
    """
    import torch

    rate = SAMPLE_RATE / MEL_HOP
    starts = [round(rate * (first + t + 0.5) / FPS) - MEL_CONTEXT // 2 for t in range(frames)]
    before, after = max(0, -starts[0]), max(0, starts[-1] + MEL_CONTEXT - mel.shape[-1])
    padded = torch.nn.functional.pad(mel, (before, after), value=MEL_SILENCE)
    return torch.stack([padded[..., start + before:start + before + MEL_CONTEXT] for start in starts], -3)
