"""Certificates: issued once, reused, renewed in time, and private."""

from __future__ import annotations

import base64
import ssl
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tandem.server import pki


def _load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def _names(certificate: x509.Certificate) -> set[str]:
    alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in alternative}


def test_server_certificate_names_every_way_to_reach_it(tmp_path: Path) -> None:
    made, _ = pki.ensure(tmp_path, addresses=["192.0.2.7", "box.example"])
    names = _names(_load(made.server_certificate))
    assert {"localhost", "127.0.0.1", "::1", "192.0.2.7", "box.example"} <= names
    assert {"kubernetes", "kubernetes.default", "kubernetes.default.svc"} <= names


def test_the_unspecified_address_is_no_name(tmp_path: Path) -> None:
    made, _ = pki.ensure(tmp_path, addresses=["0.0.0.0", "::"])
    assert not {"0.0.0.0", "::"} & _names(_load(made.server_certificate))


def test_client_certificate_is_the_administrators_and_only_for_clients(tmp_path: Path) -> None:
    made, _ = pki.ensure(tmp_path)
    client = _load(made.client_certificate)
    subject = {attribute.oid: attribute.value for attribute in client.subject}
    assert subject[NameOID.COMMON_NAME] == "kubernetes-admin"
    assert subject[NameOID.ORGANIZATION_NAME] == "system:masters"
    usage = client.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_every_file_is_private(tmp_path: Path) -> None:
    directory = tmp_path / "pki"
    pki.ensure(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert len(modes) == 7
    assert set(modes.values()) == {0o600}


def test_a_second_start_reuses_what_is_there(tmp_path: Path) -> None:
    pki.ensure(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    _, issued = pki.ensure(tmp_path)
    assert not issued
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_reuse_does_not_import_cryptography(tmp_path: Path) -> None:
    pki.ensure(tmp_path)
    code = (
        "import sys, pathlib\n"
        "from tandem.server import pki\n"
        "made, issued = pki.ensure(pathlib.Path(sys.argv[1]))\n"
        "made.server_context(); made.kubeconfig('https://localhost')\n"
        "assert not issued\n"
        "assert 'cryptography' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=20)


def test_new_names_issue_the_server_certificate_anew_and_leave_the_client_alone(
    tmp_path: Path,
) -> None:
    made, _ = pki.ensure(tmp_path)
    client = made.client_certificate.read_bytes()
    _, issued = pki.ensure(tmp_path, addresses=["192.0.2.9"])
    assert issued
    assert "192.0.2.9" in _names(_load(made.server_certificate))
    assert made.client_certificate.read_bytes() == client


@pytest.mark.parametrize(("days", "renewed"), [(304, False), (306, True)])
def test_leaves_are_renewed_two_months_before_they_expire(
    tmp_path: Path, days: int, renewed: bool
) -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    made, _ = pki.ensure(tmp_path, now=now)
    ca = made.ca_certificate.read_bytes()
    _, issued = pki.ensure(tmp_path, now=now + timedelta(days=days))
    assert issued is renewed
    assert made.ca_certificate.read_bytes() == ca


def test_the_authority_is_renewed_before_it_would_expire_under_a_leaf(tmp_path: Path) -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    made, _ = pki.ensure(tmp_path, now=now)
    ca = made.ca_certificate.read_bytes()
    later = now + timedelta(days=9 * 365)
    pki.ensure(tmp_path, now=later)
    assert made.ca_certificate.read_bytes() != ca
    authority, server = _load(made.ca_certificate), _load(made.server_certificate)
    server.verify_directly_issued_by(authority)
    assert authority.not_valid_after_utc > server.not_valid_after_utc


@pytest.mark.parametrize("name", ["server.crt", "server.key", "client.crt", "ca.crt", "ca.key"])
def test_a_lost_file_is_made_again(tmp_path: Path, name: str) -> None:
    made, _ = pki.ensure(tmp_path)
    (tmp_path / name).unlink()
    pki.ensure(tmp_path)
    made.server_context()
    made.client_context()
    _load(made.server_certificate).verify_directly_issued_by(_load(made.ca_certificate))


def test_an_unreadable_record_vouches_for_nothing(tmp_path: Path) -> None:
    pki.ensure(tmp_path)
    (tmp_path / "issued.json").write_text("{")
    made, issued = pki.ensure(tmp_path)
    assert issued
    made.server_context()


def test_the_server_asks_for_a_client_certificate_and_does_not_insist(tmp_path: Path) -> None:
    made, _ = pki.ensure(tmp_path)
    context = made.server_context()
    assert context.verify_mode == ssl.CERT_OPTIONAL
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_kubeconfig_holds_the_credentials_themselves(tmp_path: Path) -> None:
    made, _ = pki.ensure(tmp_path)
    document = made.kubeconfig("https://127.0.0.1:7443")
    cluster = document["clusters"][0]["cluster"]
    user = document["users"][0]["user"]
    assert cluster["server"] == "https://127.0.0.1:7443"
    assert base64.b64decode(cluster["certificate-authority-data"]).startswith(b"-----BEGIN CERT")
    assert base64.b64decode(user["client-key-data"]) == made.client_key.read_bytes()
    assert document["current-context"] == document["contexts"][0]["name"]


def test_a_private_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kubeconfig"
    pki.write_private(path, b"old")

    def fail(_fd: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        pki.write_private(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["kubeconfig"]
