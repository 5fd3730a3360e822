"""Make src/tandem/api/schemas/ from the published descriptions of the two APIs.

Run it when a new version of either is to be served; its output is committed, so that neither package
is needed to build or run Tandem:

    pip download --no-deps kubernetes-validate==1.32.0 && unzip -d kubernetes-validate *.whl
    npm pack @kubevirt-ui-ext/kubevirt-api@1.7.0 && tar xzf *.tgz
    python tools/gen_schemas.py \\
        kubernetes-validate/kubernetes_validate/kubernetes-json-schema/v1.32.0-local/_definitions.json \\
        package/dist/kubevirt/index.d.ts

``kubernetes-validate`` carries Kubernetes' own OpenAPI definitions (Apache-2.0) as JSON Schema: here
they become Swagger 2.0 definitions again, which is what API servers publish, cut down to what
``KINDS`` needs. ``kubevirt-api`` carries TypeScript made from KubeVirt's OpenAPI document
(Apache-2.0): names, types and required fields are taken from it, descriptions are our own, from
``tools/kubevirt_fields.json``.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

Definition = dict[str, Any]
Definitions = dict[str, Definition]

TARGET = Path(__file__).parents[1] / "src" / "tandem" / "api" / "schemas"
DESCRIPTIONS = Path(__file__).with_name("kubevirt_fields.json")

_CORE = "io.k8s.api.core.v1."
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"

KINDS = {
    "core.v1": (
        "ConfigMap",
        "Event",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "Pod",
        "ReplicationController",
        "Secret",
        "ServiceAccount",
    ),
    "apps.v1": ("DaemonSet", "Deployment", "ReplicaSet"),
    "batch.v1": ("CronJob", "Job"),
    "coordination.v1": ("Lease",),
    "node.v1": ("RuntimeClass",),
    "scheduling.v1": ("PriorityClass",),
    "storage.v1": ("StorageClass",),
}
"""The kinds that are served, by package; their lists and all that they refer to come along."""

PARTS = (
    "io.k8s.api.authentication.v1.SelfSubjectReview",
    "io.k8s.api.authentication.v1.TokenRequest",
    "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
    "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.api.core.v1.Binding",
    "io.k8s.api.policy.v1.Eviction",
    f"{_META}DeleteOptions",
    f"{_META}ListMeta",
    f"{_META}Status",
)
"""What subresources and answers are made of."""

_ROOTS = (
    *(f"io.k8s.api.{package}.{kind}" for package, kinds in KINDS.items() for kind in kinds),
    *(f"io.k8s.api.{package}.{kind}List" for package, kinds in KINDS.items() for kind in kinds),
    *PARTS,
)

# As API servers publish them; the JSON Schema form says "oneOf".
_SCALARS: Definitions = {
    _QUANTITY: {
        "type": "string",
        "format": "quantity",
        "description": "A number with an optional suffix: n, u, m, k, M, G, T, P, E (powers of 1000), "
        "Ki, Mi, Gi, Ti, Pi, Ei (powers of 1024) or an exponent; for example 500m, 2Gi, 1e3.",
    },
    _INT_OR_STRING: {
        "type": "string",
        "format": "int-or-string",
        "description": "An integer, or a string such as a port's name.",
    },
}


def kubernetes(source: Definitions) -> Definitions:
    """The definitions that ``_ROOTS`` need, in Swagger 2.0 form."""
    found: Definitions = {}
    pending = list(_ROOTS)
    while pending:
        name = pending.pop()
        if name not in found:
            found[name] = _SCALARS.get(name) or _swagger(source[name], top=True)
            pending += _references(found[name])
    # Newer than the source, and written by our loops: clients that hold an object against its
    # schema before they send it back (kubectl 1.20's edit) must find it there.
    found[f"{_CORE}PodStatus"]["properties"]["observedGeneration"] = {
        "description": "The metadata.generation of the Pod that this status was made for.",
        "format": "int64",
        "type": "integer",
    }
    # Of Kubernetes 1.33.
    for holder in ("Lifecycle", "ContainerStatus"):
        found[f"{_CORE}{holder}"]["properties"]["stopSignal"] = {
            "description": "The signal that asks the container to end, such as SIGTERM.",
            "type": "string",
        }
    return found


def _swagger(node: Any, *, top: bool = False) -> Any:
    """One schema without what the JSON Schema form added: null unions, enums of apiVersion."""
    result = {}
    for key, value in node.items():
        match key:
            case "type":
                types = [value] if isinstance(value, str) else value
                result["type"] = next(type_ for type_ in types if type_ != "null")
            case "$ref":
                result["$ref"] = value.replace("#/$defs/", "#/definitions/")
            case "properties":
                result["properties"] = {name: _swagger(field) for name, field in value.items()}
            case "items" | "additionalProperties":
                result[key] = _swagger(value) if isinstance(value, dict) else value
            case "enum":
                pass  # only ever apiVersion and kind, which the request's path decides
            case "x-kubernetes-group-version-kind" if top and len(value) > 1:
                pass  # DeleteOptions, Status: registered with every group there is
            case _:
                result[key] = value
    return result


_TIME = "Time is a wrapper"
_OWN_TYPE = {"string": "string", "boolean": "boolean", "number": "integer", "object": "object"}
# TypeScript says "string" for these maps of quantities.
_QUANTITY_MAPS = {"limits", "requests", "capacity"}
# Required in KubeVirt's schema, where its own webhook fills it in before anybody looks.
_NOT_REQUIRED = {("io.kubevirt.v1.DomainSpec", "devices")}

# TypeScript's names for fields that its syntax or its style does not allow.
_RENAMED = {"_default": "default", "vSOCKCID": "VSOCKCID"}
# Fields that may be null in KubeVirt's OpenAPI have no type there, and no place in the TypeScript.
_LOST_TIMES = {
    f"io.kubevirt.v1.{kind}Condition": ("lastProbeTime", "lastTransitionTime")
    for kind in ("VirtualMachine", "VirtualMachineInstance")
}

_INTERFACE = re.compile(r"^interface (\w+) \{\n(.*?)^\}", re.M | re.S)
_FIELD = re.compile(
    r"^    /\*\*\n(?P<doc>.*?)\*/\n    '?(?P<name>[\w.-]+)'?(?P<optional>\?)?: (?P<type>.*?);\n(?=    /\*\*|\Z)",
    re.M | re.S,
)


def kubevirt(text: str, own_words: dict[str, str], known: Definitions) -> Definitions:
    """The definitions of VirtualMachine and VirtualMachineInstance and all that only they need;
    what they share with Pods is referred to in ``known``."""
    interfaces = {match[1]: match[2] for match in _INTERFACE.finditer(text)}
    found: Definitions = {}
    pending = ["V1VirtualMachine", "V1VirtualMachineInstance"]
    while pending:
        interface = pending.pop()
        name = _definition_name(interface)
        if name in found or name in known:
            continue
        if name.startswith("io.k8s."):
            raise SystemExit(f"{name} is needed by KubeVirt: add it to _ROOTS")
        found[name], needed = _from_interface(name, interfaces[interface], own_words)
        pending += needed
    for kind in ("VirtualMachine", "VirtualMachineInstance"):
        name = f"io.kubevirt.v1.{kind}"
        found[name]["x-kubernetes-group-version-kind"] = [
            {"group": "kubevirt.io", "kind": kind, "version": "v1"}
        ]
        found[f"{name}List"] = _list_of(name, kind)
    unused = set(own_words) - {
        path for name, node in found.items() for path in (name, *_field_paths(name, node))
    }
    if unused:
        raise SystemExit(f"described, and not there: {sorted(unused)}")
    return found


def _field_paths(name: str, node: Definition) -> list[str]:
    return [f"{name}.{field}" for field in node.get("properties", {})]


def _from_interface(
    name: str, body: str, own_words: dict[str, str]
) -> tuple[Definition, list[str]]:
    properties: dict[str, Definition] = {
        field: {"$ref": f"#/definitions/{_META}Time"} for field in _LOST_TIMES.get(name, ())
    }
    required, needed = [], []
    for match in _FIELD.finditer(body):
        field = _RENAMED.get(match["name"], match["name"])
        schema, interface = _own_type(field, match["type"], match["doc"])
        if interface:
            needed.append(interface)
        if words := own_words.get(f"{name}.{field}"):
            schema["description"] = words
        properties[field] = schema
        if not match["optional"] and (name, field) not in _NOT_REQUIRED:
            required.append(field)
    definition: Definition = {"type": "object"}
    if words := own_words.get(name):
        definition["description"] = words
    if properties:
        definition["properties"] = properties
    if required:
        definition["required"] = required
    return definition, needed


def _own_type(field: str, type_: str, comment: str) -> tuple[Definition, str | None]:
    """A field's schema, and the interface it refers to."""
    if type_.startswith("{"):
        value = "Quantity" if field in _QUANTITY_MAPS else type_.split(":")[2].strip(" ;}\n")
        schema, interface = _own_type("", value, "")
        return {"type": "object", "additionalProperties": schema}, interface
    if array := re.fullmatch(r"Array<(.*)>", type_):
        schema, interface = _own_type("", array[1], "")
        return {"type": "array", "items": schema}, interface
    if type_ == "Quantity" or "Quantity is a fixed-point" in comment:
        return {"$ref": f"#/definitions/{_QUANTITY}"}, None
    if _TIME in comment:
        return {"$ref": f"#/definitions/{_META}Time"}, None
    if type_ in _OWN_TYPE:
        return {"type": _OWN_TYPE[type_]}, None
    if type_.endswith("Enum"):
        return {"type": "string"}, None
    return {"$ref": f"#/definitions/{_definition_name(type_)}"}, type_


