"""Volumes of Pods on the real container runtime, seen from inside the containers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import world
from tests.daemon import Daemon
from tests.e2e.test_pods import Client, container

pytestmark = [pytest.mark.containerd, pytest.mark.slow]

CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
SLEEP = "exec sleep 600"


@pytest.fixture
def k(daemon: Daemon, namespace: str) -> Iterator[Client]:
    yield Client(daemon, namespace)
    daemon.kubectl("delete", "pods,pvc", "--all", "--namespace", namespace, "--grace-period=0")


def obj(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **fields}


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    spec = {"terminationGracePeriodSeconds": 0, "containers": list(containers), **spec}
    return obj("Pod", name, spec=spec)


def mount(name: str, path: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "mountPath": path, **more}


def apply(k: Client, *objects: dict[str, Any]) -> None:
    k("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def said(k: Client, name: str, reason: str) -> list[str]:
    """What the Events of one reason about a Pod say."""
    events = json.loads(k("get", "events", "-o", "json"))["items"]
    return [
        e["message"]
        for e in events
        if e["involvedObject"]["name"] == name and e["reason"] == reason
    ]


def test_a_pod_sees_volumes_of_every_kind_and_their_updates(k: Client, tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "here").write_text("from the host")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    cpu = {"containerName": "main", "resource": "limits.cpu", "divisor": "1m"}
    volumes: list[dict[str, Any]] = [
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "host", "hostPath": {"path": str(tmp_path / "host"), "type": "Directory"}},
        {"name": "socket", "hostPath": {"path": str(tmp_path / "socket"), "type": "Socket"}},
        {"name": "made", "hostPath": {"path": str(tmp_path / "a/b"), "type": "DirectoryOrCreate"}},
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "secret", "secret": {"secretName": "login", "defaultMode": 0o400}},
        {
            "name": "about",
            "downwardAPI": {"items": [labels, {"path": "cpu", "resourceFieldRef": cpu}]},
        },
        {
            "name": "all",
            "projected": {
                "sources": [
                    {"configMap": {"name": "settings", "items": [{"key": "color", "path": "x/y"}]}},
                    {
                        "secret": {
                            "name": "login",
                            "items": [{"key": "user", "path": "user", "mode": 0o440}],
                        }
                    },
                    {
                        "serviceAccountToken": {
                            "path": "token",
                            "audience": "vault",
                            "expirationSeconds": 600,
                        }
                    },
                ]
            },
        },
        {"name": "image", "image": {"reference": world.BUSYBOX}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": CLAIM}}},
    ]
    mounts = [mount(v["name"], f"/v/{v['name']}") for v in volumes]
    mounts += [
        mount("config", "/v/color", subPath="color"),
        mount("disk", "/v/part", subPathExpr="logs/$(NAME)"),
        mount("claim", "/v/claim-read", readOnly=True),
    ]
    main = container(
        "main",
        "echo kept > /v/claim/file; echo part > /v/part/file; " + SLEEP,
        volumeMounts=mounts,
        env=[{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        resources={"limits": {"cpu": "250m", "memory": "64Mi"}},
    )
    all_volumes = pod(
        "all",
        main,
        volumes=volumes,
        serviceAccountName="robot",
        hostAliases=[{"ip": "192.0.2.1", "hostnames": ["db"]}],
        securityContext={"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000},
    )
    all_volumes["metadata"]["labels"] = {"tier": "one"}
    apply(
        k,
        obj("ServiceAccount", "robot"),
        obj("ConfigMap", "settings", data={"color": "red"}),
        obj("Secret", "login", stringData={"user": "me"}),
        obj("PersistentVolumeClaim", "data", spec=CLAIM),
        all_volumes,
    )
    k("wait", "--for=condition=Ready", "--timeout=60s", "pod/all")

    def inside(script: str) -> str:
        return k("exec", "all", "--", "sh", "-c", script)

    assert inside(
        "cd /v; stat -c '%a %g' disk memory; stat -f -c %T memory secret about all;"
        "cat host/here; test -S socket && test -d made && test -x image/bin/busybox && echo yes;"
        "cat config/color color secret/user about/labels about/cpu all/x/y; echo;"
        "stat -L -c '%a %u %g' secret/user all/user all/token; readlink config/color;"
        "cat disk/logs/all/file claim-read/file; grep ^192 /etc/hosts;"
        "ls /var/run/secrets/kubernetes.io/serviceaccount"
    ).split("\n") == [
        *("2777 2000", "2777 2000"),
        *("tmpfs", "tmpfs", "tmpfs", "tmpfs"),
        "from the hostyes",
        'redredmetier="one"250red',
        *("440 0 2000", "440 0 2000", "640 1000 2000"),
        "..data/color",
        *("part", "kept", "192.0.2.1\tdb"),
        *("ca.crt", "namespace", "token", ""),
    ]
    address = k.status("all")["podIP"]
    assert f"{address}\tall\n" in inside("cat /etc/hosts")
    refused = inside(
        "cd /v; for f in config/x secret/x image/x claim-read/x; do touch $f 2>/dev/null || echo no; done;"
        "dd if=/dev/zero of=memory/big bs=1M count=2 2>/dev/null || echo full"
    )
    assert refused == "no\nno\nno\nno\nfull\n"

    k("patch", "configmap", "settings", "--patch", '{"data":{"color":"blue"}}')
    k("patch", "secret", "login", "--patch", '{"stringData":{"user":"you"}}')
    k("label", "pod", "all", "tier=two", "--overwrite")
    look = "cd /v; cat config/color color secret/user about/labels all/x/y all/user"
    expected = 'blueredyoutier="two"blueyou'  # a part of a volume does not follow
    k.daemon.eventually(lambda: inside(look) == expected)

    uid = json.loads(k("get", "pod", "all", "-o", "json"))["metadata"]["uid"]
    folder = k.daemon.folder / "data" / "pods" / uid
    assert folder.is_dir()
    k("delete", "pod", "all")
    assert not folder.exists()
    assert (tmp_path / "host" / "here").read_text() == "from the host"
    k.daemon.eventually(lambda: "all-scratch" not in k("get", "pvc", "-o", "name"))

    reader = container("main", "cat /data/file", volumeMounts=[mount("claim", "/data")])
    claim = {"name": "claim", "persistentVolumeClaim": {"claimName": "data"}}
    apply(k, pod("reader", reader, volumes=[claim], restartPolicy="Never"))
    k.daemon.eventually(lambda: k.phase("reader") == "Succeeded")
    assert k("logs", "reader") == "kept\n"
    directories = k.daemon.folder / "data" / "volumes"
    assert len(list(directories.iterdir())) == 1
    k("delete", "pod/reader", "pvc/data")
    k.daemon.eventually(lambda: not list(directories.iterdir()))


def test_volumes_that_cannot_be_had_are_named_and_waited_for(k: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    wrong = {"name": "v", "hostPath": {"path": str(tmp_path / "file"), "type": "Directory"}}
    claim = {"name": "v", "persistentVolumeClaim": {"claimName": "late"}}
    config = {"name": "v", "configMap": {"name": "late"}}
    disk = {"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}
    here = [mount("v", "/v")]
    escape = "ln -s /etc /v/out; " + SLEEP
    grow = "dd if=/dev/zero of=/v/big bs=1M count=3; " + SLEEP
    apply(
        k,
        pod("wrong", container("main", SLEEP, volumeMounts=here), volumes=[wrong]),
        pod("config", container("main", SLEEP, volumeMounts=here), volumes=[config]),
        pod("claim", container("main", SLEEP, volumeMounts=here), volumes=[claim]),
        pod("grows", container("main", grow, volumeMounts=here), volumes=[disk]),
        pod(
            "escapes",
            container("main", SLEEP, volumeMounts=[mount("v", "/v", subPath="out/passwd")]),
            initContainers=[container("link", escape.replace(SLEEP, "true"), volumeMounts=here)],
            volumes=[disk],
        ),
    )
    at_wrong = f'MountVolume.SetUp failed for volume "v" : hostPath type check failed: {tmp_path}/file is not a directory'
    at_config = 'MountVolume.SetUp failed for volume "v" : configmap "late" not found'
    at_claim = 'persistentvolumeclaim "late" not found'
    k.daemon.eventually(lambda: at_wrong in said(k, "wrong", "FailedMount"))
    k.daemon.eventually(lambda: at_config in said(k, "config", "FailedMount"))
    k.daemon.eventually(lambda: any(at_claim in m for m in said(k, "claim", "FailedScheduling")))
    words = 'Error: failed to prepare subPath for volumeMount "v" of container "main"'
    k.daemon.eventually(lambda: words in said(k, "escapes", "Failed"))
    apply(
        k,
        obj("ConfigMap", "late", data={"a": "b"}),
        obj("PersistentVolumeClaim", "late", spec=CLAIM),
    )
    (tmp_path / "file").unlink()
    (tmp_path / "file").mkdir()
    for name in ("config", "claim", "wrong"):
        k("wait", "--for=condition=Ready", "--timeout=60s", f"pod/{name}")
    assert k("get", "pvc", "--no-headers").split()[:2] == ["late", "Bound"]

    k.daemon.eventually(lambda: k.phase("grows") == "Failed")
    status = k.status("grows")
    assert status["reason"] == "Evicted"
    assert 'Usage of EmptyDir volume "v" exceeds the limit "1Mi".' in status["message"]


def test_volumes_outlive_the_daemon_and_a_full_disk_is_told(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = make_daemon(vm_runtime="memory")
    k = Client(daemon, "default")
    pods = daemon.folder / "data" / "pods"
    daemon.end()
    pods.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "small", pods], check=True)
    try:
        daemon.start()
        here = [mount("v", "/v"), mount("s", "/s")]
        volumes = [
            {"name": "v", "configMap": {"name": "big"}},
            {"name": "s", "secret": {"secretName": "login"}},
        ]
        apply(
            k,
            obj("ConfigMap", "big", data={"a": "x" * 200_000}),
            obj("Secret", "login", stringData={"user": "me"}),
            pod("full", container("main", SLEEP, volumeMounts=here), volumes=volumes),
        )
        daemon.eventually(
            lambda: any("No space left on device" in m for m in said(k, "full", "FailedMount"))
        )
        subprocess.run(["mount", "-o", "remount,size=16m", pods], check=True)
        k("wait", "--for=condition=Ready", "--timeout=90s", "pod/full")

        daemon.end(signal.SIGKILL)
        (pods / "00000000-gone").mkdir()
        daemon.start()
        k("patch", "configmap", "big", "--patch", '{"data":{"a":"small"}}')
        daemon.eventually(lambda: k("exec", "full", "--", "cat", "/v/a") == "small")
        assert k("exec", "full", "--", "cat", "/s/user") == "me"
        k("delete", "pod", "full")
        daemon.eventually(lambda: os.listdir(pods) == [])
    finally:
        daemon.end()
        subprocess.run(["umount", pods], check=True)


def test_a_token_for_an_account_can_be_asked_for(k: Client) -> None:
    k("create", "serviceaccount", "robot")
    token = k("create", "token", "robot", "--audience", "vault", "--duration", "20m").strip()
    assert token.count(".") == 2
    assert "less than 10 minutes" in k("create", "token", "robot", "--duration", "1m", check=False)
    assert "not found" in k("create", "token", "nobody", check=False)
    assert "robot" in k("get", "sa")
