"""``kubevirt.io/v1`` VirtualMachine: a machine that is kept as its run strategy says."""

from __future__ import annotations

from tandem.api import causes
from tandem.api.kind import Column, Doc, Kind
from tandem.api.kinds.machine_causes import invalid, required
from tandem.api.kinds.machine_defaults import default_identity
from tandem.api.kinds.machine_portability import portability_warnings
from tandem.api.kinds.machine_rules import instance_causes, metadata_causes
from tandem.api.kinds.machine_support import VM_SPEC
from tandem.api.kinds.support import walk
from tandem.api.meta import condition, get, name_causes
from tandem.api.table import age
from tandem.errors import Cause

RUN_STRATEGIES = ("Always", "RerunOnFailure", "Manual", "Halted", "Once")

RUNNING_IS_DEPRECATED = "spec.running is deprecated, please use spec.runStrategy instead."
NAT_ONLY = (
    "{}: guests are behind address translation on this host for now: they reach out, and nothing reaches "
    "in"
)


def run_strategy(doc: Doc) -> str:
    """The strategy in force; ``running`` is its older form."""
    strategy = get(doc, "spec.runStrategy")
    if strategy:
        return str(strategy)
    return "Always" if get(doc, "spec.running") else "Halted"


def _default(doc: Doc) -> None:
    template = get(doc, "spec.template")
    if isinstance(template, dict) and isinstance(template.setdefault("spec", {}), dict):
        template.setdefault("metadata", {})
        default_identity(template["spec"], doc["metadata"].get("uid", ""))


def _validate(new: Doc, old: Doc | None) -> list[Cause]:
    spec = new.get("spec")
    if not spec:
        return [causes.required("spec")]
    found = []
    if old is None and new["metadata"].get("name"):
        # The instance, its domain and its host name are called by the same name.
        found += name_causes(new["metadata"]["name"], "metadata.name")
    if old is not None and spec == old.get("spec"):
        return found
    running, strategy = spec.get("running"), spec.get("runStrategy")
    if running is not None and strategy:
        message = (
            "Running and RunStrategy are mutually exclusive. Note that Running is deprecated, please "
            "use RunStrategy instead"
        )
        found.append(invalid("spec.running", message))
    elif running is None and not strategy:
        found.append(required("spec.runStrategy", "RunStrategy must be specified"))
    elif strategy and strategy not in RUN_STRATEGIES:
        found.append(invalid("spec.runStrategy", f"Invalid RunStrategy ({strategy})"))
    if not spec.get("template"):
        found.append(required("spec.template", "missing virtual machine template."))
    else:
        found += metadata_causes(spec["template"].get("metadata") or {}, "spec.template.metadata")
        template = spec["template"].get("spec") or {}
        found += instance_causes(template, "spec.template.spec", complete=False)
    return found + walk(spec, VM_SPEC, "spec").causes


def _warn(new: Doc, old: Doc | None) -> list[str]:
    spec = new.get("spec") or {}
    if old is not None and spec == old.get("spec"):
        return []
    warnings = [RUNNING_IS_DEPRECATED] if spec.get("running") is not None else []
    warnings += walk(spec, VM_SPEC, "spec").warnings
    template, path = get(spec, "template.spec", {}), "spec.template.spec"
    return [
        *warnings,
        *portability_warnings(template, path),
        *network_warnings(template, path, implicit=False),
    ]


def network_warnings(spec: Doc, path: str, *, implicit: bool) -> list[str]:
    """What a user should know about interfaces; not about one that was merely filled in."""
    interfaces = get(spec, "domain.devices.interfaces", [])
    if implicit and interfaces == [{"name": "default", "bridge": {}}]:
        return []
    return [
        NAT_ONLY.format(f"{path}.domain.devices.interfaces[{index}]")
        for index in range(len(interfaces))
    ]


def _status(doc: Doc) -> str:
    return str(get(doc, "status.printableStatus", "Stopped"))


def _ready(doc: Doc) -> str:
    return str((condition(doc, "Ready") or {}).get("status", "False"))


VIRTUAL_MACHINE = Kind(
    group="kubevirt.io",
    version="v1",
    kind="VirtualMachine",
    plural="virtualmachines",
    singular="virtualmachine",
    schema="io.kubevirt.v1.VirtualMachine",
    short_names=("vm", "vms"),
    categories=("all",),
    columns=(
        Column(
            "Age",
            lambda doc: age(get(doc, "metadata.creationTimestamp")),
            description="How long ago the object was created.",
        ),
        Column("Status", _status, description="What the machine is doing, in one word."),
        Column("Ready", _ready, description="Whether its instance is ready."),
    ),
    default=_default,
    validate=_validate,
    warn=_warn,
    # Marked by DELETE and removed by the controller once its instance is gone.
    grace=lambda _doc: 0,
    merge_only=True,
)
