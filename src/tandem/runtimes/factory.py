"""Hands out the adapter for a runtime's name, built-in or registered by a plugin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tandem.runtimes.adapter import RuntimeAdapter

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "tandem.runtimes"

# Named here as well as in pyproject.toml so that a source tree that is not installed still works.
_BUILT_IN = {
    "container": "tandem.runtimes.cri.adapter:ContainerAdapter",
    "vm": "tandem.runtimes.libvirt.adapter:VirtualMachineAdapter",
    "virtualmachine": "tandem.runtimes.libvirt.adapter:VirtualMachineAdapter",
    "memory": "tandem.runtimes.memory.adapter:MemoryAdapter",
}


def _plugins() -> Iterable[EntryPoint]:
    # Half of what `import tandem` would cost, and needed only when an adapter is.
    from importlib.metadata import entry_points

    return entry_points(group=ENTRY_POINT_GROUP)


class RuntimeAdapterFactory:
    """The adapter for ``container``, ``vm``, ``virtualmachine`` or a plugin's name.

    A plugin registers a :class:`RuntimeAdapter` subclass under the entry point group
    ``tandem.runtimes``; it is imported only when asked for, so that a library without libvirt's or
    gRPC's packages can still use the other adapter.
    """

    @staticmethod
    def known_types() -> list[str]:
        """The names that :meth:`get_adapter` takes, sorted."""
        return sorted({*_BUILT_IN, *(plugin.name for plugin in _plugins())})

    @staticmethod
    def get_adapter(runtime_type: str, **options: Any) -> RuntimeAdapter:
        """A new adapter of ``runtime_type``, constructed with ``options``; no I/O is done yet.

        Raises ``ValueError`` naming the known types for any other name.
        """
        return RuntimeAdapterFactory._load(runtime_type)(**options)

    @staticmethod
    def _load(runtime_type: str) -> type[RuntimeAdapter]:
        from importlib import import_module

        if target := _BUILT_IN.get(runtime_type):
            module, _, attribute = target.partition(":")
            loaded = getattr(import_module(module), attribute)
        else:
            for plugin in _plugins():
                if plugin.name == runtime_type:
                    loaded = plugin.load()
                    break
            else:
                known = ", ".join(RuntimeAdapterFactory.known_types())
                raise ValueError(f"unknown runtime type {runtime_type!r}; known types: {known}")
        if not (isinstance(loaded, type) and issubclass(loaded, RuntimeAdapter)):
            raise ValueError(f"runtime type {runtime_type!r} is not a RuntimeAdapter: {loaded!r}")
        return loaded
