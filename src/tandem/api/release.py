"""The Kubernetes release whose API and conventions are followed, as clients are told of it."""

from __future__ import annotations

KUBERNETES = ("1", "32")
"""Major and minor; clients check their skew against it."""


def git_version(own: str, release: tuple[str, str] = KUBERNETES) -> str:
    """The release, with our ``own`` version as its build: ``v1.32.0+tandem-0.1.0``."""
    return f"v{release[0]}.{release[1]}.0+tandem-{own}"
