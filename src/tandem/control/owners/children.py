"""Objects that other objects make and own: which are whose, adoption, creation and deletion.

One :class:`Children` for each resource of children (Pods, ReplicaSets) serves the loops of all the
kinds that own them. What is true is in the store: an owner's children are those that name it as their
controller *there*. The index of owners, which follows the store by a watch, only says where to look, and
what was made a moment ago is remembered until the index has it; so no owner ever makes too many.

An owner also takes in whoever matches its selector and has no controller, and lets go of who matches
no more. Both directions of that are looked up by one label, never by a walk over all objects.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tandem.api.kind import Doc, Kind
from tandem.api.meta import controller_of, generate_name, get, owner_reference
from tandem.api.rest import prepare_create
from tandem.api.selectors import LabelSelector
from tandem.control import objects
from tandem.control.changes import Change
from tandem.control.context import Context
from tandem.errors import AlreadyExists, Forbidden, TandemError
from tandem.store import Key
from tandem.store.lookup import StoreLookup

logger = logging.getLogger(__name__)

AT_ONCE = 500
"""Most children that one step makes or deletes, so that a large owner does not keep others waiting."""

_NAME_TRIES = 8

_WISHES = ("uid", "generation", "deletionTimestamp", "finalizers", "annotations")
"""Of an owner's metadata, what its own loop does not write with every status."""

_Label = tuple[str, str, str]
"""Namespace, key and value; the key is empty where a selector asks for no value of any label."""


class Terminating(Forbidden):
    """Nothing can be made in this namespace any more, and nobody has to be told."""


@dataclass(slots=True)
class _Owners:
    """The owners of one kind, and how they select."""

    kind: Kind
    selector: Callable[[Doc], LabelSelector]
    wake: Callable[[Key], None]
    by_label: dict[_Label, set[Key]] = field(default_factory=lambda: defaultdict(set))
    labels: dict[Key, _Label] = field(default_factory=dict)
    seen: dict[Key, int] = field(default_factory=dict)


class _Seen(NamedTuple):
    """What was last known of a child: what its owner acts upon, and who that is."""

    concerns: int
    owner: str


