"""Virtual machines and their instances, on the in-memory runtime."""

from __future__ import annotations

import asyncio

import pytest

from tandem.api.meta import get
from tandem.errors import ImagePullError, InvalidSpec
from tandem.store import Key
from tests.unit.control.plant import FAKE_TIME, Plant

pytestmark = FAKE_TIME

VM, VMI = "virtualmachines", "virtualmachineinstances"


def status(plant: Plant, name: str) -> str:
    return str(get(plant.get(VM, name), "status.printableStatus", ""))


async def test_a_machine_comes_to_run(plant: Plant) -> None:
    await plant.vm("db")
    await plant.settle()
    vm, vmi = plant.get(VM, "db"), plant.get(VMI, "db")
    assert status(plant, "db") == "Running"
    assert vm["status"]["created"]
    assert vm["status"]["ready"]
    assert vm["status"]["observedGeneration"] == 1
    assert plant.condition(VM, "db", "Ready")["status"] == "True"
    assert vmi["status"]["phase"] == "Running"
    assert vmi["status"]["nodeName"] == "node-1"
    assert vmi["status"]["interfaces"][0]["ipAddress"]
    phases = [entry["phase"] for entry in vmi["status"]["phaseTransitionTimestamps"]]
    assert phases == ["Pending", "Scheduling", "Scheduled", "Running"]
    assert vmi["metadata"]["ownerReferences"][0]["uid"] == vm["metadata"]["uid"]
    assert plant.condition(VMI, "db", "LiveMigratable")["status"] == "False"
    assert plant.condition(VMI, "db", "SoftwareEmulation")["message"] == "nothing is really run"
    created = "Started the virtual machine by creating the new virtual machine instance db"
    assert ("Normal", "SuccessfulCreate", created) in plant.events("db")
    assert ("Normal", "Started", "VirtualMachineInstance started.") in plant.events("db")


async def test_a_halted_machine_has_no_instance(plant: Plant) -> None:
    await plant.vm("db", runStrategy="Halted")
    await plant.settle()
    assert status(plant, "db") == "Stopped"
    assert not plant.exists(VMI, "db")
    assert plant.condition(VM, "db", "Ready")["reason"] == "VMINotExists"


async def test_halting_a_machine_stops_it_and_gives_everything_back(plant: Plant) -> None:
    await plant.vm("db")
    await plant.settle()
    assert plant.files.present
    await plant.update(VM, "db", lambda vm: vm["spec"].update(runStrategy="Halted"))
    await plant.settle()
    assert status(plant, "db") == "Stopped"
    assert not plant.exists(VMI, "db")
    assert not plant.machines.workloads
    assert not plant.files.present


async def test_a_machine_that_is_always_to_run_is_started_again(plant: Plant) -> None:
    await plant.vm("db")
    await plant.settle()
    first = plant.uid(VMI, "db")
    plant.machines.end(first)
    await plant.settle()
    assert status(plant, "db") == "Running"
    assert plant.uid(VMI, "db") != first
    plant.machines.crash(plant.uid(VMI, "db"))
    await plant.settle()
    assert status(plant, "db") == "Running"
    assert ("Warning", "Stopped", "The VirtualMachineInstance crashed.") in plant.events("db")


async def test_rerun_on_failure_leaves_a_clean_end_alone(plant: Plant) -> None:
    await plant.vm("job", runStrategy="RerunOnFailure")
    await plant.settle()
    assert status(plant, "job") == "Running"
    plant.machines.crash(plant.uid(VMI, "job"))
    await plant.settle()
    assert status(plant, "job") == "Running"
    plant.machines.end(plant.uid(VMI, "job"))
    await plant.settle()
    assert status(plant, "job") == "Stopped"
    assert not plant.exists(VMI, "job")
    await plant.restart()
    assert status(plant, "job") == "Stopped"


async def test_once_is_once(plant: Plant) -> None:
    await plant.vm("job", runStrategy="Once")
    await plant.settle()
    plant.machines.end(plant.uid(VMI, "job"))
    await plant.settle()
    assert status(plant, "job") == "Stopped"
    assert plant.phase(VMI, "job") == "Succeeded"
    assert not plant.machines.workloads
    await plant.restart()
    assert plant.phase(VMI, "job") == "Succeeded"


async def request(plant: Plant, name: str, *requests: dict[str, str]) -> None:
    def alter(vm: dict[str, object]) -> None:
        vm.setdefault("status", {})["stateChangeRequests"] = list(requests)  # type: ignore[index]

    await plant.update(VM, name, alter, subresource="status")
    await plant.settle()


async def test_a_manual_machine_does_as_it_is_asked(plant: Plant) -> None:
    await plant.vm("db", runStrategy="Manual")
    await plant.settle()
    assert status(plant, "db") == "Stopped"
    await request(plant, "db", {"action": "Start"})
    assert status(plant, "db") == "Running"
    assert "stateChangeRequests" not in plant.get(VM, "db")["status"]
    first = plant.uid(VMI, "db")
    await request(plant, "db", {"action": "Stop", "uid": first}, {"action": "Start"})
    assert status(plant, "db") == "Running"
    assert plant.uid(VMI, "db") != first
    await request(plant, "db", {"action": "Stop", "uid": plant.uid(VMI, "db")})
    assert status(plant, "db") == "Stopped"


