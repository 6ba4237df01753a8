"""The downloader itself, from a web server of this machine; what it makes of lists is told in test_fake_sets."""
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from s3dnerf.commands import download as verb
from s3dnerf.data.download import LinkError, youtube
from s3dnerf.errors import DependencyError, InputError
from s3dnerf.media import VideoWriter, read_frames, read_sound


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@pytest.fixture
def server(tmp_path):
    """The folder that is served, and its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_picture_and_sound_of_a_link_are_fetched_and_a_dead_one_is_named(server, tmp_path):
    pytest.importorskip("yt_dlp", reason="yt-dlp is not installed")
    folder, address = server
    with VideoWriter(folder / "film.mp4", 64, 48, sound=0.3 * np.sin(np.arange(16000) / 9).astype(np.float32)) as writer:
        for shade in range(25):
            writer.write(np.full((48, 64, 3), 8 * shade, np.uint8))
    (tmp_path / "got").mkdir()
    path, = youtube()(f"{address}/film.mp4", tmp_path / "got", 720)
    assert path.read_bytes() == (folder / "film.mp4").read_bytes()
    assert len(list(read_frames(path))) == 25 and np.abs(read_sound(path)).max() > 0.2
    with pytest.raises(LinkError, match="404") as error:
        youtube()(f"{address}/gone.mp4", tmp_path / "got", None)
    assert "\n" not in str(error.value)


def test_without_the_extra_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    with pytest.raises(DependencyError, match=r"pip install 's3dnerf\[download\]'"):
        youtube()


def test_a_set_without_lists_is_not_downloaded(tmp_path):
    with pytest.raises(InputError, match="names no lists to download from; .*README.md tells how to get the set"):
        verb("datasets/mead/recipe.yaml", str(tmp_path), str(tmp_path / "out"))
