"""What a Pod's containers mount: made before they start, kept true while they run, taken away after."""

from tandem.control.pods.volumes.claims import Unbound, unbound
from tandem.control.pods.volumes.loop import MountFailed, VolumeNotReady, Volumes

__all__ = ["MountFailed", "Unbound", "VolumeNotReady", "Volumes", "unbound"]
