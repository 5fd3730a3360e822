"""The adapters that the settings ask for, each given the settings that concern it."""

from __future__ import annotations

from typing import Any

from tandem.config import Settings
from tandem.runtimes.adapter import RuntimeAdapter
from tandem.runtimes.factory import RuntimeAdapterFactory


def build(settings: Settings) -> dict[str, RuntimeAdapter]:
    """The adapter for ``container`` and for ``vm``. No I/O is done yet.

    Raises ``ValueError`` for an unknown runtime type, ``ImportError`` when one lacks its library.
    """
    chosen = {"container": settings.container_runtime, "vm": settings.vm_runtime}
    return {
        kind: RuntimeAdapterFactory.get_adapter(name, **_options(name, settings))
        for kind, name in chosen.items()
    }


def _options(name: str, settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {"owner": settings.owner}
    if name == "container":
        from tandem.runtimes.cri.logrotation import LogLimits  # brings gRPC with it

        limits = LogLimits(settings.container_log_max_size, settings.container_log_max_files)
        options |= {
            "endpoint": settings.container_endpoint,
            "log_dir": settings.log_dir / "pods",
            "image_dir": settings.data_dir / "image-volumes",
            "seccomp_dir": settings.data_dir / "seccomp",
            "timeout": settings.runtime_timeout,
            "log_limits": limits,
        }
    elif name in ("vm", "virtualmachine"):
        options |= {
            "uri": settings.libvirt_uri,
            "emulation": settings.emulation,
            "cache_dir": settings.data_dir / "cache",
            "log_dir": settings.log_dir / "machines",
            # The XML is our own, held to libvirt's schema by tests; checking it again takes 8 ms.
            "validate": False,
        }
    return options
