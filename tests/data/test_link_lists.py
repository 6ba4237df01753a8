"""Lists of links as they are published, and where in a picture their boxes are."""
import pytest

from s3dnerf.data.download import place
from s3dnerf.data.link_lists import Link, Span, read_lists
from s3dnerf.errors import InputError

LISTS = {"video_url": "Radio11 https://a.example/x?t=6s\nRadio2 https://a.example/y\nRadio3 https://a.example/z\n\n",
         "annotion_time": "Radio11.mp4 00:30-01:00 01:30-02:30 \nRadio2.mp4 1:00:05-1:00:09\n",
         "crop_wh": "Radio11_0.mp4 412 599 0 599\nRadio2_0.mp4 broken\n", "resolution": "Radio11.mp4 720\nRadio2.mp4 best\n",
         "crop_ratio": "Radio11_0.mp4 1.2\n"}


def write(folder, **other):
    for name, text in (LISTS | other).items():
        if text is not None:
            (folder / f"RD_{name}.txt").write_text(text)
    return folder


def test_the_lists_are_read_together(tmp_path):
    one, two, three = read_lists(write(tmp_path), ["RD"])
    assert one == Link("RD_Radio11", "https://a.example/x?t=6s", 720, (
        Span("RD_Radio11_000", 30.0, 60.0, (412, 0, 599, 599)), Span("RD_Radio11_001", 90.0, 150.0, None)))
    assert two == Link("RD_Radio2", "https://a.example/y", None, (Span("RD_Radio2_000", 3605.0, 3609.0, None),))
    assert three.spans == ()


@pytest.mark.parametrize("name, text, words", [
    ("crop_wh", None, "no list .*RD_crop_wh.txt; give --lists the folder"), ("video_url", "Radio1\n", "a line 'Radio1' without a value"),
    ("annotion_time", "Radio2.mp4 00:30\n", "a span '00:30'; expected MINUTES:SECONDS"),
    ("annotion_time", "Radio2.mp4 00:30-00:30\n", "a span '00:30-00:30'")])
def test_lists_that_make_no_sense_say_which(tmp_path, name, text, words):
    with pytest.raises(InputError, match=words):
        read_lists(write(tmp_path, **{name: text}), ["RD"])


@pytest.mark.parametrize("box, listed, size, margin, due", [
    ((412, 0, 599, 599), 720, (720, 1280), 1.0, (412, 0, 598, 598)),
    ((400, 100, 200, 200), 720, (720, 1280), 2.0, (300, 0, 400, 400)),
    ((400, 100, 200, 200), 720, (360, 640), 1.0, (200, 50, 100, 100)),
    ((400, 100, 200, 200), None, (360, 640), 1.0, (400, 100, 200, 200)),
    ((1200, 600, 200, 200), 720, (720, 1280), 1.0, (1200, 600, 80, 120)),
    ((9000, 100, 200, 200), 720, (720, 1280), 1.0, (0, 0, 1280, 720)), (None, 720, (720, 1280), 2.0, (0, 0, 1280, 720))])
def test_boxes_are_grown_resized_and_kept_inside(box, listed, size, margin, due):
    assert place(Span("x", 0, 1, box), listed, size, margin) == due
