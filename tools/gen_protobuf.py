"""Make src/tandem/api/schemas/protobuf/kubernetes.json: the field numbers of Kubernetes' messages.

``kubectl create configmap`` and other typed clients send core objects as protobuf. Every kubectl up to
1.32 carries the descriptors of ``k8s.io/api/core/v1/generated.proto`` in itself, compressed; this reads
them from there, keeps what the served kinds need, and says for each message which field number is
which JSON field. Run it after ``gen_schemas.py``, whose output it reads:

    python tools/gen_protobuf.py /usr/bin/kubectl

A field is ``[name, type]``, the type a scalar (``string``, ``bool``, ``int``, ``count``, ``bytes``) or
a message's name, in ``[...]`` when repeated and ``{...}`` when the values of a map by strings. An empty
name means that the message's fields belong to the one around it. ``count`` is an ``int`` that is not
set when it is 0: in Go it is no pointer, and JSON leaves it out.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.message import DecodeError

SCHEMAS = Path(__file__).parents[1] / "src" / "tandem" / "api" / "schemas"
TARGET = SCHEMAS / "protobuf" / "kubernetes.json"

_DELETE_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"

# Messages that JSON writes as one value: tandem.api.protobuf knows them by name.
SCALAR_MESSAGES = ("Time", "MicroTime", "Quantity", "IntOrString", "FieldsV1")

COUNTS = {
    "count",
    "failureThreshold",
    "generation",
    "hostPort",
    "initialDelaySeconds",
    "minReadySeconds",
    "observedGeneration",
    "periodSeconds",
    "restartCount",
    "successThreshold",
    "timeoutSeconds",
}

_GZIP_OF_GO = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
_Field = FieldDescriptorProto
_SCALARS = {
    _Field.TYPE_STRING: "string",
    _Field.TYPE_BOOL: "bool",
    _Field.TYPE_INT32: "int",
    _Field.TYPE_INT64: "int",
    _Field.TYPE_BYTES: "bytes",
}


def descriptors(binary: bytes) -> dict[str, DescriptorProto]:
    """Every message of the descriptors inside a Go program, nested ones too."""
    messages: dict[str, DescriptorProto] = {}
    at = binary.find(_GZIP_OF_GO)
    while at >= 0:
        try:
            raw = zlib.decompressobj(31).decompress(binary[at : at + (1 << 21)])
            file = FileDescriptorProto.FromString(raw)
        except (zlib.error, DecodeError):  # something else that is compressed
            file = FileDescriptorProto()
        for message in file.message_type:
            name = f"{file.package}.{message.name}"
            messages[name] = message
            messages |= {f"{name}.{nested.name}": nested for nested in message.nested_type}
        at = binary.find(_GZIP_OF_GO, at + 1)
    return messages


def table(messages: dict[str, DescriptorProto], definitions: dict[str, Any]) -> dict[str, Any]:
    """The fields of every message that a client sends, by definition name and number."""
    found: dict[str, Any] = {}
    pending = [
        (name, node["properties"])
        for name, node in definitions.items()
        if name == _DELETE_OPTIONS
        or ("x-kubernetes-group-version-kind" in node and not name.endswith("List"))
    ]
    while pending:
        name, properties = pending.pop()
        if name in found:
            continue
        found[name] = fields = {}
        for field in messages[name.replace("io.k8s.", "k8s.io.", 1)].field:
            type_, message = _type(field, messages)
            inline = field.name not in properties
            if inline and not message:
                continue  # newer or older than the definitions
            fields[str(field.number)] = ["" if inline else field.name, type_]
            if message:
                own = definitions.get(message, {}).get("properties")
                pending.append((message, properties if inline else own or {}))
    return found


def _type(
    field: FieldDescriptorProto, messages: dict[str, DescriptorProto]
) -> tuple[str, str | None]:
    """A field's type as the table has it, and the message that it needs described."""
    repeated = field.label == _Field.LABEL_REPEATED
    if field.type != _Field.TYPE_MESSAGE:
        scalar = "count" if field.name in COUNTS else _SCALARS[field.type]
        return (f"[{scalar}]" if repeated else scalar), None
    entry = messages[field.type_name[1:]]
    # A map is on the wire a list of messages of a key and a value; Go's generator does not mark them.
    if repeated and entry.name.endswith("Entry") and len(entry.field) == 2:
        value, message = _type(entry.field[1], messages)
        return f"{{{value}}}", message
    short = entry.name
    if short in SCALAR_MESSAGES:
        return (f"[{short}]" if repeated else short), None
    name = field.type_name[1:].replace("k8s.io.", "io.k8s.", 1)
    return (f"[{name}]" if repeated else name), name


def main() -> None:
    messages = descriptors(Path(sys.argv[1]).read_bytes())
    definitions = json.loads((SCHEMAS / "kubernetes.json").read_text())
    found = table(messages, definitions)
    TARGET.parent.mkdir(exist_ok=True)
    lines = [
        f"{json.dumps(name)}:{json.dumps(found[name], separators=(',', ':'))}"
        for name in sorted(found)
    ]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{TARGET}: {len(found)} messages, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
