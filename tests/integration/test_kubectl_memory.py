"""Every verb of an unmodified kubectl, each version, against the API and loops on the in-memory runtime.

The runtime is not what is tested here, so these need kubectl and nothing else. Which ones:
``TANDEM_TEST_KUBECTLS`` (paths, separated by colons), else those that the tests have installed, else
the one on the PATH.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tandem.api.kinds import REGISTRY
from tandem.config import Settings
from tandem.control import Manager
from tandem.runtimes.memory import MemoryAdapter
from tandem.server import pki
from tandem.server.app import Server
from tandem.store import Store
from tests import world
from tests.unit.control.plant import NODE, FakeFiles

pytestmark = pytest.mark.slow

_SECONDS = 30.0
"""How long a kubectl may take; they take a tenth of a second each."""

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {
        "containers": [
            {"name": "main", "image": "busybox", "command": ["sh", "-c", "echo up; sleep 1000"]}
        ],
        "terminationGracePeriodSeconds": 0,
    },
}
CONFIG = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "settings"},
    "data": {"color": "red"},
}
MACHINE = """
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: test-vm
spec:
  running: true
  template:
    spec:
      domain:
        resources:
          requests:
            memory: "2Gi"
            cpu: "2"
"""


def _binaries() -> list[str]:
    if named := os.environ.get("TANDEM_TEST_KUBECTLS"):
        return named.split(":")
    installed = [
        world.CACHE / "kubectl" / version / "kubectl" for version in world.KUBECTL_VERSIONS
    ]
    found = [str(path) for path in installed if path.exists()]
    return found or [shutil.which("kubectl") or "kubectl"]


@dataclass
class Cluster:
    """A server on the in-memory runtime, and a kubectl that talks to it."""

    binary: str
    home: Path
    adapter: MemoryAdapter

    async def start(
        self, *words: str, environment: Mapping[str, str] = {}
    ) -> asyncio.subprocess.Process:
        """A kubectl that goes on by itself."""
        return await asyncio.create_subprocess_exec(
            self.binary,
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ
            | {"HOME": str(self.home), "KUBECONFIG": str(self.home / "kubeconfig")}
            | dict(environment),
        )

    async def run(
        self,
        *words: str,
        stdin: Any = None,
        code: int | None = 0,
        environment: Mapping[str, str] = {},
    ) -> tuple[str, str]:
        """What a kubectl that ends with ``code`` (None: any) printed, and its complaints."""
        data = stdin if stdin is None or isinstance(stdin, str) else yaml.safe_dump(stdin)
        process = await self.start(*words, environment=environment)
        async with asyncio.timeout(_SECONDS):
            out, err = await process.communicate((data or "").encode())
        assert code in (process.returncode, None), f"{words}: {out.decode()}{err.decode()}"
        return out.decode(), err.decode()

    async def __call__(
        self, *words: str, stdin: Any = None, environment: Mapping[str, str] = {}
    ) -> str:
        """What a kubectl that succeeds printed; it must not have complained."""
        out, err = await self.run(*words, stdin=stdin, environment=environment)
        assert not err, f"{words}: {err}"
        return out

    async def read(self, *words: str) -> dict[str, Any]:
        """An object or a list."""
        decoded: dict[str, Any] = msgspec.json.decode(await self("get", *words, "-o", "json"))
        return decoded

    async def refused(self, *words: str, stdin: Any = None) -> str:
        """The complaint of a kubectl that fails."""
        return (await self.run(*words, stdin=stdin, code=1))[1]

    async def apply(self, *docs: Any) -> str:
        """Apply documents; warnings are welcome."""
        text = "\n---\n".join(d if isinstance(d, str) else yaml.safe_dump(d) for d in docs)
        return (await self.run("apply", "-f", "-", stdin=text))[0]

    async def gone(self, name: str) -> None:
        """Wait until ``name`` is deleted; kubectl 1.20 fails when it is already."""
        await self.run("wait", "--for=delete", name, "--timeout=20s", code=None)
        assert not await self("get", name, "--ignore-not-found")

    @property
    def version(self) -> tuple[int, int]:
        """kubectl's own, by the name of its folder; what is named otherwise is current."""
        match = re.search(r"/1\.(\d+)/", self.binary)
        return (1, int(match[1])) if match else (1, 32)


