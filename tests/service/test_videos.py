"""A video from its request to its file, through a real web server and the real model with random weights."""
import asyncio
import hashlib
import io
import json
import threading

import av
import numpy as np
import pytest


def frames_of(content):
    with av.open(io.BytesIO(content)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def streamed(running, hold, make):
    """The answer to the request for a video, and the one with what was streamed of it while it was made."""
    with hold(8) as let:
        made = make()
        with running.client.stream("GET", made.json()["video_url"], params={"stream": "1"}) as answer:
            let(20)
            answer.read()
    return made, answer


@pytest.fixture(scope="module")
def done(running, photo, speech, hold):
    """A job that is done, and what was streamed of it while it was made."""
    made, answer = streamed(running, hold, lambda: running.make(photo, speech, frame="face", camera="10,0", seed="3"))
    assert made.status_code == 202 and made.headers["location"] == made.json()["url"]
    return running.ended(made.json()), answer


def test_a_job_tells_what_it_made(done, running):
    job, _ = done
    assert (job["state"], job["frames_done"], job["frames_total"], job["width"], job["height"]) == ("done", 20, 20, 64, 64)
    assert job["error"] is None and job["seconds_left"] == 0 and job["expires"] > job["created"]
    assert running.client.get(job["preview_url"]).content[:2] == b"\xff\xd8"


def test_the_video_is_what_speak_makes(done, running, tiny_head, photo, speech, tmp_path):
    from s3dnerf.inference import TalkingHead

    (tmp_path / "photo.jpg").write_bytes(photo), (tmp_path / "speech.wav").write_bytes(speech)
    video = TalkingHead(tiny_head).speak(tmp_path / "photo.jpg", tmp_path / "speech.wav", frame="face", camera=(10, 0), seed=3)
    video.save(tmp_path / "own.mp4")
    fetched = frames_of(running.client.get(done[0]["video_url"]).content)
    assert np.array_equal(fetched, frames_of((tmp_path / "own.mp4").read_bytes()))


def test_the_stream_has_every_frame_and_the_sound(done):
    _, streamed = done
    assert streamed.headers["content-type"] == "video/mp4" and b"moof" in streamed.content
    with av.open(io.BytesIO(streamed.content)) as container:
        assert {stream.type for stream in container.streams} == {"video", "audio"}
    assert len(frames_of(streamed.content)) == 20


def test_parts_of_the_file_can_be_asked_for(done, running):
    whole = running.client.get(done[0]["video_url"]).content
    part = running.client.get(done[0]["video_url"], headers={"Range": "bytes=10-29"})
    assert part.status_code == 206 and part.content == whole[10:30]
    named = running.client.get(done[0]["video_url"], params={"download": "1"})
    assert named.headers["content-disposition"] == f'attachment; filename="s3dnerf-{done[0]["id"][:6]}.mp4"'


def test_events_tell_every_stage_and_end(running, photo, speech, hold):
    with hold(8) as let:
        job, told = running.make(photo, speech, frame="face").json(), []
        with running.client.stream("GET", job["events_url"]) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            for line in filter(lambda line: line.startswith("data: "), response.iter_lines()):
                told.append(json.loads(line[6:]))
                if told[-1]["frames_done"] >= 8:
                    let(20)
    assert told[-1]["state"] == "done" and told[-1]["frames_done"] == 20
    assert any(one["stage"] == "rendering" and 8 <= one["frames_done"] < 20 for one in told)


def test_uploads_go_with_the_job_unless_they_are_kept(running, photo, speech):
    for keep, left in (("false", {"video.mp4"}), ("true", {"video.mp4", ".npy"})):
        job = running.ended(running.make(photo, speech, frame="face", keep=keep).json())
        folder = running.service.book.find(job["id"]).folder
        assert {path.name if path.suffix == ".mp4" else path.suffix for path in folder.iterdir()} == left
        assert running.client.delete(job["url"]).status_code == 204
        assert not folder.exists() and running.client.get(job["url"]).status_code == 404


def test_a_photo_is_encoded_once(running, photo, speech):
    import gc

    from s3dnerf.identities import Identities

    identities = next(one for one in gc.get_objects() if type(one) is Identities)
    before = identities.encoded
    running.ended(running.make(photo, speech, frame="face").json())
    assert identities.encoded - before <= (before == 0)


def test_cancel_ends_a_job_and_leaves_nothing(running, photo, speech, hold):
    with hold(8):
        jobs = [running.make(photo, speech, frame="face").json() for _ in range(5)]
        assert running.client.post(jobs[0]["url"] + "/cancel").json()["state"] == "cancelled"
    again = running.client.post(jobs[0]["url"] + "/cancel")
    assert again.status_code == 409 and again.json()["error"]["code"] == "conflict"
    assert running.client.get(jobs[0]["video_url"]).status_code == 409
    assert [running.ended(job)["state"] for job in jobs[1:]] == ["done"] * 4
    assert not list(running.service.book.find(jobs[0]["id"]).folder.iterdir())
    assert not list((running.service.root / "workers").rglob("*.mp4"))


def test_a_full_queue_says_when_to_come_again(running, photo, speech, monkeypatch):
    monkeypatch.setattr(running.service.crew, "fill", lambda: None)  # nobody takes a job
    answers = [running.make(photo, speech, frame="face") for _ in range(8)]
    codes = [answer.status_code for answer in answers]
    assert codes == [202] * 6 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) >= 1 and answers[-1].json()["error"]["code"] == "busy"
    positions = [running.client.get(answer.json()["url"]).json()["position"] for answer in answers[:6]]
    assert positions == [1, 2, 3, 4, 5, 6]
    for answer in answers[:6]:
        running.client.delete(answer.json()["url"])


