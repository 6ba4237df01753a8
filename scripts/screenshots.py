#!/usr/bin/env python3
"""Pictures of the service's page in a headless Chromium, at the width of a desktop and of a phone.

    s3dnerf serve &
    screenshots.py --url http://127.0.0.1:8000/ --output shots
    screenshots.py --url http://127.0.0.1:8000/ --output shots --docs docs

Writes {desktop,phone,dark}_{empty,ready,turned,running,done,compared,failed}.png with the demo's photo and speech, and, with
--docs, page.png and page_phone.png, the finished video, in few colours. Wants Debian's chromium and chromium-driver.
"""
import argparse
import base64
import io
import shutil
import tempfile
import time
from pathlib import Path

ASSETS = Path(__file__).parent.parent / "s3dnerf" / "assets"
SIZES = {"desktop": (1280, 900), "phone": (390, 844), "dark": (1280, 900)}
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
         "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


def browser(folder, width, height, dark=False):
    """A Chromium that keeps what it needs, and what it downloads, in a folder; None where none is installed."""
    from selenium import webdriver

    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        return None
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={folder}/profile"):
        options.add_argument(flag)
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    window.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    resize(window, width, height, dark)
    return window


def resize(window, width, height, dark=False):
    """Gives the page a size in pixels, a phone's ways below 500, and light or dark colours."""
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                           {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500})
    window.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width < 500, "maxTouchPoints": 5 if width < 500 else 1})
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def wait(window, condition, seconds=60):
    """Waits until a JavaScript expression holds."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(window, seconds, 0.05).until(lambda now: now.execute_script(f"return {condition}"), condition)


def in_state(window, *states, seconds=300):
    """Waits until the page is in one of the states."""
    wait(window, f"{list(states)}.includes(document.body.dataset.state)", seconds)


def offer(window, photo=None, speech=None):
    """Chooses files."""
    for name, file in (("photo-file", photo), ("voice-file", speech)):
        if file is not None:
            window.find_element("id", name).send_keys(str(file))


def ready(window):
    """Waits until the face is found and the live view is there."""
    in_state(window, "ready")
    wait(window, "document.getElementById('picture').alt.startsWith('Live view') && document.getElementById('busy').hidden")


def shot(window):
    """The visible page as a PNG, pictures and movements settled."""
    time.sleep(0.6)
    return base64.b64decode(window.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"])


def states(window, url, broken):
    """Yields (name, PNG) of the page in all its states."""
    from selenium.webdriver.common.action_chains import ActionChains

    click = lambda name: window.find_element("id", name).click()
    window.get(url)
    wait(window, "document.body.dataset.state === 'empty'")
    yield "empty", shot(window)
    offer(window, ASSETS / "demo_photo.jpg", ASSETS / "demo_speech.wav")
    ready(window)
    yield "ready", shot(window)
    view = window.find_element("id", "view")
    ActionChains(window).click_and_hold(view).move_by_offset(view.size["width"] // 6, 0).release().perform()
    time.sleep(3)
    yield "turned", shot(window)
    click("consent")
    click("go")
    in_state(window, "running")
    wait(window, "document.getElementById('bar').value > 0.4", 200)
    wait(window, "document.getElementById('picture').alt.startsWith('The newest')")
    window.execute_script("scrollTo(0, 0)")
    yield "running", shot(window)
    in_state(window, "done", seconds=200)
    window.execute_script("document.getElementById('video').currentTime = 1.5; scrollTo(0, 0)")
    yield "done", shot(window)
    click("compare")
    window.execute_script("scrollTo(0, 0)")
    yield "compared", shot(window)
    click("again")
    offer(window, speech=broken)
    click("go")
    in_state(window, "failed", seconds=60)
    window.execute_script("scrollTo(0, 0)")
    yield "failed", shot(window)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000/")
    parser.add_argument("--output", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--docs", type=Path, help="folder of page.png and page_phone.png")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        broken = Path(folder, "speech.wav")
        broken.write_bytes(b"no sound at all")
        window = browser(folder, *SIZES["desktop"])
        if window is None:
            raise SystemExit("found no chromium with its driver; install Debian's chromium and chromium-driver")
        try:
            for name, size in SIZES.items():
                resize(window, *size, dark=name == "dark")
                for state, picture in states(window, options.url, broken):
                    (options.output / f"{name}_{state}.png").write_bytes(picture)
                    if options.docs and state == "done" and name != "dark":
                        few_colours(picture, options.docs / {"desktop": "page.png", "phone": "page_phone.png"}[name])
        finally:
            window.quit()


def few_colours(picture, path, longest=1000):
    """Writes a PNG smaller, with 256 colours."""
    from PIL import Image

    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    image.quantize(palette=image.quantize(256), dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


if __name__ == "__main__":
    main()
