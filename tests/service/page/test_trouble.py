"""The page where something is missing, refused, full or gone."""
from importlib.resources import files

ASSETS = files("s3dnerf") / "assets"
MINE = "return localStorage.getItem('s3dnerf-gallery')"


def test_who_has_to_wait_is_told_so(page, running, voices, photo, hold):
    page.open(running).ready(speech=voices / "short.wav")
    with hold(16):
        first = running.make(photo, (voices / "short.wav").read_bytes(), frame="face").json()
        page.start("face")
        page.state("running")
        page.until("document.getElementById('running-title').textContent === 'Next in the queue'")
        assert page.text("live") == "Next in the queue" and page.window.title.startswith("Waiting")
        running.client.post(f"{first['url']}/cancel")
    page.state("done")


def test_what_cannot_be_used_is_told_and_all_else_is_kept(page, running, voices):
    page.open(running).ready(speech=voices / "none.wav")
    page.start("face")
    page.state("failed")
    told = running.make((ASSETS / "demo_photo.jpg").read_bytes(), (voices / "none.wav").read_bytes()).json()["error"]
    assert page.text("reason").lower() == told["message"].lower()
    page.click("back")
    page.offer(speech=voices / "short.wav")
    page.click("go")
    page.state("done")


def test_a_voice_that_is_too_long_is_told_until_there_is_another(page, running, voices, wav, tmp_path):
    (tmp_path / "long.wav").write_bytes(wav([0.0] * 16000 * 31))
    page.open(running).offer(speech=tmp_path / "long.wav")
    page.until("document.getElementById('notes').textContent.includes('at most 0:30')")
    page.offer(speech=voices / "short.wav")
    page.until("document.getElementById('notes').textContent === ''", 10)


def test_a_view_that_is_still_rendered_is_not_waited_for_elsewhere(page, running, voices):
    page.open(running).ready(speech=voices / "none.wav")
    page.script("""const real = self.fetch;
        self.asked = 0;
        self.fetch = async (path, options) => {
          if (path === 'v1/preview') { self.asked++; await new Promise((resolve) => { self.answer = resolve; }); }
          return real(path, options); }""")
    page.slide("turn", 8)
    page.until("self.asked === 1 && !document.getElementById('busy').hidden")
    page.start("face")
    page.until("!document.body.dataset.state.startsWith('ready')")
    page.state("failed")
    assert not page.shown("busy")
    page.script("answer()")
    page.until("document.getElementById('frame').dataset.pending === 'no'")
    assert not page.shown("busy") and page.script("return document.body.dataset.state") == "failed"


def test_what_is_missing_is_told_where_it_is_given(page, running, voices):
    page.open(running)
    for text, name in (("photo", "photo-file"), ("voice", "voice-file"), ("agreed", "consent")):
        page.click("go")
        assert text in page.text("missing") and page.script("return document.activeElement.id") == name
        if name == "photo-file":
            page.ready()
        elif name == "voice-file":
            page.offer(speech=voices / "short.wav")
    assert running.client.get("/v1/videos", headers={"X-Gallery": page.script(MINE)}).json() == {"videos": []}


def test_a_server_with_a_key_asks_for_it_once(page, serve, bundle):
    from s3dnerf.service.settings import Settings

    locked = serve(Settings(bundle, api_key="open sesame", spare=False)).ready()
    page.open(locked)
    page.until("document.getElementById('lock').open")
    page.find("key").send_keys("ключ\n")  # which no header can bring
    page.until("!document.getElementById('lock-problem').hidden")
    page.script("document.getElementById('lock-problem').hidden = true")
    page.find("key").clear()
    page.find("key").send_keys("guess\n")
    page.until("!document.getElementById('lock-problem').hidden")
    page.find("key").clear()
    page.find("key").send_keys("open sesame\n")
    page.until("!document.getElementById('lock').open")
    page.ready()
    page.window.refresh()
    page.until("document.body.dataset.state === 'empty'")
    assert not page.shown("lock")


def test_what_a_renderer_went_away_over_is_told_and_not_sent_again(page, running, monkeypatch):
    from s3dnerf.service.settings import Refusal

    asked = []

    async def crash(make, seconds=60.0):
        asked.append(make)
        raise Refusal(503, "crashed", "the renderer went away over this request; try again", 2)

    monkeypatch.setattr(running.service.crew, "ask", crash)
    page.open(running).offer(str(ASSETS / "demo_photo.jpg"))
    page.until("document.querySelector('#notes .problem') !== null", 20)
    assert "went away" in page.text("notes") and len(asked) == 1


def test_a_server_that_is_full_or_gone_is_told(page, running, voices, monkeypatch):
    from s3dnerf.service.settings import Refusal

    page.open(running).ready(speech=voices / "short.wav")

    def full():
        raise Refusal(429, "busy", "16 videos wait already", 30)

    monkeypatch.setattr(running.service.book, "reserve", full)
    page.start("face")
    page.state("failed")
    assert page.text("failed-title") == "The queue is full" and "30 s" in page.text("reason")
    monkeypatch.undo()
    page.window.execute_cdp_cmd("Network.enable", {})
    line = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.window.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **line})
    page.click("retry")
    page.until("document.getElementById('reason').textContent.includes('cannot be reached')")
    page.window.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **line})
    page.click("retry")
    page.state("done")


def test_a_video_that_has_expired_is_no_longer_offered(page, running, voices):
    page.open(running).ready(speech=voices / "short.wav")
    page.script("const real = self.setTimeout; self.setTimeout = (act, ms) => real(act, Math.min(ms, 200))")  # an hour is long
    page.start("face")
    page.state("done")
    (job,) = running.client.get("/v1/videos", headers={"X-Gallery": page.script(MINE)}).json()["videos"]
    running.client.delete(job["url"])
    page.state("failed", seconds=20)
    assert page.text("failed-title") == "The video has expired"
    page.until("document.getElementById('gallery').hidden", 20)
