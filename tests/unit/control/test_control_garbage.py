"""Ownership, namespaces and events."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tandem.api.kind import Doc
from tandem.store import Key
from tests.unit.control.plant import FAKE_TIME, Plant

pytestmark = FAKE_TIME


def owned(name: str, owner: Doc, **more: object) -> Doc:
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        **more,
    }
    return {"metadata": {"name": name, "ownerReferences": [reference]}}


async def test_what_is_owned_goes_with_its_owner(plant: Plant) -> None:
    owner = await plant.create("configmaps", {"metadata": {"name": "owner"}})
    child = await plant.create("configmaps", owned("child", owner))
    await plant.create("configmaps", owned("grandchild", child))
    await plant.create("configmaps", {"metadata": {"name": "other"}})
    await plant.delete("configmaps", "owner")
    await plant.settle()
    assert not plant.exists("configmaps", "child")
    assert not plant.exists("configmaps", "grandchild")
    assert plant.exists("configmaps", "other")


async def test_what_is_owned_by_nobody_who_exists_goes(plant: Plant) -> None:
    ghost = {"metadata": {"name": "ghost", "uid": "no-such-uid"}}
    await plant.create("configmaps", owned("child", ghost))
    await plant.settle()
    assert not plant.exists("configmaps", "child")


async def test_an_owner_of_an_unknown_kind_is_not_judged(plant: Plant) -> None:
    ghost = {"metadata": {"name": "ghost", "uid": "no-such-uid"}}
    await plant.create("configmaps", owned("child", ghost, kind="Gadget"))
    await plant.settle()
    assert plant.exists("configmaps", "child")


async def test_one_owner_of_two_keeps_it(plant: Plant) -> None:
    one = await plant.create("configmaps", {"metadata": {"name": "one"}})
    two = await plant.create("configmaps", {"metadata": {"name": "two"}})
    doc = owned("child", one)
    doc["metadata"]["ownerReferences"] += owned("child", two)["metadata"]["ownerReferences"]
    await plant.create("configmaps", doc)
    await plant.delete("configmaps", "one")
    await plant.settle()
    references = plant.get("configmaps", "child")["metadata"]["ownerReferences"]
    assert [reference["name"] for reference in references] == ["two"]


async def test_orphans_are_let_go(plant: Plant) -> None:
    owner = await plant.create("configmaps", {"metadata": {"name": "owner"}})
    await plant.create("configmaps", owned("child", owner))
    await plant.delete("configmaps", "owner", propagationPolicy="Orphan")
    await plant.settle()
    assert not plant.exists("configmaps", "owner")
    assert "ownerReferences" not in plant.get("configmaps", "child")["metadata"]


async def test_foreground_deletion_goes_from_the_bottom_up(plant: Plant) -> None:
    owner = await plant.create("configmaps", {"metadata": {"name": "owner"}})
    doc = owned("child", owner, blockOwnerDeletion=True)
    doc["metadata"]["finalizers"] = ["example.org/hold"]
    await plant.create("configmaps", doc)
    await plant.delete("configmaps", "owner", propagationPolicy="Foreground")
    await plant.settle()
    assert plant.exists("configmaps", "owner")
    assert plant.get("configmaps", "child")["metadata"]["deletionTimestamp"]
    await plant.store.delete(Key("configmaps", "default", "child"))
    await plant.settle()
    assert not plant.exists("configmaps", "owner")


async def test_foreground_deletion_waits_for_none_that_does_not_block_it(plant: Plant) -> None:
    owner = await plant.create("configmaps", {"metadata": {"name": "owner"}})
    other = await plant.create("configmaps", {"metadata": {"name": "other"}})
    loose = owned("loose", owner)
    loose["metadata"]["finalizers"] = ["example.org/hold"]
    await plant.create("configmaps", loose)
    shared = owned("shared", owner, blockOwnerDeletion=True)
    shared["metadata"]["ownerReferences"] += owned("", other)["metadata"]["ownerReferences"]
    await plant.create("configmaps", shared)
    await plant.delete("configmaps", "owner", propagationPolicy="Foreground")
    await plant.settle()
    assert not plant.exists("configmaps", "owner")
    assert plant.get("configmaps", "loose")["metadata"]["deletionTimestamp"]
    (reference,) = plant.get("configmaps", "shared")["metadata"]["ownerReferences"]
    assert reference["name"] == "other"


async def test_what_a_killed_daemon_left_between_two_steps_is_finished(plant: Plant) -> None:
    doc = await plant.create("configmaps", {"metadata": {"name": "left"}})
    doc["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    await plant.store.update(Key("configmaps", "default", "left"), doc)
    await plant.restart()
    assert not plant.exists("configmaps", "left")


async def test_the_expected_namespaces_are_there(plant: Plant) -> None:
    names = [doc["metadata"]["name"] for doc in plant.store.list("namespaces").items]
    assert {"default", "kube-system"} <= set(names)
    assert plant.get("namespaces", "default")["status"]["phase"] == "Active"


async def test_a_deleted_namespace_is_emptied_and_goes(plant: Plant) -> None:
    await plant.create("namespaces", {"metadata": {"name": "lab"}})
    await plant.create("configmaps", {"metadata": {"name": "settings"}}, namespace="lab")
    container = {"name": "main", "image": "demo:1", "command": ["ignore-stop"]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 5}
    await plant.create("pods", {"metadata": {"name": "web"}, "spec": spec}, namespace="lab")
    await plant.settle()
    await plant.delete("namespaces", "lab")
    await asyncio.sleep(2)
    assert plant.get("namespaces", "lab")["status"]["phase"] == "Terminating"
    assert not plant.exists("configmaps", "settings", namespace="lab")
    await asyncio.sleep(5)
    await plant.settle()
    assert not plant.exists("namespaces", "lab")
    assert plant.store.list("pods", "lab").items == []
    assert plant.store.list("events", "lab").items == []
    assert not plant.containers.workloads


async def test_the_same_said_again_is_counted(plant: Plant) -> None:
    doc = await plant.create("configmaps", {"metadata": {"name": "it"}})
    recorder = plant.manager._recorder
    for _ in range(3):
        recorder.normal(doc, "Said", "the same")
        await asyncio.sleep(1)
    recorder.normal(doc, "Said", "something else")
    await asyncio.sleep(1)
    found = {event["message"]: event["count"] for event in plant.store.list("events").items}
    assert found == {"the same": 3, "something else": 1}


async def test_old_events_go(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    doc = await plant.create("configmaps", {"metadata": {"name": "it"}})
    recorder = plant.manager._recorder
    recorder.normal(doc, "Said", "old")
    recorder.normal(doc, "Said", "old, and lately again")
    await asyncio.sleep(1)
    long_ago = (datetime.now(UTC) - timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    for event in plant.store.list("events").items:
        event["lastTimestamp"] = long_ago
        key = Key("events", "default", event["metadata"]["name"])
        await plant.store.update(key, event)
    await plant.restart()
    recorder = plant.manager._recorder
    recorder.normal(doc, "Said", "new")
    await asyncio.sleep(1)
    await recorder.sweep()
    messages = [event["message"] for event in plant.store.list("events").items]
    assert messages == ["new"]


async def test_there_are_never_too_many_events(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tandem.control.recorder.MAX_EVENTS", 5)
    doc = await plant.create("configmaps", {"metadata": {"name": "it"}})
    for number in range(9):
        plant.manager._recorder.normal(doc, "Said", f"number {number}")
    await asyncio.sleep(1)
    await plant.manager._recorder.sweep()
    assert len(plant.store.list("events").items) == 5
