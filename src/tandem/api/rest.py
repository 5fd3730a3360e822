"""The write pipeline: what every create, update and delete goes through before the store.

Pure functions from documents to documents. They keep what the system owns (identity, times,
generation, status against spec), fill defaults, and refuse with the causes Kubernetes would name.
Reading the old object, writing the new one and concurrency are the callers' and the store's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from tandem.api import causes, meta, schema
from tandem.api.kind import Doc, Kind, Lookup
from tandem.errors import BadRequest, Cause, Conflict, InvalidSpec

FieldValidation = Literal["Strict", "Warn", "Ignore"]
"""What becomes of unknown fields: refused, dropped with a warning, dropped."""

_FOREGROUND = "foregroundDeletion"
_ORPHAN = "orphan"
_PROPAGATION = {"Foreground": _FOREGROUND, "Orphan": _ORPHAN, "Background": None}

# Written by the system alone; a client's value for them is dropped without a word, as in Kubernetes.
_DROPPED_METADATA = ("managedFields", "selfLink")
_COLLECTIONS = ("labels", "annotations", "finalizers", "ownerReferences")
_SYSTEM_METADATA = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document ready for the store.

    ``warnings`` are for the HTTP ``Warning`` header. ``remove``: the update took the last finalizer
    of an object that waits to go, so it is to be deleted instead of written.
    """

    doc: Doc
    warnings: tuple[str, ...] = ()
    remove: bool = False


@dataclass(frozen=True, slots=True)
class DeleteDecision:
    """What a delete does now: remove the object, or store ``doc``, which says that it is to go.

    ``doc`` is the old document itself when the delete changes nothing (it is already on its way).
    """

    remove_now: bool
    doc: Doc


def prepare_create(
    kind: Kind,
    doc: Doc,
    *,
    namespace: str,
    field_validation: FieldValidation = "Warn",
    lookup: Lookup | None = None,
) -> Prepared:
    """Make a client's document an object: complete, valid, with a name and an identity.

    ``namespace`` is the request's, empty for kinds that are in none. ``lookup`` is what the kind's
    admission asks; without one it is left out. ``doc`` is altered in place. Raises ``BadRequest``
    (wrong shape), ``InvalidSpec`` (wrong content) and ``Forbidden`` (what admission says).
    """
    warnings, structural = _decode(kind, doc, field_validation)
    metadata: Doc = doc["metadata"]
    _settle_namespace(kind, metadata, namespace)
    if metadata.pop("resourceVersion", ""):
        raise BadRequest("resourceVersion should not be set on objects to be created")
    for field in _SYSTEM_METADATA:
        metadata.pop(field, None)
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = meta.generate_name(metadata["generateName"])
    metadata["uid"] = meta.new_uid()
    metadata["creationTimestamp"] = meta.now()
    if kind.spec_fields:
        metadata["generation"] = 1
    if kind.status:
        doc.pop("status", None)
    kind.default(doc)
    if lookup is not None and not structural:
        kind.admit(doc, lookup)
    _refuse(kind, doc, [*structural, *_metadata_causes(metadata), *kind.validate(doc, None)])
    return Prepared(doc, (*warnings, *kind.warn(doc, None)))


