"""What files say: comment, XMP, manifest, label; all of it together, and read again by `verify`."""
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import av
import numpy as np
import pytest

from s3dnerf.cli import main
from s3dnerf.errors import DependencyError, InputError
from s3dnerf.marking import manifest
from s3dnerf.marking.label import Label
from s3dnerf.marking.manifest import development_certificate, read_manifest
from s3dnerf.marking.marking import MarkedWriter, Marking
from s3dnerf.marking.marks import DEFAULT_LABEL, Marks, Origin, photo_hash
from s3dnerf.marking.metadata import SYNTHETIC, read_comment, read_xmp, record
from s3dnerf.marking.verify import verify
from s3dnerf.media import CONTAINERS, VideoWriter, read_frames

ORIGIN = Origin("one-shot-256", "c0ffee11" + "ab" * 28)
CONSENT = 'I, "A & B", <agree>; ça va'


def grey(count=6, size=256):
    """Frames of a smooth slope."""
    slope = np.linspace(60, 190, size).astype(np.uint8)
    return [np.repeat(np.roll(slope, k)[None, :, None], size, 0).repeat(3, 2) for k in range(count)]


def write(path, marks=Marks(manifest=False), frames=None, origin=ORIGIN):
    frames = grey() if frames is None else frames
    marking = Marking(marks, origin, frames[0].shape[1], frames[0].shape[0])
    with MarkedWriter(path, frames[0].shape[1], frames[0].shape[0], marking, sound=np.zeros(4000, np.float32)) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def plain(path, frames=None):
    with VideoWriter(path, 256, 256) as writer:
        for frame in frames or grey():
            writer.write(frame)
    return path


# records ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options,word", [
    (dict(label=" "), "--label"), (dict(label="a\nb"), "--label"), (dict(label="x" * 61), "61 characters"),
    (dict(consent=""), "--consent"), (dict(key="a"), "--certificate"), (dict(certificate="a"), "--key"),
    (dict(certificate="/no/a", key="/no/b"), "no certificate")])
def test_marks_that_cannot_be_are_refused(options, word):
    with pytest.raises(InputError, match=word):
        Marks(**options)


def test_the_tag_is_of_the_photo_and_without_one_of_the_model(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"abc")
    assert photo_hash(tmp_path / "a.jpg") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert Origin("m", photo_hash(tmp_path / "a.jpg")).tag == 0xBA7816BF
    assert Origin("m").tag == Origin("m").tag != Origin("n").tag
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert photo_hash(picture) == photo_hash(picture.copy()) != photo_hash(picture + 1)


def test_what_is_not_known_is_not_told():
    assert record(Origin("m", version="1"), Marks()) == {"digitalSourceType": SYNTHETIC, "generator": "s3dnerf", "version": "1",
                                                        "model": "m"}
    assert record(ORIGIN, Marks(consent="yes", time="2026-01-31"))["consent"] == "yes"


# files -----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("ending", CONTAINERS)
def test_every_container_says_that_it_is_synthetic(tmp_path, ending):
    marks = Marks(consent=CONSENT, time="2026-01-31T12:00:00Z", manifest=False)
    path = write(tmp_path / f"a{ending}", marks)
    assert read_comment(path) == record(ORIGIN, marks)
    with av.open(str(path)) as container:
        assert {key.lower(): value for key, value in container.metadata.items()}["comment"].startswith("AI-generated video")
    assert len(list(read_frames(path))) == 6 and [one.name for one in tmp_path.iterdir()] == [path.name]
    if ending != ".mkv":
        told = read_xmp(path)
        assert told["digitalSourceType"] == SYNTHETIC and told["consent"] == CONSENT
        assert told["photo_sha256"] == ORIGIN.photo and told["CreateDate"] == "2026-01-31T12:00:00Z"


def test_xmp_stands_in_the_box_of_its_standard_behind_the_others(tmp_path):
    content = write(tmp_path / "a.mp4").read_bytes()
    kinds, begin = [], 0
    while begin < len(content):
        size = int.from_bytes(content[begin:begin + 4], "big")
        kinds.append(content[begin + 4:begin + 8])
        begin += size
    assert begin == len(content) and kinds[0] == b"ftyp" and kinds[-1] == b"uuid" and b"mdat" in kinds
    packet = content.rindex(b"uuid") + 4
    assert UUID(bytes=content[packet:packet + 16]) == UUID("be7acfcb-97a9-42e8-9c71-999491e3afac")
    assert b"Iptc4xmpExt:DigitalSourceType" in content[packet:]


