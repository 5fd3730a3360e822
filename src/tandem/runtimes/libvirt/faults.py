"""libvirt's errors in the words of Tandem's hierarchy.

Every call of libvirt goes through :mod:`tandem.runtimes.libvirt.connection`, which raises what
:func:`translate` makes of an error and chains libvirt's own as the cause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tandem.errors import (
    AlreadyExists,
    Cause,
    Conflict,
    DeadlineExceeded,
    InvalidSpec,
    NotFound,
    TandemError,
    Unavailable,
    Unsupported,
)

if TYPE_CHECKING:
    import libvirt

# virErrorNumber and virErrorDomain, as libvirt names them; stable numbers of its public API.
NO_SUPPORT = 3
INVALID_CONN = 6
INVALID_ARG = 8
OPERATION_FAILED = 9
OS_TYPE = 16
NO_NAME = 21
NO_OS = 22
XML_ERROR = 27
DOM_EXIST = 28
OPERATION_DENIED = 29
XML_DETAIL = 35
SYSTEM_ERROR = 38
RPC = 39
NO_DOMAIN = 42
INVALID_MAC = 44
AUTH_FAILED = 45
OPERATION_INVALID = 55
CONFIG_UNSUPPORTED = 67
OPERATION_TIMEOUT = 68
ARGUMENT_UNSUPPORTED = 74
NO_DOMAIN_METADATA = 80
OPERATION_UNSUPPORTED = 84
RESOURCE_BUSY = 87
ACCESS_DENIED = 88
CPU_INCOMPATIBLE = 91
XML_INVALID_SCHEMA = 92
AUTH_UNAVAILABLE = 94

_FROM_RPC, _FROM_REMOTE = 7, 13

_INVALID = {XML_ERROR, XML_DETAIL, XML_INVALID_SCHEMA, NO_NAME, NO_OS, OS_TYPE, INVALID_MAC}
_UNSUPPORTED = {
    NO_SUPPORT,
    CONFIG_UNSUPPORTED,
    ARGUMENT_UNSUPPORTED,
    OPERATION_UNSUPPORTED,
    CPU_INCOMPATIBLE,
}
_REFUSED = {OPERATION_DENIED, AUTH_FAILED, ACCESS_DENIED, AUTH_UNAVAILABLE}


def is_broken(error: libvirt.libvirtError) -> bool:
    """Whether the connection is gone, so that another one must be made."""
    code, domain = error.get_error_code(), error.get_error_domain()
    return code in (INVALID_CONN, RPC) or (
        domain in (_FROM_RPC, _FROM_REMOTE) and code not in _REFUSED
    )


def is_refusal(error: libvirt.libvirtError) -> bool:
    """Whether libvirt does not want to talk to this user."""
    return error.get_error_code() in _REFUSED


def translate(error: libvirt.libvirtError) -> TandemError:
    """The error to raise from ``error``. What libvirt finds wrong with a definition names
    ``vm_xml``."""
    code = error.get_error_code()
    said = (error.get_error_message() or str(error)).strip()
    if is_broken(error):
        return Unavailable(f"libvirt cannot be reached: {said}")
    if is_refusal(error):
        return Unavailable(
            f"libvirt refuses: {said}", hint="run as root, or join the group libvirt"
        )
    if code == NO_DOMAIN:
        return NotFound(said)
    if code == DOM_EXIST or (code == OPERATION_FAILED and "already exists" in said):
        return AlreadyExists(said)
    if code in _INVALID:
        return InvalidSpec(f"invalid domain XML: {said}", causes=[Cause("vm_xml", said)])
    if code in _UNSUPPORTED:
        cause = Cause("vm_xml", said, "FieldValueNotSupported")
        return Unsupported(f"not supported by libvirt or QEMU here: {said}", causes=[cause])
    if code in (OPERATION_INVALID, RESOURCE_BUSY):
        return Conflict(said)
    if code == OPERATION_TIMEOUT:
        return DeadlineExceeded(said)
    return TandemError(f"libvirt: {said}")
