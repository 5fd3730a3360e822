"""Writes OCI images straight into the storage of a docker-registry, without a container engine.

The layout is the one that docker-registry (Debian's package) keeps on disk: blobs by digest, and for
each repository links to them. A registry that is started over it read-only serves what is there.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class Entry:
    """A file, link or directory in a layer. Exactly one of ``content`` and ``link`` for the first
    two; neither for a directory."""

    content: bytes | None = None
    link: str = ""
    mode: int = 0o755
    owner: int = 0


def layer(entries: Mapping[str, Entry]) -> bytes:
    """An uncompressed tar of ``{path: entry}``, the same bytes for the same entries."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, entry in entries.items():
            info = tarfile.TarInfo(path)
            info.mode, info.uid, info.gid = entry.mode, entry.owner, entry.owner
            if entry.link:
                info.type, info.linkname = tarfile.SYMTYPE, entry.link
            elif entry.content is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(entry.content)
            archive.addfile(info, io.BytesIO(entry.content or b""))
    return buffer.getvalue()


@dataclass(frozen=True)
class Storage:
    """The root of a registry's storage (``rootdirectory`` in its configuration)."""

    root: Path

    def add_image(self, repository: str, tag: str, tar: bytes, config: Mapping[str, object]) -> str:
        """Store an image of one layer as ``repository:tag``; returns its manifest's digest."""
        packed = gzip.compress(tar, compresslevel=1, mtime=0)
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": [_digest(tar)]},
        }
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": self._blob(repository, _json(document), CONFIG),
                "layers": [self._blob(repository, packed, LAYER)],
            }
        )
        digest = str(
            self._blob(repository, manifest, MANIFEST, folder="_manifests/revisions")["digest"]
        )
        algorithm, _, value = digest.partition(":")
        tags = self._repository(repository) / "_manifests" / "tags" / tag
        for link in (tags / "current" / "link", tags / "index" / algorithm / value / "link"):
            _write(link, digest.encode())
        return digest

    def _repository(self, name: str) -> Path:
        return self.root / "docker" / "registry" / "v2" / "repositories" / name

    def _blob(
        self, repository: str, content: bytes, media_type: str, *, folder: str = "_layers"
    ) -> dict[str, object]:
        digest = _digest(content)
        algorithm, _, value = digest.partition(":")
        blobs = self.root / "docker" / "registry" / "v2" / "blobs"
        _write(blobs / algorithm / value[:2] / value / "data", content)
        link = self._repository(repository) / folder / algorithm / value / "link"
        _write(link, digest.encode())
        return {"mediaType": media_type, "digest": digest, "size": len(content)}


def files_below(root: Path) -> Iterator[Path]:
    """Every file below ``root``, in a fixed order."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            yield Path(folder, name)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
