"""The page, as a person uses it: a real Chromium, a real web server, the real model with random weights."""
import io
import re
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ASSETS = files("s3dnerf") / "assets"
PAGE = files("s3dnerf") / "service" / "page"
PHOTO = str(ASSETS / "demo_photo.jpg")
CONTROLS = {"button", "checkbox", "radio", "slider", "spinbutton", "textbox", "combobox", "link", "image", "dialog", "radiogroup",
            "progressbar", "region", "form", "ColorWell", "Video"}
RATE = 25


class Page:
    """A window that shows the page, and short words for what a person does."""

    def __init__(self, window, tools, folder):
        self.window, self.tools, self.folder = window, tools, Path(folder)

    def open(self, running, width=1280, height=900, dark=False):
        """The page afresh, with a gallery of its own."""
        self.tools.resize(self.window, width, height, dark)
        self.url = str(running.client.base_url) + "/"
        self.window.get(self.url)
        self.script("localStorage.clear(); history.replaceState(null, '', '/')")
        self.window.get(self.url)
        self.window.get_log("browser")
        self.until("document.body.dataset.state === 'empty'")
        return self

    def script(self, code, *values):
        return self.window.execute_script(code, *values)

    def until(self, condition, seconds=60):
        return self.tools.wait(self.window, condition, seconds)

    def find(self, name):
        return self.window.find_element("id", name)

    def click(self, name):
        self.script("arguments[0].scrollIntoView({block: 'center'})", self.find(name))
        self.find(name).click()

    def text(self, name):
        return self.find(name).text

    def shown(self, name):
        self.still()
        return self.find(name).is_displayed()

    def choose(self, name, value):
        """Presses one of several round buttons."""
        button = self.window.find_element("css selector", f'input[name={name}][value="{value}"]')
        self.script("arguments[0].click()", button)

    def slide(self, name, value):
        self.script("const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('input', {bubbles: true}))",
                    name, value)

    def offer(self, photo=None, speech=None):
        self.tools.offer(self.window, photo, speech)

    def ready(self, photo=PHOTO, speech=None):
        """A photo, and a speech where one is given, are taken; the live view is there."""
        self.offer(photo, speech)
        self.tools.ready(self.window)
        return self

    def settled(self):
        """Waits until the live view shows what is set, and gives its pixels [64, 64, 3]."""
        for _ in range(2):  # a request may just have been sent off by the event that was handled last
            time.sleep(0.05)
            self.until("document.getElementById('frame').dataset.pending === 'no'")
        return self.pixels("picture")

    def pixels(self, name):
        flat = self.script("""const c = document.createElement('canvas'); c.width = c.height = 64;
            const p = c.getContext('2d'); p.drawImage(document.getElementById(arguments[0]), 0, 0, 64, 64);
            return Array.from(p.getImageData(0, 0, 64, 64).data)""", name)
        return np.array(flat).reshape(64, 64, 4)[..., :3].astype(float)

    def still(self):
        """Waits until nothing moves in."""
        self.until("document.getAnimations().every((one) => one.playState === 'finished' || one.effect.getTiming().iterations === Infinity)")

    def start(self):
        self.click("consent")
        self.click("go")

    def state(self, *states, seconds=60):
        self.tools.in_state(self.window, *states, seconds=seconds)

    def complaints(self):
        """What the browser found wrong: breaches of the content security policy, exceptions."""
        return [line["message"] for line in self.window.get_log("browser") if line["level"] == "SEVERE"]

    def nameless(self):
        """Roles of what a screen reader meets and has no name for."""
        nodes = self.window.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        found = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
        assert len([role for role, _ in found if role in CONTROLS]) > 5
        return [role for role, name in found if role in CONTROLS and not name.strip()]

    def faint(self):
        """Texts whose contrast with what is behind them is below 4.5 to 1."""
        return self.script("""
            const point = Object.assign(document.createElement('canvas'), {width: 1, height: 1}).getContext('2d', {willReadFrequently: true});
            const seen = (layers) => { point.clearRect(0, 0, 1, 1); for (const layer of layers) { point.fillStyle = layer; point.fillRect(0, 0, 1, 1); }
              return Array.from(point.getImageData(0, 0, 1, 1).data).slice(0, 3); };
            const light = (rgb) => { const [r, g, b] = rgb.map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
              return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
            const bad = [];
            for (const element of document.querySelectorAll('body *')) {
              const text = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join('');
              if (!text || !element.checkVisibility() || element.closest('svg, .hidden, .skip, :disabled')) continue;
              const layers = [];
              for (let at = element; at; at = at.parentElement) layers.unshift(getComputedStyle(at).backgroundColor);
              const behind = seen(layers), front = seen([`rgb(${behind})`, getComputedStyle(element).color]);
              const [a, b] = [light(front), light(behind)].sort((x, y) => y - x);
              if ((a + 0.05) / (b + 0.05) < 4.5) bad.push(`${text}: ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
            }
            return bad""")


