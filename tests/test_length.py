"""An hour of speech, from a file to a file: sound and picture stay together, and memory stays what it was."""
import struct
from importlib.resources import files
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from s3dnerf import inference
from s3dnerf.inference import PhotoScene, TalkingHead, TalkingVideo
from s3dnerf.marking.marks import Marks
from s3dnerf.media import FPS, SAMPLE_RATE, read_sound
from s3dnerf.models.one_shot import S3DNeRF

SECONDS, SIDE = 3600, 32
BURSTS = (20, 1800, 3590)
"""seconds at which a sound of a fifth of a second begins"""


class Drawn(PhotoScene):
    """The scene of a photo in which nothing is left out but the rendering: a patch as bright as the speech's lips are away from
    those of silence stands in its place. Notes the memory of the process, MB, that is no file's."""

    def frames(self, first, count):
        self.memory[first] = own_memory()
        motion, _ = self.prepared(first, count)
        lips = motion.code[0, :, :-1]
        self.silent = lips[-1] if first == 0 else self.silent
        bright = 20 + 200 * (2 * (lips - self.silent).norm(dim=-1)).clamp_max(1)
        return bright[:, None, None, None].expand(-1, SIDE, SIDE, 3).byte().numpy()


def own_memory():
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), None)


def write_hour(path):
    """Silence with bursts of noise, as WAV; what is silent takes no room on the disk."""
    size, noise = SECONDS * SAMPLE_RATE * 2, np.random.default_rng(0).normal(0, 6000, SAMPLE_RATE // 5).astype("<i2")
    with path.open("wb") as file:
        file.write(b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, SAMPLE_RATE,
                                                                                     2 * SAMPLE_RATE, 2, 16))
        file.write(b"data" + struct.pack("<I", size))
        file.truncate(44 + size)
        for second in BURSTS:
            file.seek(44 + second * 2 * SAMPLE_RATE)
            file.write(noise.tobytes())


def shown_and_heard(path, second):
    """When the picture is bright and when there is sound, mean seconds weighted by how much, around a second of a file."""
    means = []
    with av.open(str(path)) as container:
        for stream, strength in ((container.streams.video[0], lambda frame: frame.to_ndarray(format="gray").mean() - 20),
                                 (container.streams.audio[0], lambda frame: np.abs(frame.to_ndarray()).mean())):
            container.seek((second - 3) * 1_000_000)
            times, levels = [], []
            for frame in container.decode(stream):
                if frame.time > second + 2:
                    break
                if frame.time > second - 2:
                    length = 1 / FPS if stream.type == "video" else frame.samples / SAMPLE_RATE
                    times.append(frame.time + length / 2)
                    levels.append(strength(frame))
            weights = np.clip(np.array(levels) - 0.1 * max(levels), 0, None)
            assert max(levels) > 20 * max(np.median(levels), 1e-6)
            means.append(float((weights * times).sum() / weights.sum()))
    return means


@pytest.fixture(scope="module")
def hour(tmp_path_factory):
    """The file of the video, the memory that reading the speech took, and the memory at frames of it."""
    folder = tmp_path_factory.mktemp("hour")
    write_hour(folder / "speech.wav")
    torch.manual_seed(0)
    model = S3DNeRF(image_size=64, encoder_channels=(8, 8), plane_channels=4, width=16, modulation_channels=6, lattice=(8, 8, 4),
                    token_channels=8, speech_width=16, coarse_samples=4, fine_samples=4, feature_channels=6,
                    super_resolution_channels=(8, 8), mouth_gain=20.0)
    reading = []

    def read(path):
        before = own_memory()
        sound = read_sound(path)
        reading.append(own_memory() and own_memory() - before)
        return sound

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "CPU_BATCH", FPS * 10)
        patch.setattr(inference, "read_sound", read)
        video = TalkingHead(model).speak(str(files("s3dnerf") / "assets" / "demo_photo.jpg"), str(folder / "speech.wav"), frame="face")
        scene = video.scene
        scene.__class__, scene.memory, scene.width, scene.height, scene.region = Drawn, {}, SIDE, SIDE, (slice(0, SIDE),) * 2
        TalkingVideo(scene, None, video.sound, video.statistics).save(folder / "out.mp4", marks=Marks(manifest=False))
    (folder / "speech.wav").unlink()
    yield folder / "out.mp4", reading[0], [scene.memory[first] for first in sorted(scene.memory)]
    (folder / "out.mp4").unlink()


def test_sound_and_picture_of_an_hour_drift_by_less_than_a_frame(hour):
    lags = [shown - heard for shown, heard in (shown_and_heard(hour[0], second) for second in BURSTS)]
    assert max(abs(lag - lags[0]) for lag in lags) < 0.5 / FPS, lags  # lips and sound, wherever in the hour
    assert abs(lags[0]) < 0.25  # the window that a frame hears


def test_every_frame_of_an_hour_has_its_time(hour):
    times = {"video": [], "audio": []}
    with av.open(str(hour[0])) as container:
        ends = {stream.type: float(stream.duration * stream.time_base) for stream in container.streams}
        for packet in container.demux():
            if packet.dts is not None:
                times[packet.stream.type].append(float(packet.pts * packet.time_base))
    picture = np.sort(times["video"])
    assert np.abs(picture - np.arange(SECONDS * FPS) / FPS).max() < 1e-4 and len(picture) == SECONDS * FPS
    steps = np.diff(times["audio"])
    assert np.abs(steps - 1024 / SAMPLE_RATE).max() < 1e-4 and abs(ends["audio"] - ends["video"]) < 1 / FPS


def test_memory_does_not_grow_with_the_hour(hour):
    _, reading, memory = hour
    if reading is None:
        pytest.skip("only Linux says how much memory is no file's")
    assert reading < 40, reading  # 220 MB are in a file
    early, late = max(memory[18:36]), max(memory[-18:])  # minutes 3 to 6, and the last three
    assert late - early < 25, (early, late)  # what the container remembers of every packet