def prepare_update(
    kind: Kind,
    new: Doc,
    old: Doc,
    *,
    subresource: str = "",
    field_validation: FieldValidation = "Warn",
) -> Prepared:
    """Make ``new`` the next state of ``old``; ``new`` is altered in place.

    ``subresource`` ``status`` changes the status and nothing else, one of the kind's parts that part;
    any other name, and none, changes everything but the status (where the kind keeps it apart). ``metadata.resourceVersion`` is passed
    on for the store to check. Raises ``BadRequest``, ``Conflict`` (another object of the same name
    by now) and ``InvalidSpec``.
    """
    if kind.status and subresource != "status" and isinstance(new, dict):
        # The system's own, whatever a client sent along of it: not looked at, and restored below.
        new.pop("status", None)
    warnings, structural = _decode(kind, new, field_validation)
    metadata, before = new["metadata"], old["metadata"]
    if metadata.setdefault("name", before["name"]) != before["name"]:
        raise BadRequest(
            f"the name of the object ({metadata['name']}) does not match the name on the URL "
            f"({before['name']})"
        )
    _settle_namespace(kind, metadata, before.get("namespace", ""))
    if metadata.setdefault("uid", before.get("uid")) != before.get("uid"):
        raise Conflict(
            f"Precondition failed: UID in precondition: {metadata['uid']}, "
            f"UID in object meta: {before.get('uid')}",
            details=_details(kind, before["name"]),
        )
    if kind.merge_only and not metadata.get("resourceVersion"):
        _refuse(
            kind,
            old,
            [causes.invalid("metadata.resourceVersion", 0, "must be specified for an update")],
        )
    part = kind.parts.get(subresource)
    if subresource == "status":
        new = _with_status_of(old, new)
    else:
        if part is not None:
            new = _with_version_of(new, part.take(new, old))
        _carry_over(kind, new, old)
        kind.default(new)
        _count_generation(kind, new, old)
    found = [*structural, *_metadata_causes(new["metadata"]), *_transition_causes(new, old)]
    rules = part.validate(new, old) if part is not None else kind.validate(new, old)
    _refuse(kind, new, [*found, *rules])
    return Prepared(new, (*warnings, *kind.warn(new, old)), _is_released(kind, new))


def prepare_delete(
    kind: Kind, doc: Doc, options: Mapping[str, Any] | None = None
) -> DeleteDecision:
    """Decide what deleting ``doc`` does, by its finalizers, its grace period and the options.

    ``options`` is a ``DeleteOptions`` document. An object of a kind with a grace period is only
    marked, and its controller removes it; the mark may be moved closer, never away. To delete it with
    a grace period of 0 when it is marked so already removes it at once: the way out when a runtime
    never answers again. Raises ``Conflict`` when a precondition does not hold, and ``InvalidSpec``.
    """
    options = options or {}
    _check_delete_options(kind, doc, options)
    metadata = doc["metadata"]
    finalizers = _finalizers_for(kind, metadata.get("finalizers") or [], options)
    grace = _grace(kind, doc, options)
    marked_grace = metadata.get("deletionGracePeriodSeconds") or 0
    marked = bool(metadata.get("deletionTimestamp"))
    if not finalizers and (grace is None or (marked and grace == 0 and marked_grace == 0)):
        return DeleteDecision(True, doc)
    if marked and (grace or 0) >= marked_grace and finalizers == (metadata.get("finalizers") or []):
        return DeleteDecision(False, doc)
    changed = dict(metadata)
    seconds = grace or 0
    if not marked or seconds < marked_grace:
        start = datetime.now(UTC)
        if marked:  # what has passed since it was marked counts
            start = meta.parse_time(metadata["deletionTimestamp"]) - timedelta(seconds=marked_grace)
        changed["deletionTimestamp"] = (start + timedelta(seconds=seconds)).strftime(
            "%Y-%m-%dT%H:%M:%SZ"
        )
        changed["deletionGracePeriodSeconds"] = seconds
    if not marked and changed.get("generation"):
        changed["generation"] += 1
    if finalizers:
        changed["finalizers"] = finalizers
    else:
        changed.pop("finalizers", None)
    return DeleteDecision(False, {**doc, "metadata": changed})


# Decoding ------------------------------------------------------------------------------------


