"""The arithmetic of a Deployment: how many replicas each of its ReplicaSets is to have next.

Pure functions over documents. The newest ReplicaSet is ``new``, the others are ``old``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tandem.api import intstr
from tandem.api.kind import Doc
from tandem.api.meta import get

DESIRED = "deployment.kubernetes.io/desired-replicas"
MAX = "deployment.kubernetes.io/max-replicas"

Sizes = list[tuple[Doc, int]]
"""ReplicaSets and the sizes they are to have."""


def is_rolling(deployment: Doc) -> bool:
    """Whether old Pods make way step by step."""
    return bool(get(deployment, "spec.strategy.type") == "RollingUpdate")


def wanted(deployment: Doc) -> int:
    """How many Pods there are to be in the end."""
    return int(get(deployment, "spec.replicas", 1))


def size(replica_set: Doc) -> int:
    """How many Pods a ReplicaSet has been told to have."""
    return int(get(replica_set, "spec.replicas", 0))


def available(replica_set: Doc) -> int:
    """How many of a ReplicaSet's Pods are available."""
    return int(get(replica_set, "status.availableReplicas", 0))


def actual(replica_sets: Iterable[Doc]) -> int:
    """How many Pods there are."""
    return sum(int(get(replica_set, "status.replicas", 0)) for replica_set in replica_sets)


def by_age(replica_sets: Iterable[Doc]) -> list[Doc]:
    """Oldest first."""
    return sorted(
        replica_sets,
        key=lambda doc: (doc["metadata"].get("creationTimestamp", ""), doc["metadata"]["name"]),
    )


def max_surge(deployment: Doc) -> int:
    """How many Pods there may be beyond those that are wanted."""
    if not is_rolling(deployment):
        return 0
    value = get(deployment, "spec.strategy.rollingUpdate.maxSurge", "25%")
    return intstr.resolve(value, wanted(deployment), up=True)


def max_unavailable(deployment: Doc) -> int:
    """How many of the wanted Pods may be missing; never 0 together with :func:`max_surge`, as then
    nothing could ever move."""
    total = wanted(deployment)
    if not is_rolling(deployment) or total == 0:
        return 0
    value = get(deployment, "spec.strategy.rollingUpdate.maxUnavailable", "25%")
    count = intstr.resolve(value, total, up=False)
    return min(count if count or max_surge(deployment) else 1, total)


def limits(deployment: Doc) -> dict[str, str]:
    """The annotations by which a ReplicaSet remembers what it was part of."""
    total = wanted(deployment)
    return {DESIRED: str(total), MAX: str(total + max_surge(deployment))}


def annotated(replica_set: Doc, name: str) -> int | None:
    """A number that an annotation of ours says, None when there is none."""
    text = get(replica_set, "metadata.annotations", {}).get(name, "")
    return int(text) if text.isdigit() else None


def next_size(deployment: Doc, new: Doc, all_sets: Sequence[Doc]) -> int:
    """The size of the newest ReplicaSet, as far as the surge allows."""
    if not is_rolling(deployment):
        return wanted(deployment)
    room = wanted(deployment) + max_surge(deployment) - sum(size(doc) for doc in all_sets)
    if room <= 0:
        return size(new)
    return size(new) + min(room, wanted(deployment) - size(new))


def shrink_old(deployment: Doc, new: Doc, old: Sequence[Doc]) -> Sizes:
    """Which old ReplicaSets may give up Pods now: those that do not work in any case first, the others
    as far as enough stay available."""
    total = sum(size(doc) for doc in (*old, new))
    least = wanted(deployment) - max_unavailable(deployment)
    spare = total - least - (size(new) - available(new))
    if spare <= 0 or not any(size(doc) for doc in old):
        return []
    sizes = {doc["metadata"]["uid"]: size(doc) for doc in old}
    for doc in by_age(old):
        broken = min(spare, size(doc) - available(doc))
        if broken > 0:
            sizes[doc["metadata"]["uid"]] -= broken
            spare -= broken
    surplus = sum(available(doc) for doc in (*old, new)) - least
    for doc in by_age(old):
        if surplus <= 0:
            break
        give = min(sizes[doc["metadata"]["uid"]], surplus)
        sizes[doc["metadata"]["uid"]] -= give
        surplus -= give
    return [(doc, sizes[doc["metadata"]["uid"]]) for doc in old]


def is_saturated(deployment: Doc, new: Doc | None) -> bool:
    """Whether the newest ReplicaSet alone is all that is wanted."""
    total = wanted(deployment)
    return (
        new is not None
        and size(new) == total == available(new)
        and annotated(new, DESIRED) == total
    )


def spread(deployment: Doc, active: Sequence[Doc]) -> Sizes:
    """What becomes of ReplicaSets in the middle of a rollout when the number of wanted Pods changes:
    each keeps its share, and the largest takes what rounding leaves."""
    allowed = wanted(deployment) + max_surge(deployment) if wanted(deployment) else 0
    to_add = allowed - sum(size(doc) for doc in active)
    # The largest first; of equals the newer when growing, the older when shrinking.
    ordered = by_age(active)
    if to_add > 0:
        ordered.reverse()
    ordered.sort(key=size, reverse=True)
    sizes, added = [], 0
    for doc in ordered:
        share = _share(deployment, doc, to_add, added) if to_add else 0
        sizes.append(size(doc) + share)
        added += share
    if sizes and to_add:
        sizes[0] = max(0, sizes[0] + to_add - added)
    return list(zip(ordered, sizes, strict=True))


def _share(deployment: Doc, replica_set: Doc, to_add: int, added: int) -> int:
    left = to_add - added
    if not size(replica_set) or not left:
        return 0
    share = _fraction(deployment, replica_set)
    return min(share, left) if to_add > 0 else max(share, left)


def _fraction(deployment: Doc, replica_set: Doc) -> int:
    """How much a ReplicaSet grows or shrinks when it keeps its part of the whole."""
    if not wanted(deployment):
        return -size(replica_set)
    whole = wanted(deployment) + max_surge(deployment)
    before = annotated(replica_set, MAX) or int(get(deployment, "status.replicas", 0))
    if not before:
        return 0
    # Half a replica counts as a whole one.
    return int(size(replica_set) * whole / before + 0.5) - size(replica_set)
