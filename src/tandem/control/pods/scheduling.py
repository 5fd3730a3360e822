"""Whether a Pod may run on the one node, with the scheduler's reasons when it may not. Pure.

The rules are those of Kubernetes' default scheduler, asked in its order: the first that says no tells
its reason, as there. Nothing is ever displaced: a Pod that does not fit waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import NamedTuple

from tandem.api.kind import Doc
from tandem.api.kinds.resources import Amounts, is_sidecar, pod_requests
from tandem.api.kinds.security import shared_by_host
from tandem.api.meta import get
from tandem.api.quantity import parse_quantity
from tandem.control.pods.affinity import Placed, conflict, tolerated, wants_node
from tandem.store import Key

Lookup = Callable[[Key], Doc | None]

GATED = "Scheduling is blocked due to non-empty scheduling gates"
"""The message of the condition PodScheduled, whose reason is ``SchedulingGated``."""

SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
"""What a Pod may set without harm to others: those the kubelet allows by itself."""

_NO_VICTIMS = "No preemption victims found for incoming pod"
_NO_HELP = "Preemption is not helpful for scheduling"
_ENDED = ("Succeeded", "Failed")

_Port = tuple[str, str, int]  # protocol, address, number


class _Held(NamedTuple):
    """What one Pod on the node holds."""

    requests: Amounts
    ports: tuple[_Port, ...]
    priority: int


class Load:
    """What the Pods on the node hold, kept up as they come and go, so that the price of asking does
    not grow with their number."""

    def __init__(self, pods: Iterable[Doc] = ()) -> None:
        self.requested: Amounts = {}
        self.placed: dict[str, Placed] = {}
        self.rejecting: dict[str, Placed] = {}
        self._held: dict[str, _Held] = {}
        for pod in pods:
            self.put(pod)

    def put(self, pod: Doc) -> None:
        """The Pod is on the node, as it is now; one that has ended holds nothing."""
        uid = pod["metadata"]["uid"]
        self.drop(uid)
        if get(pod, "status.phase") in _ENDED:
            return
        held = _Held(
            pod_requests(pod["spec"]), tuple(_host_ports(pod["spec"])), _priority(pod["spec"])
        )
        self._held[uid] = held
        self.placed[uid] = placed = Placed.of(pod)
        if placed.rejects:
            self.rejecting[uid] = placed
        for name, amount in held.requests.items():
            self.requested[name] = self.requested.get(name, Decimal(0)) + amount

    def drop(self, uid: str) -> None:
        """The Pod is not on the node any more. Idempotent."""
        held = self._held.pop(uid, None)
        self.placed.pop(uid, None)
        self.rejecting.pop(uid, None)
        if held is not None:
            for name, amount in held.requests.items():
                self.requested[name] -= amount

    def __len__(self) -> int:
        return len(self._held)

    def ports(self) -> Iterator[_Port]:
        """The host's ports that are taken."""
        for held in self._held.values():
            yield from held.ports

    def has_below(self, priority: int) -> bool:
        """Whether any Pod has a lower priority."""
        return any(held.priority < priority for held in self._held.values())


class _Reasons(NamedTuple):
    """Why the node will not do. ``resolvable``: other Pods' leaving could change it. ``of_pod``: they
    are about the Pod, whichever the node."""

    reasons: tuple[str, ...]
    resolvable: bool = False
    of_pod: bool = False


def gated(pod: Doc) -> bool:
    """Whether somebody still holds the Pod back from being scheduled."""
    return bool(get(pod, "spec.schedulingGates"))


def unfit(
    pod: Doc, node: Doc, others: Load | Iterable[Doc], lookup: Lookup, unbound: str | None = None
) -> str | None:
    """None when the Pod fits; else the scheduler's message, for the condition PodScheduled (reason
    ``Unschedulable``) and the event ``FailedScheduling``.

    ``others``: the Pods on the node, the Pod itself not among them. ``unbound``: what its claims to
    volumes wait for, if anything. A Pod that names its node is past scheduling.
    """
    name = get(pod, "spec.nodeName")
    if name == node["metadata"]["name"]:
        return None
    load = others if isinstance(others, Load) else Load(others)
    if name:
        found: _Reasons | None = _Reasons(("node(s) didn't match the requested node name",))
    else:
        found = _filter(pod, node, load, lookup, unbound)
    if found is None:
        return None
    counted = [reason if found.of_pod else f"1 {reason}" for reason in found.reasons]
    listed = ", ".join(sorted(counted))
    return f"0/1 nodes are available: {listed}. preemption: {_preemption(pod, found, load)}"


def _preemption(pod: Doc, found: _Reasons, load: Load) -> str:
    spec = pod["spec"]
    if spec.get("preemptionPolicy") == "Never":
        return "not eligible due to preemptionPolicy=Never."
    if not found.resolvable:
        return f"0/1 nodes are available: 1 {_NO_HELP}."
    if load.has_below(_priority(spec)):
        return "not supported by Tandem: Pods of lower priority are not displaced."
    return f"0/1 nodes are available: 1 {_NO_VICTIMS}."


