"""From one ``v1`` Container to what CRI is told of it. Pure, as its caller ``translate`` is."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from tandem.api import causes
from tandem.api.meta import name_causes
from tandem.errors import Cause, InvalidSpec
from tandem.runtimes.adapter import LABEL_ID, LABEL_OWNER
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.expand import expand
from tandem.runtimes.cri.reader import Reader
from tandem.runtimes.cri.resources import Resources

LABEL_POD_NAME = "io.kubernetes.pod.name"
LABEL_POD_NAMESPACE = "io.kubernetes.pod.namespace"
LABEL_POD_UID = "io.kubernetes.pod.uid"
LABEL_CONTAINER_NAME = "io.kubernetes.container.name"
"""By these names other tools of a node (crictl, log shippers) know what belongs to which Pod."""

_FROM_THE_POD = (LABEL_ID, LABEL_OWNER, LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID)

# What of /proc and /sys tells on the host or changes it. A runtime hides none of it unless it is told
# to, except under a privileged container, from which nothing is hidden.
_MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_PROPAGATION = {
    "": cri.PROPAGATION_PRIVATE,
    "None": cri.PROPAGATION_PRIVATE,
    "HostToContainer": cri.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": cri.PROPAGATION_BIDIRECTIONAL,
}
_MAX_ID = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """One container: what to pull, and what to ask for.

    ``path`` is the container's place in the spec, for errors that show only later. The image in
    ``config`` is as the spec has it, until :meth:`with_image` puts in what it turned out to be.
    """

    name: str
    path: str
    image: str
    pull_policy: str
    must_not_be_root: bool
    config: cri.ContainerConfig

    def with_image(self, image: cri.Image) -> cri.ContainerConfig:
        """The configuration for ``image``. Raises ``InvalidSpec`` where ``runAsNonRoot`` forbids."""
        if self.must_not_be_root:
            self._check_user(image)
        config = cri.ContainerConfig()
        config.CopyFrom(self.config)
        config.image.image = image.id
        config.image.user_specified_image = self.image
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
        path = f"{self.path}.securityContext.runAsNonRoot"
        if context.HasField("run_as_user"):
            problem = "the container would run as root" if context.run_as_user.value == 0 else ""
        elif image.username and not image.username.isdecimal():
            problem = f"the image's user {image.username!r} is a name, which may be root's"
        else:
            user = image.uid.value if image.HasField("uid") else int(image.username or 0)
            problem = "the image runs as root" if user == 0 else ""
        if problem:
            raise InvalidSpec(
                f"container {self.name!r} must not run as root: {problem}",
                causes=[Cause(path, f"Invalid value: true: {problem}")],
                details={"container": self.name},
            )


def plan_container(
    container: Reader,
    pod: Reader,
    labels: Mapping[str, str],
    quality: str,
    host_memory: int,
    *,
    attempt: int,
) -> ContainerPlan:
    """The plan for ``container``, in the sandbox that has ``labels``. Faults go to the reader's."""
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
    container.refuse("volumeDevices", "resizePolicy", why="this runtime does not have it")
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
            **{key: labels[key] for key in _FROM_THE_POD if key in labels},
            LABEL_CONTAINER_NAME: name,
        },
        log_path=f"{name}/{attempt}.log",
        stdin=bool(container.flag("stdin")),
        stdin_once=bool(container.flag("stdinOnce")),
        tty=tty,
    )
    resources = Resources.read(container.child("resources"))
    config.linux.resources.CopyFrom(resources.to_cri(quality, host_memory))
    config.linux.security_context.CopyFrom(_security(container, pod))
    must_not_be_root = _either(container, pod, "runAsNonRoot")
    return ContainerPlan(name, container.path, image, policy, bool(must_not_be_root), config)


