"""Security contexts and namespaces: from a Pod's and a container's to CRI's. Pure."""

from __future__ import annotations

from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.hostfacts import HostFacts
from tandem.runtimes.cri.reader import Reader

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

_MAX_ID = (1 << 31) - 1
_PROFILES = ("RuntimeDefault", "Unconfined", "Localhost")
_NO_MATTER = "this runtime does not have it"


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


def security_context(
    container: Reader, pod: Reader, host: HostFacts
) -> cri.LinuxContainerSecurityContext:
    """What ``container`` may do."""
    own, shared = container.child("securityContext"), pod.child("securityContext")
    own.refuse("seLinuxOptions", "windowsOptions", why="this host lacks it")
    if shared.choice("supplementalGroupsPolicy", ("Merge", "Strict"), "Merge") == "Strict":
        shared.refuse("supplementalGroupsPolicy", why=_NO_MATTER)
    unmasked = own.choice("procMount", ("Default", "Unmasked"), "Default") == "Unmasked"
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
        masked_paths=() if privileged or unmasked else _MASKED_PATHS,
        readonly_paths=() if privileged or unmasked else _READONLY_PATHS,
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
        context.seccomp.CopyFrom(_seccomp(profile.child("seccompProfile"), host))
    profile = own if own.has("appArmorProfile") else shared
    if profile.has("appArmorProfile"):
        _set_apparmor(context, profile.child("appArmorProfile"), host)
    return context


def must_not_be_root(container: Reader, pod: Reader) -> bool:
    """Whether ``runAsNonRoot`` holds for ``container``."""
    own = container.child("securityContext").flag("runAsNonRoot")
    shared = pod.child("securityContext").flag("runAsNonRoot")
    return bool(shared if own is None else own)


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


def _seccomp(profile: Reader, host: HostFacts) -> cri.SecurityProfile:
    kind = profile.choice("type", _PROFILES, "Unconfined")
    reference = ""
    if kind == "Localhost":
        path = profile.require("localhostProfile")
        if path.startswith("/") or ".." in path.split("/"):
            profile.invalid("localhostProfile", 'must be a relative path without ".."')
        reference = str(host.seccomp_dir / path)
    return cri.SecurityProfile(profile_type=kind, localhost_ref=reference)


def _set_apparmor(
    context: cri.LinuxContainerSecurityContext, profile: Reader, host: HostFacts
) -> None:
    kind = profile.choice("type", _PROFILES, "Unconfined")
    reference = profile.require("localhostProfile") if kind == "Localhost" else ""
    if host.apparmor:
        known = cri.SecurityProfile(profile_type=kind, localhost_ref=reference)
        context.apparmor.CopyFrom(known)
    elif kind != "Unconfined":
        profile.refuse("type", why="AppArmor is not enabled on the host")
