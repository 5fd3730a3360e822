"""The Pod loop, on the in-memory runtime."""

from __future__ import annotations

import asyncio

import pytest

from tandem.api.meta import get
from tandem.errors import Unavailable
from tandem.store import Key
from tests.unit.control.plant import FAKE_TIME, Plant

pytestmark = FAKE_TIME


def pair(*names: str, **more: object) -> list[dict[str, object]]:
    """Containers that serve, of one image."""
    return [{"name": name, "image": "demo:1", "command": ["serve"], **more} for name in names]


async def test_a_pod_comes_to_run(plant: Plant) -> None:
    await plant.pod("web")
    await plant.settle()
    pod = plant.get("pods", "web")
    assert pod["status"]["phase"] == "Running"
    assert pod["spec"]["nodeName"] == "node-1"
    assert pod["status"]["podIP"] == pod["status"]["podIPs"][0]["ip"]
    assert pod["status"]["hostIP"] == "192.0.2.10"
    assert pod["status"]["qosClass"] == "BestEffort"
    conditions = {c["type"]: c["status"] for c in pod["status"]["conditions"]}
    assert conditions == dict.fromkeys(
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"],
        "True",
    )
    container = plant.container("web")
    assert container["ready"]
    assert container["started"]
    assert container["restartCount"] == 0
    assert container["state"]["running"]["startedAt"].endswith("Z")
    assert container["containerID"].startswith("memory://")
    assert plant.reasons("web") == ["Scheduled", "Pulled", "Created", "Started"]


async def test_a_running_pod_costs_no_more_writes(plant: Plant) -> None:
    await plant.pod("web")
    await plant.settle()
    revision = plant.store.revision
    plant.manager.pods.workloads.look_at_all()  # type: ignore[union-attr]
    await plant.settle()
    assert plant.store.revision == revision


async def test_the_status_follows_the_generation(plant: Plant) -> None:
    await plant.pod("web")
    await plant.settle()
    assert plant.get("pods", "web")["status"]["observedGeneration"] == 1


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [("Never", 0, "Succeeded"), ("Never", 3, "Failed"), ("OnFailure", 0, "Succeeded")],
)
async def test_a_pod_that_ends_and_is_not_restarted(
    plant: Plant, policy: str, code: int, phase: str
) -> None:
    await plant.pod("job", "exit", str(code), restartPolicy=policy)
    await plant.settle()
    assert plant.phase("pods", "job") == phase
    ended = plant.container("job")["state"]["terminated"]
    assert ended["exitCode"] == code
    assert ended["reason"] == ("Completed" if code == 0 else "Error")
    assert plant.condition("pods", "job", "Ready")["reason"] in ("PodCompleted", "PodFailed")


async def test_a_crash_loop_backs_off_and_doubles(plant: Plant) -> None:
    await plant.pod("crash", "exit", "1")
    await plant.settle()
    # The first restart is at once; the second waits for ten seconds.
    container = plant.container("crash")
    assert container["restartCount"] == 1
    waiting = container["state"]["waiting"]
    assert waiting["reason"] == "CrashLoopBackOff"
    uid = plant.uid("pods", "crash")
    assert waiting["message"] == (
        f"back-off 10s restarting failed container=main pod=crash_default({uid})"
    )
    assert container["lastState"]["terminated"]["exitCode"] == 1
    assert plant.phase("pods", "crash") == "Running"
    await asyncio.sleep(9)
    assert plant.container("crash")["restartCount"] == 1
    await asyncio.sleep(2)
    await plant.settle()
    assert plant.container("crash")["restartCount"] == 2
    assert "back-off 20s" in plant.container("crash")["state"]["waiting"]["message"]
    await asyncio.sleep(20 + 40 + 80 + 160 + 300 + 300 + 10)
    await plant.settle()
    assert plant.container("crash")["restartCount"] == 8
    assert "back-off 5m0s" in plant.container("crash")["state"]["waiting"]["message"]


