"""What is refused, by which field; the rest of the translation is held by golden files."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tandem.api.expand import expand
from tandem.errors import InvalidSpec, Unsupported
from tandem.runtimes.adapter import RuntimeSpec
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.hostfacts import HostFacts
from tandem.runtimes.cri.messages import log_message
from tandem.runtimes.cri.stopping import signal_number
from tandem.runtimes.cri.translate import (
    ANNOTATION_POD,
    PodPlan,
    PodRecord,
    plan_later_container,
    plan_pod,
    restore_sandbox,
)

HOST = HostFacts(memory=1 << 30)
LOGS = Path("/logs")
FINE = {"name": "a", "image": "i"}


def plan(*, labels: dict[str, str] | None = None, **pod: Any) -> PodPlan:
    spec = RuntimeSpec("x", container_spec={"containers": [FINE], **pod}, labels=labels or {})
    return plan_pod(spec, owner="tandem", log_dir=LOGS, host=HOST)


def container(**fields: Any) -> dict[str, Any]:
    return {"containers": [{**FINE, **fields}]}


@pytest.mark.parametrize(
    ("pod", "field"),
    [
        (container(image=7), "containers[0].image"),
        (container(image=" i"), "containers[0].image"),
        (container(name="A"), "containers[0].name"),
        (container(args=[1]), "containers[0].args[0]"),
        (container(tty="yes"), "containers[0].tty"),
        (container(imagePullPolicy="Sometimes"), "containers[0].imagePullPolicy"),
        (container(env=[{"value": "1"}]), "containers[0].env[0].name"),
        (container(env=[{"name": "a=b"}]), "containers[0].env[0].name"),
        (container(env={"A": "1"}), "containers[0].env"),
        (container(ports=[{}]), "containers[0].ports[0].containerPort"),
        (container(ports=[{"containerPort": 70000}]), "containers[0].ports[0].containerPort"),
        (container(resources={"limits": {"cpu": "-1"}}), "containers[0].resources.limits.cpu"),
        (container(resources={"limits": {"memory": "1Mi"}}), "resources.limits.memory"),
        (
            container(resources={"limits": {"cpu": 1}, "requests": {"cpu": 2}}),
            "containers[0].resources.requests.cpu",
        ),
        (container(securityContext={"runAsUser": -1}), "securityContext.runAsUser"),
        (container(securityContext={"runAsUser": True}), "securityContext.runAsUser"),
        (
            container(securityContext={"privileged": True, "allowPrivilegeEscalation": False}),
            "securityContext.allowPrivilegeEscalation",
        ),
        (container(volumeMounts=[{"name": "v", "mountPath": "/m"}]), "volumeMounts[0].name"),
        (
            container(volumeMounts=[{"hostPath": "/a/../b", "mountPath": "/m"}]),
            "volumeMounts[0].hostPath",
        ),
        (
            container(
                securityContext={
                    "seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}
                }
            ),
            "seccompProfile.localhostProfile",
        ),
        (container(lifecycle={"stopSignal": "SIGNOT"}), "lifecycle.stopSignal"),
        (container(terminationMessagePath="here"), "terminationMessagePath"),
        (container(resources={"limits": {"hugepages-2": "1"}}), "limits.hugepages-2"),
        (
            {"subdomain": "s" * 63, "setHostnameAsFQDN": True},
            "setHostnameAsFQDN",
        ),
        ({"hostname": "a.b"}, "hostname"),
        ({"hostPID": True, "shareProcessNamespace": True}, "shareProcessNamespace"),
        ({"dnsPolicy": "None"}, "dnsConfig.nameservers"),
        ({"dnsPolicy": "Mine"}, "dnsPolicy"),
        ({"securityContext": []}, "securityContext"),
        ({"containers": ["a"]}, "containers[0]"),
    ],
)
def test_a_faulty_field_is_named(pod: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        plan(**pod)
    assert not isinstance(caught.value, Unsupported)
    assert [cause.field for cause in caught.value.causes if cause.field.endswith(field)]
    assert field in caught.value.message


@pytest.mark.parametrize(
    ("pod", "field"),
    [
        ({"initContainers": [FINE]}, "initContainers"),
        ({"hostUsers": False}, "hostUsers"),
        ({"runtimeClassName": "gvisor"}, "runtimeClassName"),
        ({"volumes": [{"name": "v", "emptyDir": {}}]}, "volumes[0].emptyDir"),
        (container(envFrom=[{"secretRef": {"name": "s"}}]), "containers[0].envFrom"),
        (
            container(env=[{"name": "A", "valueFrom": {"fieldRef": {}}}]),
            "containers[0].env[0].valueFrom",
        ),
        (
            container(resources={"limits": {"nvidia.com/gpu": 1}}),
            "containers[0].resources.limits.nvidia.com/gpu",
        ),
        (
            container(resources={"limits": {"ephemeral-storage": "1Gi"}}),
            "containers[0].resources.limits.ephemeral-storage",
        ),
        (
            container(securityContext={"appArmorProfile": {"type": "RuntimeDefault"}}),
            "containers[0].securityContext.appArmorProfile.type",
        ),
        (
            {"securityContext": {"supplementalGroupsPolicy": "Strict"}},
            "securityContext.supplementalGroupsPolicy",
        ),
        (
            container(
                volumeMounts=[{"hostPath": "/a", "mountPath": "/b", "recursiveReadOnly": "Enabled"}]
            ),
            "containers[0].volumeMounts[0].recursiveReadOnly",
        ),
    ],
)
def test_what_is_more_than_a_runtime_can_do_is_refused_by_field(
    pod: dict[str, Any], field: str
) -> None:
    with pytest.raises(Unsupported) as caught:
        plan(**pod)
    assert [cause.field for cause in caught.value.causes] == [f"container_spec.{field}"]


def test_every_fault_is_told_once() -> None:
    with pytest.raises(InvalidSpec) as caught:
        plan(containers=[{"name": "a"}, {"name": "a", "image": "i"}], hostPID="yes")
    fields = [cause.field for cause in caught.value.causes]
    assert sorted(fields) == [
        "container_spec.containers[0].image",
        "container_spec.containers[1].name",
        "container_spec.hostPID",
    ]


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", ".", "a\0b"])
def test_a_label_that_names_the_log_folder_cannot_leave_it(name: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        plan(labels={"io.kubernetes.pod.name": name})
    assert caught.value.causes[0].field == "labels[io.kubernetes.pod.name]"


def test_the_shorthand_and_the_same_written_out_are_one_spec() -> None:
    short = RuntimeSpec("x", container_spec={"image": "i", "args": ["a"]})
    long = RuntimeSpec(
        "x", container_spec={"containers": [{"name": "main", "image": "i", "args": ["a"]}]}
    )
    plans = [plan_pod(spec, owner="o", log_dir=LOGS, host=HOST) for spec in (short, long)]
    assert plans[0].spec_hash == plans[1].spec_hash


def test_another_label_or_argument_is_another_spec() -> None:
    hashes = {
        plan().spec_hash,
        plan(labels={"a": "b"}).spec_hash,
        plan(**container(args=["x"])).spec_hash,
    }
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("localhost:5000/busybox", "Always"),
        ("localhost:5000/busybox:1", "IfNotPresent"),
        ("busybox@sha256:00", "IfNotPresent"),
    ],
)
def test_the_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert plan(**container(image=image)).containers[0].pull_policy == policy


def test_a_sandbox_is_known_again_from_what_the_runtime_keeps() -> None:
    made = plan(
        labels={"app": "web"},
        hostNetwork=True,
        shareProcessNamespace=True,
        terminationGracePeriodSeconds=7,
        **container(securityContext={"privileged": True}),
    ).sandbox
    status = cri.PodSandboxStatus(
        metadata=made.metadata, labels=made.labels, annotations=made.annotations
    )
    assert restore_sandbox(status, log_dir=LOGS, host=HOST) == made
    assert PodRecord.from_annotations(made.annotations).grace_seconds == 7


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', "null"])
def test_a_record_that_is_not_ours_is_empty(text: str) -> None:
    record = PodRecord.from_annotations({ANNOTATION_POD: text})
    assert record.containers == ()
    assert record.grace_seconds == 30


def test_nothing_of_the_containers_is_kept_in_the_sandbox() -> None:
    made = plan(**container(env=[{"name": "PASSWORD", "value": "hunter2"}]))
    assert "hunter2" not in str(made.sandbox)


def test_a_later_container_shares_its_pods_settings() -> None:
    made = plan(securityContext={"runAsUser": 5}, hostIPC=True)
    record = PodRecord.from_annotations(made.sandbox.annotations)
    later = plan_later_container(made.sandbox, record, FINE, attempt=3, host=HOST)
    assert later.config.metadata.attempt == 3
    assert later.config.log_path == "a/3.log"
    assert later.config.linux == made.containers[0].config.linux


def test_a_later_container_is_refused_by_field() -> None:
    made = plan()
    record = PodRecord.from_annotations(made.sandbox.annotations)
    with pytest.raises(InvalidSpec) as caught:
        plan_later_container(made.sandbox, record, {"name": "a"}, attempt=1, host=HOST)
    assert caught.value.causes[0].field == "container.image"


@pytest.mark.parametrize(
    ("context", "image", "problem"),
    [
        ({"runAsUser": 0}, cri.Image(), "container's runAsUser breaks non-root policy"),
        ({}, cri.Image(), "container has runAsNonRoot and image will run as root"),
        ({}, cri.Image(username="web"), "image has non-numeric user (web), cannot verify"),
        ({}, cri.Image(username="0"), "container has runAsNonRoot and image will run as root"),
    ],
)
def test_a_container_that_must_not_be_root_is_refused_when_it_is(
    context: dict[str, Any], image: cri.Image, problem: str
) -> None:
    made = plan(**container(securityContext={"runAsNonRoot": True, **context})).containers[0]
    with pytest.raises(InvalidSpec, match=re.escape(problem)) as caught:
        made.with_image(image)
    assert caught.value.message.endswith('(pod: "x_tandem(x)", container: a)')
    assert caught.value.details["reason"] == "CreateContainerConfigError"
    assert caught.value.causes[0].field.endswith("containers[0].securityContext.runAsNonRoot")


def test_a_sandbox_is_told_of_its_containers_to_come() -> None:
    coming = {
        "name": "a",
        "image": "i",
        "env": [{"name": "PASSWORD", "value": "hunter2"}],
        "ports": [{"containerPort": 80, "hostPort": 8080}],
        "resources": {"requests": {"cpu": "1"}},
        "securityContext": {"privileged": True},
    }
    made = plan(containers=[], plannedContainers=[coming], initContainers=[FINE])
    record = PodRecord.from_annotations(made.sandbox.annotations)
    assert made.containers == ()
    assert (record.sandbox_only, record.quality, record.privileged) == (True, "Burstable", True)
    assert made.sandbox.linux.security_context.privileged
    assert [item.host_port for item in made.sandbox.port_mappings] == [8080]
    assert "hunter2" not in str(made.sandbox)
    other = plan(containers=[], plannedContainers=[{**coming, "image": "j"}])
    assert other.spec_hash == made.spec_hash  # what is to come may change until it comes


def test_the_whole_hostname_has_the_subdomain() -> None:
    made = plan(hostname="web", subdomain="sites", setHostnameAsFQDN=True)
    assert made.sandbox.hostname == "web.sites.tandem.svc.cluster.local"
    assert plan(hostname="web", subdomain="sites").sandbox.hostname == "web"


def test_a_resolver_has_no_more_than_it_can_use() -> None:
    servers = [f"10.0.0.{number}" for number in range(5)]
    searches = [f"{number}{'x' * 200}.example" for number in range(40)]
    made = plan(dnsPolicy="None", dnsConfig={"nameservers": servers, "searches": searches})
    assert made.sandbox.dns_config.servers == servers[:3]
    assert 5 < len(made.sandbox.dns_config.searches) < 32
    assert len(" ".join(made.sandbox.dns_config.searches)) <= 2048


@pytest.mark.parametrize("kind", ["RuntimeDefault", "Unconfined"])
def test_apparmor_is_asked_for_where_the_host_has_it(kind: str) -> None:
    spec = container(securityContext={"appArmorProfile": {"type": kind}})
    host = replace(HOST, apparmor=True)
    made = plan_pod(RuntimeSpec("x", spec), owner="o", log_dir=LOGS, host=host).containers[0]
    profile = made.config.linux.security_context.apparmor
    assert cri.SecurityProfile.ProfileType.Name(profile.profile_type) == kind


def test_the_end_of_a_log_is_without_times_and_marks(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    stamp = "2026-01-02T03:04:05.000000006Z stdout"
    log.write_text(f"{stamp} F one\n{stamp} P half\n{stamp} F  a line\n{stamp} F \n")
    assert log_message(log) == "one\nhalf a line\n\n"
    log.write_text("".join(f"{stamp} F {number}\n" for number in range(1000)))
    assert log_message(log).splitlines() == [str(number) for number in range(920, 1000)]
    log.write_text(f"{stamp} P {'x' * 16000}\n" * 9 + f"{stamp} F end\n")
    assert log_message(log) == "x" * 2044 + "end\n"
    assert log_message(tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("name", "number"), [("SIGTERM", 15), ("SIGUSR1", 10), ("SIGRTMIN+3", 37), ("SIGRTMAX-1", 63)]
)
def test_signals_have_numbers(name: str, number: int) -> None:
    assert signal_number(name) == number


def test_a_container_that_is_not_root_may_start() -> None:
    made = plan(**container(securityContext={"runAsNonRoot": True})).containers[0]
    config = made.with_image(cri.Image(id="sha256:1", uid=cri.Int64Value(value=7)))
    assert config.image.image == "sha256:1"
    assert config.image.user_specified_image == "i"


def test_a_group_alone_keeps_the_images_user() -> None:
    made = plan(**container(securityContext={"runAsGroup": 9})).containers[0]
    config = made.with_image(cri.Image(uid=cri.Int64Value(value=7)))
    assert config.linux.security_context.run_as_user.value == 7
    named = made.with_image(cri.Image(username="web"))
    assert named.linux.security_context.run_as_username == "web"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("$(A)$(A)", "11"),
        ("$(B)", "$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A $ $(", "$A $ $("),
        ("$(A", "$(A"),
        ("$()", "$()"),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expected: str) -> None:
    assert expand(text, {"A": "1"}) == expected
