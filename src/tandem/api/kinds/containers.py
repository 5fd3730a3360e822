"""Defaults and rules of containers: init containers, containers and ephemeral ones."""

from __future__ import annotations

from tandem.api import causes
from tandem.api.kind import Doc
from tandem.api.kinds.checks import choice_causes, port_name_causes
from tandem.api.kinds.env import default_reference, env_causes, env_from_causes
from tandem.api.kinds.images import PULL_POLICIES, pull_policy
from tandem.api.kinds.probes import PROBES, default_probes, lifecycle_causes, probe_causes
from tandem.api.kinds.requirements import requirement_causes
from tandem.api.kinds.resources import all_containers, is_sidecar
from tandem.api.kinds.security import container_security_causes
from tandem.api.kinds.volumes import mount_causes
from tandem.api.meta import name_causes
from tandem.errors import Cause

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_NOT_EPHEMERAL = (
    *("ports", "resources", "lifecycle", "restartPolicy", "resizePolicy"),
    *PROBES,
)


def default_container(container: Doc) -> None:
    """Fill in what Kubernetes fills in, in a template as in a Pod."""
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if container.get("image"):
        container.setdefault("imagePullPolicy", pull_policy(str(container["image"])))
    container.setdefault("resources", {})
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for entry in container.get("env") or ():
        default_reference(entry.get("valueFrom") or {})
    default_probes(container)


def default_requests(container: Doc) -> None:
    """In a Pod, a limit without a request asks for all of it."""
    resources = container["resources"]
    if limits := resources.get("limits"):
        resources["requests"] = {**limits, **(resources.get("requests") or {})}


def default_host_ports(spec: Doc) -> None:
    """In a Pod on the host's network, a port of a container is the host's."""
    if spec.get("hostNetwork"):
        for container in all_containers(spec):
            for port in container.get("ports") or ():
                port["hostPort"] = port.get("hostPort") or port.get("containerPort", 0)


def containers_causes(spec: Doc, path: str) -> list[Cause]:
    """What is wrong with all containers of a spec."""
    volumes = {v["name"]: v for v in spec.get("volumes") or () if v.get("name")}
    found = _main_causes(spec, f"{path}.containers", volumes)
    found += _init_causes(spec, f"{path}.initContainers", volumes)
    return found + _ephemeral_causes(spec, f"{path}.ephemeralContainers", volumes)


def _main_causes(spec: Doc, path: str, volumes: dict[str, Doc]) -> list[Cause]:
    found: list[Cause] = []
    containers = spec.get("containers") or []
    if not containers:
        return [causes.required(path)]
    names: set[str] = set()
    for index, container in enumerate(containers):
        at = f"{path}[{index}]"
        found += _common_causes(container, at, volumes)
        found += _name_taken(container, at, names)
        found += lifecycle_causes(container, at, spec)
        found += probe_causes(container, at)
        if container.get("restartPolicy"):
            message = "may not be set for non-init containers"
            found.append(causes.forbidden(f"{at}.restartPolicy", message))
    return found + _host_port_causes(containers, path)


def _init_causes(spec: Doc, path: str, volumes: dict[str, Doc]) -> list[Cause]:
    found: list[Cause] = []
    names = {container.get("name", "") for container in spec.get("containers") or ()}
    for index, container in enumerate(spec.get("initContainers") or ()):
        at = f"{path}[{index}]"
        found += _common_causes(container, at, volumes)
        found += choice_causes(container, "restartPolicy", ("Always",), at)
        found += _name_taken(container, at, names)
        # One runs after the other, so only ports of the same one can be in each other's way.
        found += _host_port_causes([container], path)
        if is_sidecar(container):
            found += lifecycle_causes(container, at, spec)
            found += probe_causes(container, at)
            continue
        message = "may not be set for init containers without restartPolicy=Always"
        found += [
            causes.forbidden(f"{at}.{field}", message)
            for field in ("lifecycle", *PROBES)
            if container.get(field) is not None
        ]
    return found