async def test_a_container_that_ran_long_is_forgiven(plant: Plant) -> None:
    await plant.pod("web", "sleep", "700")
    await plant.settle()
    await asyncio.sleep(705)
    await plant.settle()
    assert plant.container("web")["restartCount"] == 1
    await asyncio.sleep(705)
    await plant.settle()
    assert plant.container("web")["restartCount"] == 2
    assert "running" in plant.container("web")["state"]


async def test_on_failure_restarts_only_what_failed(plant: Plant) -> None:
    containers = [
        {"name": "good", "image": "demo:1", "command": ["exit", "0"]},
        {"name": "bad", "image": "demo:1", "command": ["exit", "1"]},
    ]
    await plant.pod("pair", containers=containers, restartPolicy="OnFailure")
    await plant.settle()
    assert plant.container("pair", "good")["restartCount"] == 0
    assert plant.container("pair", "bad")["restartCount"] == 1
    assert plant.phase("pods", "pair") == "Running"


async def test_an_image_that_cannot_be_pulled_is_said_and_tried_again(plant: Plant) -> None:
    plant.containers.unpullable.add("absent:1")
    await plant.pod("web", image="absent:1")
    await plant.settle()
    assert plant.phase("pods", "web") == "Pending"
    assert plant.container("web")["state"]["waiting"]["reason"] == "ErrImagePull"
    await asyncio.sleep(3)
    await plant.settle()
    waiting = plant.container("web")["state"]["waiting"]
    assert waiting["reason"] == "ImagePullBackOff"
    assert waiting["message"] == (
        "Back-off pulling image \"absent:1\": ErrImagePull: cannot pull image 'absent:1': not found"
    )
    plant.containers.unpullable.clear()
    await asyncio.sleep(10)
    await plant.settle()
    assert plant.phase("pods", "web") == "Running"
    assert "BackOff" in plant.reasons("web")


async def test_a_missing_config_map_is_waited_for(plant: Plant) -> None:
    env = [
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}}
    ]
    containers = [{"name": "main", "image": "demo:1", "env": env}]
    await plant.pod("web", containers=containers)
    await plant.settle()
    waiting = plant.container("web")["state"]["waiting"]
    assert waiting == {
        "reason": "CreateContainerConfigError",
        "message": 'configmap "settings" not found',
    }
    await plant.create("configmaps", {"metadata": {"name": "settings"}, "data": {"color": "red"}})
    await plant.settle()
    assert plant.phase("pods", "web") == "Running"


async def test_a_deleted_pod_is_given_its_grace_and_removed(plant: Plant) -> None:
    await plant.pod("web", "ignore-stop")
    await plant.settle()
    await plant.delete("pods", "web", gracePeriodSeconds=5)
    await asyncio.sleep(4)
    assert plant.exists("pods", "web")
    assert plant.containers.workloads
    await asyncio.sleep(2)
    await plant.settle()
    assert not plant.exists("pods", "web")
    assert not plant.containers.workloads
    assert ("Normal", "Killing", "Stopping container main") in plant.events("web")


async def test_less_grace_overtakes_more(plant: Plant) -> None:
    await plant.pod("web", "ignore-stop")
    await plant.settle()
    await plant.delete("pods", "web", gracePeriodSeconds=3000)
    await asyncio.sleep(1)
    await plant.delete("pods", "web", gracePeriodSeconds=0)
    await asyncio.sleep(1)
    await plant.settle()
    assert not plant.exists("pods", "web")
    assert not plant.containers.workloads


async def test_a_pod_taken_from_the_store_takes_its_workload_with_it(plant: Plant) -> None:
    await plant.pod("web", "ignore-stop")
    await plant.settle()
    await plant.delete("pods", "web", gracePeriodSeconds=0)
    await plant.store.delete(Key("pods", "default", "web"))
    await plant.settle()
    assert not plant.containers.workloads


