"""When probes run, what they are counted to, and what follows: on a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tandem.api.kind import Doc
from tandem.control.pods.handlers import Outcome
from tandem.control.pods.probes import COMMANDS_AT_ONCE, TRIES, Probes
from tandem.control.pods.probestate import Streak
from tandem.errors import Unavailable
from tandem.runtimes.adapter import ContainerStatus, Phase, RuntimeStatus
from tests.unit.control.plant import FAKE_TIME

pytestmark = FAKE_TIME

OK = Outcome(True)
BAD = Outcome(False, "it is bad")
BROKEN = Outcome(False, "no way to ask", errored=True)


class Bench:
    """Probes whose handlers do as they are told, and a Pod with one container."""

    def __init__(self) -> None:
        self.start = asyncio.get_running_loop().time()
        self.asked: list[tuple[str, int]] = []
        """Which probe ran, and how many seconds after the beginning."""
        self.says: dict[str, Callable[[], Outcome]] = {}
        self.takes = 0.0
        self.most = self._running = 0
        self.changes: list[str] = []
        self.events: list[tuple[str, str]] = []
        self.restart()
        self.probes._born -= timedelta(days=1)

    def restart(self) -> None:
        """The probes of a new daemon."""
        self.probes = Probes(self, self, self.changes.append)  # type: ignore[arg-type]

    # -- in place of Handlers and Recorder

    async def run(self, handler: Doc, pod: Doc, container: Doc, **_: Any) -> Outcome:
        kind = handler["exec"]["command"][0]
        self.asked.append((kind, round(asyncio.get_running_loop().time() - self.start)))
        self._running += 1
        self.most = max(self.most, self._running)
        try:
            if self.takes:
                await asyncio.sleep(self.takes)
            return self.says.get(kind, lambda: OK)()
        finally:
            self._running -= 1

    def warning(self, pod: Doc, reason: str, message: str, *, field_path: str) -> None:
        assert field_path in ("spec.containers{main}", "spec.initContainers{main}")
        self.events.append((reason, message))

    # -- moves

    def look(
        self,
        *probes: Doc,
        id: str = "1",
        phase: Phase = Phase.RUNNING,
        uid: str = "uid-1",
        status: Doc | None = None,
        deleting: bool = False,
        age: float = 0.0,
        hidden: Collection[str] = (),
    ) -> None:
        """The Pod loop looks at the Pod, whose container has run for ``age`` seconds."""
        container: Doc = {"name": "main", **{k: v for probe in probes for k, v in probe.items()}}
        metadata: Doc = {"name": "web", "namespace": "default", "uid": uid}
        if deleting:
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        spec = {"containers": [container]}
        started = datetime.now(UTC) - timedelta(seconds=age)
        seen = ContainerStatus("main", phase, container_id=id, started_at=started)
        pod = {"metadata": metadata, "spec": spec, "status": status or {}}
        observed = RuntimeStatus(Phase.RUNNING, uid, containers=(seen,), addresses=("10.0.0.9",))
        self.probes.follow(pod, observed, hidden=hidden)

    async def until(self, second: float) -> None:
        """Let time pass to just after this second."""
        now = asyncio.get_running_loop().time() - self.start
        await asyncio.sleep(second - now + 0.4)

    def times(self, kind: str) -> list[int]:
        return [second for asked, second in self.asked if asked == kind]

    @property
    def ready(self) -> bool:
        return self.probes.readiness("uid-1", "main", "1").ready

    @property
    def started(self) -> bool:
        return self.probes.readiness("uid-1", "main", "1").started

    @property
    def doomed(self) -> str | None:
        return self.probes.doomed("uid-1", "main", "containerd://1")


def probe(kind: str, **numbers: int) -> Doc:
    defaults = {
        "periodSeconds": 10,
        "timeoutSeconds": 1,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    return {f"{kind}Probe": {"exec": {"command": [kind]}, **defaults, **numbers}}


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.probes.close()
    assert not [task for task in asyncio.all_tasks() if "-probe " in task.get_name()]


# -- counting


@pytest.mark.parametrize(
    ("success", "failure", "results", "verdicts"),
    [
        (1, 1, "+-+", "+-+"),
        (1, 3, "---", "..-"),
        (1, 3, "----", "..--"),
        (1, 3, "--+--", "..+.."),
        (1, 3, "--+---", "..+..-"),
        (3, 1, "+++", "..+"),
        (3, 1, "++-+++", "..-..+"),
        (2, 2, "+-+-+-", "......"),
        (2, 2, "++--++", ".+.-.+"),
    ],
)
def test_enough_results_in_a_row_are_a_verdict(
    success: int, failure: int, results: str, verdicts: str
) -> None:
    streak = Streak(success, failure)
    symbol = {True: "+", False: "-", None: "."}
    assert "".join(symbol[streak.add(result == "+")] for result in results) == verdicts


# -- when


@pytest.mark.parametrize(
    ("kind", "numbers", "times"),
    [
        ("readiness", {}, [0, 10, 20, 30]),
        ("readiness", {"initialDelaySeconds": 5}, [5, 15, 25, 35]),
        ("readiness", {"initialDelaySeconds": 25, "periodSeconds": 4}, [25, 29, 33, 37]),
        ("liveness", {}, [10, 20, 30]),
        ("liveness", {"initialDelaySeconds": 5, "periodSeconds": 5}, [5, 10, 15, 20, 25, 30, 35]),
        ("liveness", {"initialDelaySeconds": 15}, [20, 30]),
        ("liveness", {"initialDelaySeconds": 3, "periodSeconds": 30}, [30]),
    ],
)
async def test_the_first_probe_waits_for_the_initial_delay_and_the_others_for_the_period(
    bench: Bench, kind: str, numbers: dict[str, int], times: list[int]
) -> None:
    bench.look(probe(kind, **numbers))
    await bench.until(38)
    assert bench.times(kind) == times


async def test_the_initial_delay_counts_from_the_containers_start(bench: Bench) -> None:
    bench.look(probe("readiness", initialDelaySeconds=12))
    bench.look(probe("readiness", initialDelaySeconds=12), age=4, uid="uid-2")
    await bench.until(13)
    assert bench.times("readiness") == [8, 12]


async def test_looking_again_changes_nothing(bench: Bench) -> None:
    for second in range(0, 30, 3):
        bench.look(probe("readiness"), probe("liveness"))
        await bench.until(second)
    assert bench.times("readiness") == [0, 10, 20]
    assert bench.times("liveness") == [10, 20]


async def test_a_slow_probe_never_overlaps_itself(bench: Bench) -> None:
    bench.takes = 23
    bench.look(probe("liveness"))
    await bench.until(80)
    assert bench.times("liveness") == [10, 33, 56, 79]
    assert bench.most == 1
    bench.takes = 0
    await bench.until(121)
    # The ticks that went by under way are one, and due at once; then the clock is kept again.
    assert bench.times("liveness")[4:] == [102, 110, 120]


async def test_probes_that_hang_do_not_hold_up_others(bench: Bench) -> None:
    bench.takes = 9
    for number in range(30):
        bench.look(probe("liveness"), uid=f"uid-{number}")
    await bench.until(12)
    bench.takes = 0
    bench.look(probe("readiness"), uid="quick")
    await bench.until(13)
    assert bench.times("readiness") == [13 - 1]


async def test_no_more_commands_run_at_once_than_the_runtime_bears(bench: Bench) -> None:
    bench.takes = 1
    for number in range(COMMANDS_AT_ONCE * 2):
        bench.look(probe("readiness"), uid=f"uid-{number}")
    await bench.until(2)
    assert bench.most == COMMANDS_AT_ONCE
    assert len(bench.asked) == COMMANDS_AT_ONCE * 2


# -- readiness


async def test_without_probes_a_container_is_started_and_ready(bench: Bench) -> None:
    bench.look()
    assert bench.probes.readiness("uid-1", "main", "1") == (True, True)
    bench.look(probe("liveness"), uid="uid-2")
    assert bench.probes.readiness("uid-2", "main", "1") == (True, True)


async def test_readiness_goes_by_the_thresholds_both_ways(bench: Bench) -> None:
    bench.says["readiness"] = lambda: BAD
    bench.look(probe("readiness", periodSeconds=1, successThreshold=2, failureThreshold=3))
    await bench.until(5)
    assert not bench.ready
    assert bench.changes == []  # it never was
    bench.says["readiness"] = lambda: OK
    await bench.until(6)
    assert not bench.ready
    await bench.until(7)
    assert bench.ready
    assert bench.changes == ["uid-1"]
    bench.says["readiness"] = lambda: BAD
    await bench.until(9)
    assert bench.ready
    await bench.until(10)
    assert not bench.ready
    assert bench.changes == ["uid-1"] * 2
    assert bench.doomed is None
    assert bench.events[0] == ("Unhealthy", "Readiness probe failed: it is bad")


async def test_a_warning_is_told_and_counts_as_success(bench: Bench) -> None:
    said = "Probe terminated redirects, Response body: x"
    bench.says["readiness"] = lambda: Outcome(True, said, warning=True)
    bench.look(probe("readiness"))
    await bench.until(1)
    assert bench.ready
    assert bench.events == [("ProbeWarning", f"Readiness probe warning: {said}")]


# -- liveness


async def test_liveness_fails_after_enough_failures_and_then_holds(bench: Bench) -> None:
    bench.says["liveness"] = lambda: BAD
    bench.look(probe("liveness", terminationGracePeriodSeconds=3))
    await bench.until(21)
    assert bench.doomed is None
    assert bench.changes == []
    await bench.until(31)
    assert bench.doomed == "failed liveness probe"
    assert bench.probes.grace_seconds("uid-1", "main", "1") == 3
    assert bench.changes == ["uid-1"]
    await bench.until(100)
    assert bench.times("liveness") == [10, 20, 30]
    assert bench.events == [("Unhealthy", "Liveness probe failed: it is bad")] * 3


async def test_a_container_that_is_not_done_with_starting_is_not_probed(bench: Bench) -> None:
    bench.look(probe("readiness"), hidden=["main"])
    await bench.until(5)
    assert not bench.asked
    bench.look(probe("readiness"))
    await bench.until(6)
    assert bench.times("readiness") == [5]


async def test_a_new_container_begins_from_nothing(bench: Bench) -> None:
    bench.says["liveness"] = lambda: BAD
    probes = (probe("liveness"), probe("readiness"))
    bench.look(*probes)
    await bench.until(25)  # two failures of three
    assert bench.ready
    bench.look(*probes, phase=Phase.FAILED)
    assert not bench.ready
    await bench.until(50)
    assert bench.times("liveness") == [10, 20]
    bench.look(*probes, id="2")
    assert not bench.probes.readiness("uid-1", "main", "2").ready
    await bench.until(75)
    assert bench.times("liveness") == [10, 20, 60, 70]
    assert bench.probes.doomed("uid-1", "main", "2") is None
    await bench.until(81)
    assert bench.probes.doomed("uid-1", "main", "2") is not None
    assert bench.doomed is None  # the old one is nobody's concern
    assert bench.probes.readiness("uid-1", "main", "2").ready


async def test_the_result_of_a_probe_of_the_old_container_is_dropped(bench: Bench) -> None:
    bench.takes = 5
    bench.look(probe("readiness"))
    await bench.until(3)
    bench.takes = 0
    bench.says["readiness"] = lambda: BAD
    bench.look(probe("readiness"), id="2")
    await bench.until(6)
    assert not bench.probes.readiness("uid-1", "main", "2").ready


# -- startup


async def test_startup_holds_the_others_back_until_it_has_succeeded(bench: Bench) -> None:
    bench.says["startup"] = lambda: BAD
    probes = (
        probe("startup", periodSeconds=2, failureThreshold=30),
        probe("liveness", periodSeconds=7),
        probe("readiness", periodSeconds=5),
    )
    bench.look(*probes)
    await bench.until(19)
    assert (bench.started, bench.ready) == (False, False)
    assert set(bench.asked) == {("startup", second) for second in range(2, 20, 2)}
    bench.says["startup"] = lambda: OK
    await bench.until(22)
    assert (bench.started, bench.ready) == (True, True)
    assert bench.changes == ["uid-1"] * 2
    await bench.until(34)
    assert bench.times("startup")[-1] == 20
    assert bench.times("readiness") == [20, 25, 30]  # at once: somebody waits for it
    assert bench.times("liveness") == [21, 28]  # at its own next tick


async def test_a_container_that_does_not_start_is_doomed(bench: Bench) -> None:
    bench.says["startup"] = lambda: BAD
    bench.look(probe("startup", failureThreshold=2), probe("liveness"))
    await bench.until(60)
    assert bench.doomed == "failed startup probe"
    assert bench.times("startup") == [10, 20]
    assert bench.times("liveness") == []
    assert not bench.started


# -- what is no answer


async def test_a_probe_that_cannot_be_run_is_tried_again_and_says_nothing(bench: Bench) -> None:
    def away() -> Outcome:
        raise Unavailable("the runtime is away")

    bench.says["liveness"] = away
    bench.says["readiness"] = lambda: BROKEN
    bench.look(probe("liveness", failureThreshold=1), probe("readiness"))
    await bench.until(29)
    assert bench.doomed is None
    assert bench.times("readiness") == [0] * TRIES + [10] * TRIES + [20] * TRIES
    assert bench.events[0] == ("Unhealthy", "Readiness probe errored: no way to ask")
    assert ("Unhealthy", "Liveness probe errored: the runtime is away") in bench.events
    answers = iter([BROKEN, OK])
    bench.says["readiness"] = lambda: next(answers)
    await bench.until(31)
    assert bench.ready


async def test_errors_do_not_break_a_row(bench: Bench) -> None:
    answers = iter([BAD, BAD, BROKEN, BROKEN, BROKEN, BAD])
    bench.says["liveness"] = lambda: next(answers)
    bench.look(probe("liveness"))
    await bench.until(31)
    assert bench.doomed is None
    await bench.until(41)
    assert bench.doomed is not None


# -- the Pod's end, and the daemon's


async def test_a_pod_that_ends_is_asked_for_readiness_only(bench: Bench) -> None:
    probes = (probe("liveness"), probe("readiness"))
    bench.look(*probes)
    await bench.until(15)
    bench.says = {"liveness": lambda: BAD, "readiness": lambda: BAD}
    bench.look(*probes, deleting=True)
    await bench.until(55)
    assert bench.times("liveness") == [10]
    assert bench.times("readiness") == [0, 10, 20, 30, 40, 50]
    assert not bench.ready
    bench.probes.forget("uid-1")
    await bench.until(100)
    assert bench.times("readiness")[-1] == 50


async def test_a_pod_that_ends_before_it_has_started_is_not_killed_for_it(bench: Bench) -> None:
    probes = (probe("startup", failureThreshold=1), probe("readiness"))
    bench.says["startup"] = lambda: BAD
    bench.look(*probes)
    await bench.until(11)
    assert bench.doomed
    bench.look(*probes, deleting=True)
    assert bench.doomed is None
    assert bench.started


async def test_after_a_restart_of_the_daemon_what_was_known_holds(bench: Bench) -> None:
    bench.restart()
    entry = {"name": "main", "containerID": "containerd://1", "started": True, "ready": True}
    status = {"containerStatuses": [entry]}
    bench.says["readiness"] = lambda: BAD
    probes = (
        probe("startup"),
        probe("readiness", periodSeconds=60, failureThreshold=2),
    )
    bench.look(*probes, status=status, age=100)
    assert (bench.started, bench.ready) == (True, True)
    await bench.until(61)  # within one period, whenever it was its turn
    assert bench.times("startup") == []
    assert len(bench.times("readiness")) == 1
    assert bench.ready
    await bench.until(121)
    assert not bench.ready


async def test_what_was_known_of_another_container_does_not_hold(bench: Bench) -> None:
    bench.restart()
    entry = {"name": "main", "containerID": "containerd://0", "started": True, "ready": True}
    bench.look(probe("readiness"), status={"containerStatuses": [entry]}, age=100)
    assert not bench.ready


async def test_probes_found_at_the_start_are_spread_over_their_period(bench: Bench) -> None:
    bench.restart()
    for number in range(100):
        bench.look(probe("readiness", periodSeconds=500), uid=f"uid-{number}", age=100)
    await bench.until(250)
    assert 20 < len(bench.asked) < 80
    await bench.until(501)
    assert len(bench.asked) >= 100
