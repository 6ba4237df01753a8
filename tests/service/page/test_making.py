"""The page, as a person uses it who makes a video."""
import io
import re
from importlib.resources import files

import numpy as np
from PIL import Image

ASSETS = files("s3dnerf") / "assets"
PHOTO = str(ASSETS / "demo_photo.jpg")
MINE = "return localStorage.getItem('s3dnerf-gallery')"
PLACE = "const b = document.getElementById(arguments[0]).getBoundingClientRect(); return [b.left, b.top, b.width, b.height]"


def test_a_photo_shows_its_face_and_what_to_know_of_it(page, running, tmp_path):
    small = tmp_path / "small.png"
    Image.open(PHOTO).resize((360, 360), Image.Resampling.LANCZOS).save(small)
    told = running.client.post("/v1/faces", files={"photo": ("x", small.read_bytes())}).json()
    page.open(running).ready(str(small)).still()
    box, image = (page.script(PLACE, name) for name in ("box", "picture"))
    face = [told["face"][key] / 360 for key in ("left", "top", "width", "height")]
    found = [(box[0] - image[0]) / image[2], (box[1] - image[1]) / image[3], box[2] / image[2], box[3] / image[3]]
    assert np.allclose(found, face, atol=0.01)
    assert told["warnings"][0]["message"].lower() in page.text("notes").lower()
    assert page.complaints() == []


def test_dragging_and_arrow_keys_turn_the_head_and_home_brings_it_back(page, running, photo):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    ahead = page.open(running).ready().settled()
    view = page.find("view")
    way = view.size["width"] // 4, view.size["height"] // 4
    ActionChains(page.window).click_and_hold(view).move_by_offset(*way).release().perform()
    turned = page.settled()
    assert page.text("angle") == "20° right, 20° down" and page.find("turn").get_attribute("value") == "20"
    assert not page.shown("box")

    def rendered(camera):
        answer = running.client.post("/v1/preview", files={"photo": ("x", photo)}, data={"camera": camera, "frame": "full"})
        return np.asarray(Image.open(io.BytesIO(answer.content)).resize((64, 64), Image.Resampling.BOX)).astype(float)

    # the head follows the hand: to the right and down is seen from the left and above
    off = {camera: np.abs(turned - rendered(camera)).mean() for camera in ("-20,20", "20,20", "-20,-20", "20,-20")}
    assert off.pop("-20,20") < 0.5 * min(off.values()) and np.abs(turned - ahead).max() > 20
    view.send_keys(Keys.ARROW_LEFT, Keys.ARROW_UP)
    assert view.get_attribute("aria-valuenow") == "17" and view.get_attribute("aria-valuetext") == "17° right, 17° down"
    assert not np.array_equal(page.settled(), turned)
    view.send_keys(Keys.HOME)
    assert np.array_equal(page.settled(), ahead) and page.shown("box")


def test_a_head_that_is_seen_from_the_left_and_above_looks_right_and_down():
    import torch

    from s3dnerf.camera_path import CameraPath
    from s3dnerf.face import metric_face
    from s3dnerf.geometry import frontal_camera, project

    nose = torch.from_numpy(metric_face()[1])[None, None]

    def seen(camera):
        around = CameraPath.fixed(camera).around(frontal_camera(256).map(lambda x: x[None]))
        return project(nose, around)[0][0, 0]

    assert (seen((-20, 20)) - seen((0, 0)) > 2).all()  # pixels, x to the right and y down


def test_options_change_the_live_view(page, running):
    before = page.open(running).ready().settled()
    page.choose("background", "#00b140")
    green = page.settled()
    assert np.abs(green[2, -3] - (0, 177, 64)).max() < 12 and np.abs(before[2, -3] - (0, 177, 64)).max() > 60
    assert not page.shown("open")
    page.choose("eyes", "open")
    page.slide("open", 0)
    assert page.shown("open") and np.abs(page.settled() - green).max() > 3
    page.slide("gain", 3)
    wide = page.settled()
    page.slide("gain", 0)
    assert np.abs(page.settled() - wide).max() > 3
    page.choose("frame", "face")
    page.settled()
    assert page.script("return document.getElementById('picture').naturalWidth") == 64 and not page.shown("box")
    page.click("peek")
    assert page.shown("box") and page.script("return document.getElementById('picture').naturalWidth") == 512
    page.script("document.querySelector('details').open = true")
    page.click("defaults")
    assert np.array_equal(page.settled(), before)


