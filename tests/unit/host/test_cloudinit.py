"""The files of a NoCloud seed."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tandem.errors import InvalidSpec
from tandem.host import cloudinit


def _files(source: dict[str, Any], **secrets: dict[str, bytes]) -> dict[str, bytes]:
    return cloudinit.no_cloud_files(
        source, field="spec.volumes[0].cloudInitNoCloud", instance_id="i-1", hostname="vm",
        secrets=secrets,
    )  # fmt: skip


def test_the_instance_is_named_in_the_meta_data() -> None:
    files = _files({"userData": "#cloud-config"})
    assert json.loads(files["meta-data"]) == {"instance-id": "i-1", "local-hostname": "vm"}
    assert files["user-data"] == b"#cloud-config"
    assert "network-config" not in files


def test_data_may_be_base64() -> None:
    encoded = base64.b64encode(b"\0\xff").decode()
    files = _files({"userDataBase64": encoded, "networkDataBase64": encoded})
    assert files["user-data"] == files["network-config"] == b"\0\xff"


def test_network_data_alone_has_empty_user_data() -> None:
    assert _files({"networkData": "version: 2"})["user-data"] == b""


@pytest.mark.parametrize("key", ["userdata", "userData"])
def test_data_may_be_in_a_secret(key: str) -> None:
    source = {"secretRef": {"name": "s"}, "networkDataSecretRef": {"name": "n"}}
    assert cloudinit.secret_names(source) == ["s", "n"]
    files = _files(source, s={key: b"user"}, n={"networkdata": b"net"})
    assert (files["user-data"], files["network-config"]) == (b"user", b"net")


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ({"userDataBase64": "%%%"}, "spec.volumes[0].cloudInitNoCloud.userDataBase64"),
        ({"secretRef": {"name": "s"}}, "spec.volumes[0].cloudInitNoCloud.secretRef.name"),
    ],
)
def test_what_cannot_be_read_is_named(source: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        _files(source, s={"else": b""})
    assert [cause.field for cause in caught.value.causes] == [field]
