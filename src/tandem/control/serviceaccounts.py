"""The loop of what every namespace has: a service account, and the certificate to know the API by."""

from __future__ import annotations

from pathlib import Path

from tandem.api.kind import Doc
from tandem.api.kinds.serviceaccount import DEFAULT
from tandem.api.meta import get
from tandem.api.rest import prepare_create
from tandem.control import objects
from tandem.control.changes import Change
from tandem.control.context import Context
from tandem.control.pods.volumes.sources import ROOT_CERTIFICATE
from tandem.control.queue import WorkQueue
from tandem.errors import AlreadyExists
from tandem.host.run import blocking
from tandem.store import Key

_NAMESPACES = "namespaces"
_NOTE = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints "
    "such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across "
    "distributions of Kubernetes clusters."
)


class ServiceAccounts:
    """Makes both in each namespace, and again when somebody takes them away. ``certificate``: the
    file of our CA's, which may come later."""

    def __init__(self, context: Context, certificate: Path) -> None:
        self._context = context
        self._certificate = certificate
        self.queue: WorkQueue[str] = WorkQueue("serviceaccounts", self.reconcile)
        context.changes.on(_NAMESPACES, self._namespace_changed)
        context.changes.on("serviceaccounts", self._object_changed)
        context.changes.on("configmaps", self._object_changed)

    def _namespace_changed(self, change: Change) -> None:
        if not change.deleted and not get(change.doc, "metadata.deletionTimestamp"):
            self.queue.add(change.key.name)

    def _object_changed(self, change: Change) -> None:
        wanted = (change.key.resource, change.key.name)
        if wanted == ("configmaps", ROOT_CERTIFICATE) or (
            change.deleted and wanted == ("serviceaccounts", DEFAULT)
        ):
            self.queue.add(change.key.namespace)

    async def reconcile(self, namespace: str) -> float | None:
        """Make what is missing in a namespace."""
        store = self._context.store
        found = objects.find(store, Key(_NAMESPACES, "", namespace))
        if found is None or get(found, "metadata.deletionTimestamp"):
            return None
        await self._ensure(Key("serviceaccounts", namespace, DEFAULT), {})
        certificate = await blocking(_read, self._certificate)
        if not certificate:
            return None
        key = Key("configmaps", namespace, ROOT_CERTIFICATE)
        data = {"ca.crt": certificate}
        doc = {"metadata": {"annotations": {"kubernetes.io/description": _NOTE}}, "data": data}
        present = await self._ensure(key, doc)
        if present.get("data") != data:
            await objects.change(
                store, key, present["metadata"]["uid"], lambda doc: doc.update(data=data)
            )
        return None

    async def _ensure(self, key: Key, doc: Doc) -> Doc:
        store = self._context.store
        if (present := objects.find(store, key)) is not None:
            return present
        doc.setdefault("metadata", {})["name"] = key.name
        kind = self._context.kind(key.resource)
        try:
            prepared = prepare_create(kind, doc, namespace=key.namespace)
            return await store.create(key, prepared.doc)
        except AlreadyExists:
            return store.get(key)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return ""
