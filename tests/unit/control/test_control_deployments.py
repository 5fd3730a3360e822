"""Deployments: from one template to the next, and back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tandem.api.kind import Doc
from tandem.api.meta import controller_of, get
from tandem.control import clock
from tests.unit.control.plant import FAKE_TIME, Plant

pytestmark = FAKE_TIME

REVISION = "deployment.kubernetes.io/revision"


def template(image: str = "demo:1", **spec: Any) -> Doc:
    container = {"name": "main", "image": image, "command": ["serve"]}
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container], **spec}}


async def deploy(plant: Plant, replicas: int = 3, **spec: Any) -> Doc:
    spec.setdefault("selector", {"matchLabels": {"app": "web"}})
    spec.setdefault("template", template())
    doc = {"metadata": {"name": "web"}, "spec": {"replicas": replicas, **spec}}
    made = await plant.create("deployments", doc)
    await plant.settle()
    return made


async def change(plant: Plant, **spec: Any) -> None:
    def alter(doc: Doc) -> None:
        doc["spec"].update(spec)

    await plant.update("deployments", "web", alter)
    await plant.settle()


def sets(plant: Plant) -> dict[str, Doc]:
    """The ReplicaSets by revision."""
    return {
        doc["metadata"]["annotations"][REVISION]: doc
        for doc in plant.store.list("replicasets.apps").items
    }


def images(plant: Plant) -> list[str]:
    pods = plant.store.list("pods").items
    return sorted(pod["spec"]["containers"][0]["image"] for pod in pods)


def deployment(plant: Plant) -> Doc:
    return plant.get("deployments", "web")


async def test_a_new_one_has_a_replica_set_and_says_how_it_is(plant: Plant) -> None:
    await deploy(plant)
    (replica_set,) = sets(plant).values()
    hash_ = replica_set["metadata"]["labels"]["pod-template-hash"]
    assert replica_set["metadata"]["name"] == f"web-{hash_}"
    assert replica_set["spec"]["selector"]["matchLabels"] == {
        "app": "web",
        "pod-template-hash": hash_,
    }
    assert (controller_of(replica_set) or {})["kind"] == "Deployment"
    annotations = replica_set["metadata"]["annotations"]
    assert annotations["deployment.kubernetes.io/desired-replicas"] == "3"
    assert annotations["deployment.kubernetes.io/max-replicas"] == "4"
    doc = deployment(plant)
    assert doc["metadata"]["annotations"][REVISION] == "1"
    counts = {name: value for name, value in doc["status"].items() if name != "conditions"}
    assert counts == {
        "observedGeneration": 1,
        "replicas": 3,
        "updatedReplicas": 3,
        "readyReplicas": 3,
        "availableReplicas": 3,
    }
    reasons = {
        entry["type"]: (entry["status"], entry["reason"]) for entry in doc["status"]["conditions"]
    }
    assert reasons == {
        "Available": ("True", "MinimumReplicasAvailable"),
        "Progressing": ("True", "NewReplicaSetAvailable"),
    }
    assert plant.events("web") == [
        ("Normal", "ScalingReplicaSet", f"Scaled up replica set web-{hash_} from 0 to 3")
    ]


async def test_another_template_rolls_without_a_gap(plant: Plant) -> None:
    await deploy(plant, replicas=4)
    lows: list[int] = []
    watch = plant.store.watch("pods", since=plant.store.revision)

    async def follow() -> None:
        async with watch as events:
            async for _ in events:
                pods = plant.store.list("pods").items
                lows.append(
                    sum(
                        not get(pod, "metadata.deletionTimestamp")
                        and get(pod, "status.phase") == "Running"
                        for pod in pods
                    )
                )

    following = asyncio.create_task(follow())
    await change(plant, template=template("demo:2"))
    following.cancel()
    assert min(lows) >= 3  # a quarter of four may be missing
    assert images(plant) == ["demo:2"] * 4
    found = sets(plant)
    assert {revision: doc["spec"]["replicas"] for revision, doc in found.items()} == {
        "1": 0,
        "2": 4,
    }
    assert deployment(plant)["metadata"]["annotations"][REVISION] == "2"
    assert deployment(plant)["status"]["updatedReplicas"] == 4


async def test_the_way_back_takes_the_old_replica_set_up_again(plant: Plant) -> None:
    await deploy(plant)
    await change(plant, template=template("demo:2"))
    first = sets(plant)["1"]["metadata"]["uid"]
    await change(plant, template=template("demo:1"))
    found = sets(plant)
    assert set(found) == {"2", "3"}
    assert found["3"]["metadata"]["uid"] == first
    history = found["3"]["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"]
    assert history == "1"
    assert images(plant) == ["demo:1"] * 3


async def test_the_cause_of_a_change_is_kept_with_its_revision(plant: Plant) -> None:
    await deploy(plant)

    def note(doc: Doc) -> None:
        doc["metadata"].setdefault("annotations", {})["kubernetes.io/change-cause"] = "because"

    await plant.update("deployments", "web", note)
    await plant.settle()
    assert sets(plant)["1"]["metadata"]["annotations"]["kubernetes.io/change-cause"] == "because"


async def test_only_so_many_revisions_are_kept(plant: Plant) -> None:
    await deploy(plant, revisionHistoryLimit=2)
    for number in range(2, 6):
        await change(plant, template=template(f"demo:{number}"))
    assert set(sets(plant)) == {"3", "4", "5"}


async def test_scaling_keeps_the_replica_set(plant: Plant) -> None:
    await deploy(plant)
    await change(plant, replicas=5)
    assert len(images(plant)) == 5
    assert list(sets(plant)) == ["1"]
    annotations = sets(plant)["1"]["metadata"]["annotations"]
    assert annotations["deployment.kubernetes.io/desired-replicas"] == "5"
    await change(plant, replicas=0)
    assert images(plant) == []
    assert plant.condition("deployments", "web", "Available")["status"] == "True"


async def test_a_paused_one_is_scaled_and_not_rolled(plant: Plant) -> None:
    await deploy(plant)
    await change(plant, paused=True)
    progressing = plant.condition("deployments", "web", "Progressing")
    assert (progressing["status"], progressing["reason"]) == ("Unknown", "DeploymentPaused")
    await change(plant, template=template("demo:2"))
    await change(plant, replicas=4)
    assert images(plant) == ["demo:1"] * 4
    await change(plant, paused=False)
    assert images(plant) == ["demo:2"] * 4
    reason = plant.condition("deployments", "web", "Progressing")["reason"]
    assert reason == "NewReplicaSetAvailable"


async def test_recreate_makes_the_new_when_nothing_of_the_old_runs(plant: Plant) -> None:
    await deploy(plant, strategy={"type": "Recreate"})
    most: list[set[str]] = []
    watch = plant.store.watch("pods", since=plant.store.revision)

    async def follow() -> None:
        async with watch as events:
            async for _ in events:
                most.append(set(images(plant)))  # noqa: PERF401 (until it is cancelled)

    following = asyncio.create_task(follow())
    await change(plant, template=template("demo:2"))
    following.cancel()
    assert {"demo:1", "demo:2"} not in most
    assert images(plant) == ["demo:2"] * 3


async def test_a_rollout_that_cannot_go_on_stops_and_is_told_of(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deploy(plant, progressDeadlineSeconds=60)
    plant.containers.unpullable.add("broken:1")
    await change(plant, template=template("broken:1"))
    assert images(plant).count("demo:1") == 3  # none of them makes way
    reason = plant.condition("deployments", "web", "Progressing")["reason"]
    assert reason == "ReplicaSetUpdated"
    monkeypatch.setattr(clock, "since", lambda _: 61.0)
    await asyncio.sleep(62)
    await plant.settle()
    progressing = plant.condition("deployments", "web", "Progressing")
    assert (progressing["status"], progressing["reason"]) == ("False", "ProgressDeadlineExceeded")
    new = sets(plant)["2"]["metadata"]["name"]
    assert progressing["message"] == f'ReplicaSet "{new}" has timed out progressing.'
    # A template that works again, and all is well.
    await change(plant, template=template("demo:3"))
    assert images(plant) == ["demo:3"] * 3
    reason = plant.condition("deployments", "web", "Progressing")["reason"]
    assert reason == "NewReplicaSetAvailable"


async def test_a_name_that_is_taken_is_avoided(plant: Plant) -> None:
    made = await deploy(plant, replicas=1)
    (name,) = (doc["metadata"]["name"] for doc in sets(plant).values())
    await plant.delete("deployments", "web", propagationPolicy="Background")
    await plant.settle()
    foreign = {
        "metadata": {"name": name},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "other"}},
            "template": template() | {"metadata": {"labels": {"app": "other"}}},
        },
    }
    await plant.create("replicasets", foreign)
    await plant.create("deployments", {"metadata": {"name": "web"}, "spec": made["spec"]})
    await plant.settle()
    assert deployment(plant)["status"]["collisionCount"] == 1
    assert deployment(plant)["status"]["availableReplicas"] == 1


async def test_what_cannot_be_made_shows_in_its_conditions(plant: Plant) -> None:
    await deploy(plant, template=template(priorityClassName="no-such-class"))
    failure = plant.condition("deployments", "web", "ReplicaFailure")
    assert (failure["status"], failure["reason"]) == ("True", "FailedCreate")


@pytest.mark.parametrize("policy", ["Background", "Foreground", "Orphan"])
async def test_cascades(plant: Plant, policy: str) -> None:
    await deploy(plant)
    await plant.delete("deployments", "web", propagationPolicy=policy)
    await plant.settle()
    assert not plant.exists("deployments", "web")
    left = (len(plant.store.list("replicasets.apps").items), len(images(plant)))
    assert left == ((1, 3) if policy == "Orphan" else (0, 0))


async def test_a_restart_goes_on_where_it_was(plant: Plant) -> None:
    await deploy(plant)
    before = plant.uid("deployments", "web"), images(plant)
    await change(plant, template=template("demo:2"))
    await plant.restart()
    assert (plant.uid("deployments", "web"), images(plant)) == (before[0], ["demo:2"] * 3)
    assert set(sets(plant)) == {"1", "2"}


async def test_foreground_deletion_waits_for_the_last_pod(plant: Plant) -> None:
    stubborn = template(terminationGracePeriodSeconds=20)
    stubborn["spec"]["containers"][0]["command"] = ["ignore-stop"]
    await deploy(plant, replicas=1, template=stubborn)
    await plant.delete("deployments", "web", propagationPolicy="Foreground")
    await asyncio.sleep(10)
    assert plant.exists("deployments", "web")
    assert len(images(plant)) == 1
    await asyncio.sleep(20)
    await plant.settle()
    assert not plant.exists("deployments", "web")
    assert images(plant) == []
