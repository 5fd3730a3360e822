"""``metav1.Status``: the form in which every failure, and some successes, leave the server."""

from __future__ import annotations

from typing import Any

from tandem.api.kind import Doc, Kind
from tandem.errors import TandemError


def status_from_error(error: TandemError) -> Doc:
    """The ``Status`` for an error. The hint, which Kubernetes has no field for, ends the message."""
    details: dict[str, Any] = dict(error.details)
    if error.causes:
        details["causes"] = [
            {"reason": cause.reason, "message": cause.message, "field": cause.field}
            for cause in error.causes
        ]
    status: Doc = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"{error.message} ({error.hint})" if error.hint else error.message,
        "reason": error.reason,
        "code": error.code,
    }
    if details:
        status["details"] = details
    return status


def status_success(kind: Kind | None = None, doc: Doc | None = None) -> Doc:
    """The ``Status`` for a success, naming the object concerned, as a delete answers."""
    status: Doc = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if kind and doc:
        details = {
            "name": doc["metadata"]["name"],
            "group": kind.group,
            "kind": kind.plural,
            "uid": doc["metadata"].get("uid"),
        }
        status["details"] = {name: value for name, value in details.items() if value}
    return status
