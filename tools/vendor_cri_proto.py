"""Write proto/cri.proto from the descriptor inside a Python wheel that carries CRI stubs.

The interface is published as a Go module, which not every build machine can reach; PyPI can be
reached everywhere. A generated ``*_pb2.py`` holds the whole descriptor, so the ``.proto`` can be had
back from it: everything but the comments, and without the Go-only gogoproto options, which do not
change the wire format.

    pip download --no-deps container-runtime-interface-api==2.0.1
    python tools/vendor_cri_proto.py container_runtime_interface_api-2.0.1-py3-none-any.whl
"""

from __future__ import annotations

import argparse
import ast
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)

MODULE = "cri_api/v1/api_pb2.py"
TARGET = Path(__file__).parent.parent / "proto" / "cri.proto"
HEADER = """\
// The Container Runtime Interface, version runtime.v1.
// Copyright The Kubernetes Authors, Apache License 2.0; see README.md beside this file.
// Written by tools/vendor_cri_proto.py; do not edit.
"""

_Field = FieldDescriptorProto


def descriptor_in(wheel: Path) -> FileDescriptorProto:
    """The file descriptor in ``wheel``: the longest bytes literal of its ``_pb2`` module."""
    with zipfile.ZipFile(wheel) as archive:
        tree = ast.parse(archive.read(MODULE))
    literals = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    serialized = max((value for value in literals if isinstance(value, bytes)), key=len)
    return FileDescriptorProto.FromString(serialized)


def render(file: FileDescriptorProto) -> str:
    """``file`` as proto3 source."""
    lines = [HEADER, 'syntax = "proto3";', "", f"package {file.package};"]
    for service in file.service:
        lines += ["", *_service(service, file.package)]
    for enum in file.enum_type:
        lines += ["", *_enum(enum, "")]
    for message in file.message_type:
        lines += ["", *_message(message, file.package, "")]
    return "\n".join(lines) + "\n"


def _service(service: ServiceDescriptorProto, package: str) -> Iterator[str]:
    yield f"service {service.name} {{"
    for method in service.method:
        request = _short(method.input_type, package)
        response = _short(method.output_type, package)
        stream = "stream " if method.server_streaming else ""
        yield f"  rpc {method.name}({request}) returns ({stream}{response});"
    yield "}"


def _enum(enum: EnumDescriptorProto, indent: str) -> Iterator[str]:
    yield f"{indent}enum {enum.name} {{"
    for value in enum.value:
        yield f"{indent}  {value.name} = {value.number};"
    yield f"{indent}}}"


def _message(message: DescriptorProto, package: str, indent: str) -> Iterator[str]:
    if not (message.field or message.enum_type or message.nested_type):
        yield f"{indent}message {message.name} {{}}"
        return
    yield f"{indent}message {message.name} {{"
    inner = indent + "  "
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    for enum in message.enum_type:
        yield from _enum(enum, inner)
    for nested in message.nested_type:
        if nested.name not in maps:
            yield from _message(nested, package, inner)
    for field in message.field:
        yield inner + _field(field, maps, package)
    yield f"{indent}}}"


def _field(field: FieldDescriptorProto, maps: dict[str, DescriptorProto], package: str) -> str:
    entry = maps.get(field.type_name.rpartition(".")[2])
    options = " [deprecated = true]" if field.options.deprecated else ""
    if entry is not None:
        key, value = (_type(part, package) for part in entry.field)
        kind = f"map<{key}, {value}>"
    else:
        repeated = "repeated " if field.label == _Field.LABEL_REPEATED else ""
        kind = repeated + _type(field, package)
    return f"{kind} {field.name} = {field.number}{options};"


def _type(field: FieldDescriptorProto, package: str) -> str:
    if field.type in (_Field.TYPE_MESSAGE, _Field.TYPE_ENUM):
        return _short(field.type_name, package)
    return _Field.Type.Name(field.type).removeprefix("TYPE_").lower()


def _short(name: str, package: str) -> str:
    return name.removeprefix(f".{package}.").removeprefix(".")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    TARGET.write_text(render(descriptor_in(parser.parse_args().wheel)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
