"""The page of a preparation: all counts right, nothing from elsewhere, and faces where they were found."""
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from s3dnerf.data.prepare import REPORT
from s3dnerf.data.summary import KEPT_FACES, REFUSED_FACES, THUMBNAIL, Shown, kind, summary_page, thumbnail
from s3dnerf.data.tracking import Track
from s3dnerf.face import INNER_LIPS, metric_face


def picture(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def shown(count, reason="", **told):
    known = {"frames": 50, "reprojection_error": "1.50", "yaw": "-12..5", "eyes": "60", "blur": "0.40", "sync_offset": 0}
    return [Shown(dict.fromkeys(REPORT, "") | known | {
        "file": f"{told.get('person', 'ann')}/{number}.mp4", "piece": 0, "person": "ann", "reason": reason,
        "status": "rejected" if reason else "accepted"} | told, picture(number)) for number in range(count)]


def pieces():
    return (shown(60) + shown(3, person="<b>", remarks="30 frames per second, converted to 25") +
            shown(20, "two faces in 1 of 1 frames looked at; expected one person") +
            shown(2, "no sound track; give a recording", frames="", yaw="", eyes="", blur="", reprojection_error="", sync_offset=""))


def test_everything_is_counted():
    page = summary_page("train", pieces())
    assert "63 of 85 clips kept (74 %), 2 people, 2.1 minutes" in page
    assert re.search(r"<td>two faces<td class=n>20<", page) and re.search(r"<td>no sound<td class=n>2<", page)
    assert re.search(r"<td>ann<td class=n>60<td class=n>2.0<td class=n>22<", page)
    assert "<td>&lt;b&gt;<td class=n>3<td class=n>0.1<td class=n>0<" in page and "<b>" not in page
    assert "What was converted, moved or left out (3 clips)" in page
    assert f"Kept ({KEPT_FACES} of 63)" in page and f"Refused: two faces ({REFUSED_FACES} of 20)" in page
    assert page.count("<img") == KEPT_FACES + REFUSED_FACES + 2
    assert "Nothing was refused." in summary_page("val", shown(1)) and "0 of 2 clips kept" in summary_page("val", pieces()[-2:])


def test_sound_that_was_moved_is_told():
    moved = shown(2, sync_offset=-2, remarks="a cut") + shown(1, sync_offset=3)
    page = summary_page("train", moved + shown(1, "x", sync_offset=10))
    assert page.count("a cut; the sound was 2 frames early, and was moved") == 2 and "(3 clips)" in page
    assert page.count("the sound was 3 frames late, and was moved") == 1 and "10 frames" not in page


def test_histograms_hold_every_clip_that_has_a_figure():
    page = summary_page("train", shown(3, eyes="40") + shown(1, eyes="80") + shown(2, "blur 0.8; expected", eyes="80"))
    chart = re.search(r"<svg[^>]*aria-label='pixels between the eyes'>.*?</svg>", page)[0]
    heights = {colour: [float(height) for height in re.findall(rf"height='([\d.]+)' fill='{colour}'", chart)]
               for colour in ("#2b6cb0", "#c05621")}
    assert [round(sum(heights[colour]) / 30) for colour in heights] == [4, 2]  # three clips, the highest bar, are 90 high
    assert sorted(filter(None, heights["#2b6cb0"])) == [30, 90] and max(heights["#c05621"]) == 60
    empty = summary_page("train", [one for one in pieces() if one.kind == "no sound"])
    assert "<svg" not in empty


def test_the_page_needs_nothing_else_and_is_well_formed():
    page, open_tags, sources = summary_page("a&b", pieces()), [], []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            sources.extend(value for name, value in attributes if name in ("src", "href"))
            if tag in ("figure", "div", "svg", "table", "g", "style"):
                open_tags.append(tag)

        def handle_endtag(self, tag):
            if tag in ("figure", "div", "svg", "table", "g", "style"):
                assert open_tags.pop() == tag

    Reader().feed(page)
    assert not open_tags and "a&amp;b" in page and "<script" not in page
    assert sources and all(source.startswith("data:image/jpeg;base64,") for source in sources)


@pytest.mark.parametrize("reason, due", [
    ("", ""), ("no face in 3 of 30 frames; use", "no face"), ("/x/a.mp4 has no sound track; give", "no sound"),
    ("no recording /x/none.mp4; check the path", "file is missing"), ("lasts 0.80 s; expected", "too short"),
    ("the sound is 10 frames or more too early; expected", "sound out of step"), ("x is not a recording that can be read", "file cannot be read"),
    ("turned away by 50 degrees", "turned away"), ("blur 0.81; expected", "blurred")])
def test_reasons_have_names(reason, due):
    assert kind(reason) == due


def test_thumbnails_show_the_crop_with_lips_in_green_or_the_whole_picture():
    frame = np.full((200, 300, 3), 90, np.uint8)
    wide = np.asarray(Image.open(io.BytesIO(thumbnail([frame]))))
    assert wide.shape == (75, THUMBNAIL, 3) and abs(wide.astype(int) - 90).max() < 4
    unit = 40.0
    landmarks = metric_face()[None, :, :2] * unit + (150, 100)
    track = Track(landmarks, np.eye(3)[None], np.array([[0.0, 0, 12]]), unit * 12, (200, 300), np.ones(1))
    face = np.asarray(Image.open(io.BytesIO(thumbnail([frame], track)))).astype(int)
    assert face.shape == (THUMBNAIL, THUMBNAIL, 3)
    box = track.crop_box()
    x, y = ((landmarks[0, list(INNER_LIPS)].mean(0) - (box.left, box.top)) * THUMBNAIL / box.side).round().astype(int)
    green = face[..., 1] - face[..., 0] > 30
    assert green[y - 6:y + 7, x - 12:x + 13].sum() > 8 and not green[:20].any()
