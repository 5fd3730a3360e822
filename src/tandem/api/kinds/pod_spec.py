"""A PodSpec wherever it stands: in a Pod, or in the template of whatever makes Pods.

``path`` is where: ``spec`` in a Pod, ``spec.template.spec`` in a Deployment.
"""

from __future__ import annotations

from tandem.api.causes import invalid, required
from tandem.api.kind import Doc
from tandem.api.kinds import pod_support
from tandem.api.kinds.containers import (
    choice_causes,
    containers_causes,
    default_container,
    identity_causes,
)
from tandem.api.meta import get, name_causes
from tandem.errors import Cause

DEFAULT_GRACE_SECONDS = 30

_RESTART_POLICIES = ("Always", "OnFailure", "Never")
_DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")


def default(spec: Doc) -> None:
    """Fill in what Kubernetes fills in, in a template as in a Pod. Idempotent."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    for container in spec.get("containers") or ():
        default_container(container)


def causes(spec: Doc, path: str) -> list[Cause]:
    """What is wrong with the spec, what is not supported among it."""
    found = []
    if not spec.get("containers"):
        found.append(required(f"{path}.containers"))
    found += containers_causes(spec.get("containers") or [], f"{path}.containers")
    found += choice_causes(spec, "restartPolicy", _RESTART_POLICIES, path)
    found += choice_causes(spec, "dnsPolicy", _DNS_POLICIES, path)
    found += _number_causes(spec, path)
    for field in ("hostname", "subdomain"):
        if spec.get(field):
            found += name_causes(spec[field], f"{path}.{field}", "dns1123label")
    found += _sharing_causes(spec, path)
    found += identity_causes(spec.get("securityContext") or {}, f"{path}.securityContext")
    return found + pod_support.check(spec, path).causes


def warnings(spec: Doc, path: str) -> list[str]:
    """Sentences about what is taken without effect."""
    return pod_support.check(spec, path).warnings


def _number_causes(spec: Doc, path: str) -> list[Cause]:
    found = []
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        message = "must be greater than or equal to 0"
        found.append(invalid(f"{path}.terminationGracePeriodSeconds", grace, message))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline < 2**31:
        message = "must be between 1 and 2147483647, inclusive"
        found.append(invalid(f"{path}.activeDeadlineSeconds", deadline, message))
    return found


def _sharing_causes(spec: Doc, path: str) -> list[Cause]:
    found = []
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        message = "ShareProcessNamespace and HostPID cannot both be enabled"
        found.append(invalid(f"{path}.shareProcessNamespace", True, message))
    if spec.get("dnsPolicy") == "None" and not get(spec, "dnsConfig.nameservers"):
        message = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        found.append(required(f"{path}.dnsConfig.nameservers", message))
    return found
