"""What other objects say about a new Pod: its priority, its runtime's overhead, its account.

As Kubernetes' admission does it: what they say is written into the Pod, so that it holds for the Pod's
whole life, and a name that leads nowhere is refused at once.
"""

from __future__ import annotations

from tandem.api.kind import Doc, Lookup
from tandem.errors import Forbidden

PRIORITY_CLASSES = "priorityclasses.scheduling.k8s.io"
RUNTIME_CLASSES = "runtimeclasses.node.k8s.io"
SERVICE_ACCOUNTS = "serviceaccounts"

DEFAULT_ACCOUNT = "default"


def admit(pod: Doc, lookup: Lookup) -> None:
    """Complete a new Pod in place. Raises ``Forbidden``."""
    _account(pod, lookup)
    _priority(pod, lookup)
    _runtime(pod, lookup)


def _account(pod: Doc, lookup: Lookup) -> None:
    spec, namespace = pod["spec"], pod["metadata"].get("namespace", "")
    name = spec.get("serviceAccountName") or DEFAULT_ACCOUNT
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    account = lookup.get(SERVICE_ACCOUNTS, namespace, name)
    if account is None:
        if name == DEFAULT_ACCOUNT:
            # It is on its way: a namespace's loop makes it, and this Pod asked for nothing of it.
            return
        raise _forbidden(
            pod,
            f"error looking up service account {namespace}/{name}: "
            f'serviceaccount "{name}" not found',
        )
    if account.get("imagePullSecrets") and not spec.get("imagePullSecrets"):
        spec["imagePullSecrets"] = account["imagePullSecrets"]


def _priority(pod: Doc, lookup: Lookup) -> None:
    spec = pod["spec"]
    name = spec.get("priorityClassName")
    if name:
        found = lookup.get(PRIORITY_CLASSES, "", name)
        if found is None:
            raise _forbidden(pod, f"no PriorityClass with name {name} was found")
    else:
        # Of several defaults the lowest one counts.
        defaults = [c for c in lookup.list(PRIORITY_CLASSES) if c.get("globalDefault")]
        found = min(defaults, key=lambda doc: int(doc.get("value", 0)), default=None)
        if found is not None:
            spec["priorityClassName"] = found["metadata"]["name"]
    computed = int(found.get("value", 0)) if found else 0
    given = spec.get("priority")
    if given is not None and given != computed:
        raise _forbidden(
            pod,
            f"the integer value of priority ({given}) must not be provided in pod spec; priority "
            f"admission controller computed {computed} from the given PriorityClass name",
        )
    policy = (found or {}).get("preemptionPolicy") or "PreemptLowerPriority"
    given_policy = spec.get("preemptionPolicy")
    if given_policy is not None and given_policy != policy:
        raise _forbidden(
            pod,
            f"the string value of PreemptionPolicy ({given_policy}) must not be provided in pod spec; "
            f"priority admission controller computed {policy} from the given PriorityClass name",
        )
    spec["priority"], spec["preemptionPolicy"] = computed, policy


def _runtime(pod: Doc, lookup: Lookup) -> None:
    spec = pod["spec"]
    name = spec.get("runtimeClassName")
    found: Doc = {}
    if name:
        runtime_class = lookup.get(RUNTIME_CLASSES, "", name)
        if runtime_class is None:
            raise _forbidden(pod, f'pod rejected: RuntimeClass "{name}" not found')
        found = runtime_class
    overhead = (found.get("overhead") or {}).get("podFixed")
    if spec.get("overhead") and not overhead:
        raise _forbidden(
            pod,
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        )
    if overhead:
        if spec.get("overhead") and spec["overhead"] != overhead:
            raise _forbidden(
                pod, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
            )
        spec["overhead"] = overhead
    scheduling = found.get("scheduling") or {}
    selector = spec.get("nodeSelector") or {}
    for key, value in (scheduling.get("nodeSelector") or {}).items():
        if selector.setdefault(key, value) != value:
            raise _forbidden(
                pod,
                f'pod rejected: conflict: runtimeClass.scheduling.nodeSelector["{key}"] = "{value}"; '
                f'pod.spec.nodeSelector["{key}"] = "{selector[key]}"',
            )
    if selector:
        spec["nodeSelector"] = selector
    if more := scheduling.get("tolerations"):
        tolerations = spec.setdefault("tolerations", [])
        tolerations += [toleration for toleration in more if toleration not in tolerations]


def _forbidden(pod: Doc, why: str) -> Forbidden:
    name = pod["metadata"].get("name", "")
    return Forbidden(
        f'pods "{name}" is forbidden: {why}', details={"name": name, "group": "", "kind": "pods"}
    )
