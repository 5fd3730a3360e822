"""Which objects a list, watch or deletecollection is about: namespace, name, labels, fields."""

from __future__ import annotations

from tandem.api.kind import Doc, Kind
from tandem.api.selectors import parse_field_selector, parse_label_selector
from tandem.errors import NotFound
from tandem.server.codec import decode
from tandem.server.paths import Target
from tandem.server.query import Query
from tandem.store import Key, RawListing, Store


class Selection:
    """The objects of one kind that a request selects. Raises ``BadRequest`` for bad selectors.

    A name, given in the path of an older watch or by ``fieldSelector=metadata.name=x`` (what
    ``kubectl wait`` and ``get -w NAME`` send), is looked up rather than searched for.
    """

    def __init__(self, kind: Kind, target: Target, query: Query) -> None:
        self.kind = kind
        self.namespace = target.namespace or None
        fields = parse_field_selector(query.text("fieldSelector"))
        self.name = target.name or fields.exact("metadata.name") or ""
        self._labels = parse_label_selector(query.text("labelSelector"))
        self._fields = fields.for_kind(kind)
        self._by_field = any(
            requirement.field != "metadata.name" or requirement.negated
            for requirement in fields.requirements
        )

    @property
    def everything(self) -> bool:
        """Whether the contents of an object do not matter."""
        return not self._labels and not self._by_field

    def wants_key(self, key: Key) -> bool:
        """Whether an object in this place can be meant; its contents are not looked at."""
        return not self.name or key.name == self.name

    def wants(self, doc: Doc) -> bool:
        """Whether the object's labels and fields are as asked for."""
        return self._labels.matches(doc["metadata"].get("labels")) and self._fields(doc)

    def listing(self, store: Store) -> RawListing:
        """The selected objects as they all are now."""
        resource = self.kind.resource
        if self.name and (self.namespace is not None or not self.kind.namespaced):
            return self._named(store, Key(resource, self.namespace or "", self.name))
        labels = self._labels.matches if self._labels else None
        listing = store.list_bytes(resource, self.namespace, labels=labels)
        if not self._by_field and not self.name:
            return listing
        items = []
        for data in listing.items:
            doc = decode(data)
            if self._fields(doc) and self.name in ("", doc["metadata"]["name"]):
                items.append(data)
        return RawListing(listing.revision, items)

    def _named(self, store: Store, key: Key) -> RawListing:
        try:
            data = store.get_bytes(key)
        except NotFound:
            return RawListing(store.revision, [])
        chosen = self.everything or self.wants(decode(data))
        return RawListing(store.revision, [data] if chosen else [])
