"""Objects as Kubernetes' Go clients send them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.api.protobuf import decode_object
from tandem.errors import BadRequest

# What kubectl 1.32 sends for: create configmap x --from-literal=a=b, and create namespace foo.
CONFIG_MAP = bytes.fromhex(
    "6b3873000a0f0a0276311209436f6e6669674d6170121b0a110a017812001a0022002a003200380042001206"
    "0a0161120162" + "1a002200"
)
NAMESPACE = bytes.fromhex(
    "6b3873000a0f0a02763112094e616d657370616365121b0a130a03666f6f12001a0022002a0032003800420012001a"
    "020a00" + "1a002200"
)


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def envelope(kind: str, raw: bytes, api_version: str = "v1") -> bytes:
    meta = field(1, api_version.encode()) + field(2, kind.encode())
    return b"k8s\0" + field(1, meta) + field(2, raw) + field(3, b"") + field(4, b"")


def test_what_kubectl_sends_is_read() -> None:
    assert decode_object(CONFIG_MAP) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "x"},
        "data": {"a": "b"},
    }
    assert decode_object(NAMESPACE)["metadata"] == {"name": "foo"}


def test_every_shape_of_field_becomes_what_json_has() -> None:
    time = field(1, 1_767_225_600) + field(2, 0)
    metadata = field(1, b"p") + field(8, time) + field(7, 0) + field(10, 0)
    port = field(1, b"web") + field(2, 0) + field(3, 8080)
    cpu = field(1, b"cpu") + field(2, field(1, b"500m"))
    probe = (
        field(1, field(2, field(1, b"/") + field(2, field(1, 1) + field(3, b"web"))))
        + field(2, 0)
        + field(3, 2)
    )
    container = (
        field(1, b"c")
        + field(3, b"sh")
        + field(3, b"-c")
        + field(6, port)
        + field(8, field(2, cpu))
        + field(10, probe)
        + field(18, 0)
    )
    volume = field(1, b"v") + field(2, field(2, b""))
    user = field(2, (1 << 64) - 1)
    spec = field(1, volume) + field(2, container) + field(4, 0) + field(14, user)
    pod = decode_object(envelope("Pod", field(1, metadata) + field(2, spec)))
    assert pod["metadata"] == {
        "name": "p",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "deletionGracePeriodSeconds": 0,
    }
    assert pod["spec"] == {
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [
            {
                "name": "c",
                "command": ["sh", "-c"],
                "ports": [{"name": "web", "containerPort": 8080}],
                "resources": {"requests": {"cpu": "500m"}},
                "livenessProbe": {"httpGet": {"path": "/", "port": "web"}, "timeoutSeconds": 2},
                "tty": False,
            }
        ],
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsUser": -1},
    }


def test_bytes_are_base64_and_embedded_messages_lie_flat() -> None:
    secret = decode_object(envelope("Secret", field(2, field(1, b"k") + field(2, b"\xff\x00"))))
    assert secret["data"] == {"k": base64.b64encode(b"\xff\x00").decode()}


def test_options_of_a_delete_are_read() -> None:
    options = decode_object(envelope("DeleteOptions", field(1, 5), "meta.k8s.io/v1"))
    assert options["gracePeriodSeconds"] == 5


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"k8s\0",
        b"k8s\0\xff",
        CONFIG_MAP[:-6],
        envelope("Gadget", b"", "apps/v1"),
        envelope("Pod", field(1, 7)),
        envelope("Pod", b"\x0f"),
        envelope("Pod", b"\xff" * 12),
        envelope("Pod", field(1, field(8, field(1, 1 << 62)))),
    ],
)
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_object(data)


@given(st.binary(max_size=40))
def test_no_bytes_do_worse_than_a_bad_request(raw: bytes) -> None:
    try:
        decode_object(envelope("Pod", raw))
    except BadRequest:
        return