@pytest.mark.parametrize("step", ["create.define", "pull_image", "start_container"])
async def test_deleting_interrupts_a_start(plant: Plant, step: str) -> None:
    hold = plant.containers.faults.hold(step)
    await plant.pod("slow")
    await hold.reached.wait()
    await plant.delete("pods", "slow")
    await plant.settle()
    assert not plant.exists("pods", "slow")
    assert not plant.containers.workloads


async def test_a_finalizer_holds_a_pod_that_has_ended(plant: Plant) -> None:
    doc = {"name": "held", "finalizers": ["example.org/hold"]}
    spec = {"containers": [{"name": "main", "image": "demo:1"}]}
    await plant.create("pods", {"metadata": doc, "spec": spec})
    await plant.settle()
    await plant.delete("pods", "held", gracePeriodSeconds=1)
    await plant.settle()
    assert not plant.containers.workloads
    assert plant.exists("pods", "held")
    assert plant.phase("pods", "held") == "Failed"


async def test_a_workload_that_disappears_is_made_anew(plant: Plant) -> None:
    await plant.pod("web")
    await plant.settle()
    plant.containers.vanish(plant.uid("pods", "web"))
    await plant.settle()
    assert plant.phase("pods", "web") == "Running"
    assert plant.container("web")["restartCount"] == 1
    assert "SandboxChanged" in plant.reasons("web")
    plant.containers.crash(plant.uid("pods", "web"))
    await plant.settle()
    assert plant.container("web")["restartCount"] == 2


async def test_a_workload_that_disappears_fails_a_pod_that_is_never_restarted(
    plant: Plant,
) -> None:
    await plant.pod("once", restartPolicy="Never")
    await plant.settle()
    plant.containers.vanish(plant.uid("pods", "once"))
    await plant.settle()
    assert plant.phase("pods", "once") == "Failed"
    assert plant.container("once")["state"]["terminated"]["reason"] == "ContainerStatusUnknown"


async def test_a_changed_image_replaces_only_its_container(plant: Plant) -> None:
    await plant.pod("web", containers=pair("main", "other"), restartPolicy="Never")
    await plant.settle()
    other = plant.container("web", "other")

    def alter(pod: dict[str, object]) -> None:
        get(pod, "spec.containers")[0]["image"] = "demo:2"

    await plant.update("pods", "web", alter)
    await plant.settle()
    changed = plant.container("web")
    assert (changed["image"], changed["restartCount"]) == ("demo:2", 1)
    assert "running" in changed["state"]
    assert plant.container("web", "other") == other
    message = "Container main definition changed, will be restarted"
    assert ("Normal", "Killing", message) in plant.events("web")


async def test_a_pod_that_is_too_big_is_not_scheduled(plant: Plant) -> None:
    container = {
        "name": "main",
        "image": "demo:1",
        "resources": {"requests": {"memory": "9Gi"}},
    }
    await plant.pod("huge", containers=[container])
    await plant.settle()
    assert plant.phase("pods", "huge") == "Pending"
    condition = plant.condition("pods", "huge", "PodScheduled")
    assert condition["reason"] == "Unschedulable"
    assert condition["message"].startswith("0/1 nodes are available: 1 Insufficient memory.")
    assert plant.reasons("huge") == ["FailedScheduling"]


async def test_a_runtime_that_is_away_is_said_and_taken_up_again(plant: Plant) -> None:
    await plant.pod("web")
    await plant.settle()
    plant.containers.available = False
    await asyncio.sleep(10)
    ready = plant.condition("pods", "web", "Ready")
    assert ready["status"] == "Unknown"
    assert ready["reason"] == "RuntimeUnavailable"
    assert plant.phase("pods", "web") == "Running"
    plant.containers.available = True
    await asyncio.sleep(1)
    await plant.settle()
    assert plant.condition("pods", "web", "Ready")["status"] == "True"
    assert plant.container("web")["restartCount"] == 0


