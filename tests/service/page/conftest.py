"""The page in a real Chromium, in front of a real web server and the real model with random weights."""
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

ASSETS = files("s3dnerf") / "assets"
PHOTO = str(ASSETS / "demo_photo.jpg")
CONTROLS = {"button", "checkbox", "radio", "slider", "spinbutton", "textbox", "combobox", "link", "image", "dialog",
            "radiogroup", "progressbar", "region", "form", "ColorWell", "Video"}


class Page:
    """A window that shows the page, and short words for what a person does."""

    def __init__(self, window, tools, folder):
        self.window, self.tools, self.folder = window, tools, Path(folder)

    def open(self, running, width=1280, height=900, dark=False):
        """The page afresh, with a gallery of its own."""
        self.tools.resize(self.window, width, height, dark)
        self.url = str(running.client.base_url) + "/"
        self.window.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": self.url, "storageTypes": "local_storage"})
        self.window.get_log("browser")
        self.window.get(self.url)
        self.until("document.body.dataset.state === 'empty'")
        return self

    def script(self, code, *values):
        return self.window.execute_script(code, *values)

    def until(self, condition, seconds=120):
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
        self.script("""const slider = document.getElementById(arguments[0]);
            slider.value = arguments[1];
            slider.dispatchEvent(new Event('input', {bubbles: true}))""", name, value)

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
        self.until("""document.getAnimations().every((one) => one.playState === 'finished'
            || one.effect.getTiming().iterations === Infinity)""")

    def start(self, frame="full"):
        """Agrees, and has the video made."""
        self.choose("frame", frame)
        self.click("consent")
        self.click("go")

    def state(self, *states, seconds=120):
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
            const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1});
            const point = canvas.getContext('2d', {willReadFrequently: true});
            const seen = (layers) => {
              point.clearRect(0, 0, 1, 1);
              for (const layer of layers) { point.fillStyle = layer; point.fillRect(0, 0, 1, 1); }
              return Array.from(point.getImageData(0, 0, 1, 1).data).slice(0, 3); };
            const linear = (v) => v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
            const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
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


@pytest.fixture(scope="session")
def page(load_script, tmp_path_factory):
    tools, folder = load_script("screenshots"), tmp_path_factory.mktemp("browser")
    window = tools.browser(folder, *tools.SIZES["desktop"])
    if window is None:
        pytest.skip("no chromium with its driver is installed; `make test-browser` installs Debian's")
    window.set_script_timeout(300)  # where other programs want the machine, half a minute is over soon
    yield Page(window, tools, folder)
    window.quit()


@pytest.fixture(scope="session")
def running(serve, bundle, tmp_path_factory):
    from s3dnerf.service.settings import Settings

    people = tmp_path_factory.mktemp("people")
    (people / "eileen.jpg").write_bytes((ASSETS / "demo_photo.jpg").read_bytes())
    return serve(Settings(bundle, people=str(people), spare=False, max_seconds=30.0, share=1)).ready()


@pytest.fixture(scope="session")
def voices(babble, wav, tmp_path_factory):
    """Files of speech: 1 s, 29 s, and one that is none."""
    folder = tmp_path_factory.mktemp("voices")
    (folder / "short.wav").write_bytes(wav(babble(1.0)))
    (folder / "long.wav").write_bytes(wav(babble(29.0)))
    (folder / "none.wav").write_bytes(b"this is no sound at all")
    return folder
