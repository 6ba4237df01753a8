"""Encoded photos, kept in memory and on disk: found again, never mixed up, thrown away where they are damaged or too many."""
import copy
import dataclasses
import os
import pickle
import stat
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save

from s3dnerf.identities import Identities, IdentityFolder, flat, weight
from s3dnerf.inference import TalkingHead
from s3dnerf.media import read_image
from s3dnerf.statistics import Statistics


@pytest.fixture(scope="module")
def photo():
    return read_image(files("s3dnerf") / "assets" / "demo_photo.jpg")


@pytest.fixture
def head(tiny_head, tmp_path):
    return TalkingHead(tiny_head, "tiny", identities=tmp_path / "kept")


@pytest.fixture(scope="module")
def identity(tiny_head, photo):
    return TalkingHead(tiny_head, "tiny").identify(photo)


def stages(head, photo):
    """What `identify` did, and what it found."""
    statistics = Statistics("tiny", head.device, 0)
    found = head.identify(photo, statistics)
    return set(statistics.seconds), found


def test_a_photo_is_tracked_and_encoded_once(head, photo):
    first, one = stages(head, photo)
    second, other = stages(TalkingHead(head.model, "tiny", identities=head.identities.folder), photo)
    assert first == {"read", "tracking", "encode identity"} and second == {"read"}
    assert (one.box, one.remarks, one.source) == (other.box, other.remarks, other.source)
    assert np.array_equal(one.image, other.image)
    pairs = list(zip(flat(one.appearance), flat(other.appearance), strict=True))
    assert len(pairs) == 4 + 1 + 6 + 2
    assert all(here == there and torch.equal(value, again) for (here, value), (there, again) in pairs)
    speech = np.zeros(8000, np.float32)
    with torch.inference_mode():
        shown = [head.speak(who, speech, camera=(9, 0)).scene.frames(3, 1) for who in (one, other)]
    assert np.array_equal(*shown)


