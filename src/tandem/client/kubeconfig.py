"""Reads a kubeconfig: where the API is and how we prove who we are.

Only what a certificate or token needs is understood; a user that logs in by a plugin (``exec``,
``auth-provider``) is refused in words rather than tried anonymously.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tandem.errors import InvalidSpec, NotFound, Unsupported

if TYPE_CHECKING:
    import ssl

DEFAULT_FILE = Path("~/.kube/config")


@dataclass(frozen=True, slots=True, repr=False)
class Access:
    """One API server and one identity. PEM bytes, not files; empty where the kubeconfig has none.

    ``namespace`` is what requests use that name none.
    """

    server: str
    namespace: str = "default"
    authority: bytes = b""
    certificate: bytes = b""
    key: bytes = b""
    token: str = ""
    server_name: str = ""
    insecure: bool = False

    def __repr__(self) -> str:
        return f"Access(server={self.server!r}, namespace={self.namespace!r})"  # nothing secret

    def tls(self) -> ssl.SSLContext | None:
        """The TLS side of this access; None for a plain ``http://`` server."""
        import ssl

        if urlsplit(self.server).scheme != "https":
            return None
        try:
            context = ssl.create_default_context(cadata=self.authority.decode() or None)
            if self.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.certificate:
                _load_identity(context, self.certificate, self.key)
        except (ssl.SSLError, ValueError) as error:
            raise InvalidSpec(
                f"the kubeconfig's certificate or key cannot be used: {error}"
            ) from error
        return context


def load(path: Path | None = None, *, context: str = "") -> Access:
    """The access that ``context`` (else the current context) of a kubeconfig describes.

    Without ``path``: the first file of ``$KUBECONFIG``, else ``~/.kube/config``. Raises ``NotFound``
    (no such file, or a name in it that leads nowhere), ``InvalidSpec`` and ``Unsupported``.
    """
    if path is None:
        named = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
        path = Path(named[0]) if named else DEFAULT_FILE.expanduser()
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"kubeconfig {path}: no such file") from error
    except OSError as error:
        raise InvalidSpec(f"kubeconfig {path}: {error.strerror}") from error
    return parse(content, context=context, source=path)


def parse(content: bytes, *, context: str = "", source: Path = Path("kubeconfig")) -> Access:
    """As :func:`load`, from the file's content; relative files in it are next to ``source``."""
    document = _document(content, source)
    try:
        name = context or document.get("current-context") or ""
        if not name:
            raise InvalidSpec(f"kubeconfig {source}: no current-context is set")
        chosen = _named(document, "contexts", "context", name, source)
        cluster = _named(document, "clusters", "cluster", str(chosen.get("cluster", "")), source)
        user_name = chosen.get("user")
        user = _named(document, "users", "user", str(user_name), source) if user_name else {}
    except (AttributeError, TypeError) as error:
        raise InvalidSpec(f"kubeconfig {source}: not of a kubeconfig's shape") from error
    for plugin in ("exec", "auth-provider"):
        if plugin in user:
            raise Unsupported(
                f"kubeconfig {source}: user {user_name!r} logs in by {plugin!r}, which is not supported",
                hint="use a client certificate or a token",
            )
    server = str(cluster.get("server", ""))
    if urlsplit(server).scheme not in ("http", "https"):
        raise InvalidSpec(f"kubeconfig {source}: cluster server {server!r} is not a URL")
    token = str(user.get("token", "")) or _bytes(user, "tokenFile", source).decode().strip()
    return Access(
        server=server.rstrip("/"),
        namespace=str(chosen.get("namespace") or "default"),
        authority=_bytes(cluster, "certificate-authority", source),
        certificate=_bytes(user, "client-certificate", source),
        key=_bytes(user, "client-key", source),
        token=token,
        server_name=str(cluster.get("tls-server-name", "")),
        insecure=cluster.get("insecure-skip-tls-verify") is True,
    )


def _document(content: bytes, source: Path) -> dict[str, Any]:
    if content.lstrip().startswith(b"{"):
        # JSON is YAML, and read without a fifth of the command line's start.
        import json

        try:
            document = json.loads(content)
        except ValueError as error:
            raise InvalidSpec(f"kubeconfig {source}: {error}") from error
    else:
        import yaml

        try:
            document = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.YAMLError as error:
            raise InvalidSpec(f"kubeconfig {source}: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise InvalidSpec(f"kubeconfig {source}: not of a kubeconfig's shape")
    return document


def _named(
    document: Mapping[str, Any], plural: str, singular: str, name: str, source: Path
) -> dict[str, Any]:
    for entry in document.get(plural) or ():
        if entry.get("name") == name:
            found = entry.get(singular) or {}
            if not isinstance(found, dict):
                raise TypeError(plural)
            return found
    raise NotFound(f"kubeconfig {source}: no {singular} is named {name!r}")


def _bytes(entry: Mapping[str, Any], key: str, source: Path) -> bytes:
    """``key-data`` inline as base64, or the content of the file that ``key`` names."""
    if inline := entry.get(f"{key}-data"):
        try:
            return base64.b64decode(inline, validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise InvalidSpec(f"kubeconfig {source}: {key}-data is not base64") from error
    if not (named := entry.get(key)):
        return b""
    file = source.parent / str(named)
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidSpec(f"kubeconfig {source}: {key} {file}: {error.strerror}") from error


def _load_identity(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    # The ssl module reads keys from files only. A memfd is one that never touches a disk.
    descriptor = os.memfd_create("tandem-client", os.MFD_CLOEXEC)
    try:
        content = certificate + b"\n" + key
        while content:
            content = content[os.write(descriptor, content) :]
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
