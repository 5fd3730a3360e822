"""The daemon's own certificates: one CA, one server and one client, in one private directory.

A host has no one to ask for certificates, so the daemon is its own authority. Whoever can read the
client's key is administrator, therefore every file is 0600 and written by rename. What was issued is
recorded in ``issued.json`` beside the certificates (names, expiry, digest); a restart only compares
that record, so that ``cryptography`` (15 MB, a tenth of a second) is imported only by the run that has
something to issue.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ipaddress
import os
import socket
import ssl
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

ADMIN_USER = "kubernetes-admin"
ADMIN_GROUP = "system:masters"
"""Subject CN and O of the client certificate, the names that Kubernetes gives its administrator."""

_CA_LIFETIME = timedelta(days=3650)
_LEAF_LIFETIME = timedelta(days=365)
_RENEW_BEFORE = timedelta(days=60)
# Certificates start in the past, so that a client whose clock runs behind can connect at once.
_BACKDATE = timedelta(hours=1)
_NAMES_OF_KUBERNETES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")


class _Issued(msgspec.Struct, frozen=True):
    """What ``issued.json`` knows of one certificate: enough to tell whether it still serves."""

    sha256: str
    not_after: datetime
    names: list[str] = []
    issuer_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Pki:
    """The PEM files of the authority, the server and the administrator."""

    directory: Path

    @property
    def ca_certificate(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def server_certificate(self) -> Path:
        return self.directory / "server.crt"

    @property
    def server_key(self) -> Path:
        return self.directory / "server.key"

    @property
    def client_certificate(self) -> Path:
        return self.directory / "client.crt"

    @property
    def client_key(self) -> Path:
        return self.directory / "client.key"

    def server_context(self) -> ssl.SSLContext:
        """TLS for the listener: our certificate, and the client's asked for but not required here.

        A client without one is let through the handshake, so that it can be told 401 in words; one
        with a certificate of somebody else's CA is refused by the handshake.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.server_certificate, self.server_key)
        context.load_verify_locations(self.ca_certificate)
        context.verify_mode = ssl.CERT_OPTIONAL
        # Watches and upgrades are HTTP/1.1 here; say so, and Go's clients do not try HTTP/2.
        context.set_alpn_protocols(["http/1.1"])
        # client-go keeps no session cache: tickets would be made and sent for nothing.
        context.num_tickets = 0
        return context

    def client_context(self) -> ssl.SSLContext:
        """TLS for a client on this host that acts as the administrator."""
        context = ssl.create_default_context(cafile=self.ca_certificate)
        context.load_cert_chain(self.client_certificate, self.client_key)
        return context

    def kubeconfig(self, url: str, *, name: str = "tandem") -> dict[str, Any]:
        """A kubeconfig document for the administrator, certificates and key inside it.

        It is a credential: write it with :func:`write_private`.
        """
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": name,
                    "cluster": {
                        "server": url,
                        "certificate-authority-data": _base64(self.ca_certificate),
                    },
                }
            ],
            "users": [
                {
                    "name": f"{name}-admin",
                    "user": {
                        "client-certificate-data": _base64(self.client_certificate),
                        "client-key-data": _base64(self.client_key),
                    },
                }
            ],
            "contexts": [
                {
                    "name": name,
                    "context": {"cluster": name, "user": f"{name}-admin", "namespace": "default"},
                }
            ],
            "current-context": name,
        }


def ensure(
    directory: Path, *, addresses: Iterable[str] = (), now: datetime | None = None
) -> tuple[Pki, bool]:
    """Make ``directory`` hold certificates that serve, and say whether any was issued.

    ``addresses`` are the names and IP addresses the server is reached by, beside localhost, this
    host's name and ``kubernetes``; the server's certificate is issued again when they change. Each
    certificate is renewed 60 days before it expires, the CA (10 years) together with all it signed.
    Blocking: call it in a thread. Raises ``OSError`` when the directory cannot be written.
    """
    now = now or datetime.now(UTC)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    pki = Pki(directory)
    record = _read_record(directory)
    names = _server_names(addresses)

    ca = record.get("ca")
    # The CA must outlive what it signs; otherwise clients see a leaf that is valid under a dead CA.
    if not _serves(ca, directory, "ca", now + _LEAF_LIFETIME):
        ca = _issue_ca(directory, now)
        record = {}
    assert ca is not None
    stale = [
        leaf
        for leaf, wanted in (("server", names), ("client", []))
        if not _serves(record.get(leaf), directory, leaf, now, issuer=ca.sha256, names=wanted)
    ]
    issued = {"ca": ca, **{leaf: kept for leaf, kept in record.items() if leaf not in stale}}
    for leaf in stale:
        issued[leaf] = _issue_leaf(directory, leaf, names if leaf == "server" else [], now)
    if issued != record:
        write_private(directory / "issued.json", msgspec.json.encode(issued))
    return pki, bool(stale)