def test_nothing_is_kept_unless_it_is_asked_for(tiny_head, photo, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert IdentityFolder.users_own() == tmp_path / "s3dnerf" / "identities"
    TalkingHead(tiny_head, "tiny").identify(photo)
    assert not list(tmp_path.iterdir())


def test_a_user_without_a_home_keeps_none(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does for a user whom the system does not know
    monkeypatch.setattr("sys.platform", "linux")
    assert IdentityFolder.users_own() is None


def test_a_folder_that_may_only_be_read_serves(head, identity, monkeypatch):
    head.identities.keep(identity)

    def refused(path):
        raise PermissionError(path)

    monkeypatch.setattr(os, "utime", refused)
    assert head.identities.find(identity.image, "a") is not None


def test_another_photo_other_weights_or_settings_are_another_identity(head, identity):
    head.identities.keep(identity)
    find = lambda folder, image: folder.find(image, "a")
    again = lambda model=head.model, device="cpu": IdentityFolder(head.identities.folder, model, torch.device(device))
    assert find(again(), identity.image).source == "a"
    assert find(again(), identity.image[:, ::-1]) is None and find(again(device="cuda"), identity.image) is None
    other = copy.deepcopy(head.model)
    other.arguments["detail"] = 0.3
    assert find(again(other), identity.image) is None
    other = copy.deepcopy(head.model)
    with torch.no_grad():
        next(other.encoder.parameters()).view(-1)[0] += 1e-3
    assert find(again(other), identity.image) is None
    assert find(again(copy.deepcopy(head.model)), identity.image) is not None


def test_the_programs_own_code_is_part_of_the_name(head, identity, monkeypatch):
    here = head.identities._encoder
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + (b"#" if path.name == "appearance.py" else b""))
    assert IdentityFolder(head.identities.folder, head.model, head.device)._encoder != here


class Trap:
    """Deletes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.unlink, (self.path,)


@pytest.mark.parametrize("damage", ["cut", "noise", "pickle", "foreign", "renamed"])
def test_a_damaged_or_foreign_file_is_replaced_and_never_run(head, identity, tmp_path, damage):
    bait = tmp_path / "bait"
    bait.write_text("here")
    head.identities.keep(identity)
    kept, = head.identities.folder.iterdir()
    whole = kept.read_bytes()
    content = {"cut": whole[:len(whole) // 2], "noise": b"damaged", "pickle": pickle.dumps(Trap(str(bait))),
               "foreign": save({"other": torch.zeros(3)}, {"identity": "[]"}),
               "renamed": whole.replace(kept.name.encode()[:8], b"0" * 8)}[damage]
    kept.write_bytes(content)
    assert head.identities.find(identity.image, "a") is None and bait.exists()
    assert stages(head, identity.image)[0] == {"read", "tracking", "encode identity"}
    assert kept.read_bytes() == whole and head.identities.find(identity.image, "a") is not None


def test_there_is_a_bound_and_what_was_used_longest_ago_goes(head, identity):
    folder = head.identities
    images = [np.full((8, 8, 3), number, np.uint8) for number in range(4)]
    keep = lambda number: folder.keep(dataclasses.replace(identity, image=images[number]))
    keep(0)
    assert stat.S_IMODE(next(folder.folder.iterdir()).stat().st_mode) == 0o600  # in a folder of the user's own, too
    size = next(folder.folder.iterdir()).stat().st_size
    folder.megabytes = 2.5 * size / 1e6
    abandoned = folder.folder / f"{folder._file(images[1]).stem}.1.part"
    others = [folder.folder / name for name in ("weights.safetensors", "download.part")]
    for path in (abandoned, *others):
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    keep(1)
    for number, path in enumerate((folder._file(images[0]), folder._file(images[1]))):
        os.utime(path, (number, number))
    assert folder.find(images[0], "a") is not None  # used again: the other one goes
    keep(2)
    assert [folder.find(image, "a") is not None for image in images] == [True, False, True, False]
    assert not abandoned.exists() and stat.S_IMODE(folder.folder.stat().st_mode) == 0o700
    folder.megabytes = 0
    keep(3)
    assert set(folder.folder.iterdir()) == {folder._file(images[3]), *others}  # what others put there stays
    assert stat.S_IMODE(folder._file(images[3]).stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_written_is_said_and_the_video_is_made(tiny_head, photo, tmp_path):
    (tmp_path / "file").write_text("no folder")
    head = TalkingHead(tiny_head, "tiny", identities=tmp_path / "file")
    statistics = Statistics("tiny", head.device, 0)
    assert head.identify(photo, statistics).image is not None
    assert "--identity-cache" in statistics.remarks[0] and len(statistics.remarks) == 1


def test_photos_in_memory_are_forgotten(identity):
    class Encoder:
        def identify(self, photo):
            return identity

    now, pixels = [0.0], np.zeros((4, 4, 3), np.uint8)
    identities = Identities(Encoder(), 2, 100.0, lambda: now[0])
    first = identities.of("a", pixels)
    assert first.source == "a" and identities.of("a", pixels) is first and identities.encoded == 1
    now[0] = 101.0
    identities.forget()
    assert not identities.kept
    for key in "abcd":
        identities.of(key, pixels)
    assert list(identities.kept) == ["c", "d"] and identities.encoded == 5


def test_photos_in_memory_take_so_many_bytes(identity):
    assert weight(identity) > identity.image.nbytes + sum(plane.nbytes for plane in identity.appearance.planes)
    head = SimpleNamespace(identify=lambda photo: identity)
    identities = Identities(head, 9, 100.0, most=2.5 * weight(identity))
    for key in "abc":
        identities.of(key, identity.image)
    assert list(identities.kept) == ["b", "c"]
    small = Identities(head, 9, 100.0, most=1)
    for key in "ab":
        small.of(key, identity.image)
    assert list(small.kept) == ["b"]
