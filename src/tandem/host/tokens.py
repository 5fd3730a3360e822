"""Service account tokens: JSON Web Tokens signed with a key that only this host has.

The key (ECDSA P-256) is made when the first token is asked for, and ``cryptography`` (15 MB of memory)
is imported then and no sooner: few Pods have a token, as the API listens on loopback.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ISSUER = "https://kubernetes.default.svc.cluster.local"
AUDIENCE = ISSUER
"""Whom a token is for when nobody is named: the API server itself."""

SHORTEST_SECONDS = 600
LONGEST_SECONDS = 1 << 32
DEFAULT_SECONDS = 3600

_REFRESH_AT = 0.8  # of its life, as the kubelet does; and after a day in any case
_REFRESH_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Claims:
    """Whom a token speaks for, to whom, and for how long.

    ``bound``: the objects that it dies with, as ``{"pod": {"name": ..., "uid": ...}}``.
    """

    namespace: str
    name: str
    uid: str
    audiences: tuple[str, ...] = (AUDIENCE,)
    seconds: int = DEFAULT_SECONDS
    bound: Mapping[str, Mapping[str, str]] | None = None

    @property
    def subject(self) -> str:
        """The name of the user that it is for the API."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"


class Tokens:
    """Signs tokens with the key in ``directory``, which it makes. Its methods block."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "service-account.key"
        self._key: Any = None
        self._id = ""

    def sign(self, claims: Claims, *, now: float | None = None) -> tuple[str, int]:
        """A token, and when it expires (seconds since 1970). Raises ``OSError``."""
        issued = int(time.time() if now is None else now)
        expires = issued + claims.seconds
        key = self._signing_key()
        payload = {
            "aud": list(claims.audiences),
            "exp": expires,
            "iat": issued,
            "iss": ISSUER,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": {
                "namespace": claims.namespace,
                **(claims.bound or {}),
                "serviceaccount": {"name": claims.name, "uid": claims.uid},
            },
            "nbf": issued,
            "sub": claims.subject,
        }
        text = f"{_part({'alg': 'ES256', 'kid': self._id})}.{_part(payload)}"
        return f"{text}.{_encoded(_signature(key, text.encode()))}", expires

    def _signing_key(self) -> Any:
        if self._key is None:
            from cryptography.hazmat.primitives import serialization

            try:
                pem = self._path.read_bytes()
            except FileNotFoundError:
                pem = self._make()
            self._key = serialization.load_pem_private_key(pem, None)
            public = self._key.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            self._id = _encoded(hashlib.sha256(public).digest())
        return self._key

    def _make(self) -> bytes:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp creates with 0600 whatever the umask is; a link fails where a key is there by now.
        handle, temporary = tempfile.mkstemp(dir=self._path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, self._path)
        finally:
            os.unlink(temporary)
        return self._path.read_bytes()


def refresh_in(token: str, claims: Claims, *, now: float | None = None) -> float:
    """Seconds until ``token``, which may be anything, should be replaced; 0 for one that is due, or
    that says something else than ``claims``."""
    try:
        payload = json.loads(_decoded(token.split(".")[1]))
        issued, expires = float(payload["iat"]), float(payload["exp"])
        same = (
            payload["sub"] == claims.subject
            and payload["aud"] == list(claims.audiences)
            and payload["kubernetes.io"]["serviceaccount"]["uid"] == claims.uid
            and round(expires - issued) == claims.seconds
        )
    except (ValueError, LookupError, TypeError):
        return 0.0
    if not same:
        return 0.0
    due = issued + min(_REFRESH_AT * (expires - issued), _REFRESH_SECONDS)
    return max(0.0, due - (time.time() if now is None else now))


def _signature(key: Any, data: bytes) -> bytes:
    """As JSON Web Signatures have it: both numbers, 32 bytes each."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    first, second = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return first.to_bytes(32, "big") + second.to_bytes(32, "big")


def _part(value: Mapping[str, Any]) -> str:
    return _encoded(json.dumps(value, separators=(",", ":")).encode())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
