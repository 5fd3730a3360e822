"""subresources.kubevirt.io: what virtctl asks for beyond the objects themselves.

Codes and words are KubeVirt's, since virtctl acts on them: a console is tried again only after 400,
a body over 1 KiB is cut off by its WebSocket library, start, stop and restart answer 202 without a
body and send their options without a Content-Type.

Starting and stopping are wishes written into the VirtualMachine (``spec`` or
``status.stateChangeRequests``); its controller grants them.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from tandem.api import meta
from tandem.api.kind import Doc, Kind
from tandem.api.rest import Prepared, prepare_update
from tandem.errors import (
    BadRequest,
    Cause,
    Conflict,
    MethodNotAllowed,
    NotFound,
    TandemError,
    Unsupported,
)
from tandem.runtimes.capabilities import Console
from tandem.server import media
from tandem.server.call import Api, Call, no_such_path
from tandem.server.codec import clone
from tandem.server.discovery import Subresource
from tandem.server.logs import machine_log
from tandem.server.streams.plain import serve_stream
from tandem.server.writing import change
from tandem.store import Key

GROUP, VERSION = "subresources.kubevirt.io", "v1"

LISTED = (
    Subresource("virtualmachineinstances", "console"),
    Subresource("virtualmachineinstances", "log"),
    Subresource("virtualmachines", "start"),
    Subresource("virtualmachines", "stop"),
    Subresource("virtualmachines", "restart"),
)
"""What of KubeVirt's list is served. ``log`` is ours: the serial console's log."""

_PARENT = "kubevirt.io"
_MACHINES, _INSTANCES = "virtualmachines", "virtualmachineinstances"
_FINAL = ("Succeeded", "Failed")


async def handle(api: Api, call: Call) -> web.StreamResponse:
    """Answer for one subresource; ``call.kind`` is its parent's."""
    target, method = call.target, call.request.method
    wanted = (target.resource, target.subresource)
    if target.rest or not any(wanted == (listed.resource, listed.name) for listed in LISTED):
        raise no_such_path()
    if target.resource == _INSTANCES:
        if method != "GET":
            raise _not_allowed()
        _existing(api, call.key)
        return await (console if target.subresource == "console" else machine_log)(api, call)
    if method != "PUT":
        raise _not_allowed()
    options = await _options(call)
    wish = {"start": _start, "stop": _stop, "restart": _restart}[target.subresource]
    await wish(_Machine(api, call.kind, call.key, dry_run=bool(options.get("dryRun"))), options)
    return web.Response(status=202)


async def console(api: Api, call: Call) -> web.StreamResponse:
    """GET .../console: the serial console over WebSocket, from whoever had it before."""
    instance = api.store.get(call.key)
    if meta.get(instance, "spec.domain.devices.autoattachSerialConsole") is False:
        raise BadRequest("No serial consoles are present.")
    phase = meta.get(instance, "status.phase", "")
    if phase == "Failed":
        raise _conflict(call.kind, call.key, "VMI is in failed status")
    if phase != "Running":
        raise BadRequest("VMI is not running")
    adapter = api.adapters.get("vm")
    if not isinstance(adapter, Console):
        raise BadRequest("this runtime has no serial console")
    try:
        stream = await adapter.open_console(instance["metadata"]["uid"])
    except (NotFound, Conflict) as error:
        # It ended since its status was written: the client tries again after 400, and only then.
        raise BadRequest("VMI is not running") from error
    return await serve_stream(api, call.request, stream)


async def _start(machine: _Machine, options: Doc) -> None:
    if options.get("paused"):
        message = "starting a virtual machine paused is not supported"
        raise Unsupported(message, causes=[Cause("paused", message, "FieldValueNotSupported")])
    phase = machine.instance_phase
    if phase and phase not in (*_FINAL, "Unknown"):
        raise machine.conflict("VM is already running")
    strategy = machine.strategy
    if strategy == "Halted":
        await machine.set_strategy("Always")
    elif strategy == "Manual" or (strategy == "RerunOnFailure" and phase != "Failed"):
        await machine.request({"action": "Start"})
    elif strategy == "RerunOnFailure":
        raise machine.conflict("RerunOnFailure does not support starting VM from failed state")
    else:
        raise machine.conflict(f"{strategy} does not support manual start requests")


async def _stop(machine: _Machine, options: Doc) -> None:
    grace = _seconds(options, "gracePeriod")
    strategy, running = machine.strategy, machine.running
    if strategy == "Halted":
        if not running:
            raise machine.conflict("VM is not running")
        current = meta.get(machine.instance or {}, "spec.terminationGracePeriodSeconds", 30)
        if grace is None or grace >= current:
            raise machine.conflict(
                "Halted only supports manual stop requests with a shorter graceperiod"
            )
        await machine.set_grace(grace)
        return
    if strategy not in ("Always", "Once") and not running:
        raise machine.conflict("VM is not running")
    if grace is not None and running:
        await machine.set_grace(grace)
    if strategy in ("Always", "Once"):
        await machine.set_strategy("Halted")
    else:
        await machine.request({"action": "Stop", "uid": machine.instance_uid})


