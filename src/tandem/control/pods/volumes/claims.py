"""A Pod's claims to persistent volumes, as the scheduler and the kubelet see them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.control.pods.podfields import Lookup
from tandem.control.pods.volumes.sources import MissingSource
from tandem.store import Key

CLAIMS = "persistentvolumeclaims"
VOLUMES = "persistentvolumes"


class Unbound(NamedTuple):
    """Why a Pod cannot have its claims yet, in the scheduler's words, and the object whose change
    helps."""

    message: str
    key: Key


def unbound(pod: Doc, lookup: Lookup) -> Unbound | None:
    """What keeps the Pod from being scheduled on account of its claims; None: nothing does."""
    for volume in get(pod, "spec.volumes", []):
        key = claim_key(pod, volume)
        if key is None:
            continue
        claim = lookup(key)
        if claim is None:
            waiting = "waiting for ephemeral volume controller to create the "
            prefix = waiting if volume.get("ephemeral") is not None else ""
            words = f'persistentvolumeclaim "{key.name}"'
            return Unbound(f"{prefix}{words}" if prefix else f"{words} not found", key)
        if stranger := _not_owned(pod, volume, claim):
            return Unbound(stranger, key)
        if get(claim, "metadata.deletionTimestamp"):
            return Unbound(f'persistentvolumeclaim "{key.name}" is being deleted', key)
        if get(claim, "status.phase") == "Lost":
            gone = get(claim, "spec.volumeName", "")
            words = f'persistentvolumeclaim "{key.name}" bound to non-existent persistentvolume'
            return Unbound(f'{words} "{gone}"', key)
        if get(claim, "status.phase") != "Bound":
            return Unbound("pod has unbound immediate PersistentVolumeClaims", key)
    return None


def claim_keys(pod: Doc) -> Iterator[Key]:
    """Where the claims are that the Pod's volumes name."""
    for volume in get(pod, "spec.volumes", []):
        if (key := claim_key(pod, volume)) is not None:
            yield key


def claim_key(pod: Doc, volume: Doc) -> Key | None:
    """The claim that a volume stands for; None for a volume of another kind."""
    metadata = pod["metadata"]
    if (source := volume.get("persistentVolumeClaim")) is not None:
        return Key(CLAIMS, metadata["namespace"], str(source.get("claimName", "")))
    if volume.get("ephemeral") is not None:
        return Key(CLAIMS, metadata["namespace"], f"{metadata['name']}-{volume['name']}")
    return None


def persistent_volume(pod: Doc, volume: Doc, lookup: Lookup) -> Doc:
    """The PersistentVolume behind a volume of a Pod. Raises :class:`MissingSource`."""
    key = claim_key(pod, volume)
    assert key is not None
    claim = lookup(key)
    if claim is None:
        raise MissingSource(f'persistentvolumeclaim "{key.name}" not found', key)
    if stranger := _not_owned(pod, volume, claim):
        raise MissingSource(stranger, key)
    where = f"{key.namespace}/{key.name}"
    if get(claim, "status.phase") != "Bound":
        raise MissingSource(f"error processing PVC {where}: PVC is not bound", key)
    own = Key(VOLUMES, "", str(get(claim, "spec.volumeName", "")))
    found = lookup(own)
    if found is None:
        raise MissingSource(f'error processing PVC {where}: PV "{own.name}" not found', own)
    return found


def _not_owned(pod: Doc, volume: Doc, claim: Doc) -> str:
    """Why a claim is not the Pod's own, where it should be: somebody made it under that name."""
    owners = get(claim, "metadata.ownerReferences", [])
    uid = pod["metadata"].get("uid")
    if volume.get("ephemeral") is None or any(owner.get("uid") == uid for owner in owners):
        return ""
    where, who = claim["metadata"], pod["metadata"]
    return (
        f"PVC {where['namespace']}/{where['name']} was not created for pod "
        f"{who['namespace']}/{who['name']} (pod is not owner)"
    )


def path_of(persistent: Doc) -> str:
    """The directory of this host that a PersistentVolume is; empty for one that is none."""
    return str(get(persistent, "spec.local.path") or get(persistent, "spec.hostPath.path", ""))
