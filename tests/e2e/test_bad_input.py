"""What users get wrong: each gets an answer that names field, value and rule, and changes nothing."""

from __future__ import annotations

import json

import pytest

from tests import world
from tests.daemon import Daemon

pytestmark = [pytest.mark.containerd, pytest.mark.libvirt]


def pod(**changes: object) -> str:
    spec = {"containers": [{"name": "main", "image": world.BUSYBOX}]}
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}
    return json.dumps(document | changes)


def machine(domain: dict[str, object], **metadata: object) -> str:
    return json.dumps(
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachine",
            "metadata": {"name": "one", **metadata},
            "spec": {"runStrategy": "Always", "template": {"spec": {"domain": domain}}},
        }
    )


MEMORY: dict[str, object] = {"memory": {"guest": "64Mi"}}


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        pytest.param("a: [b", ["yaml"], id="malformed YAML"),
        pytest.param('{"a": ', ["parsing"], id="malformed JSON"),
        pytest.param(
            '{"apiVersion": "v1", "kind": "Podd", "metadata": {"name": "a"}}',
            ["Podd"],
            id="unknown kind",
        ),
        pytest.param(pod(metadata={"name": "One_"}), ["metadata.name", "One_"], id="name"),
        pytest.param(pod(metadata={"name": "../../etc"}), ["../../etc"], id="path in a name"),
        pytest.param(
            pod(spec={"containers": []}), ["spec.containers", "Required"], id="no containers"
        ),
        pytest.param(
            pod(spec={"containers": [{"name": "main"}]}),
            ["spec.containers[0].image", "Required"],
            id="no image",
        ),
        pytest.param(
            pod(metadata={"name": "one", "labels": {"a": "<b>"}}), ["<b>"], id="XML in a label"
        ),
        pytest.param(
            machine({"memory": {"guest": "lots"}}), ["memory"], id="quantity that is none"
        ),
    ],
)
def test_it_is_refused_by_name_and_nothing_is_made(
    daemon: Daemon, namespace: str, manifest: str, words: list[str]
) -> None:
    done = daemon.kubectl("create", "-n", namespace, "-f", "-", stdin=manifest, check=False)
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    assert all(word.lower() in said.lower() for word in words), said
    assert daemon.get("pods,vms,vmis", "-n", namespace)["items"] == []


def test_more_memory_than_the_host_has_is_told_as_by_a_scheduler_and_nothing_is_started(
    daemon: Daemon, namespace: str
) -> None:
    manifest = machine({"resources": {"requests": {"memory": "900Ti"}}})
    daemon.kubectl("create", "-n", namespace, "-f", "-", stdin=manifest)
    path = "jsonpath={.status.phase} {.status.conditions[?(@.type=='PodScheduled')].message}"
    words = ("get", "vmi", "one", "-n", namespace, "-o", path)
    expected = "Scheduling 0/1 nodes are available: 1 Insufficient memory."
    daemon.eventually(lambda: daemon.kubectl(*words, check=False).stdout == expected)


def test_a_mistyped_field_is_refused_under_strict_validation(
    daemon: Daemon, namespace: str
) -> None:
    manifest = pod(spec={"containers": [{"name": "main", "image": "x", "imagee": "y"}]})
    words = ("create", "-n", namespace, "-f", "-", "--validate=strict")
    done = daemon.kubectl(*words, stdin=manifest, check=False)
    assert done.returncode != 0
    assert "imagee" in done.stderr


def test_user_data_with_markup_arrives_as_it_is(daemon: Daemon, namespace: str) -> None:
    tricky = '#!/bin/sh\necho \'<&"]]>\' "$(cat /etc/hostname 2>/dev/null)../../etc/passwd"\n'
    document = json.loads(machine(MEMORY, labels={"app": "one"}, annotations={"a": "<&>\"'"}))
    document["spec"]["template"]["spec"]["volumes"] = [
        {"name": "system", "containerDisk": {"image": world.MACHINE}},
        {"name": "seed", "cloudInitNoCloud": {"userData": tricky}},
    ]
    document["spec"]["template"]["spec"]["domain"] = {"memory": {"guest": "128Mi"}}
    daemon.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(document))
    daemon.eventually(
        lambda: (
            '<&"]]>'
            in daemon.tandem("logs", "vm/one", "--namespace", namespace, check=False).stdout
        )
    )


def test_nobody_gets_in_without_a_certificate(daemon: Daemon) -> None:
    config = json.loads(daemon.kubeconfig.read_text())
    config["users"] = [{"name": config["users"][0]["name"], "user": {}}]
    anonymous = daemon.folder / "anonymous"
    anonymous.write_text(json.dumps(config))
    done = daemon.kubectl(f"--kubeconfig={anonymous}", "get", "pods", check=False)
    assert done.returncode != 0
    assert daemon.kubeconfig.stat().st_mode & 0o777 == 0o600
