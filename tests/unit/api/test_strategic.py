"""Strategic merge patch: what kubectl apply, edit and patch rely on."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.api.patch import merge_patch, strategic_merge_patch
from tandem.errors import BadRequest

POD = "io.k8s.api.core.v1.Pod"


def strategic(doc: Any, patch: Any) -> Any:
    before = copy.deepcopy((doc, patch))
    result = strategic_merge_patch(doc, patch, POD)
    assert (doc, patch) == before, "neither is altered"
    return result


def spec(doc: Any, patch: Any) -> Any:
    return strategic({"spec": doc}, {"spec": patch})["spec"]


def named(*names: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"name": name, **fields} for name in names]


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["name"] for item in items]


def test_containers_are_merged_by_name() -> None:
    doc = {"containers": [{"name": "a", "image": "1", "tty": True}, {"name": "b", "image": "1"}]}
    patch = {"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}
    assert spec(doc, patch)["containers"] == [
        {"name": "a", "image": "1", "tty": True},
        {"name": "b", "image": "2"},
        {"name": "c", "image": "3"},
    ]


def test_lists_are_merged_at_every_depth() -> None:
    doc = {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}]}
    patch = {"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}]}]}
    (container,) = spec(doc, patch)["containers"]
    assert sorted(container["env"], key=lambda item: item["name"]) == [
        {"name": "X", "value": "1"},
        {"name": "Y", "value": "2"},
    ]


def test_the_key_is_the_list_s_own() -> None:
    mounts = [{"mountPath": "/a", "name": "v"}, {"mountPath": "/b", "name": "v"}]
    doc = {"containers": [{"name": "a", "volumeMounts": mounts}]}
    patch = {"containers": [{"name": "a", "volumeMounts": [{"mountPath": "/b", "name": "w"}]}]}
    (container,) = spec(doc, patch)["containers"]
    assert container["volumeMounts"] == [mounts[0], {"mountPath": "/b", "name": "w"}]


def test_other_lists_are_replaced() -> None:
    doc = {"containers": [{"name": "a", "args": ["1", "2"]}], "tolerations": [{"key": "x"}]}
    patch = {"containers": [{"name": "a", "args": ["3"]}], "tolerations": [{"key": "y"}]}
    result = spec(doc, patch)
    assert result["containers"][0]["args"] == ["3"]
    assert result["tolerations"] == [{"key": "y"}]


def test_scalars_of_a_merged_list_are_united() -> None:
    doc = {"metadata": {"finalizers": ["a", "b"]}}
    merged = strategic(doc, {"metadata": {"finalizers": ["c", "b"]}})
    assert sorted(merged["metadata"]["finalizers"]) == ["a", "b", "c"]


def test_scalars_are_deleted_by_a_directive() -> None:
    doc = {"metadata": {"finalizers": ["a", "b"]}}
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "missing"]}}
    assert strategic(doc, patch)["metadata"] == {"finalizers": ["b"]}
    assert strategic({"metadata": {}}, patch)["metadata"] == {}


def test_maps_are_merged_and_null_removes() -> None:
    doc = {"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"nodeName": "n"}}
    patch = {"metadata": {"labels": {"a": None, "c": "3"}}, "spec": {"nodeName": None}}
    assert strategic(doc, patch) == {"metadata": {"labels": {"b": "2", "c": "3"}}, "spec": {}}


def test_an_item_is_deleted_by_a_directive() -> None:
    doc = {"containers": named("a", "b")}
    patch = {"containers": [{"name": "a", "$patch": "delete"}, {"name": "x", "$patch": "delete"}]}
    assert spec(doc, patch) == {"containers": named("b")}


def test_a_list_is_replaced_by_a_directive() -> None:
    doc = {"containers": named("a", "b")}
    patch = {"containers": [{"name": "c"}, {"$patch": "replace"}]}
    assert spec(doc, patch) == {"containers": named("c")}


def test_an_object_is_replaced_or_emptied_by_a_directive() -> None:
    doc = {"securityContext": {"runAsUser": 1, "fsGroup": 2}}
    replace = {"securityContext": {"$patch": "replace", "runAsGroup": 3}}
    assert spec(doc, replace) == {"securityContext": {"runAsGroup": 3}}
    assert spec(doc, {"securityContext": {"$patch": "delete"}}) == {"securityContext": {}}


def test_a_union_keeps_the_members_named() -> None:
    doc = {"volumes": [{"name": "v", "emptyDir": {}}]}
    volume = {"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}
    assert spec(doc, {"volumes": [volume]}) == {
        "volumes": [{"name": "v", "hostPath": {"path": "/x"}}]
    }


def test_the_order_is_what_the_directive_says() -> None:
    doc = {"containers": named("a", "b", "c", image="1")}
    patch = {
        "$setElementOrder/containers": named("c", "a", "b"),
        "containers": [{"name": "b", "image": "2"}],
    }
    result = spec(doc, patch)["containers"]
    assert names(result) == ["c", "a", "b"]
    assert result[2]["image"] == "2"


def test_the_order_can_be_set_without_changing_an_item() -> None:
    doc = {"containers": named("a", "b")}
    patch = {"$setElementOrder/containers": named("b", "a")}
    assert spec(doc, patch) == {"containers": named("b", "a")}


def test_items_that_only_the_server_has_keep_their_place() -> None:
    # kubectl apply names only what the manifest has; "injected" came from elsewhere.
    doc = {"containers": named("injected", "a", "b")}
    patch = {
        "$setElementOrder/containers": named("a", "b", "c"),
        "containers": named("c"),
    }
    assert names(spec(doc, patch)["containers"]) == ["injected", "a", "b", "c"]


def test_an_ordered_list_that_is_new_is_taken_as_it_is() -> None:
    patch = {
        "$setElementOrder/containers": named("a"),
        "containers": [{"name": "a", "env": [{"name": "X", "value": None}]}],
    }
    assert spec({}, patch) == {"containers": [{"name": "a", "env": [{"name": "X"}]}]}
    assert spec({}, {"$setElementOrder/containers": named("a")}) == {}


def test_kubectl_apply_s_own_patch_of_environment_variables() -> None:
    # Recorded from kubectl 1.32: one variable changed, one removed, one added.
    doc = {"containers": [{"name": "c", "env": named("X", "Y", value="1")}]}
    patch = {
        "$setElementOrder/containers": [{"name": "c"}],
        "containers": [
            {
                "$setElementOrder/env": named("X", "Z"),
                "name": "c",
                "env": [
                    {"name": "X", "value": "2"},
                    {"name": "Z", "value": "3"},
                    {"$patch": "delete", "name": "Y"},
                ],
            }
        ],
    }
    (container,) = spec(doc, patch)["containers"]
    assert container["env"] == [{"name": "X", "value": "2"}, {"name": "Z", "value": "3"}]


def test_new_parts_lose_their_directives_and_nulls() -> None:
    patch = {
        "containers": [
            {"name": "a", "$patch": "delete"},
            {"name": "b", "tty": None, "env": [{"$patch": "delete", "name": "X"}, {"name": "Y"}]},
        ]
    }
    assert spec({}, patch) == {"containers": [{"name": "b", "env": named("Y")}]}


@pytest.mark.parametrize(
    "patch",
    [
        {"containers": [{"image": "x"}]},
        {"containers": [{"name": "a", "$patch": "merge"}]},
        {"$patch": "sideways"},
        {"$retainKeys": "x"},
        {"$retainKeys": ["nodeName"], "hostname": "x"},
        {"$deleteFromPrimitiveList/x": "y"},
        {"$setElementOrder/containers": "x"},
        {"$setElementOrder/containers": [{"image": "x"}]},
        {"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]},
        {
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
            "containers": [{"name": "a"}, {"name": "b"}],
        },
        {"$setElementOrder/containers": [{"name": "a"}], "containers": {"name": "a"}},
    ],
)
def test_a_patch_that_makes_no_sense_is_refused(patch: Any) -> None:
    with pytest.raises(BadRequest, match="strategic merge patch"):
        spec({"containers": named("a")}, patch)


scalars = st.integers(0, 3) | st.sampled_from(["", "x"])
fields = st.dictionaries(
    st.sampled_from(["nodeName", "hostname", "nodeSelector", "securityContext"]),
    st.none() | scalars | st.dictionaries(st.sampled_from("abc"), st.none() | scalars, max_size=3),
    max_size=4,
)


@given(fields, fields)
def test_without_lists_and_directives_it_is_a_merge_patch(doc: Any, patch: Any) -> None:
    assert spec(doc, patch) == merge_patch(doc, patch)


containers = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("abcd"), "image": scalars.map(str)}),
    max_size=4,
    unique_by=lambda container: container["name"],
)


@given(containers, containers, st.permutations("abcd"))
def test_merged_lists_hold_both_sides_once_in_the_order_asked_for(
    doc: Any, patch: Any, order: Any
) -> None:
    patch = sorted(patch, key=lambda container: order.index(container["name"]))
    wanted = {
        "$setElementOrder/containers": named(*order),
        "containers": patch,
    }
    result = spec({"containers": doc}, wanted)["containers"]
    expected = {item["name"]: item for item in doc} | {item["name"]: item for item in patch}
    assert {item["name"]: item for item in result} == expected
    assert names(result) == [name for name in order if name in expected]
