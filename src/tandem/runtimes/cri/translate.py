"""From a Pod's spec to CRI's messages: pure, no I/O, held by golden files.

A sandbox carries, as an annotation, what a container that is started in it later needs to know of its
Pod: the Pod's own fields and its class of service. The runtime's word is so enough to go on after a
restart, whichever runtime it is; nothing of the containers (their environment may hold secrets) is in
it.

No ``cgroup_parent`` is set: a parent of our own would bound the Pod as a whole, but nobody except its
maker ever removes it, and a limit on each container does the same for what the API can ask.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tandem.api import causes
from tandem.api.meta import name_causes
from tandem.runtimes.adapter import LABEL_ID, LABEL_OWNER, LABEL_SPEC_HASH, RuntimeSpec
from tandem.runtimes.cri._gen import cri_pb2 as cri
from tandem.runtimes.cri.container import (
    LABEL_POD_NAME,
    LABEL_POD_NAMESPACE,
    ContainerPlan,
    plan_container,
)
from tandem.runtimes.cri.hostfacts import HostFacts
from tandem.runtimes.cri.reader import Faults, Reader
from tandem.runtimes.cri.resources import Resources, quality_of_service
from tandem.runtimes.cri.security import namespace_options

ANNOTATION_POD = "tandem.dev/pod"
"""On a sandbox: a :class:`PodRecord` as JSON."""

DEFAULT_GRACE_SECONDS = 30.0

_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_PATH_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_NO_MATTER = "this runtime does not have it"

_CLUSTER_DOMAIN = "cluster.local"
_MAX_HOSTNAME = 64  # the kernel's

# A node's own limits of a resolv.conf; what is beyond them is left out, as a kubelet does.
_MAX_NAMESERVERS, _MAX_SEARCHES, _MAX_SEARCH_CHARACTERS = 3, 32, 2048

_CONTAINER_LISTS = ("containers", "plannedContainers", "initContainers", "ephemeralContainers")


@dataclass(frozen=True, slots=True)
class PodRecord:
    """What a sandbox remembers: ``pod`` is the PodSpec without its containers, ``containers`` the
    names that ``create`` made, in order, ``quality`` the class of service, and ``privileged`` whether
    any of them is. ``sandbox_only``: it was made without containers, which come later. ``version`` is
    raised when the shape changes."""

    pod: Mapping[str, Any]
    containers: tuple[str, ...]
    quality: str
    privileged: bool
    sandbox_only: bool = False
    version: int = 1

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_annotations(cls, annotations: Mapping[str, str]) -> PodRecord:
        """The record of a sandbox; an empty one where there is none that we understand."""
        try:
            data = json.loads(annotations.get(ANNOTATION_POD, ""))
            if data["version"] == 1:
                return cls(
                    data["pod"],
                    tuple(data["containers"]),
                    data["quality"],
                    data["privileged"],
                    data.get("sandbox_only", False),
                )
        except (ValueError, TypeError, KeyError):
            pass  # written by a stranger, or by a later version of ours
        return cls({}, (), "", False)

    @property
    def grace_seconds(self) -> float:
        """How long the containers may take to end."""
        value = self.pod.get("terminationGracePeriodSeconds")
        return DEFAULT_GRACE_SECONDS if value is None else float(value)


@dataclass(frozen=True, slots=True)
class PodPlan:
    """All that ``create`` asks of the runtime. ``handler``: the runtime handler, empty for the
    runtime's default."""

    id: str
    spec_hash: str
    sandbox: cri.PodSandboxConfig
    containers: tuple[ContainerPlan, ...] = field(default=())
    handler: str = ""


def plan_pod(spec: RuntimeSpec, *, owner: str, log_dir: Path, host: HostFacts) -> PodPlan:
    """What to ask of the runtime for ``spec``.

    Raises ``InvalidSpec`` with a cause for every fault, ``Unsupported`` for fields that are right
    and more than a CRI runtime can do.
    """
    faults = Faults()
    if not _ID.fullmatch(spec.id):
        rule = f"must match {_ID.pattern}"
        faults.invalid.append(causes.invalid("id", spec.id, rule))
    if spec.container_spec is None or spec.vm_xml is not None:
        rule = "a container runtime takes container_spec, and no vm_xml"
        faults.invalid.append(causes.invalid("container_spec", spec.container_spec, rule))
        faults.check(f"spec {spec.id!r}")
    _check_labels(spec.labels, faults)
    document = _pod_document(spec.container_spec or {}, faults)
    pod = Reader(document, "container_spec", faults)
    containers = pod.children("containers")
    sandbox_only = document.get("containers") == []
    if not containers and not sandbox_only and isinstance(document.get("containers", []), list):
        faults.invalid.append(causes.required(pod.at("containers")))
    coming = containers or pod.children("plannedContainers")
    resources = [Resources.read(container.child("resources")) for container in coming]
    quality = quality_of_service(resources)
    _refuse_unsupported(pod, sandbox_only=sandbox_only)
    record = PodRecord(
        {key: value for key, value in document.items() if key not in _CONTAINER_LISTS},
        tuple(container.text("name") for container in containers),
        quality,
        any(container.child("securityContext").flag("privileged") for container in coming),
        sandbox_only,
    )
    sandbox = _sandbox(spec, pod, record, owner=owner, log_dir=log_dir, host=host)
    if sandbox.hostname:  # not of the host's network, where a port is the host's own
        sandbox.port_mappings.extend(_port_mappings(coming))
    plans = tuple(
        plan_container(container, pod, sandbox, quality, host, attempt=0)
        for container in containers
    )
    _check_names(pod, record.containers, faults)
    faults.check(f"spec {spec.id!r}")
    digest = _digest(spec, document)
    sandbox.labels[LABEL_SPEC_HASH] = digest
    return PodPlan(spec.id, digest, sandbox, plans, pod.text("runtimeHandler"))


