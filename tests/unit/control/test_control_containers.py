"""The containers of a Pod, each with a life of its own, on the in-memory runtime."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from tandem.api.meta import get
from tandem.errors import TandemError
from tandem.runtimes.capabilities import RegistryCredentials
from tests.unit.control.plant import FAKE_TIME, Plant

pytestmark = FAKE_TIME


def container(name: str, *command: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "demo:1", "command": list(command or ("serve",)), **more}


def sidecar(name: str, *command: str, **more: Any) -> dict[str, Any]:
    return container(name, *command, restartPolicy="Always", **more)


def entry(plant: Plant, name: str, field: str = "initContainerStatuses") -> dict[str, Any]:
    entries = get(plant.get("pods", "web"), f"status.{field}")
    return next(dict(item) for item in entries if item["name"] == name)


def order_of_starts(plant: Plant) -> list[str]:
    return [
        message.rpartition(" ")[2]
        for _, reason, message in plant.events("web")
        if reason == "Started"
    ]


# Init containers --------------------------------------------------------------------------------


async def test_init_containers_run_one_by_one_before_the_others(plant: Plant) -> None:
    init = [container("one", "sleep", "5"), container("two", "sleep", "5")]
    await plant.pod("web", initContainers=init)
    await plant.settle()
    status = plant.get("pods", "web")["status"]
    assert status["phase"] == "Pending"
    assert plant.condition("pods", "web", "Initialized") | {"lastTransitionTime": ""} == {
        "type": "Initialized",
        "status": "False",
        "reason": "ContainersNotInitialized",
        "message": "containers with incomplete status: [one two]",
        "lastTransitionTime": "",
    }
    assert "running" in entry(plant, "one")["state"]
    assert entry(plant, "two")["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert plant.container("web")["state"] == {"waiting": {"reason": "PodInitializing"}}

    await asyncio.sleep(6)
    await plant.settle()
    assert entry(plant, "one")["ready"]
    assert entry(plant, "one")["state"]["terminated"]["reason"] == "Completed"
    assert plant.condition("pods", "web", "Initialized")["message"].endswith("[two]")

    await asyncio.sleep(6)
    await plant.settle()
    assert plant.phase("pods", "web") == "Running"
    assert plant.condition("pods", "web", "Initialized")["status"] == "True"
    assert order_of_starts(plant) == ["one", "two", "main"]


async def test_an_init_container_that_fails_is_tried_again_with_back_off(plant: Plant) -> None:
    await plant.pod("web", initContainers=[container("one", "exit", "2")])
    await plant.settle()
    first = entry(plant, "one")
    assert first["restartCount"] == 1
    assert first["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert first["lastState"]["terminated"]["exitCode"] == 2
    assert plant.phase("pods", "web") == "Pending"
    await asyncio.sleep(11)
    await plant.settle()
    assert entry(plant, "one")["restartCount"] == 2


async def test_an_init_container_that_fails_for_good_fails_its_pod(plant: Plant) -> None:
    init = [sidecar("side"), container("one", "exit", "2")]
    await plant.pod("web", initContainers=init, restartPolicy="Never")
    await plant.settle()
    assert plant.phase("pods", "web") == "Failed"
    assert entry(plant, "one")["state"]["terminated"]["exitCode"] == 2
    assert "terminated" in entry(plant, "side")["state"]
    assert plant.container("web")["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert not plant.workload("web").running


# Sidecars ---------------------------------------------------------------------------------------


async def test_sidecars_start_first_and_end_last(plant: Plant) -> None:
    init = [sidecar("a"), container("init", "exit", "0"), sidecar("b")]
    await plant.pod("web", "sleep", "5", initContainers=init, restartPolicy="Never")
    await plant.settle()
    assert order_of_starts(plant) == ["a", "init", "b", "main"]
    assert plant.condition("pods", "web", "Ready")["status"] == "True"
    assert entry(plant, "a")["started"]
    assert entry(plant, "a")["ready"]
    await asyncio.sleep(6)
    await plant.settle()
    assert plant.phase("pods", "web") == "Succeeded"
    workload = plant.workload("web")
    ends = {name: c.finished_at for name, c in workload.containers.items()}
    assert ends["main"] <= ends["b"] <= ends["a"]  # type: ignore[operator]
    assert entry(plant, "a")["state"]["terminated"]["exitCode"] == 143


async def test_a_sidecar_that_ends_is_started_again_whatever_the_policy(plant: Plant) -> None:
    await plant.pod("web", initContainers=[sidecar("a", "sleep", "700")], restartPolicy="Never")
    await plant.settle()
    await asyncio.sleep(701)
    await plant.settle()
    assert entry(plant, "a")["restartCount"] == 1
    assert plant.phase("pods", "web") == "Running"


# Ephemeral containers ---------------------------------------------------------------------------


async def test_an_ephemeral_container_is_started_once(plant: Plant) -> None:
    await plant.pod("web")
    await plant.settle()

    def debug(pod: dict[str, Any]) -> None:
        pod["spec"]["ephemeralContainers"] = [container("debug", "exit", "3")]

    await plant.update("pods", "web", debug, subresource="ephemeralcontainers")
    await plant.settle()
    await asyncio.sleep(60)
    await plant.settle()
    debugged = entry(plant, "debug", "ephemeralContainerStatuses")
    assert debugged["restartCount"] == 0
    assert debugged["state"]["terminated"]["exitCode"] == 3
    assert plant.phase("pods", "web") == "Running"
    assert plant.condition("pods", "web", "Ready")["status"] == "True"
    await plant.restart()
    assert entry(plant, "debug", "ephemeralContainerStatuses") == debugged


# Starting ---------------------------------------------------------------------------------------


async def test_one_bad_image_holds_up_only_its_own_container(plant: Plant) -> None:
    plant.containers.unpullable.add("absent:1")
    await plant.pod("web", containers=[{"name": "bad", "image": "absent:1"}, container("good")])
    await plant.settle()
    assert plant.container("web", "bad")["state"]["waiting"]["reason"] == "ErrImagePull"
    assert plant.container("web", "good")["ready"]
    assert plant.phase("pods", "web") == "Pending"
    assert plant.condition("pods", "web", "Ready")["message"] == (
        "containers with unready status: [bad]"
    )


async def test_a_registry_that_stalls_holds_up_only_its_own_container(plant: Plant) -> None:
    hold = plant.containers.faults.hold("pull_image.pull")
    await plant.pod("web", containers=[{"name": "slow", "image": "far:1"}, container("good")])
    await hold.reached.wait()
    await asyncio.sleep(5)
    assert plant.container("web", "good")["ready"]
    assert plant.container("web", "slow")["state"]["waiting"]["reason"] == "ContainerCreating"
    assert plant.condition("pods", "web", "PodReadyToStartContainers")["status"] == "True"
    assert plant.get("pods", "web")["status"]["podIP"]
    hold.release()
    await plant.settle()
    assert plant.container("web", "slow")["ready"]
    assert plant.phase("pods", "web") == "Running"


async def test_an_image_that_is_put_right_is_not_waited_for(plant: Plant) -> None:
    hold = plant.containers.faults.hold("pull_image.pull")
    await plant.pod("web", image="stalls:1")
    await hold.reached.wait()

    def alter(pod: dict[str, Any]) -> None:
        pod["spec"]["containers"][0]["image"] = "demo:1"

    await plant.update("pods", "web", alter)
    await plant.settle()
    assert plant.phase("pods", "web") == "Running"
    assert plant.container("web")["image"] == "demo:1"


async def test_a_pull_is_told_only_where_there_is_one(plant: Plant) -> None:
    always = {"name": "always", "image": "demo:1", "imagePullPolicy": "Always"}
    absent = {"name": "absent", "image": "new:1", "imagePullPolicy": "IfNotPresent"}
    await plant.pod("web", containers=[container("present"), always, absent])
    await plant.settle()
    told = [message for _, reason, message in plant.events("web") if reason.startswith("Pull")]
    assert told[0] == 'Container image "demo:1" already present on machine'
    assert told[1] == 'Pulling image "demo:1"'
    assert told[2].startswith('Successfully pulled image "demo:1" in ')
    assert told[3] == 'Pulling image "new:1"'
    assert told[4].endswith("including waiting). Image size: 1048576 bytes.")


@pytest.mark.parametrize(
    ("image", "policy", "reason", "event"),
    [
        ("new:1", "Never", "ErrImageNeverPull", "ErrImageNeverPull"),
        ("UPPER:1", "IfNotPresent", "InvalidImageName", "InspectFailed"),
    ],
)
async def test_an_image_that_no_pull_can_help(
    plant: Plant, image: str, policy: str, reason: str, event: str
) -> None:
    bad = {"name": "main", "image": image, "imagePullPolicy": policy}
    await plant.pod("web", containers=[bad])
    await plant.settle()
    assert plant.container("web")["state"]["waiting"]["reason"] == reason
    assert event in plant.reasons("web")
    assert ("Warning", "Failed", f"Error: {reason}") in plant.events("web")
    assert "Pulling" not in plant.reasons("web")


async def test_pull_secrets_open_a_private_registry(plant: Plant) -> None:
    plant.containers.private["private.example/app:1"] = RegistryCredentials("me", "secret")
    await plant.pod("web", image="private.example/app:1", imagePullSecrets=[{"name": "login"}])
    await plant.settle()
    assert plant.container("web")["state"]["waiting"]["reason"] == "ErrImagePull"
    assert "FailedToRetrieveImagePullSecret" in plant.reasons("web")
    auths = {"private.example": {"username": "me", "password": "secret"}}
    config = base64.b64encode(json.dumps({"auths": auths}).encode()).decode()
    await plant.create(
        "secrets",
        {
            "metadata": {"name": "login"},
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": config},
        },
    )
    await asyncio.sleep(12)
    await plant.settle()
    assert plant.phase("pods", "web") == "Running"


async def test_a_container_that_cannot_be_started_has_ended(plant: Plant) -> None:
    await plant.pod("web", "/no/such/program", restartPolicy="Never")
    await plant.settle()
    ended = plant.container("web")["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("StartError", 128)
    assert plant.phase("pods", "web") == "Failed"
    assert ("Warning", "Failed", f"Error: {ended['message']}") in plant.events("web")
    assert "Started" not in plant.reasons("web")


async def test_a_container_that_cannot_be_started_loops_like_one_that_crashes(
    plant: Plant,
) -> None:
    await plant.pod("web", "/no/such/program")
    await plant.settle()
    looping = plant.container("web")
    assert looping["restartCount"] == 1
    assert looping["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert looping["lastState"]["terminated"]["reason"] == "StartError"


# Hooks and probes -------------------------------------------------------------------------------


async def test_a_container_is_told_of_once_its_post_start_hook_has_ended(plant: Plant) -> None:
    hook = {"postStart": {"sleep": {"seconds": 30}}}
    await plant.pod("web", containers=[container("main", lifecycle=hook), container("next")])
    await asyncio.sleep(10)
    assert plant.container("web")["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert plant.phase("pods", "web") == "Pending"
    assert list(plant.workload("web").containers) == ["main"]  # the next one waits for it
    await asyncio.sleep(25)
    await plant.settle()
    assert plant.phase("pods", "web") == "Running"
    assert plant.container("web")["ready"]


async def test_a_post_start_hook_that_fails_kills_its_container(plant: Plant) -> None:
    hook = {"postStart": {"exec": {"command": ["false"]}}}  # nothing runs commands here
    await plant.pod("web", containers=[container("main", lifecycle=hook)], restartPolicy="Never")
    await plant.settle()
    assert plant.phase("pods", "web") == "Failed"
    assert plant.container("web")["state"]["terminated"]["exitCode"] == 143
    events = plant.events("web")
    assert ("Warning", "FailedPostStartHook", "PostStartHook failed") in events
    assert ("Normal", "Killing", "FailedPostStartHook") in events


async def test_a_pre_stop_hook_runs_within_the_grace(plant: Plant) -> None:
    hook = {"preStop": {"sleep": {"seconds": 20}}}
    await plant.pod("web", "ignore-stop", containers=[container("main", lifecycle=hook)])
    await plant.settle()
    await plant.delete("pods", "web", gracePeriodSeconds=60)
    await asyncio.sleep(15)
    assert plant.workload("web").running
    assert plant.exists("pods", "web")
    await asyncio.sleep(10)
    assert not plant.exists("pods", "web")


async def test_a_pre_stop_hook_that_takes_too_long_is_told_and_left(plant: Plant) -> None:
    hook = {"preStop": {"sleep": {"seconds": 25}}}
    await plant.pod("web", containers=[container("main", lifecycle=hook)])
    await plant.settle()
    await plant.delete("pods", "web", gracePeriodSeconds=5)
    await asyncio.sleep(10)
    await plant.settle()
    assert not plant.exists("pods", "web")
    assert ("Warning", "FailedPreStopHook", "PreStopHook failed") in plant.events("web")


async def test_a_container_that_fails_its_liveness_probe_is_started_again(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await plant.pod("web", containers=[container("main"), container("other")])
    await plant.settle()
    pods = plant.manager.pods
    assert pods is not None
    first = plant.workload("web").containers["main"].container_id

    def doomed(_uid: str, _container: str, container_id: str) -> str | None:
        return "failed liveness probe" if container_id == first else None

    monkeypatch.setattr(pods.probes, "doomed", doomed)
    pods.workloads.look(plant.uid("pods", "web"))
    await plant.settle()
    restarted = plant.container("web")
    assert restarted["restartCount"] == 1
    assert restarted["lastState"]["terminated"]["exitCode"] == 143
    assert plant.container("web", "other")["restartCount"] == 0
    message = "Container main failed liveness probe, will be restarted"
    assert ("Normal", "Killing", message) in plant.events("web")


# The end ----------------------------------------------------------------------------------------


async def test_the_status_tells_how_a_deleted_pod_ended(plant: Plant) -> None:
    metadata = {"name": "web", "finalizers": ["example.org/hold"]}
    spec = {"containers": [container("main"), container("done", "exit", "0")]}
    await plant.create("pods", {"metadata": metadata, "spec": {**spec, "restartPolicy": "Never"}})
    await plant.settle()
    await plant.delete("pods", "web", gracePeriodSeconds=5)
    await plant.settle()
    assert plant.phase("pods", "web") == "Failed"
    assert plant.container("web")["state"]["terminated"]["exitCode"] == 143
    assert plant.container("web", "done")["state"]["terminated"]["exitCode"] == 0


async def test_a_pod_that_has_ended_gives_back_its_network_and_keeps_its_containers(
    plant: Plant,
) -> None:
    await plant.pod("web", "echo", "bye", restartPolicy="Never")
    await plant.settle()
    assert plant.phase("pods", "web") == "Succeeded"
    workload = plant.workload("web")
    assert not workload.reachable
    assert [line for _, line in workload.containers["main"].log] == [b"bye\n"]
    releases = plant.containers.faults.visits["release"]
    await plant.restart()
    assert plant.containers.faults.visits["release"] == releases
    await plant.delete("pods", "web")
    await plant.settle()
    assert not plant.containers.workloads


async def test_a_pod_that_uses_too_much_is_evicted(plant: Plant) -> None:
    await plant.pod("web")
    await plant.settle()
    assert plant.manager.pods is not None
    assert plant.manager.volumes is not None
    message = 'Usage of EmptyDir volume "tmp" exceeds the limit "1Mi".'
    plant.manager.pods._evict(plant.uid("pods", "web"), message)
    await plant.settle()
    status = plant.get("pods", "web")["status"]
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "Evicted", message)
    assert plant.condition("pods", "web", "DisruptionTarget")["reason"] == "TerminationByKubelet"
    assert "Evicted" in plant.reasons("web")
    assert not plant.workload("web").running


async def test_a_pod_that_was_never_placed_is_deleted_without_a_runtime(plant: Plant) -> None:
    await plant.pod("web", nodeSelector={"no": "where"})
    await plant.settle()
    plant.containers.available = False
    await plant.delete("pods", "web")
    await plant.settle()
    assert not plant.exists("pods", "web")


# Coming back ------------------------------------------------------------------------------------


async def test_after_a_reboot_all_of_it_runs_again(plant: Plant) -> None:
    init = [container("init", "exit", "0"), sidecar("side")]
    await plant.pod("web", initContainers=init)
    await plant.pod("done", "exit", "0", restartPolicy="Never")
    await plant.settle()
    await plant.stop()
    plant.containers.lose_sandbox(plant.uid("pods", "web"))
    await plant.restart()
    assert plant.phase("pods", "web") == "Running"
    assert plant.container("web")["restartCount"] == 1
    assert plant.container("web")["lastState"]["terminated"]["exitCode"] == 137
    assert entry(plant, "init")["restartCount"] == 1
    assert entry(plant, "side")["restartCount"] == 1
    assert "SandboxChanged" in plant.reasons("web")
    assert plant.phase("pods", "done") == "Succeeded"


async def test_a_container_that_was_made_and_not_started_is_picked_up(plant: Plant) -> None:
    await plant.pod("web")
    await plant.settle()
    await plant.stop()
    made = plant.workload("web").containers["main"]
    made.phase = made.phase.PENDING
    await plant.restart()
    assert plant.phase("pods", "web") == "Running"
    assert plant.container("web")["restartCount"] == 0
    assert plant.workload("web").running


async def test_a_deletion_that_a_daemon_began_is_finished_by_the_next(plant: Plant) -> None:
    await plant.pod("web", "ignore-stop")
    await plant.settle()
    await plant.delete("pods", "web", gracePeriodSeconds=3000)
    await asyncio.sleep(1)
    await plant.manager.stop()
    plant.manager = plant._manager()
    await plant.manager.start()
    await asyncio.sleep(1)
    assert plant.exists("pods", "web")
    await plant.delete("pods", "web", gracePeriodSeconds=1)
    await asyncio.sleep(4)
    await plant.settle()
    assert not plant.exists("pods", "web")


# Conditions and placement -----------------------------------------------------------------------


async def test_readiness_gates_are_somebody_elses_word(plant: Plant) -> None:
    await plant.pod("web", readinessGates=[{"conditionType": "example.org/open"}])
    await plant.settle()
    ready = plant.condition("pods", "web", "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ReadinessGatesNotReady")
    assert ready["message"] == (
        'corresponding condition of pod readiness gate "example.org/open" does not exist.'
    )
    assert plant.condition("pods", "web", "ContainersReady")["status"] == "True"

    def open_gate(pod: dict[str, Any]) -> None:
        pod["status"]["conditions"].append({"type": "example.org/open", "status": "True"})

    await plant.update("pods", "web", open_gate, subresource="status")
    await plant.settle()
    assert plant.condition("pods", "web", "Ready")["status"] == "True"
    assert plant.condition("pods", "web", "example.org/open")["status"] == "True"


async def test_a_gated_pod_waits_to_be_let_through(plant: Plant) -> None:
    await plant.pod("web", schedulingGates=[{"name": "example.org/hold"}])
    await plant.settle()
    scheduled = plant.condition("pods", "web", "PodScheduled")
    assert (scheduled["status"], scheduled["reason"]) == ("False", "SchedulingGated")
    assert plant.phase("pods", "web") == "Pending"

    def lift(pod: dict[str, Any]) -> None:
        pod["spec"]["schedulingGates"] = []

    await plant.update("pods", "web", lift)
    await plant.settle()
    assert plant.phase("pods", "web") == "Running"


async def test_a_pod_that_does_not_fit_is_placed_when_there_is_room(plant: Plant) -> None:
    big = [container("main", resources={"requests": {"cpu": "3"}})]
    await plant.pod("first", containers=big)
    await plant.settle()
    await plant.pod("second", containers=big)
    await plant.settle()
    assert plant.phase("pods", "second") == "Pending"
    assert "Insufficient cpu" in plant.condition("pods", "second", "PodScheduled")["message"]
    assert plant.reasons("second") == ["FailedScheduling"]
    await plant.delete("pods", "first", gracePeriodSeconds=0)
    await plant.settle()
    assert plant.phase("pods", "second") == "Running"


async def test_a_node_that_changes_takes_pods_that_it_did_not(plant: Plant) -> None:
    await plant.pod("web", nodeSelector={"disk": "fast"})
    await plant.settle()
    assert plant.phase("pods", "web") == "Pending"

    def label(node: dict[str, Any]) -> None:
        node["metadata"].setdefault("labels", {})["disk"] = "fast"

    await plant.update("nodes", "node-1", label)
    await plant.settle()
    assert plant.phase("pods", "web") == "Running"


# What comes before the first container ----------------------------------------------------------


async def test_a_sandbox_that_cannot_be_made_is_told_and_tried_again(plant: Plant) -> None:
    plant.containers.faults.fail("create.define", TandemError("no network"), times=3)
    await plant.pod("web")
    await asyncio.sleep(5)
    await plant.settle()
    message = "Failed to create pod sandbox: no network"
    assert ("Warning", "FailedCreatePodSandBox", message) in plant.events("web")
    assert plant.phase("pods", "web") == "Running"


async def test_a_volume_that_is_not_there_is_waited_for(plant: Plant) -> None:
    volume = {"name": "settings", "configMap": {"name": "late"}}
    await plant.pod("web", volumes=[volume])
    await plant.settle()
    message = 'MountVolume.SetUp failed for volume "settings" : configmap "late" not found'
    assert ("Warning", "FailedMount", message) in plant.events("web")
    assert plant.container("web")["state"] == {"waiting": {"reason": "ContainerCreating"}}
    await plant.create("configmaps", {"metadata": {"name": "late"}, "data": {"a": "b"}})
    await plant.settle()
    assert plant.phase("pods", "web") == "Running"


async def test_the_handler_of_a_runtime_class_reaches_the_runtime(plant: Plant) -> None:
    await plant.create(
        "runtimeclasses", {"metadata": {"name": "boxed"}, "handler": "gvisor"}, namespace=""
    )
    await plant.pod("web", runtimeClassName="boxed")
    await plant.settle()
    assert plant.phase("pods", "web") == "Running"
    spec = plant.workload("web").spec.container_spec
    assert spec is not None
    assert spec["runtimeHandler"] == "gvisor"


async def test_a_pod_of_the_hosts_network_has_the_hosts_address(plant: Plant) -> None:
    await plant.pod("web", hostNetwork=True)
    await plant.settle()
    assert plant.get("pods", "web")["status"]["podIP"] == "192.0.2.10"
