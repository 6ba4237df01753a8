"""Keys, origins, hosts, headers: who may use the service, and from where."""
import json

import httpx
import pytest

from s3dnerf.service.settings import Settings


@pytest.fixture(scope="module")
def locked(bundle, serve):
    """A service that wants a key; its worker never gets to anything."""
    return serve(Settings(bundle, api_key="open sesame", origins=("https://friend.example",), spare=False))


def test_a_key_is_wanted_by_everything_below_v1(locked):
    for method, path in (("GET", "/v1/videos"), ("POST", "/v1/videos"), ("GET", "/v1/people"), ("POST", "/v1/faces"),
                         ("GET", "/v1/videos/x/video"), ("DELETE", "/v1/videos/x"), ("POST", "/v1/login")):
        for headers in ({}, {"X-API-Key": "wrong"}, {"X-API-Key": ""}, {"Cookie": "s3dnerf=guess"}):
            answer = locked.client.request(method, path, headers=headers)
            assert answer.status_code == 401 and answer.json()["error"]["code"] == "unauthorized"
    assert locked.client.get("/v1/people", headers={"X-API-Key": "open sesame"}).status_code == 200
    assert locked.client.get("/healthz").status_code == 200 and locked.client.get("/v1/limits").json()["api_key"] is True


def test_a_login_gives_a_cookie_that_does_instead(locked):
    with httpx.Client(base_url=locked.client.base_url) as page:
        answer = page.post("/v1/login", headers={"X-API-Key": "open sesame"})
        cookie = answer.headers["set-cookie"]
        assert answer.status_code == 204 and "HttpOnly" in cookie and "SameSite=strict" in cookie and "sesame" not in cookie
        assert page.get("/v1/people").status_code == 200
        page.post("/v1/logout")
        assert page.get("/v1/people").status_code == 401


@pytest.mark.parametrize("key", ["sésame", "a line\n", " open"])
def test_a_key_that_no_header_brings_is_refused_at_the_start(bundle, key):
    from s3dnerf.errors import InputError
    from s3dnerf.service.server import serve
    from s3dnerf.service.settings import Settings

    with pytest.raises(InputError, match="S3DNERF_API_KEY"):
        serve(Settings(bundle, api_key=key), "127.0.0.1", -1)  # no port: it must not get that far


def test_every_answer_has_the_headers_that_keep_a_page_safe(locked):
    for path in ("/healthz", "/v1/people", "/nothing", "/openapi.json"):
        headers = locked.client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"


def test_a_mistake_of_ours_tells_nothing_and_has_these_headers_too(running, monkeypatch):
    monkeypatch.setattr(running.service.people, "known", lambda: 1 / 0)
    answer = running.client.get("/v1/people")
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal" and "division" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff" and "default-src" in answer.headers["content-security-policy"]
    assert answer.headers["connection"] == "close"


def test_pages_of_other_sites_are_kept_out_unless_they_are_listed(running, photo, speech):
    sent = {"files": {"photo": ("x", photo), "speech": ("x", speech)}, "data": {"consent": running.consent}}
    answer = running.client.post("/v1/videos", headers={"Origin": "https://evil.example"}, **sent)
    assert answer.status_code == 403 and not running.service.book.jobs
    assert "access-control-allow-origin" not in answer.headers
    answer = running.client.post("/v1/videos", headers={"Origin": "https://friend.example"}, **sent)
    assert answer.status_code == 202 and answer.headers["access-control-allow-origin"] == "https://friend.example"
    running.client.delete(answer.json()["url"])
    asked = running.client.options("/v1/videos", headers={"Origin": "https://friend.example", "Access-Control-Request-Method": "POST",
                                                          "Access-Control-Request-Headers": "X-API-Key"})
    assert asked.status_code == 200 and "POST" in asked.headers["access-control-allow-methods"]


def test_another_name_for_this_machine_is_refused(running):
    answer = running.client.get("/v1/people", headers={"Host": "evil.example"})
    assert answer.status_code == 400 and "evil.example" in answer.json()["error"]["message"]


def test_unknown_things_have_the_same_body(running):
    for method, path in (("GET", "/v1/videos/nope"), ("GET", "/v1/nope"), ("DELETE", "/v1/faces/nope"), ("PUT", "/v1/videos"),
                         ("GET", "/v1/videos/..%2f..%2fetc%2fpasswd/video"), ("GET", "/v1/videos/nope/video")):
        answer = running.client.request(method, path)
        assert answer.status_code in (404, 405)
        assert answer.json()["error"]["code"] == "not_found" and ";" in answer.json()["error"]["message"]  # what helps
    wrong = running.client.get("/v1/videos/nope/video", params={"stream": "perhaps"})
    assert wrong.status_code == 422 and wrong.json()["error"]["code"] == "invalid_option"


def test_ids_are_random_and_long():
    from s3dnerf.service.jobs import new_id

    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000 and min(map(len, ids)) >= 22


def test_a_socket_without_a_key_is_refused(locked):
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    with pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{locked.port}/v1/stream")
    with pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{locked.port}/v1/stream", origin="https://evil.example",
                additional_headers={"X-API-Key": "open sesame"})
    with connect(f"ws://127.0.0.1:{locked.port}/v1/stream", additional_headers={"X-API-Key": "open sesame"}) as link:
        link.send("{}")
        assert json.loads(link.recv())["error"]["code"] == "missing"