def plan_later_container(
    sandbox: cri.PodSandboxConfig,
    record: PodRecord,
    document: Mapping[str, Any],
    *,
    attempt: int,
    host: HostFacts,
) -> ContainerPlan:
    """A container for a sandbox that exists. Raises as :func:`plan_pod` does."""
    faults = Faults()
    container = Reader(document, "container", faults)
    Resources.read(container.child("resources"))
    pod = Reader(record.pod, "container_spec", faults)
    plan = plan_container(container, pod, sandbox, record.quality, host, attempt=attempt)
    faults.check(f"container {container.text('name')!r}")
    return plan


def restore_sandbox(
    status: cri.PodSandboxStatus, *, log_dir: Path, host: HostFacts
) -> cri.PodSandboxConfig:
    """The configuration that the sandbox of ``status`` was made with; the runtime wants it with
    each container."""
    record = PodRecord.from_annotations(status.annotations)
    pod = Reader(record.pod, "container_spec", Faults())
    config = cri.PodSandboxConfig(
        metadata=status.metadata, labels=status.labels, annotations=status.annotations
    )
    return _describe_sandbox(config, pod, record, log_dir=log_dir, host=host)


def log_directory(log_dir: Path, metadata: cri.PodSandboxMetadata) -> Path:
    """Where the logs of one Pod lie, named as on a Kubernetes node."""
    return log_dir / f"{metadata.namespace}_{metadata.name}_{metadata.uid}"


def _pod_document(spec: Mapping[str, Any], faults: Faults) -> Mapping[str, Any]:
    """``spec`` as a PodSpec: the one-container shorthand is written out."""
    if not isinstance(spec, Mapping):
        Reader(spec, "container_spec", faults)
        return {}
    if "containers" in spec or "image" not in spec:
        return spec
    container = {"name": "main", **spec}
    if isinstance(variables := container.get("env"), Mapping):
        container["env"] = [{"name": name, "value": value} for name, value in variables.items()]
    return {"containers": [container]}


def _check_labels(labels: Mapping[str, str], faults: Faults) -> None:
    for key in (LABEL_POD_NAME, LABEL_POD_NAMESPACE):
        # They name the log directory.
        if key in labels and not _PATH_PART.fullmatch(labels[key]):
            rule = "must be a name of letters, digits, '-', '_' and '.'"
            faults.invalid.append(causes.invalid(f"labels[{key}]", labels[key], rule))


def _check_names(pod: Reader, names: Sequence[str], faults: Faults) -> None:
    for index, name in enumerate(names):
        path = f"{pod.at('containers')}[{index}].name"
        if name and name in names[:index]:
            faults.invalid.append(causes.duplicate(path, name))


def _digest(spec: RuntimeSpec, document: Mapping[str, Any]) -> str:
    """What tells one spec from another; the shorthand and the same written out are one."""
    if document.get("containers") == []:
        # The containers come later, and may be others by then.
        document = {key: value for key, value in document.items() if key not in _CONTAINER_LISTS}
    whole = [document, dict(spec.labels)]
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _refuse_unsupported(pod: Reader, *, sandbox_only: bool) -> None:
    """Refuse what nobody does. Who makes only the sandbox sees to the rest of the Pod."""
    pod.refuse("resourceClaims", "resources", why=_NO_MATTER)
    if not sandbox_only:
        pod.refuse("initContainers", "ephemeralContainers", why="start them with start_container")
        pod.refuse(
            "hostAliases",
            "runtimeClassName",
            "overhead",
            "readinessGates",
            "schedulingGates",
            why=_NO_MATTER,
        )
        for container in pod.children("containers"):
            limits = container.child("resources").child("limits")
            limits.refuse("ephemeral-storage", why="the runtime cannot limit it")
    if pod.flag("hostUsers") is False:
        pod.refuse_even_empty("hostUsers", why="user namespaces are not available")
    for volume in () if sandbox_only else pod.children("volumes"):
        # Whoever owns volumes hands them over as paths of this host.
        for source in volume.keys():  # noqa: SIM118  (a Reader is no mapping)
            if source not in ("name", "hostPath"):
                why = "only hostPath volumes reach a container runtime"
                volume.refuse_even_empty(source, why=why)
        kind = volume.child("hostPath").text("type")
        if kind not in ("", "DirectoryOrCreate"):
            volume.child("hostPath").refuse("type", why="the runtime does not check what is there")
    context = pod.child("securityContext")
    context.refuse("seLinuxOptions", "windowsOptions", why=_NO_MATTER)