def _filter(
    pod: Doc, node: Doc, load: Load, lookup: Lookup, unbound: str | None
) -> _Reasons | None:
    """The scheduler's filters in its order; the first that fails."""
    if unbound is not None:
        return _Reasons((unbound,), of_pod=True)
    if get(node, "spec.unschedulable") and not tolerated(pod, _CORDONED):
        return _Reasons(("node(s) were unschedulable",))
    for taint in get(node, "spec.taints", []):
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not tolerated(pod, taint):
            shown = f"{{{taint.get('key', '')}: {taint.get('value', '')}}}"
            return _Reasons((f"node(s) had untolerated taint {shown}",))
    if not wants_node(pod, node):
        return _Reasons((_AFFINITY,))
    if _port_conflict(pod, load):
        return _Reasons((_PORTS,), resolvable=True)
    if (found := _insufficient(pod, node, load)) is not None:
        return found
    others, rejecting = load.placed.values(), load.rejecting.values()
    reason = conflict(pod, node, others, rejecting, _NamespaceLabels(lookup))
    if reason is not None:
        return _Reasons((reason.text,), reason.resolvable)
    return None


_CORDONED: Doc = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
_AFFINITY = "node(s) didn't match Pod's node affinity/selector"
_PORTS = "node(s) didn't have free ports for the requested pod ports"


def _insufficient(pod: Doc, node: Doc, load: Load) -> _Reasons | None:
    allocatable: Doc = get(node, "status.allocatable", {})
    reasons = []
    beyond = False  # what the node has at all
    if (room := allocatable.get("pods")) is not None and len(load) + 1 > parse_quantity(room):
        reasons.append("Too many pods")
    for name, amount in pod_requests(pod["spec"]).items():
        if amount <= 0:
            continue
        whole = parse_quantity(allocatable.get(name, 0))
        if amount > whole - load.requested.get(name, Decimal(0)):
            reasons.append(f"Insufficient {name}")
            beyond = beyond or amount > whole
    return _Reasons(tuple(reasons), resolvable=not beyond) if reasons else None


def _port_conflict(pod: Doc, load: Load) -> bool:
    wanted = tuple(_host_ports(pod["spec"]))
    if not wanted:
        return False
    return any(_collide(one, two) for one in load.ports() for two in wanted)


def _collide(one: _Port, two: _Port) -> bool:
    anywhere = "0.0.0.0"
    return one[::2] == two[::2] and (one[1] == two[1] or anywhere in (one[1], two[1]))


def _host_ports(spec: Doc) -> Iterator[_Port]:
    sidecars = (c for c in spec.get("initContainers") or () if is_sidecar(c))
    for container in (*(spec.get("containers") or ()), *sidecars):
        for port in container.get("ports") or ():
            if number := port.get("hostPort"):
                yield port.get("protocol", "TCP"), port.get("hostIP") or "0.0.0.0", int(number)


def _priority(spec: Doc) -> int:
    return int(spec.get("priority") or 0)


class _NamespaceLabels:
    """The labels of namespaces, for terms that select Pods by them."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    def __call__(self, namespace: str) -> dict[str, str]:
        doc = self._lookup(Key("namespaces", "", namespace))
        return dict(get(doc or {}, "metadata.labels", {}))


# What the kubelet says ---------------------------------------------------------------------------


def rejection(
    pod: Doc, node: Doc, others: Load | Iterable[Doc], *, apparmor: bool
) -> tuple[str, str] | None:
    """Why the node itself will not have the Pod, scheduled or not: reason and message of a Pod that
    fails before it starts; None when it will. ``apparmor``: whether the host enforces profiles.

    A Pod that named its node was never asked whether it fits; here it is.
    """
    if (why := _forbidden_sysctl(pod["spec"])) is not None:
        return "SysctlForbidden", f"forbidden sysctl: {why}"
    if not apparmor and _wants_apparmor(pod["spec"]):
        return "AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"
    load = others if isinstance(others, Load) else Load(others)
    if (found := _insufficient(pod, node, load)) is not None:
        return _out_of(pod, node, load, found.reasons[0])
    if not wants_node(pod, node):
        return "NodeAffinity", f"Predicate NodeAffinity failed: {_AFFINITY}"
    if _port_conflict(pod, load):
        return "NodePorts", f"Predicate NodePorts failed: {_PORTS}"
    return None


def _out_of(pod: Doc, node: Doc, load: Load, reason: str) -> tuple[str, str]:
    name = "pods" if reason == "Too many pods" else reason.removeprefix("Insufficient ")
    whole = parse_quantity(get(node, "status.allocatable", {}).get(name, 0))
    asked = pod_requests(pod["spec"]).get(name, Decimal(1))
    used = Decimal(len(load)) if name == "pods" else load.requested.get(name, Decimal(0))
    unit = 1000 if name == "cpu" else 1  # the kubelet tells processors in thousandths
    numbers = [int(amount * unit) for amount in (asked, used, whole)]
    return (
        f"OutOf{name}",
        f"Node didn't have enough resource: {name}, requested: {numbers[0]}, used: {numbers[1]}, "
        f"capacity: {numbers[2]}",
    )


def _forbidden_sysctl(spec: Doc) -> str | None:
    for sysctl in get(spec, "securityContext.sysctls", []):
        name = str(sysctl.get("name", "")).replace("/", ".")
        if name not in SAFE_SYSCTLS:
            return f'"{name}" not allowlisted'
        if shared_by_host(name, spec) == "hostNetwork":
            return f'"{name}" not allowed with host net enabled'
    return None


def _wants_apparmor(spec: Doc) -> bool:
    holders = [spec, *(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    kinds = [get(holder, "securityContext.appArmorProfile.type") for holder in holders]
    return any(kind in ("Localhost", "RuntimeDefault") for kind in kinds)
