"""What a Pod needs next, out of its spec, what the runtime says, and what the probes say. Pure.

The same question is asked after every change, and the answer never depends on what was answered before:
a step that was begun and not finished is simply asked for again.

- A Pod needs a sandbox. One that was lost is made anew, and everything begins again in it.
- Its init containers run one by one, each to its good end. One that restarts by itself (a sidecar) only
  has to have started before the next begins, and runs until the containers have ended.
- Then all its containers run, each restarted as the policy says.
- It is over when none of its containers runs or will run again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from tandem.api.kind import Doc
from tandem.api.kinds.resources import is_sidecar
from tandem.api.meta import get
from tandem.runtimes.adapter import ContainerStatus, Phase, RuntimeStatus

ENDED = (Phase.SUCCEEDED, Phase.FAILED, Phase.STOPPED)

LOST_EXIT_CODE = 137
"""What a container that has disappeared is taken to have ended with."""


class Role(Enum):
    """Where in the spec a container stands; the value is the field."""

    INIT = "initContainers"
    MAIN = "containers"
    EPHEMERAL = "ephemeralContainers"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the probes say of a container that runs. ``doomed`` completes "Container x ...": why it
    must be ended, None when it must not."""

    started: bool = True
    ready: bool = True
    doomed: str | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """A container to start. ``ended``: how its attempt before this one has ended, as far as the runtime
    still knows it."""

    role: Role
    name: str
    attempt: int
    ended: ContainerStatus | None = None


@dataclass(frozen=True, slots=True)
class Kill:
    """A container to end, though its Pod goes on; ``message`` is what the Event says. ``revives``: it
    is started again whatever the policy says."""

    role: Role
    name: str
    message: str
    revives: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """``make_sandbox``: before anything else. ``over``: nothing is to run any more, and what still
    does (sidecars) is ended."""

    make_sandbox: bool = False
    start: tuple[Start, ...] = ()
    kill: tuple[Kill, ...] = ()
    over: bool = False


Verdicts = Callable[[ContainerStatus], Verdict]


def plan(
    pod: Doc,
    observed: RuntimeStatus | None,
    verdict: Verdicts,
    *,
    revived: Collection[str] = (),
) -> Plan:
    """The next steps for ``pod``. ``revived``: containers that were ended in order to be started again,
    whatever the policy says."""
    spec = pod["spec"]
    policy = spec.get("restartPolicy") or "Always"
    history = _history(pod)
    if not has_sandbox(observed):
        seen = _seen(observed)
        return _without_sandbox(spec, policy, {**history, **seen})
    planner = _Planner(policy, history, _seen(observed), verdict, frozenset(revived))
    planner.ephemeral(spec.get("ephemeralContainers") or ())
    if not planner.init(spec.get("initContainers") or (), spec["containers"]):
        return planner.result()
    planner.main(spec["containers"])
    return planner.result()


def has_sandbox(observed: RuntimeStatus | None) -> bool:
    """Whether containers can be started in the workload."""
    return observed is not None and observed.phase not in ENDED


