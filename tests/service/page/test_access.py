"""The page for those who do not see it, use no mouse, or want less motion."""
import re
from importlib.resources import files

import numpy as np
import pytest

PAGE = files("s3dnerf") / "service" / "page"


def test_every_control_has_a_name_and_every_text_contrast(page, running, voices):
    for dark in (False, True):
        page.open(running, dark=dark)
        assert page.nameless() == [] and page.faint() == []
        page.ready(speech=voices / "short.wav")
        page.script("""document.querySelector('details').open = true;
            for (const field of document.querySelectorAll('.field')) field.hidden = false""")
        assert page.nameless() == [] and page.faint() == []
    page.start()
    page.state("done")
    page.click("compare")
    assert page.nameless() == [] and page.faint() == []
    # and the checks would tell
    page.script("""document.getElementById('listen').removeAttribute('aria-label');
        document.getElementById('done-title').style.color = '#777';
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
            const marked = marks.some((style) => style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2);
            return [at.id || at.name || at.tagName, marked]""")
        if name == "BODY" or name in visited:
            break
        assert seen, f"nothing shows that {name} has the focus"
        visited.append(name)
    order = ["view", "peek", "change-photo", "voice-file", "record", "turn", "tilt", "zoom", "pose", "eyes", "gain", "frame",
             "background", "SUMMARY", "consent", "statement", "go"]
    assert [name for name in visited if name in order] == order


def test_who_wants_less_motion_gets_none(page, running):
    page.open(running).ready()
    page.script("document.getElementById('frame').style.setProperty('--lean-y', '12deg')")
    lean = "return getComputedStyle(document.getElementById('picture')).transform"
    assert page.script(lean) != "none"
    less = {"name": "prefers-reduced-motion", "value": "reduce"}
    page.window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [less]})
    assert page.script(lean) == "none"


def test_what_happens_is_told_to_who_does_not_see_it(page, running, voices, hold):
    """Every state takes the focus to its heading; what changes meanwhile is said in a live region, politely."""
    page.open(running)
    tree = page.window.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = [node["role"]["value"] for node in tree if not node["ignored"]]
    assert {"main", "banner", "heading", "status"} <= set(roles)
    live = {name: page.find(name).get_attribute("aria-live") or page.find(name).get_attribute("role")
            for name in ("live", "notes", "missing")}
    assert live == {"live": "polite", "notes": "polite", "missing": "alert"}
    page.script("""self.said = [];
        new MutationObserver(() => said.push(document.getElementById('live').textContent))
            .observe(document.getElementById('live'), {childList: true})""")
    page.ready(speech=voices / "short.wav")
    for quarter, frames in ((25, 8), (50, 16)):  # a machine that is not held up may be past them before the page has heard of it
        with hold(frames):
            if quarter == 25:
                page.start("face")
            page.until(f"said.includes('{quarter} percent rendered')")
    page.state("done")
    said = page.script("return said")
    assert "Found the face" in said and "The voice lasts 1 second" in said
    assert page.script("return document.activeElement.id") == "done-title"


def shades(scheme):
    """The named colours of the style sheet, in light or in dark."""
    text = (PAGE / "page.css").read_text()
    light, dark = text.split("@media (prefers-color-scheme: dark)", 1)
    named = dict(re.findall(r"--([a-z-]+): #([0-9a-f]{6})", light))
    return named if scheme == "light" else named | dict(re.findall(r"--([a-z-]+): #([0-9a-f]{6})", dark.split("* {", 1)[0]))


def contrast(one, other):
    """WCAG 2.1: of relative luminances."""
    def luminance(colour):
        parts = np.array([int(colour[i:i + 2], 16) for i in (0, 2, 4)]) / 255
        return np.dot(np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4), (0.2126, 0.7152, 0.0722))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_the_edges_of_controls_stand_out(scheme):
    assert abs(contrast("ffffff", "000000") - 21) < 1e-6 and abs(contrast("777777", "ffffff") - 4.48) < 0.01
    colours = shades(scheme)
    for text, behind in (("ink", "paper"), ("ink", "card"), ("soft", "card"), ("soft", "paper"), ("on-accent", "accent"),
                         ("accent", "card"), ("accent", "wash"), ("warn", "warn-wash"), ("bad", "bad-wash"), ("warn", "card"),
                         ("card", "bad"), ("soft", "stage")):
        assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)
    for mark, behind in (("edge", "card"), ("edge", "paper"), ("accent", "card"), ("accent", "paper"), ("accent", "stage")):
        assert contrast(colours[mark], colours[behind]) >= 3, (mark, behind)
