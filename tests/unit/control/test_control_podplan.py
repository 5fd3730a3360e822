"""What a Pod needs next, as a table: a spec, what the runtime says, and the steps that follow.

A container is written ``name=state``: ``running``, ``made`` (created, not started), ``unknown``, or the
code it has ended with; ``name=state/2`` is its third attempt. Steps are written ``+name/attempt`` for a
start and ``-name`` for a kill.
"""

from __future__ import annotations

from typing import Any

import pytest

from tandem.control.pods.plan import Plan, Verdict, plan
from tandem.runtimes.adapter import ContainerStatus, Phase, RuntimeStatus

_PHASES = {"running": Phase.RUNNING, "made": Phase.PENDING, "unknown": Phase.UNKNOWN}


def pod(policy: str = "Always", **spec: Any) -> dict[str, Any]:
    """``init``, ``containers``, ``debug`` are names; a name with a ``*`` is a sidecar's."""
    return {
        "spec": {
            "restartPolicy": policy,
            "initContainers": [_container(name) for name in spec.get("init", "").split()],
            "containers": [_container(name) for name in spec.get("containers", "a").split()],
            "ephemeralContainers": [_container(name) for name in spec.get("debug", "").split()],
        },
        "status": spec.get("status", {}),
    }


def _container(name: str) -> dict[str, Any]:
    document = {"name": name.rstrip("*"), "image": "demo:1"}
    return {**document, "restartPolicy": "Always"} if name.endswith("*") else document


def observed(words: str, *, lost: bool = False) -> RuntimeStatus:
    containers = []
    for word in words.split():
        name, _, state = word.partition("=")
        state, _, attempt = state.partition("/")
        code = int(state) if state.isdigit() else None
        phase = _PHASES.get(state) or (Phase.SUCCEEDED if code == 0 else Phase.FAILED)
        containers.append(
            ContainerStatus(name, phase, image="demo:1", attempt=int(attempt or 0), exit_code=code)
        )
    phase = Phase.FAILED if lost else Phase.RUNNING
    return RuntimeStatus(phase, "id", containers=tuple(containers))


def steps(found: Plan) -> str:
    words = ["sandbox"] if found.make_sandbox else []
    words += [f"+{step.name}/{step.attempt}" for step in found.start]
    words += [f"-{kill.name}" for kill in found.kill]
    return " ".join([*words, *(["over"] if found.over else [])])


def fine(_: ContainerStatus) -> Verdict:
    return Verdict()


def starting(*names: str) -> Any:
    """Verdicts in which these containers' startup probes have not answered yet."""
    return lambda seen: Verdict(started=seen.name not in names, ready=seen.name not in names)


def doomed(*names: str) -> Any:
    return lambda seen: Verdict(doomed="failed liveness probe" if seen.name in names else None)


@pytest.mark.parametrize(
    ("document", "seen", "expected"),
    [
        # Containers
        (pod(), "", "+a/0"),
        (pod(containers="a b"), "", "+a/0 +b/0"),
        (pod(containers="a b"), "a=running", "+b/0"),
        (pod(), "a=running", ""),
        (pod(), "a=made/3", "+a/3"),
        (pod(), "a=0", "+a/1"),
        (pod(), "a=1/4", "+a/5"),
        (pod("OnFailure"), "a=0", "over"),
        (pod("OnFailure"), "a=1", "+a/1"),
        (pod("OnFailure", containers="a b"), "a=0 b=running", ""),
        (pod("OnFailure", containers="a b"), "a=0 b=3", "+b/1"),
        (pod("Never"), "a=0", "over"),
        (pod("Never"), "a=1", "over"),
        (pod("Never", containers="a b"), "a=1", "+b/0"),
        (pod("Never", containers="a b"), "a=1 b=running", ""),
        (pod("Never", containers="a b"), "a=1 b=0", "over"),
        (pod(), "a=unknown", "-a"),
        # Init containers, one by one
        (pod(init="i j"), "", "+i/0"),
        (pod(init="i j"), "i=running", ""),
        (pod(init="i j"), "i=made", "+i/0"),
        (pod(init="i j"), "i=0", "+j/0"),
        (pod(init="i j"), "i=0 j=running", ""),
        (pod(init="i j"), "i=0 j=0", "+a/0"),
        (pod(init="i j"), "i=0 j=0 a=running", ""),
        (pod(init="i j"), "i=2", "+i/1"),
        (pod("OnFailure", init="i"), "i=2", "+i/1"),
        (pod("Never", init="i"), "i=2", "over"),
        (pod("Never", init="i"), "i=0", "+a/0"),
        (pod(init="i"), "a=1", "+a/1"),  # the init container was cleared away
        (pod(init="i"), "i=unknown", "-i"),
        # Sidecars
        (pod(init="s* i"), "", "+s/0"),
        (pod(init="s* i"), "s=running", "+i/0"),
        (pod(init="s* i"), "s=1 i=running", "+s/1"),
        (pod(init="s* i"), "s=1 i=1", "+s/1 +i/1"),
        (pod(init="s* i"), "s=running i=0", "+a/0"),
        (pod(init="i s*"), "i=0 s=running", "+a/0"),
        (pod(init="i s*"), "i=0 s=0", "+s/1"),
        (pod(init="s*"), "s=0 a=running", "+s/1"),
        (pod("Never", init="s*"), "s=1 a=running", "+s/1"),
        (pod("Never", init="s*"), "s=running a=0", "over"),
        (pod("Never", init="s*"), "s=1 a=0", "over"),
        (pod("OnFailure", init="s*"), "s=running a=1", "+a/1"),
        # Ephemeral containers
        (pod(debug="d"), "a=running", "+d/0"),
        (pod(debug="d"), "a=running d=running", ""),
        (pod(debug="d"), "a=running d=1", ""),
        (pod(debug="d", init="i"), "i=running", "+d/0"),
        (pod("Never", debug="d"), "a=0 d=running", "over"),
    ],
)
def test_steps_in_a_sandbox(document: dict[str, Any], seen: str, expected: str) -> None:
    assert steps(plan(document, observed(seen), fine)) == expected