async def test_a_restart_of_an_always_running_machine(plant: Plant) -> None:
    await plant.vm("db")
    await plant.settle()
    first = plant.uid(VMI, "db")
    await request(plant, "db", {"action": "Stop", "uid": first}, {"action": "Start"})
    assert status(plant, "db") == "Running"
    assert plant.uid(VMI, "db") != first
    assert "stateChangeRequests" not in plant.get(VM, "db")["status"]


async def test_deleting_a_machine_takes_its_instance_with_it(plant: Plant) -> None:
    await plant.vm("db", guest="ignore-stop", template_spec={"terminationGracePeriodSeconds": 20})
    await plant.settle()
    await plant.delete(VM, "db")
    await asyncio.sleep(5)
    assert status(plant, "db") == "Terminating"
    await asyncio.sleep(20)
    await plant.settle()
    assert not plant.exists(VM, "db")
    assert not plant.exists(VMI, "db")
    assert not plant.machines.workloads
    assert not plant.files.present


async def test_an_orphaned_instance_goes_on(plant: Plant) -> None:
    await plant.vm("db")
    await plant.settle()
    await plant.delete(VM, "db", propagationPolicy="Orphan")
    await plant.settle()
    assert not plant.exists(VM, "db")
    assert plant.phase(VMI, "db") == "Running"
    assert "ownerReferences" not in plant.get(VMI, "db")["metadata"]


async def test_foreground_deletion_waits_for_the_instance(plant: Plant) -> None:
    await plant.vm("db")
    await plant.settle()
    await plant.delete(VM, "db", propagationPolicy="Foreground")
    await plant.settle()
    assert not plant.exists(VM, "db")
    assert not plant.exists(VMI, "db")


async def test_a_machine_removed_by_force_leaves_no_instance(plant: Plant) -> None:
    await plant.vm("db")
    await plant.settle()
    await plant.store.delete(Key("virtualmachines.kubevirt.io", "default", "db"))
    await plant.settle()
    assert not plant.exists(VMI, "db")
    assert not plant.machines.workloads


async def test_an_image_that_cannot_be_pulled_shows_in_the_machine(plant: Plant) -> None:
    plant.files.error = ImagePullError("image absent cannot be pulled")
    await plant.vm("db")
    await plant.settle()
    assert status(plant, "db") == "ErrImagePull"
    await asyncio.sleep(3)
    await plant.settle()
    assert status(plant, "db") == "ImagePullBackOff"
    plant.files.error = None
    await asyncio.sleep(10)
    await plant.settle()
    assert status(plant, "db") == "Running"


async def test_what_cannot_be_made_is_said(plant: Plant) -> None:
    plant.files.error = InvalidSpec("the disk is odd")
    await plant.vm("db")
    await plant.settle()
    synchronized = plant.condition(VMI, "db", "Synchronized")
    assert synchronized["status"] == "False"
    assert synchronized["message"] == "the disk is odd"
    assert ("Warning", "SyncFailed", "the disk is odd") in plant.events("db")
    assert status(plant, "db") == "Starting"


async def test_a_missing_secret_is_waited_for(plant: Plant) -> None:
    volumes = [{"name": "seed", "cloudInitNoCloud": {"secretRef": {"name": "user-data"}}}]
    await plant.vm("db", template_spec={"volumes": volumes})
    await plant.settle()
    assert "user-data" in plant.condition(VMI, "db", "Synchronized")["message"]
    await plant.create("secrets", {"metadata": {"name": "user-data"}, "stringData": {"a": "b"}})
    await plant.settle()
    assert status(plant, "db") == "Running"


async def test_a_machine_that_fails_before_it_runs_backs_off(plant: Plant) -> None:
    plant.files.hold = asyncio.Event()
    await plant.vm("db")
    await asyncio.sleep(1)
    key = Key("virtualmachineinstances.kubevirt.io", "default", "db")

    def fail(vmi: dict[str, object]) -> dict[str, object]:
        vmi["status"]["phase"] = "Failed"  # type: ignore[index]
        return vmi

    await plant.store.mutate(key, fail)
    await asyncio.sleep(1)
    failure = plant.get(VM, "db")["status"]["startFailure"]
    assert failure["consecutiveFailCount"] == 1
    assert status(plant, "db") == "CrashLoopBackOff"
    assert not plant.exists(VMI, "db")
    plant.files.hold = None

    def let_time_pass(vm: dict[str, object]) -> None:
        get(vm, "status.startFailure")["retryAfterTimestamp"] = "2020-01-01T00:00:00Z"

    await plant.update(VM, "db", let_time_pass, subresource="status")
    await plant.settle()
    assert status(plant, "db") == "Running"
    assert "startFailure" not in plant.get(VM, "db")["status"]