@pytest.fixture(scope="module")
def page(load_script, tmp_path_factory):
    tools, folder = load_script("screenshots"), tmp_path_factory.mktemp("browser")
    window = tools.browser(folder, *tools.SIZES["desktop"])
    if window is None:
        pytest.skip("no chromium with its driver is installed; `make test-browser` installs Debian's")
    yield Page(window, tools, folder)
    window.quit()


@pytest.fixture(scope="module")
def running(serve, bundle, tmp_path_factory):
    from s3dnerf.service.settings import Settings

    people = tmp_path_factory.mktemp("people")
    (people / "eileen.jpg").write_bytes((ASSETS / "demo_photo.jpg").read_bytes())
    return serve(Settings(bundle, people=str(people), spare=False, max_seconds=30.0)).ready()


@pytest.fixture(scope="module")
def voices(babble, wav, tmp_path_factory):
    """Files of speech: 1 s, 29 s, and one that is none."""
    folder = tmp_path_factory.mktemp("voices")
    (folder / "short.wav").write_bytes(wav(babble(1.0)))
    (folder / "long.wav").write_bytes(wav(babble(29.0)))
    (folder / "none.wav").write_bytes(b"this is no sound at all")
    return folder


# without a browser -------------------------------------------------------------------------------------------------------

def test_the_page_needs_nobody_else_and_nothing_inline():
    html = (PAGE / "index.html").read_text()
    assert "<style" not in html and not re.search(r"\sstyle=|\son\w+=", html)
    assert re.findall(r"<script[^>]*>", html) == ['<script type="module" src="page.js">'] and "></script>" in html
    for file in PAGE.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.[a-z]", text), file
        assert len(text.splitlines()) <= 400, file
        for name in re.findall(r'from "\./([\w.]+)"', text):
            assert (PAGE / name).is_file()


def test_labels_and_scripts_name_what_is_there():
    html = (PAGE / "index.html").read_text()
    ids = re.findall(r'\bid="([\w-]+)"', html)
    assert len(ids) == len(set(ids))
    named = re.findall(r'\b(?:for|aria-labelledby|aria-describedby|aria-controls)="([\w-]+)"', html)
    for file in PAGE.glob("*.js") if hasattr(PAGE, "glob") else []:
        named += re.findall(r'\$\("([\w-]+)"\)', file.read_text())
    assert len(named) > 100 and set(named) <= set(ids), set(named) - set(ids)


# with one ----------------------------------------------------------------------------------------------------------------

def test_a_photo_shows_its_face_and_what_to_know_of_it(page, running, photo):
    told = running.client.post("/v1/faces", files={"photo": ("x", photo)}).json()
    page.open(running).ready().still()
    box, image = (page.script("const b = document.getElementById(arguments[0]).getBoundingClientRect(); return [b.left, b.top, b.width, b.height]", name)
                  for name in ("box", "picture"))
    face = [told["face"][key] / 512 for key in ("left", "top", "width", "height")]
    found = [(box[0] - image[0]) / image[2], (box[1] - image[1]) / image[3], box[2] / image[2], box[3] / image[3]]
    assert np.allclose(found, face, atol=0.01)
    assert told["warnings"][0]["message"].lower() in page.text("notes").lower()
    assert page.complaints() == []


