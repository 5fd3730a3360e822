"""Generate the message classes in src/tandem/runtimes/cri/_gen from proto/*.proto.

The output is committed, so that installing Tandem needs no compiler; a test generates it again and
compares. Service stubs are not generated: the client describes the few calls it makes itself, typed,
and is so free of the stubs' demand for the very grpcio they were made with.

    python tools/gen_proto.py [OUTPUT]      # default: src/tandem/runtimes/cri/_gen
"""

from __future__ import annotations

import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).parent.parent
PACKAGE = Path("tandem/runtimes/cri/_gen")
OUTPUT = ROOT / "src" / PACKAGE


def generate(output: Path) -> None:
    """Write ``*_pb2.py`` and ``*_pb2.pyi`` of every proto file into ``output``."""
    # The virtual prefix gives the files the import path of the package they are generated into.
    protos = [str(PACKAGE / path.name) for path in sorted((ROOT / "proto").glob("*.proto"))]
    with tempfile.TemporaryDirectory() as scratch:
        arguments = [
            "protoc",
            f"-I{PACKAGE}={ROOT / 'proto'}",
            f"-I{resources.files('grpc_tools') / '_proto'}",
            f"--python_out={scratch}",
            f"--pyi_out={scratch}",
            *protos,
        ]
        if protoc.main(arguments) != 0:
            raise SystemExit("protoc failed")
        output.mkdir(parents=True, exist_ok=True)
        for path in (Path(scratch) / PACKAGE).iterdir():
            (output / path.name).write_bytes(path.read_bytes())


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT)