@pytest.mark.parametrize(
    ("document", "seen", "expected"),
    [
        (pod(), None, "sandbox"),
        (pod("Never"), None, "sandbox"),
        (pod(), "a=255", "sandbox"),
        (pod(init="i"), "i=0 a=255", "sandbox"),
        (pod("Never"), "a=255", "over"),
        (pod("Never", init="i"), "i=0", "over"),
        (pod("Never"), "", "sandbox"),
        (pod("OnFailure"), "a=0", "over"),
        (pod("OnFailure", containers="a b"), "a=0 b=255", "sandbox"),
    ],
)
def test_steps_without_a_sandbox(document: dict[str, Any], seen: str | None, expected: str) -> None:
    lost = None if seen is None else observed(seen, lost=True)
    assert steps(plan(document, lost, fine)) == expected


def _status(**states: dict[str, Any]) -> dict[str, Any]:
    entries = [{"name": name, "restartCount": 2, **state} for name, state in states.items()]
    return {"containerStatuses": entries}


RAN: dict[str, Any] = {"state": {"running": {}}}
WELL = {"state": {"terminated": {"exitCode": 0}}}
LOOPING = {"state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": 3}}}
NEVER_RAN: dict[str, Any] = {"state": {"waiting": {}}}


@pytest.mark.parametrize(
    ("document", "seen", "expected"),
    [
        # All that is left is the status: the runtime has forgotten the Pod.
        (pod("Never", status=_status(a=RAN)), None, "over"),
        (pod("Never", status=_status(a=NEVER_RAN)), None, "sandbox"),
        (pod("OnFailure", status=_status(a=WELL)), None, "over"),
        # A new sandbox: attempts are counted on, and what ended well is left alone.
        (pod(status=_status(a=RAN)), "", "+a/3"),
        (pod(status=_status(a=LOOPING)), "", "+a/3"),
        (pod("OnFailure", containers="a b", status=_status(a=WELL, b=RAN)), "", "+b/3"),
        (pod(init="i", status=_status(i=WELL, a=RAN)), "", "+i/3"),
        (pod(debug="d", status=_status(a=RAN, d=RAN)), "", "+a/3"),
    ],
)
def test_steps_of_a_pod_that_had_another_sandbox(
    document: dict[str, Any], seen: str | None, expected: str
) -> None:
    workload = None if seen is None else observed(seen)
    assert steps(plan(document, workload, fine)) == expected


def test_a_sidecar_holds_the_next_container_until_it_has_started() -> None:
    document = pod(init="s* i")
    assert steps(plan(document, observed("s=running"), starting("s"))) == ""
    assert steps(plan(document, observed("s=running"), fine)) == "+i/0"
    # Later it is not waited for again.
    restarted = observed("s=running/1 i=0 a=1")
    assert steps(plan(document, restarted, starting("s"))) == "+a/1"


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("Always", "Container a failed liveness probe, will be restarted"),
        ("OnFailure", "Container a failed liveness probe, will be restarted"),
        ("Never", "Container a failed liveness probe"),
    ],
)
def test_a_container_whose_probe_has_failed_is_killed(policy: str, message: str) -> None:
    found = plan(pod(policy), observed("a=running"), doomed("a"))
    assert [kill.message for kill in found.kill] == [message]
    assert not found.over


def test_a_sidecar_whose_probe_has_failed_is_killed() -> None:
    found = plan(pod("Never", init="s*"), observed("s=running a=running"), doomed("s"))
    assert [kill.message for kill in found.kill] == ["Init container s failed liveness probe"]


def test_a_changed_image_replaces_only_its_container() -> None:
    document = pod("Never", containers="a b")
    document["spec"]["containers"][0]["image"] = "demo:2"
    running = observed("a=running b=running")
    found = plan(document, running, fine)
    assert [kill.message for kill in found.kill] == [
        "Container a definition changed, will be restarted"
    ]
    ended = observed("a=137 b=running")
    assert steps(plan(document, ended, fine)) == ""
    assert steps(plan(document, ended, fine, revived={"a"})) == "+a/1"
