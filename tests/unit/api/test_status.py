"""Status documents: what an error says on the wire."""

from __future__ import annotations

from tandem.api.kind import Kind
from tandem.api.status import status_from_error, status_success
from tandem.errors import Cause, InvalidSpec, NotFound, TandemError


def test_an_error_becomes_its_status() -> None:
    error = InvalidSpec(
        'Pod "x" is invalid',
        causes=[Cause("spec.a", "Required value", "FieldValueRequired")],
        details={"kind": "Pod", "name": "x"},
    )
    assert status_from_error(error) == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'Pod "x" is invalid',
        "reason": "Invalid",
        "details": {
            "kind": "Pod",
            "name": "x",
            "causes": [
                {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.a"}
            ],
        },
        "code": 422,
    }


def test_a_hint_is_told_as_well() -> None:
    message = status_from_error(NotFound("no such thing", hint="make one"))["message"]
    assert message == "no such thing (make one)"


def test_an_error_of_no_class_is_internal() -> None:
    status = status_from_error(TandemError("broken"))
    assert (status["reason"], status["code"]) == ("InternalError", 500)
    assert "details" not in status


def test_a_success_names_the_object() -> None:
    kind = Kind("kubevirt.io", "v1", "VirtualMachine", "virtualmachines", "virtualmachine", "")
    status = status_success(kind, {"metadata": {"name": "a", "uid": "u"}})
    assert status["status"] == "Success"
    assert status["details"] == {
        "name": "a",
        "group": "kubevirt.io",
        "kind": "virtualmachines",
        "uid": "u",
    }
