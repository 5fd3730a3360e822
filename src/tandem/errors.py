"""The one error hierarchy.

Every failure that crosses a module boundary is one of these. Native errors (gRPC, libvirt, SQLite,
aiohttp) are wrapped where they are caught, the original chained as ``__cause__``. Each class carries
the ``reason`` and HTTP ``code`` of the Kubernetes ``Status`` it becomes on the wire, so the server
maps an error to an answer without knowing where it came from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Cause:
    """One field's fault, as an entry of ``Status.details.causes``.

    ``reason`` is one of Kubernetes' ``FieldValueRequired``, ``FieldValueInvalid``,
    ``FieldValueNotSupported``, ``FieldValueDuplicate``, ``FieldValueForbidden``,
    ``FieldValueNotFound``, ``FieldValueTooLong``, ``FieldValueTypeInvalid``.
    """

    field: str
    message: str
    reason: str = "FieldValueInvalid"


class TandemError(Exception):
    """Base of all errors of Tandem: a sentence, the faults behind it, and what to do about it.

    ``details`` names the object concerned (``group``, ``kind``, ``name``, ``retryAfterSeconds``) and
    goes into ``Status.details``; ``hint`` is the fix, shown by the command line on a line of its own.
    """

    reason: ClassVar[str] = "InternalError"
    code: ClassVar[int] = 500

    def __init__(
        self,
        message: str,
        *,
        causes: Iterable[Cause] = (),
        details: dict[str, Any] | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.causes = tuple(causes)
        self.details = details or {}
        self.hint = hint


class BadRequest(TandemError):
    """The request itself cannot be understood (syntax, not content)."""

    reason, code = "BadRequest", 400


class Unauthorized(TandemError):
    """Nobody we know: no client certificate, or one that our CA did not sign."""

    reason, code = "Unauthorized", 401


class Forbidden(TandemError):
    """Understood, and refused for this user or this state of the object."""

    reason, code = "Forbidden", 403


class NotFound(TandemError):
    """The object, or the workload behind an id, does not exist."""

    reason, code = "NotFound", 404


class MethodNotAllowed(TandemError):
    """The resource exists and does not know this verb."""

    reason, code = "MethodNotAllowed", 405


class NotAcceptable(TandemError):
    """None of the media types in ``Accept`` can be produced."""

    reason, code = "NotAcceptable", 406


class AlreadyExists(TandemError):
    """The name, or the id with another spec, is taken."""

    reason, code = "AlreadyExists", 409


class Conflict(TandemError):
    """The object changed since it was read, or its state does not allow the operation."""

    reason, code = "Conflict", 409


class Expired(TandemError):
    """The resourceVersion asked for has been compacted: list again, then watch from there."""

    reason, code = "Expired", 410


class TooLarge(TandemError):
    """The body is larger than the limit."""

    reason, code = "RequestEntityTooLarge", 413


class UnsupportedMediaType(TandemError):
    """The body's ``Content-Type`` is not one that this verb takes."""

    reason, code = "UnsupportedMediaType", 415


class InvalidSpec(TandemError):
    """Well-formed and wrong: ``causes`` name each field, its value and the rule it breaks."""

    reason, code = "Invalid", 422


class Unsupported(InvalidSpec):
    """Valid elsewhere, and more than this runtime or this host can do: ``causes`` name the fields."""


class TooManyRequests(TandemError):
    """A bound on concurrency or queue length was reached; try again after a pause."""

    reason, code = "TooManyRequests", 429


class ImagePullError(TandemError):
    """An image could not be had; the registry's own words are in the message."""

    reason, code = "ImagePullError", 500


class Unavailable(TandemError):
    """The runtime, store or server cannot be reached now; the same call may succeed later."""

    reason, code = "ServiceUnavailable", 503


class DeadlineExceeded(TandemError):
    """The call did not finish within its time; its effect is unknown until status is read again."""

    reason, code = "Timeout", 504