def _sandbox(
    spec: RuntimeSpec,
    pod: Reader,
    record: PodRecord,
    *,
    owner: str,
    log_dir: Path,
    host: HostFacts,
) -> cri.PodSandboxConfig:
    config = cri.PodSandboxConfig(
        # The runtime holds this tuple unique: with our id in it, nobody can make a second one.
        metadata=cri.PodSandboxMetadata(
            name=spec.labels.get(LABEL_POD_NAME, spec.id),
            namespace=spec.labels.get(LABEL_POD_NAMESPACE, owner),
            uid=spec.id,
        ),
        labels={**spec.labels, LABEL_ID: spec.id, LABEL_OWNER: owner},
        annotations={ANNOTATION_POD: record.to_json()},
    )
    return _describe_sandbox(config, pod, record, log_dir=log_dir, host=host)


def _describe_sandbox(
    config: cri.PodSandboxConfig, pod: Reader, record: PodRecord, *, log_dir: Path, host: HostFacts
) -> cri.PodSandboxConfig:
    """Fill in what follows from the Pod's own fields."""
    config.log_directory = str(log_directory(log_dir, config.metadata))
    host_network = bool(pod.flag("hostNetwork"))
    hostname = pod.text("hostname")
    if hostname:
        pod.faults.invalid += name_causes(hostname, pod.at("hostname"), "dns1123label")
    if not host_network:
        config.hostname = _hostname(
            pod, hostname or config.metadata.name, config.metadata.namespace
        )
    if (dns := _dns(pod, host)) is not None:
        config.dns_config.CopyFrom(dns)
    context = pod.child("securityContext")
    config.linux.sysctls.update(
        {item.require("name"): item.text("value") for item in context.children("sysctls")}
    )
    config.linux.security_context.namespace_options.CopyFrom(namespace_options(pod))
    config.linux.security_context.privileged = record.privileged
    return config


def _hostname(pod: Reader, name: str, namespace: str) -> str:
    """The Pod's host name; with ``setHostnameAsFQDN`` and a subdomain, the whole of it."""
    # A Pod's name may be longer than the kernel lets a host's name be.
    name = name[:63].rstrip("-.")
    subdomain = pod.text("subdomain")
    if not (pod.flag("setHostnameAsFQDN") and subdomain):
        return name
    whole = f"{name}.{subdomain}.{namespace}.svc.{_CLUSTER_DOMAIN}"
    if len(whole) > _MAX_HOSTNAME:
        rule = f"the FQDN {whole} is too long ({_MAX_HOSTNAME} characters is the max)"
        pod.invalid("setHostnameAsFQDN", rule)
    return whole


def _port_mappings(containers: Sequence[Reader]) -> list[cri.PortMapping]:
    mappings = []
    for container in containers:
        for port in container.children("ports"):
            number = port.number("containerPort", 1, 65535)
            if number is None and not port.has("containerPort"):
                port.faults.invalid.append(causes.required(port.at("containerPort")))
            protocol = port.choice("protocol", ("TCP", "UDP", "SCTP"), "TCP")
            host_port = port.number("hostPort", 0, 65535)
            if number and host_port:
                mappings.append(
                    cri.PortMapping(
                        protocol=protocol,
                        container_port=number,
                        host_port=host_port,
                        host_ip=port.text("hostIP"),
                    )
                )
    return mappings


def _dns(pod: Reader, host: HostFacts) -> cri.DNSConfig | None:
    """The Pod's resolv.conf; None leaves it to the runtime, which copies the host's.

    There is no cluster DNS, so ``ClusterFirst`` is what it is on a node without one: ``Default``.
    """
    policies = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
    policy = pod.choice("dnsPolicy", policies, "ClusterFirst")
    config = pod.child("dnsConfig")
    servers, searches = config.texts("nameservers"), config.texts("searches")
    options = [
        name if not item.has("value") else f"{name}:{item.text('value')}"
        for item in config.children("options")
        if (name := item.require("name"))
    ]
    if policy == "None":
        if not servers:
            rule = 'at least one is needed when "dnsPolicy" is None'
            pod.faults.invalid.append(causes.required(config.at("nameservers"), rule))
        return _within_limits(servers, searches, options)
    if not (servers or searches or options):
        return None
    given = {option.partition(":")[0] for option in options}
    kept = [item for item in host.resolver_options if item.partition(":")[0] not in given]
    return _within_limits(
        list(dict.fromkeys([*host.nameservers, *servers])),
        list(dict.fromkeys([*host.searches, *searches])),
        [*kept, *options],
    )


def _within_limits(
    servers: Sequence[str], searches: Sequence[str], options: Sequence[str]
) -> cri.DNSConfig:
    searches = searches[:_MAX_SEARCHES]
    while len(" ".join(searches)) > _MAX_SEARCH_CHARACTERS:
        searches = searches[:-1]
    return cri.DNSConfig(servers=servers[:_MAX_NAMESERVERS], searches=searches, options=options)
