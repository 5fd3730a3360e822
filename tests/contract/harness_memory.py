"""The in-memory adapter in the contract suite."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tandem.runtimes.adapter import Phase, RuntimeAdapter, RuntimeSpec
from tandem.runtimes.memory import MemoryAdapter, MemoryRuntime
from tandem.runtimes.memory.adapter import STRANGER, add_stranger
from tests.contract.harness import Harness


class MemoryHarness(Harness):
    """Containers on the in-memory runtime."""

    name = "memory"
    grace = 0.2
    patience = 2.0
    steps: ClassVar[Sequence[str]] = ("create", "create.pull", "create.define", "create.start")

    def __init__(self, world: Any, tmp_path: Path) -> None:
        super().__init__(world, tmp_path)
        self.runtime = MemoryRuntime()

    def make_adapter(self, owner: str = "tandem") -> RuntimeAdapter:
        return MemoryAdapter(self.runtime, owner=owner)

    def make_absent_adapter(self) -> RuntimeAdapter:
        absent = MemoryRuntime()
        absent.available = False
        return MemoryAdapter(absent)

    def _spec(self, id: str, *command: str, image: str = "demo", **rest: Any) -> RuntimeSpec:
        container = {"name": "main", "image": image, "command": [*command]}
        return RuntimeSpec(id, container_spec={"containers": [container]}, **rest)

    def spec(self, id: str, *, labels: dict[str, str] | None = None) -> RuntimeSpec:
        return self._spec(id, "serve", labels=labels or {})

    def other_spec(self, id: str) -> RuntimeSpec:
        return self._spec(id, "serve", "otherwise")

    def stubborn_spec(self, id: str) -> RuntimeSpec:
        return self._spec(id, "ignore-stop")

    def ending_spec(self, id: str, code: int) -> RuntimeSpec:
        return self._spec(id, "exit", str(code))

    def failing_spec(self, id: str) -> RuntimeSpec:
        self.runtime.unpullable.add("absent")
        return self._spec(id, "serve", image="absent")

    def invalid_specs(self) -> Sequence[tuple[RuntimeSpec, str]]:
        return [
            (RuntimeSpec("x"), "container_spec"),
            (RuntimeSpec("x", container_spec={"image": "a"}, vm_xml="<domain/>"), "container_spec"),
            (RuntimeSpec("x", container_spec={"hostname": "x"}), "containers"),
            (RuntimeSpec("x", container_spec={"containers": [{"name": "a"}]}), "image"),
            (RuntimeSpec("x", vm_xml="<domain"), "vm_xml"),
        ]

    def sandbox_spec(self, id: str) -> RuntimeSpec:
        return RuntimeSpec(id, container_spec={"containers": []})

    def container(self, name: str, script: str, **fields: Any) -> dict[str, Any]:
        return {"name": name, "image": "demo", "command": ["sh", "-c", script], **fields}

    async def lose_sandbox(self, id: str) -> None:
        self.runtime.lose_sandbox(id)

    async def add_stranger(self) -> str:
        add_stranger(self.runtime, "stranger")
        return "stranger"

    async def stranger_runs(self, id: str) -> bool:
        return (STRANGER, id) in self.runtime.workloads

    async def remove_stranger(self, id: str) -> None:
        self.runtime.vanish(id, owner=STRANGER)

    async def crash(self, id: str) -> None:
        self.runtime.crash(id)

    async def leftovers(self) -> Sequence[str]:
        return [id for owner, id in self.runtime.workloads if owner != STRANGER]

    def intercept(
        self, adapter: RuntimeAdapter, step: str, action: Callable[[], Awaitable[None]]
    ) -> None:
        self.runtime.faults.call(step, action)

    async def drop_events(self, adapter: RuntimeAdapter) -> None:
        self.runtime.drop_events()


class MemoryMachineHarness(MemoryHarness):
    """Virtual machines on the in-memory runtime."""

    name = "memory-vm"
    clean_end = Phase.STOPPED
    sandbox_spec = Harness.sandbox_spec  # machines have none
    exit_codes = False

    def _domain(self, id: str, words: str, **rest: Any) -> RuntimeSpec:
        xml = f"<domain><name>{id}</name><description>{words}</description></domain>"
        return RuntimeSpec(id, vm_xml=xml, **rest)

    def spec(self, id: str, *, labels: dict[str, str] | None = None) -> RuntimeSpec:
        return self._domain(id, "serve", labels=labels or {})

    def other_spec(self, id: str) -> RuntimeSpec:
        return self._domain(id, "serve otherwise")

    def stubborn_spec(self, id: str) -> RuntimeSpec:
        return self._domain(id, "ignore-stop")

    def ending_spec(self, id: str, code: int) -> RuntimeSpec:
        return self._domain(id, f"exit {code}")
