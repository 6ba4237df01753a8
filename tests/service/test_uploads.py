"""Hostile uploads: each is refused with a clear line, the server lives, and nothing stays on disk."""
import io
import socket
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width, height, rows=b""):
    """A PNG that claims a size; its pixels are whatever `rows` says."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def picture(kind, size=(64, 64)):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)).save(file, kind)
    return file.getvalue()


def riff(rate=16000, channels=1, claimed=None, samples=b"", kind=1, bits=16):
    """A WAV whose header says whatever it is told to."""
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits)
    length = len(samples) if claimed is None else claimed
    return b"RIFF" + struct.pack("<I", min(36 + length, 2 ** 32 - 1)) + b"WAVEfmt " + struct.pack("<I", 16) + form \
        + b"data" + struct.pack("<I", length) + samples


ZIP = b"PK\x03\x04" + b"\0" * 26 + b"evil"
TEXT_BOMB = png(8, 8, b"\0" * 200)[:-12] + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 60_000_000, 9)) + chunk(b"IEND", b"")
PLAYLIST = b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'

PHOTOS = {
    "nothing at all": (b"", 422, "damaged"),
    "one byte": (b"\xff", 415, "unsupported_type"),
    "text": (b"hello, this is a photo", 415, "unsupported_type"),
    "zeros": (b"\0" * 5000, 415, "unsupported_type"),
    "an archive": (ZIP, 415, "unsupported_type"),
    "a document": (b"%PDF-1.7\n%%EOF", 415, "unsupported_type"),
    "a program": (b"\x7fELF" + b"\0" * 100, 415, "unsupported_type"),
    "a page": (b"<html><script>alert(1)</script></html>", 415, "unsupported_type"),
    "a drawing that reads files": (SVG, 415, "unsupported_type"),
    "an animation": (picture("GIF"), 415, "unsupported_type"),
    "a bitmap": (picture("BMP"), 415, "unsupported_type"),
    "a JPEG's beginning": (b"\xff\xd8\xff\xe0" + b"\0" * 20, 422, "damaged"),
    "half a JPEG": (picture("JPEG", (400, 400))[:2000], 422, "damaged"),
    "a PNG's beginning": (b"\x89PNG\r\n\x1a\n", 422, "damaged"),
    "half a PNG": (picture("PNG", (300, 300))[:3000], 422, "damaged"),
    "half a WebP": (picture("WEBP", (300, 300))[:500], 422, "damaged"),
    "2.5 thousand million pixels": (png(50_000, 50_000, b"\0" * 1_000_000), 413, "too_large"),
    "more pixels than are allowed": (png(3000, 2000, b"\0" * (9001 * 2000)), 413, "too_large"),
    "no pixels": (png(0, 0), 422, "damaged"),
    "a text that unfolds": (TEXT_BOMB, 422, "damaged"),
    "a JPEG and an archive": (picture("JPEG") + ZIP, 415, "unsupported_type"),
    "a PNG and a page": (picture("PNG") + b"<script>alert(1)</script>", 415, "unsupported_type"),
    "a WebP and a document": (picture("WEBP") + b"%PDF-1.7", 415, "unsupported_type"),
    "speech": (riff(samples=b"\1\0" * 16000), 415, "unsupported_type"),
}
SOUNDS = {
    "nothing at all": (b"", 422, "damaged"),
    "a photo": (picture("JPEG"), 415, "unsupported_type"),
    "a play list that reads files": (PLAYLIST, 415, "unsupported_type"),
    "a WAV's beginning": (b"RIFF\0\0\0\0WAVE", 422, "damaged"),
    "no samples": (riff(), 422, "damaged"),
    "a tenth of a second": (riff(samples=b"\1\0" * 1600), 422, "damaged"),
    "4 GB that are not there": (riff(claimed=2 ** 32 - 1, samples=b"\1\0" * 50), 422, "damaged"),
    "numbers that are none": (riff(kind=3, bits=32, samples=struct.pack("<f", float("nan")) * 16000), 422, "damaged"),
    "longer than is allowed": (riff(rate=8000, bits=8, samples=b"\x80" * 8000 * 9), 413, "too_large"),
    "a day at one sample a second": (riff(rate=1, bits=8, samples=b"\x80" * 86400), 413, "too_large"),
    "an MP3's beginning": (b"ID3\x04\0\0\0\0\0\0" + b"\xff\xfb\x90\0", 422, "damaged"),
    "a film's beginning": (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", 422, "damaged"),
    "noise behind Ogg's mark": (b"OggS" + bytes(range(256)) * 20, 422, "damaged"),
    "noise behind FLAC's mark": (b"fLaC" + bytes(range(256)) * 20, 422, "damaged"),
    "noise behind Matroska's mark": (b"\x1aE\xdf\xa3" + bytes(range(256)) * 20, 422, "damaged"),
}


def clear(answer, code):
    """An error body with a line that tells no path of ours."""
    error = answer.json()["error"]
    assert error["code"] == code, error
    assert len(error["message"]) > 20 and "\n" not in error["message"]
    assert "/tmp" not in error["message"] and ".upload" not in error["message"] and "Traceback" not in error["message"]


def untouched(running):
    """The server answers, no job was made, and nothing of an upload is left."""
    assert running.client.get("/healthz").status_code == 200
    assert not running.service.book.jobs and running.service.book.reserved == 0
    assert not [path for path in running.service.root.rglob("*") if path.is_file()]
    assert not list((running.service.root / "videos").iterdir())


@pytest.mark.parametrize("name", PHOTOS)
def test_a_hostile_photo_is_refused(running, speech, name):
    content, status, code = PHOTOS[name]
    answer = running.make(content, speech)
    assert answer.status_code == status, answer.text
    clear(answer, code)
    untouched(running)


@pytest.mark.parametrize("name", SOUNDS)
def test_hostile_speech_is_refused(running, photo, name):
    content, status, code = SOUNDS[name]
    answer = running.make(photo, content)
    assert answer.status_code == status, answer.text
    clear(answer, code)
    untouched(running)


def test_a_name_of_a_file_leads_nowhere(running, speech, photo, tmp_path):
    for name in ("../../../../etc/passwd", "/etc/passwd", "a\0b", "x" * 5000, "..\\..\\boot.ini", "photo.php", "$(reboot).jpg"):
        answer = running.client.post("/v1/videos", files={"photo": (name, b"none"), "speech": (name, speech)},
                                     data={"consent": running.consent})
        assert answer.status_code in (400, 415)
        untouched(running)


def test_options_are_no_paths(running, photo, speech, tmp_path):
    (tmp_path / "secret.png").write_bytes(picture("PNG"))
    for field in ("background", "pose", "frame", "eyes", "camera", "seed", "mouth_gain", "smooth", "person", "face"):
        for value in (str(tmp_path / "secret.png"), "../../etc/passwd", "nan", "1e400", "x" * 2000, "\0"):
            answer = running.make(None if field in ("person", "face") else photo, speech, **{field: value})
            assert answer.status_code in (404, 422), (field, value, answer.text)
            assert "root:" not in answer.text
    untouched(running)


def test_text_in_place_of_a_file_is_told(running, speech):
    answer = running.client.post("/v1/videos", files={"speech": ("x", speech)},
                                 data={"photo": "/etc/passwd", "consent": running.consent})
    assert answer.status_code == 422
    clear(answer, "missing")
    untouched(running)


def test_what_is_no_form_is_refused(running):
    for content, kind in ((b"{}", "application/json"), (b"rubbish", "multipart/form-data"),
                          (b"--x\r\nrubbish", "multipart/form-data; boundary=x")):
        answer = running.client.post("/v1/videos", content=content, headers={"Content-Type": kind})
        assert answer.status_code in (400, 422), answer.text
        clear(answer, answer.json()["error"]["code"])
    many = running.client.post("/v1/videos", data={f"field{number}": "x" for number in range(200)},
                               files={"photo": ("x", b"x")})
    assert many.status_code == 400
    clear(many, "bad_request")
    untouched(running)


def raw(running, head, body=b"", wait=60):
    """The status line of a request that is spoken by hand."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=wait) as link:
        link.sendall(head)
        try:
            for first in range(0, len(body), 1 << 16):
                link.sendall(body[first:first + (1 << 16)])
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = b""
        try:
            while part := link.recv(4000):
                answer += part
                if b'"message"' in answer:
                    break
        except ConnectionResetError:  # what we still had to say was not wanted
            pass
        return answer


