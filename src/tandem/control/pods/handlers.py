"""What probes and lifecycle hooks ask for, done from this host: exec, httpGet, tcpSocket, grpc, sleep.

Nothing of the image is needed for any but exec. The words of a failure are the kubelet's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tandem.api.expand import expand
from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.api.release import KUBERNETES
from tandem.control.runtime import Runtime
from tandem.errors import DeadlineExceeded, TandemError, Unavailable
from tandem.host import dial, grpchealth, httpget
from tandem.runtimes.capabilities import Exec, ExecResult

_VERSION = ".".join(KUBERNETES)

MAX_OUTPUT_BYTES = 10 << 10
_SLACK_SECONDS = 10.0
"""How much longer than the command itself the runtime may take to say how it went."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a handler went.

    ``output``: what it said; for a failure, why. ``warning``: it counts as success, and ``output``
    should be told. ``errored``: it could not be run at all, so this says nothing about the container.
    """

    ok: bool
    output: str = ""
    warning: bool = False
    errored: bool = False


class Handlers:
    """Runs handlers on the containers of one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def run(
        self, handler: Doc, pod: Doc, container: Doc, *, timeout: float, address: str = ""
    ) -> Outcome:
        """Run a probe's ``handler`` for at most ``timeout`` seconds.

        ``address``: of the Pod, where its status does not say yet. Raises ``Unavailable`` when the
        runtime is away; a handler that fails is an outcome.
        """
        address = address or get(pod, "status.podIP", "")
        try:
            if "exec" in handler:
                return await self._exec(handler["exec"], pod, container, timeout)
            if "httpGet" in handler:
                return await self._http(handler["httpGet"], container, timeout, address)
            if "tcpSocket" in handler:
                return await self._tcp(handler["tcpSocket"], container, timeout, address)
            if "grpc" in handler:
                return await self._grpc(handler["grpc"], timeout, address)
        except _NoPort as error:
            return Outcome(False, str(error), errored=True)
        where = _described(pod)
        return Outcome(
            False, f"missing probe handler for {where}:{container['name']}", errored=True
        )

    async def hook(
        self, handler: Doc, pod: Doc, container: Doc, *, timeout: float, address: str = ""
    ) -> Outcome:
        """Run a lifecycle hook's ``handler`` for at most ``timeout`` seconds.

        As with the kubelet, whatever an HTTP server answers is success. Raises as :meth:`run` does.
        """
        address = address or get(pod, "status.podIP", "")
        try:
            problem = await self._problem(handler, pod, container, timeout, address)
        except _NoPort as error:
            problem = str(error)
        if problem is None:
            return Outcome(True)
        where = f'Container "{container["name"]}" in Pod "{_described(pod)}"'
        return Outcome(False, f"{_hook_name(handler)} for {where} failed - error: {problem}")

    async def _problem(
        self, handler: Doc, pod: Doc, container: Doc, timeout: float, address: str
    ) -> str | None:
        """What went wrong with a hook."""
        if action := handler.get("exec"):
            return await self._exec_problem(action.get("command") or [], pod, container, timeout)
        if action := handler.get("httpGet"):
            return await self._http_problem(action, container, timeout, address)
        if action := handler.get("tcpSocket"):
            outcome = await self._tcp(action, container, timeout, address)
            return None if outcome.ok else outcome.output
        seconds = float(get(handler, "sleep.seconds", 0))
        await asyncio.sleep(min(seconds, timeout))
        return "container terminated before sleep hook finished" if seconds > timeout else None

    # -- exec --------------------------------------------------------------------------------

    async def _exec(self, action: Doc, pod: Doc, container: Doc, timeout: float) -> Outcome:
        command = _expanded(action.get("command") or [], container)
        try:
            result = await self._command(command, pod, container, timeout)
        except DeadlineExceeded:
            return Outcome(False, _timed_out(command, timeout))
        except Unavailable:
            raise
        except TandemError as error:
            return Outcome(False, str(error), errored=True)
        return Outcome(result.exit_code == 0, _output(result))

    async def _exec_problem(
        self, command: Sequence[str], pod: Doc, container: Doc, timeout: float
    ) -> str | None:
        try:
            result = await self._command(command, pod, container, timeout)
        except DeadlineExceeded:
            return f'{_timed_out(command, timeout)}, message: ""'
        except Unavailable:
            raise
        except TandemError as error:
            return f'{error}, message: ""'
        if result.exit_code == 0:
            return None
        said = result.stderr[:MAX_OUTPUT_BYTES].decode("utf-8", "replace")
        how = f"command '{' '.join(command)}' exited with {result.exit_code}: {said}"
        return f'{how}, message: "{_output(result)}"'

    async def _command(
        self, command: Sequence[str], pod: Doc, container: Doc, timeout: float
    ) -> ExecResult:
        adapter = self._runtime.adapter
        if not isinstance(adapter, Exec):
            raise TandemError(f"{adapter.name} does not run commands")
        try:
            async with asyncio.timeout(timeout + _SLACK_SECONDS):
                return await adapter.exec_sync(
                    pod["metadata"]["uid"], command, container=container["name"], timeout=timeout
                )
        except TimeoutError as error:
            raise DeadlineExceeded(f"{adapter.name} does not say how the command ended") from error

    # -- connections -------------------------------------------------------------------------

    async def _http(self, action: Doc, container: Doc, timeout: float, address: str) -> Outcome:
        request = _request(action, container, address, "probe")
        try:
            response = await httpget.get(request, timeout=timeout)
        except httpget.BodyLost as error:
            return Outcome(False, str(error), errored=True)
        except (Unavailable, DeadlineExceeded) as error:
            return Outcome(False, str(error))
        if not 200 <= response.status < 400:
            return Outcome(False, f"HTTP probe failed with statuscode: {response.status}")
        body = response.body.decode("utf-8", "replace")
        if response.status >= 300:
            said = f"Probe terminated redirects, Response body: {body}"
            return Outcome(True, said, warning=True)
        return Outcome(True, body)

    async def _http_problem(
        self, action: Doc, container: Doc, timeout: float, address: str
    ) -> str | None:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        for scheme in (str(action.get("scheme") or "HTTP"), "HTTP"):
            request = _request({**action, "scheme": scheme}, container, address, "lifecycle")
            try:
                await httpget.get(request, timeout=max(0.0, until - loop.time()))
            except httpget.BodyLost:
                return None
            except (Unavailable, DeadlineExceeded) as error:
                problem = str(error)
                if dial.SPOKE_PLAIN not in problem:
                    return problem
                # Hooks that say HTTPS to a server without it worked once, and the kubelet lets them.
            else:
                return None
        return problem

    async def _tcp(self, action: Doc, container: Doc, timeout: float, address: str) -> Outcome:
        host, port = action.get("host") or address, _port(action.get("port"), container)
        try:
            async with asyncio.timeout(timeout):
                (await dial.connect(host, port)).close()
        except TimeoutError:
            return Outcome(False, f"dial tcp {dial.join(host, port)}: i/o timeout")
        except Unavailable as error:
            return Outcome(False, str(error))
        return Outcome(True)

    async def _grpc(self, action: Doc, timeout: float, address: str) -> Outcome:
        try:
            await grpchealth.check(
                address,
                int(action["port"]),
                action.get("service") or "",
                timeout=timeout,
                agent=f"kube-probe/{_VERSION}",
            )
        except (Unavailable, DeadlineExceeded) as error:
            return Outcome(False, str(error))
        return Outcome(True, "service healthy")


