"""apply, get, describe, delete, logs, start, stop: what is asked of the API and what is printed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tandem.cli.apply import LAST_APPLIED, three_way
from tandem.errors import Conflict
from tests.unit.cli.conftest import Api, Run

Out = pytest.CaptureFixture[str]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "both.yaml"
    path.write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: '1', y: '2'}\n"
        "---\n# nothing\n---\n"
        "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {name: m}\nspec: {running: true}\n"
    )
    return path


# -- apply ------------------------------------------------------------------------------------


def test_apply_creates_then_leaves_then_changes(
    run: Run, api: Api, manifest: Path, capsys: Out
) -> None:
    assert run("apply", "-f", str(manifest)) == 0
    assert run("apply", "-f", str(manifest)) == 0
    manifest.write_text(manifest.read_text().replace("y: '2'", "z: '3'"))
    assert run("apply", "-f", str(manifest)) == 0
    assert capsys.readouterr().out.splitlines() == [
        "configmap/a created",
        "virtualmachine.kubevirt.io/m created",
        "configmap/a unchanged",
        "virtualmachine.kubevirt.io/m unchanged",
        "configmap/a configured",
        "virtualmachine.kubevirt.io/m unchanged",
    ]
    assert api.get_doc("cm", "a")["data"] == {"x": "1", "z": "3"}


def test_apply_leaves_what_somebody_else_set(run: Run, api: Api, manifest: Path) -> None:
    run("apply", "-f", str(manifest))
    api.get_doc("cm", "a")["data"]["other"] = "kept"
    manifest.write_text(manifest.read_text().replace("x: '1'", "x: '5'"))
    run("apply", "-f", str(manifest))
    assert api.get_doc("cm", "a")["data"] == {"x": "5", "y": "2", "other": "kept"}


def test_apply_remembers_in_kubectls_own_annotation(run: Run, api: Api, manifest: Path) -> None:
    run("apply", "-f", str(manifest))
    written = api.get_doc("cm", "a")["metadata"]["annotations"][LAST_APPLIED]
    assert json.loads(written)["data"] == {"x": "1", "y": "2"}
    assert written.endswith("\n")


def test_apply_goes_on_after_a_failure_and_says_where_it_was(
    run: Run, api: Api, manifest: Path, capsys: Out
) -> None:
    api.answers["POST", "/api/v1/namespaces/default/configmaps"] = Conflict("cannot")
    assert run("apply", "-f", str(manifest)) == 1
    out, err = capsys.readouterr()
    assert out == "virtualmachine.kubevirt.io/m created\n"
    assert err == f"error: {manifest} (document 1): cannot\n"


def test_apply_reads_stdin_and_directories(
    run: Run, api: Api, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    (tmp_path / "notes.txt").write_text("no manifest")
    stdin = io.TextIOWrapper(
        io.BytesIO(b'{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"}}')
    )
    monkeypatch.setattr("sys.stdin", stdin)
    assert run("apply", "-f", str(tmp_path), "-f", "-", "-n", "web") == 0
    assert "secret/s created" in capsys.readouterr().out
    assert api.get_doc("secret", "s", "web")["metadata"]["namespace"] == "web"


def test_apply_refuses_two_namespaces_for_one_object(run: Run, tmp_path: Path, capsys: Out) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: x}\n")
    assert run("apply", "-f", str(path), "-n", "y") == 1
    assert "namespace 'x', the flag 'y'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("last", "wanted", "live", "patch"),
    [
        ({}, {"a": 1}, {"a": 1, "b": 2}, {}),
        ({"b": 2}, {"a": 1}, {"a": 1, "b": 2}, {"b": None}),
        ({"b": 2}, {"a": 1}, {"a": 1}, {}),
        ({}, {"a": {"x": 1}}, {"a": {"x": 2, "y": 3}}, {"a": {"x": 1}}),
        ({"a": {"y": 3}}, {"a": {}}, {"a": {"y": 3}}, {"a": {"y": None}}),
        # A list that the server only filled up with defaults is left, one that we changed is sent.
        ({"l": [{"n": 1}]}, {"l": [{"n": 1}]}, {"l": [{"n": 1, "default": True}]}, {}),
        ({"l": [{"n": 1, "m": 2}]}, {"l": [{"n": 1}]}, {"l": [{"n": 1, "m": 2}]}, {"l": [{"n": 1}]}),
        ({"l": [1]}, {"l": [1]}, {"l": [1, 2]}, {"l": [1]}),
    ],
)  # fmt: skip
def test_the_patch_of_apply(last: Any, wanted: Any, live: Any, patch: Any) -> None:
    assert three_way(last, wanted, live) == patch


# -- get --------------------------------------------------------------------------------------


def test_get_prints_the_servers_columns(run: Run, api: Api, capsys: Out) -> None:
    api.add("pod", "web", status={"phase": "Running"})
    api.add("pod", "database", status={"phase": "Pending"})
    assert run("get", "pods") == 0
    assert capsys.readouterr().out == (
        "NAME       STATUS\nweb        Running\ndatabase   Pending\n"
    )


def test_get_wide_in_all_namespaces(run: Run, api: Api, capsys: Out) -> None:
    api.add("pod", "web", namespace="shop", status={"phase": "Running"})
    assert run("get", "po", "-A", "-o", "wide", "--no-headers") == 0
    assert capsys.readouterr().out == "shop   web   Running   10.0.0.1\n"


def test_get_several_kinds_names_each(run: Run, api: Api, capsys: Out) -> None:
    api.add("pod", "web")
    api.add("vm", "db")
    assert run("get", "pod,vm") == 0
    assert capsys.readouterr().out == (
        "NAME      STATUS\npod/web   <none>\n\n"
        "NAME                            STATUS\nvirtualmachine.kubevirt.io/db   <none>\n"
    )
    assert run("get", "pod/web", "vm/db", "-o", "name") == 0
    assert capsys.readouterr().out == "pod/web\nvirtualmachine.kubevirt.io/db\n"


def test_get_one_object_as_json_and_yaml(run: Run, api: Api, capsys: Out) -> None:
    pod = api.add("pod", "web", spec={"text": "a\nb\n", "no": "on", "number": "0644"})
    assert run("get", "pod", "web", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == pod
    assert run("get", "pod", "web", "-o", "yaml") == 0
    out = capsys.readouterr().out
    assert yaml.safe_load(out) == pod
    assert "text: |\n" in out


def test_get_a_collection_is_a_list(run: Run, api: Api, capsys: Out) -> None:
    api.add("pod", "a", metadata={"labels": {"app": "x"}})
    api.add("pod", "b")
    assert run("get", "pods", "-l", "app=x", "-o", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "List"
    assert [item["metadata"]["name"] for item in found["items"]] == ["a"]


def test_get_nothing_is_said_beside_the_output(run: Run, capsys: Out) -> None:
    assert run("get", "pods") == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "No resources found in default namespace.\n")


def test_get_a_name_that_is_not_there_fails(run: Run, api: Api, capsys: Out) -> None:
    api.add("pod", "here")
    assert run("get", "pod/here", "pod/gone") == 1
    out, err = capsys.readouterr()
    assert "here" in out
    assert "pods/gone not found" in err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["pod/a", "b"], "all must be"),
        (["pods", "a", "-A"], "leave out -A"),
        (["pods", "a", "-l", "x=y"], "not both"),
        (["pods,vms", "-w"], "at a time"),
        (["podz"], "did you mean 'pods'?"),
    ],
)
def test_get_explains_what_makes_no_sense(
    run: Run, words: list[str], why: str, capsys: Out
) -> None:
    assert run("get", *words) in (1, 2)
    assert why in capsys.readouterr().err


def test_get_watch_goes_on_with_changes_from_where_the_list_was(
    run: Run, api: Api, capsys: Out
) -> None:
    api.add("pod", "web", status={"phase": "Pending"})
    row = {"cells": ["web", "Running", ""], "object": {"metadata": {}}}
    event = {"type": "MODIFIED", "object": {"kind": "Table", "rows": [row]}}
    api.chunks["/api/v1/namespaces/default/pods"] = [json.dumps(event).encode() + b"\n"]
    assert run("get", "pods", "-w") == 0
    assert capsys.readouterr().out == "NAME   STATUS\nweb    Pending\nweb    Running\n"
    assert dict(api.asked[-1].query) == {"watch": "true", "resourceVersion": "1"}


def test_what_a_workload_wrote_cannot_drive_the_terminal(run: Run, api: Api, capsys: Out) -> None:
    api.add("pod", "web", status={"phase": "\x1b[2Jgone\n"})
    run("get", "pods")
    assert "\x1b" not in capsys.readouterr().out


# -- describe ---------------------------------------------------------------------------------


def test_describe_shows_fields_conditions_and_events(run: Run, api: Api, capsys: Out) -> None:
    api.add(
        "pod",
        "web",
        metadata={"labels": {"app.io/name": "x"}, "annotations": {LAST_APPLIED: "{}"}},
        spec={"restartPolicy": "Always", "containers": [{"name": "c", "image": "i"}]},
        status={"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    )
    api.add(
        "event",
        "e",
        type="Normal",
        reason="Started",
        message="Container c started",
        involvedObject={"name": "web"},
        source={"component": "tandem"},
    )
    assert run("describe", "pod", "web") == 0
    out = capsys.readouterr().out
    for expected in (
        "Name:                   web",
        "  app.io/name:          x",
        "  Restart Policy:       Always",
        "    - Name:             c",
        "Conditions:\n  Type    Status",
        "Ready   True",
        "Normal   Started",
        "Container c started",
    ):
        assert expected in out
    assert LAST_APPLIED not in out


def test_describe_does_not_show_secrets(run: Run, api: Api, capsys: Out) -> None:
    api.add("secret", "s", data={"password": "Z2VoZWlt"})
    run("describe", "secret", "s")
    out = capsys.readouterr().out
    assert "Z2VoZWlt" not in out
    assert "password" in out


# -- delete -----------------------------------------------------------------------------------


def test_delete_by_name_passes_the_grace_period_on(run: Run, api: Api, capsys: Out) -> None:
    api.add("pod", "web")
    assert run("delete", "pod", "web", "--grace-period", "0") == 0
    assert capsys.readouterr().out == 'pod "web" deleted\n'
    [asked] = [question for question in api.asked if question.method == "DELETE"]
    assert json.loads(asked.body or b"")["gracePeriodSeconds"] == 0


def test_delete_waits_until_this_very_object_is_gone(run: Run, api: Api) -> None:
    pod = api.add("pod", "web")
    path = "/api/v1/namespaces/default/pods"
    api.answers["DELETE", f"{path}/web"] = pod  # marked, not gone
    another = {"type": "DELETED", "object": {"metadata": {"name": "web", "uid": "older"}}}
    gone = {
        "type": "DELETED",
        "object": {"metadata": {"name": "web", "uid": pod["metadata"]["uid"]}},
    }
    api.chunks[path] = [json.dumps(event).encode() + b"\n" for event in (another, gone)]
    assert run("delete", "pod/web") == 0
    assert dict(api.asked[-1].query)["fieldSelector"] == "metadata.name=web"
    del api.chunks[path]
    assert run("delete", "pod/web", "--no-wait") == 0


def test_delete_by_file_goes_backwards(run: Run, api: Api, manifest: Path, capsys: Out) -> None:
    run("apply", "-f", str(manifest))
    capsys.readouterr()
    assert run("delete", "-f", str(manifest)) == 0
    assert capsys.readouterr().out.splitlines() == [
        'virtualmachine.kubevirt.io "m" deleted',
        'configmap "a" deleted',
    ]
    assert run("delete", "-f", str(manifest)) == 1
    assert run("delete", "-f", str(manifest), "--ignore-not-found") == 0


def test_delete_all_and_by_label(run: Run, api: Api) -> None:
    api.add("pod", "a", metadata={"labels": {"app": "x"}})
    api.add("pod", "b")
    assert run("delete", "pods", "-l", "app=x") == 0
    assert run("delete", "pods", "--all") == 0
    assert api.objects == {}


@pytest.mark.parametrize("words", [[], ["pods"], ["pods", "a", "--all"], ["pods", "a", "--grace-period", "-1"]])  # fmt: skip
def test_delete_does_nothing_when_it_is_not_clear_what(
    run: Run, api: Api, words: list[str]
) -> None:
    api.add("pod", "a")
    assert run("delete", *words) == 2
    assert len(api.objects) == 1


# -- logs, start, stop ------------------------------------------------------------------------


def test_logs_are_copied_byte_for_byte(
    run: Run, api: Api, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    api.chunks["/api/v1/namespaces/default/pods/web/log"] = [b"one\n", b"\xff\n"]
    assert run("logs", "web", "c", "--tail", "5", "-f") == 0
    assert capfdbinary.readouterr().out == b"one\n\xff\n"
    assert dict(api.asked[-1].query) == {"container": "c", "follow": "true", "tailLines": "5"}


def test_logs_of_a_machine_are_its_serial_console(
    run: Run, api: Api, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    group = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances"
    api.chunks[f"{group}/db/log"] = [b"login:"]
    assert run("logs", "vm/db") == 0
    assert capfdbinary.readouterr().out == b"login:"
    assert run("logs", "vm/db", "-c", "x") == 2
    assert run("logs", "cm/a") == 2


def test_start_and_stop_ask_kubevirts_way(run: Run, api: Api, capsys: Out) -> None:
    group = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines"
    api.answers["PUT", f"{group}/db/start"] = {}
    api.answers["PUT", f"{group}/db/stop"] = {}
    assert run("start", "db") == 0
    assert run("stop", "vm/db", "--grace-period", "0") == 0
    assert json.loads(api.asked[-1].body or b"") == {"gracePeriod": 0}
    assert capsys.readouterr().out.splitlines() == [
        "virtualmachine.kubevirt.io/db starting",
        "virtualmachine.kubevirt.io/db stopping",
    ]
    assert run("stop", "pod/db") == 2


def test_start_goes_on_with_the_next_machine(run: Run, api: Api, capsys: Out) -> None:
    group = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines"
    api.answers["PUT", f"{group}/a/start"] = Conflict("VM is already running")
    api.answers["PUT", f"{group}/b/start"] = {}
    assert run("start", "a", "b") == 1
    out, err = capsys.readouterr()
    assert out == "virtualmachine.kubevirt.io/b starting\n"
    assert "VM is already running" in err
