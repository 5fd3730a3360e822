"""From one ``v1`` Container to what CRI is told of it. Pure, as its caller ``translate`` is."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from tandem.api import causes
from tandem.api.expand import expand
from tandem.api.meta import name_causes
from tandem.errors import Cause, InvalidSpec
from tandem.runtimes.adapter import LABEL_ID, LABEL_OWNER
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.hostfacts import HostFacts
from tandem.runtimes.cri.reader import Reader
from tandem.runtimes.cri.resources import Resources
from tandem.runtimes.cri.security import must_not_be_root, security_context

LABEL_POD_NAME = "io.kubernetes.pod.name"
LABEL_POD_NAMESPACE = "io.kubernetes.pod.namespace"
LABEL_POD_UID = "io.kubernetes.pod.uid"
LABEL_CONTAINER_NAME = "io.kubernetes.container.name"
"""By these names other tools of a node (crictl, log shippers) know what belongs to which Pod."""

ANNOTATION_MESSAGE_PATH = "io.kubernetes.container.terminationMessagePath"
ANNOTATION_MESSAGE_POLICY = "io.kubernetes.container.terminationMessagePolicy"
"""A kubelet's names too: where a container leaves its last words, and what stands in for them."""

ANNOTATION_IMAGE = "tandem.dev/image"
"""The image as it was asked for, which containerd 1.6 forgets for one of the image's names."""

ANNOTATION_STOP_SIGNAL = "tandem.dev/stop-signal"
"""The signal that asks a container to end, where the Pod says another than the image does."""

FALLBACK_TO_LOGS = "FallbackToLogsOnError"

_FROM_THE_POD = (LABEL_ID, LABEL_OWNER, LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID)

_PROPAGATION = {
    "": cri.PROPAGATION_PRIVATE,
    "None": cri.PROPAGATION_PRIVATE,
    "HostToContainer": cri.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": cri.PROPAGATION_BIDIRECTIONAL,
}


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """One container: what to pull, and what to ask for.

    ``path`` is the container's place in the spec and ``pod`` what people call its Pod, for errors
    that show only later. ``message_file`` must exist before it starts; empty: none. ``target`` names
    the container whose processes it shall see. The image in ``config`` is as the spec has it, until
    :meth:`with_image` puts in what it turned out to be.
    """

    name: str
    path: str
    pod: str
    image: str
    pull_policy: str
    must_not_be_root: bool
    message_file: str
    target: str
    config: cri.ContainerConfig

    def with_image(self, image: cri.Image) -> cri.ContainerConfig:
        """The configuration for ``image``. Raises ``InvalidSpec`` where ``runAsNonRoot`` forbids."""
        if self.must_not_be_root:
            self._check_user(image)
        config = cri.ContainerConfig()
        config.CopyFrom(self.config)
        config.image.image = image.id
        config.image.user_specified_image = self.image
        config.annotations[ANNOTATION_IMAGE] = self.image
        context = config.linux.security_context
        if context.HasField("run_as_group") and not context.HasField("run_as_user"):
            # CRI takes a group only beside a user.
            if image.username:
                context.run_as_username = image.username
            else:
                context.run_as_user.value = image.uid.value
        return config

    def _check_user(self, image: cri.Image) -> None:
        context = self.config.linux.security_context
        if context.HasField("run_as_user"):
            root = context.run_as_user.value == 0
            problem = "container's runAsUser breaks non-root policy" if root else ""
        elif image.username and not image.username.isdecimal():
            problem = (
                f"container has runAsNonRoot and image has non-numeric user ({image.username}), "
                "cannot verify user is non-root"
            )
        else:
            user = image.uid.value if image.HasField("uid") else int(image.username or 0)
            problem = "container has runAsNonRoot and image will run as root" if user == 0 else ""
        if problem:
            path = f"{self.path}.securityContext.runAsNonRoot"
            raise InvalidSpec(
                f'{problem} (pod: "{self.pod}", container: {self.name})',
                causes=[Cause(path, f"Invalid value: true: {problem}")],
                details={"container": self.name, "reason": "CreateContainerConfigError"},
            )


def plan_container(
    container: Reader,
    pod: Reader,
    sandbox: cri.PodSandboxConfig,
    quality: str,
    host: HostFacts,
    *,
    attempt: int,
) -> ContainerPlan:
    """The plan for ``container`` in ``sandbox``. Faults go to the reader's."""
    name = container.require("name")
    if name:
        container.faults.invalid += name_causes(name, container.at("name"), "dns1123label")
    image = container.require("image")
    if image != image.strip():
        container.invalid("image", "must not have leading or trailing whitespace")
    policy = container.choice(
        "imagePullPolicy", ("Always", "IfNotPresent", "Never"), _pull_policy(image)
    )
    container.refuse("envFrom", why="its variables must be given as env")
    container.refuse("volumeDevices", why="this runtime does not have it")
    variables = _variables(container)
    tty = bool(container.flag("tty"))
    config = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=name, attempt=attempt),
        image=cri.ImageSpec(image=image),
        command=[expand(word, variables) for word in container.texts("command")],
        args=[expand(word, variables) for word in container.texts("args")],
        working_dir=container.text("workingDir"),
        envs=[cri.KeyValue(key=key, value=value) for key, value in variables.items()],
        mounts=_mounts(container, pod),
        labels={
            **{key: sandbox.labels[key] for key in _FROM_THE_POD if key in sandbox.labels},
            LABEL_CONTAINER_NAME: name,
        },
        log_path=f"{name}/{attempt}.log",
        stdin=bool(container.flag("stdin")),
        stdin_once=bool(container.flag("stdinOnce")),
        tty=tty,
    )
    resources = Resources.read(container.child("resources"))
    config.linux.resources.CopyFrom(resources.to_cri(quality, host.memory))
    config.linux.security_context.CopyFrom(security_context(container, pod, host))
    _set_stop_signal(config, container)
    message_file = _mount_message(config, container, sandbox.log_directory)
    return ContainerPlan(
        name,
        container.path,
        _called(sandbox.metadata),
        image,
        policy,
        must_not_be_root(container, pod),
        message_file,
        container.text("targetContainerName"),
        config,
    )