HEAD = b"POST /v1/videos HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"


def test_a_claim_of_4_gb_is_refused_before_it_is_sent(running):
    answer = raw(running, HEAD + b"Content-Length: 4294967296\r\n\r\n")
    assert b" 413 " in answer.splitlines()[0] and b"too_large" in answer  # who waits for it says 408
    assert b" 4" in raw(running, HEAD + b"Content-Length: -1\r\n\r\n").splitlines()[0]
    untouched(running)


def test_a_body_without_a_length_is_counted(running):
    """Chunks of a file that never ends: refused once there are more than 2 MB of them."""
    part = b"--x\r\nContent-Disposition: form-data; name=\"photo\"; filename=\"p\"\r\n\r\n" + b"\0" * 65_000
    body = b"%x\r\n%s\r\n" % (len(part), part) + (b"fde8\r\n" + b"\0" * 65_000 + b"\r\n") * 60
    answer = raw(running, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", body)
    assert b" 413 " in answer.splitlines()[0]
    running.until(lambda: not running.service.book.reserved)
    untouched(running)


def test_an_answer_reaches_a_client_that_still_sends(running, monkeypatch):
    """Refused before its body is read, it can send on and gets the answer, not a broken connection."""
    monkeypatch.setattr(running.service.book, "reserved", 99)
    monkeypatch.setattr("s3dnerf.service.security.LINGER", 60.0)  # however long this thread has to wait for its turn
    with socket.create_connection(("127.0.0.1", running.port), timeout=60) as link:
        link.sendall(HEAD + b"Content-Length: 600000\r\n\r\n" + b"\0" * 100_000)
        for _ in range(5):
            time.sleep(0.1)
            link.sendall(b"\0" * 100_000)
        answer = b"".join(iter(lambda: link.recv(4000), b"")).lower()
    assert b" 429 " in answer.splitlines()[0] and b"connection: close" in answer and b"retry-after" in answer and b"busy" in answer
    monkeypatch.undo()
    untouched(running)


def test_a_client_that_leaves_in_the_middle_leaves_nothing(running):
    with socket.create_connection(("127.0.0.1", running.port)) as link:
        link.sendall(HEAD + b"Content-Length: 100000\r\n\r\n--x\r\n")
        running.until(lambda: running.service.book.reserved == 1)
    running.until(lambda: running.service.book.reserved == 0)
    untouched(running)


def test_a_client_that_sends_slowly_is_sent_away(bundle, serve):
    from s3dnerf.service.settings import Settings

    slow = serve(Settings(bundle, upload_seconds=0.5, spare=False))
    answer = raw(slow, HEAD + b"Content-Length: 100000\r\n\r\n--x\r\n")
    assert b" 408 " in answer.splitlines()[0] and b"too_slow" in answer


def decoder(**limits):
    from s3dnerf.service.settings import Settings
    from s3dnerf.service.uploads import Sandbox

    return Sandbox(Settings(**limits))


def refused(sandbox, tmp_path, content, kind="image", ending=".npy"):
    from s3dnerf.service.settings import Refusal

    (tmp_path / "x.upload").write_bytes(content)
    with pytest.raises(Refusal) as refusal:
        sandbox.decode(kind, "photo", tmp_path / "x.upload", tmp_path / f"x{ending}")
    assert not list(tmp_path.iterdir())
    return refusal.value


def test_decoding_is_bounded_in_memory(tmp_path):
    content = picture("PNG", (1500, 1500))
    assert refused(decoder(decode_bytes=4 << 20), tmp_path, content).code in ("too_large", "damaged")
    (tmp_path / "x.upload").write_bytes(content)
    assert decoder().decode("image", "photo", tmp_path / "x.upload", tmp_path / "x.npy").size == (1500, 1500)


def test_decoding_is_bounded_in_time(tmp_path):
    day = riff(rate=1, bits=8, samples=b"\x80" * 86400)
    answer = refused(decoder(decode_seconds=1, max_seconds=1e9), tmp_path, day, "sound")
    assert answer.code == "damaged" and "1 s" in answer.message


def test_an_image_is_told_by_its_content_and_turned_upright(tmp_path):
    from s3dnerf.service.uploads import image_type, load, sound_type

    assert [image_type(picture(kind)[:16]) for kind in ("JPEG", "PNG", "WEBP", "GIF")] == ["JPEG", "PNG", "WEBP", None]
    assert sound_type(riff()[:16]) == "wav" and sound_type(picture("WEBP")[:16]) is None
    half = np.zeros((40, 20, 3), np.uint8)
    half[:20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    Image.fromarray(half).save(tmp_path / "x.upload", "JPEG", exif=exif, quality=95)
    pixels = load(decoder().decode("image", "photo", tmp_path / "x.upload", tmp_path / "x.npy"))
    assert pixels.shape == (20, 40, 3) and pixels[:, 30:].mean() > 250 and pixels[:, :10].mean() < 5


def test_a_recording_is_encoded_anew(tmp_path):
    from s3dnerf.media import VideoWriter, video_info

    def film(seconds):
        with VideoWriter(tmp_path / "film.mp4", 64, 48, sound=np.zeros(16000, np.float32)) as writer:
            for _ in range(round(25 * seconds)):
                writer.write(np.full((48, 64, 3), 128, np.uint8))
        (tmp_path / "film.mp4").rename(tmp_path / "x.upload")

    film(0.4)
    decoded = decoder().decode("video", "drive", tmp_path / "x.upload", tmp_path / "x.mp4")
    assert decoded.size == (10, 48, 64) and video_info(decoded.path).has_sound
    decoded.path.unlink()
    film(0.4)
    assert refused(decoder(max_seconds=0.2), tmp_path, (tmp_path / "x.upload").read_bytes(), "video", ".mp4").status == 413


def test_a_camera_path_is_numbers_alone(tmp_path):
    import json

    (tmp_path / "x.upload").write_text('{"keys": [{"time": 0, "evil": "x"}, {"time": 1, "yaw": 10}], "more": 1}')
    decoded = decoder().decode("path", "pose", tmp_path / "x.upload", tmp_path / "x.json")
    assert json.loads(decoded.path.read_text()) == {"keys": [{"time": 0.0}, {"time": 1.0, "yaw": 10.0}]}
    decoded.path.unlink()
    for content in (b"[" * 100_000, b'{"keys": 1}', b'{"keys": [{"time": 1e999}]}', b'{"frames": ["x"]}', b"\xff\xfe", b"{"):
        assert refused(decoder(), tmp_path, content, "path").code == "damaged"


def test_a_photo_s_thumbnail_is_no_end_of_it():
    """What the picture itself holds by chance is no other file behind it; what is appended is."""
    import io

    from PIL import Image

    from s3dnerf.service.decoding import behind

    def jpeg(side, **options):
        with io.BytesIO() as file:
            Image.effect_noise((side, side), 90).convert("RGB").save(file, "JPEG", **options)
            return file.getvalue()

    photo = jpeg(200)
    segment = b"Exif\x00\x00" + jpeg(16)
    photo = photo[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + photo[2:]
    Image.open(io.BytesIO(photo)).load()
    assert behind("JPEG", photo) == b"" and behind("JPEG", photo + b"<html>") == b"<html>"
