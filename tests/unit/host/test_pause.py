"""The sandbox image that is made on the spot."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tandem.errors import Unsupported
from tandem.host import pause


def test_the_program_runs_sleeps_and_lets_the_kernel_reap(tmp_path: Path) -> None:
    path = tmp_path / "pause"
    path.write_bytes(pause.program())
    path.chmod(0o755)
    with subprocess.Popen([path]) as process:
        status = Path(f"/proc/{process.pid}/status")
        deadline = time.monotonic() + 5
        while not _ignores(status.read_text(), signal.SIGCHLD) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert _ignores(status.read_text(), signal.SIGCHLD)
        assert process.poll() is None
        process.kill()


def _ignores(status: str, number: int) -> bool:
    (line,) = (line for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def test_the_archive_is_an_oci_image_whose_digests_hold() -> None:
    with tarfile.open(fileobj=io.BytesIO(pause.archive())) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"] == {"io.containerd.image.name": pause.IMAGE}
    blobs = {name: content for name, content in files.items() if name.startswith("blobs/")}
    for name, content in blobs.items():
        assert name == f"blobs/sha256/{hashlib.sha256(content).hexdigest()}"
    manifest = json.loads(blobs[f"blobs/{entry['digest'].replace(':', '/')}"])
    for part in (manifest["config"], *manifest["layers"]):
        assert len(blobs[f"blobs/{part['digest'].replace(':', '/')}"]) == part["size"]


def test_the_archive_is_the_same_every_time() -> None:
    assert pause.archive() == pause.archive()


def test_another_processor_is_told_to_name_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(Unsupported, match="riscv64") as caught:
        pause.archive()
    assert "sandbox_image" in str(caught.value.hint)
