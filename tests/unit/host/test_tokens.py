"""Tokens of service accounts."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tandem.host.tokens import Claims, Tokens, refresh_in

CLAIMS = Claims("lab", "robot", "u1", audiences=("vault",), seconds=1000)


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def payload(token: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(decoded(token.split(".")[1]))
    return found


def test_a_token_says_whose_it_is_and_is_signed(tmp_path: Path) -> None:
    bound = {"pod": {"name": "p", "uid": "u2"}}
    claims = Claims("lab", "robot", "u1", ("vault",), 1000, bound)
    token, expires = Tokens(tmp_path / "pki").sign(claims, now=5000)
    said = payload(token)
    assert expires == said["exp"] == 6000
    assert said["sub"] == "system:serviceaccount:lab:robot"
    assert said["aud"] == ["vault"]
    assert said["kubernetes.io"] == {
        "namespace": "lab",
        "pod": {"name": "p", "uid": "u2"},
        "serviceaccount": {"name": "robot", "uid": "u1"},
    }
    path = tmp_path / "pki" / "service-account.key"
    assert path.stat().st_mode & 0o777 == 0o600
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    head, body, signature = token.split(".")
    assert json.loads(decoded(head))["alg"] == "ES256"
    raw = decoded(signature)
    pair = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    key.public_key().verify(pair, f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))


def test_the_key_stays(tmp_path: Path) -> None:
    first = Tokens(tmp_path).sign(CLAIMS)[0]
    second = Tokens(tmp_path).sign(CLAIMS)[0]
    assert first.split(".")[0] == second.split(".")[0]


def test_a_token_is_due_at_four_fifths_of_its_life(tmp_path: Path) -> None:
    token, _ = Tokens(tmp_path).sign(CLAIMS, now=5000)
    assert refresh_in(token, CLAIMS, now=5000) == 800
    assert refresh_in(token, CLAIMS, now=5799) == 1
    assert refresh_in(token, CLAIMS, now=5801) == 0
    year = Claims("lab", "robot", "u1", seconds=365 * 86400)
    assert refresh_in(Tokens(tmp_path).sign(year, now=0)[0], year, now=0) == 86400


def test_a_token_for_something_else_is_due_at_once(tmp_path: Path) -> None:
    token, _ = Tokens(tmp_path).sign(CLAIMS)
    others = [
        Claims("lab", "robot", "u9", ("vault",), 1000),
        Claims("lab", "robot", "u1", ("other",), 1000),
        Claims("lab", "robot", "u1", ("vault",), 2000),
    ]
    assert [refresh_in(token, claims) for claims in others] == [0, 0, 0]
    assert [refresh_in(text, CLAIMS) for text in ("", "a.b.c", "x")] == [0, 0, 0]