@asynccontextmanager
async def _cluster(binary: str, home: Path, certificates: pki.Pki) -> AsyncIterator[Cluster]:
    adapter = MemoryAdapter()
    adapters = {"container": adapter, "vm": adapter}
    settings = Settings(data_dir=home / "data", run_dir=home / "run", log_dir=home / "log")
    async with await Store.open(None) as store:
        manager = Manager(store, REGISTRY, adapters, settings, node=NODE, files=FakeFiles())
        server = Server(store, REGISTRY, adapters, tls=certificates.server_context(), port=0)
        await manager.start()
        await server.start()
        document = certificates.kubeconfig(server.url)
        pki.write_private(home / "kubeconfig", yaml.safe_dump(document).encode())
        try:
            yield Cluster(binary, home, adapter)
        finally:
            await server.stop()
            await manager.stop()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> pki.Pki:
    return pki.ensure(tmp_path_factory.mktemp("pki"))[0]


@pytest.fixture(params=_binaries())
async def kube(
    request: pytest.FixtureRequest, tmp_path: Path, certificates: pki.Pki
) -> AsyncIterator[Cluster]:
    async with _cluster(request.param, tmp_path, certificates) as cluster:
        yield cluster


async def test_apply_creates_then_changes_then_leaves_alone(kube: Cluster) -> None:
    out = await kube.apply(POD, CONFIG, MACHINE)
    assert out.splitlines() == [
        "pod/web created",
        "configmap/settings created",
        "virtualmachine.kubevirt.io/test-vm created",
    ]
    await kube.run("wait", "--for=condition=Ready", "pod/web", "vm/test-vm", "--timeout=20s")
    assert (await kube.apply(POD, CONFIG, MACHINE)).count("unchanged") == 3
    out = await kube.apply(CONFIG | {"data": {"color": "blue"}}, POD)
    assert out.splitlines() == ["configmap/settings configured", "pod/web unchanged"]
    stopped = MACHINE.replace("running: true", "running: false")
    assert "configured" in await kube.apply(stopped)
    await kube.gone("vmi/test-vm")
    assert (await kube.read("vm", "test-vm"))["status"]["printableStatus"] == "Stopped"


async def test_get_prints_tables_and_documents(kube: Cluster) -> None:
    await kube.apply(POD, MACHINE)
    await kube.run("wait", "--for=condition=Ready", "pod/web", "vm/test-vm", "--timeout=20s")
    header, row = (await kube("get", "pods")).splitlines()
    assert header.split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row.split()[:4] == ["web", "1/1", "Running", "0"]
    wide = (await kube("get", "pods", "-o", "wide")).splitlines()[0].split()
    assert wide[:7] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
    header, row = (await kube("get", "vm")).splitlines()
    assert header.split() == ["NAME", "AGE", "STATUS", "READY"]
    assert row.split()[2:] == ["Running", "True"]
    everything = await kube("get", "all", "-A")
    for name in ("pod/web", "virtualmachine.kubevirt.io/test-vm", "virtualmachineinstance"):
        assert name in everything
    assert everything.startswith("NAMESPACE")
    document = yaml.safe_load(await kube("get", "pod", "web", "-o", "yaml"))
    assert document["status"]["phase"] == "Running"
    phase = "jsonpath={.status.phase}"
    assert await kube("get", "pod", "web", "-o", phase) == "Running"
    assert await kube("get", "vm,pods", "-o", "name") == (
        "virtualmachine.kubevirt.io/test-vm\npod/web\n"
    )
    columns = await kube("get", "pods", "-o", "custom-columns=N:.metadata.name", "--no-headers")
    assert columns == "web\n"
    assert "main" in await kube("get", "pod", "web", "-o", "go-template={{.spec.containers}}")