def test_a_gallery_is_seen_by_its_owner_alone(running, done):
    mine = running.client.get("/v1/videos", headers={"X-Gallery": running.gallery}).json()["videos"]
    assert done[0]["id"] in [job["id"] for job in mine]
    assert mine == sorted(mine, key=lambda job: -job["created"])
    assert running.client.get("/v1/videos").json() == {"videos": []}
    assert running.client.get("/v1/videos", headers={"X-Gallery": "fedcba9876543210"}).json() == {"videos": []}
    assert running.client.get("/v1/videos", headers={"X-Gallery": "short"}).status_code == 400


def test_videos_expire(running, photo, speech, monkeypatch):
    job, other = (running.ended(running.make(photo, speech, frame="face").json()) for _ in range(2))
    book = running.service.book
    failing = iter([True])
    # a round that goes wrong is not the last
    monkeypatch.setattr(running.service.faces, "expire", lambda: next(failing, None) and 1 / 0)
    book.find(job["id"]).ended -= book.settings.keep_seconds + 1
    running.until(lambda: running.client.get(job["url"]).status_code == 404)
    assert not (book.folder / job["id"]).exists() and running.client.get(other["url"]).status_code == 200


def test_a_face_is_seen_kept_and_forgotten(running, photo):
    seen = running.client.post("/v1/faces", files={"photo": ("x", photo)}, data={"keep": "true"}).json()
    assert (seen["width"], seen["height"], seen["faces"]) == (512, 512, 1)
    box, face = seen["box"], seen["face"]
    assert box["left"] < face["left"] and face["left"] + face["width"] < box["left"] + box["width"]
    assert seen["warnings"] == []
    frame = running.client.post("/v1/preview", data={"face": seen["id"]})
    assert frame.status_code == 200 and frame.headers["content-type"] == "image/jpeg"
    assert running.client.delete(f"/v1/faces/{seen['id']}").status_code == 204
    assert running.client.post("/v1/preview", data={"face": seen["id"]}).status_code == 404
    assert not list((running.service.root / "faces").iterdir())


def test_a_preview_follows_its_options(running):
    from PIL import Image

    def shown(**fields):
        answer = running.client.post("/v1/preview", data={"person": "eileen"} | fields)
        assert answer.status_code == 200, answer.text
        return np.asarray(Image.open(io.BytesIO(answer.content)), np.float32)

    plain = shown(frame="face")
    for change in ({"camera": "15,0"}, {"eyes": "0"}, {"background": "#00ff00"}, {"mouth": "open", "mouth_gain": "3"}):
        assert np.abs(shown(frame="face", **change) - plain).max() > 20, change
    assert shown(frame="full").shape == (512, 512, 3)


@pytest.mark.parametrize("path, fields", [("/v1/videos", {"consent": "I am the person shown.", "camra": "1,2"}),
                                          ("/v1/preview", {"camra": "1,2"}), ("/v1/preview", {"seed": "1"}),
                                          ("/v1/faces", {"camera": "1,2"})])
def test_a_field_of_another_name_is_refused(running, photo, speech, path, fields):
    sent = {"photo": ("x", photo)} | ({"speech": ("x", speech)} if path == "/v1/videos" else {})
    refused = running.client.post(path, files=sent, data=fields)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (422, "invalid_option")
    assert repr(list(fields)[-1]) in error["message"] and "photo" in error["message"]


def test_stored_people_are_named_and_speak(running, speech):
    assert running.client.get("/v1/people").json() == {"people": [{"name": "eileen", "kind": "photo"}]}
    job = running.ended(running.make(None, speech, person="eileen", frame="face").json())
    assert job["state"] == "done"
    for name in ("nobody", "notes", "../eileen", "/etc/passwd", "eileen.jpg", ".", ""):
        assert running.make(None, speech, person=name).status_code in (404, 422)


