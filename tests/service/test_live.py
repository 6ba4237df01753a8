"""Speech that comes in as it is spoken: the frames are those of the recording, and the delay is bounded."""
import io
import json
import struct
import time

import av
import numpy as np
import pytest
import torch

from s3dnerf.inference import TalkingHead
from s3dnerf.service.fragments import FragmentWriter
from s3dnerf.service.live import LOOK_AHEAD, LiveDrive, Session
from s3dnerf.service.messages import Declaration, Heard, Listen, Options, Speaker


@pytest.fixture(scope="module")
def head(tiny_head):
    return TalkingHead(tiny_head)


@pytest.fixture(scope="module")
def identity(head, photo):
    from PIL import Image

    return head.identify(np.asarray(Image.open(io.BytesIO(photo)).convert("RGB")))


def pcm(sound):
    return (sound * 32768).astype("<i2").tobytes()


def session(head, identity, format="jpeg", seconds=3.0):
    video = head.speak(identity, np.zeros(round(seconds * 16000), np.float32), frame="face", seed=5)
    return Session(Listen("x", Speaker(None, ""), Options(), Declaration("I am the person shown.", ""), format), video)


def test_frames_of_a_session_are_those_of_the_recording(head, identity, babble):
    sound = babble(1.6)
    with torch.inference_mode():
        whole = np.stack(list(head.speak(identity, sound, frame="face", seed=5)))
        live, shown = session(head, identity), []
        for first in range(0, len(sound), 700):
            live.drive.hear(sound[first:first + 700])
            while live.drive.ready > len(shown):
                shown.append(live.scene.frames(len(shown), 1)[0])
        assert len(shown) == (len(sound) - LOOK_AHEAD) // 640 + 1 < len(whole)  # the rest waits for what is still to come
        live.drive.ended = True
        shown += [live.scene.frames(number, 1)[0] for number in range(len(shown), live.drive.ready)]
    assert len(shown) == len(whole) == 40
    assert np.abs(np.stack(shown).astype(int) - whole).max() <= 1
    assert np.abs(whole[20].astype(int) - whole[0]).max() > 10


def test_a_frame_waits_for_all_that_it_hears_and_no_longer(head, identity, babble):
    sound, other = babble(1.0), babble(1.0, seed=1)
    drive = session(head, identity).drive
    drive.hear(sound[:LOOK_AHEAD + 640 * 3 - 1])
    assert drive.ready == 3
    drive.hear(sound[:1])
    assert drive.ready == 4
    exact = drive.windows(3, 1)
    more = LiveDrive(drive, 32000)
    more.hear(np.concatenate([sound[:LOOK_AHEAD + 640 * 3 - 1], sound[:1], other]))
    assert torch.allclose(more.windows(3, 1), exact, atol=1e-5)
    less = LiveDrive(drive, 32000)
    less.hear(np.concatenate([sound[:LOOK_AHEAD + 640 * 3 - 400], other]))
    assert not torch.allclose(less.windows(3, 1), exact, atol=1e-3)


def test_what_is_late_is_left_out_so_that_the_delay_stays(head, identity, babble):
    with torch.inference_mode():
        live, begin = session(head, identity), time.monotonic()
        live.hear(Heard("x", pcm(babble(1.0))))
        told = list(live.step())
        frames = [struct.unpack("<I", part[1:5])[0] for message in told for part in message.parts if part[:1] == b"F"]
        assert frames == [live.drive.ready - 1] and told[-1].told["dropped"] == frames[0]
        assert not live.due and 0 <= told[-1].told["seconds"] <= time.monotonic() - begin + 0.001  # rounded
        live.hear(Heard("x", b"", last=True))
        last = [message for message in live.step()][-1]
        assert last.told["type"] == "end" and live.over and last.told["frames"] + last.told["dropped"] == 25


def test_a_session_ends_at_its_longest(head, identity, babble):
    live = session(head, identity, seconds=0.5)
    live.hear(Heard("x", pcm(babble(2.0))))
    assert live.drive.ended and live.drive.heard == 8000


@pytest.fixture(scope="module")
def face(running, photo):
    return running.client.post("/v1/faces", files={"photo": ("x", photo)}, data={"keep": "true"}).json()["id"]


def film(content: bytes):
    """The brightness of each frame, after a look at its time, and how many samples of sound follow each other."""
    with av.open(io.BytesIO(content)) as container:
        frames = [(float(frame.pts * frame.time_base), frame.to_ndarray(format="rgb24").mean()) for frame in container.decode(video=0)]
    with av.open(io.BytesIO(content)) as container:
        sound = [(frame.pts, frame.samples) for frame in container.decode(audio=0)]
    assert frames[0][0] == 0 and all(abs(at - number / 25 - 0.064) < 1e-3 for number, (at, _) in enumerate(frames) if number)
    assert [at for at, _ in sound] == [1024 * number for number in range(len(sound))]
    return [bright for _, bright in frames], sum(samples for _, samples in sound)


