"""``autoscaling/v1`` Scale: the form of the subresource, which is never stored."""

from __future__ import annotations

from tandem.api.kind import Doc, Kind
from tandem.api.kinds.checks import not_negative_causes
from tandem.errors import Cause


def _validate(new: Doc, _old: Doc | None) -> list[Cause]:
    # In Go, a number that is not there is 0.
    new.setdefault("spec", {}).setdefault("replicas", 0)
    return not_negative_causes(new["spec"], ("replicas",), "spec")


SCALE = Kind(
    group="autoscaling",
    version="v1",
    kind="Scale",
    plural="scales",
    singular="scale",
    schema="io.k8s.api.autoscaling.v1.Scale",
    validate=_validate,
    spec_fields=(),
)
"""What a Scale has in common with objects: it is decoded, validated and patched as they are."""