class _NoPort(Exception):
    """A port that the container does not have, or that is none."""


def _port(port: Any, container: Doc) -> int:
    """The number of a port that is given by number or by name."""
    if not isinstance(port, int):
        named = {p.get("name"): p["containerPort"] for p in container.get("ports") or ()}
        try:
            port = int(named.get(port, port))
        except (ValueError, TypeError):
            raise _NoPort(f'strconv.Atoi: parsing "{port}": invalid syntax') from None
    if not 0 < port < 65536:
        raise _NoPort(f"invalid port number: {port}")
    return int(port)


def _request(action: Doc, container: Doc, address: str, purpose: str) -> httpget.Request:
    scheme = str(action.get("scheme") or "HTTP").lower()
    host, port = action.get("host") or address, _port(action.get("port"), container)
    url = httpget.Url.of(scheme, host, port, action.get("path") or "/")
    headers = [(h["name"], h.get("value") or "") for h in action.get("httpHeaders") or ()]
    given = {name.lower() for name, _ in headers}
    for name, value in (("User-Agent", f"kube-{purpose}/{_VERSION}"), ("Accept", "*/*")):
        if name.lower() not in given:
            headers.insert(0, (name, value))
    # Given without a value, these two are asked not to be sent.
    silent = ("user-agent", "accept")
    return httpget.Request(
        url, [(name, value) for name, value in headers if value or name.lower() not in silent]
    )


def _expanded(command: Sequence[str], container: Doc) -> list[str]:
    """``$(NAME)`` of a probe's command, by what the container's own ``env`` says in so many words."""
    variables = {
        entry["name"]: str(entry.get("value") or "") for entry in container.get("env") or ()
    }
    return [expand(word, variables) for word in command]


def _hook_name(handler: Doc) -> str:
    if action := handler.get("exec"):
        return f"Exec lifecycle hook ([{' '.join(action.get('command') or [])}])"
    if action := handler.get("httpGet"):
        return f"HTTP lifecycle hook ({action.get('path') or '/'})"
    if action := handler.get("tcpSocket"):
        return f"TCP lifecycle hook ({action.get('port')})"
    return f"Sleep lifecycle hook ({get(handler, 'sleep.seconds', 0)})"


def _timed_out(command: Sequence[str], timeout: float) -> str:
    return f'command timed out: "{" ".join(command)}" timed out after {timeout:g}s'


def _output(result: ExecResult) -> str:
    return (result.stdout + result.stderr)[:MAX_OUTPUT_BYTES].decode("utf-8", "replace")


def _described(pod: Doc) -> str:
    metadata = pod["metadata"]
    return f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
