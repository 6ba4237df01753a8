"""The verb `serve`: what it is started with."""
import pytest

from s3dnerf.cli import main
from s3dnerf.errors import InputError
from s3dnerf.service.server import serve
from s3dnerf.service.settings import Settings

NO_PORT = "127.0.0.1", -1
"""a service must not get so far"""


@pytest.fixture
def files(tmp_path):
    """A chain, its key, and a key that is another's."""
    pytest.importorskip("c2pa", reason="the extra c2pa is not installed")
    from s3dnerf.marking.manifest import _new_chain

    paths = [str(tmp_path / name) for name in ("chain.pem", "key.pem", "other.pem")]
    for path, content in zip(paths, (*_new_chain(), _new_chain()[1])):
        with open(path, "wb") as file:
            file.write(content)
    return paths


def test_a_certificate_is_tried_at_the_start(bundle, files, monkeypatch):
    chain, key, other = files
    for certificate, private, word in ((chain, other, "cannot sign"), (key, key, "cannot sign"), (chain, chain, "no private key"),
                                       (chain, None, "--key"), (None, key, "--certificate"), ("/no/chain", key, "no certificate")):
        with pytest.raises(InputError, match=word) as error:
            serve(Settings(bundle, certificate=certificate, key=private), *NO_PORT)
        assert "\n" not in str(error.value)
    began = []
    monkeypatch.setattr("uvicorn.run", lambda *args, **options: began.append(1))
    serve(Settings(bundle, certificate=chain, key=key), *NO_PORT)
    assert began


def test_the_options_of_the_certificate_are_those_of_speak(monkeypatch):
    given = []
    monkeypatch.setattr("s3dnerf.service.server.serve", lambda settings, *rest: given.append(settings))
    assert not main(["serve", "--certificate", "chain.pem", "--key", "key.pem", "--origin", "https://a.example"])
    assert (given[0].certificate, given[0].key, given[0].origins) == ("chain.pem", "key.pem", ("https://a.example",))