def namespace_options(pod: Reader) -> cri.NamespaceOption:
    """Which of its namespaces a Pod shares with the host, and its containers with each other."""
    if pod.flag("hostPID") and pod.flag("shareProcessNamespace"):
        pod.invalid("shareProcessNamespace", "may not be set together with hostPID")
    process = cri.POD if pod.flag("shareProcessNamespace") else cri.CONTAINER
    return cri.NamespaceOption(
        network=cri.NODE if pod.flag("hostNetwork") else cri.POD,
        pid=cri.NODE if pod.flag("hostPID") else process,
        ipc=cri.NODE if pod.flag("hostIPC") else cri.POD,
    )


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
    paths = {
        volume.text("name"): volume.child("hostPath").text("path")
        for volume in pod.children("volumes")
    }
    mounts = []
    for entry in container.children("volumeMounts"):
        name, target = entry.require("name"), entry.require("mountPath")
        entry.refuse("subPath", "subPathExpr", "recursiveReadOnly", why="the runtime lacks it")
        source = paths.get(name, "")
        propagation = entry.choice("mountPropagation", _PROPAGATION.keys() - {""}, "None")
        if name and name not in paths:
            container.faults.invalid.append(causes.not_found(entry.at("name"), name))
        elif name and (not source.startswith("/") or ".." in source.split("/")):
            rule = f'volume "{name}" must be an absolute path without ".."'
            entry.invalid("name", rule)
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


def _security(container: Reader, pod: Reader) -> cri.LinuxContainerSecurityContext:
    own, shared = container.child("securityContext"), pod.child("securityContext")
    own.refuse("seLinuxOptions", "windowsOptions", "appArmorProfile", why="this host lacks it")
    if own.choice("procMount", ("Default", "Unmasked"), "Default") == "Unmasked":
        own.refuse("procMount", why="it needs a user namespace")
    privileged = bool(own.flag("privileged"))
    escalation = own.flag("allowPrivilegeEscalation")
    capabilities = own.child("capabilities")
    added = capabilities.texts("add")
    if escalation is False and (privileged or "SYS_ADMIN" in added or "CAP_SYS_ADMIN" in added):
        own.invalid("allowPrivilegeEscalation", "may not be false for a privileged container")
    context = cri.LinuxContainerSecurityContext(
        privileged=privileged,
        readonly_rootfs=bool(own.flag("readOnlyRootFilesystem")),
        no_new_privs=escalation is False,
        supplemental_groups=_groups(shared),
        masked_paths=() if privileged else _MASKED_PATHS,
        readonly_paths=() if privileged else _READONLY_PATHS,
    )
    context.namespace_options.CopyFrom(namespace_options(pod))
    if added or capabilities.has("drop"):
        context.capabilities.add_capabilities.extend(_capability(name) for name in added)
        dropped = capabilities.texts("drop")
        context.capabilities.drop_capabilities.extend(_capability(name) for name in dropped)
    user, group = _identity(own, shared, "runAsUser"), _identity(own, shared, "runAsGroup")
    if user is not None:
        context.run_as_user.value = user
    if group is not None:
        context.run_as_group.value = group
    profile = own if own.has("seccompProfile") else shared
    if profile.has("seccompProfile"):
        context.seccomp.CopyFrom(_seccomp(profile.child("seccompProfile")))
    return context


def _either(own: Reader, pod: Reader, key: str) -> bool | None:
    """A flag of the container's security context, or else of the Pod's."""
    value = own.child("securityContext").flag(key)
    return pod.child("securityContext").flag(key) if value is None else value


def _identity(own: Reader, shared: Reader, key: str) -> int | None:
    value = own.number(key, 0, _MAX_ID)
    return shared.number(key, 0, _MAX_ID) if value is None else value


def _groups(shared: Reader) -> list[int]:
    groups = shared.numbers("supplementalGroups")
    fs_group = shared.number("fsGroup", 0, _MAX_ID)
    return groups if fs_group is None else [*groups, fs_group]


def _capability(name: str) -> str:
    """As CRI has it, which is without the kernel's prefix."""
    return name.upper().removeprefix("CAP_")


def _seccomp(profile: Reader) -> cri.SecurityProfile:
    kind = profile.choice("type", ("RuntimeDefault", "Unconfined", "Localhost"), "Unconfined")
    if kind == "Localhost":
        profile.refuse("type", why="there is no folder of profiles on this host")
        kind = "Unconfined"
    return cri.SecurityProfile(profile_type=kind)