def test_other_files_metadata_are_not_ours(tmp_path):
    assert read_comment(plain(tmp_path / "a.mp4")) is None and read_xmp(tmp_path / "a.mp4") is None
    content = (tmp_path / "a.mp4").read_bytes()
    for tail in (b"\0\0\0\x07uuid", b"\0\0\0\x30uuid" + UUID("be7acfcb-97a9-42e8-9c71-999491e3afac").bytes + b"<not xml" + bytes(16)):
        (tmp_path / "b.mp4").write_bytes(content + tail)
        assert read_xmp(tmp_path / "b.mp4") is None


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    paths = [write(tmp_path / name) for name in ("a.mp4", "b.mp4")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_file_that_cannot_be_finished_does_not_appear(tmp_path, monkeypatch):
    monkeypatch.setattr(Marking, "finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


# label -----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size,text", [((256, 256), DEFAULT_LABEL), ((720, 1280), DEFAULT_LABEL), ((128, 128), "x" * 60)])
def test_the_label_is_small_in_its_corner_and_stands_out(size, text):
    frame = np.full((*size, 3), 200, np.uint8)
    label = Label(text, size[1], size[0])
    shown = label.frame(frame)
    rows, columns = np.nonzero((shown != frame).any(-1))
    assert rows.min() > 0.85 * size[0] and columns.min() < 0.1 * size[1] and columns.max() < size[1]
    assert len(rows) < 0.12 * shown[..., 0].size and (frame == 200).all()
    inside = shown[label.place]
    assert inside.max() > 200 and np.median(inside) < 110, "white letters on a dark stripe"
    assert not np.array_equal(shown, Label("Another", size[1], size[0]).frame(frame))


def test_the_label_is_drawn_where_it_is_asked_for(tmp_path):
    frames = [next(read_frames(write(tmp_path / "a.mp4", Marks(label, manifest=False)))) for label in (False, True, "Made up")]
    corner = [frame[225:, :130].astype(int) for frame in frames]
    assert np.abs(corner[0] - corner[1]).max() > 100 and np.abs(corner[1] - corner[2]).max() > 100
    assert np.abs(frames[0][:200].astype(int) - frames[1][:200]).mean() < 1


# manifest --------------------------------------------------------------------------------------------------------------

@pytest.fixture
def c2pa():
    return pytest.importorskip("c2pa", reason="the extra c2pa is not installed")


def test_a_manifest_says_what_made_the_video_and_breaks_when_it_is_changed(tmp_path, c2pa):
    path = write(tmp_path / "a.mp4", Marks(manifest=True, consent=CONSENT, time="2026-01-31T12:00:00Z"))
    found = read_manifest(path)
    assert found.state == "Valid" and found.synthetic and "development" in found.signer
    assert found.problems == ("signingCredential.untrusted",)
    with c2pa.Reader(str(path)) as reader:
        told = {one["label"]: one["data"] for one in reader.get_active_manifest()["assertions"]}
    action, = told["c2pa.actions.v2"]["actions"]
    assert action["action"] == "c2pa.created" and action["digitalSourceType"] == SYNTHETIC and action["when"] == "2026-01-31T12:00:00Z"
    assert told["org.s3dnerf.origin"]["photo_sha256"] == ORIGIN.photo and told["org.s3dnerf.origin"]["consent"] == CONSENT
    content = bytearray(path.read_bytes())
    content[content.index(b"mdat") + 900] ^= 1
    path.write_bytes(content)
    assert read_manifest(path).state == "Invalid"


def test_without_a_wish_there_is_a_manifest_where_the_extra_is(tmp_path, c2pa, monkeypatch):
    assert read_manifest(write(tmp_path / "a.mp4", Marks())).state == "Valid"
    assert read_manifest(write(tmp_path / "b.mp4", Marks(manifest=False))) is None
    assert read_manifest(write(tmp_path / "c.mkv", Marks())) is None
    assert read_manifest((tmp_path / "a.mp4").rename(tmp_path / "video")).state == "Valid"  # as it may be called when it was downloaded
    assert read_manifest((tmp_path / "c.mkv").rename(tmp_path / "d.mp4")) is None
    monkeypatch.setitem(sys.modules, "c2pa", None)
    monkeypatch.setattr(manifest, "installed", lambda: False)
    assert read_comment(write(tmp_path / "d.mp4", Marks()))
    with pytest.raises(DependencyError, match=r"s3dnerf\[c2pa\]"):
        write(tmp_path / "e.mp4", Marks(manifest=True))
    assert "s3dnerf[c2pa]" in verify(tmp_path / "d.mp4").lines()[2] and not (tmp_path / "e.mp4").exists()


def test_the_development_certificate_is_made_once_and_for_its_owner_alone(tmp_path, c2pa):
    first = development_certificate(tmp_path / "new")
    assert development_certificate(tmp_path / "new") == first
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o600}
    (tmp_path / "file").write_text("")
    assert development_certificate(tmp_path / "file" / "under")[0] != first[0], "a folder that cannot be is no obstacle"


def test_a_certificate_of_ones_own_signs(tmp_path, c2pa):
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    for path, content in zip((chain, key), manifest._new_chain()):
        path.write_bytes(content)
    found = read_manifest(write(tmp_path / "a.mp4", Marks(certificate=chain, key=key)))
    assert found.state == "Valid"
    other = tmp_path / "other.pem"
    other.write_bytes(manifest._new_chain()[1])
    for wrong in (dict(certificate=chain, key=other), dict(certificate=key, key=key), dict(certificate=chain, key=chain)):
        with pytest.raises(InputError) as error:
            Marking(Marks(**wrong), ORIGIN, 256, 256)  # before anything is rendered
        assert "\n" not in str(error.value)


# verify and the command line -------------------------------------------------------------------------------------------

def test_verify_reads_all_three_and_says_where_they_disagree(tmp_path, capsys):
    path = write(tmp_path / "a.mp4", Marks(consent=CONSENT))
    assert main(["verify", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["watermark", "metadata", "manifest"]
    assert "photo c0ffee11" in lines[0] and "the same photo" in lines[0] and CONSENT in lines[1] and ORIGIN.photo in lines[1]
    found = verify(path)
    other = replace(found, metadata=found.metadata | {"photo_sha256": "00" * 32})
    assert "ANOTHER photo" in other.lines()[0]
    assert main(["verify", "--video", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["marked"] and told["watermark"]["tag"] == "c0ffee11" and told["metadata"]["model"] == "one-shot-256"


def test_each_mark_alone_is_enough_and_none_is_status_1(tmp_path, capsys):
    nothing = plain(tmp_path / "plain.mp4")
    assert main(["verify", str(nothing)]) == 1 and capsys.readouterr().out.startswith("watermark: none")
    marking = Marking(Marks(manifest=False), ORIGIN, 256, 256)
    seen = verify(plain(tmp_path / "seen.mp4", [marking.frame(frame) for frame in grey()]))
    assert seen.marked and seen.metadata is None and seen.manifest is None
    marking.finish(nothing)
    told = verify(nothing)
    assert told.marked and not told.watermark.found and told.metadata["digitalSourceType"] == SYNTHETIC
    assert main(["verify", str(tmp_path / "no.mp4")]) == 2


def test_a_broken_manifest_marks_nothing():
    broken = manifest.Manifest("Invalid", None, True, ())
    base = verify_of(None)
    assert not base.marked and not replace(base, manifest=broken).marked
    assert replace(base, manifest=replace(broken, state="Valid")).marked
    assert not replace(base, manifest=replace(broken, state="Valid", synthetic=False)).marked


def verify_of(told):
    from s3dnerf.marking.trace import Trace
    from s3dnerf.marking.verify import Verification

    return Verification(Trace(None, 0.0, 0.0, 1.0), told, None)


def test_unmarked_is_a_flag_of_its_own(monkeypatch, capsys):
    import s3dnerf.batch

    seen = []
    monkeypatch.setattr(s3dnerf.batch.Speaker, "make", lambda _self, options: seen.append(options))
    assert main(["speak", "--photo", "a", "--unmarked"]) == 0 and main(["speak", "--photo", "a", "--label"]) == 0
    assert main(["speak", "--label", "Made up", "--unmarked=false"]) == 0 and main(["speak"]) == 0
    assert [(one["unmarked"], one["label"]) for one in seen] == [(True, False), (False, True), (False, "Made up"), (False, False)]
    monkeypatch.undo()
    assert main(["speak", "--photo", __file__, "--speech", __file__, "--unmarked", "--label"]) == 2
    assert "--unmarked beside" in capsys.readouterr().err


def test_speaking_marks_and_unmarked_leaves_everything_out(tiny_head, tmp_path):
    """From a photo to the file, by `TalkingVideo.save`; frames that are read carry no mark."""
    from importlib.resources import files

    from s3dnerf.inference import TalkingHead

    photo = str(files("s3dnerf") / "assets" / "demo_photo.jpg")
    video = TalkingHead(tiny_head, "here/random").speak(photo, np.full(4000, 0.1, np.float32), pose="still")
    video.save(tmp_path / "a.mp4")
    video.save(tmp_path / "b.mp4", marks=None)
    found, left_out = verify(tmp_path / "a.mp4"), verify(tmp_path / "b.mp4")
    assert found.watermark.tag == int(photo_hash(photo)[:8], 16) and found.metadata["photo_sha256"] == photo_hash(photo)
    assert found.metadata["model"] == "random", "no folder of the user's is told"
    assert not left_out.marked
    frames, marking = np.stack(list(video)).astype(float), video.marking(Marks(manifest=False))
    kept = np.stack(list(read_frames(tmp_path / "b.mp4")))
    marked = np.stack([marking.frame(frame) for frame in video])
    quality = lambda other: 10 * np.log10(255 ** 2 / np.mean((frames - other) ** 2))
    assert quality(kept) > 38 and 40 < quality(marked) < 50


def test_help_needs_no_marking():
    code = "import sys, s3dnerf.commands; sys.exit('cv2' in sys.modules or 's3dnerf.marking.marks' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
