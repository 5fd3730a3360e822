"""What of a Pod is acted upon. The next volume type or probe is one more line here."""

from __future__ import annotations

from tandem.api.kind import Doc
from tandem.api.kinds.support import YES, Findings, Tree, ignored, only, unsupported, walk

_SECURITY: dict[str, Tree] = {
    "runAsUser": YES,
    "runAsGroup": YES,
    "runAsNonRoot": YES,
    "seccompProfile": YES,
    "appArmorProfile": YES,
}

_HTTP: Tree = {"host": YES, "httpHeaders": YES, "path": YES, "port": YES, "scheme": YES}

_HOOK: Tree = {"exec": YES, "httpGet": _HTTP, "tcpSocket": YES, "sleep": YES}

_PROBE: Tree = {
    "exec": YES,
    "httpGet": _HTTP,
    "tcpSocket": YES,
    "grpc": YES,
    "initialDelaySeconds": YES,
    "periodSeconds": YES,
    "timeoutSeconds": YES,
    "successThreshold": YES,
    "failureThreshold": YES,
    "terminationGracePeriodSeconds": YES,
}

_CONTAINER: dict[str, Tree] = {
    "name": YES,
    "image": YES,
    "imagePullPolicy": YES,
    "command": YES,
    "args": YES,
    "workingDir": YES,
    "env": {
        "name": YES,
        "value": YES,
        "valueFrom": {
            "configMapKeyRef": YES,
            "secretKeyRef": YES,
            "fieldRef": YES,
            "resourceFieldRef": YES,
        },
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
    "resizePolicy": ignored("containers are not resized in place"),
    "restartPolicy": YES,
    "volumeMounts": {
        "name": YES,
        "mountPath": YES,
        "subPath": YES,
        "subPathExpr": YES,
        "readOnly": YES,
        "recursiveReadOnly": YES,
        "mountPropagation": YES,
    },
    "livenessProbe": _PROBE,
    "readinessProbe": _PROBE,
    "startupProbe": _PROBE,
    "lifecycle": {"postStart": _HOOK, "preStop": _HOOK, "stopSignal": YES},
    "securityContext": {
        **_SECURITY,
        "privileged": YES,
        "readOnlyRootFilesystem": YES,
        "allowPrivilegeEscalation": YES,
        "capabilities": YES,
        "procMount": YES,
    },
    "stdin": YES,
    "stdinOnce": YES,
    "tty": YES,
    "terminationMessagePath": YES,
    "terminationMessagePolicy": YES,
}

_VOLUMES: dict[str, Tree] = {
    "name": YES,
    "emptyDir": {"medium": only("", "Memory"), "sizeLimit": YES},
    "hostPath": YES,
    "configMap": YES,
    "secret": YES,
    "downwardAPI": YES,
    "projected": {
        "defaultMode": YES,
        "sources": {
            "configMap": YES,
            "secret": YES,
            "downwardAPI": YES,
            "serviceAccountToken": YES,
        },
    },
    "image": YES,
    "persistentVolumeClaim": YES,
    "ephemeral": {
        "volumeClaimTemplate": {
            "metadata": YES,
            "spec": {
                "accessModes": YES,
                "resources": {"requests": YES, "limits": YES},
                "selector": YES,
                "storageClassName": YES,
                "volumeMode": only("Filesystem"),
                "volumeName": YES,
            },
        },
    },
}

POD_SPEC: Tree = {
    "initContainers": _CONTAINER,
    "containers": _CONTAINER,
    "ephemeralContainers": {**_CONTAINER, "targetContainerName": YES},
    "volumes": _VOLUMES,
    "restartPolicy": YES,
    "terminationGracePeriodSeconds": YES,
    "activeDeadlineSeconds": YES,
    "hostname": YES,
    "subdomain": YES,
    "setHostnameAsFQDN": YES,
    "hostAliases": YES,
    "dnsPolicy": YES,
    "dnsConfig": YES,
    "hostNetwork": YES,
    "hostPID": YES,
    "hostIPC": YES,
    "hostUsers": only(True),
    "shareProcessNamespace": YES,
    "securityContext": {
        **_SECURITY,
        "supplementalGroups": YES,
        "supplementalGroupsPolicy": YES,
        "fsGroup": YES,
        "fsGroupChangePolicy": YES,
        "sysctls": YES,
    },
    "imagePullSecrets": YES,
    "runtimeClassName": YES,
    "overhead": YES,
    "os": {"name": only("linux")},
    "readinessGates": YES,
    "schedulingGates": YES,
    "nodeName": YES,
    "nodeSelector": YES,
    "affinity": YES,
    "tolerations": YES,
    "topologySpreadConstraints": YES,
    "schedulerName": YES,
    "priority": YES,
    "priorityClassName": YES,
    "preemptionPolicy": YES,
    "serviceAccountName": YES,
    "serviceAccount": YES,
    "automountServiceAccountToken": ignored(
        "a token is mounted where a projected volume asks for it"
    ),
    # Without Services there is nothing that it would add to the environment.
    "enableServiceLinks": YES,
}


def check(spec: Doc, path: str) -> Findings:
    """Refusals and warnings for a PodSpec."""
    findings = walk(spec, POD_SPEC, path)
    for index, volume in enumerate(spec.get("volumes") or ()):
        # A volume's kind is asked for by being there, whatever is in it.
        findings.causes += [
            unsupported(f"{path}.volumes[{index}].{kind}")
            for kind, source in volume.items()
            if kind not in _VOLUMES and source == {}
        ]
    return findings
