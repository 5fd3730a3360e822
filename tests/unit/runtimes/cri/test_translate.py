"""What is refused, by which field; the rest of the translation is held by golden files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tandem.errors import InvalidSpec, Unsupported
from tandem.runtimes.adapter import RuntimeSpec
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.expand import expand
from tandem.runtimes.cri.translate import (
    ANNOTATION_POD,
    HostFacts,
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
            container(securityContext={"seccompProfile": {"type": "Localhost"}}),
            "containers[0].securityContext.seccompProfile.type",
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
        ({"runAsUser": 0}, cri.Image(), "would run as root"),
        ({}, cri.Image(), "image runs as root"),
        ({}, cri.Image(username="web"), "'web' is a name"),
        ({}, cri.Image(username="0"), "image runs as root"),
    ],
)
def test_a_container_that_must_not_be_root_is_refused_when_it_is(
    context: dict[str, Any], image: cri.Image, problem: str
) -> None:
    made = plan(**container(securityContext={"runAsNonRoot": True, **context})).containers[0]
    with pytest.raises(InvalidSpec, match=problem) as caught:
        made.with_image(image)
    assert caught.value.causes[0].field.endswith("containers[0].securityContext.runAsNonRoot")


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
