"""What is said about Pods, in the kubelet's words, which people and tools search for."""

from __future__ import annotations

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.control.recorder import Recorder


class PodEvents:
    """Events about one Pod's containers, and about the Pod."""

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

    def pulling(self, pod: Doc) -> None:
        """Images that are asked for anew at each start are being asked for."""
        for container in get(pod, "spec.containers", []):
            if container.get("imagePullPolicy") == "Always":
                message = f'Pulling image "{container["image"]}"'
                self._normal(pod, container["name"], "Pulling", message)

    def started(self, pod: Doc, container: Doc) -> None:
        """A container runs."""
        name, image = container["name"], container["image"]
        pulled = f'Container image "{image}" is present on machine'
        if container.get("imagePullPolicy") == "Always":
            pulled = f'Successfully pulled image "{image}"'
        self._normal(pod, name, "Pulled", pulled)
        self._normal(pod, name, "Created", f"Created container: {name}")
        self._normal(pod, name, "Started", f"Started container {name}")

    def failed(self, pod: Doc, container: str, message: str) -> None:
        """A container could not be started."""
        self._warning(pod, container, "Failed", message)

    def pull_failed(self, pod: Doc, container: str, image: str, error: Exception) -> None:
        """An image could not be had."""
        self.failed(pod, container, f'Failed to pull image "{image}": {error}')
        self.failed(pod, container, "Error: ErrImagePull")

    def pull_back_off(self, pod: Doc, container: str, image: str) -> None:
        """An image is not asked for again for a while."""
        self._normal(pod, container, "BackOff", f'Back-off pulling image "{image}"')
        self.failed(pod, container, "Error: ImagePullBackOff")

    def restart_back_off(self, pod: Doc, container: str) -> None:
        """A container that keeps ending is left alone for a while."""
        metadata = pod["metadata"]
        where = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        message = f"Back-off restarting failed container {container} in pod {where}"
        self._warning(pod, container, "BackOff", message)

    def sandbox_changed(self, pod: Doc) -> None:
        """All of it is made anew."""
        message = "Pod sandbox changed, it will be killed and re-created."
        self._recorder.normal(pod, "SandboxChanged", message)

    def killing(self, pod: Doc, why: str = "") -> None:
        """Its running containers are being stopped; ``why`` completes "Container x ..."."""
        for entry in get(pod, "status.containerStatuses", []):
            if "running" in entry.get("state", {}):
                name = entry["name"]
                message = f"Container {name} {why}" if why else f"Stopping container {name}"
                self._normal(pod, name, "Killing", message)

    def deadline_exceeded(self, pod: Doc, message: str) -> None:
        """It was active for longer than it may."""
        self._recorder.normal(pod, "DeadlineExceeded", message)

    def _normal(self, pod: Doc, container: str, reason: str, message: str) -> None:
        path = f"spec.containers{{{container}}}"
        self._recorder.normal(pod, reason, message, field_path=path)

    def _warning(self, pod: Doc, container: str, reason: str, message: str) -> None:
        path = f"spec.containers{{{container}}}"
        self._recorder.warning(pod, reason, message, field_path=path)
