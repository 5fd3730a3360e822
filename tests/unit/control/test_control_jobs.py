"""Jobs: Pods until enough have succeeded, or too many have failed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.control import clock
from tandem.control.owners import jobindexes
from tandem.control.owners.jobcount import TRACKING
from tests.unit.control.plant import FAKE_TIME, Plant

pytestmark = FAKE_TIME


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that has happened is long past: nothing has to be waited for."""
    monkeypatch.setattr(clock, "since", lambda _: 1e6)


async def job(plant: Plant, *command: str, restart: str = "Never", **spec: Any) -> Doc:
    container = {"name": "main", "image": "demo:1", "command": list(command or ("true",))}
    template = {"spec": {"restartPolicy": restart, "containers": [container]}}
    made = await plant.create(
        "jobs", {"metadata": {"name": "work"}, "spec": {**spec, "template": template}}
    )
    await plant.settle()
    return made


def pods(plant: Plant) -> list[Doc]:
    return list(plant.store.list("pods").items)


def status(plant: Plant) -> Doc:
    return dict(plant.get("jobs", "work")["status"])


def conditions(plant: Plant) -> dict[str, str]:
    """The reasons of the conditions that hold."""
    return {
        entry["type"]: entry["reason"]
        for entry in status(plant).get("conditions") or ()
        if entry["status"] == "True"
    }


async def rest(plant: Plant, seconds: float = 2) -> None:
    await asyncio.sleep(seconds)
    await plant.settle()


async def end(plant: Plant, pod: Doc, code: int = 0) -> None:
    plant.containers.end(pod["metadata"]["uid"], code=code)
    await plant.settle()


async def test_a_job_completes(plant: Plant) -> None:
    await job(plant)
    await rest(plant)
    (pod,) = pods(plant)
    assert pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "work"
    assert pod["metadata"]["labels"]["job-name"] == "work"
    assert "finalizers" not in pod["metadata"]
    found = status(plant)
    assert (found["succeeded"], found["ready"], found["terminating"]) == (1, 0, 0)
    assert found["uncountedTerminatedPods"] == {}
    assert found["startTime"] <= found["completionTime"]
    assert conditions(plant) == {
        "SuccessCriteriaMet": "CompletionsReached",
        "Complete": "CompletionsReached",
    }
    name = pod["metadata"]["name"]
    assert plant.events("work") == [
        ("Normal", "SuccessfulCreate", f"Created pod: {name}"),
        ("Normal", "Completed", "Job completed"),
    ]


async def test_so_many_and_not_more_at_once(plant: Plant) -> None:
    await job(plant, "serve", completions=5, parallelism=2)
    done = 0
    while done < 5:
        running = [pod for pod in pods(plant) if get(pod, "status.phase") == "Running"]
        assert len(running) == min(2, 5 - done)
        assert status(plant)["active"] == len(running)
        assert all(pod["metadata"]["finalizers"] == [TRACKING] for pod in running)
        await end(plant, running[0])
        done += 1
        assert status(plant)["succeeded"] == done
    assert "Complete" in conditions(plant)
    assert len(pods(plant)) == 5


async def test_a_queue_is_done_when_one_has_succeeded_and_all_have_ended(plant: Plant) -> None:
    await job(plant, "serve", parallelism=3)
    first, second, third = pods(plant)
    await end(plant, first)
    assert "Complete" not in conditions(plant)
    await end(plant, second)
    await end(plant, third)
    assert "Complete" in conditions(plant)
    assert (len(pods(plant)), status(plant)["succeeded"]) == (3, 3)


@pytest.mark.usefixtures("later")
async def test_too_many_failures_fail_it(plant: Plant) -> None:
    await job(plant, "false", backoffLimit=2)
    await rest(plant)
    assert len(pods(plant)) == 3
    assert status(plant)["failed"] == 3
    assert conditions(plant) == {
        "FailureTarget": "BackoffLimitExceeded",
        "Failed": "BackoffLimitExceeded",
    }
    message = "Job has reached the specified backoff limit"
    assert ("Warning", "BackoffLimitExceeded", message) in plant.events("work")
    assert "completionTime" not in status(plant)


async def test_a_failure_is_waited_upon(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "since", lambda _: 0.0)
    await job(plant, "false")
    await rest(plant)
    assert len(pods(plant)) == 1
    await rest(plant, 5)
    assert len(pods(plant)) == 1
    monkeypatch.setattr(clock, "since", lambda _: 10.5)
    await rest(plant, 5)
    assert len(pods(plant)) == 2
    monkeypatch.setattr(clock, "since", lambda _: 15.0)  # the next wait is twice as long
    await rest(plant, 12)
    assert len(pods(plant)) == 2


async def test_starts_of_a_container_count_where_its_pod_stays(plant: Plant) -> None:
    await job(plant, "false", restart="OnFailure", backoffLimit=2)
    await rest(plant, 60)
    assert conditions(plant)["Failed"] == "BackoffLimitExceeded"
    assert pods(plant) == []


