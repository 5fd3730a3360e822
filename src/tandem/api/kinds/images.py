"""Image references: what policy they are pulled by when none is given."""

from __future__ import annotations

PULL_POLICIES = ("Always", "IfNotPresent", "Never")


def pull_policy(image: str) -> str:
    """What Kubernetes takes when none is given: Always for ``:latest`` or no tag, else IfNotPresent."""
    if "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"