def _decode(
    kind: Kind, doc: Doc, field_validation: FieldValidation
) -> tuple[list[str], list[Cause]]:
    """Check the shape, drop what does not belong; returns warnings and the causes that are about
    content (a required field) rather than shape, which is refused here."""
    if not isinstance(doc, dict):
        raise BadRequest(f"a {kind.kind} must be a JSON object")
    for field, expected in (("apiVersion", kind.api_version), ("kind", kind.kind)):
        if (doc.get(field) or expected) != expected:
            raise BadRequest(
                f"{field} in the data ({doc[field]}) does not match the expected {field} ({expected})"
            )
        doc[field] = expected
    if doc.get("metadata") is None:
        doc["metadata"] = {}
    report = schema.check(doc, kind.schema)
    shape = [cause for cause in report.causes if cause.reason == "FieldValueTypeInvalid"]
    if shape:
        raise BadRequest(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
            f"{causes.describe(shape)}",
            causes=shape,
        )
    unknown = [f'unknown field "{path}"' for path in report.unknown_fields]
    if unknown and field_validation == "Strict":
        raise BadRequest(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
            f"strict decoding error: {', '.join(unknown)}"
        )
    report.tidy()
    for field in _DROPPED_METADATA:
        doc["metadata"].pop(field, None)
    for field in _COLLECTIONS:  # in Go an empty one is none
        if not doc["metadata"].get(field, True):
            del doc["metadata"][field]
    return (unknown if field_validation == "Warn" else []), report.causes


def _settle_namespace(kind: Kind, metadata: Doc, namespace: str) -> None:
    if not kind.namespaced:
        metadata.pop("namespace", None)
    elif (metadata.get("namespace") or namespace) != namespace:
        raise BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    else:
        metadata["namespace"] = namespace


# Validation ----------------------------------------------------------------------------------


def _metadata_causes(metadata: Doc) -> list[Cause]:
    found: list[Cause] = []
    if not metadata.get("name"):
        found.append(causes.required("metadata.name", "name or generateName is required"))
    else:
        found += meta.name_causes(metadata["name"], "metadata.name")
    if labels := metadata.get("labels"):
        found += meta.label_causes(labels, "metadata.labels")
    if annotations := metadata.get("annotations"):
        found += meta.annotation_causes(annotations, "metadata.annotations")
    for index, finalizer in enumerate(metadata.get("finalizers") or ()):
        found += meta.qualified_name_causes(finalizer, f"metadata.finalizers[{index}]")
    return found + _owner_causes(metadata.get("ownerReferences") or ())


def _owner_causes(references: Any) -> list[Cause]:
    found: list[Cause] = []
    controllers = 0
    for index, reference in enumerate(references):
        path = f"metadata.ownerReferences[{index}]"
        found += [
            causes.invalid(f"{path}.{field}", "", f"{field} must not be empty")
            for field in ("apiVersion", "kind", "name", "uid")
            if not reference.get(field)
        ]
        controllers += bool(reference.get("controller"))
    if controllers > 1:
        found.append(
            causes.invalid(
                "metadata.ownerReferences",
                [reference.get("name") for reference in references],
                "Only one reference can have Controller set to true",
            )
        )
    return found