async def test_selectors_and_namespaces_choose(kube: Cluster) -> None:
    await kube("create", "namespace", "team")
    for name, labels in (("a", {"app": "one"}), ("b", {"app": "two"})):
        await kube.apply(CONFIG | {"metadata": {"name": name, "labels": labels}})
    await kube.apply(CONFIG | {"metadata": {"name": "c", "namespace": "team"}})
    assert await kube("get", "cm", "-l", "app=one", "-o", "name") == "configmap/a\n"
    assert (
        await kube("get", "cm", "-l", "app in (one,two),app!=one", "-o", "name") == "configmap/b\n"
    )
    field = "--field-selector=metadata.name=b"
    assert await kube("get", "cm", field, "-o", "name") == "configmap/b\n"
    assert "team" in await kube("get", "cm", "-A")
    assert await kube("get", "cm", "-n", "team", "-o", "name") == "configmap/c\n"
    out, err = await kube.run("get", "cm", "-n", "none")
    assert (out, err) == ("", "No resources found in none namespace.\n")
    assert "field label not supported" in await kube.refused(
        "get", "cm", "--field-selector=spec.x=1"
    )


async def test_a_long_list_comes_in_pages(kube: Cluster) -> None:
    many = "\n---\n".join(
        yaml.safe_dump(CONFIG | {"metadata": {"name": f"m{index:02}"}}) for index in range(12)
    )
    await kube("create", "-f", "-", stdin=many)
    listed = await kube("get", "cm", "--chunk-size=5", "-o", "name")
    assert listed.split() == [f"configmap/m{index:02}" for index in range(12)]


async def test_create_makes_objects_from_flags_and_files(kube: Cluster) -> None:
    assert await kube("create", "namespace", "team") == "namespace/team created\n"
    await kube("create", "configmap", "made", "--from-literal=a=b")
    await kube("create", "secret", "generic", "key", "--from-literal=word=open")
    assert (await kube.read("configmap", "made"))["data"] == {"a": "b"}
    assert (await kube.read("secret", "key"))["data"] == {"word": "b3Blbg=="}
    out = await kube("run", "once", "--image=busybox", "--restart=Never", "--", "true")
    assert out == "pod/once created\n"
    phase = (await kube.read("pod", "once"))["spec"]["restartPolicy"]
    assert phase == "Never"
    error = await kube.refused("create", "configmap", "made", "--from-literal=a=b")
    assert "already exists" in error
    assert 'namespaces "none" not found' in await kube.refused(
        "create", "-n", "none", "-f", "-", stdin=CONFIG
    )


async def test_what_is_wrong_is_told_by_field(kube: Cluster) -> None:
    bad = POD | {"spec": {"containers": [{"name": "main", "image": "x", "colour": "red"}]}}
    assert "colour" in await kube.refused("apply", "-f", "-", stdin=bad)
    nameless = POD | {"spec": {"containers": [{"image": "x"}]}}
    error = await kube.refused("apply", "-f", "-", stdin=nameless)
    assert "spec.containers[0]" in error
    assert "name" in error
    assert "No resources found" in (await kube.run("get", "pods"))[1]


async def test_describe_tells_the_story(kube: Cluster) -> None:
    await kube.apply(POD, MACHINE)
    await kube.run("wait", "--for=condition=Ready", "pod/web", "vm/test-vm", "--timeout=20s")
    story = await kube("describe", "pod", "web")
    assert re.search(r"Status:\s+Running", story)
    assert re.search(r"Ready\s+True", story)
    for reason in ("Scheduled", "Pulled", "Created", "Started"):
        assert re.search(rf"Normal\s+{reason}\s", story), story
    assert "SuccessfulCreate" in await kube("describe", "vm", "test-vm")
    assert re.search(r"Status:\s+Active", await kube("describe", "namespace", "default"))


