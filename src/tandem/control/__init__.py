"""The loops that make the world as the store says: Pods, virtual machines, namespaces, garbage."""

from tandem.control.manager import Manager

__all__ = ["Manager"]
