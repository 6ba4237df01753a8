"""What a session sends plays in a browser."""
import base64
import io

import numpy as np
import pytest
from PIL import Image

from s3dnerf.inference import TalkingHead
from s3dnerf.service.finishing import marking_of
from s3dnerf.service.fragments import FragmentWriter
from s3dnerf.service.messages import Declaration

PLAY = """const done = arguments[2], video = document.createElement('video'), source = new MediaSource();
document.body.append(video); video.muted = true; video.onerror = () => done(video.error.message);
source.onsourceopen = () => {
    const buffer = source.addSourceBuffer(arguments[1]);
    buffer.onupdateend = () => {
        const ranges = [];
        for (let i = 0; i < buffer.buffered.length; i++) ranges.push([buffer.buffered.start(i), buffer.buffered.end(i)]);
        buffer.onupdateend = null; source.endOfStream(); video.play(); video.onended = () => done(ranges);
    };
    buffer.appendBuffer(Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0)));
};
video.src = URL.createObjectURL(source);"""


@pytest.mark.parametrize("numbers", [range(30), (2, 3, 4, 11, 12, 20, 29)], ids=str)
def test_a_film_plays_to_its_end(page, tiny_head, photo, babble, numbers):
    head, sound = TalkingHead(tiny_head), babble(1.2)
    identity = head.identify(np.asarray(Image.open(io.BytesIO(photo)).convert("RGB")))
    marking = marking_of(head.speak(identity, sound, frame="face"), Declaration("I am the person shown.", ""))
    writer, said = FragmentWriter(64, 64, marking, hurry=True), 0
    film = [writer.take()]
    for number in numbers:
        writer.frame(np.full((64, 64, 3), 8 * number, np.uint8), number)
        writer.sound(sound[said:640 * (number + 7)])
        said = min(len(sound), 640 * (number + 7))
        film.append(writer.take())
    film = base64.b64encode(b"".join(film) + writer.close()).decode()
    page.window.get("about:blank")
    ranges = page.window.execute_async_script(PLAY, film, writer.mime)
    assert len(ranges) == 1 and ranges[0] == pytest.approx([0, 30 / 25 + 0.064], abs=1e-3)