async def test_events_are_listed(kube: Cluster) -> None:
    await kube.apply(POD)
    await kube.run("wait", "--for=condition=Ready", "pod/web", "--timeout=20s")
    listed = await kube("get", "events")
    assert listed.split()[:5] == ["LAST", "SEEN", "TYPE", "REASON", "OBJECT"]
    assert "pod/web" in listed
    if kube.version >= (1, 23):
        assert "Started container main" in await kube("events", "--for", "pod/web")


async def test_wait_waits(kube: Cluster) -> None:
    waiting = asyncio.create_task(
        kube.run("wait", "--for=condition=Ready", "pod/web", "--timeout=20s", code=1)
    )
    assert "not found" in (await waiting)[1]
    await kube.apply(POD)
    await kube("wait", "--for=condition=Ready", "pod/web", "--timeout=20s")
    if kube.version >= (1, 23):
        await kube("wait", "--for=jsonpath={.status.phase}=Running", "pod/web", "--timeout=20s")
    # It ignores the stop signal, so that there is something to wait for.
    stubborn = [{"name": "main", "image": "busybox", "command": ["sh", "-c", "trap '' TERM"]}]
    spec = {"containers": stubborn, "terminationGracePeriodSeconds": 2}
    await kube.apply(POD | {"metadata": {"name": "slow"}, "spec": spec})
    await kube("wait", "--for=condition=Ready", "pod/slow", "--timeout=20s")
    await kube("delete", "pod", "slow", "--wait=false")
    assert "condition met" in await kube("wait", "--for=delete", "pod/slow", "--timeout=20s")
    error = await kube.run("wait", "--for=condition=Ready", "ns/default", "--timeout=1s", code=1)
    assert "timed out" in error[1]


async def test_get_watches(kube: Cluster) -> None:
    watching = await kube.start("get", "pods", "--watch")
    assert watching.stdout is not None
    seen: list[list[str]] = []
    try:
        await kube.apply(POD)
        async with asyncio.timeout(_SECONDS):
            while not any("Running" in row for row in seen):
                seen.append((await watching.stdout.readline()).decode().split())
    finally:
        watching.kill()
        await watching.communicate()
    assert seen[0] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert seen.count(seen[0]) == 1
    assert {row[0] for row in seen[1:]} == {"web"}


async def test_edit_label_annotate_and_patch_change(kube: Cluster, tmp_path: Path) -> None:
    await kube.apply(POD, CONFIG, MACHINE)
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/red/green/ "$1"\n', encoding="utf-8")
    editor.chmod(0o700)
    assert "edited" in await kube(
        "edit", "configmap", "settings", environment={"KUBE_EDITOR": str(editor)}
    )
    assert (await kube.read("cm", "settings"))["data"] == {"color": "green"}
    for name in ("pod/web", "vm/test-vm"):
        await kube("label", name, "tier=front")
        await kube("annotate", name, "note=hello")
        await kube("label", name, "tier=back", "--overwrite")
        await kube("patch", name, "--type=merge", "-p", '{"metadata":{"labels":{"m":"1"}}}')
        operations = '[{"op":"add","path":"/metadata/labels/j","value":"1"}]'
        await kube("patch", name, "--type=json", "-p", operations)
        labels = (await kube.read(name))["metadata"]["labels"]
        assert {"tier": "back", "m": "1", "j": "1"}.items() <= labels.items()
        await kube("label", name, "m-")
        assert "m" not in (await kube.read(name))["metadata"]["labels"]
    image = '{"spec":{"containers":[{"name":"main","image":"busybox:2"}]}}'
    await kube("patch", "pod", "web", "-p", image)
    container = (await kube.read("pod", "web"))["spec"]["containers"][0]
    assert container["image"] == "busybox:2"
    assert container["command"]
    error = await kube.refused("patch", "vm", "test-vm", "-p", "{}")
    assert "application/merge-patch+json" in error