def _definition_name(interface: str) -> str:
    for prefix, package in (
        ("K8sIoApiCoreV1", _CORE),
        ("K8sIoApimachineryPkgApisMetaV1", _META),
        ("V1beta1", "io.kubevirt.cdi.v1beta1."),
        ("V1alpha1", "io.kubevirt.backup.v1alpha1."),
        ("V1", "io.kubevirt.v1."),
    ):
        if interface.startswith(prefix):
            return package + interface.removeprefix(prefix)
    raise SystemExit(f"no package is known for {interface}")


def _list_of(name: str, kind: str) -> Definition:
    return {
        "type": "object",
        "description": f"A list of {kind}s.",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": f"#/definitions/{_META}ListMeta"},
            "items": {"type": "array", "items": {"$ref": f"#/definitions/{name}"}},
        },
        "x-kubernetes-group-version-kind": [
            {"group": "kubevirt.io", "kind": f"{kind}List", "version": "v1"}
        ],
    }


def _references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [name for item in node for name in _references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"].rpartition("/")[2]] if isinstance(node.get("$ref"), str) else []
    return own + [name for value in node.values() for name in _references(value)]


def write(path: Path, definitions: Definitions) -> None:
    """One definition per line, sorted, so that a change of version reads well as a diff."""
    lines = [
        f"{json.dumps(name)}:{json.dumps(definitions[name], separators=(',', ':'), sort_keys=True)}"
        for name in sorted(definitions)
    ]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{path}: {len(definitions)} definitions, {path.stat().st_size} bytes")


def main() -> None:
    kubernetes_source, kubevirt_source = (Path(argument) for argument in sys.argv[1:3])
    core = kubernetes(json.loads(kubernetes_source.read_text())["$defs"])
    own_words = json.loads(DESCRIPTIONS.read_text())
    TARGET.mkdir(exist_ok=True)
    write(TARGET / "kubernetes.json", core)
    write(TARGET / "kubevirt.json", kubevirt(kubevirt_source.read_text(), own_words, core))


if __name__ == "__main__":
    main()
