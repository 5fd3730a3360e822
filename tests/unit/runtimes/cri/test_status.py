"""What CRI says of a sandbox and its containers, as one status."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tandem.runtimes.adapter import LABEL_ID, Phase
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.status import Sighting, container_status, moment, newest, pod_status
from tandem.runtimes.cri.translate import ANNOTATION_POD, PodRecord

SECOND = 1_000_000_000


def sandbox(*names: str, ready: bool = True) -> cri.PodSandboxStatus:
    return cri.PodSandboxStatus(
        id="sandbox-id",
        state=cri.SANDBOX_READY if ready else cri.SANDBOX_NOTREADY,
        created_at=1 * SECOND,
        network=cri.PodSandboxNetworkStatus(
            ip="10.0.0.2", additional_ips=[cri.PodIP(ip="fd00::2")]
        ),
        labels={LABEL_ID: "x"},
        annotations={ANNOTATION_POD: PodRecord({}, names, "", False).to_json()},
    )


def ended(name: str, code: int, *, at: int = 5, reason: str = "") -> cri.ContainerStatus:
    return cri.ContainerStatus(
        id=f"{name}-id",
        metadata=cri.ContainerMetadata(name=name),
        state=cri.CONTAINER_EXITED,
        created_at=2 * SECOND,
        started_at=3 * SECOND,
        finished_at=at * SECOND,
        exit_code=code,
        reason=reason,
    )


def in_state(name: str, state: cri.ContainerState) -> cri.ContainerStatus:
    started = 3 * SECOND if state == cri.CONTAINER_RUNNING else 0
    return cri.ContainerStatus(
        id=f"{name}-id",
        metadata=cri.ContainerMetadata(name=name),
        state=state,
        created_at=2 * SECOND,
        started_at=started,
    )


RUNNING = in_state("a", cri.CONTAINER_RUNNING)
CREATED = in_state("b", cri.CONTAINER_CREATED)
UNKNOWN = in_state("b", cri.CONTAINER_UNKNOWN)


@pytest.mark.parametrize(
    ("ready", "containers", "phase"),
    [
        pytest.param(True, [RUNNING, ended("b", 1)], Phase.RUNNING, id="one still runs"),
        pytest.param(True, [RUNNING, CREATED], Phase.PENDING, id="one is not started"),
        pytest.param(True, [RUNNING], Phase.PENDING, id="one is missing"),
        pytest.param(True, [], Phase.PENDING, id="all are missing"),
        pytest.param(True, [ended("a", 0), ended("b", 0)], Phase.SUCCEEDED, id="all well"),
        pytest.param(True, [ended("a", 0), ended("b", 2)], Phase.FAILED, id="one failed"),
        pytest.param(True, [RUNNING, UNKNOWN], Phase.UNKNOWN, id="one is unknown"),
        pytest.param(False, [ended("a", 0), ended("b", 0)], Phase.SUCCEEDED, id="lost after it"),
        pytest.param(False, [RUNNING, ended("b", 0)], Phase.FAILED, id="lost while one runs"),
        pytest.param(False, [], Phase.FAILED, id="lost before it began"),
    ],
)
def test_the_phase_of_a_pod(
    ready: bool, containers: list[cri.ContainerStatus], phase: Phase
) -> None:
    assert pod_status(sandbox("a", "b", ready=ready), containers, {}).phase is phase


def test_a_pod_ends_as_the_first_to_fail_did() -> None:
    containers = [ended("a", 0, at=4), ended("b", 7, at=6, reason="OOMKilled"), ended("c", 9, at=8)]
    status = pod_status(sandbox("a", "b", "c"), containers, {})
    assert (status.exit_code, status.reason) == (7, "OOMKilled")
    assert status.finished_at == datetime.fromtimestamp(8, UTC)


def test_a_lost_sandbox_says_so() -> None:
    status = pod_status(sandbox("a", ready=False), [RUNNING], {})
    assert status.reason == "SandboxLost"
    assert status.message
    assert status.addresses == ()
    assert status.exit_code is None


def test_what_runs_has_addresses_and_no_end() -> None:
    status = pod_status(sandbox("a"), [RUNNING], {})
    assert status.addresses == ("10.0.0.2", "fd00::2")
    assert status.created_at == datetime.fromtimestamp(1, UTC)
    assert status.started_at == datetime.fromtimestamp(3, UTC)
    assert (status.finished_at, status.exit_code, status.reason) == (None, None, "")


def test_containers_are_in_the_order_they_were_asked_for() -> None:
    later = in_state("later", cri.CONTAINER_RUNNING)
    status = pod_status(sandbox("b", "a"), [later, RUNNING, ended("b", 0)], {})
    assert [item.name for item in status.containers] == ["b", "a", "later"]


def test_only_the_newest_attempt_counts() -> None:
    attempts = [
        cri.Container(id=str(n), metadata=cri.ContainerMetadata(name="a", attempt=n))
        for n in (1, 2, 0)
    ]
    assert [item.id for item in newest(attempts)] == ["2"]


@pytest.mark.parametrize(("code", "reason"), [(0, "Completed"), (1, "Error")])
def test_an_end_has_a_reason_even_where_the_runtime_gives_none(code: int, reason: str) -> None:
    assert container_status(ended("a", code)).reason == reason


def test_an_end_that_was_heard_of_counts_before_cri_says_it() -> None:
    status = container_status(RUNNING, Sighting(9 * SECOND, exit_code=137, oom=True))
    assert (status.phase, status.exit_code, status.reason) == (Phase.FAILED, 137, "OOMKilled")
    assert status.finished_at == datetime.fromtimestamp(9, UTC)


def test_a_start_that_was_heard_of_counts_before_cri_says_it() -> None:
    status = container_status(CREATED, Sighting(9 * SECOND))
    assert status.phase is Phase.RUNNING
    assert status.started_at == datetime.fromtimestamp(9, UTC)


def test_what_cri_says_of_an_end_outweighs_what_was_heard() -> None:
    told = ended("a", 3, reason="Error")
    assert container_status(told, Sighting(9 * SECOND, exit_code=0)).exit_code == 3
    assert container_status(told, Sighting(9 * SECOND)).phase is Phase.FAILED


def test_moments_are_exact_to_the_microsecond() -> None:
    expected = datetime(2026, 11, 22, 15, 30, 24, 14488, UTC)
    assert moment(1795361424_014488495) == expected
    assert moment(0) is None