async def test_a_deadline_ends_it(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "since", lambda _: 0.0)
    await job(plant, "serve", activeDeadlineSeconds=30)
    assert status(plant)["active"] == 1
    monkeypatch.setattr(clock, "since", lambda _: 31.0)
    await rest(plant, 31)
    assert conditions(plant)["Failed"] == "DeadlineExceeded"
    assert pods(plant) == []
    assert "SuccessfulDelete" in plant.reasons("work")
    assert status(plant)["failed"] == 1


async def test_suspended_it_has_no_pods(plant: Plant) -> None:
    await job(plant, "serve", suspend=True)
    assert pods(plant) == []
    assert conditions(plant) == {"Suspended": "JobSuspended"}
    assert "startTime" not in status(plant)

    def suspend(value: bool) -> Any:
        return lambda doc: doc["spec"].update(suspend=value)

    await plant.update("jobs", "work", suspend(False))
    await plant.settle()
    assert len(pods(plant)) == 1
    assert conditions(plant) == {}
    assert "startTime" in status(plant)
    await plant.update("jobs", "work", suspend(True))
    await plant.settle()
    assert pods(plant) == []
    assert status(plant).get("failed", 0) == 0
    assert {"Suspended", "Resumed"} <= set(plant.reasons("work"))


async def test_fewer_at_once_deletes_pods_that_are_no_failures(plant: Plant) -> None:
    await job(plant, "serve", completions=5, parallelism=4)
    await plant.update("jobs", "work", lambda doc: doc["spec"].update(parallelism=1))
    await plant.settle()
    assert len(pods(plant)) == 1
    assert (status(plant)["active"], status(plant).get("failed", 0)) == (1, 0)


async def test_a_pod_that_is_deleted_counts_as_failed_and_is_replaced(
    plant: Plant, later: None
) -> None:
    await job(plant, "serve")
    (pod,) = pods(plant)
    await plant.delete("pods", pod["metadata"]["name"])
    await plant.settle()
    (other,) = pods(plant)
    assert other["metadata"]["uid"] != pod["metadata"]["uid"]
    assert status(plant)["failed"] == 1


async def test_after_its_time_a_finished_one_goes(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "since", lambda _: 0.0)
    await job(plant, ttlSecondsAfterFinished=60)
    await rest(plant)
    assert "Complete" in conditions(plant)
    monkeypatch.setattr(clock, "since", lambda _: 61.0)
    await rest(plant, 61)
    assert not plant.exists("jobs", "work")
    assert pods(plant) == []


# Indexes ----------------------------------------------------------------------------------------