def _called(metadata: cri.PodSandboxMetadata) -> str:
    """A Pod as a kubelet's messages name it."""
    return f"{metadata.name}_{metadata.namespace}({metadata.uid})"


def _pull_policy(image: str) -> str:
    """Kubernetes' default: a tag that moves is looked up each time."""
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if "@" not in image and tag in ("", "latest") else "IfNotPresent"


def _variables(container: Reader) -> dict[str, str]:
    """The environment, each value with those before it put in."""
    variables: dict[str, str] = {}
    for entry in container.children("env"):
        name = entry.require("name")
        if "=" in name or "\0" in name:
            entry.invalid("name", "must not contain '='")
        entry.refuse("valueFrom", why="its value must be given as value")
        if name:
            variables[name] = expand(entry.text("value"), variables)
    return variables


def _mounts(container: Reader, pod: Reader) -> list[cri.Mount]:
    volumes = {
        volume.text("name"): volume.child("hostPath").text("path")
        for volume in pod.children("volumes")
    }
    mounts = []
    for entry in container.children("volumeMounts"):
        target = entry.require("mountPath")
        source = entry.text("hostPath") or _path_of_volume(entry, volumes)
        propagation = entry.choice("mountPropagation", _PROPAGATION.keys() - {""}, "None")
        recursive = ("Disabled", "IfPossible", "Enabled")
        if entry.choice("recursiveReadOnly", recursive, "Disabled") == "Enabled":
            entry.refuse("recursiveReadOnly", why="it is not supported by the runtime")
        if source and (not source.startswith("/") or ".." in source.split("/")):
            rule = 'the path on the host must be absolute and without ".."'
            entry.invalid("hostPath" if entry.has("hostPath") else "name", rule)
        if target and (":" in target or not target.startswith("/")):
            entry.invalid("mountPath", "must be an absolute path without ':'")
        mounts.append(
            cri.Mount(
                container_path=posixpath.normpath(target) if target else "",
                host_path=source,
                readonly=bool(entry.flag("readOnly")),
                propagation=_PROPAGATION[propagation],
            )
        )
    return mounts


def _path_of_volume(entry: Reader, volumes: Mapping[str, str]) -> str:
    """Where a mount's volume lies on this host."""
    name = entry.require("name")
    entry.refuse("subPath", "subPathExpr", why="the runtime lacks it; give the path as hostPath")
    if name and not volumes.get(name):
        entry.faults.invalid.append(causes.not_found(entry.at("name"), name))
    return volumes.get(name, "")


def _mount_message(config: cri.ContainerConfig, container: Reader, log_directory: str) -> str:
    """Where on this host the container's last words will be, mounted to where it leaves them. It is
    found again by the mount, after a restart too."""
    path = container.text("terminationMessagePath")
    policy = container.choice("terminationMessagePolicy", ("File", FALLBACK_TO_LOGS), "File")
    if not path:
        return ""
    if not path.startswith("/"):
        container.invalid("terminationMessagePath", "must be an absolute path")
    metadata = config.metadata
    file = f"{log_directory}/{metadata.name}/{metadata.attempt}.message"
    config.mounts.append(cri.Mount(container_path=posixpath.normpath(path), host_path=file))
    config.annotations[ANNOTATION_MESSAGE_PATH] = posixpath.normpath(path)
    config.annotations[ANNOTATION_MESSAGE_POLICY] = policy
    return file


def _set_stop_signal(config: cri.ContainerConfig, container: Reader) -> None:
    lifecycle = container.child("lifecycle")
    if not (name := lifecycle.text("stopSignal")):
        return
    known = {key.replace("PLUS", "+").replace("MINUS", "-"): key for key in cri.Signal.keys()}  # noqa: SIM118  (an enum is no mapping)
    if name not in known or name == "RUNTIME_DEFAULT":
        rule = "must be the name of a signal, such as SIGUSR1"
        lifecycle.invalid("stopSignal", rule)
        return
    # For runtimes that know it; for others, the annotation says what to do.
    config.MergeFrom(cri.ContainerConfig(stop_signal=known[name]))
    config.annotations[ANNOTATION_STOP_SIGNAL] = name