def test_a_video_is_made_played_compared_downloaded_and_deleted(page, running, voices):
    from s3dnerf.media import FPS, video_info

    page.open(running).ready(speech=voices / "short.wav")
    page.until("document.getElementById('clock').textContent === '0:01'")
    page.slide("turn", 10)
    page.settled()
    page.start()
    page.state("done")
    (job,) = running.client.get("/v1/videos", headers={"X-Gallery": page.script(MINE)}).json()["videos"]
    assert page.text("facts").split("\n")[:7] == ["Size", "512 × 512", "Frames", "25", "Length", "1.0 s", "Kept here until"]
    page.click("listen")
    page.until("document.getElementById('video').currentTime > 0.2")
    page.until("document.querySelector('#heard rect').getAttribute('width') !== '0%'")
    page.until("document.getElementById('video').ended")
    page.click("compare")
    small = np.asarray(Image.open(PHOTO).resize((64, 64), Image.Resampling.BOX))
    running.until(lambda: np.abs(page.pixels("overlay") - small).mean() < 12)  # it is drawn once it is decoded
    page.slide("share", 100)
    assert page.script("return getComputedStyle(document.getElementById('overlay')).clipPath").startswith("inset(0px 0")
    page.click("download")
    content = running.client.get(job["video_url"]).content
    file = page.folder / f"s3dnerf-{job['id'][:6]}.mp4"
    running.until(lambda: file.exists() and file.stat().st_size >= len(content))  # the browser begins with an empty one
    assert file.read_bytes() == content and round(video_info(str(file)).seconds * FPS) == 25
    file.unlink()
    assert len(page.window.find_elements("css selector", "#cards li")) == 1
    page.window.get(page.url + "#" + job["id"])
    page.window.refresh()
    page.state("done")  # it is found again by its address
    assert not page.shown("compare")
    page.window.find_element("css selector", ".bin").click()
    assert page.shown("sure")
    page.click("delete")
    page.until("document.getElementById('gallery').hidden")
    assert running.client.get(job["url"]).status_code == 404
    assert page.complaints() == []


def test_frames_appear_while_they_are_rendered_and_cancel_ends_it(page, running, voices, hold):
    page.open(running).ready(speech=voices / "long.wav")
    with hold(40) as let:
        frames_appear(page, let)
    gallery = {"X-Gallery": page.script(MINE)}
    assert [job["state"] for job in running.client.get("/v1/videos", headers=gallery).json()["videos"]] == ["cancelled"]
    page.click("back")
    assert page.shown("view") and page.find("consent").is_selected()


def frames_appear(page, let):
    page.start()
    page.state("running")
    page.until("document.getElementById('picture').alt === 'The newest frame'")
    first = page.script("return document.getElementById('picture').src")
    let(120)  # of 725: it is under way until it is given up
    page.until(f"document.getElementById('picture').src !== {first!r}")
    later = page.script("return document.getElementById('picture').src")
    numbers = [int(re.fullmatch(r".*/preview\.jpg\?frame=(\d+)", source)[1]) for source in (first, later)]
    assert 0 < numbers[0] < numbers[1] and page.pixels("picture").std() > 20
    page.until("/^\\d+ of 725$/.test(document.getElementById('frames').textContent)")
    page.until("/ a second$/.test(document.getElementById('speed').textContent)")
    page.until("/ s$/.test(document.getElementById('left').textContent)")
    assert 0 < page.script("return document.getElementById('bar').value") < 1 and page.window.title.endswith("% – s3dnerf")
    page.click("watch")
    page.until("document.getElementById('video').currentTime > 0.1")
    page.click("cancel")
    page.state("failed")
    assert page.text("failed-title") == "Cancelled" and not page.find("reason").get_attribute("class")
    assert page.script("return document.getElementById('video').paused")  # else what was there already is heard
    assert page.find("listen").get_attribute("aria-label") == "Play"


def test_who_watches_a_video_while_it_renders_sees_it_to_its_end(page, running, voices, hold):
    page.open(running).ready(speech=voices / "short.wav")
    with hold(20) as let:  # of 25
        page.start("face")
        page.state("running")
        page.until("!document.getElementById('watch').hidden")
        page.click("watch")
        page.until("document.getElementById('video').currentTime > 0.1")
        let(25)
        page.state("done")
    page.until("document.getElementById('video').ended", 20)
    page.until("document.getElementById('listen').getAttribute('aria-label') === 'Play'")


def test_files_are_dropped_and_the_example_is_at_hand(page, running):
    page.open(running)
    page.script("""const files = new DataTransfer(); files.items.add(new File(['none'], 'notes.txt', {type: 'text/plain'}));
        window.dispatchEvent(new DragEvent('drop', {dataTransfer: files, cancelable: true, bubbles: true}))""")
    assert "notes.txt" in page.text("notes")
    page.click("example")
    page.tools.ready(page.window)
    page.until("document.getElementById('clock').textContent === '0:07'")
    page.open(running)
    page.script("""fetch('/example/photo.jpg').then((answer) => answer.blob()).then((blob) => {
        const files = new DataTransfer();
        files.items.add(new File([blob], 'me.jpg', {type: 'image/jpeg'}));
        window.dispatchEvent(new DragEvent('drop', {dataTransfer: files, cancelable: true, bubbles: true})) })""")
    page.tools.ready(page.window)


def test_a_stored_person_needs_no_photo(page, running, voices):
    page.open(running)
    page.until("!document.getElementById('people').hidden")
    page.find("person").send_keys("eileen")
    page.tools.ready(page.window)
    page.offer(speech=voices / "short.wav")
    page.start("face")
    page.state("done")
    assert not page.shown("compare")