async def test_a_machine_too_big_for_the_host_is_not_started(plant: Plant) -> None:
    domain = {"resources": {"requests": {"memory": "9Gi"}}}
    await plant.vm("huge", template_spec={"domain": domain})
    await plant.settle()
    assert status(plant, "huge") == "ErrorUnschedulable"
    assert plant.condition(VMI, "huge", "PodScheduled")["reason"] == "Unschedulable"
    assert not plant.machines.workloads


async def test_a_paused_machine_says_so(plant: Plant) -> None:
    await plant.vm("db")
    await plant.settle()
    adapter = plant.manager.runtimes["vm"].adapter
    await adapter.pause(plant.uid(VMI, "db"))  # type: ignore[attr-defined]
    await plant.settle()
    assert status(plant, "db") == "Paused"
    assert plant.phase(VMI, "db") == "Running"
    assert plant.condition(VMI, "db", "Ready")["status"] == "False"
    await adapter.resume(plant.uid(VMI, "db"))  # type: ignore[attr-defined]
    await plant.settle()
    assert status(plant, "db") == "Running"


async def test_a_changed_template_asks_for_a_restart(plant: Plant) -> None:
    await plant.vm("db")
    await plant.settle()

    def alter(vm: dict[str, object]) -> None:
        get(vm, "spec.template.spec")["hostname"] = "other"

    await plant.update(VM, "db", alter)
    await plant.settle()
    assert plant.condition(VM, "db", "RestartRequired")["status"] == "True"
    assert plant.get(VM, "db")["status"]["observedGeneration"] == 2


async def test_an_instance_of_somebody_else_is_not_taken_over(plant: Plant) -> None:
    domain = {"resources": {"requests": {"memory": "64Mi"}}}
    await plant.create(VMI, {"metadata": {"name": "db"}, "spec": {"domain": domain}})
    await plant.settle()
    uid = plant.uid(VMI, "db")
    await plant.vm("db")
    await plant.settle()
    assert plant.uid(VMI, "db") == uid
    assert plant.condition(VM, "db", "Failure")["reason"] == "FailedCreate"


async def test_an_instance_of_its_own_runs_and_ends(plant: Plant) -> None:
    domain = {"resources": {"requests": {"memory": "64Mi"}}}
    await plant.create(VMI, {"metadata": {"name": "solo"}, "spec": {"domain": domain}})
    await plant.settle()
    assert plant.phase(VMI, "solo") == "Running"
    plant.machines.end(plant.uid(VMI, "solo"))
    await plant.settle()
    assert plant.phase(VMI, "solo") == "Succeeded"
    assert not plant.machines.workloads
    assert not plant.files.present
    await plant.delete(VMI, "solo")
    await plant.settle()
    assert not plant.exists(VMI, "solo")


async def test_deleting_interrupts_a_preparation(plant: Plant) -> None:
    plant.files.hold = asyncio.Event()
    await plant.vm("db")
    await asyncio.sleep(1)
    assert plant.phase(VMI, "db") == "Scheduling"
    await plant.delete(VM, "db")
    await plant.settle()
    assert not plant.exists(VM, "db")


async def test_a_new_daemon_adopts_running_machines(plant: Plant) -> None:
    await plant.vm("db")
    await plant.settle()
    before = plant.get(VMI, "db")
    revision = plant.store.revision
    await plant.restart()
    assert plant.get(VMI, "db") == before
    assert plant.store.revision == revision


async def test_a_machine_that_ended_while_no_daemon_ran(plant: Plant) -> None:
    await plant.vm("db", runStrategy="Once")
    await plant.settle()
    await plant.stop()
    plant.machines.end(plant.uid(VMI, "db"))
    await plant.restart()
    assert plant.phase(VMI, "db") == "Succeeded"
    assert not plant.machines.workloads


async def test_what_nobody_claims_is_removed_at_start(plant: Plant) -> None:
    await plant.vm("db")
    await plant.settle()
    await plant.stop()
    plant.files.present.add("stale")
    await plant.store.delete(Key("virtualmachines.kubevirt.io", "default", "db"))
    await plant.store.delete(Key("virtualmachineinstances.kubevirt.io", "default", "db"))
    await plant.restart()
    assert not plant.machines.workloads
    assert not plant.files.present


@pytest.mark.parametrize("step", ["create", "create.define", "create.start"])
async def test_a_daemon_that_died_while_starting_is_made_up_for(plant: Plant, step: str) -> None:
    hold = plant.machines.faults.hold(step)
    await plant.vm("db")
    await hold.reached.wait()
    await plant.stop()
    plant.machines.faults.clear()
    await plant.restart()
    assert status(plant, "db") == "Running"
    assert len(plant.machines.workloads) == 1


async def test_a_runtime_that_is_away_is_said(plant: Plant) -> None:
    await plant.vm("db")
    await plant.settle()
    plant.machines.available = False
    await asyncio.sleep(10)
    await plant.settle()
    assert plant.condition(VMI, "db", "Ready")["reason"] == "RuntimeUnavailable"
    assert plant.phase(VMI, "db") == "Running"
    plant.machines.available = True
    await asyncio.sleep(1)
    await plant.settle()
    assert plant.condition(VMI, "db", "Ready")["status"] == "True"
