"""Reading a ``RuntimeSpec``: what is wrong with it, and the containers it asks for."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from tandem.errors import Cause, InvalidSpec
from tandem.runtimes.adapter import RuntimeSpec
from tandem.runtimes.memory.script import plan
from tandem.runtimes.memory.world import Container

_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def check(spec: RuntimeSpec) -> None:
    """Raise ``InvalidSpec`` with a cause for each fault of ``spec``."""
    causes: list[Cause] = []
    if not _ID.fullmatch(spec.id):
        causes.append(Cause("id", f'Invalid value: "{spec.id}": must match {_ID.pattern}'))
    if (spec.container_spec is None) is (spec.vm_xml is None):
        causes.append(
            Cause("container_spec", "exactly one of container_spec and vm_xml must be given")
        )
    elif spec.container_spec is not None:
        causes += _check_containers(spec)
    else:
        causes += _check_domain(spec.vm_xml or "")
    if causes:
        what = "; ".join(f"{cause.field}: {cause.message}" for cause in causes)
        raise InvalidSpec(f"spec {spec.id!r} is invalid: {what}", causes=causes)


def _check_containers(spec: RuntimeSpec) -> list[Cause]:
    containers = pod_spec(spec).get("containers")
    causes = []
    if containers is None:
        causes.append(Cause("container_spec.containers", "Required value", "FieldValueRequired"))
    containers = containers or []
    names = [str(doc.get("name", "")) for doc in containers]
    for index, doc in enumerate(containers):
        path = f"container_spec.containers[{index}]"
        if not doc.get("image"):
            causes.append(Cause(f"{path}.image", "Required value", "FieldValueRequired"))
        if names[index] in names[:index]:
            message = f'Duplicate value: "{names[index]}"'
            causes.append(Cause(f"{path}.name", message, "FieldValueDuplicate"))
    return causes


def _check_domain(xml: str) -> list[Cause]:
    try:
        domain = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        return [Cause("vm_xml", f"not XML: {error}")]
    if domain.tag != "domain" or not domain.findtext("name"):
        return [Cause("vm_xml", "must be a <domain> with a <name>")]
    return []


def pod_spec(spec: RuntimeSpec) -> dict[str, Any]:
    """The Pod that ``container_spec`` asks for, the one-container shorthand written out."""
    pod = dict(spec.container_spec or {})
    if "image" in pod and "containers" not in pod:
        return {"containers": [{"name": "main", **pod}]}
    return pod


def container_of(doc: Mapping[str, Any]) -> Container:
    """A container that is ready to start, out of a ``v1`` Container document."""
    name, image = str(doc.get("name", "")), str(doc.get("image", ""))
    if not image:
        cause = Cause("image", "Required value", "FieldValueRequired")
        raise InvalidSpec(f"container {name!r} has no image", causes=[cause])
    return Container(
        name,
        image,
        plan([*(doc.get("command") or []), *(doc.get("args") or [])]),
        message_path=doc.get("terminationMessagePath", "/dev/termination-log"),
        logs_are_message=doc.get("terminationMessagePolicy") == "FallbackToLogsOnError",
    )


def spec_hash(spec: RuntimeSpec) -> str:
    """What tells one spec from another."""
    text = json.dumps(asdict(spec), sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
