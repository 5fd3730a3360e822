"""Pretend images: those of ``runtime.unpullable`` cannot be had, those of ``private`` not by everyone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tandem.errors import ImagePullError
from tandem.runtimes.capabilities import PulledImage, RegistryCredentials
from tandem.runtimes.memory.world import MemoryRuntime
from tandem.runtimes.references import is_reference

_SIZE = 1 << 20  # bytes, of every image


async def pull(
    runtime: MemoryRuntime,
    image: str,
    pull_policy: str,
    credentials: Sequence[RegistryCredentials],
) -> PulledImage:
    """See :class:`tandem.runtimes.capabilities.Images`."""
    if not is_reference(image):
        why = f"couldn't parse image name {image!r}: invalid reference format"
        raise _failure(image, why, "InvalidImageName")
    identifier = f"sha256:{hashlib.sha256(image.encode()).hexdigest()}"
    if pull_policy != "Always" and image in runtime.present:
        return PulledImage(identifier, pulled=False, size=_SIZE)
    if pull_policy == "Never":
        why = "it is not present on this host, and its pull policy is Never"
        raise _failure(image, why, "ErrImageNeverPull")
    await runtime.faults.at("pull_image.pull")
    if image in runtime.unpullable:
        raise unpullable(image)
    needed = runtime.private.get(image)
    if needed is not None and needed not in credentials:
        raise _failure(image, "401 Unauthorized", "ErrImagePull")
    runtime.present.add(image)
    return PulledImage(identifier, pulled=True, size=_SIZE)


def unpullable(image: str, container: str = "") -> ImagePullError:
    """The error for an image that no registry has; ``container`` wants it."""
    error = _failure(image, "not found", "ErrImagePull")
    if container:
        error.details["container"] = container
    return error


def _failure(image: str, why: str, reason: str) -> ImagePullError:
    details = {"image": image, "reason": reason}
    return ImagePullError(f"cannot pull image {image!r}: {why}", details=details)