def test_metrics_count(running, done):
    text = running.client.get("/metrics").text
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(figures['s3dnerf_videos_total{state="done"}']) >= 1 and float(figures["s3dnerf_frames_total"]) >= 20
    assert float(figures['s3dnerf_memory_bytes{part="server"}']) > 1e8


def test_the_openapi_document_knows_the_routes(running):
    paths = running.client.get("/openapi.json").json()["paths"]
    assert {"/v1/videos", "/v1/videos/{id}", "/v1/videos/{id}/events", "/v1/videos/{id}/video", "/v1/faces", "/v1/preview",
            "/v1/people", "/healthz", "/readyz", "/metrics"} <= set(paths)
    form = paths["/v1/videos"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["consent"] and {"photo", "speech", "camera"} <= set(form["properties"])


@pytest.mark.parametrize("method, path", [("GET", "/v1/videos"), ("GET", "/v1/videos/{id}"), ("GET", "/v1/videos/{id}/events"),
                                          ("GET", "/v1/videos/{id}/video"), ("GET", "/v1/videos/{id}/preview.jpg"),
                                          ("POST", "/v1/preview"), ("POST", "/v1/videos/{id}/cancel"), ("GET", "/metrics")])
def test_the_openapi_document_says_what_is_answered_and_what_may_be_asked_with(running, done, method, path):
    document = running.client.get("/openapi.json").json()
    told = document["paths"][path][method.lower()]
    answer = running.client.request(method, path.format(id=done[0]["id"]), data={"person": "eileen"} if path == "/v1/preview" else None)
    assert answer.headers["content-type"].split(";")[0] in told["responses"][str(answer.status_code)]["content"]
    key, = document["components"]["securitySchemes"].values()
    assert key["name"] == "X-API-Key" and ("security" in told) == path.startswith("/v1")
    gallery = [asked["name"] for asked in told.get("parameters", []) if asked["in"] == "header"]
    assert gallery == ["X-Gallery"] * (path in ("/v1/videos", "/v1/preview"))


def test_jobs_side_by_side_are_what_they_are_alone(running, photo, speech, hold):
    """Several jobs share the renderer in batches; no row knows of another."""
    options = [{"camera": "0,0"}, {"camera": "12,0"}]
    with hold(0):
        together = [running.make(photo, speech, frame="face", **chosen).json() for chosen in options]
        running.until(lambda: all(running.client.get(job["url"]).json()["stage"] == "rendering" for job in together))
    together = [frames_of(running.client.get(running.ended(job)["video_url"]).content) for job in together]
    for chosen, shared in zip(options, together):
        job = running.ended(running.make(photo, speech, frame="face", **chosen).json())
        alone = frames_of(running.client.get(job["video_url"]).content)
        assert np.abs(alone.astype(int) - shared).mean() < 0.1
    assert np.abs(together[0].astype(int) - together[1]).mean() > 2


def test_consent_is_asked_for_and_stands_in_the_file_and_in_the_stream(running, photo, speech, hold):
    from s3dnerf.marking.verify import verify

    job = running.ended(running.make(photo, speech, frame="face", label="true").json())
    told = verify(running.service.book.find(job["id"]).video).as_dict()
    assert running.consent in str(told) and hashlib.sha256(photo).hexdigest() in str(told)
    answer = streamed(running, hold, lambda: running.make(photo, speech, frame="face"))[1]
    assert answer.content.count(running.consent.encode()) >= 2  # as a tag and as XMP
    refused = running.client.post("/v1/videos", files={"photo": ("x", photo), "speech": ("x", speech)})
    assert refused.status_code == 422 and refused.json()["error"]["code"] == "consent_missing"


def test_many_threads_may_ask_at_once(running):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(running.client.get("/healthz").status_code)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 20


def test_of_previews_that_wait_only_the_newest_is_made(running, monkeypatch):
    """A head that is dragged asks for many; the first is under way, the last is wanted, the others are not."""
    asked, codes, real, service = [], {}, running.service.crew.ask, running.service
    before = service.newest.get(running.gallery, 0)
    said = lambda angle: service.newest.get(running.gallery, 0) == before + angle

    async def slow(make, seconds=60.0):
        asked.append(make("x").options.camera[0])
        while not said(4):
            await asyncio.sleep(0.01)
        return await real(make, seconds)

    def drag(angle):
        answer = running.client.post("/v1/preview", data={"person": "eileen", "camera": f"{angle},0"},
                                     headers={"X-Gallery": running.gallery})
        codes[angle] = answer.status_code

    monkeypatch.setattr(service.crew, "ask", slow)
    threads = [threading.Thread(target=drag, args=(angle,)) for angle in (1, 2, 3, 4)]
    for angle, thread in enumerate(threads, 1):
        thread.start()
        running.until(lambda: said(angle) and asked)
    for thread in threads:
        thread.join()
    assert codes == {1: 200, 2: 409, 3: 409, 4: 200} and asked == [1, 4]
