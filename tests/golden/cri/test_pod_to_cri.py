"""Golden files: what a Pod becomes in CRI's language, word for word.

``NAME.yaml`` is a ``RuntimeSpec``, ``NAME.txtpb`` the messages it must become. After a change that is
meant, write them anew with ``TANDEM_UPDATE_GOLDEN=1 pytest tests/golden`` and read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format

from tandem.runtimes.adapter import RuntimeSpec
from tandem.runtimes.cri.hostfacts import HostFacts
from tandem.runtimes.cri.translate import plan_pod

HERE = Path(__file__).parent
HOST = HostFacts(
    memory=8 << 30,
    nameservers=("192.0.2.1",),
    searches=("lan",),
    resolver_options=("ndots:1", "timeout:2"),
)


def _messages(spec: RuntimeSpec) -> str:
    plan = plan_pod(spec, owner="tandem", log_dir=Path("/var/log/tandem/pods"), host=HOST)
    handler = f", handler {plan.handler}" if plan.handler else ""
    parts = [f"# sandbox{handler}\n{text_format.MessageToString(plan.sandbox)}"]
    for container in plan.containers:
        text = text_format.MessageToString(container.config)
        head = f"# container {container.name}, pulled {container.pull_policy}"
        if container.must_not_be_root:
            head += ", must not be root"
        parts.append(f"{head}\n{text}")
    return "\n".join(parts)


@pytest.mark.parametrize("path", sorted(HERE.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_pod_becomes_these_messages(path: Path) -> None:
    found = _messages(RuntimeSpec(**yaml.safe_load(path.read_text(encoding="utf-8"))))
    golden = path.with_suffix(".txtpb")
    if os.environ.get("TANDEM_UPDATE_GOLDEN"):
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8")