class Children:
    """See the module's docstring. ``concerns(child)`` is what an owner acts upon; changes of anything
    else wake nobody."""

    def __init__(
        self, context: Context, resource: str, concerns: Callable[[Doc], tuple[Any, ...]]
    ) -> None:
        self.kind = context.kind(resource)
        self._context = context
        self._store = context.store
        self._changes = context.changes
        self._lookup = StoreLookup(context.store)
        self._concerns = concerns
        self._owners: dict[str, _Owners] = {}
        self._seen: dict[str, _Seen] = {}
        self._loose: dict[_Label, set[Key]] = defaultdict(set)
        self._loose_labels: dict[Key, tuple[_Label, ...]] = {}
        self._made: dict[str, set[Key]] = defaultdict(set)
        context.changes.on(resource, self._changed)

    def serve(
        self, kind: Kind, selector: Callable[[Doc], LabelSelector], wake: Callable[[Key], None]
    ) -> None:
        """Objects of ``kind`` own children that ``selector(owner)`` selects. ``wake`` is called with
        an owner's key when somebody wants something else of it, and when one of its children, or one
        that could be its, has changed."""
        self._owners[kind.resource] = owners = _Owners(kind, selector, wake)
        self._context.changes.on(kind.resource, lambda change: self._owner_changed(owners, change))

    # -- what wakes owners -------------------------------------------------------------------

    def _changed(self, change: Change) -> None:
        self._index(change)
        uid = change.uid
        before = self._seen.get(uid)
        if change.deleted:
            self._seen.pop(uid, None)
            self._wake(before.owner if before else _owner_uid(change.doc))
            return
        seen = _Seen(_digest(*self._concerns(change.doc)), _owner_uid(change.doc))
        if seen == before:
            return
        self._seen[uid] = seen
        if before is not None and before.owner != seen.owner:
            self._wake(before.owner)
        if seen.owner:
            self._wake(seen.owner)
        else:
            self._wake_matching(change)

    def _wake(self, uid: str) -> None:
        key = self._changes.key_of(uid) if uid else None
        if key is not None and (owners := self._owners.get(key.resource)):
            owners.wake(key)

    def _wake_matching(self, change: Change) -> None:
        """A child without an owner: wake those who may take it."""
        if get(change.doc, "metadata.deletionTimestamp"):
            return
        labels = get(change.doc, "metadata.labels", {})
        namespace = change.key.namespace
        places = [(namespace, key, value) for key, value in labels.items()]
        for owners in self._owners.values():
            for place in (*places, (namespace, "", "")):
                for key in owners.by_label.get(place, ()):
                    owners.wake(key)

    def _owner_changed(self, owners: _Owners, change: Change) -> None:
        if label := owners.labels.pop(change.key, None):
            owners.by_label[label].discard(change.key)
            if not owners.by_label[label]:
                del owners.by_label[label]
        if change.deleted:
            self._made.pop(change.uid, None)
            owners.seen.pop(change.key, None)
            owners.wake(change.key)
            return
        wish = _digest(*(change.doc["metadata"].get(field) for field in _WISHES))
        if wish != owners.seen.get(change.key):
            owners.seen[change.key] = wish
            owners.wake(change.key)
        label = _place(change.key.namespace, owners.selector(change.doc))
        owners.labels[change.key] = label
        owners.by_label[label].add(change.key)

    def _index(self, change: Change) -> None:
        """Keep who has no owner by its labels."""
        for label in self._loose_labels.pop(change.key, ()):
            self._loose[label].discard(change.key)
            if not self._loose[label]:
                del self._loose[label]
        if change.deleted or controller_of(change.doc) is not None:
            return
        namespace = change.key.namespace
        labels = get(change.doc, "metadata.labels", {})
        places = (*((namespace, key, value) for key, value in labels.items()), (namespace, "", ""))
        self._loose_labels[change.key] = places
        for label in places:
            self._loose[label].add(change.key)

    # -- whose are whose ---------------------------------------------------------------------

    def owned(self, uid: str) -> list[Doc]:
        """The children that name this UID as their controller, by name."""
        made = self._made.get(uid, set())
        indexed = set(self._changes.owned_by(uid))
        found = []
        for key in sorted(indexed | made):
            if key.resource != self.kind.resource:
                continue
            doc = objects.find(self._store, key)
            if doc is not None and _owner_uid(doc) == uid:
                found.append(doc)
                if key not in indexed:
                    continue
            made.discard(key)
        if not made:
            self._made.pop(uid, None)
        return found

    async def claim(self, kind: Kind, owner: Doc, *, finalizers: Iterable[str] = ()) -> list[Doc]:
        """The owner's children, after those that match no more have been released and those that
        nobody owns have been taken in (with ``finalizers``)."""
        metadata = owner["metadata"]
        selector = self._owners[kind.resource].selector(owner)
        going = bool(metadata.get("deletionTimestamp"))
        kept: list[Doc] = []
        for child in self.owned(metadata["uid"]):
            if going or selector.matches(child["metadata"].get("labels")):
                kept.append(child)
            else:
                await self._release(child, metadata["uid"], finalizers)
        if going or not selector:
            return kept
        for key in sorted(self._loose.get(_place(metadata["namespace"], selector), ())):
            loose = objects.find(self._store, key)
            if loose is None or not selector.matches(loose["metadata"].get("labels")):
                continue
            adopted = await self._adopt(kind, owner, loose, finalizers)
            if adopted is not None:
                kept.append(adopted)
        return kept

    async def _adopt(
        self, kind: Kind, owner: Doc, child: Doc, finalizers: Iterable[str]
    ) -> Doc | None:
        if child["metadata"].get("deletionTimestamp") or controller_of(child) is not None:
            return None
        key, uid = self.key(child), owner["metadata"]["uid"]

        def take(doc: Doc) -> None:
            if controller_of(doc) is None and not doc["metadata"].get("deletionTimestamp"):
                metadata = doc["metadata"]
                metadata.setdefault("ownerReferences", []).append(owner_reference(kind, owner))
                if wanted := [*finalizers]:
                    present = metadata.setdefault("finalizers", [])
                    present += [name for name in wanted if name not in present]

        adopted = await objects.change(self._store, key, child["metadata"]["uid"], take)
        if adopted is None or _owner_uid(adopted) != uid:
            return None
        self._made[uid].add(key)
        return adopted

    async def _release(self, child: Doc, owner_uid: str, finalizers: Iterable[str]) -> None:
        def part(doc: Doc) -> None:
            metadata = doc["metadata"]
            references = metadata.get("ownerReferences") or ()
            metadata["ownerReferences"] = [r for r in references if r.get("uid") != owner_uid]
            held = metadata.get("finalizers") or ()
            metadata["finalizers"] = [name for name in held if name not in set(finalizers)]
            for empty in ("ownerReferences", "finalizers"):
                if not metadata[empty]:
                    del metadata[empty]

        await objects.change(self._store, self.key(child), child["metadata"]["uid"], part)

    # -- making and unmaking -----------------------------------------------------------------

    async def create(
        self, kind: Kind, owner: Doc, wanted: Sequence[Doc]
    ) -> tuple[list[Doc], TandemError | None]:
        """Make children out of documents: one, then two at once, then four, as long as all goes well,
        so that what must fail fails once and not a hundred times. Returns those that were made, and
        what went wrong."""
        made: list[Doc] = []
        at, size = 0, 1
        error: TandemError | None = None
        while at < len(wanted) and error is None:
            batch = wanted[at : at + size]
            at, size = at + size, size * 2
            results = await asyncio.gather(
                *(self._create(kind, owner, doc) for doc in batch), return_exceptions=True
            )
            for result in results:
                if isinstance(result, TandemError):
                    error = result
                elif isinstance(result, BaseException):
                    raise result
                else:
                    made.append(result)
        if error is not None and not isinstance(error, Terminating):
            self._context.recorder.warning(owner, "FailedCreate", f"Error creating: {error}")
        return made, error

    async def _create(self, kind: Kind, owner: Doc, doc: Doc) -> Doc:
        made = await self.make(kind, owner, doc)
        message = f"Created {self.kind.singular}: {made['metadata']['name']}"
        self._context.recorder.normal(owner, "SuccessfulCreate", message)
        return made

    async def make(self, kind: Kind, owner: Doc, doc: Doc) -> Doc:
        """Make one child, by the same rules as a client's. Raises what is wrong with it, and
        :class:`Terminating`."""
        namespace = owner["metadata"]["namespace"]
        home = objects.find(self._store, Key("namespaces", "", namespace))
        if home is None or get(home, "metadata.deletionTimestamp"):
            raise Terminating(f"namespace {namespace} is being terminated")
        doc["metadata"]["ownerReferences"] = [owner_reference(kind, owner)]
        prepared = prepare_create(self.kind, doc, namespace=namespace, lookup=self._lookup).doc
        base = prepared["metadata"].get("generateName")
        for attempt in range(1, _NAME_TRIES + 1):
            try:
                made = await self._store.create(self.key(prepared), prepared)
            except AlreadyExists:
                if not base or attempt == _NAME_TRIES:
                    raise
                prepared["metadata"]["name"] = generate_name(base)
            else:
                self._made[owner["metadata"]["uid"]].add(self.key(made))
                return made
        raise AssertionError("the loop returns or raises")

    async def delete(self, owner: Doc, child: Doc) -> None:
        """Delete a child as a client would."""
        metadata = child["metadata"]
        await objects.request_deletion(self._store, self.kind, self.key(child), uid=metadata["uid"])
        self._context.recorder.normal(
            owner, "SuccessfulDelete", f"Deleted {self.kind.singular}: {metadata['name']}"
        )

    def key(self, child: Doc) -> Key:
        """Where a child lives."""
        metadata = child["metadata"]
        return Key(self.kind.resource, metadata["namespace"], metadata["name"])


def from_template(template: Doc, base: str) -> Doc:
    """A child's document out of a template; its name is ``base`` and random letters."""
    metadata = template.get("metadata") or {}
    document: Doc = {"metadata": {"generateName": f"{base}-"}, "spec": template.get("spec") or {}}
    for name in ("labels", "annotations", "finalizers"):
        if metadata.get(name):
            document["metadata"][name] = metadata[name]
    clone: Doc = copy.deepcopy(document)
    return clone


def _digest(*values: Any) -> int:
    """Enough to see that something is another than before, and small."""
    return hash(repr(values))


def _owner_uid(doc: Doc) -> str:
    return str((controller_of(doc) or {}).get("uid", ""))


def _place(namespace: str, selector: LabelSelector) -> _Label:
    """Where a selector's objects are to be looked for: by one label that all of them have."""
    for requirement in selector.requirements:
        if requirement.operator == "in" and len(requirement.values) == 1:
            return namespace, requirement.key, requirement.values[0]
    return namespace, "", ""
