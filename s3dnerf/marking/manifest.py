"""The C2PA manifest: a signed statement, inside the file, that the video was created by a model (extra `c2pa`)."""
from __future__ import annotations

import datetime
import io
import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Optional

from s3dnerf.errors import DependencyError, InputError
from s3dnerf.marking.metadata import SYNTHETIC
from s3dnerf.media import PathLike, check_file

KINDS = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime"}
"""endings of files that can hold a manifest"""
YEARS = 10
"""that a development certificate lasts"""
ORGANISATION = "s3dnerf development certificate"


@dataclass(frozen=True)
class Manifest:
    """What was read of a manifest."""

    state: str
    """Valid (the file is as it was signed), Trusted (and by a signer whom the library trusts), Invalid"""
    signer: Optional[str]
    """organisation and name of the signing certificate"""
    synthetic: bool
    """whether an action says that the media was made by a trained model"""
    problems: tuple[str, ...]
    """codes of what does not hold; signingCredential.untrusted of every certificate that is on no list"""


def installed() -> bool:
    """Whether the extra is there."""
    return find_spec("c2pa") is not None


def _library():
    try:
        import c2pa
    except (ImportError, OSError) as error:
        raise DependencyError(f"a C2PA manifest needs c2pa-python ({error}); run `pip install 's3dnerf[c2pa]'`") from None
    return c2pa


def signer_of(certificate: Optional[PathLike] = None, key: Optional[PathLike] = None):
    """What signs: from a PEM chain, signer first, and its private key; None is the development certificate.

    DependencyError without the extra; InputError for a certificate that C2PA does not allow, or a key that is none or not the
    certificate's: whoever gives them learns it before a video is made.
    """
    c2pa = _library()
    if certificate is None or key is None:
        chain, private = development_certificate()
    else:
        chain, private = check_file(certificate, "certificate").read_bytes(), check_file(key, "key").read_bytes()
    try:
        signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(_algorithm(private, key), chain, private, None))
        if certificate is not None:
            _try(c2pa, signer)
    except c2pa.C2paError as error:
        raise InputError(f"{certificate} cannot sign a C2PA manifest ({' '.join(str(error).split())}); expected a PEM chain, signer "
                         "first, and its key (see docs/marking.md)") from None
    return signer


