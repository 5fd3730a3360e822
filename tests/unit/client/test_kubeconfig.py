"""What is read from a kubeconfig, and what is said of one that cannot be used."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tandem.client.kubeconfig import Access, load, parse
from tandem.errors import InvalidSpec, NotFound, Unsupported


def document(**changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "web"}},
            {"name": "there", "context": {"cluster": "c2", "user": "token"}},
        ],
        "clusters": [
            {
                "name": "c",
                "cluster": {
                    "server": "https://127.0.0.1:7443/",
                    "certificate-authority-data": base64.b64encode(b"CA").decode(),
                },
            },
            {"name": "c2", "cluster": {"server": "http://there"}},
        ],
        "users": [
            {"name": "u", "user": {"client-certificate": "u.crt", "client-key": "u.key"}},
            {"name": "token", "user": {"token": "secret"}},
        ],
    } | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "u.crt").write_bytes(b"CERT")
    (tmp_path / "u.key").write_bytes(b"KEY")
    return tmp_path


@pytest.mark.parametrize("dump", [json.dumps, yaml.safe_dump], ids=["json", "yaml"])
def test_the_current_context_is_read_with_data_inline_or_in_files_beside_it(
    folder: Path, dump: Any
) -> None:
    (folder / "config").write_text(dump(document()))
    assert load(folder / "config") == Access(
        "https://127.0.0.1:7443", "web", authority=b"CA", certificate=b"CERT", key=b"KEY"
    )


def test_another_context_may_be_named() -> None:
    access = parse(json.dumps(document()).encode(), context="there")
    assert access == Access("http://there", token="secret")


def test_without_a_path_the_environment_names_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "config").write_text(json.dumps(document()))
    monkeypatch.setenv("KUBECONFIG", f"{folder / 'config'}:/another")
    assert load().namespace == "web"


def test_nothing_secret_is_in_the_representation() -> None:
    shown = repr(Access("https://x", key=b"KEY", token="secret"))
    assert "KEY" not in shown
    assert "secret" not in shown


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"{", InvalidSpec, "kubeconfig f"),
        (b"a: [", InvalidSpec, "kubeconfig f"),
        (b"[]", InvalidSpec, "shape"),
        (b"{}", InvalidSpec, "no current-context"),
        (document(contexts=[]), NotFound, "no context is named 'here'"),
        (document(clusters=[]), NotFound, "no cluster is named 'c'"),
        (document(users=[]), NotFound, "no user is named 'u'"),
        (document(contexts="words"), InvalidSpec, "shape"),
        (document(clusters=[{"name": "c", "cluster": {"server": "x"}}]), InvalidSpec, "not a URL"),
        (document(users=[{"name": "u", "user": {"client-key-data": "?"}}]), InvalidSpec, "base64"),
        (
            document(users=[{"name": "u", "user": {"client-key": "none"}}]),
            InvalidSpec,
            "client-key",
        ),
        (document(users=[{"name": "u", "user": {"exec": {}}}]), Unsupported, "logs in by 'exec'"),
    ],
)
def test_what_is_wrong_is_said_in_words(
    content: bytes | dict[str, Any], error: type[Exception], words: str
) -> None:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(error, match=words):
        parse(data, source=Path("f"))


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        load(tmp_path / "none")


def test_a_certificate_that_is_none_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(InvalidSpec, match="certificate or key cannot be used"):
        Access("https://x", certificate=b"not PEM", key=b"neither").tls()
