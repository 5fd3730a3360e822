"""A PodSpec wherever it stands: in a Pod, or in the template of whatever makes Pods.

``path`` is where: ``spec`` in a Pod, ``spec.template.spec`` in a Deployment.
"""

from __future__ import annotations

import re

from tandem.api.causes import forbidden, invalid, required
from tandem.api.kind import Doc
from tandem.api.kinds import pod_support
from tandem.api.kinds.checks import MAX_INT32, choice_causes, ip_causes, range_causes
from tandem.api.kinds.containers import containers_causes, default_container
from tandem.api.kinds.placement import placement_causes
from tandem.api.kinds.requirements import overhead_causes
from tandem.api.kinds.resources import all_containers
from tandem.api.kinds.security import pod_security_causes
from tandem.api.kinds.volumes import default_volume, volume_causes
from tandem.api.meta import name_causes
from tandem.errors import Cause

DEFAULT_GRACE_SECONDS = 30

_RESTART_POLICIES = ("Always", "Never", "OnFailure")
_DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
# What the resolver of the C library takes.
_MAX_NAMESERVERS = 3
_MAX_SEARCHES = 32
_MAX_SEARCH_CHARACTERS = 2048
# Names in DNS may begin with an underscore, where names of objects may not.
_SEARCH = re.compile(r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*")


def default(spec: Doc) -> None:
    """Fill in what Kubernetes fills in, in a template as in a Pod. Idempotent."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    # Two names of one field, the older one deprecated.
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for container in all_containers(spec):
        default_container(container)
    for volume in spec.get("volumes") or ():
        default_volume(volume)


def causes(spec: Doc, path: str, *, in_pod: bool = False) -> list[Cause]:
    """What is wrong with the spec, what is not supported among it. ``in_pod``: it is a Pod's own, not
    a template's."""
    found = volume_causes(spec.get("volumes") or [], f"{path}.volumes")
    found += containers_causes(spec, path)
    found += _plain_causes(spec, path)
    found += _dns_causes(spec, path)
    found += _host_causes(spec, path)
    found += pod_security_causes(spec, path)
    found += placement_causes(spec, path)
    if spec.get("ephemeralContainers") and not in_pod:
        message = "ephemeral containers not allowed in pod template"
        found.append(forbidden(f"{path}.ephemeralContainers", message))
    return found + pod_support.check(spec, path).causes


def warnings(spec: Doc, path: str) -> list[str]:
    """Sentences about what is taken without effect."""
    return pod_support.check(spec, path).warnings


def _plain_causes(spec: Doc, path: str) -> list[Cause]:
    found = choice_causes(spec, "restartPolicy", _RESTART_POLICIES, path)
    policies = ("Never", "PreemptLowerPriority")
    found += choice_causes(spec, "preemptionPolicy", policies, path)
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        message = "must be greater than or equal to 0"
        found.append(invalid(f"{path}.terminationGracePeriodSeconds", grace, message))
    found += range_causes(spec, "activeDeadlineSeconds", 1, MAX_INT32, path)
    for field in ("hostname", "subdomain"):
        if spec.get(field):
            found += name_causes(spec[field], f"{path}.{field}", "dns1123label")
    for field in ("serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"):
        if spec.get(field):
            found += name_causes(spec[field], f"{path}.{field}")
    found += overhead_causes(spec.get("overhead") or {}, f"{path}.overhead")
    systems = ("linux", "windows")
    found += choice_causes(spec.get("os") or {}, "name", systems, f"{path}.os")
    return found


def _dns_causes(spec: Doc, path: str) -> list[Cause]:
    found = choice_causes(spec, "dnsPolicy", _DNS_POLICIES, path)
    config = spec.get("dnsConfig")
    at = f"{path}.dnsConfig"
    if spec.get("dnsPolicy") == "None":
        if config is None:
            return [*found, required(at, "must provide `dnsConfig` when `dnsPolicy` is None")]
        if not config.get("nameservers"):
            message = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            return [*found, required(f"{at}.nameservers", message)]
    servers, searches = ((config or {}).get(name) or [] for name in ("nameservers", "searches"))
    if len(servers) > _MAX_NAMESERVERS:
        message = f"must not have more than {_MAX_NAMESERVERS} nameservers"
        found.append(invalid(f"{at}.nameservers", servers, message))
    for index, server in enumerate(servers):
        found += ip_causes(server, f"{at}.nameservers[{index}]")
    if len(searches) > _MAX_SEARCHES:
        message = f"must not have more than {_MAX_SEARCHES} search paths"
        found.append(invalid(f"{at}.searches", searches, message))
    if len(" ".join(searches)) > _MAX_SEARCH_CHARACTERS:
        message = (
            f"must not have more than {_MAX_SEARCH_CHARACTERS} characters (including spaces) in the "
            "search list"
        )
        found.append(invalid(f"{at}.searches", searches, message))
    for index, search in enumerate(searches):
        if search != "." and not _SEARCH.fullmatch(search.removesuffix(".")):
            found += name_causes(search, f"{at}.searches[{index}]")
    for index, option in enumerate((config or {}).get("options") or ()):
        if not option.get("name"):
            found.append(required(f"{at}.options[{index}]", "must not be empty"))
    return found


def _host_causes(spec: Doc, path: str) -> list[Cause]:
    found = []
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        at = f"{path}.hostAliases[{index}]"
        found += ip_causes(alias.get("ip") or "", f"{at}.ip")
        for place, name in enumerate(alias.get("hostnames") or ()):
            found += name_causes(name, f"{at}.hostnames[{place}]")
    if spec.get("hostNetwork"):
        for index, container in enumerate(spec.get("containers") or ()):
            for place, port in enumerate(container.get("ports") or ()):
                number = port.get("hostPort")
                if number and number != port.get("containerPort"):
                    where = f"{path}.containers[{index}].ports[{place}].hostPort"
                    message = "must match `containerPort` when `hostNetwork` is true"
                    found.append(invalid(where, number, message))
    if spec.get("nodeName") and spec.get("schedulingGates"):
        message = "cannot be set until all schedulingGates have been cleared"
        found.append(forbidden(f"{path}.nodeName", message))
    return found
