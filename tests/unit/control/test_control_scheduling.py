"""Whether a Pod fits the one node, in the scheduler's words."""

from __future__ import annotations

from typing import Any

import pytest

from tandem.api.kind import Doc
from tandem.control.pods.scheduling import Load, gated, rejection, unfit
from tandem.store import Key

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
NO_HELP = " preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
NO_VICTIMS = " preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
HOST = "kubernetes.io/hostname"


def node(**spec: Any) -> Doc:
    return {
        "metadata": {"name": "here", "labels": {HOST: "here", "disktype": "hdd", "cores": "8"}},
        "spec": spec,
        "status": {
            "allocatable": {
                "cpu": "4",
                "memory": "8Gi",
                "ephemeral-storage": "100Gi",
                "pods": "3",
            }
        },
    }


def asking(**requests: str) -> Doc:
    return {"name": "main", "resources": {"requests": requests}}


def pod(
    name: str = "web", labels: dict[str, str] | None = None, status: Doc | None = None, **spec: Any
) -> Doc:
    return {
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": labels or {}},
        "spec": {"containers": [asking()], **spec},
        "status": status or {},
    }


NAMESPACES: dict[str, Doc] = {
    "default": {"metadata": {"labels": {"team": "a"}}},
    "other": {"metadata": {"labels": {"team": "b"}}},
}


def lookup(key: Key) -> Doc | None:
    return NAMESPACES.get(key.name) if key.resource == "namespaces" else None


def why(new: Doc, *others: Doc, on: Doc | None = None) -> str | None:
    return unfit(new, on or node(), others, lookup)


def test_a_pod_that_asks_for_nothing_fits() -> None:
    assert why(pod()) is None


def test_more_than_the_node_has_is_told_by_resource() -> None:
    wanted = pod(containers=[asking(memory="1000Gi", cpu="8")])
    assert (
        why(wanted)
        == "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory." + NO_HELP
    )


def test_what_others_hold_is_not_free() -> None:
    big = pod("big", containers=[asking(memory="6Gi")])
    wanted = pod(containers=[asking(memory="3Gi")])
    assert why(wanted, big) == "0/1 nodes are available: 1 Insufficient memory." + NO_VICTIMS
    ended = pod("big", status={"phase": "Succeeded"}, containers=[asking(memory="6Gi")])
    assert why(wanted, ended) is None


def test_pods_of_lower_priority_are_not_displaced_and_that_is_said() -> None:
    big = pod("big", containers=[asking(memory="6Gi")])
    wanted = pod(containers=[asking(memory="3Gi")], priority=100)
    told = why(wanted, big)
    assert told is not None
    assert told.endswith("not supported by Tandem: Pods of lower priority are not displaced.")
    wanted["spec"]["preemptionPolicy"] = "Never"
    told = why(wanted, big)
    assert told is not None
    assert told.endswith(" preemption: not eligible due to preemptionPolicy=Never.")


def test_a_load_follows_pods_as_they_come_change_and_go() -> None:
    load = Load()
    big = pod("big", containers=[asking(memory="6Gi")])
    wanted = pod(containers=[asking(memory="3Gi")])
    load.put(big)
    load.put(big)
    assert len(load) == 1
    assert unfit(wanted, node(), load, lookup) is not None
    load.put({**big, "status": {"phase": "Failed"}})
    assert unfit(wanted, node(), load, lookup) is None
    load.put(big)
    load.drop("big")
    load.drop("big")
    assert unfit(wanted, node(), load, lookup) is None


def test_init_containers_count_by_their_peak_and_sidecars_all_along() -> None:
    init = {"name": "a", "resources": {"requests": {"cpu": "3"}}}
    side = {"name": "b", "restartPolicy": "Always", "resources": {"requests": {"cpu": "2"}}}
    main = asking(cpu="1")
    assert why(pod(initContainers=[init, side], containers=[main])) is None  # 3, then 2 + 1
    told = why(pod(initContainers=[side, init], containers=[main]))  # 2 + 3
    assert told == "0/1 nodes are available: 1 Insufficient cpu." + NO_HELP
    told = why(pod(containers=[asking(cpu="3")], overhead={"cpu": "1500m"}))
    assert told == "0/1 nodes are available: 1 Insufficient cpu." + NO_HELP