def _ephemeral_causes(spec: Doc, path: str, volumes: dict[str, Doc]) -> list[Cause]:
    found: list[Cause] = []
    others = {
        container.get("name", "")
        for field in ("containers", "initContainers")
        for container in spec.get(field) or ()
    }
    names = set(others)
    message = "cannot be set for an Ephemeral Container"
    for index, container in enumerate(spec.get("ephemeralContainers") or ()):
        at = f"{path}[{index}]"
        found += _common_causes(container, at, volumes)
        found += _name_taken(container, at, names)
        target = container.get("targetContainerName")
        if target and target not in others:
            found.append(causes.not_found(f"{at}.targetContainerName", target))
        found += [
            causes.forbidden(f"{at}.{field}", message)
            for field in _NOT_EPHEMERAL
            if container.get(field)
        ]
        for place, mount in enumerate(container.get("volumeMounts") or ()):
            found += [
                causes.forbidden(f"{at}.volumeMounts[{place}].{field}", message)
                for field in ("subPath", "subPathExpr")
                if mount.get(field)
            ]
    return found


def _common_causes(container: Doc, path: str, volumes: dict[str, Doc]) -> list[Cause]:
    """The rules of every container."""
    found = []
    if not (name := container.get("name")):
        found.append(causes.required(f"{path}.name"))
    else:
        found += name_causes(name, f"{path}.name", "dns1123label")
    if not (image := container.get("image")):
        found.append(causes.required(f"{path}.image"))
    elif image != image.strip():
        message = "must not have leading or trailing whitespace"
        found.append(causes.invalid(f"{path}.image", image, message))
    found += choice_causes(container, "imagePullPolicy", PULL_POLICIES, path)
    policies = ("FallbackToLogsOnError", "File")
    found += choice_causes(container, "terminationMessagePolicy", policies, path)
    found += _port_causes(container.get("ports") or [], f"{path}.ports")
    found += env_causes(container.get("env") or [], f"{path}.env")
    found += env_from_causes(container.get("envFrom") or [], f"{path}.envFrom")
    found += mount_causes(container, path, volumes)
    found += requirement_causes(container.get("resources") or {}, f"{path}.resources")
    security = container.get("securityContext") or {}
    return found + container_security_causes(security, f"{path}.securityContext")


def _name_taken(container: Doc, path: str, names: set[str]) -> list[Cause]:
    name = container.get("name")
    if not name:
        return []
    if name in names:
        return [causes.duplicate(f"{path}.name", name)]
    names.add(name)
    return []


def _port_causes(ports: list[Doc], path: str) -> list[Cause]:
    found = []
    names: set[str] = set()
    rule = "must be between 1 and 65535, inclusive"
    for index, port in enumerate(ports):
        at = f"{path}[{index}]"
        if name := port.get("name"):
            if wrong := port_name_causes(name, f"{at}.name"):
                found += wrong
            elif name in names:
                found.append(causes.duplicate(f"{at}.name", name))
            names.add(name)
        if not (number := port.get("containerPort")):
            found.append(causes.required(f"{at}.containerPort"))
        elif not 0 < number < 65536:
            found.append(causes.invalid(f"{at}.containerPort", number, rule))
        host_port = port.get("hostPort")
        if host_port and not 0 < host_port < 65536:
            found.append(causes.invalid(f"{at}.hostPort", host_port, rule))
        found += choice_causes(port, "protocol", _PROTOCOLS, at)
    return found


def _host_port_causes(containers: list[Doc], path: str) -> list[Cause]:
    found = []
    taken: set[str] = set()
    for index, container in enumerate(containers):
        for place, port in enumerate(container.get("ports") or ()):
            if number := port.get("hostPort"):
                key = f"{port.get('protocol', 'TCP')}/{port.get('hostIP', '')}/{number}"
                if key in taken:
                    where = f"{path}[{index}].ports[{place}].hostPort"
                    found.append(causes.duplicate(where, key))
                taken.add(key)
    return found
