"""Volumes of Pods: made, mounted, kept true, taken away. On the real file system, without containers."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tandem.api.kind import Doc
from tandem.api.kinds import REGISTRY
from tandem.control.changes import Changes
from tandem.control.context import Context
from tandem.control.pods.volumes import MountFailed, VolumeNotReady, Volumes, limits
from tandem.control.recorder import Recorder
from tandem.control.runtime import Runtime
from tandem.host.volumes import mounts_below
from tandem.runtimes.memory import MemoryAdapter, MemoryRuntime
from tandem.store import Key, Store
from tests.unit.control.plant import NODE

UID = "11111111-aaaa"


class World:
    """A store, its changes, and the volumes of Pods in a folder."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.root = folder / "pods"
        self.open()

    def open(self) -> None:
        """What a daemon has as it starts."""
        self.changes = Changes(self.store, [kind.resource for kind in REGISTRY])
        recorder = Recorder(self.store, self.changes, host="node-1")
        context = Context(self.store, REGISTRY, self.changes, recorder, NODE)
        self.volumes = Volumes(context, Runtime(MemoryAdapter(MemoryRuntime())), self.root)
        self.changes.start()

    async def close(self) -> None:
        await self.volumes.close()
        await self.changes.close()

    async def put(self, resource: str, name: str, **fields: Any) -> Doc:
        doc = {"metadata": {"name": name, "namespace": "lab", "uid": f"{resource}-{name}"}}
        return await self.store.create(Key(resource, "lab", name), {**doc, **fields})

    async def change(self, resource: str, name: str, **fields: Any) -> None:
        def alter(doc: Doc) -> Doc:
            return doc | fields

        await self.store.mutate(Key(resource, "lab", name), alter)

    async def pod(self, *volumes: Doc, container: Doc | None = None, **spec: Any) -> Doc:
        doc = {
            "metadata": {"name": "web", "namespace": "lab", "uid": UID, "labels": {"app": "shop"}},
            "spec": {
                "nodeName": "node-1",
                "containers": [{"name": "main", "image": "demo:1", **(container or {})}],
                "volumes": list(volumes),
                **spec,
            },
            "status": {"phase": "Running"},
        }
        return await self.store.create(Key("pods", "lab", "web"), doc)

    def path(self, kind: str, name: str) -> Path:
        return self.root / UID / "volumes" / f"kubernetes.io~{kind}" / name

    async def mounts(self, pod: Doc, **env: str) -> dict[str, Doc]:
        """By the path in the container."""
        container = pod["spec"]["containers"][0]
        found = await self.volumes.mounts(pod, container, env=env, addresses=["10.0.0.7"])
        return {mount["mountPath"]: mount for mount in found}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = await Store.open(None)
    world = World(store, tmp_path)
    yield world
    await world.volumes.tear_down(UID)
    await world.close()
    await store.close()
    assert mounts_below(tmp_path) == []