def test_dragging_and_arrow_keys_turn_the_head_and_home_brings_it_back(page, running, photo):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    ahead = page.open(running).ready().settled()
    view = page.find("view")
    ActionChains(page.window).click_and_hold(view).move_by_offset(view.size["width"] // 4, view.size["height"] // 16).release().perform()
    turned = page.settled()
    assert page.text("angle") == "20° right, 5° down" and page.find("turn").get_attribute("value") == "20"
    assert not page.shown("box")

    def rendered(camera):
        answer = running.client.post("/v1/preview", files={"photo": ("x", photo)}, data={"camera": camera, "frame": "full"})
        return np.asarray(Image.open(io.BytesIO(answer.content)).resize((64, 64), Image.Resampling.BOX)).astype(float)

    # the head follows the hand: to the right and down is seen from the left and above
    wanted, other = rendered("-20,5"), rendered("20,-5")
    assert np.abs(turned - wanted).mean() < 0.5 * np.abs(turned - other).mean() and np.abs(turned - ahead).max() > 20
    view.send_keys(Keys.ARROW_LEFT, Keys.ARROW_UP)
    assert view.get_attribute("aria-valuenow") == "17" and view.get_attribute("aria-valuetext") == "17° right, 2° down"
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

    assert (seen((-20, 5)) - seen((0, 0)) > 2).all()  # pixels, x to the right and y down


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
    from s3dnerf.media import video_info

    page.open(running).ready(speech=voices / "short.wav")
    page.until("document.getElementById('clock').textContent === '0:01'")
    page.slide("turn", 10)
    page.settled()
    page.start()
    page.state("done")
    (job,) = running.client.get("/v1/videos", headers={"X-Gallery": page.script("return localStorage.getItem('s3dnerf-gallery')")}).json()["videos"]
    assert page.text("facts").split("\n") == ["Size", "512 × 512", "Frames", "25", "Length", "1.0 s"]
    page.click("listen")
    page.until("document.getElementById('video').currentTime > 0.2")
    page.until("document.querySelector('#heard rect').getAttribute('width') !== '0%'")
    page.until("document.getElementById('video').ended")
    page.click("compare")
    assert np.abs(page.pixels("overlay") - np.asarray(Image.open(PHOTO).resize((64, 64), Image.Resampling.BOX))).mean() < 12
    page.slide("share", 100)
    assert page.script("return getComputedStyle(document.getElementById('overlay')).clipPath").startswith("inset(0px 0")
    page.click("download")
    running.until(lambda: list(page.folder.glob("*.mp4")))
    (file,) = page.folder.glob("*.mp4")
    assert round(video_info(str(file)).seconds * RATE) == 25 and file.read_bytes() == running.client.get(job["video_url"]).content
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


def test_frames_appear_while_they_are_rendered_and_cancel_ends_it(page, running, voices):
    page.open(running).ready(speech=voices / "long.wav")
    page.start()
    page.state("running")
    page.until("document.getElementById('picture').alt === 'The newest frame'")
    first = page.script("return document.getElementById('picture').src")
    page.until(f"document.getElementById('picture').src !== {first!r}")
    later = page.script("return document.getElementById('picture').src")
    numbers = [int(re.fullmatch(r".*/preview\.jpg\?frame=(\d+)", source)[1]) for source in (first, later)]
    assert 0 < numbers[0] < numbers[1] and page.pixels("picture").std() > 20
    page.until("/^\\d+ of 725$/.test(document.getElementById('frames').textContent)")
    page.until("/ a second$/.test(document.getElementById('speed').textContent) && / s$/.test(document.getElementById('left').textContent)")
    assert 0 < page.script("return document.getElementById('bar').value") < 1 and page.window.title.endswith("% – s3dnerf")
    page.click("watch")
    page.until("document.getElementById('video').currentTime > 0.1")
    page.click("cancel")
    page.state("failed")
    assert page.text("failed-title") == "Cancelled" and not page.find("reason").get_attribute("class")
    gallery = {"X-Gallery": page.script("return localStorage.getItem('s3dnerf-gallery')")}
    assert [job["state"] for job in running.client.get("/v1/videos", headers=gallery).json()["videos"]] == ["cancelled"]
    page.click("back")
    assert page.shown("view") and page.find("consent").is_selected()


def test_what_cannot_be_used_is_told_and_all_else_is_kept(page, running, voices):
    page.open(running).ready(speech=voices / "none.wav")
    page.start()
    page.state("failed")
    wanted = running.make((ASSETS / "demo_photo.jpg").read_bytes(), (voices / "none.wav").read_bytes()).json()["error"]["message"]
    assert page.text("reason").lower() == wanted.lower()
    page.click("back")
    page.offer(speech=voices / "short.wav")
    page.click("go")
    page.state("done")


def test_what_is_missing_is_told_where_it_is_given(page, running, voices):
    page.open(running)
    for text, name in (("photo", "photo-file"), ("voice", "voice-file"), ("agreed", "consent")):
        page.click("go")
        assert text in page.text("missing") and page.script("return document.activeElement.id") == name
        if name == "photo-file":
            page.ready()
        elif name == "voice-file":
            page.offer(speech=voices / "short.wav")
    assert running.client.get("/v1/videos", headers={"X-Gallery": page.script("return localStorage.getItem('s3dnerf-gallery')")}).json() == {"videos": []}


def test_the_microphone_and_the_camera(page, running):
    page.open(running)
    page.click("camera")
    page.until("document.getElementById('mirror').videoWidth > 0")
    page.click("shoot")  # the browser's test picture
    page.until("document.querySelector('#notes .problem') !== null")
    assert "no face" in page.text("notes").lower() and page.shown("empty")
    page.ready()
    page.click("record")
    page.until("document.getElementById('clock').textContent === '0:01'")
    page.click("record")
    page.until("!document.getElementById('listen').hidden && document.querySelectorAll('#wave .under')[0].getAttribute('d').length > 100")
    heights = set(re.findall(r"v([\d.]+)", page.script("return document.querySelector('#wave .under').getAttribute('d')")))
    assert len(heights) > 5
    page.start()
    page.state("done")
    assert page.script("return document.getElementById('video').duration || 1") > 0.9


def test_files_are_dropped_and_the_example_is_at_hand(page, running):
    page.open(running)
    page.script("""const files = new DataTransfer(); files.items.add(new File(['none'], 'notes.txt', {type: 'text/plain'}));
        window.dispatchEvent(new DragEvent('drop', {dataTransfer: files, cancelable: true, bubbles: true}))""")
    assert "notes.txt" in page.text("notes")
    page.click("example")
    page.tools.ready(page.window)
    page.until("document.getElementById('clock').textContent === '0:07'")
    page.open(running)
    page.script("""fetch('/example/photo.jpg').then((answer) => answer.blob()).then((blob) => { const files = new DataTransfer();
        files.items.add(new File([blob], 'me.jpg', {type: 'image/jpeg'}));
        window.dispatchEvent(new DragEvent('drop', {dataTransfer: files, cancelable: true, bubbles: true})) })""")
    page.tools.ready(page.window)


def test_a_stored_person_needs_no_photo(page, running, voices):
    page.open(running)
    page.until("!document.getElementById('people').hidden")
    page.find("person").send_keys("eileen")
    page.tools.ready(page.window)
    page.offer(speech=voices / "short.wav")
    page.start()
    page.state("done")
    assert not page.shown("compare")


def test_every_control_has_a_name_and_every_text_contrast(page, running, voices):
    for dark in (False, True):
        page.open(running, dark=dark)
        assert page.nameless() == [] and page.faint() == []
        page.ready(speech=voices / "short.wav")
        page.script("document.querySelector('details').open = true; for (const field of document.querySelectorAll('.field')) field.hidden = false")
        assert page.nameless() == [] and page.faint() == []
    page.start()
    page.state("done")
    page.click("compare")
    assert page.nameless() == [] and page.faint() == []
    # and the checks would tell
    page.script("""document.getElementById('listen').removeAttribute('aria-label'); document.getElementById('done-title').style.color = '#777';
        document.getElementById('panel').style.background = '#333'""")
    assert page.nameless() == ["button"] and any(text.startswith("Your video is ready") for text in page.faint())


def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(page, running):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    page.open(running).ready()
    page.script("document.activeElement.blur(); window.getSelection().removeAllRanges()")
    visited = []
    for _ in range(60):
        ActionChains(page.window).send_keys(Keys.TAB).perform()
        name, seen = page.script("""const at = document.activeElement;
            const marks = [at, at.nextElementSibling, ...(at.labels ?? [])].filter(Boolean).map((e) => getComputedStyle(e));
            return [at.id || at.name || at.tagName, marks.some((s) => s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2)]""")
        if name == "BODY" or name in visited:
            break
        assert seen, f"nothing shows that {name} has the focus"
        visited.append(name)
    order = ["view", "peek", "change-photo", "voice-file", "record", "turn", "tilt", "zoom", "pose", "eyes", "gain", "frame", "background",
             "SUMMARY", "consent", "statement", "go"]
    assert [name for name in visited if name in order] == order


@pytest.mark.parametrize("state", ["empty", "ready"])
def test_a_phone_shows_everything_without_scrolling_sideways(page, running, state):
    page.open(running, 390, 844)
    if state == "ready":
        page.ready()
    assert page.script("return document.documentElement.scrollWidth") <= 390
    small = page.script("""return [...document.querySelectorAll('button, .button, input, select, summary')].filter((e) => e.checkVisibility()
        && !e.classList.contains('hidden')).map((e) => [e.id || e.textContent, e.getBoundingClientRect()])
        .filter(([, r]) => r.width < 20 || r.height < 20 || r.right > 390).map(([name]) => name)""")
    assert small == []


def test_who_wants_less_motion_gets_none(page, running):
    page.open(running).ready()
    page.script("document.getElementById('frame').style.setProperty('--lean-y', '12deg')")
    lean = "return getComputedStyle(document.getElementById('picture')).transform"
    assert page.script(lean) != "none"
    page.window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]})
    assert page.script(lean) == "none"


