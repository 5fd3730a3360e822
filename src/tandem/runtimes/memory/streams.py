"""The verbs of the in-memory adapter that open byte streams into containers."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from tandem.errors import Conflict, Unavailable
from tandem.runtimes.adapter import Phase
from tandem.runtimes.capabilities import ExecResult
from tandem.runtimes.memory import processes
from tandem.runtimes.memory.world import Container, MemoryRuntime, Workload


class StreamVerbs(abc.ABC):
    """Exec, attach and port-forward, for an adapter that finds its workloads."""

    runtime: MemoryRuntime

    @abc.abstractmethod
    async def _reach(self, verb: str) -> None: ...

    @abc.abstractmethod
    def _find(self, id: str) -> Workload: ...

    @staticmethod
    @abc.abstractmethod
    def _container_of(workload: Workload, name: str) -> Container: ...

    async def exec(
        self,
        id: str,
        command: Sequence[str],
        *,
        container: str = "",
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        tty: bool = False,
    ) -> processes.Session:
        """See :class:`tandem.runtimes.capabilities.Exec`."""
        await self._reach("exec")
        self._running(id, container)
        return processes.start(self.runtime.programs, command, tty=tty)

    async def exec_sync(
        self, id: str, command: Sequence[str], *, container: str = "", timeout: float
    ) -> ExecResult:
        """See :class:`tandem.runtimes.capabilities.Exec`."""
        await self._reach("exec_sync")
        self._running(id, container)
        return await processes.run(self.runtime.programs, command, timeout=timeout)

    async def attach(
        self,
        id: str,
        *,
        container: str = "",
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        tty: bool = False,
    ) -> processes.Session:
        """See :class:`tandem.runtimes.capabilities.Attach`. What is typed comes back as output."""
        await self._reach("attach")
        workload, found = self._running(id, container)
        process = processes.Process(())

        async def follow() -> int:
            seen = len(found.log)
            while True:
                changed, ended = workload.changed, found.phase is not Phase.RUNNING
                for _, line in found.log[seen:]:
                    seen += 1
                    await process.stdout.write(line)
                if ended:
                    return 0
                if seen == len(found.log):
                    await changed.wait()

        async def typed() -> None:
            while data := await process.stdin.read():
                self.runtime.write_log(id, data.decode("utf-8", "replace"), found.name)

        return processes.Session(process, processes.beside(typed(), follow()))

    async def port_forward(self, id: str, port: int) -> processes.Connection:
        """See :class:`tandem.runtimes.capabilities.PortForward`."""
        await self._reach("port_forward")
        if not self._find(id).reachable:
            raise Conflict(f"{id!r} does not run")
        if (listener := self.runtime.ports.get(port)) is None:
            raise Unavailable(f'failed to connect to localhost:{port} inside namespace "{id}"')
        return processes.connect(listener)

    def _running(self, id: str, name: str) -> tuple[Workload, Container]:
        workload = self._find(id)
        found = self._container_of(workload, name)
        if found.phase is not Phase.RUNNING:
            raise Conflict(f"container {found.name!r} of {id!r} does not run")
        return workload, found
