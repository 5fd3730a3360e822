"""How far a Job has come: what its status says, and what its Pods say beyond that.

A Pod counts once. The finalizer that every Pod of a Job has keeps it until it has been counted: its UID
is written into the status as uncounted, then the finalizer goes, then the number rises, so that a daemon
may die anywhere in between. Of an Indexed Job's successes the list of indexes is record enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tandem.api.kind import Doc
from tandem.api.meta import get, now
from tandem.control.owners import jobindexes, podfacts
from tandem.control.owners.jobpolicies import judge

TRACKING = "batch.kubernetes.io/job-tracking"

MAX_UNCOUNTED = 500
"""Most Pods that are counted in one step, which bounds the status."""


def is_tracked(pod: Doc) -> bool:
    """Whether a Pod has not been counted completely."""
    return TRACKING in (pod["metadata"].get("finalizers") or ())


def is_indexed(job: Doc) -> bool:
    """Whether each Pod works on an index of its own."""
    return bool(get(job, "spec.completionMode") == "Indexed")


def has_failed(job: Doc, pod: Doc) -> bool:
    """Whether a Pod counts as failed: one that somebody deleted as well, as it may never get so far as
    to fail, unless only what has really failed is to be replaced."""
    phase = get(pod, "status.phase")
    if phase == "Failed":
        return True
    if get(job, "spec.podReplacementPolicy") == "Failed":
        return False
    return bool(get(pod, "metadata.deletionTimestamp")) and phase != "Succeeded"


def find(status: Doc, type_: str) -> Doc | None:
    """The condition of this type, if it holds."""
    for entry in status.get("conditions") or ():
        if entry["type"] == type_ and entry["status"] == "True":
            return dict(entry)
    return None


def ensure(status: Doc, type_: str, value: str, reason: str, message: str) -> bool:
    """Put a condition in its place; one that does not hold and never did says nothing. Returns whether
    anything changed."""
    conditions: list[Doc] = status.setdefault("conditions", [])
    time = now()
    new = {
        "type": type_,
        "status": value,
        "lastProbeTime": time,
        "lastTransitionTime": time,
        "reason": reason,
        "message": message,
    }
    for at, entry in enumerate(conditions):
        if entry["type"] == type_:
            if all(entry.get(name) == new[name] for name in ("status", "reason", "message")):
                return False
            conditions[at] = new
            return True
    if value == "False":
        return False
    conditions.append(new)
    return True


@dataclass(slots=True)
class Count:
    """A Job and its Pods at one moment. ``status`` is the next status in the making."""

    job: Doc
    pods: list[Doc]
    status: Doc
    active: list[Doc] = field(default_factory=list)
    terminating: int = 0
    ready: int = 0
    done: set[int] = field(default_factory=set)
    """Indexes that have succeeded, the newest among them."""
    counted: set[int] = field(default_factory=set)
    """Those of them that the status has already."""
    lost: set[int] = field(default_factory=set)
    """Indexes that have failed for good."""
    uncounted: dict[str, list[str]] = field(default_factory=dict)
    """UIDs of Pods that are written down and not yet in a number, by ``succeeded`` and ``failed``."""

    def __post_init__(self) -> None:
        self.active = [pod for pod in self.pods if podfacts.is_active(pod)]
        self.ready = sum(podfacts.is_ready(pod) for pod in self.active)
        self.terminating = sum(
            bool(get(pod, "metadata.deletionTimestamp")) and not podfacts.is_over(pod)
            for pod in self.pods
        )
        uncounted = self.status.setdefault("uncountedTerminatedPods", {})
        self.uncounted = {name: list(uncounted.get(name) or ()) for name in ("succeeded", "failed")}
        if is_indexed(self.job):
            self._count_indexes()

    @property
    def completions(self) -> int:
        """How many indexes there are."""
        return int(get(self.job, "spec.completions", 0))

    @property
    def per_index(self) -> int | None:
        """How often one index may fail, None where all failures count together."""
        limit = get(self.job, "spec.backoffLimitPerIndex")
        return None if limit is None else int(limit)

    def valid(self, pod: Doc) -> bool:
        """Whether a Pod is of any use to the Job: in an Indexed one it has an index that is wanted."""
        if not is_indexed(self.job):
            return True
        index = jobindexes.index_of(pod)
        return index is not None and index < self.completions

    def _new(self, name: str) -> Iterable[Doc]:
        known = set(self.uncounted[name])
        for pod in self.pods:
            if is_tracked(pod) and pod["metadata"]["uid"] not in known and self.valid(pod):
                yield pod

    @property
    def new_succeeded(self) -> list[Doc]:
        """Pods that have succeeded and are in no count yet."""
        return [p for p in self._new("succeeded") if get(p, "status.phase") == "Succeeded"]

    @property
    def new_failed(self) -> list[Doc]:
        """Pods that have failed and are in no count yet."""
        return [pod for pod in self._new("failed") if has_failed(self.job, pod)]

    @property
    def succeeded(self) -> int:
        """All successes."""
        if is_indexed(self.job):
            return len(self.done)
        known = int(self.status.get("succeeded", 0)) + len(self.uncounted["succeeded"])
        return known + len(self.new_succeeded)

    @property
    def failed(self) -> int:
        """All failures that count."""
        known = int(self.status.get("failed", 0)) + len(self.uncounted["failed"])
        return known + sum(judge(self.job, pod).counts for pod in self.new_failed)

    def _count_indexes(self) -> None:
        total = self.completions
        self.counted = jobindexes.parse(self.status.get("completedIndexes", ""), total)
        tracked = [pod for pod in self.pods if is_tracked(pod) and self.valid(pod)]
        self.done = self.counted | jobindexes.indexes_of(
            pod for pod in tracked if get(pod, "status.phase") == "Succeeded"
        )
        if self.per_index is not None:
            self.lost = jobindexes.parse(self.status.get("failedIndexes", ""), total)
            self.lost |= jobindexes.indexes_of(p for p in tracked if self._is_fatal(p))

    def _is_fatal(self, pod: Doc) -> bool:
        """Whether an index has no further try after this Pod."""
        if not has_failed(self.job, pod):
            return False
        verdict = judge(self.job, pod)
        if verdict.action == "FailIndex":
            return True
        return verdict.counts and jobindexes.failures(pod) >= (self.per_index or 0)

    def waiting(self) -> dict[int, Doc]:
        """Of each index that is to be tried again, the last Pod, which knows how often it has failed: it
        is kept until its successor has been told."""
        if self.per_index is None:
            return {}
        settled = self.done | self.lost | jobindexes.indexes_of(self.active)
        found: dict[int, Doc] = {}
        for pod in self.pods:
            index = jobindexes.index_of(pod)
            if not (is_tracked(pod) and self.valid(pod) and has_failed(self.job, pod)):
                continue
            if index is None or index in settled:
                continue
            if index not in found or jobindexes.all_failures(pod) >= jobindexes.all_failures(
                found[index]
            ):
                found[index] = pod
        return found

    # -- counting ----------------------------------------------------------------------------

    def clean(self, tracked: set[str]) -> bool:
        """Count what has been written down and has lost its finalizer; returns whether any has."""
        changed = False
        for name, uids in self.uncounted.items():
            left = [uid for uid in uids if uid in tracked]
            if len(left) != len(uids):
                changed = True
                self.status[name] = int(self.status.get(name, 0)) + len(uids) - len(left)
                self.uncounted[name] = left
        self.store()
        return changed

    def store(self) -> None:
        """Write the lists into the status."""
        self.status["uncountedTerminatedPods"] = {
            name: uids for name, uids in self.uncounted.items() if uids
        }
        if is_indexed(self.job):
            done = jobindexes.write(self.done)
            self.status |= {"succeeded": len(self.done)} if self.done else {}
            self.status |= {"completedIndexes": done} if done else {}
            if self.per_index is not None:
                self.status["failedIndexes"] = jobindexes.write(self.lost)