def write_private(path: Path, data: bytes) -> None:
    """Replace ``path`` with ``data`` as one step, mode 0600, durable when it returns.

    A reader sees the old file or the new one; nobody else ever sees the bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp creates with 0600 whatever the umask is.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _read_record(directory: Path) -> dict[str, _Issued]:
    try:
        data = (directory / "issued.json").read_bytes()
        return msgspec.json.decode(data, type=dict[str, _Issued])
    except (FileNotFoundError, msgspec.MsgspecError):
        # Without a readable record nothing can be vouched for: everything is issued anew.
        return {}


def _serves(
    issued: _Issued | None,
    directory: Path,
    name: str,
    until: datetime,
    *,
    issuer: str = "",
    names: Sequence[str] = (),
) -> bool:
    if issued is None or issued.not_after - _RENEW_BEFORE <= until:
        return False
    if issued.issuer_sha256 != issuer or issued.names != list(names):
        return False
    if not (directory / f"{name}.key").exists():
        return False
    try:
        return _digest((directory / f"{name}.crt").read_bytes()) == issued.sha256
    except FileNotFoundError:
        return False


def _server_names(addresses: Iterable[str]) -> list[str]:
    names = {"localhost", "127.0.0.1", "::1", socket.gethostname(), *_NAMES_OF_KUBERNETES}
    for address in addresses:
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(address).is_unspecified:
                continue  # "every address" is none that a client can name
        names.add(address)
    return sorted(name for name in names if name)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _issue_ca(directory: Path, now: datetime) -> _Issued:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    # The name carries the time: a client that has an older CA under the same name would otherwise
    # report a bad signature in place of an unknown authority.
    subject = _subject(f"tandem-ca@{int(now.timestamp())}")
    builder = _certificate(subject, subject, key, now, _CA_LIFETIME).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    return _sign_and_write(directory, "ca", builder, key, signer=key, now=now, life=_CA_LIFETIME)


def _issue_leaf(directory: Path, leaf: str, names: list[str], now: datetime) -> _Issued:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    ca_pem = (directory / "ca.crt").read_bytes()
    ca = x509.load_pem_x509_certificate(ca_pem)
    ca_key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    if leaf == "server":
        subject, usage = _subject("tandem"), ExtendedKeyUsageOID.SERVER_AUTH
    else:
        subject, usage = _subject(ADMIN_USER, ADMIN_GROUP), ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _certificate(subject, ca.subject, key, now, _LEAF_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        # The usage keeps the server's certificate from being taken for a client's.
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
        )
    return _sign_and_write(
        directory,
        leaf,
        builder,
        key,
        signer=ca_key,
        now=now,
        life=_LEAF_LIFETIME,
        names=names,
        issuer_sha256=_digest(ca_pem),
    )


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: EllipticCurvePrivateKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    from cryptography import x509

    is_ca = subject == issuer
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=is_ca,
                crl_sign=is_ca,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )


def _sign_and_write(
    directory: Path,
    name: str,
    builder: x509.CertificateBuilder,
    key: EllipticCurvePrivateKey,
    *,
    signer: EllipticCurvePrivateKey,
    now: datetime,
    life: timedelta,
    names: list[str] | None = None,
    issuer_sha256: str = "",
) -> _Issued:
    from cryptography.hazmat.primitives import hashes, serialization

    pem = builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    # The certificate goes first: after a crash between the two the record, which has the old one's
    # digest, no longer vouches for the pair, and it is issued again.
    write_private(directory / f"{name}.crt", pem)
    write_private(directory / f"{name}.key", key_pem)
    return _Issued(
        sha256=_digest(pem), not_after=now + life, names=names or [], issuer_sha256=issuer_sha256
    )


def _subject(common_name: str, organization: str = "") -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