def test_only_so_many_pods() -> None:
    others = [pod(str(number)) for number in range(3)]
    assert why(pod(), *others) == "0/1 nodes are available: 1 Too many pods." + NO_VICTIMS


def test_extended_resources_are_not_there() -> None:
    wanted = pod(containers=[asking(**{"example.com/gpu": "1"})])
    assert why(wanted) == "0/1 nodes are available: 1 Insufficient example.com/gpu." + NO_HELP


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        ({"nodeSelector": {"disktype": "hdd"}}, True),
        ({"nodeSelector": {"disktype": "ssd"}}, False),
        ({"affinity": [("disktype", "In", ["ssd", "hdd"])]}, True),
        ({"affinity": [("disktype", "NotIn", ["hdd"])]}, False),
        ({"affinity": [("cores", "Gt", ["4"])]}, True),
        ({"affinity": [("cores", "Lt", ["4"])]}, False),
        ({"affinity": [("gpu", "Exists", [])]}, False),
        ({"affinity": [("gpu", "DoesNotExist", [])]}, True),
    ],
)
def test_selectors_and_node_affinity(spec: Doc, fits: bool) -> None:
    if isinstance(terms := spec.get("affinity"), list):
        expressions = [{"key": k, "operator": o, "values": v} for k, o, v in terms]
        required = {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
        spec = {"affinity": {"nodeAffinity": {REQUIRED: required}}}
    told = why(pod(**spec))
    if fits:
        assert told is None
    else:
        assert told == (
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
            + NO_HELP
        )


def test_a_term_may_name_the_node() -> None:
    def by_name(name: str) -> Doc:
        field = {"key": "metadata.name", "operator": "In", "values": [name]}
        required = {"nodeSelectorTerms": [{"matchFields": [field]}, {}]}
        return pod(affinity={"nodeAffinity": {REQUIRED: required}})

    assert why(by_name("here")) is None
    assert why(by_name("there")) is not None


def test_taints_keep_out_whoever_does_not_tolerate_them() -> None:
    tainted = node(taints=[{"key": "role", "value": "db", "effect": "NoSchedule"}])
    assert why(pod(), on=tainted) == (
        "0/1 nodes are available: 1 node(s) had untolerated taint {role: db}." + NO_HELP
    )
    tolerating = [
        {"key": "role", "value": "db", "effect": "NoSchedule"},
        {"key": "role", "operator": "Exists"},
        {"operator": "Exists"},
    ]
    for toleration in tolerating:
        assert why(pod(tolerations=[toleration]), on=tainted) is None
    for toleration in ({"key": "role", "value": "web"}, {"key": "role", "effect": "NoExecute"}):
        assert why(pod(tolerations=[toleration]), on=tainted) is not None
    hinted = node(taints=[{"key": "role", "effect": "PreferNoSchedule"}])
    assert why(pod(), on=hinted) is None


def test_a_cordoned_node_takes_nobody() -> None:
    told = why(pod(), on=node(unschedulable=True))
    assert told == "0/1 nodes are available: 1 node(s) were unschedulable." + NO_HELP


def test_a_port_of_the_host_belongs_to_one_pod() -> None:
    def on_port(name: str, number: int, address: str = "", protocol: str = "TCP") -> Doc:
        port = {"hostPort": number, "hostIP": address, "protocol": protocol}
        return pod(name, containers=[{"name": "main", "ports": [port]}])

    taken = on_port("one", 80)
    assert why(on_port("two", 80), taken) == (
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
        + NO_VICTIMS
    )
    assert why(on_port("two", 80, "127.0.0.1"), taken) is not None
    assert why(on_port("two", 80, protocol="UDP"), taken) is None
    assert why(on_port("two", 81), taken) is None
    assert why(on_port("two", 80, "127.0.0.2"), on_port("one", 80, "127.0.0.1")) is None


def near(app: str, **more: Any) -> Doc:
    return {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": HOST, **more}


def test_pods_that_want_company() -> None:
    wanted = pod(affinity={"podAffinity": {REQUIRED: [near("cache")]}})
    told = "0/1 nodes are available: 1 node(s) didn't match pod affinity rules." + NO_HELP
    assert why(wanted) == told
    assert why(wanted, pod("cache", {"app": "cache"})) is None
    elsewhere = pod("cache", {"app": "cache"})
    elsewhere["metadata"]["namespace"] = "other"
    assert why(wanted, elsewhere) == told
    by_team = near("cache", namespaceSelector={"matchLabels": {"team": "b"}})
    assert why(pod(affinity={"podAffinity": {REQUIRED: [by_team]}}), elsewhere) is None
    first = pod("first", {"app": "cache"}, affinity={"podAffinity": {REQUIRED: [near("cache")]}})
    assert why(first) is None  # who wants to be near its like is near itself
    zoned = pod(affinity={"podAffinity": {REQUIRED: [near("cache", topologyKey="zone")]}})
    assert why(zoned, pod("cache", {"app": "cache"})) == told


def test_pods_that_want_distance() -> None:
    alone = {"podAntiAffinity": {REQUIRED: [near("web")]}}
    wanted = pod("two", {"app": "web"}, affinity=alone)
    other = pod("one", {"app": "web"})
    assert why(wanted) is None
    assert why(wanted, other) == (
        "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules." + NO_VICTIMS
    )
    jealous = pod("one", affinity=alone)
    assert why(pod("two", {"app": "web"}), jealous) == (
        "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules."
        + NO_VICTIMS
    )
    versioned = {"podAntiAffinity": {REQUIRED: [near("web", matchLabelKeys=["v"])]}}
    newer = pod("two", {"app": "web", "v": "2"}, affinity=versioned)
    assert why(newer, pod("one", {"app": "web", "v": "1"})) is None
    assert why(newer, pod("one", {"app": "web", "v": "2"})) is not None


def test_one_node_is_always_level_unless_more_parts_are_asked_for() -> None:
    constraint = {
        "maxSkew": 1,
        "topologyKey": HOST,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    others = [pod(str(number), {"app": "web"}) for number in range(2)]

    def spread(**more: Any) -> Doc:
        return pod(labels={"app": "web"}, topologySpreadConstraints=[{**constraint, **more}])

    told = "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints"
    assert why(spread(), *others) is None
    assert why(spread(minDomains=2)) is None
    assert why(spread(minDomains=2), *others) == told + "." + NO_VICTIMS
    assert why(spread(topologyKey="zone")) == told + " (missing required label)." + NO_HELP
    assert why(spread(topologyKey="zone", whenUnsatisfiable="ScheduleAnyway")) is None


def test_claims_that_are_waited_for_are_said_of_the_pod() -> None:
    missing = 'persistentvolumeclaim "mine" not found'
    told = unfit(pod(), node(), (), lookup, missing)
    assert told == f"0/1 nodes are available: {missing}." + NO_HELP


def test_a_pod_that_names_its_node_is_not_asked() -> None:
    assert why(pod(nodeName="here", nodeSelector={"disktype": "ssd"})) is None
    assert why(pod(nodeName="there")) == (
        "0/1 nodes are available: 1 node(s) didn't match the requested node name." + NO_HELP
    )


def test_gates_hold_a_pod_back() -> None:
    assert not gated(pod())
    assert gated(pod(schedulingGates=[{"name": "example.com/wait"}]))


def test_what_the_node_itself_refuses() -> None:
    def refused(new: Doc, *others: Doc, apparmor: bool = False) -> tuple[str, str] | None:
        return rejection(new, node(), others, apparmor=apparmor)

    def sysctl(name: str, **spec: Any) -> Doc:
        return pod(securityContext={"sysctls": [{"name": name, "value": "1"}]}, **spec)

    assert refused(pod()) is None
    assert refused(sysctl("net.ipv4.tcp_syncookies")) is None
    assert refused(sysctl("net/ipv4/tcp_syncookies")) is None
    assert refused(sysctl("kernel.msgmax")) == (
        "SysctlForbidden",
        'forbidden sysctl: "kernel.msgmax" not allowlisted',
    )
    profiled = pod(securityContext={"appArmorProfile": {"type": "RuntimeDefault"}})
    assert refused(profiled, apparmor=True) is None
    assert refused(profiled) == (
        "AppArmor",
        "Cannot enforce AppArmor: AppArmor is not enabled on the host",
    )
    big = pod("big", containers=[asking(cpu="3")])
    assert refused(pod(nodeName="here", containers=[asking(cpu="2")]), big) == (
        "OutOfcpu",
        "Node didn't have enough resource: cpu, requested: 2000, used: 3000, capacity: 4000",
    )
    assert refused(pod(nodeSelector={"disktype": "ssd"})) == (
        "NodeAffinity",
        "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
    )
