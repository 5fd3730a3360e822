"""A runtime that lives in this process: for trials without root, and for tests that need faults."""

from tandem.runtimes.memory.adapter import MemoryAdapter
from tandem.runtimes.memory.faults import Faults
from tandem.runtimes.memory.world import MemoryRuntime

__all__ = ["Faults", "MemoryAdapter", "MemoryRuntime"]