async def eventually(look: Callable[[], object]) -> None:
    """Wait until ``look`` is true."""
    deadline = time.monotonic() + 20
    while not look():
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.01)


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def encoded(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


CONFIG = {"name": "config", "configMap": {"name": "settings"}}


async def test_each_kind_holds_what_it_says(world: World) -> None:
    await world.put(
        "configmaps", "settings", data={"a": "1", "b": "2"}, binaryData={"c": encoded("3")}
    )
    await world.put("secrets", "login", data={"user": encoded("me"), "password": encoded("x")})
    await world.put("serviceaccounts", "robot")
    items = [{"key": "user", "path": "deep/user", "mode": 0o440}]
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    reference = {"containerName": "main", "resource": "limits.cpu", "divisor": "1m"}
    pod = await world.pod(
        CONFIG,
        {"name": "login", "secret": {"secretName": "login", "items": items, "defaultMode": 0o400}},
        {
            "name": "about",
            "downwardAPI": {"items": [labels, {"path": "cpu", "resourceFieldRef": reference}]},
        },
        {
            "name": "all",
            "projected": {
                "sources": [
                    {"configMap": {"name": "settings", "items": [{"key": "a", "path": "x/a"}]}},
                    {"secret": {"name": "login"}},
                    {"secret": {"name": "no", "optional": True}},
                    {"downwardAPI": {"items": [labels]}},
                    {"serviceAccountToken": {"path": "token", "audience": "vault"}},
                ]
            },
        },
        container={"resources": {"limits": {"cpu": "1500m"}}},
        serviceAccountName="robot",
        automountServiceAccountToken=False,
    )
    await world.volumes.set_up(pod)
    config = world.path("configmap", "config")
    assert [(config / name).read_bytes() for name in "abc"] == [b"1", b"2", b"3"]
    user = world.path("secret", "login") / "deep" / "user"
    assert (user.read_text(), user.stat().st_mode & 0o777) == ("me", 0o440)
    assert not (world.path("secret", "login") / "password").exists()
    about = world.path("downward-api", "about")
    assert (text(about / "labels"), text(about / "cpu")) == ('app="shop"', "1500")
    everything = world.path("projected", "all")
    assert text(everything / "x" / "a") == "1"
    assert text(everything / "password") == "x"
    assert text(everything / "token").count(".") == 2
    in_memory = [str(path) for path in (about, everything, world.path("secret", "login"))]
    assert sorted(mounts_below(world.root)) == sorted(in_memory)

    token = text(everything / "token")
    await world.volumes.set_up(pod)
    assert text(everything / "token") == token
    await world.volumes.tear_down(UID)
    await world.volumes.tear_down(UID)
    assert os.listdir(world.root) == []


@pytest.mark.parametrize(
    ("volume", "message", "key"),
    [
        (CONFIG, 'configmap "settings" not found', Key("configmaps", "lab", "settings")),
        (
            {"name": "config", "secret": {"secretName": "s"}},
            'secret "s" not found',
            Key("secrets", "lab", "s"),
        ),
        (
            {
                "name": "config",
                "configMap": {"name": "have", "items": [{"key": "no", "path": "x"}]},
            },
            "configmap references non-existent config key: no",
            Key("configmaps", "lab", "have"),
        ),
        (
            {"name": "config", "hostPath": {"path": "/dev/null", "type": "Directory"}},
            "hostPath type check failed: /dev/null is not a directory",
            None,
        ),
        (
            {"name": "config", "persistentVolumeClaim": {"claimName": "c"}},
            'persistentvolumeclaim "c" not found',
            Key("persistentvolumeclaims", "lab", "c"),
        ),
        ({"name": "config", "nfs": {}}, "volumes of the kind nfs are not supported", None),
    ],
)
async def test_what_is_missing_is_named(
    world: World, volume: Doc, message: str, key: Key | None
) -> None:
    await world.put("configmaps", "have", data={"a": "1"})
    pod = await world.pod(volume)
    with pytest.raises(VolumeNotReady) as caught:
        await world.volumes.set_up(pod)
    assert str(caught.value) == f'MountVolume.SetUp failed for volume "config" : {message}'
    assert caught.value.key == key
    assert caught.value.reason == "FailedMount"


async def test_what_is_optional_may_be_missing_and_come_later(world: World) -> None:
    pod = await world.pod({"name": "config", "configMap": {"name": "settings", "optional": True}})
    await world.volumes.set_up(pod)
    path = world.path("configmap", "config")
    assert not (path / "a").exists()
    await world.put("configmaps", "settings", data={"a": "1"})
    await eventually(lambda: text(path / "a") == "1")


async def test_updates_reach_a_running_pod(world: World) -> None:
    await world.put("configmaps", "settings", data={"a": "1"})
    await world.put("secrets", "login", data={"user": encoded("me")})
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    pod = await world.pod(
        CONFIG,
        {"name": "login", "secret": {"secretName": "login"}},
        {"name": "about", "downwardAPI": {"items": [labels]}},
    )
    await world.volumes.set_up(pod)
    await world.change("configmaps", "settings", data={"a": "2", "b": "new"})
    await world.change("secrets", "login", data={"user": encoded("you")})
    await world.change("pods", "web", metadata=pod["metadata"] | {"labels": {"app": "bank"}})
    config, login = world.path("configmap", "config"), world.path("secret", "login")
    await eventually(lambda: text(config / "a") == "2" and text(config / "b") == "new")
    await eventually(lambda: text(login / "user") == "you")
    await eventually(lambda: text(world.path("downward-api", "about") / "labels") == 'app="bank"')
    # What is taken away while it is in use stays, also for a container that starts again.
    await world.store.delete(Key("configmaps", "lab", "settings"))
    await world.volumes.set_up(pod)
    assert text(config / "a") == "2"


async def test_a_later_daemon_brings_volumes_up_to_date(world: World) -> None:
    await world.put("configmaps", "settings", data={"a": "1"})
    await world.volumes.set_up(await world.pod(CONFIG))
    await world.close()
    await world.change("configmaps", "settings", data={"a": "2"})
    world.open()
    path = world.path("configmap", "config")
    await eventually(lambda: text(path / "a") == "2")
    await world.change("configmaps", "settings", data={"a": "3"})
    await eventually(lambda: text(path / "a") == "3")


async def test_an_update_that_fails_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.put("configmaps", "settings", data={"a": "1"})
    await world.volumes.set_up(await world.pod(CONFIG))
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def full(*_: Any, **__: Any) -> bool:
        loop.call_soon_threadsafe(failed.set)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tandem.control.pods.volumes.work.write_files", full)
        await world.change("configmaps", "settings", data={"a": "2"})
        await failed.wait()
    path = world.path("configmap", "config")
    await eventually(lambda: text(path / "a") == "2")


async def test_mounts_name_what_to_mount(world: World, tmp_path: Path) -> None:
    await world.put("configmaps", "settings", data={"a": "1"})
    mounts: list[Doc] = [
        {"name": "data", "mountPath": "/data", "mountPropagation": "HostToContainer"},
        {"name": "data", "mountPath": "/logs", "subPathExpr": "$(POD)/$$x"},
        {"name": "config", "mountPath": "/a", "subPath": "a"},
        {"name": "host", "mountPath": "/host", "readOnly": True},
    ]
    (tmp_path / "host").mkdir()
    pod = await world.pod(
        {"name": "data", "emptyDir": {}},
        CONFIG,
        {"name": "host", "hostPath": {"path": str(tmp_path / "host")}},
        container={"volumeMounts": mounts},
        hostAliases=[{"ip": "192.0.2.1", "hostnames": ["db", "db.lab"]}],
        subdomain="shop",
    )
    await world.volumes.set_up(pod)
    found = await world.mounts(pod, NAME="web", POD="$(NAME)-0")
    data = world.path("empty-dir", "data")
    assert found["/data"] == mounts[0] | {"hostPath": str(data)}
    assert data.stat().st_mode & 0o777 == 0o777
    assert (data / "web-0" / "$x").is_dir()
    parts = world.root / UID / "volume-subpaths"
    assert found["/logs"]["hostPath"] == str(parts / "data" / "main" / "1")
    assert found["/a"] == {
        "name": "config",
        "mountPath": "/a",
        "hostPath": str(parts / "config" / "main" / "2"),
        "readOnly": True,
    }
    assert found["/host"] == mounts[3] | {"hostPath": str(tmp_path / "host")}
    hosts = Path(found["/etc/hosts"]["hostPath"])
    assert text(hosts).startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
    assert text(hosts).endswith(
        "10.0.0.7\tweb.shop.lab.svc.cluster.local\tweb\n"
        "\n# Entries added by HostAliases.\n192.0.2.1\tdb\tdb.lab\n"
    )


async def test_a_container_with_hosts_of_its_own_keeps_them(world: World) -> None:
    mount = {"name": "data", "mountPath": "/etc/hosts", "subPath": "hosts"}
    pod = await world.pod({"name": "data", "emptyDir": {}}, container={"volumeMounts": [mount]})
    await world.volumes.set_up(pod)
    assert list(await world.mounts(pod)) == ["/etc/hosts"]
    assert not (world.root / UID / "etc-hosts").exists()


async def test_the_hosts_of_the_hosts_network(world: World) -> None:
    aliases = [{"ip": "192.0.2.1", "hostnames": ["db"]}]
    pod = await world.pod(hostNetwork=True, hostAliases=aliases)
    found = await world.mounts(pod)
    hosts = text(Path(found["/etc/hosts"]["hostPath"]))
    assert hosts.startswith("# Kubernetes-managed hosts file (host network).\n")
    assert text(Path("/etc/hosts")) in hosts
    assert hosts.endswith("192.0.2.1\tdb\n")


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ({"subPathExpr": "$(NO)"}, 'missing value for "NO"'),
        ({"subPathExpr": "$(UP)/x"}, "unable to provision SubPath `../x`: must not contain '..'"),
        ({"subPathExpr": "$(ROOT)"}, "error SubPath `/etc` must not be an absolute path"),
        (
            {"subPath": "out/x"},
            'failed to prepare subPath for volumeMount "data" of container "main"',
        ),
        ({"name": "no"}, 'cannot find volume "no" to mount into container "main"'),
    ],
)
async def test_parts_that_are_refused(world: World, mount: Doc, message: str) -> None:
    mounts = [{"name": "data", "mountPath": "/x", **mount}]
    pod = await world.pod({"name": "data", "emptyDir": {}}, container={"volumeMounts": mounts})
    await world.volumes.set_up(pod)
    (world.path("empty-dir", "data") / "out").symlink_to("/etc")
    with pytest.raises(MountFailed) as caught:
        await world.mounts(pod, UP="..", ROOT="/etc")
    assert str(caught.value) == message


