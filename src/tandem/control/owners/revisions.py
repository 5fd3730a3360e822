"""A Deployment's revisions: which template came when, written on the ReplicaSets made of them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import msgspec

from tandem.api.kind import Doc
from tandem.api.kinds.pod_template import default_template
from tandem.api.meta import get
from tandem.control.owners import rollout

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


def new_replica_set(deployment: Doc, old: Sequence[Doc]) -> Doc:
    """The document of a ReplicaSet of the present template, of the size that it may have beside the old
    ones."""
    metadata = deployment["metadata"]
    template = copy.deepcopy(deployment["spec"]["template"])
    hash_ = template_hash(template, int(get(deployment, "status.collisionCount", 0)))
    labels = {**(template["metadata"].get("labels") or {}), HASH_LABEL: hash_}
    template["metadata"]["labels"] = labels
    selector = copy.deepcopy(deployment["spec"]["selector"])
    selector.setdefault("matchLabels", {})[HASH_LABEL] = hash_
    doc: Doc = {
        "metadata": {
            "name": f"{metadata['name']}-{hash_}",
            "labels": dict(labels),
            "annotations": {
                **revision_annotations(deployment, None, next_revision(old)),
                **rollout.limits(deployment),
            },
        },
        "spec": {"replicas": 0, "selector": selector, "template": template},
    }
    if settle := get(deployment, "spec.minReadySeconds"):
        doc["spec"]["minReadySeconds"] = settle
    doc["spec"]["replicas"] = rollout.next_size(deployment, doc, [*old, doc])
    return doc


def is_made_of(replica_set: Doc, template: Doc) -> bool:
    """Whether a ReplicaSet's template is this one, but for the label with its hash. What an older
    version of ours did not fill in makes no difference."""
    own = copy.deepcopy(get(replica_set, "spec.template", {}))
    labels = own.setdefault("metadata", {}).get("labels") or {}
    labels.pop(HASH_LABEL, None)
    if not labels:
        own["metadata"].pop("labels", None)
    if own == template:
        return True
    complete = copy.deepcopy(template)
    default_template(own)
    default_template(complete)
    return bool(own == complete)
