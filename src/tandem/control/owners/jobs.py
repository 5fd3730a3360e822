"""The Job loop: Pods until enough have succeeded, or too many have failed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

from tandem.api.kind import Doc
from tandem.api.kinds.job import is_finished
from tandem.api.meta import controller_of, get, now
from tandem.api.selectors import label_selector_from_doc
from tandem.control import clock, objects
from tandem.control.changes import Change
from tandem.control.context import Context
from tandem.control.owners import podfacts
from tandem.control.owners.children import AT_ONCE, Children, Terminating
from tandem.control.owners.jobcount import (
    MAX_UNCOUNTED,
    TRACKING,
    Count,
    ensure,
    find,
    has_failed,
    is_indexed,
    is_tracked,
)
from tandem.control.owners.jobpods import new_pods, restarted_too_often, superfluous
from tandem.control.owners.jobpolicies import judge, success_rule
from tandem.control.queue import WorkQueue
from tandem.errors import TandemError
from tandem.store import Key

RESOURCE = "jobs.batch"
OURS = "kubernetes.io/job-controller"

_FAILING, _SUCCEEDING = "FailureTarget", "SuccessCriteriaMet"


class _End(NamedTuple):
    """How a Job is going to end: the condition that says so beforehand, and why."""

    interim: str
    reason: str
    message: str

    @property
    def final(self) -> str:
        """The condition that holds at the end."""
        return "Failed" if self.interim == _FAILING else "Complete"


class Jobs:
    """See the module's docstring."""

    def __init__(self, context: Context, pods: Children) -> None:
        self._context = context
        self._store = context.store
        self._recorder = context.recorder
        self._kind = context.kind(RESOURCE)
        self._pods = pods
        self.queue: WorkQueue[Key] = WorkQueue("job", self.reconcile)
        pods.serve(
            self._kind,
            lambda job: label_selector_from_doc(get(job, "spec.selector")),
            self.queue.add,
        )
        context.changes.on(podfacts.RESOURCE, self._pod_changed)
        context.changes.on(RESOURCE, self._job_changed)

    # -- Pods that no Job counts any more ----------------------------------------------------

    def _pod_changed(self, change: Change) -> None:
        if not change.deleted and is_tracked(change.doc) and not self._is_counted(change.doc):
            self.queue.add(change.key)

    def _job_changed(self, change: Change) -> None:
        if change.deleted or is_finished(change.doc):
            for key in self._context.changes.owned_by(change.uid):
                self.queue.add(key)

    def _is_counted(self, pod: Doc) -> bool:
        """Whether there is a Job that is not done with a Pod."""
        owner = self._context.changes.key_of((controller_of(pod) or {}).get("uid", ""))
        job = objects.find(self._store, owner) if owner and owner.resource == RESOURCE else None
        return job is not None and not is_finished(job)

    async def _let_go(self, key: Key) -> None:
        """Take the finalizer off a Pod that waits to be counted and will not be."""
        pod = objects.find(self._store, key)
        if pod is not None and is_tracked(pod) and not self._is_counted(pod):
            await self._untrack(pod)

    async def _untrack(self, pod: Doc) -> None:
        def without(doc: Doc) -> None:
            held = doc["metadata"].get("finalizers") or ()
            if left := [name for name in held if name != TRACKING]:
                doc["metadata"]["finalizers"] = left
            else:
                doc["metadata"].pop("finalizers", None)

        uid = pod["metadata"]["uid"]
        await objects.change(self._store, self._pods.key(pod), uid, without)

    # -- one step ----------------------------------------------------------------------------

    async def reconcile(self, key: Key) -> float | None:
        """Take the next step for a Job, or let go of a Pod; returns the seconds after which to look
        again."""
        if key.resource == podfacts.RESOURCE:
            await self._let_go(key)
            return None
        job = objects.find(self._store, key)
        if job is None or get(job, "spec.managedBy", OURS) != OURS:
            return None
        if is_finished(job):
            return await self._expire(key, job)
        pods = await self._pods.claim(self._kind, job, finalizers=(TRACKING,))
        status = copy.deepcopy(job.get("status") or {})
        count = Count(job, pods, status)
        if not status.get("startTime") and not get(job, "spec.suspend"):
            status["startTime"] = now()
        end = self._end(count)
        wait, failure = _deadline_left(count) if end is None else None, None
        if end is not None:
            if not await self._stop(count):
                end = None
        elif not get(job, "metadata.deletionTimestamp"):
            again, failure = await self._manage(count)
            wait = min((seconds for seconds in (wait, again) if seconds is not None), default=None)
            end = self._completed(count)
            if end is None:
                self._tell_of_suspension(count)
        await self._track(key, count, end)
        if failure is not None and not isinstance(failure, Terminating):
            raise failure
        return wait

    async def _expire(self, key: Key, job: Doc) -> float | None:
        """Delete a finished Job when its time is over."""
        seconds = get(job, "spec.ttlSecondsAfterFinished")
        if seconds is None or get(job, "metadata.deletionTimestamp"):
            return None
        status = job["status"]
        ended = find(status, "Complete") or find(status, "Failed") or {}
        left = float(seconds) - clock.since(ended["lastTransitionTime"])
        if left > 0:
            return left
        options = {"propagationPolicy": "Foreground"}
        uid = job["metadata"]["uid"]
        await objects.request_deletion(self._store, self._kind, key, uid=uid, options=options)
        return None

    # -- whether it is over ------------------------------------------------------------------

    def _end(self, count: Count) -> _End | None:
        """Why the Job is to end before all that was wanted is there, if so."""
        job, status = count.job, count.status
        for interim in (_SUCCEEDING, _FAILING):
            if known := find(status, interim):
                return _End(interim, known.get("reason", ""), known.get("message", ""))
        for pod in count.pods:
            if has_failed(job, pod) and (verdict := judge(job, pod)).message:
                return _End(_FAILING, "PodFailurePolicy", verdict.message)
        limit = int(get(job, "spec.backoffLimit", 6))
        if count.failed > limit or restarted_too_often(job, count.pods, limit):
            message = "Job has reached the specified backoff limit"
            return _End(_FAILING, "BackoffLimitExceeded", message)
        left = _deadline_left(count)
        if left is not None and left <= 0:
            message = "Job was active longer than specified deadline"
            return _End(_FAILING, "DeadlineExceeded", message)
        if not is_indexed(job):
            return None
        most = get(job, "spec.maxFailedIndexes")
        if most is not None and len(count.lost) > most:
            message = "Job has exceeded the specified maximal number of failed indexes"
            return _End(_FAILING, "MaxFailedIndexesExceeded", message)
        if count.lost and len(count.lost) + len(count.done) >= count.completions:
            return _End(_FAILING, "FailedIndexes", "Job has failed indexes")
        rule = success_rule(job, count.done)
        if rule is not None:
            return _End(_SUCCEEDING, "SuccessPolicy", f"Matched rules at index {rule}")
        return None

    @staticmethod
    def _completed(count: Count) -> _End | None:
        """Whether all that was wanted is there."""
        wanted = get(count.job, "spec.completions")
        enough = count.succeeded >= wanted if wanted is not None else count.succeeded > 0
        if not enough or count.active:
            return None
        message = "Reached expected number of succeeded pods"
        return _End(_SUCCEEDING, "CompletionsReached", message)

    def _tell_of_suspension(self, count: Count) -> None:
        job, status = count.job, count.status
        if get(job, "spec.suspend"):
            if ensure(status, "Suspended", "True", "JobSuspended", "Job suspended"):
                self._recorder.normal(job, "Suspended", "Job suspended")
        elif ensure(status, "Suspended", "False", "JobResumed", "Job resumed"):
            self._recorder.normal(job, "Resumed", "Job resumed")
            status["startTime"] = now()  # the deadline counts from here

    # -- Pods --------------------------------------------------------------------------------

    async def _stop(self, count: Count) -> bool:
        """Delete what still runs; False when some could not be."""
        for pod in list(count.active):
            try:
                await self._pods.delete(count.job, pod)
            except TandemError as error:
                self._recorder.warning(count.job, "FailedDelete", f"Error deleting: {error}")
                return False
            self._gone(count, pod)
        return True

    async def _discard(self, count: Count, pods: Sequence[Doc]) -> None:
        """Delete Pods that are too many, which are then no failures."""
        for pod in pods[:AT_ONCE]:
            await self._untrack(pod)
            await self._pods.delete(count.job, pod)
            self._gone(count, pod)

    @staticmethod
    def _gone(count: Count, pod: Doc) -> None:
        count.active.remove(pod)
        count.ready -= podfacts.is_ready(pod)
        count.terminating += 1

    async def _manage(self, count: Count) -> tuple[float | None, TandemError | None]:
        """Make or delete Pods; returns the seconds until more may be made, and what went wrong."""
        job, active = count.job, count.active
        if get(job, "spec.suspend"):
            await self._discard(count, list(active))
            return None, None
        at_once, completions = int(get(job, "spec.parallelism", 1)), get(job, "spec.completions")
        if completions is not None:
            wanted = max(0, min(completions - count.succeeded, at_once))
        else:
            wanted = len(active) if count.succeeded else at_once
        if doomed := superfluous(count, len(active) - wanted):
            await self._discard(count, doomed)
            return None, None
        missing = wanted - len(active)
        if get(job, "spec.podReplacementPolicy") == "Failed":
            missing -= count.terminating
        if missing <= 0:
            return None, None
        docs, wait = new_pods(count, min(missing, AT_ONCE))
        made, error = await self._pods.create(self._kind, job, docs)
        active += made
        return wait, error

    # -- counting ----------------------------------------------------------------------------

    async def _track(self, key: Key, count: Count, end: _End | None) -> None:
        """Count what has ended, and end the Job when all is counted."""
        job, status = count.job, count.status
        tracked = {pod["metadata"]["uid"] for pod in count.pods if is_tracked(pod)}
        status.pop("active", None)
        if count.active:
            status["active"] = len(count.active)
        status |= {"ready": count.ready, "terminating": count.terminating}
        count.clean(tracked)
        done = self._note(count, end)
        count.store()
        if end is not None:
            ensure(status, end.interim, "True", end.reason, end.message)
        if await self._write(key, job, status) is None:
            return
        for pod in done:
            await self._untrack(pod)
            tracked.discard(pod["metadata"]["uid"])
        changed = count.clean(tracked)
        finished = end is not None and not any(count.uncounted.values()) and not count.terminating
        if end is not None and finished and len(done) < MAX_UNCOUNTED:
            ensure(status, end.final, "True", end.reason, end.message)
            if end.final == "Complete":
                status["completionTime"] = now()
            changed = True
        else:
            finished = False
        if changed and await self._write(key, job, status) is not None and finished:
            self._tell_end(job, status, end)

    def _note(self, count: Count, end: _End | None) -> list[Doc]:
        """Write down the Pods that are to be counted; returns those that lose their finalizer."""
        job = count.job
        kept = {pod["metadata"]["uid"] for pod in count.waiting().values()}
        known = {uid for uids in count.uncounted.values() for uid in uids}
        going = bool(get(job, "metadata.deletionTimestamp")) or end is not None
        failing = end is not None and end.interim == _FAILING
        done: list[Doc] = []
        for pod in count.pods:
            uid, succeeded = pod["metadata"]["uid"], get(pod, "status.phase") == "Succeeded"
            failed = has_failed(job, pod)
            if not is_tracked(pod) or len(done) >= MAX_UNCOUNTED:
                continue
            if not (going or succeeded or (failed and uid not in kept)):
                continue
            done.append(pod)
            if uid in known:
                continue
            if succeeded:
                if not is_indexed(job):
                    count.uncounted["succeeded"].append(uid)
            elif (failed or failing) and count.valid(pod) and judge(job, pod).counts:
                count.uncounted["failed"].append(uid)
        return done

    async def _write(self, key: Key, job: Doc, status: Doc) -> Doc | None:
        snapshot = copy.deepcopy(status)

        def alter(doc: Doc) -> None:
            doc["status"] = snapshot

        return await objects.change(self._store, key, job["metadata"]["uid"], alter)

    def _tell_end(self, job: Doc, status: Doc, end: _End | None) -> None:
        if end is None:
            return
        if end.final == "Failed":
            self._recorder.warning(job, end.reason, end.message)
            return
        wanted = get(job, "spec.completions")
        if wanted is not None and int(status.get("succeeded", 0)) > wanted:
            message = "Too many succeeded pods running after completion count reached"
            self._recorder.warning(job, "TooManySucceededPods", message)
        self._recorder.normal(job, "Completed", "Job completed")


def _deadline_left(count: Count) -> float | None:
    """Seconds that the Job may still be active; None when there is no limit now."""
    limit, started = get(count.job, "spec.activeDeadlineSeconds"), count.status.get("startTime")
    if limit is None or not started or get(count.job, "spec.suspend"):
        return None
    return float(limit) - clock.since(started)