async def test_a_pod_with_an_account_of_its_own_gets_its_token(world: World) -> None:
    await world.put("serviceaccounts", "robot")
    await world.put("configmaps", "kube-root-ca.crt", data={"ca.crt": "CA"})
    pod = await world.pod(serviceAccountName="robot")
    await world.volumes.set_up(pod)
    mount = (await world.mounts(pod))["/var/run/secrets/kubernetes.io/serviceaccount"]
    folder = Path(mount["hostPath"])
    names = [name for name in os.listdir(folder) if not name.startswith("..")]
    assert sorted(names) == ["ca.crt", "namespace", "token"]
    assert mount["readOnly"]
    declined = pod | {"spec": pod["spec"] | {"automountServiceAccountToken": False}}
    plain = pod | {"spec": pod["spec"] | {"serviceAccountName": "default"}}
    for other in (declined, plain):
        assert list(await world.mounts(other)) == ["/etc/hosts"]


async def test_a_volume_beyond_its_limit_is_told_of_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CHECK_SECONDS", 0.01)
    told: list[tuple[str, str]] = []
    world.volumes.on_limit(lambda uid, message: told.append((uid, message)))
    pod = await world.pod(
        {"name": "data", "emptyDir": {"sizeLimit": "1Mi"}},
        {"name": "fast", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    )
    await world.volumes.set_up(pod)
    (world.path("empty-dir", "data") / "small").write_bytes(bytes(1000))
    await asyncio.sleep(0.1)
    assert told == []
    (world.path("empty-dir", "data") / "big").write_bytes(bytes(2 << 20))
    await eventually(lambda: told)
    await asyncio.sleep(0.1)
    assert told == [(UID, 'Usage of EmptyDir volume "data" exceeds the limit "1Mi".')]
    with pytest.raises(OSError, match="No space left"):
        (world.path("empty-dir", "fast") / "big").write_bytes(bytes(2 << 20))


async def test_a_claim_is_mounted_where_its_volume_is(world: World, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}}
    mounts = [{"name": "data", "mountPath": "/data"}]
    pod = await world.pod(claim, container={"volumeMounts": mounts})
    await world.put(
        "persistentvolumeclaims", "data", spec={"volumeName": "v"}, status={"phase": "Pending"}
    )
    with pytest.raises(VolumeNotReady, match="error processing PVC lab/data: PVC is not bound"):
        await world.volumes.set_up(pod)
    await world.change("persistentvolumeclaims", "data", status={"phase": "Bound"})
    volume = {"metadata": {"name": "v", "uid": "v"}, "spec": {"local": {"path": str(disk)}}}
    await world.store.create(Key("persistentvolumes", "", "v"), volume)
    await world.volumes.set_up(pod)
    found = (await world.mounts(pod))["/data"]
    assert (found["hostPath"], found["readOnly"]) == (str(disk), True)
    await world.volumes.tear_down(UID)
    assert disk.is_dir()


async def test_sweep_takes_away_what_nobody_knows(world: World) -> None:
    pod = await world.pod({"name": "fast", "emptyDir": {"medium": "Memory"}})
    await world.volumes.set_up(pod)
    other = pod | {"metadata": pod["metadata"] | {"uid": "22222222"}}
    await world.volumes.set_up(other)
    await world.volumes.sweep([UID])
    assert os.listdir(world.root) == [UID]
