"""Termination messages: what a container left in its file, or said last, when it ended.

The file is ours, mounted where the container writes to (see ``container``), so it is read without
going into the container. Blocking.
"""

from __future__ import annotations

import os
from pathlib import Path

from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.container import (
    ANNOTATION_MESSAGE_PATH,
    ANNOTATION_MESSAGE_POLICY,
    FALLBACK_TO_LOGS,
)

# Kubernetes' limits, in bytes and lines.
_MAX_FILE = 4096
_MAX_LOG, _MAX_LINES = 2048, 80
_TAIL = 24 * 1024  # a record of the log is at most 16 KiB, and the first one here may be cut


def left_message(status: cri.ContainerStatus) -> str:
    """What an ended container left in its file; empty when nothing."""
    path = status.annotations.get(ANNOTATION_MESSAGE_PATH)
    for mount in status.mounts if path else ():
        if mount.container_path == path:
            return _tail(Path(mount.host_path), _MAX_FILE).decode(errors="replace")
    return ""


def wants_log(status: cri.ContainerStatus) -> bool:
    """Whether the end of the log is the message of a container that failed without leaving one."""
    return status.annotations.get(ANNOTATION_MESSAGE_POLICY) == FALLBACK_TO_LOGS


def log_message(path: Path) -> str:
    """The end of the log at ``path``, without times and marks."""
    data = _tail(path, _TAIL)
    lines = data.splitlines(keepends=True)
    if len(data) == _TAIL:
        del lines[0]
    # A record is TIME STREAM P|F TEXT; P says that its line goes on in the next one.
    said = b""
    for line in lines[-_MAX_LINES:]:
        _, _, rest = line.partition(b" ")
        _, _, rest = rest.partition(b" ")
        mark, _, text = rest.partition(b" ")
        said += text.removesuffix(b"\n") if mark.startswith(b"P") else text
    return said[-_MAX_LOG:].decode(errors="replace")


def _tail(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            return file.read(limit)
    except OSError:  # removed with its container
        return b""