def test_a_server_with_a_key_asks_for_it_once(page, serve, bundle):
    from s3dnerf.service.settings import Settings

    locked = serve(Settings(bundle, api_key="open sesame", spare=False)).ready()
    page.open(locked)
    page.until("document.getElementById('lock').open")
    page.find("key").send_keys("guess\n")
    page.until("!document.getElementById('lock-problem').hidden")
    page.find("key").clear()
    page.find("key").send_keys("open sesame\n")
    page.until("!document.getElementById('lock').open")
    page.ready()
    page.window.refresh()
    page.until("document.body.dataset.state === 'empty'")
    assert not page.shown("lock")


def test_a_server_that_is_full_or_gone_is_told(page, running, voices, monkeypatch):
    from s3dnerf.service.settings import Refusal

    page.open(running).ready(speech=voices / "short.wav")
    monkeypatch.setattr(running.service.book, "reserve", lambda: (_ for _ in ()).throw(Refusal(429, "busy", "16 videos wait already", 30)))
    page.start()
    page.state("failed")
    assert page.text("failed-title") == "The queue is full" and "30 s" in page.text("reason")
    monkeypatch.undo()
    page.window.execute_cdp_cmd("Network.enable", {})
    page.window.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1})
    page.click("retry")
    page.until("document.getElementById('reason').textContent.includes('cannot be reached')")
    page.window.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1})
    page.click("retry")
    page.state("done")
