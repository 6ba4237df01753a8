"""Files are known by their content."""
from s3dnerf.digest import file_digest


def test_digests_are_those_of_the_standard(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B
    assert file_digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "million").write_bytes(b"a" * 1_000_000)
    assert file_digest(str(tmp_path / "million")) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    (tmp_path / "blocks").write_bytes(b"a" * (2 << 20))
    assert file_digest(tmp_path / "blocks") != file_digest(tmp_path / "million")
