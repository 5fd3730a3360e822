"""Every field of a PodSpec that the API knows is acted upon, warned about, or refused by its path."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from tandem.api import schema
from tandem.api.kind import Doc
from tandem.api.kinds import POD
from tandem.api.kinds.pod_support import POD_SPEC
from tandem.api.kinds.support import Leaf, Tree
from tandem.api.rest import prepare_create
from tandem.errors import InvalidSpec

CONTAINER = {
    "resources.claims",
    "securityContext.seLinuxOptions",
    "securityContext.windowsOptions",
    "volumeDevices",
}
"""What is refused of a container."""

VOLUMES = {
    *("awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "fc"),
    *("flexVolume", "flocker", "gcePersistentDisk", "gitRepo", "glusterfs", "iscsi", "nfs"),
    *("photonPersistentDisk", "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos"),
    "vsphereVolume",
    "projected.sources.clusterTrustBundle",
    "ephemeral.volumeClaimTemplate.spec.dataSource",
    "ephemeral.volumeClaimTemplate.spec.dataSourceRef",
    "ephemeral.volumeClaimTemplate.spec.volumeAttributesClassName",
}
"""What is refused of a volume."""

REFUSED = {
    "resourceClaims",
    "resources",
    "securityContext.seLinuxChangePolicy",
    "securityContext.seLinuxOptions",
    "securityContext.windowsOptions",
    *(f"volumes.{name}" for name in VOLUMES),
    *(
        f"{list_}.{name}"
        for list_ in ("containers", "initContainers", "ephemeralContainers")
        for name in CONTAINER
    ),
}
"""Looked through one by one: nothing else of a PodSpec is refused by being there."""


def refused(node: schema.Definition, tree: Tree, path: str) -> Iterator[str]:
    """The paths at which the schema has a field and the table has none."""
    if name := schema.reference(node):
        node = schema.definition(name)
    if node.get("type") == "array":
        yield from refused(node["items"], tree, path)
    elif not isinstance(tree, Leaf):
        assert "properties" in node, f"{path} has no fields for the table to name"
        unknown = set(tree) - set(node["properties"])
        assert not unknown, f"{path} has no {unknown}"
        for field, child in node["properties"].items():
            below = f"{path}.{field}" if path else field
            if field in tree:
                yield from refused(child, tree[field], below)
            else:
                yield below


def test_the_whole_schema_has_been_looked_through() -> None:
    found = set(refused({"$ref": "#/definitions/io.k8s.api.core.v1.PodSpec"}, POD_SPEC, ""))
    assert found == REFUSED


def pod(**fields: Any) -> Doc:
    return {"containers": [{"name": "main", "image": "demo:1"}], **fields}


def main(**fields: Any) -> Doc:
    return {"containers": [{"name": "main", "image": "demo:1", **fields}]}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (pod(hostUsers=False), "spec.hostUsers"),
        (pod(os={"name": "windows"}), "spec.os.name"),
        (pod(resourceClaims=[{"name": "gpu", "resourceClaimName": "a"}]), "spec.resourceClaims"),
        (pod(resources={"limits": {"cpu": "1"}}), "spec.resources"),
        (
            pod(securityContext={"seLinuxOptions": {"level": "s0"}}),
            "spec.securityContext.seLinuxOptions",
        ),
        (
            main(securityContext={"windowsOptions": {"hostProcess": True}}),
            "spec.containers[0].securityContext.windowsOptions",
        ),
        (
            main(volumeDevices=[{"name": "a", "devicePath": "/dev/a"}]),
            "spec.containers[0].volumeDevices",
        ),
        (
            main(resources={"claims": [{"name": "gpu"}]}),
            "spec.containers[0].resources.claims",
        ),
        (pod(volumes=[{"name": "a", "nfs": {"server": "b", "path": "/"}}]), "spec.volumes[0].nfs"),
        (pod(volumes=[{"name": "a", "flocker": {}}]), "spec.volumes[0].flocker"),
        (
            pod(volumes=[{"name": "a", "emptyDir": {"medium": "HugePages"}}]),
            "spec.volumes[0].emptyDir.medium",
        ),
        (
            pod(
                volumes=[
                    {
                        "name": "a",
                        "projected": {"sources": [{"clusterTrustBundle": {"path": "a"}}]},
                    }
                ]
            ),
            "spec.volumes[0].projected.sources[0].clusterTrustBundle",
        ),
    ],
)
def test_what_is_not_done_here_is_refused_by_its_path(spec: Doc, field: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        prepare_create(POD, {"metadata": {"name": "web"}, "spec": spec}, namespace="default")
    found = {cause.field: cause.message for cause in caught.value.causes}
    assert "not supported by Tandem" in found.get(field, ""), found


def test_what_has_no_effect_is_taken_with_a_warning() -> None:
    policy = [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]
    doc: Doc = {"metadata": {"name": "web"}, "spec": main(resizePolicy=policy)}
    warnings = prepare_create(POD, copy.deepcopy(doc), namespace="default").warnings
    assert warnings == (
        "spec.containers[0].resizePolicy has no effect: containers are not resized in place",
    )
