"""A Deployment's revisions: which template came when, written on the ReplicaSets made of them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tandem.api.kind import Doc
from tandem.api.meta import get

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"

_MAX_HISTORY = 2000
"""Most characters of the list of earlier revisions; the oldest fall away."""

# A Deployment's own, which say nothing of one of its ReplicaSets.
_NOT_COPIED = (
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
)

_FNV_OFFSET, _FNV_PRIME = 2166136261, 16777619
# No vowels and no digits that look like them: as in all names that Kubernetes makes.
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


def template_hash(template: Doc, collisions: int) -> str:
    """A short name for a template: FNV-1a, in the alphabet of generated names. ``collisions``: how
    often the name was taken already."""
    data = msgspec.json.encode(template, order="sorted")
    if collisions:
        data += str(collisions).encode()
    digest = _FNV_OFFSET
    for byte in data:
        digest = ((digest ^ byte) * _FNV_PRIME) & 0xFFFFFFFF
    return "".join(_LETTERS[ord(digit) % len(_LETTERS)] for digit in str(digest))


def revision_of(replica_set: Doc) -> int:
    """0 for one that has none."""
    text = get(replica_set, "metadata.annotations", {}).get(REVISION, "")
    return int(text) if text.isdigit() else 0


def next_revision(old: Iterable[Doc]) -> int:
    """One more than all of the old."""
    return max((revision_of(doc) for doc in old), default=0) + 1


def revision_annotations(deployment: Doc, replica_set: Doc | None, revision: int) -> dict[str, str]:
    """What the ReplicaSet of the present template says of itself: the Deployment's annotations (the
    cause of the change among them), its revision, and the revisions it has been before."""
    own = get(deployment, "metadata.annotations", {})
    found = {name: text for name, text in own.items() if name not in _NOT_COPIED}
    before = revision_of(replica_set or {})
    if before >= revision:
        return found
    found[REVISION] = str(revision)
    if before:
        history = get(replica_set or {}, "metadata.annotations", {}).get(HISTORY, "")
        earlier = [*filter(None, history.split(",")), str(before)]
        while len(",".join(earlier)) > _MAX_HISTORY:
            earlier.pop(0)
        found[HISTORY] = ",".join(earlier)
    return found
