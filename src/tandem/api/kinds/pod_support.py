"""What of a Pod is acted upon. The next volume type or probe is one more line here."""

from __future__ import annotations

from typing import Any

from tandem.api.kinds.support import YES, Findings, Tree, ignored, walk
from tandem.api.meta import get

_ONE_NODE = ignored("there is one node")
_NO_ACCOUNTS = ignored("there are no service accounts")

_SECURITY: dict[str, Tree] = {
    "runAsUser": YES,
    "runAsGroup": YES,
    "runAsNonRoot": YES,
    "seccompProfile": {"type": YES},
}

_CONTAINER: Tree = {
    "name": YES,
    "image": YES,
    "imagePullPolicy": YES,
    "command": YES,
    "args": YES,
    "workingDir": YES,
    "env": {
        "name": YES,
        "value": YES,
        "valueFrom": {"configMapKeyRef": YES, "secretKeyRef": YES, "fieldRef": YES},
    },
    "envFrom": {"prefix": YES, "configMapRef": YES, "secretRef": YES},
    "ports": {
        "name": YES,
        "containerPort": YES,
        "protocol": YES,
        "hostPort": YES,
        "hostIP": YES,
    },
    "resources": {"limits": YES, "requests": YES},
    "securityContext": {
        **_SECURITY,
        "privileged": YES,
        "readOnlyRootFilesystem": YES,
        "allowPrivilegeEscalation": YES,
        "capabilities": YES,
    },
    "stdin": YES,
    "stdinOnce": YES,
    "tty": YES,
    "terminationMessagePath": YES,
    "terminationMessagePolicy": YES,
}

POD_SPEC: Tree = {
    "containers": _CONTAINER,
    "restartPolicy": YES,
    "terminationGracePeriodSeconds": YES,
    "activeDeadlineSeconds": YES,
    "hostname": YES,
    "subdomain": ignored("there is no cluster DNS"),
    "dnsPolicy": YES,
    "dnsConfig": YES,
    "hostNetwork": YES,
    "hostPID": YES,
    "hostIPC": YES,
    "shareProcessNamespace": YES,
    "securityContext": {**_SECURITY, "supplementalGroups": YES, "fsGroup": YES, "sysctls": YES},
    # Where there is one node and nobody to compete with, these ask for what is so anyway.
    "nodeName": YES,
    "schedulerName": YES,
    "tolerations": YES,
    "priority": YES,
    "priorityClassName": YES,
    "preemptionPolicy": YES,
    "topologySpreadConstraints": YES,
    "enableServiceLinks": YES,
    "automountServiceAccountToken": YES,
    "nodeSelector": _ONE_NODE,
    "affinity": _ONE_NODE,
    "serviceAccountName": _NO_ACCOUNTS,
    "serviceAccount": _NO_ACCOUNTS,
}


def check(spec: Any, path: str) -> Findings:
    """Refusals and warnings for a PodSpec."""
    findings = walk(spec, POD_SPEC, path)
    if get(spec, "serviceAccountName", get(spec, "serviceAccount")) == "default":
        # The account that every Pod gets in a cluster expresses nothing.
        findings.warnings = [w for w in findings.warnings if "serviceAccount" not in w]
    for index, container in enumerate(get(spec, "containers", [])):
        if container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            where = f"{path}.containers[{index}].terminationMessagePolicy"
            findings.warnings.append(
                f"{where} has no effect: termination messages are not read yet"
            )
    return findings
