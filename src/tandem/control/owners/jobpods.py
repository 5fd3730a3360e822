"""Which Pods of a Job are to be made, which are too many, and which failures count. Pure, but for the
time of day."""

from __future__ import annotations

from collections.abc import Sequence

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.control.owners import jobindexes, podfacts
from tandem.control.owners.children import from_template
from tandem.control.owners.jobcount import TRACKING, Count, has_failed, is_indexed
from tandem.control.owners.jobpolicies import back_off, finished_at, judge, wait_after


def restarted_too_often(job: Doc, pods: Sequence[Doc], limit: int) -> bool:
    """Where containers are started again in their Pods, these starts are the failures."""
    if get(job, "spec.template.spec.restartPolicy") != "OnFailure":
        return False
    restarts = sum(podfacts.restarts(pod) for pod in pods if not podfacts.is_over(pod))
    return restarts >= limit if limit else restarts > 0


def superfluous(count: Count, too_many: int) -> list[Doc]:
    """The Pods to delete: those whose index nobody wants or another has, and then as many as are too
    many."""
    doomed: list[Doc] = []
    left = sorted(count.active, key=podfacts.rank)
    if is_indexed(count.job):
        best = {jobindexes.index_of(pod): pod for pod in left if count.valid(pod)}
        doomed = [pod for pod in left if best.get(jobindexes.index_of(pod)) is not pod]
        left = [pod for pod in left if best.get(jobindexes.index_of(pod)) is pod]
    return doomed + left[: max(0, too_many - len(doomed))]


def new_pods(count: Count, missing: int) -> tuple[list[Doc], float | None]:
    """Documents of Pods that may be made now, and the seconds until more may be."""
    job = count.job
    name, template = job["metadata"]["name"], job["spec"]["template"]
    if count.per_index is None:
        failed = [pod for pod in count.pods if has_failed(job, pod)]
        succeeded = [pod for pod in count.pods if get(pod, "status.phase") == "Succeeded"]
        if wait := back_off(failed, succeeded):
            return [], wait
    docs: list[Doc] = []
    waits: list[float] = []
    if not is_indexed(job):
        docs = [from_template(template, name) for _ in range(missing)]
    else:
        before = count.waiting()
        taken = count.done | count.lost | jobindexes.indexes_of(count.active)
        if get(job, "spec.podReplacementPolicy") == "Failed":
            taken |= jobindexes.indexes_of(p for p in count.pods if not podfacts.is_over(p))
        for index in jobindexes.pending(taken, count.completions):
            if len(docs) + len(waits) == missing:
                break
            if index in before and (wait := _wait_of(before[index])):
                waits.append(wait)
                continue
            docs.append(from_template(template, name))
            jobindexes.give_index(docs[-1], name, index)
            if count.per_index is not None:
                _tell_failures(job, docs[-1], before.get(index))
    for doc in docs:
        held = doc["metadata"].setdefault("finalizers", [])
        held += [TRACKING] if TRACKING not in held else []
    return docs, min(waits, default=None)


def _wait_of(pod: Doc) -> float:
    return wait_after(jobindexes.all_failures(pod) + 1, finished_at(pod))


def _tell_failures(job: Doc, pod: Doc, before: Doc | None) -> None:
    """Tell a new Pod how often its index has failed."""
    failures, ignored = 0, 0
    if before is not None:
        failures, ignored = jobindexes.failures(before), jobindexes.ignored_failures(before)
        if judge(job, before).counts:
            failures += 1
        else:
            ignored += 1
    annotations = pod["metadata"]["annotations"]
    annotations[jobindexes.FAILURES] = str(failures)
    if ignored:
        annotations[jobindexes.IGNORED_FAILURES] = str(ignored)