async def _restart(machine: _Machine, options: Doc) -> None:
    grace = _seconds(options, "gracePeriodSeconds")
    if grace:
        raise BadRequest("For force restart, only gracePeriod=0 is supported for now")
    strategy = machine.strategy
    if strategy in ("Halted", "Once"):
        # "RunStategy" is how KubeVirt spells it.
        raise machine.conflict(f"RunStategy {strategy} does not support manual restart requests")
    if not machine.running:
        raise machine.conflict("VM is not running: Halted")
    await machine.request({"action": "Stop", "uid": machine.instance_uid}, {"action": "Start"})
    if grace == 0:
        await machine.set_grace(1)


class _Machine:
    """A VirtualMachine and its instance as they are now, and the wishes that can be written."""

    def __init__(self, api: Api, kind: Kind, key: Key, *, dry_run: bool) -> None:
        self._api, self._kind, self._key, self._dry_run = api, kind, key, dry_run
        instances = api.registry.by_resource(_PARENT, kind.version, _INSTANCES)
        assert instances is not None, "virtualmachineinstances are served with virtualmachines"
        self._instance_key = Key(instances.resource, key.namespace, key.name)
        self._doc = _existing(api, key)
        try:
            self.instance: Doc | None = api.store.get(self._instance_key)
        except NotFound:
            self.instance = None

    @property
    def strategy(self) -> str:
        """The run strategy, ``running`` spelled out."""
        spec = self._doc["spec"]
        return spec.get("runStrategy") or ("Always" if spec.get("running") else "Halted")

    @property
    def instance_phase(self) -> str:
        return str(meta.get(self.instance or {}, "status.phase", ""))

    @property
    def instance_uid(self) -> str:
        return str(self.instance["metadata"]["uid"]) if self.instance else ""

    @property
    def running(self) -> bool:
        """Whether there is an instance that has not ended."""
        return self.instance is not None and self.instance_phase not in _FINAL

    def conflict(self, message: str) -> TandemError:
        """The machine's state does not allow it."""
        return _conflict(self._kind, self._key, message)

    async def set_strategy(self, strategy: str) -> None:
        """Rewrite the spec, in whichever of its two fields the user wrote."""

        def rewrite(old: Doc) -> Prepared:
            new = clone(old)
            spec = new["spec"]
            if "running" in spec:
                spec["running"] = strategy == "Always"
            else:
                spec["runStrategy"] = strategy
            return prepare_update(self._kind, new, old)

        await change(self._api, self._kind, self._key, rewrite, dry_run=self._dry_run)

    async def request(self, *requests: Doc) -> None:
        """Ask the controller to stop or start, unless something is asked for already."""

        def append(old: Doc) -> Prepared:
            new = clone(old)
            status = new.setdefault("status", {})
            if status.get("stateChangeRequests"):
                raise TandemError("unable to complete request: stop/start already underway")
            status["stateChangeRequests"] = list(requests)
            return prepare_update(self._kind, new, old, subresource="status")

        await change(self._api, self._kind, self._key, append, dry_run=self._dry_run)

    async def set_grace(self, seconds: int) -> None:
        """Give the running instance another grace period, which its user may not change himself."""

        def shorten(instance: Doc) -> Doc:
            instance["spec"]["terminationGracePeriodSeconds"] = seconds
            return instance

        if not self._dry_run:
            await self._api.store.mutate(self._instance_key, shorten)


async def _options(call: Call) -> Doc:
    """The body, whatever its Content-Type says or whether there is one."""
    data = (await media.read_body(call.request)).strip()
    if not data:
        return {}
    options = media.decode(data, media.JSON if data.startswith(b"{") else media.YAML)
    if not isinstance(options, dict):
        raise BadRequest("the body of the request must be an object")
    return options


def _seconds(options: Doc, name: str) -> int | None:
    value: Any = options.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadRequest(f"{name} must be a number of seconds, 0 or more")
    return value


def _existing(api: Api, key: Key) -> Doc:
    try:
        return api.store.get(key)
    except NotFound as error:
        raise NotFound(
            f'{_singular(key)} "{key.name}" not found',
            details={"name": key.name, "group": _PARENT, "kind": _singular(key).partition(".")[0]},
        ) from error


def _conflict(kind: Kind, key: Key, message: str) -> Conflict:
    return Conflict(
        f'Operation cannot be fulfilled on {_singular(key)} "{key.name}": {message}',
        details={"name": key.name, "group": kind.group, "kind": kind.singular},
    )


def _singular(key: Key) -> str:
    """``virtualmachine.kubevirt.io``: KubeVirt's own answers name the resource so."""
    plural, _, group = key.resource.partition(".")
    return f"{plural.removesuffix('s')}.{group}"


def _not_allowed() -> TandemError:
    return MethodNotAllowed("the server does not allow this method on the requested resource")
