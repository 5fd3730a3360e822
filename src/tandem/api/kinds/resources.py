"""What a Pod asks for as a whole: the sums that scheduling, QoS and cgroups go by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.api.quantity import parse_quantity

Amounts = dict[str, Decimal]
"""Resource names to exact amounts: cores, bytes, pieces."""


def pod_requests(spec: Doc) -> Amounts:
    """What must be free on a node for the Pod, as Kubernetes counts it: the containers' sum, or
    the most that its init phase needs at a time, and the overhead on top. Sidecars go on running, so
    they count with the containers, and with every init container after them."""
    return _total(spec, "requests")


def pod_limits(spec: Doc) -> Amounts:
    """The same over the limits; a resource that any container leaves unlimited is still summed."""
    return _total(spec, "limits")


def _total(spec: Doc, section: str) -> Amounts:
    total: Amounts = {}
    for container in spec.get("containers") or ():
        _add(total, _amounts(container, section))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or ():
        own = _amounts(container, section)
        if is_sidecar(container):
            _add(total, own)
            _add(sidecars, own)
            own = {}
        else:
            _add(own, sidecars)
        _raise(peak, own or sidecars)
    _raise(total, peak)
    _add(total, {name: parse_quantity(v) for name, v in (spec.get("overhead") or {}).items()})
    return total


def is_sidecar(container: Doc) -> bool:
    """Whether an init container goes on running beside the others."""
    return container.get("restartPolicy") == "Always"


def all_containers(spec: Doc) -> Iterator[Doc]:
    """Init containers, containers and ephemeral ones."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(field) or ()


def qos_class(spec: Doc) -> str:
    """Guaranteed, Burstable or BestEffort, by the requests and limits of all containers."""
    asks_anything = False
    guaranteed = True
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        requests, limits = (_compute(container, name) for name in ("requests", "limits"))
        asks_anything = asks_anything or bool(requests or limits)
        if set(limits) != {"cpu", "memory"} or {**limits, **requests} != limits:
            guaranteed = False
    if not asks_anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _compute(container: Doc, section: str) -> Amounts:
    amounts = _amounts(container, section)
    return {name: amounts[name] for name in ("cpu", "memory") if amounts.get(name)}


def _amounts(container: Doc, section: str) -> Amounts:
    found: Amounts = {}
    given: Any = get(container, f"resources.{section}", {})
    for name, value in given.items():
        try:
            found[name] = parse_quantity(value)
        except (ValueError, TypeError):  # refused by validation, which comes later
            continue
    return found


def _add(total: Amounts, more: Amounts) -> None:
    _combine(total, more, lambda one, two: one + two)


def _raise(total: Amounts, other: Amounts) -> None:
    _combine(total, other, max)


def _combine(total: Amounts, more: Amounts, how: Callable[[Decimal, Decimal], Decimal]) -> None:
    for name, amount in more.items():
        total[name] = how(total.get(name, Decimal(0)), amount)