def restarts(policy: str, exit_code: int | None) -> bool:
    """Whether a container that ended with ``exit_code`` is started again."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def _without_sandbox(spec: Doc, policy: str, past: dict[str, ContainerStatus]) -> Plan:
    if policy == "Never" and past:
        return Plan(over=True)
    main = [past.get(container["name"]) for container in spec["containers"]]
    to_run = any(ended is None or restarts(policy, ended.exit_code) for ended in main)
    if not to_run and any(main):
        return Plan(over=True)
    return Plan(make_sandbox=True)


class _Planner:
    """Collects the steps. ``seen``: the containers in the sandbox; ``history``: what the status says of
    containers in an earlier one."""

    def __init__(
        self,
        policy: str,
        history: dict[str, ContainerStatus],
        seen: dict[str, ContainerStatus],
        verdict: Verdicts,
        revived: frozenset[str],
    ) -> None:
        self._policy = policy
        self._history = history
        self._seen = seen
        self._verdict = verdict
        self._revived = revived
        self._start: list[Start] = []
        self._kill: list[Kill] = []
        self._over = False

    def result(self) -> Plan:
        if self._over:
            return Plan(over=True)
        return Plan(start=tuple(self._start), kill=tuple(self._kill))

    def ephemeral(self, containers: Sequence[Doc]) -> None:
        """Each is started once, whatever the others do."""
        for container in containers:
            name = container["name"]
            seen = self._seen.get(name)
            if (seen is None and name not in self._history) or _half_made(seen):
                self._add_start(Role.EPHEMERAL, name)

    def init(self, containers: Sequence[Doc], main: Sequence[Doc]) -> bool:
        """The init containers' steps; returns whether all of them have done their part."""
        # What follows them is in this sandbox: they have, and only sidecars still matter.
        done = any(container["name"] in self._seen for container in main)
        last = len(containers) - 1
        while not done and last >= 0 and containers[last]["name"] not in self._seen:
            last -= 1
        for index, container in enumerate(containers[: last + 1]):
            if index < last or done:
                if is_sidecar(container):
                    self._sidecar(container)
            elif is_sidecar(container):
                if not self._sidecar(container):
                    return False
            elif not self._step(container["name"]):
                return False
        if not done and last + 1 < len(containers):
            self._add_start(Role.INIT, containers[last + 1]["name"])
            return False
        return True

    def _step(self, name: str) -> bool:
        """An init container that has to end well; returns whether it has."""
        seen = self._seen[name]
        if _half_made(seen):
            self._add_start(Role.INIT, name)
        elif seen.phase is Phase.UNKNOWN:
            self._add_kill(Role.INIT, name, "is in unknown state")
        elif seen.phase in ENDED:
            if seen.exit_code == 0:
                return True
            if self._policy == "Never":
                self._over = True
            else:
                self._add_start(Role.INIT, name)
        return False

    def _sidecar(self, container: Doc) -> bool:
        """A sidecar; returns whether the next container need not wait for it."""
        name = container["name"]
        seen = self._seen.get(name)
        if seen is None or seen.phase in ENDED or _half_made(seen):
            self._add_start(Role.INIT, name)
            return False
        if why := self._why_killed(container, seen):
            self._add_kill(Role.INIT, name, why)
            return False
        return self._verdict(seen).started

    def main(self, containers: Sequence[Doc]) -> None:
        """The containers themselves."""
        alive = False
        for container in containers:
            name = container["name"]
            seen = self._seen.get(name)
            if seen is None:
                ended = self._history.get(name)
                if ended is None or restarts(self._policy, ended.exit_code):
                    self._add_start(Role.MAIN, name)
            elif _half_made(seen):
                self._add_start(Role.MAIN, name)
            elif seen.phase in ENDED:
                if name in self._revived or restarts(self._policy, seen.exit_code):
                    self._add_start(Role.MAIN, name)
            else:
                alive = True
                if why := self._why_killed(container, seen):
                    revives = _is_changed(container, seen)
                    again = revives or self._policy != "Never"
                    words = f"{why}, will be restarted" if again else why
                    self._add_kill(Role.MAIN, name, words, revives=revives)
        self._over = not alive and not any(step.role is Role.MAIN for step in self._start)

    def _why_killed(self, container: Doc, seen: ContainerStatus) -> str | None:
        if seen.phase is Phase.UNKNOWN:
            return "is in unknown state"
        if _is_changed(container, seen):
            return "definition changed"
        return self._verdict(seen).doomed

    def _add_start(self, role: Role, name: str) -> None:
        seen = self._seen.get(name)
        last = seen or self._history.get(name)
        attempt = 0 if last is None else last.attempt if _half_made(last) else last.attempt + 1
        ended = seen if seen is not None and seen.phase in ENDED else None
        self._start.append(Start(role, name, attempt, ended))

    def _add_kill(self, role: Role, name: str, why: str, *, revives: bool = False) -> None:
        what = "Init container" if role is Role.INIT else "Container"
        self._kill.append(Kill(role, name, f"{what} {name} {why}", revives))


def _half_made(seen: ContainerStatus | None) -> bool:
    """Whether it was made and not started: a daemon was killed in between."""
    return seen is not None and seen.phase is Phase.PENDING


def _is_changed(container: Doc, seen: ContainerStatus) -> bool:
    """Whether its image, the one part that may, has changed since it was started."""
    return bool(seen.image) and seen.image != container["image"]


def _seen(observed: RuntimeStatus | None) -> dict[str, ContainerStatus]:
    return {entry.name: entry for entry in observed.containers} if observed else {}


def _history(pod: Doc) -> dict[str, ContainerStatus]:
    """The containers that have run, as the Pod's status remembers them; all of them ended."""
    found = {}
    for field in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for entry in get(pod, f"status.{field}", ()):
            code = _last_exit_code(entry)
            if code is not None:
                found[entry["name"]] = ContainerStatus(
                    entry["name"],
                    Phase.SUCCEEDED if code == 0 else Phase.FAILED,
                    attempt=int(entry.get("restartCount", 0)),
                    exit_code=code,
                )
    return found


def _last_exit_code(entry: Doc) -> int | None:
    state = entry.get("state") or {}
    if "running" in state:
        return LOST_EXIT_CODE
    ended = state.get("terminated") or (entry.get("lastState") or {}).get("terminated")
    return int(ended.get("exitCode", 0)) if ended else None
