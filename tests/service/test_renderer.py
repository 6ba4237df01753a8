"""What a worker does: several videos as one batch, photos encoded once, mistakes told."""
import hashlib
import io
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from PIL import Image

from s3dnerf.errors import InputError
from s3dnerf.inference import TalkingHead
from s3dnerf.media import video_info
from s3dnerf.service.messages import (Advanced, Cancel, Declaration, Failed, Finished, Listen, Look, Options, Preview, Render, Seen,
                                      Speaker, Staged, Touching)
from s3dnerf.service.renderer import Renderer, joined, together
from s3dnerf.service.settings import Settings


@pytest.fixture(scope="module")
def pixels(photo):
    return np.asarray(Image.open(io.BytesIO(photo)).convert("RGB"))


@pytest.fixture(scope="module")
def head(tiny_head):
    return TalkingHead(tiny_head)


@pytest.fixture
def renderer(bundle, tmp_path):
    return Renderer(Settings(bundle), tmp_path)


def task(id, pixels, sound, **options):
    return Render(id, Speaker(pixels, hashlib.sha256(pixels.tobytes()).hexdigest()), sound, Options(frame="face", **options),
                  Declaration("I am the person shown.", ""))


def run(renderer, *commands):
    """Everything that is said until there is nothing left to do."""
    said = [message for command in commands for message in renderer.take(command)]
    while renderer.busy:
        said += list(renderer.step())
    return said


def test_several_photos_are_one_batch_and_each_is_what_it_is_alone(head, pixels, babble, monkeypatch):
    wider = np.ascontiguousarray(pixels[:, ::-1])
    with torch.inference_mode():
        scenes = [head.speak(photo, babble(1, seed), frame=frame, camera=camera, seed=seed).scene
                  for seed, (photo, frame, camera) in enumerate([(pixels, "face", (0, 0)), (wider, "full", (8, 0)),
                                                                 (pixels, "full", (0, 5, 1.2))])]
        alone = [scene.frames(first, 2) for scene, first in zip(scenes, (4, 9, 20))]
        calls, real = [], type(head.model).render
        monkeypatch.setattr(type(head.model), "render", lambda *args: calls.append(1) or real(*args))
        shared = together(scenes, (4, 9, 20), 2)
    assert len(calls) == 1
    for one, other in zip(alone, shared):
        assert one.shape == other.shape and np.abs(one.astype(int) - other).max() <= 1
    assert np.abs(shared[0][0].astype(int) - shared[0][1]).max() > 0


def test_joined_records_are_longer(head, pixels):
    appearance = head.identify(pixels).appearance
    both = joined([appearance, appearance])
    assert [len(plane) for plane in both.planes] == [2] * len(appearance.planes)
    assert both.portrait.cameras.intrinsics.shape == (2, 3, 3) and torch.equal(both[1:].lattice, appearance.lattice)


def test_jobs_advance_in_turns_and_finish(renderer, pixels, babble, tmp_path):
    said = run(renderer, task("a", pixels, babble(0.6)), task("b", pixels, babble(0.6)))
    begun = next(i for i, message in enumerate(said) if isinstance(message, Touching) and message.ids == ("a", "b"))
    assert [message.stage for message in said if isinstance(message, Staged) and message.id == "a"] == ["identity", "rendering",
                                                                                                  "finishing"]
    advanced = [message for message in said[begun:] if isinstance(message, Advanced)]
    assert {message.id for message in advanced[:2]} == {"a", "b"} and advanced[-1].done == 15
    finished = [message for message in said if isinstance(message, Finished)]
    assert sorted(message.id for message in finished) == ["a", "b"] and renderer.identities.encoded == 1
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.mp4"}


def test_of_an_odd_size_what_is_told_is_what_is_made(renderer, pixels, babble, tmp_path):
    odd, whole = np.ascontiguousarray(pixels[:401, :403]), Options(frame="full")
    said = run(renderer, replace(task("a", odd, babble(0.2)), options=whole))
    told, = [message.size for message in said if isinstance(message, Staged) and message.size]
    info = video_info(tmp_path / "a.mp4")
    assert told == (info.width, info.height) == (404, 402)
    speaker = Speaker(odd, hashlib.sha256(odd.tobytes()).hexdigest())
    _, ready, begun = run(renderer, Listen("b", speaker, whole, Declaration("I am the person shown.", ""), "mp4"))
    with av.open(io.BytesIO(begun.parts[0])) as film:
        assert (ready.told["width"], ready.told["height"]) == (film.streams.video[0].width, film.streams.video[0].height)


def test_a_job_that_goes_wrong_goes_alone(renderer, pixels, babble, monkeypatch, capfd, tmp_path):
    blank = np.full((200, 200, 3), 128, np.uint8)
    said = run(renderer, task("blank", blank, babble(0.4)), task("good", pixels, babble(0.4)))
    failed = [message for message in said if isinstance(message, Failed)]
    assert [(message.id, message.code) for message in failed] == [("blank", "no_face")]
    assert any(isinstance(message, Finished) and message.id == "good" for message in said)

    from s3dnerf.service import renderer as module

    def broken(self, frames):
        if self.task.id == "bad":
            raise RuntimeError("a secret")
        return real(self, frames)

    real = module.Running.add
    monkeypatch.setattr(module.Running, "add", broken)
    said = run(renderer, task("bad", pixels, babble(0.4)), task("fine", pixels, babble(0.4)))
    failed = [message for message in said if isinstance(message, Failed)]
    assert [(message.id, message.code) for message in failed] == [("bad", "internal")] and "secret" not in failed[0].message
    assert "secret" in capfd.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"good.mp4", "fine.mp4"}


