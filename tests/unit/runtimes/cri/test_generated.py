"""The committed message classes are those that the .proto files make, and the calls exist in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool

from tandem.runtimes.cri import client
from tandem.runtimes.cri.client import Rpc

ROOT = Path(__file__).parents[4]
GENERATED = ROOT / "src/tandem/runtimes/cri/_gen"

CALLS = [value for value in vars(client).values() if isinstance(value, Rpc)]


def test_generating_again_changes_nothing(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "tools/gen_proto.py", tmp_path], check=True)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text() for path in GENERATED.glob("*_pb2.py*")}
    assert made == committed


@pytest.mark.parametrize("rpc", CALLS, ids=lambda rpc: rpc.path.rpartition("/")[2])
def test_a_call_is_what_the_service_says(rpc: Rpc[object, object]) -> None:  # type: ignore[type-var]
    _, service, name = rpc.path.split("/")
    method = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    assert method.input_type.full_name == rpc.request.DESCRIPTOR.full_name  # type: ignore[attr-defined]
    assert method.output_type.full_name == rpc.response.DESCRIPTOR.full_name  # type: ignore[attr-defined]
    assert rpc.native is service.startswith("containerd.")