def _try(c2pa, signer) -> None:
    """Signs a picture of nothing, which tells what reading a certificate and a key does not: whether they belong together."""
    from PIL import Image

    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    picture.seek(0)
    action = {"action": "c2pa.created", "digitalSourceType": SYNTHETIC}
    statement = {"format": "image/png", "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]}
    c2pa.Builder(statement).sign(signer, "image/png", picture, io.BytesIO())


def sign(path: Path, told: dict[str, str], signer) -> None:
    """Writes a signed manifest into a video (mp4, m4v or mov), which changes all at once.

    Args:
        path: the finished video; anything that changes it later breaks the manifest.
        told: `metadata.record`.
        signer: see `signer_of`.

    Raises:
        InputError: for a certificate that C2PA does not allow, or a key that is not the certificate's.
    """
    c2pa = _library()
    agent = {"name": told["generator"], "version": told["version"]}
    action = {"action": "c2pa.created", "digitalSourceType": SYNTHETIC, "softwareAgent": agent}
    action |= {"when": told["time"]} if "time" in told else {}
    statement = {"claim_generator_info": [agent], "format": KINDS[path.suffix.lower()], "assertions": [
        {"label": "c2pa.actions.v2", "data": {"actions": [action]}}, {"label": "org.s3dnerf.origin", "data": told}]}
    part = path.with_name(f".signed.{os.getpid()}{path.name[-100:]}")
    try:
        with path.open("rb") as source, part.open("w+b") as target:
            c2pa.Builder(statement).sign(signer, KINDS[path.suffix.lower()], source, target)
        os.replace(part, path)
    except c2pa.C2paError as error:
        raise InputError(f"the certificate cannot sign a C2PA manifest ({' '.join(str(error).split())}); expected a PEM chain, signer "
                         "first, and its key (see docs/marking.md)") from None
    finally:
        part.unlink(missing_ok=True)


def _algorithm(private: bytes, path: PathLike) -> bytes:
    """C2PA's name of the algorithm of a private key; InputError for a key that has none."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    try:
        key = serialization.load_pem_private_key(private, None)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is no private key that can be read ({error}); expected PEM without a password") from None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {256: b"es256", 384: b"es384"}.get(key.curve.key_size, b"es512")
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return b"ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return b"ps256"
    raise InputError(f"{path} is a key of another kind; expected EC, Ed25519 or RSA")


def read_manifest(path: Path) -> Optional[Manifest]:
    """The manifest of a video, checked against its content, without asking the network; None where there is none.

    DependencyError without the extra.
    """
    c2pa = _library()
    kind = _kind(path)
    if kind is None:
        return None
    offline = c2pa.Context.from_dict({"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}})
    try:
        with path.open("rb") as file, c2pa.Reader(kind, file, context=offline) as reader:
            active, state = reader.get_active_manifest(), reader.get_validation_state()
            results = reader.get_validation_results() or {}
    except c2pa.C2paError as error:
        if isinstance(error, c2pa.C2paError.ManifestNotFound):
            return None
        return Manifest("Invalid", None, False, (" ".join(str(error).split()),))
    signature = (active or {}).get("signature_info") or {}
    failures = (results.get("activeManifest") or {}).get("failure") or []
    signer = ", ".join(filter(None, (signature.get("issuer"), signature.get("common_name"))))
    return Manifest(str(state), signer or None, SYNTHETIC in json.dumps((active or {}).get("assertions", [])),
                    tuple(dict.fromkeys(failure["code"] for failure in failures)))


def _kind(path: Path) -> Optional[str]:
    """The media type by content, because a downloaded file may have any name; None where there is no room for a manifest."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] != b"ftyp":
        return None
    return KINDS[".mov" if head[8:] == b"qt  " else ".mp4"]


def certificate_folder() -> Path:
    """Where the development certificate is: $XDG_CONFIG_HOME/s3dnerf, or ~/.config/s3dnerf."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "s3dnerf"


def development_certificate(folder: Optional[Path] = None) -> tuple[bytes, bytes]:
    """PEM of a chain and a key of this user's own, made when there are none; nobody else trusts them.

    Where the folder cannot be written they are made anew each time.
    """
    folder = folder or certificate_folder()
    paths = folder / "c2pa-certificate.pem", folder / "c2pa-key.pem"
    if all(path.is_file() for path in paths):
        return paths[0].read_bytes(), paths[1].read_bytes()
    chain, key = _new_chain()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in zip(paths, (chain, key)):
            part = path.with_name(f".{path.name}.{os.getpid()}")
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
            os.replace(part, path)
    except OSError:
        pass  # a read-only home is no reason for a video without a manifest
    return chain, key


def _new_chain() -> tuple[bytes, bytes]:
    """PEM of a signer and the authority that vouches for it, whose own key is thrown away, and of the signer's key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    names = [x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
                        x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("authority", "signer")]
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in names]
    begin = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    certificates = []
    for is_root, name, key in zip((True, False), names, keys):
        usage = {field: False for field in ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                                            "encipher_only", "decipher_only")}
        usage |= {"digital_signature": not is_root, "key_cert_sign": is_root, "crl_sign": is_root}
        builder = x509.CertificateBuilder(names[0], name, key.public_key(), x509.random_serial_number(), begin,
                                          begin + datetime.timedelta(days=365 * YEARS))
        builder = builder.add_extension(x509.BasicConstraints(is_root, None), True).add_extension(x509.KeyUsage(**usage), True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), False)
        if not is_root:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        certificates.append(builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return certificates[1] + certificates[0], keys[1].private_bytes(serialization.Encoding.PEM, *plain)
