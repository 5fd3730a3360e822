"""Probes and lifecycle hooks: defaults and rules of their handlers and numbers."""

from __future__ import annotations

import re

from tandem.api import causes
from tandem.api.kind import Doc
from tandem.api.kinds.checks import (
    choice_causes,
    not_negative_causes,
    one_of_causes,
    port_causes,
)
from tandem.errors import Cause

PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
HOOKS = ("postStart", "preStop")

_PROBE_DEFAULTS = {
    "timeoutSeconds": 1,
    "periodSeconds": 10,
    "successThreshold": 1,
    "failureThreshold": 3,
}
_PROBE_NUMBERS = ("initialDelaySeconds", *_PROBE_DEFAULTS)
_PROBE_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOK_HANDLERS = ("exec", "httpGet", "tcpSocket", "sleep")
_HEADER = re.compile(r"[-A-Za-z0-9]+")
_HEADER_RULE = (
    "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex "
    "used for validation is '[-A-Za-z0-9]+')"
)
SIGNALS = tuple(
    f"SIG{name}"
    for name in (
        *("ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT"),
        *("KILL", "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM"),
        *("TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU"),
        *("XFSZ", "RTMIN", "RTMAX"),
        *(f"RTMIN+{step}" for step in range(1, 16)),
        *(f"RTMAX-{step}" for step in range(1, 15)),
    )
)
"""What ``stopSignal`` may be, as Kubernetes names them on Linux."""


def default_probes(container: Doc) -> None:
    """Fill in what probes and hooks leave out."""
    for name in PROBES:
        if (probe := container.get(name)) is not None:
            for field, value in _PROBE_DEFAULTS.items():
                # 0 is no time and no count; in Go it is the same as none given.
                probe[field] = probe.get(field) or value
            _default_handler(probe)
            if (grpc := probe.get("grpc")) is not None:
                grpc.setdefault("service", "")
    for name in HOOKS:
        if hook := (container.get("lifecycle") or {}).get(name):
            _default_handler(hook)


def _default_handler(handler: Doc) -> None:
    if (http := handler.get("httpGet")) is not None:
        http["path"] = http.get("path") or "/"
        http["scheme"] = http.get("scheme") or "HTTP"


def probe_causes(container: Doc, path: str) -> list[Cause]:
    """What is wrong with a container's probes."""
    found = []
    for name in PROBES:
        probe = container.get(name)
        if probe is None:
            continue
        at = f"{path}.{name}"
        found += _handler_causes(probe, _PROBE_HANDLERS, at)
        found += not_negative_causes(probe, _PROBE_NUMBERS, at)
        if name != "readinessProbe" and probe.get("successThreshold", 1) != 1:
            value = probe["successThreshold"]
            found.append(causes.invalid(f"{at}.successThreshold", value, "must be 1"))
        found += _probe_grace_causes(name, probe, at)
    return found


def _probe_grace_causes(name: str, probe: Doc, path: str) -> list[Cause]:
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is None:
        return []
    at = f"{path}.terminationGracePeriodSeconds"
    found = []
    if grace <= 0:
        found.append(causes.invalid(at, grace, "must be greater than 0"))
    if name == "readinessProbe":
        found.append(causes.invalid(at, grace, "must not be set for readinessProbes"))
    return found


def lifecycle_causes(container: Doc, path: str, spec: Doc) -> list[Cause]:
    """What is wrong with a container's hooks and stop signal, in the Pod that ``spec`` is of."""
    lifecycle = container.get("lifecycle")
    if lifecycle is None:
        return []
    found = []
    for name in HOOKS:
        if (hook := lifecycle.get(name)) is not None:
            grace = spec.get("terminationGracePeriodSeconds")
            found += _handler_causes(hook, _HOOK_HANDLERS, f"{path}.lifecycle.{name}", grace)
    if signal := lifecycle.get("stopSignal"):
        at = f"{path}.lifecycle.stopSignal"
        os = (spec.get("os") or {}).get("name")
        if not os:
            message = "may not be set for containers with empty `spec.os.name`"
            found.append(causes.forbidden(at, message))
        if signal not in SIGNALS:
            found.append(causes.not_supported(at, signal, SIGNALS))
    return found


def _handler_causes(
    holder: Doc, kinds: tuple[str, ...], path: str, grace: int | None = None
) -> list[Cause]:
    chosen, found = one_of_causes(
        holder, kinds, path, kind="handler type", missing="must specify a handler type"
    )
    if chosen is None:
        return found
    at, handler = f"{path}.{chosen}", holder[chosen]
    match chosen:
        case "exec":
            if not handler.get("command"):
                found.append(causes.required(f"{at}.command"))
        case "httpGet":
            found += _http_causes(handler, at)
        case "tcpSocket" | "grpc":
            found += port_causes(handler.get("port"), f"{at}.port")
        case "sleep":
            seconds = handler.get("seconds", 0)
            if seconds < 0 or (grace is not None and seconds > grace):
                message = (
                    f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                )
                found.append(causes.invalid(at, seconds, message))
    return found


def _http_causes(http: Doc, path: str) -> list[Cause]:
    found = port_causes(http.get("port"), f"{path}.port")
    found += choice_causes(http, "scheme", ("HTTP", "HTTPS"), path)
    found += [
        causes.invalid(f"{path}.httpHeaders", header.get("name", ""), _HEADER_RULE)
        for header in http.get("httpHeaders") or ()
        if not _HEADER.fullmatch(header.get("name", ""))
    ]
    return found
