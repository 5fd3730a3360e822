"""What a Pod is told about itself."""

from __future__ import annotations

from typing import Any

import pytest

from tandem.control.pods.podfields import field, resource
from tandem.errors import InvalidSpec
from tandem.store import Key

POD: dict[str, Any] = {
    "metadata": {
        "name": "web",
        "namespace": "lab",
        "uid": "u1",
        "labels": {"b": "2", "a/b": "1"},
        "annotations": {"note": 'two\nlines, "quoted" \\ ü \x01'},
    },
    "spec": {
        "nodeName": "node-1",
        "containers": [
            {
                "name": "main",
                "resources": {
                    "limits": {"cpu": "1500m", "memory": "64Mi"},
                    "requests": {"ephemeral-storage": "1Gi", "hugepages-2Mi": "4Mi"},
                },
            },
            {"name": "other"},
        ],
        "initContainers": [{"name": "first", "resources": {"limits": {"cpu": "2"}}}],
    },
    "status": {
        "podIP": "10.0.0.7",
        "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}],
        "hostIP": "192.0.2.1",
    },
}
NODE = {"status": {"allocatable": {"cpu": "3500m", "memory": "8Gi", "ephemeral-storage": "9Gi"}}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.labels['a/b']", "1"),
        ("metadata.labels['none']", ""),
        ("metadata.labels", 'a/b="1"\nb="2"'),
        ("metadata.annotations", 'note="two\\nlines, \\"quoted\\" \\\\ ü \\x01"'),
        ("spec.nodeName", "node-1"),
        ("spec.serviceAccountName", "default"),
        ("status.podIP", "10.0.0.7"),
        ("status.podIPs", "10.0.0.7,fd00::7"),
        ("status.hostIPs", "192.0.2.1"),
    ],
)
def test_fields(path: str, value: str) -> None:
    assert field(POD, path) == value


def test_what_is_known_better_wins() -> None:
    assert field(POD, "status.podIP", {"status.podIP": "10.0.0.9"}) == "10.0.0.9"


@pytest.mark.parametrize(
    ("name", "divisor", "container", "value"),
    [
        ("limits.cpu", None, "", "2"),  # rounded up to whole cores
        ("limits.cpu", "0", "", "2"),
        ("limits.cpu", "1m", "", "1500"),
        ("limits.memory", "1", "", "67108864"),
        ("limits.memory", "1Mi", "", "64"),
        ("limits.memory", "1M", "", "68"),
        ("requests.memory", "1", "", "0"),
        ("requests.ephemeral-storage", "1Gi", "", "1"),
        ("requests.hugepages-2Mi", "1Mi", "", "4"),
        ("limits.cpu", "1", "first", "2"),
        # Without a limit, what the node has to give.
        ("limits.cpu", "1m", "other", "3500"),
        ("limits.memory", "1Gi", "other", "8"),
        ("limits.ephemeral-storage", "1Gi", "", "9"),
    ],
)
def test_resources(name: str, divisor: str | None, container: str, value: str) -> None:
    reference = {"resource": name, "divisor": divisor, "containerName": container}
    objects = {Key("nodes", "", "node-1"): NODE}
    assert resource(POD, POD["spec"]["containers"][0], reference, objects.get) == value


def test_a_container_that_is_not_there() -> None:
    reference = {"resource": "limits.cpu", "containerName": "no"}
    with pytest.raises(InvalidSpec, match="container no not found"):
        resource(POD, {}, reference, lambda _: None)
