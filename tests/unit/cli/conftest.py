"""The command line against an API that lives in a dict: every command, no socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tandem.cli.context import Context
from tandem.cli.main import main
from tandem.client import Access, Client
from tandem.client.request import Doc, Request
from tandem.client.resources import Resource, Resources
from tandem.errors import AlreadyExists, NotFound, TandemError

VERBS = frozenset({"get", "list", "watch", "create", "patch", "delete"})
KINDS = [
    Resource("", "v1", "Pod", "pods", "pod", True, ("po",), ("all",), VERBS),
    Resource("", "v1", "ConfigMap", "configmaps", "configmap", True, ("cm",), (), VERBS),
    Resource("", "v1", "Secret", "secrets", "secret", True, (), (), VERBS),
    Resource("", "v1", "Event", "events", "event", True, ("ev",), (), VERBS),
    Resource("", "v1", "Namespace", "namespaces", "namespace", False, ("ns",), (), VERBS),
    Resource(
        "kubevirt.io", "v1", "VirtualMachine", "virtualmachines", "virtualmachine", True,
        ("vm", "vms"), ("all",), VERBS,
    ),
]  # fmt: skip


class Api(Client):
    """A server's answers without the server. ``objects`` by path; ``asked`` is every request;
    ``answers`` (method and path) come before all else; ``chunks`` are what streams give."""

    def __init__(self) -> None:
        super().__init__(Access("http://api"))
        self._resources = Resources(KINDS)
        self.objects: dict[str, Doc] = {}
        self.asked: list[Request] = []
        self.answers: dict[tuple[str, str], Any] = {}
        self.chunks: dict[str, list[bytes]] = {}
        self._revision = 0

    def add(self, kind: str, name: str, namespace: str = "default", **more: Any) -> Doc:
        """Have an object exist."""
        resource = self.resources().find(kind)
        metadata = {"name": name, "namespace": namespace} | more.pop("metadata", {})
        doc = {"apiVersion": resource.api_version, "kind": resource.kind} | more
        return self._store(resource.path(namespace, name), doc | {"metadata": metadata})

    def get_doc(self, kind: str, name: str, namespace: str = "default") -> Doc:
        """What is stored."""
        return self.objects[self.resources().find(kind).path(namespace, name)]

    def _store(self, path: str, doc: Doc) -> Doc:
        self._revision += 1
        metadata = {"uid": f"uid-{path}"} | doc["metadata"]
        self.objects[path] = {
            **doc,
            "metadata": metadata | {"resourceVersion": str(self._revision)},
        }
        return self.objects[path]

    def send(self, question: Request) -> Any:
        self.asked.append(question)
        if (found := self.answers.get((question.method, question.path))) is not None:
            if isinstance(found, TandemError):
                raise found
            return found
        body = json.loads(question.body) if question.body else {}
        match question.method:
            case "POST":
                path = f"{question.path}/{body['metadata']['name']}"
                if path in self.objects:
                    raise AlreadyExists("it exists")
                namespace = question.path.split("/")[-2]
                body["metadata"] = {"namespace": namespace} | body["metadata"]
                return self._store(path, body)
            case "PATCH":
                old = self._found(question.path)
                new = _merged(old, body)
                return old if new == old else self._store(question.path, new)
            case "DELETE":
                self._found(question.path)
                del self.objects[question.path]
                return {"kind": "Status", "status": "Success"}
            case "GET" if question.path in self.objects:
                doc = self.objects[question.path]
                return _table([doc]) if "as=Table" in question.accept else doc
            case "GET" if question.path.rpartition("/")[2] in {kind.plural for kind in KINDS}:
                docs = list(self._selected(question))
                listing = _table(docs) if "as=Table" in question.accept else {"items": docs}
                return {**listing, "metadata": {"resourceVersion": str(self._revision)}}
        raise NotFound(f"{question.path} not found")

    def stream(self, question: Request) -> Iterator[bytes]:
        self.asked.append(question)
        if question.path not in self.chunks:
            raise NotFound(f"{question.path} not found")
        return iter(self.chunks[question.path])

    def _found(self, path: str) -> Doc:
        if path not in self.objects:
            raise NotFound(f"{path} not found")
        return self.objects[path]

    def _selected(self, question: Request) -> Iterator[Doc]:
        query = dict(question.query)
        plural = question.path.rpartition("/")[2]
        for path, doc in self.objects.items():
            collection, _, name = path.rpartition("/")
            labels = doc["metadata"].get("labels") or {}
            key, _, value = query.get("labelSelector", "").partition("=")
            if (
                (collection == question.path or (collection.endswith(f"/{plural}") and "/namespaces/" not in question.path))
                and (not key or labels.get(key) == value)
                and query.get("fieldSelector", "metadata.name=" + name).startswith(("metadata.name=" + name, "involvedObject"))
            ):  # fmt: skip
                yield doc


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict) or not isinstance(old, dict):
        return patch
    merged = dict(old)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(old.get(key, {} if isinstance(value, dict) else None), value)
    return merged


def _table(docs: list[Doc]) -> Doc:
    return {
        "kind": "Table",
        "columnDefinitions": [
            {"name": "Name", "priority": 0},
            {"name": "Status", "priority": 0},
            {"name": "IP", "priority": 1},
        ],
        "rows": [
            {
                "cells": [d["metadata"]["name"], (d.get("status") or {}).get("phase"), "10.0.0.1"],
                "object": {"metadata": d["metadata"]},
            }
            for d in docs
        ],
    }


class Run(Protocol):
    """Run one command; its exit code."""

    def __call__(self, *words: str, environ: dict[str, str] | None = None) -> int: ...


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://api"}}],
    }
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def run(api: Api, kubeconfig: Path, tmp_path: Path) -> Run:
    settings = {
        "TANDEM_KUBECONFIG": str(kubeconfig),
        "TANDEM_DATA_DIR": str(tmp_path / "data"),
        "TANDEM_RUN_DIR": str(tmp_path / "run"),
        "TANDEM_LOG_DIR": str(tmp_path / "log"),
    }

    def run(*words: str, environ: dict[str, str] | None = None) -> int:
        return main(words, Context(environ=settings | (environ or {}), connect=lambda _access: api))

    return run
