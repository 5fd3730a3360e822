"""What is read of the host and of the runtime, and what containers are given of the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tandem.runtimes import capabilities
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.adapter import ContainerAdapter, describe_runtime
from tandem.runtimes.cri.hostfacts import read_host_facts
from tandem.runtimes.cri.reader import Faults, Reader
from tandem.runtimes.cri.resources import Resources, quality_of_service


def resources(**document: Any) -> Resources:
    faults = Faults()
    found = Resources.read(Reader(document, "resources", faults))
    assert not faults.invalid
    return found


def test_the_host_is_read(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       1024 kB\nMemFree: 1 kB\n")
    (tmp_path / "etc/resolv.conf").write_text(
        "# made by hand\ndomain old\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n"
        "search lan example.org\noptions ndots:2 edns0\n"
    )
    facts = read_host_facts(tmp_path)
    assert facts.memory == 1 << 20
    assert facts.nameservers == ("192.0.2.1", "192.0.2.2")
    assert facts.searches == ("lan", "example.org")
    assert facts.resolver_options == ("ndots:2", "edns0")


def test_a_host_that_says_nothing_is_no_failure(tmp_path: Path) -> None:
    assert read_host_facts(tmp_path).memory == 0


@pytest.mark.parametrize(
    ("documents", "quality"),
    [
        ([{}], "BestEffort"),
        ([{"requests": {"ephemeral-storage": "1Gi"}}], "BestEffort"),
        ([{"requests": {"cpu": "100m"}}], "Burstable"),
        ([{"limits": {"memory": "64Mi"}}], "Burstable"),
        ([{"limits": {"cpu": 1, "memory": "64Mi"}}], "Guaranteed"),
        ([{"limits": {"cpu": 1, "memory": "64Mi"}}, {}], "Burstable"),
        (
            [{"limits": {"cpu": 1, "memory": "64Mi"}, "requests": {"cpu": "500m"}}],
            "Burstable",
        ),
    ],
)
def test_the_class_of_service(documents: list[dict[str, Any]], quality: str) -> None:
    assert quality_of_service([resources(**document) for document in documents]) == quality


@pytest.mark.parametrize(
    ("request_", "shares"), [("0", 2), ("1m", 2), ("100m", 102), ("2", 2048), ("1000", 262144)]
)
def test_a_cpu_request_is_a_share(request_: str, shares: int) -> None:
    found = resources(requests={"cpu": request_}).to_cri("Burstable", 1 << 30)
    assert found.cpu_shares == shares
    assert found.cpu_quota == 0


@pytest.mark.parametrize(("limit", "quota"), [("1m", 1000), ("500m", 50_000), ("2", 200_000)])
def test_a_cpu_limit_is_a_quota(limit: str, quota: int) -> None:
    found = resources(limits={"cpu": limit}).to_cri("Burstable", 1 << 30)
    assert (found.cpu_period, found.cpu_quota) == (100_000, quota)


@pytest.mark.parametrize(
    ("quality", "memory", "score"),
    [
        ("Guaranteed", "512Mi", -997),
        ("BestEffort", None, 1000),
        ("Burstable", None, 999),
        ("Burstable", "512Mi", 500),
        ("Burstable", "1Gi", 3),
        ("Burstable", "9Gi", 3),
    ],
)
def test_who_is_killed_first_when_memory_runs_out(
    quality: str, memory: str | None, score: int
) -> None:
    asked = resources(requests={"memory": memory} if memory else {})
    assert asked.to_cri(quality, 1 << 30).oom_score_adj == score


def test_a_runtime_without_a_network_is_not_healthy_and_has_a_fix() -> None:
    version = cri.VersionResponse(runtime_name="containerd", runtime_version="1.6.20")
    status = cri.RuntimeStatus(
        conditions=[
            cri.RuntimeCondition(type="RuntimeReady", status=True),
            cri.RuntimeCondition(type="NetworkReady", status=False, message="no CNI config"),
            cri.RuntimeCondition(type="SomethingNew", status=False, message="?"),
        ]
    )
    found = describe_runtime(version, status, "/run/s")
    assert (found.name, found.version, found.healthy) == ("containerd", "1.6.20", False)
    assert found.problem == "NetworkReady is false: no CNI config"
    assert "CNI" in found.hint


@pytest.mark.parametrize(("name", "has"), [("containerd", True), ("cri-o", False)])
def test_files_out_of_images_need_containerd(name: str, has: bool) -> None:
    found = describe_runtime(cri.VersionResponse(runtime_name=name), cri.RuntimeStatus(), "/s")
    assert found.healthy
    assert ("ImageFiles" in found.capabilities) is has
    assert {"Logs", "Containers"} <= found.capabilities
    for name in found.capabilities:
        assert issubclass(ContainerAdapter, getattr(capabilities, name))