def talk(running, first, chunks, answered=()):
    """What a client gets: binary messages, and texts; after the chunks that are `answered` it waits for a binary one."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    parts, told = [], []
    with connect(f"ws://127.0.0.1:{running.port}/v1/stream", max_size=None, open_timeout=60) as link:
        def take():
            message = link.recv(timeout=60)
            parts.append(message) if isinstance(message, bytes) else told.append(json.loads(message))

        link.send(json.dumps(first))
        take()
        try:
            for number, chunk in enumerate(chunks if told[0]["type"] == "ready" else ()):
                count = len(parts)
                link.send(chunk)
                while number in answered and len(parts) == count:
                    take()
            link.send('{"type": "end"}')
            while True:
                take()
        except ConnectionClosed:
            pass
        try:  # what had come in before it was closed
            while True:
                take()
        except (ConnectionClosed, TimeoutError):
            pass
    return parts, told


def test_a_session_over_a_socket_gives_a_film_with_sound(running, face, babble):
    sound = pcm(babble(1.2))
    chunks = [sound[first:first + 1280] for first in range(0, len(sound), 1280)]
    begin = time.monotonic()
    parts, told = talk(running, {"face": face, "consent": running.consent, "format": "mp4"}, chunks, range(8, 30, 3))
    took = time.monotonic() - begin
    assert told[0]["width"] == 64 and told[0]["look_ahead"] == pytest.approx(0.295) and "avc1.42C0" in told[0]["mime"]
    assert told[-1]["type"] == "end" and told[-1]["frames"] + told[-1]["dropped"] == 30 and told[-1]["frames"] > 5
    delays = [message["seconds"] for message in told if message["type"] == "delay"]
    assert delays and 0 <= min(delays) and max(delays) <= took
    shown, heard = film(b"".join(parts))
    assert len(shown) == 30 and heard == 20480  # 1.2 s of sound in frames of 1024, and one before it


def test_pictures_and_sound_come_with_their_numbers(running, face, babble):
    sound = pcm(babble(0.8))
    parts, told = talk(running, {"person": "eileen", "consent": running.consent, "format": "jpeg"},
                       [sound[first:first + 6400] for first in range(0, len(sound), 6400)])
    pictures = [part for part in parts if part[:1] == b"F"]
    numbers = [struct.unpack("<I", part[1:5])[0] for part in pictures]
    assert numbers == sorted(set(numbers)) and len(numbers) == told[-1]["frames"] and pictures[0][5:7] == b"\xff\xd8"
    spoken = [part for part in parts if part[:1] == b"A"]
    assert b"".join(part[5:] for part in spoken) == sound and struct.unpack("<I", spoken[0][1:5])[0] == 0


@pytest.mark.parametrize("first, code", [
    ({}, "missing"), ([], "bad_request"), ({"face": "nope", "consent": "I am the person shown."}, "not_found"),
    ({"face": "FACE"}, "consent_missing"), ({"face": "FACE", "consent": "I am the person shown.", "camera": "90,0"}, "invalid_option"),
    ({"face": "FACE", "consent": "I am the person shown.", "format": "gif"}, "invalid_option"),
    ({"face": "FACE", "consent": "I am the person shown.", "background": "/etc/passwd"}, "invalid_option"),
    ({"face": "FACE", "consent": "I am the person shown.", "weights": "x"}, "invalid_option"),
    ({"face": {"a": 1}}, "bad_request")], ids=lambda value: str(value)[:30])
def test_a_wrong_beginning_is_told(running, face, first, code):
    if isinstance(first, dict) and first.get("face") == "FACE":
        first = first | {"face": face}
    _, told = talk(running, first, [])
    assert told[0]["type"] == "error" and told[0]["error"]["code"] == code
    running.until(lambda: not running.service.crew.sessions)


@pytest.mark.parametrize("form", ["mp4", "jpeg"])
def test_a_session_in_which_nothing_is_said_ends_as_others_do(running, face, form):
    _, told = talk(running, {"face": face, "consent": running.consent, "format": form}, [])
    assert [one["type"] for one in told] == ["ready", "end"] and told[-1]["frames"] == 0


def test_a_message_that_is_too_long_ends_the_session(running, face):
    _, told = talk(running, {"face": face, "consent": running.consent}, [b"\0" * 32002])
    assert told[-1]["error"]["code"] == "too_large"
    running.until(lambda: not running.service.crew.sessions)


@pytest.fixture(scope="module")
def marking(head, identity, babble):
    from s3dnerf.service.finishing import marking_of

    return marking_of(head.speak(identity, babble(1.0), frame="face"), Declaration("I am the person shown.", ""))


def test_a_frame_of_a_stream_does_not_wait_for_the_next(marking, babble):
    frame, came = np.zeros((64, 64, 3), np.uint8), []
    for hurry in (True, False):
        writer = FragmentWriter(64, 64, marking, hurry)
        writer.take()
        for number in (0, 12):
            writer.frame(frame, number)
            came.append(writer.take().count(b"mdat"))
            writer.sound(babble(0.5))
            writer.take()
        writer.close()
    assert came == [1, 12, 0, 0]


@pytest.mark.parametrize("numbers", [range(30), [0, 1, 2, 9, 10, 27, 29], [3, 4, 8, 29], [29]], ids=str)
def test_frames_left_out_leave_no_gap_and_move_nothing(marking, babble, numbers):
    writer, sound = FragmentWriter(64, 64, marking, hurry=True), babble(1.2)
    parts, said = [writer.take()], 0
    for number in numbers:
        writer.frame(np.full((64, 64, 3), 8 * number, np.uint8), number)
        writer.sound(sound[said:said + 640 * 7])
        said += 640 * 7
        parts.append(writer.take())
    writer.sound(sound[said:])
    shown, heard = film(b"".join(parts) + writer.close())
    held = [max([number for number in numbers if number <= at], default=numbers[0]) for at in range(30)]
    assert np.abs(np.array(shown) / 8 - held).max() < 0.5 and heard == 20480
