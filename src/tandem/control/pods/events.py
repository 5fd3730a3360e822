"""What is said about Pods, in the kubelet's words, which people and tools search for."""

from __future__ import annotations

import math

from tandem.api.kind import Doc
from tandem.control.pods.plan import Role
from tandem.control.recorder import Recorder
from tandem.runtimes.capabilities import PulledImage


def described(pod: Doc) -> str:
    """The Pod as the kubelet names it in messages: ``name_namespace(uid)``."""
    metadata = pod["metadata"]
    return f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"


class PodEvents:
    """Events about a Pod as a whole."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def scheduled(self, pod: Doc, node: str) -> None:
        """It has its place."""
        metadata = pod["metadata"]
        who = f"{metadata['namespace']}/{metadata['name']}"
        self._recorder.normal(pod, "Scheduled", f"Successfully assigned {who} to {node}")

    def unschedulable(self, pod: Doc, message: str) -> None:
        """There is no place for it."""
        self._recorder.warning(pod, "FailedScheduling", message)

    def mount_failed(self, pod: Doc, reason: str, message: str) -> None:
        """A volume is not there yet."""
        self._recorder.warning(pod, reason, message)

    def sandbox_failed(self, pod: Doc, error: Exception) -> None:
        """Its sandbox could not be made."""
        message = f"Failed to create pod sandbox: {error}"
        self._recorder.warning(pod, "FailedCreatePodSandBox", message)

    def sandbox_changed(self, pod: Doc) -> None:
        """All of it is made anew."""
        message = "Pod sandbox changed, it will be killed and re-created."
        self._recorder.normal(pod, "SandboxChanged", message)

    def secrets_missing(self, pod: Doc, names: list[str]) -> None:
        """Secrets for its images cannot be used."""
        message = (
            f"Unable to retrieve some image pull secrets ({', '.join(names)}); "
            "attempting to pull the image may not succeed."
        )
        self._recorder.warning(pod, "FailedToRetrieveImagePullSecret", message)

    def deadline_exceeded(self, pod: Doc, message: str) -> None:
        """It was active for longer than it may."""
        self._recorder.normal(pod, "DeadlineExceeded", message)

    def evicted(self, pod: Doc, message: str) -> None:
        """It uses more than it may."""
        self._recorder.warning(pod, "Evicted", message)

    def rejected(self, pod: Doc, reason: str, message: str) -> None:
        """The node will not have it."""
        told = message.removeprefix("Pod was rejected: ")
        self._recorder.warning(pod, reason, told)

    def of(self, pod: Doc, role: Role, container: Doc) -> ContainerEvents:
        """The events about one of its containers."""
        return ContainerEvents(self._recorder, pod, role, container)


class ContainerEvents:
    """Events about one container of a Pod."""

    def __init__(self, recorder: Recorder, pod: Doc, role: Role, container: Doc) -> None:
        self._recorder = recorder
        self._pod = pod
        self._name, self._image = container["name"], container["image"]
        self._path = f"spec.{role.value}{{{self._name}}}"

    def pulling(self) -> None:
        """A registry is asked for its image."""
        self._normal("Pulling", f'Pulling image "{self._image}"')

    def pulled(self, image: PulledImage, waited: float) -> None:
        """Its image is there; ``waited``: seconds, including those in which others had their turn."""
        if image.pulled:
            took = f"{seconds(image.seconds)} ({seconds(max(waited, image.seconds))} including waiting)"
            size = f"Image size: {image.size} bytes."
            message = f'Successfully pulled image "{self._image}" in {took}. {size}'
        else:
            message = f'Container image "{self._image}" already present on machine'
        self._normal("Pulled", message)

    def pull_failed(self, reason: str, error: Exception) -> None:
        """Its image could not be had."""
        if reason == "ErrImageNeverPull":
            message = f'Container image "{self._image}" is not present with pull policy of Never'
            self._warning("ErrImageNeverPull", message)
        elif reason == "InvalidImageName":
            message = f'Failed to apply default image tag "{self._image}": {error}'
            self._warning("InspectFailed", message)
        else:
            self._warning("Failed", f'Failed to pull image "{self._image}": {error}')
        self.failed(reason)

    def pull_back_off(self) -> None:
        """Its image is not asked for again for a while."""
        self._normal("BackOff", f'Back-off pulling image "{self._image}"')
        self.failed("ImagePullBackOff")

    def created(self) -> None:
        """It was made."""
        self._normal("Created", f"Created container: {self._name}")

    def started(self) -> None:
        """It runs."""
        self._normal("Started", f"Started container {self._name}")

    def failed(self, why: object) -> None:
        """It could not be started."""
        self._warning("Failed", f"Error: {why}")

    def hook_failed(self, hook: str) -> None:
        """``PostStart`` or ``PreStop`` went wrong. What it said may be secret, and is not told."""
        self._warning(f"Failed{hook}Hook", f"{hook}Hook failed")

    def restart_back_off(self) -> None:
        """It keeps ending, and is left alone for a while."""
        where = described(self._pod)
        message = f"Back-off restarting failed container {self._name} in pod {where}"
        self._warning("BackOff", message)

    def killing(self, message: str = "") -> None:
        """It is being ended."""
        self._normal("Killing", message or f"Stopping container {self._name}")

    def _normal(self, reason: str, message: str) -> None:
        self._recorder.normal(self._pod, reason, message, field_path=self._path)

    def _warning(self, reason: str, message: str) -> None:
        self._recorder.warning(self._pod, reason, message, field_path=self._path)


def seconds(duration: float) -> str:
    """``87ms``, ``1.234s``, ``1m2.5s``: a duration as the kubelet prints it in Events."""
    millis = math.ceil(duration * 1000)
    if millis < 1000:
        return f"{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{text}s" if minutes else f"{text}s"