def _transition_causes(new: Doc, old: Doc) -> list[Cause]:
    metadata, before = new["metadata"], old["metadata"]
    found = [
        causes.immutable(f"metadata.{field}", metadata[field])
        for field in ("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
        if field in metadata and metadata[field] != before.get(field)
    ]
    if before.get("deletionTimestamp"):
        added = set(metadata.get("finalizers") or ()) - set(before.get("finalizers") or ())
        if added:
            found.append(
                causes.forbidden(
                    "metadata.finalizers",
                    "no new finalizers can be added if the object is being deleted, found new "
                    f"finalizers {sorted(added)}",
                )
            )
    return found


def _refuse(kind: Kind, doc: Doc, found: list[Cause]) -> None:
    """Raise when there is anything in ``found``; the same fault found twice is told once."""
    if not found:
        return
    unique = tuple({(cause.field, cause.reason): cause for cause in reversed(found)}.values())[::-1]
    name = doc["metadata"].get("name") or doc["metadata"].get("generateName") or ""
    raise InvalidSpec(
        f'{_qualified(kind)} "{name}" is invalid: {causes.describe(unique)}',
        causes=unique,
        details=_details(kind, name),
    )


def _qualified(kind: Kind) -> str:
    return f"{kind.kind}.{kind.group}" if kind.group else kind.kind


def _details(kind: Kind, name: str) -> dict[str, str]:
    return {"name": name, "group": kind.group, "kind": kind.kind}


# Updating ------------------------------------------------------------------------------------


def _carry_over(kind: Kind, new: Doc, old: Doc) -> None:
    """Bring into ``new`` what an update cannot change."""
    metadata, before = new["metadata"], old["metadata"]
    for field in ("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if not metadata.get(field) and before.get(field) is not None:
            metadata[field] = before[field]
    if kind.status:
        if "status" in old:
            new["status"] = old["status"]
        else:
            new.pop("status", None)


def _count_generation(kind: Kind, new: Doc, old: Doc) -> None:
    """One more when the user's wish changed; compared after defaults, which are no change."""
    new["metadata"].pop("generation", None)
    if generation := old["metadata"].get("generation"):
        changed = any(new.get(field) != old.get(field) for field in kind.spec_fields)
        new["metadata"]["generation"] = generation + changed


def _with_status_of(old: Doc, new: Doc) -> Doc:
    doc = _with_version_of(new, old)
    if "status" in new:
        doc["status"] = new["status"]
    else:
        doc.pop("status", None)
    return doc


def _with_version_of(new: Doc, old: Doc) -> Doc:
    """``old``, for the store to check against the version that ``new`` names, if any."""
    doc = {**old, "metadata": dict(old["metadata"])}
    doc["metadata"].pop("resourceVersion", None)
    if version := new["metadata"].get("resourceVersion"):
        doc["metadata"]["resourceVersion"] = version
    return doc


def _is_released(kind: Kind, new: Doc) -> bool:
    """Whether an object that is to go waits for no finalizer any more. One with a grace period waits
    for its controller as well, which removes it itself."""
    return (
        bool(new["metadata"].get("deletionTimestamp"))
        and not new["metadata"].get("finalizers")
        and kind.grace(new) is None
    )


# Deleting ------------------------------------------------------------------------------------


def _check_delete_options(kind: Kind, doc: Doc, options: Mapping[str, Any]) -> None:
    metadata = doc["metadata"]
    preconditions = options.get("preconditions") or {}
    for field, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        wanted = preconditions.get(field)
        if wanted and wanted != metadata.get(field):
            raise Conflict(
                f"Precondition failed: {label} in precondition: {wanted}, "
                f"{label} in object meta: {metadata.get(field)}",
                details=_details(kind, metadata["name"]),
            )
    found = []
    policy = options.get("propagationPolicy")
    if policy is not None and policy not in _PROPAGATION:
        found.append(causes.not_supported("propagationPolicy", policy, _PROPAGATION))
    if policy is not None and options.get("orphanDependents") is not None:
        found.append(
            causes.invalid(
                "propagationPolicy",
                policy,
                "orphanDependents and deletionPropagation cannot be both set",
            )
        )
    seconds = options.get("gracePeriodSeconds")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int)):
        found.append(causes.type_invalid("gracePeriodSeconds", seconds, "must be an integer"))
    if found:
        raise InvalidSpec(
            f'DeleteOptions.meta.k8s.io "" is invalid: {causes.describe(found)}', causes=found
        )


def _grace(kind: Kind, doc: Doc, options: Mapping[str, Any]) -> int | None:
    """Seconds of grace, None for a kind whose objects are removed at once."""
    default = kind.grace(doc)
    if default is None:
        return None
    wanted = options.get("gracePeriodSeconds")
    seconds = default if wanted is None else int(wanted)
    return 1 if seconds < 0 else seconds


def _finalizers_for(kind: Kind, finalizers: list[str], options: Mapping[str, Any]) -> list[str]:
    """The finalizers with the one the propagation policy stands for. Where nothing is said, one that
    is there already stays, and the kind's own way is taken otherwise."""
    policy = options.get("propagationPolicy")
    if policy is None and options.get("orphanDependents") is not None:
        policy = "Orphan" if options["orphanDependents"] else "Background"
    if policy is None:
        if not kind.orphans or {_FOREGROUND, _ORPHAN} & set(finalizers):
            return finalizers
        policy = "Orphan"
    kept = [name for name in finalizers if name not in (_FOREGROUND, _ORPHAN)]
    wanted = _PROPAGATION[policy]
    return [*kept, wanted] if wanted else kept