async def test_each_index_succeeds_once(plant: Plant) -> None:
    await job(plant, completions=4, parallelism=2, completionMode="Indexed")
    await rest(plant, 5)
    found = pods(plant)
    assert sorted(jobindexes.index_of(pod) or 0 for pod in found) == [0, 1, 2, 3]
    for pod in found:
        index = jobindexes.index_of(pod)
        assert pod["metadata"]["name"].startswith(f"work-{index}-")
        assert pod["spec"]["hostname"] == f"work-{index}"
        assert pod["metadata"]["labels"][jobindexes.INDEX] == str(index)
        assert pod["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"
    assert status(plant)["completedIndexes"] == "0-3"
    assert status(plant)["succeeded"] == 4
    assert "Complete" in conditions(plant)


@pytest.mark.usefixtures("later")
async def test_an_index_fails_by_itself(plant: Plant) -> None:
    await job(
        plant,
        "serve",
        completions=3,
        parallelism=3,
        completionMode="Indexed",
        backoffLimitPerIndex=1,
    )
    for _ in range(2):
        bad = next(
            pod
            for pod in pods(plant)
            if jobindexes.index_of(pod) == 1 and get(pod, "status.phase") == "Running"
        )
        await end(plant, bad, 1)
    again = [pod for pod in pods(plant) if jobindexes.index_of(pod) == 1]
    assert sorted(jobindexes.failures(pod) for pod in again) == [0, 1]
    assert status(plant)["failedIndexes"] == "1"
    assert "Failed" not in conditions(plant)
    for pod in pods(plant):
        if get(pod, "status.phase") == "Running":
            await end(plant, pod)
    assert status(plant)["completedIndexes"] == "0,2"
    assert conditions(plant)["Failed"] == "FailedIndexes"
    assert all("finalizers" not in pod["metadata"] for pod in pods(plant))


@pytest.mark.usefixtures("later")
async def test_too_many_failed_indexes_end_it(plant: Plant) -> None:
    await job(
        plant,
        "serve",
        completions=5,
        parallelism=5,
        completionMode="Indexed",
        backoffLimitPerIndex=0,
        maxFailedIndexes=1,
    )
    for pod in pods(plant)[:2]:
        await end(plant, pod, 1)
    assert conditions(plant)["Failed"] == "MaxFailedIndexesExceeded"


async def test_a_success_policy_ends_it_early(plant: Plant) -> None:
    policy = {"rules": [{"succeededIndexes": "0,2-3", "succeededCount": 2}]}
    await job(
        plant, "serve", completions=4, parallelism=4, completionMode="Indexed", successPolicy=policy
    )
    by_index = {jobindexes.index_of(pod): pod for pod in pods(plant)}
    await end(plant, by_index[1])
    await end(plant, by_index[3])
    assert conditions(plant) == {}
    await end(plant, by_index[0])
    await rest(plant)
    assert conditions(plant) == {"SuccessCriteriaMet": "SuccessPolicy", "Complete": "SuccessPolicy"}
    assert status(plant)["completedIndexes"] == "0,1,3"
    assert len(pods(plant)) == 3


@pytest.mark.parametrize(
    ("text", "indexes"),
    [("", []), ("0", [0]), ("0,1", [0, 1]), ("0-2", [0, 1, 2]), ("1,3-5,7,8", [1, 3, 4, 5, 7, 8])],
)
def test_sets_of_indexes_as_text(text: str, indexes: list[int]) -> None:
    assert jobindexes.write(indexes) == text
    assert jobindexes.parse(text, 100) == set(indexes)
    assert jobindexes.parse(text, 4) == {index for index in indexes if index < 4}


# Policies ---------------------------------------------------------------------------------------


def on_codes(action: str, *codes: int, operator: str = "In") -> Doc:
    return {"action": action, "onExitCodes": {"operator": operator, "values": list(codes)}}


async def test_an_exit_code_fails_the_job(plant: Plant) -> None:
    await job(
        plant,
        "serve",
        completions=3,
        parallelism=2,
        podFailurePolicy={"rules": [on_codes("Ignore", 7), on_codes("FailJob", 42)]},
    )
    first = pods(plant)[0]
    await end(plant, first, 42)
    assert conditions(plant)["Failed"] == "PodFailurePolicy"
    failed = plant.condition("jobs", "work", "Failed")
    name = first["metadata"]["name"]
    assert failed["message"] == (
        f"Container main for pod default/{name} failed with exit code 42 matching FailJob rule at "
        "index 1"
    )
    assert [get(pod, "status.phase") for pod in pods(plant)] == ["Failed"]


@pytest.mark.usefixtures("later")
async def test_an_ignored_failure_does_not_count(plant: Plant) -> None:
    await job(plant, "serve", backoffLimit=0, podFailurePolicy={"rules": [on_codes("Ignore", 7)]})
    (first,) = pods(plant)
    await end(plant, first, 7)
    assert status(plant).get("failed", 0) == 0
    (second,) = (pod for pod in pods(plant) if get(pod, "status.phase") == "Running")
    await end(plant, second, 8)
    assert conditions(plant)["Failed"] == "BackoffLimitExceeded"


@pytest.mark.usefixtures("later")
async def test_an_index_is_given_up_at_once(plant: Plant) -> None:
    await job(
        plant,
        "serve",
        completions=2,
        parallelism=2,
        completionMode="Indexed",
        backoffLimitPerIndex=5,
        podFailurePolicy={"rules": [on_codes("FailIndex", 0, 1, operator="NotIn")]},
    )
    by_index = {jobindexes.index_of(pod): pod for pod in pods(plant)}
    await end(plant, by_index[0], 3)
    assert status(plant)["failedIndexes"] == "0"
    assert len(pods(plant)) == 2


# Life and death ---------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["Background", "Foreground", "Orphan", None])
async def test_cascades(plant: Plant, policy: str | None) -> None:
    await job(plant, "serve", completions=3, parallelism=2)
    await end(plant, pods(plant)[0])
    options = {"propagationPolicy": policy} if policy else {}
    await plant.delete("jobs", "work", **options)
    await plant.settle()
    assert not plant.exists("jobs", "work")
    # As it always was: a Job that is deleted without a word leaves its Pods.
    assert len(pods(plant)) == (0 if policy in ("Background", "Foreground") else 3)
    assert all("finalizers" not in pod["metadata"] for pod in pods(plant))


async def test_a_daemon_that_dies_counts_nothing_twice(plant: Plant, later: None) -> None:
    await job(plant, "serve", completions=4, parallelism=4)
    await plant.manager.stop()
    for number, pod in enumerate(pods(plant)):
        plant.containers.end(pod["metadata"]["uid"], code=number % 2)
    plant.manager = plant._manager()
    await plant.start()
    assert (status(plant)["succeeded"], status(plant)["failed"]) == (2, 2)
    await plant.restart()
    assert (status(plant)["succeeded"], status(plant)["failed"]) == (2, 2)
    assert status(plant)["active"] == 2


async def test_one_that_somebody_else_manages_is_left_alone(plant: Plant) -> None:
    await job(plant, managedBy="example.com/controller")
    assert pods(plant) == []
    assert "status" not in plant.get("jobs", "work")
