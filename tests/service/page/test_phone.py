"""The page on a phone, and with a microphone and a camera."""
import re
from importlib.resources import files

import numpy as np
from PIL import Image

PHOTO = str(files("s3dnerf") / "assets" / "demo_photo.jpg")
PLACE = "const b = document.getElementById(arguments[0]).getBoundingClientRect(); return [b.left, b.top, b.width, b.height]"


def test_the_microphone_and_the_camera(page, running):
    page.open(running)
    page.click("camera")
    page.until("document.getElementById('mirror').videoWidth > 0")
    page.click("shoot")  # the browser's test picture
    page.until("document.querySelector('#notes .problem') !== null")
    assert "no face" in page.text("notes").lower() and page.text("lead") == "Try another photo"
    page.ready()
    page.click("record")
    page.until("document.getElementById('clock').textContent >= '0:02'")  # the first sound may come late
    page.click("record")
    page.until("!document.getElementById('listen').hidden")
    page.until("document.querySelector('#wave .under').getAttribute('d').length > 100")
    heights = set(re.findall(r"v([\d.]+)", page.script("return document.querySelector('#wave .under').getAttribute('d')")))
    assert len(heights) > 2  # a busy machine drops most of the browser's test sound
    page.start("face")
    page.state("done")
    page.until("document.getElementById('video').duration > 0.9")


SMALL = """
    const seen = (e) => e.checkVisibility() && !e.closest('.hidden, .skip');
    const both = (a, b) => ({left: Math.min(a.left, b.left), right: Math.max(a.right, b.right), top: Math.min(a.top, b.top),
                             bottom: Math.max(a.bottom, b.bottom)});
    return [...document.querySelectorAll('button, .button, a, input, select, textarea, summary, [role=slider]')].filter(seen)
        .map((e) => [e.id || e.name || e.textContent, [...(e.labels ?? [])].filter(seen)
            .reduce((r, label) => both(r, label.getBoundingClientRect()), e.getBoundingClientRect())])
        .filter(([, r]) => r.right - r.left < 44 || r.bottom - r.top < 44 || r.left < 0 || r.right > 390).map(([name]) => name)"""


def whole(page):
    """Nothing is wider than the phone, or too small for a finger."""
    page.still()
    assert page.script("return document.documentElement.scrollWidth") <= 390
    assert page.script(SMALL) == []


def test_a_phone_shows_everything_large_enough_and_without_scrolling_sideways(page, running, voices):
    whole(page.open(running, 390, 844))
    page.ready(speech=voices / "short.wav")
    whole(page)
    page.script("""document.querySelector('details').open = true;
        for (const field of document.querySelectorAll('.field')) field.hidden = false""")
    whole(page)
    page.start("face")
    page.state("done")
    page.click("compare")
    whole(page)
    page.window.find_element("css selector", ".bin").click()
    whole(page)
    page.click("delete")
    page.script("document.getElementById('make').hidden = false; document.getElementById('defaults').style.minHeight = '30px'")
    assert page.script(SMALL) == ["defaults"]  # and it would be told


def touched(page, name, start, *moves):
    """A finger on an element, from a place in it on, in shares of its sides."""
    page.script("arguments[0].scrollIntoView({block: 'center'})", page.find(name))
    left, top, width, height = page.script(PLACE, name)
    for kind, (x, y) in (("touchStart", start), *(("touchMove", place) for place in moves)):
        page.window.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [
            {"x": left + x * width, "y": top + y * height}]})
    page.window.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_a_finger_turns_the_head_and_moves_the_line_between_video_and_photo(page, running, voices):
    ahead = page.open(running, 390, 844).ready(speech=voices / "short.wav").settled()
    touched(page, "view", (0.5, 0.5), (0.55, 0.5), (0.65, 0.5), (0.75, 0.5))
    assert page.text("angle") == "20° right"
    assert np.abs(page.settled() - ahead).max() > 20
    page.start("face")
    page.state("done")
    page.click("compare")
    touched(page, "divider", (0.5, 0.5), (0.4, 0.5), (0.25, 0.5))
    assert abs(int(page.find("share").get_attribute("value")) - 25) <= 1


def test_a_browser_that_plays_a_growing_video_by_itself_alone_or_not_at_all(page, running, voices, hold):
    """Without MediaSource the element gets the stream; where that fails too, the newest frames go on."""
    for break_, shown in (("delete self.MediaSource", "video"), ("MediaSource.isTypeSupported = () => false", "picture")):
        page.open(running).ready(speech=voices / "long.wav")
        page.script(break_)
        with hold(200 if shown == "video" else 40) as let:  # of 725
            page.start("face")
            page.state("running")
            page.until("!document.getElementById('watch').hidden")
            page.click("watch")
            if shown == "video":
                page.until("document.getElementById('video').currentTime > 0.1")
                assert page.script("return document.getElementById('video').src").endswith("?stream=1")
            else:
                page.until("document.getElementById('video').hidden && !document.getElementById('picture').hidden")
                assert "cannot play" in page.text("live") and not page.shown("watch")
                page.until("parseInt(document.getElementById('frames').textContent) >= 40")
                let(60)
                page.until("parseInt(document.getElementById('frames').textContent) >= 60")
            page.click("cancel")
            page.state("failed")
    assert page.complaints() == []


def test_a_browser_that_cannot_record_says_so_and_lets_the_microphone_go(page, running):
    page.open(running)
    page.script("""delete self.MediaRecorder;
        const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (wish) => self.granted = await real(wish)""")
    page.click("record")
    page.until("document.querySelector('#notes .problem') !== null")
    assert "choose a recording" in page.text("notes")
    assert page.script("return self.granted.getTracks().map((track) => track.readyState)") == ["ended"]


def test_a_large_or_turned_photo_is_sent_small_and_upright(page, running, tmp_path):
    """As a phone's camera writes them: 12 million pixels, lying on the side."""
    turned = Image.open(PHOTO).resize((3000, 3000)).crop((0, 0, 3000, 2600)).transpose(Image.Transpose.ROTATE_90)
    told = Image.Exif()
    told[0x112] = 6  # orientation: turn it by 90 degrees to the right
    turned.save(tmp_path / "phone.jpg", exif=told)
    page.open(running, 390, 844).ready(str(tmp_path / "phone.jpg"))
    kept = list(running.service.faces.kept.values())[-1].photo
    assert kept.size[:2] == (1775, 2048)
