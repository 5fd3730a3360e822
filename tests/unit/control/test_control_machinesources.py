"""What the volumes of a machine are made of."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tandem.api.kind import Doc
from tandem.control.machinesources import MachineSources
from tandem.control.pods.volumes.sources import MissingSource
from tandem.errors import Unsupported
from tandem.host.tokens import Tokens
from tandem.store import Key

METADATA = {"name": "vm", "namespace": "ns", "uid": "u-1", "labels": {"app": "db"}}
PVC = "persistentvolumeclaims"


def make(tmp_path: Path, **objects: Doc) -> MachineSources:
    """Objects by ``resource/name``; the volumes are in no namespace."""

    def lookup(key: Key) -> Doc | None:
        return objects.get(f"{key.resource}_{key.name}")

    vmi = {"metadata": METADATA, "spec": {"volumes": []}}
    return MachineSources(vmi, lookup, Tokens(tmp_path))


SECRET = {"data": {"key": base64.b64encode(b"\0\xff").decode()}}
MAP = {"data": {"a": "1"}, "binaryData": {"b": base64.b64encode(b"2").decode()}}


@pytest.mark.parametrize(
    ("volume", "files"),
    [
        ({"secret": {"secretName": "s"}}, {"key": b"\0\xff"}),
        ({"configMap": {"name": "m"}}, {"a": b"1", "b": b"2"}),
        ({"configMap": {"name": "none", "optional": True}}, {}),
        ({"sysprep": {"secret": {"name": "s"}}}, {"key": b"\0\xff"}),
        ({"sysprep": {"configMap": {"name": "m"}}}, {"a": b"1", "b": b"2"}),
        (
            {"downwardAPI": {"fields": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
            ]}},
            {"labels": b'app="db"', "name": b"vm"},
        ),
    ],
)  # fmt: skip
def test_a_volume_holds_what_its_objects_say(
    tmp_path: Path, volume: dict[str, Any], files: dict[str, bytes]
) -> None:
    sources = make(tmp_path, secrets_s=SECRET, configmaps_m=MAP)
    assert sources.files({"name": "v", **volume}) == files


def test_a_service_account_comes_with_its_token(tmp_path: Path) -> None:
    account = {"metadata": {"name": "robot", "uid": "sa-1"}}
    certificate = {"data": {"ca.crt": "PEM"}}
    sources = make(
        tmp_path, serviceaccounts_robot=account, **{"configmaps_kube-root-ca.crt": certificate}
    )
    files = sources.files({"name": "v", "serviceAccount": {"serviceAccountName": "robot"}})
    assert set(files) == {"token", "ca.crt", "namespace"}
    assert files["namespace"] == b"ns"
    assert files["token"].count(b".") == 2


@pytest.mark.parametrize(
    ("volume", "key"),
    [
        ({"secret": {"secretName": "no"}}, Key("secrets", "ns", "no")),
        ({"configMap": {"name": "no"}}, Key("configmaps", "ns", "no")),
        (
            {"serviceAccount": {"serviceAccountName": "no"}},
            Key("serviceaccounts", "ns", "no"),
        ),
    ],
)
def test_what_is_missing_says_what_to_wait_for(
    tmp_path: Path, volume: dict[str, Any], key: Key
) -> None:
    with pytest.raises(MissingSource) as caught:
        make(tmp_path).files({"name": "v", **volume})
    assert caught.value.key == key


def test_a_claim_is_a_directory_of_this_host(tmp_path: Path) -> None:
    bound: Doc = {
        "metadata": {"name": "c", "namespace": "ns"},
        "spec": {"volumeName": "pv", "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}},
    }
    volume: Doc = {"metadata": {"name": "pv"}, "spec": {"local": {"path": "/srv/pv"}}}
    sources = make(tmp_path, **{f"{PVC}_c": bound, "persistentvolumes_pv": volume})
    found = sources.claim("c")
    assert (found.path, found.size) == (Path("/srv/pv"), 1 << 30)
    with pytest.raises(MissingSource) as caught:
        sources.claim("other")
    assert caught.value.key == Key(PVC, "ns", "other")
    bound["status"] = {"phase": "Pending"}
    with pytest.raises(MissingSource, match="PVC is not bound"):
        sources.claim("c")
    bound["status"] = {"phase": "Bound"}
    volume["spec"] = {"nfs": {}}
    with pytest.raises(Unsupported, match="no directory of this host"):
        sources.claim("c")