def test_videos_hold_a_session_up_by_no_more_than_a_frame(renderer, pixels, babble):
    options = Options(frame="face")
    speaker = Speaker(pixels, hashlib.sha256(pixels.tobytes()).hexdigest())
    list(renderer.take(Listen("live", speaker, options, Declaration("I am the person shown.", ""), "jpeg")))
    list(renderer.take(task("a", pixels, babble(0.4))))
    done = [message.done for _ in range(3) for message in renderer.step() if isinstance(message, Advanced)]
    list(renderer.take(Cancel("live")))
    done += [message.done for message in renderer.step() if isinstance(message, Advanced)]
    assert done == [1, 2, 3, 10]


def test_videos_are_signed_with_the_certificate_of_the_service(bundle, pixels, babble, tmp_path, monkeypatch, capfd):
    pytest.importorskip("c2pa", reason="the extra c2pa is not installed")
    from s3dnerf.marking import manifest

    monkeypatch.setattr(manifest, "ORGANISATION", "a studio")
    paths = tmp_path / "chain.pem", tmp_path / "key.pem"
    for path, content in zip(paths, manifest._new_chain()):
        path.write_bytes(content)
    settings = Settings(bundle, certificate=str(paths[0]), key=str(paths[1]))
    renderer = Renderer(settings, tmp_path)
    run(renderer, task("a", pixels, babble(0.2)))
    found = manifest.read_manifest(tmp_path / "a.mp4")
    assert found.state == "Valid" and "a studio" in found.signer
    paths[1].unlink()
    failed = run(renderer, task("b", pixels, babble(0.2)))[-1]  # no fault of the client's, who learns no path
    assert failed.code == "internal" and str(tmp_path) not in failed.message and "key.pem" in capfd.readouterr().err
    with pytest.raises(InputError, match="no key"):
        Renderer(settings, tmp_path)


def test_a_cancelled_job_leaves_no_file(renderer, pixels, babble, tmp_path):
    list(renderer.take(task("a", pixels, babble(2))))
    for _ in range(5):  # the encoder keeps what it is given first
        list(renderer.step())
    assert renderer.running and list(tmp_path.iterdir())
    assert not list(renderer.take(Cancel("a"))) and not renderer.busy and not list(tmp_path.iterdir())


def test_recordings_and_backgrounds_are_used_and_deleted(renderer, pixels, babble, tmp_path):
    from s3dnerf.media import VideoWriter

    film = tmp_path / "film.mp4"
    with VideoWriter(film, 360, 360) as writer:
        for shift in range(12):
            writer.write(pixels[:360, 40 + 4 * shift:400 + 4 * shift])
    content = film.read_bytes()
    film.unlink()
    green = np.zeros((4, 4, 3), np.uint8)
    green[..., 1] = 255
    path = b'{"keys": [{"time": 0, "yaw": 0}, {"time": 1, "yaw": 18}]}'
    for files, backdrop in (({"pose.mp4": content}, None), ({"pose.json": path}, None), ({"drive.mp4": content}, None), ({}, green)):
        one = task("a", pixels, babble(0.5))
        said = run(renderer, Render("a", one.speaker, one.sound, one.options, one.declaration, files, backdrop))
        assert isinstance(said[-1], Finished), said[-1]
        assert {path.name for path in tmp_path.iterdir()} == {"a.mp4"}
    said = run(renderer, Render("b", one.speaker, one.sound, one.options, one.declaration, {"pose.mp4": b"none"}))
    assert said[-1].code == "unusable" and str(tmp_path) not in said[-1].message


def test_a_preview_shows_and_a_look_tells(renderer, pixels, babble):
    seen, shown = run(renderer, Look("a", Speaker(pixels, "x")), Preview("b", Speaker(pixels, "x"), Options(frame="face"), True))[1::2]
    assert isinstance(seen, Seen) and seen.content["faces"] == 1 and shown.content[:2] == b"\xff\xd8"
    assert renderer.identities.encoded == 1


def test_photos_are_kept_on_disk_where_that_is_asked_for(bundle, pixels, tmp_path):
    renderer = Renderer(Settings(bundle, cache=str(tmp_path / "cache")), tmp_path)
    assert isinstance(run(renderer, Look("a", Speaker(pixels, "x")))[-1], Seen)
    assert renderer.head.identities.find(pixels, "x") is not None and len(list((tmp_path / "cache").iterdir())) == 1


def test_what_is_seen_of_a_photo_is_where_it_is_and_what_is_wrong_with_it(head, pixels):
    import cv2

    from s3dnerf.service.faces import seen

    def codes(photo):
        told = seen(head.identify(np.ascontiguousarray(photo)))
        return told, {warning["code"] for warning in told["warnings"]}

    plain, none = codes(pixels)
    assert none == set() and plain["faces"] == 1
    moved = codes(np.pad(pixels, ((0, 0), (100, 0), (0, 0)), mode="edge"))[0]
    assert abs(moved["face"]["left"] - plain["face"]["left"] - 100) < 4 and moved["width"] == plain["width"] + 100
    assert "blurred" in codes(cv2.GaussianBlur(pixels, (0, 0), 4))[1]
    assert "small" in codes(cv2.resize(pixels, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA))[1]
    both, told = codes(np.concatenate([pixels, pixels], 1))
    assert both["faces"] == 2 and "several" in told