async def test_a_failed_call_is_tried_again(plant: Plant) -> None:
    plant.containers.faults.fail("start_container", Unavailable("injected"), times=3)
    await plant.pod("web")
    await asyncio.sleep(5)
    await plant.settle()
    assert plant.phase("pods", "web") == "Running"


async def test_a_pod_past_its_deadline_fails(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [30.0]
    monkeypatch.setattr("tandem.control.pods.loop.deadline_left", lambda _pod: left[0])
    await plant.pod("late", activeDeadlineSeconds=30)
    await plant.settle()
    assert plant.phase("pods", "late") == "Running"
    left[0] = 0.0
    await asyncio.sleep(31)
    await plant.settle()
    pod = plant.get("pods", "late")
    assert pod["status"]["phase"] == "Failed"
    assert pod["status"]["reason"] == "DeadlineExceeded"
    assert plant.container("late")["state"]["terminated"]["exitCode"] == 143
    assert not plant.workload("late").running
    assert "DeadlineExceeded" in plant.reasons("late")


async def test_a_new_daemon_adopts_what_runs(plant: Plant) -> None:
    await plant.pod("web")
    await plant.pod("job", "exit", "0", restartPolicy="Never")
    await plant.settle()
    before = plant.container("web")
    revision = plant.store.revision
    starts = plant.containers.faults.visits["start_container"]
    await plant.restart()
    assert plant.container("web") == before
    assert plant.containers.faults.visits["start_container"] == starts
    assert plant.store.revision == revision


async def test_what_happened_while_no_daemon_ran_is_seen(plant: Plant) -> None:
    await plant.pod("web")
    await plant.pod("job", restartPolicy="Never")
    await plant.settle()
    await plant.stop()
    plant.containers.crash(plant.uid("pods", "web"))
    plant.containers.end(plant.uid("pods", "job"), code=0)
    await plant.restart()
    assert plant.container("web")["restartCount"] == 1
    assert plant.phase("pods", "web") == "Running"
    assert plant.phase("pods", "job") == "Succeeded"


async def test_a_workload_that_no_pod_claims_is_removed(plant: Plant) -> None:
    await plant.pod("web")
    await plant.settle()
    await plant.stop()
    await plant.store.delete(Key("pods", "default", "web"))
    await plant.restart()
    assert not plant.containers.workloads


async def test_a_workload_made_for_another_store_goes_on(plant: Plant) -> None:
    await plant.pod("web")
    await plant.settle()
    await plant.stop()
    await plant.store.delete(Key("pods", "default", "web"))
    await plant.store.delete(Key("namespaces", "", "kube-system"))  # as in a store that was lost
    await plant.restart()
    assert len(plant.containers.workloads) == 1


async def test_lost_events_are_made_up_for(plant: Plant) -> None:
    await plant.pod("web", restartPolicy="Never")
    await plant.settle()
    workload = plant.containers.workloads["tandem", plant.uid("pods", "web")]
    workload.containers["main"].phase = workload.containers["main"].phase.SUCCEEDED
    workload.containers["main"].exit_code = 0
    plant.containers.drop_events()
    await plant.settle()
    assert plant.phase("pods", "web") == "Succeeded"


async def test_a_daemon_starts_while_its_runtimes_are_away(plant: Plant) -> None:
    await plant.pod("web")
    await plant.settle()
    plant.containers.available = plant.machines.available = False
    await plant.restart()
    await plant.pod("new")
    await asyncio.sleep(1)
    assert plant.phase("pods", "new") == "Pending"
    assert plant.condition("pods", "new", "Ready")["reason"] == "RuntimeUnavailable"
    plant.containers.available = plant.machines.available = True
    await asyncio.sleep(1)
    await plant.settle()
    assert plant.phase("pods", "new") == "Running"
    assert plant.container("web")["restartCount"] == 0