async def test_replace_diff_and_dry_run(kube: Cluster) -> None:
    await kube.apply(CONFIG)
    blue = CONFIG | {"data": {"color": "blue"}}
    assert await kube("diff", "-f", "-", stdin=CONFIG) == ""
    out, _ = await kube.run("diff", "-f", "-", stdin=blue, code=1)
    assert "-  color: red" in out
    assert "+  color: blue" in out
    assert "server dry run" in await kube("apply", "--dry-run=server", "-f", "-", stdin=blue)
    assert (await kube.read("cm", "settings"))["data"] == {"color": "red"}
    assert "replaced" in await kube("replace", "-f", "-", stdin=blue)
    assert (await kube.read("cm", "settings"))["data"] == {"color": "blue"}
    await kube.run("replace", "--force", "-f", "-", stdin=CONFIG)
    assert (await kube.read("cm", "settings"))["data"] == {"color": "red"}


async def test_delete_in_all_its_ways(kube: Cluster) -> None:
    await kube.apply(POD, CONFIG, MACHINE)
    await kube.run("wait", "--for=condition=Ready", "pod/web", "vm/test-vm", "--timeout=20s")
    await kube("delete", "vm", "test-vm")
    assert "No resources found" in (await kube.run("get", "vm,vmi"))[1]
    await kube.run("delete", "pod", "web", "--force", "--grace-period=0")
    await kube.gone("pod/web")
    assert not await kube.adapter.list()
    await kube("delete", "configmap", "--all")
    assert "not found" in await kube.refused("delete", "pod", "web")
    await kube("delete", "pod", "web", "--ignore-not-found")
    await kube.apply(CONFIG)
    await kube("delete", "-f", "-", stdin=CONFIG)


async def test_a_namespace_goes_with_what_is_in_it(kube: Cluster) -> None:
    await kube("create", "namespace", "team")
    inside = POD | {"metadata": {"name": "web", "namespace": "team"}}
    await kube.apply(inside, CONFIG | {"metadata": {"name": "c", "namespace": "team"}})
    await kube("delete", "namespace", "team")
    assert "team" not in await kube("get", "namespaces", "-o", "name")
    assert not await kube.adapter.list()
    assert "may not be deleted" in await kube.refused("delete", "namespace", "default")


async def test_logs_are_read_and_followed(kube: Cluster) -> None:
    words = ["sh", "-c", "echo one; sleep 0.2; echo two"]
    containers = [{"name": "main", "image": "busybox", "command": words}]
    once = POD | {"spec": {"containers": containers, "restartPolicy": "Never"}}
    await kube.apply(once)
    for _ in range(200):
        if (await kube.read("pod", "web")).get("status", {}).get("startTime"):
            break
    assert await kube("logs", "-f", "web") == "one\ntwo\n"
    assert await kube("logs", "web", "--tail=1") == "two\n"
    assert re.match(r"\d{4}-\d\d-\d\dT\S+ one\n", await kube("logs", "web", "--timestamps"))
    pair = [{"name": name, "image": "busybox"} for name in ("a", "b")]
    await kube.apply(POD | {"metadata": {"name": "pair"}, "spec": {"containers": pair}})
    assert "previous terminated container" in await kube.refused("logs", "pair", "-c", "a", "-p")
    assert "container c is not valid" in await kube.refused("logs", "pair", "-c", "c")


async def test_discovery_explain_and_raw(kube: Cluster) -> None:
    listed = await kube("api-resources")
    assert re.search(r"virtualmachines\s+vm,vms\s+kubevirt.io(/v1)?\s+true", listed)
    assert "kubevirt.io/v1" in (await kube("api-versions")).split()
    assert "image" in await kube("explain", "pod.spec.containers")
    assert "boolean" in await kube("explain", "vm.spec.running")
    assert "tandem" in await kube("version")
    assert await kube("get", "--raw", "/readyz") == "ok"


async def test_what_is_not_served_says_so(kube: Cluster) -> None:
    assert "doesn't have a resource type" in await kube.refused("get", "services")
    assert "server-side apply is not supported" in await kube.refused(
        "apply", "--server-side", "-f", "-", stdin=CONFIG
    )
