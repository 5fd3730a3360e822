"""One probe, and one container with its probes: numbers, counts and what they have come to.

What is done about them, and when, is :mod:`tandem.control.pods.probes`.
"""

from __future__ import annotations

import asyncio
import math

from tandem.api.kind import Doc

KINDS = {"startup": "startupProbe", "liveness": "livenessProbe", "readiness": "readinessProbe"}
"""What a probe is called in words, and where a container has it."""


class Streak:
    """How many results in a row were the same."""

    def __init__(self, success_threshold: int, failure_threshold: int) -> None:
        self._thresholds = {True: success_threshold, False: failure_threshold}
        self._last: bool | None = None
        self._count = 0

    def add(self, ok: bool) -> bool | None:
        """Count a result; the verdict when there are enough of it in a row, else None."""
        self._count = self._count + 1 if ok is self._last else 1
        self._last = ok
        return ok if self._count >= self._thresholds[ok] else None


class Probe:
    """One probe of one container: its numbers, its timer, its task."""

    def __init__(self, kind: str, spec: Doc) -> None:
        self.kind = kind
        self.spec = spec
        self.period = float(spec.get("periodSeconds") or 10)
        self.timeout = float(spec.get("timeoutSeconds") or 1)
        self.delay = float(spec.get("initialDelaySeconds") or 0)
        self.streak = Streak(
            int(spec.get("successThreshold") or 1), int(spec.get("failureThreshold") or 3)
        )
        self.due = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """No more of it; what is under way is cut off."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.task is not None:
            self.task.cancel()
            self.task = None

    def first_tick(self, begun: float, now: float) -> float:
        """The first whole period since ``begun`` that is after the initial delay, and not past."""
        ticks = max(1, math.ceil(self.delay / self.period), math.ceil((now - begun) / self.period))
        return begun + ticks * self.period

    def next_tick(self, now: float) -> float:
        """When to probe again. Ticks that went by under way are one, which is due at once."""
        missed = max(0, math.floor((now - self.due) / self.period) - 1)
        return self.due + (missed + 1) * self.period


class Watched:
    """A container with probes, as it runs now; ``container_id`` is empty while it does not."""

    def __init__(self, pod: Doc, container: Doc, path: str) -> None:
        metadata = pod["metadata"]
        fields = ("name", "namespace", "uid")
        # No more of the Pod than Events and words need: it would be kept in memory.
        self.pod: Doc = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {field: metadata[field] for field in fields},
        }
        self.container = container
        self.path = path
        self.address = ""
        self.container_id = ""
        self.begun = 0.0
        self.started = False
        self.ready = False
        self.failed: Probe | None = None
        self.probes: dict[str, Probe] = {}

    @property
    def uid(self) -> str:
        return str(self.pod["metadata"]["uid"])

    def begin(self, container_id: str, begun: float) -> None:
        """It runs, and nothing is known of it. ``begun``: when, by the loop's clock."""
        self.end()
        self.container_id = container_id
        self.begun = begun
        self.probes = {
            kind: Probe(kind, spec)
            for kind, field in KINDS.items()
            if (spec := self.container.get(field)) is not None
        }
        self.started = "startup" not in self.probes
        self.ready = "readiness" not in self.probes

    def end(self) -> None:
        """It does not run any more."""
        for probe in self.probes.values():
            probe.stop()
        self.probes = {}
        self.container_id = ""
        self.started = self.ready = False
        self.failed = None
