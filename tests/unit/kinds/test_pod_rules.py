"""Wrong Pods, each refused by field, value and rule, in the words of Kubernetes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tandem.api.kind import Doc
from tandem.api.kinds import POD
from tandem.api.rest import Prepared, prepare_create, prepare_update
from tandem.errors import BadRequest, InvalidSpec

C = "spec.containers[0]"
I = "spec.initContainers[0]"  # noqa: E741 as in the paths
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def container(**fields: Any) -> Doc:
    return {"name": "main", "image": "demo:1", **fields}


def main(**fields: Any) -> Doc:
    return {"containers": [container(**fields)]}


def init(**fields: Any) -> Doc:
    return pod(initContainers=[container(**{"name": "init", **fields})])


def pod(**fields: Any) -> Doc:
    return {"containers": [container()], **fields}


def volume(**source: Any) -> Doc:
    return pod(volumes=[{"name": "data", **source}])


def mount(**fields: Any) -> Doc:
    spec = main(volumeMounts=[{"name": "data", "mountPath": "/data", **fields}])
    return {**spec, "volumes": [{"name": "data", "emptyDir": {}}]}


def env(**source: Any) -> Doc:
    return main(env=[{"name": "A", "valueFrom": source}])


def create(spec: Doc) -> Prepared:
    doc = {"metadata": {"name": "web"}, "spec": copy.deepcopy(spec)}
    return prepare_create(POD, doc, namespace="default")


def faults(spec: Doc) -> dict[str, list[str]]:
    with pytest.raises(InvalidSpec) as caught:
        create(spec)
    found: dict[str, list[str]] = {}
    for cause in caught.value.causes:
        found.setdefault(cause.field, []).append(cause.message)
    return found


EXEC = {"exec": {"command": ["true"]}}
DNS = "a lowercase RFC 1123 label must consist of"

CONTAINERS: list[tuple[Doc, str, str]] = [
    ({"containers": []}, "spec.containers", "Required value"),
    ({"containers": [{"name": "a"}]}, f"{C}.image", "Required value"),
    ({"containers": [{"image": "a"}]}, f"{C}.name", "Required value"),
    (main(name="A"), f"{C}.name", DNS),
    (
        {"containers": [container(), container()]},
        "spec.containers[1].name",
        'Duplicate value: "main"',
    ),
    (main(image=" x"), f"{C}.image", "must not have leading or trailing whitespace"),
    (
        main(imagePullPolicy="Maybe"),
        f"{C}.imagePullPolicy",
        'Unsupported value: "Maybe": supported values: "Always", "IfNotPresent", "Never"',
    ),
    (
        main(terminationMessagePolicy="Log"),
        f"{C}.terminationMessagePolicy",
        'supported values: "FallbackToLogsOnError", "File"',
    ),
    (main(restartPolicy="Always"), f"{C}.restartPolicy", "may not be set for non-init containers"),
    (
        main(ports=[{"containerPort": 70000}]),
        f"{C}.ports[0].containerPort",
        "must be between 1 and 65535, inclusive",
    ),
    (main(ports=[{"containerPort": 0}]), f"{C}.ports[0].containerPort", "Required value"),
    (
        main(ports=[{"containerPort": 80, "hostPort": -1}]),
        f"{C}.ports[0].hostPort",
        "must be between 1 and 65535, inclusive",
    ),
    (
        main(ports=[{"containerPort": 80, "protocol": "ICMP"}]),
        f"{C}.ports[0].protocol",
        'Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"',
    ),
    (
        main(ports=[{"containerPort": 80, "name": "a-very-long-name-it-is"}]),
        f"{C}.ports[0].name",
        "must be no more than 15 characters",
    ),
    (
        main(ports=[{"containerPort": 80, "name": "80"}]),
        f"{C}.ports[0].name",
        "must contain at least one letter (a-z)",
    ),
    (
        main(ports=[{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}]),
        f"{C}.ports[1].name",
        'Duplicate value: "a"',
    ),
    (
        main(ports=[{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}]),
        f"{C}.ports[1].hostPort",
        'Duplicate value: "TCP//80"',
    ),
    (
        {**main(ports=[{"containerPort": 80, "hostPort": 81}]), "hostNetwork": True},
        f"{C}.ports[0].hostPort",
        "must match `containerPort` when `hostNetwork` is true",
    ),
    (init(restartPolicy="Never"), f"{I}.restartPolicy", 'supported values: "Always"'),
    (init(name="main"), f"{I}.name", 'Duplicate value: "main"'),
    (
        init(livenessProbe=EXEC),
        f"{I}.livenessProbe",
        "Forbidden: may not be set for init containers without restartPolicy=Always",
    ),
    (
        init(lifecycle={"preStop": EXEC}),
        f"{I}.lifecycle",
        "Forbidden: may not be set for init containers without restartPolicy=Always",
    ),
    (
        init(restartPolicy="Always", startupProbe={}),
        f"{I}.startupProbe",
        "Required value: must specify a handler type",
    ),
    (
        pod(ephemeralContainers=[container(name="debug")]),
        "spec.ephemeralContainers",
        "Forbidden: cannot be set on create",
    ),
]

ENVIRONMENT: list[tuple[Doc, str, str]] = [
    (
        main(env=[{"name": "A=B"}]),
        f"{C}.env[0].name",
        "a valid environment variable name must consist only of printable ASCII characters other "
        "than '='",
    ),
    (main(env=[{"name": ""}]), f"{C}.env[0].name", "Required value"),
    (env(), f"{C}.env[0].valueFrom", "must specify one of: `fieldRef`"),
    (
        main(
            env=[
                {
                    "name": "A",
                    "value": "x",
                    "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}},
                }
            ]
        ),
        f"{C}.env[0].valueFrom",
        "may not be specified when `value` is not empty",
    ),
    (
        env(configMapKeyRef={"name": "a", "key": "b"}, secretKeyRef={"name": "a", "key": "b"}),
        f"{C}.env[0].valueFrom",
        "may not have more than one field specified at a time",
    ),
    (
        env(fieldRef={"fieldPath": "spec.containers"}),
        f"{C}.env[0].valueFrom.fieldRef.fieldPath",
        "error converting fieldPath: field label not supported: spec.containers",
    ),
    (
        env(fieldRef={"fieldPath": "metadata.labels"}),
        f"{C}.env[0].valueFrom.fieldRef.fieldPath",
        'Unsupported value: "metadata.labels": supported values: "metadata.name"',
    ),
    (
        env(fieldRef={"fieldPath": "metadata.labels['a b']"}),
        f"{C}.env[0].valueFrom.fieldRef",
        "name part must consist of alphanumeric characters",
    ),
    (
        env(resourceFieldRef={"resource": "limits.gpu"}),
        f"{C}.env[0].valueFrom.resourceFieldRef.resource",
        'Unsupported value: "limits.gpu"',
    ),
    (
        env(resourceFieldRef={"resource": "limits.cpu", "divisor": "2"}),
        f"{C}.env[0].valueFrom.resourceFieldRef.divisor",
        "only divisor's values 1m and 1 are supported with the cpu resource",
    ),
    (
        env(resourceFieldRef={"resource": "requests.memory", "divisor": "1m"}),
        f"{C}.env[0].valueFrom.resourceFieldRef.divisor",
        "are supported with the memory resource",
    ),
    (
        env(configMapKeyRef={"name": "a", "key": "a b"}),
        f"{C}.env[0].valueFrom.configMapKeyRef.key",
        "a valid config key must consist of",
    ),
    (
        main(envFrom=[{"prefix": "A"}]),
        f"{C}.envFrom[0]",
        "must specify one of: `configMapRef` or `secretRef`",
    ),
    (
        main(envFrom=[{"configMapRef": {"name": "A B"}}]),
        f"{C}.envFrom[0].configMapRef.name",
        "a lowercase RFC 1123 subdomain must consist of",
    ),
]

RESOURCES: list[tuple[Doc, str, str]] = [
    (
        main(resources={"requests": {"memory": "-1"}}),
        f"{C}.resources.requests[memory]",
        "must be greater than or equal to 0",
    ),
    (
        main(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
        f"{C}.resources.requests",
        'Invalid value: "2": must be less than or equal to cpu limit of 1',
    ),
    (
        main(resources={"limits": {"gpu": "1"}}),
        f"{C}.resources.limits[gpu]",
        "must be a standard resource type or fully qualified",
    ),
    (
        main(resources={"limits": {"example.com/gpu": "500m"}}),
        f"{C}.resources.limits[example.com/gpu]",
        "must be an integer",
    ),
    (
        main(resources={"requests": {"example.com/gpu": "1"}}),
        f"{C}.resources.limits",
        "Limit must be set for non overcommitable resources",
    ),
    (
        main(resources={"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "2"}}),
        f"{C}.resources.requests",
        "must be equal to example.com/gpu limit of 2",
    ),
    (
        main(resources={"limits": {"hugepages-2Mi": "3Mi", "cpu": "1"}}),
        f"{C}.resources.limits[hugepages-2Mi]",
        "3Mi is not positive integer multiple of hugepages-2Mi",
    ),
    (
        main(resources={"limits": {"hugepages-2Mi": "4Mi"}}),
        f"{C}.resources",
        "Forbidden: HugePages require cpu or memory",
    ),
    (
        pod(overhead={"gpu": "1"}),
        "spec.overhead[gpu]",
        "must be a standard resource type or fully qualified",
    ),
]

V = "spec.volumes[0]"
M = f"{C}.volumeMounts[0]"
VOLUMES: list[tuple[Doc, str, str]] = [
    (pod(volumes=[{"emptyDir": {}}]), f"{V}.name", "Required value"),
    (pod(volumes=[{"name": "A", "emptyDir": {}}]), f"{V}.name", DNS),
    (pod(volumes=[{"name": "a"}, {"name": "a"}]), "spec.volumes[1].name", 'Duplicate value: "a"'),
    (
        volume(emptyDir={}, hostPath={"path": "/x"}),
        f"{V}.hostPath",
        "Forbidden: may not specify more than 1 volume type",
    ),
    (
        volume(emptyDir={"sizeLimit": "-1"}),
        f"{V}.emptyDir.sizeLimit",
        "Forbidden: SizeLimit field must be a valid resource quantity",
    ),
    (volume(hostPath={"path": ""}), f"{V}.hostPath.path", "Required value"),
    (volume(hostPath={"path": "/a/../b"}), f"{V}.hostPath.path", "must not contain '..'"),
    (
        volume(hostPath={"path": "/a", "type": "Pipe"}),
        f"{V}.hostPath.type",
        'Unsupported value: "Pipe"',
    ),
    (volume(secret={}), f"{V}.secret.secretName", "Required value"),
    (volume(configMap={}), f"{V}.configMap.name", "Required value"),
    (
        volume(configMap={"name": "a", "defaultMode": 512}),
        f"{V}.configMap.defaultMode",
        "must be a number between 0 and 0777 (octal), both inclusive",
    ),
    (
        volume(secret={"secretName": "a", "items": [{"key": "a", "path": "/b"}]}),
        f"{V}.secret.items[0].path",
        "must be a relative path",
    ),
    (
        volume(secret={"secretName": "a", "items": [{"key": "a", "path": "../b"}]}),
        f"{V}.secret.items[0].path",
        "must not contain '..'",
    ),
    (
        volume(secret={"secretName": "a", "items": [{"key": "a", "path": "..b"}]}),
        f"{V}.secret.items[0].path",
        "must not start with '..'",
    ),
    (
        volume(configMap={"name": "a", "items": [{"key": "", "path": "b", "mode": -1}]}),
        f"{V}.configMap.items[0].key",
        "Required value",
    ),
    (
        volume(downwardAPI={"items": [{"path": "a"}]}),
        f"{V}.downwardAPI.items[0]",
        "one of fieldRef and resourceFieldRef is required",
    ),
    (
        volume(downwardAPI={"items": [{"path": "a", "fieldRef": {"fieldPath": "status.podIP"}}]}),
        f"{V}.downwardAPI.items[0].fieldRef.fieldPath",
        'Unsupported value: "status.podIP"',
    ),
    (
        volume(
            downwardAPI={"items": [{"path": "a", "resourceFieldRef": {"resource": "limits.cpu"}}]}
        ),
        f"{V}.downwardAPI.items[0].resourceFieldRef.containerName",
        "Required value",
    ),
    (
        volume(projected={"sources": [{"secret": {"name": "a"}, "configMap": {"name": "b"}}]}),
        f"{V}.projected.sources[0]",
        "Forbidden: may not specify more than 1 volume type per source",
    ),
    (
        volume(
            projected={
                "sources": [
                    {"secret": {"name": "a", "items": [{"key": "a", "path": "x"}]}},
                    {"configMap": {"name": "b", "items": [{"key": "a", "path": "x"}]}},
                ]
            }
        ),
        f"{V}.projected",
        "conflicting duplicate paths",
    ),
    (
        volume(
            projected={"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 1}}]}
        ),
        f"{V}.projected.sources[0].serviceAccountToken.expirationSeconds",
        "may not specify a duration less than 10 minutes",
    ),
    (
        volume(persistentVolumeClaim={"claimName": ""}),
        f"{V}.persistentVolumeClaim.claimName",
        "Required value",
    ),
    (volume(image={}), f"{V}.image.reference", "Required value"),
    (
        volume(ephemeral={}),
        f"{V}.ephemeral.volumeClaimTemplate",
        "Required value",
    ),
    (
        main(volumeMounts=[{"name": "gone", "mountPath": "/a"}]),
        f"{M}.name",
        'Not found: "gone"',
    ),
    (mount(mountPath=""), f"{M}.mountPath", "Required value"),
    (
        {
            **mount(),
            "containers": [
                container(volumeMounts=[{"name": "data", "mountPath": "/data"}] * 2),
            ],
        },
        f"{C}.volumeMounts[1].mountPath",
        'Invalid value: "/data": must be unique',
    ),
    (mount(subPath="/a"), f"{M}.subPath", "must be a relative path"),
    (mount(subPath="a/../b"), f"{M}.subPath", "must not contain '..'"),
    (
        mount(subPath="a", subPathExpr="b"),
        f"{M}.subPathExpr",
        "subPathExpr and subPath are mutually exclusive",
    ),
    (
        {**mount(subPath="a"), "volumes": [{"name": "data", "image": {"reference": "a:1"}}]},
        f"{M}.subPath",
        "not allowed in image volume sources",
    ),
    (
        mount(mountPropagation="Both"),
        f"{M}.mountPropagation",
        'Unsupported value: "Both": supported values: "Bidirectional", "HostToContainer", "None"',
    ),
    (
        mount(mountPropagation="Bidirectional"),
        f"{M}.mountPropagation",
        "Forbidden: Bidirectional mount propagation is available only to privileged containers",
    ),
    (
        mount(recursiveReadOnly="Enabled"),
        f"{M}.recursiveReadOnly",
        "Forbidden: may only be specified when readOnly is true",
    ),
    (
        mount(recursiveReadOnly="Enabled", readOnly=True, mountPropagation="HostToContainer"),
        f"{M}.recursiveReadOnly",
        "Forbidden: may only be specified when mountPropagation is None or not specified",
    ),
]

P = f"{C}.livenessProbe"
PROBES: list[tuple[Doc, str, str]] = [
    (main(livenessProbe={}), P, "Required value: must specify a handler type"),
    (
        main(livenessProbe={**EXEC, "tcpSocket": {"port": 80}}),
        f"{P}.tcpSocket",
        "Forbidden: may not specify more than 1 handler type",
    ),
    (main(livenessProbe={"exec": {}}), f"{P}.exec.command", "Required value"),
    (
        main(livenessProbe={"httpGet": {"port": 0}}),
        f"{P}.httpGet.port",
        "must be between 1 and 65535, inclusive",
    ),
    (
        main(livenessProbe={"httpGet": {"port": "Web_"}}),
        f"{P}.httpGet.port",
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    ),
    (
        main(livenessProbe={"httpGet": {"port": 80, "scheme": "GOPHER"}}),
        f"{P}.httpGet.scheme",
        'Unsupported value: "GOPHER": supported values: "HTTP", "HTTPS"',
    ),
    (
        main(
            livenessProbe={"httpGet": {"port": 80, "httpHeaders": [{"name": "a b", "value": ""}]}}
        ),
        f"{P}.httpGet.httpHeaders",
        "a valid HTTP header must consist of alphanumeric characters or '-'",
    ),
    (
        main(livenessProbe={"grpc": {"port": 70000}}),
        f"{P}.grpc.port",
        "must be between 1 and 65535, inclusive",
    ),
    (
        main(livenessProbe={**EXEC, "periodSeconds": -1}),
        f"{P}.periodSeconds",
        "Invalid value: -1: must be greater than or equal to 0",
    ),
    (
        main(livenessProbe={**EXEC, "successThreshold": 2}),
        f"{P}.successThreshold",
        "Invalid value: 2: must be 1",
    ),
    (
        main(startupProbe={**EXEC, "successThreshold": 2}),
        f"{C}.startupProbe.successThreshold",
        "Invalid value: 2: must be 1",
    ),
    (
        main(livenessProbe={**EXEC, "terminationGracePeriodSeconds": 0}),
        f"{P}.terminationGracePeriodSeconds",
        "must be greater than 0",
    ),
    (
        main(readinessProbe={**EXEC, "terminationGracePeriodSeconds": 5}),
        f"{C}.readinessProbe.terminationGracePeriodSeconds",
        "must not be set for readinessProbes",
    ),
    (
        main(lifecycle={"postStart": {}}),
        f"{C}.lifecycle.postStart",
        "Required value: must specify a handler type",
    ),
    (
        main(lifecycle={"preStop": {"sleep": {"seconds": 40}}}),
        f"{C}.lifecycle.preStop.sleep",
        "must be non-negative and less than terminationGracePeriodSeconds (30)",
    ),
]

S = "spec.securityContext"
SECURITY: list[tuple[Doc, str, str]] = [
    (
        pod(securityContext={"runAsUser": -1}),
        f"{S}.runAsUser",
        "must be between 0 and 2147483647, inclusive",
    ),
    (
        pod(securityContext={"supplementalGroups": [1, -2]}),
        f"{S}.supplementalGroups[1]",
        "must be between 0 and 2147483647, inclusive",
    ),
    (
        pod(securityContext={"fsGroupChangePolicy": "Never"}),
        f"{S}.fsGroupChangePolicy",
        'Unsupported value: "Never": supported values: "Always", "OnRootMismatch"',
    ),
    (
        pod(securityContext={"supplementalGroupsPolicy": "None"}),
        f"{S}.supplementalGroupsPolicy",
        'supported values: "Merge", "Strict"',
    ),
    (
        pod(securityContext={"sysctls": [{"name": "a", "value": ""}] * 2}),
        f"{S}.sysctls[1].name",
        'Duplicate value: "a"',
    ),
    (
        pod(securityContext={"sysctls": [{"name": "A..b", "value": ""}]}),
        f"{S}.sysctls[0].name",
        "must have at most 253 characters and match regex",
    ),
    (
        pod(
            hostNetwork=True,
            securityContext={"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]},
        ),
        f"{S}.sysctls[0].name",
        "may not be specified when 'hostNetwork' is true",
    ),
    (
        pod(
            hostIPC=True,
            securityContext={"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]},
        ),
        f"{S}.sysctls[0].name",
        "may not be specified when 'hostIPC' is true",
    ),
    (
        pod(hostPID=True, shareProcessNamespace=True),
        "spec.shareProcessNamespace",
        "ShareProcessNamespace and HostPID cannot both be enabled",
    ),
    (
        pod(securityContext={"seccompProfile": {"type": "Localhost"}}),
        f"{S}.seccompProfile.localhostProfile",
        "Required value: must be set when seccomp type is Localhost",
    ),
    (
        pod(securityContext={"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}),
        f"{S}.seccompProfile.localhostProfile",
        "must not contain '..'",
    ),
    (
        pod(securityContext={"seccompProfile": {"type": "Unconfined", "localhostProfile": "x"}}),
        f"{S}.seccompProfile.localhostProfile",
        "can only be set when seccomp type is Localhost",
    ),
    (
        pod(securityContext={"seccompProfile": {"type": "Strict"}}),
        f"{S}.seccompProfile.type",
        'Unsupported value: "Strict": supported values: "Localhost", "RuntimeDefault", "Unconfined"',
    ),
    (
        main(securityContext={"appArmorProfile": {"type": "Localhost", "localhostProfile": " x"}}),
        f"{C}.securityContext.appArmorProfile.localhostProfile",
        "must not be padded with whitespace",
    ),
    (
        main(securityContext={"procMount": "Open"}),
        f"{C}.securityContext.procMount",
        'Unsupported value: "Open": supported values: "Default", "Unmasked"',
    ),
    (
        main(securityContext={"privileged": True, "allowPrivilegeEscalation": False}),
        f"{C}.securityContext",
        "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
    ),
    (
        main(
            securityContext={
                "allowPrivilegeEscalation": False,
                "capabilities": {"add": ["CAP_SYS_ADMIN"]},
            }
        ),
        f"{C}.securityContext",
        "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
    ),
]


def node_affinity(*expressions: Doc) -> Doc:
    terms = {"nodeSelectorTerms": [{"matchExpressions": list(expressions)}]}
    return pod(affinity={"nodeAffinity": {REQUIRED: terms}})


def expression(operator: str, *values: str, key: str = "a") -> Doc:
    return {"key": key, "operator": operator, "values": list(values)}


NODE = f"spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms[0].matchExpressions[0]"
POD_TERM = f"spec.affinity.podAffinity.{REQUIRED}[0]"
SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
PLACEMENT: list[tuple[Doc, str, str]] = [
    (pod(nodeSelector={"a b": "c"}), "spec.nodeSelector", "name part must consist of"),
    (pod(nodeSelector={"a": "b c"}), "spec.nodeSelector", "a valid label must be an empty string"),
    (
        node_affinity(expression("In")),
        f"{NODE}.values",
        "must be specified when `operator` is 'In'",
    ),
    (node_affinity(expression("Exists", "a")), f"{NODE}.values", "may not be specified"),
    (node_affinity(expression("Gt", "1", "2")), f"{NODE}.values", "must be specified single value"),
    (node_affinity(expression("Like", "a")), f"{NODE}.operator", "not a valid selector operator"),
    (node_affinity(expression("Exists", key="")), f"{NODE}.key", "name part must be non-empty"),
    (
        pod(affinity={"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": []}}}),
        f"spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms",
        "must have at least one node selector term",
    ),
    (
        pod(affinity={"nodeAffinity": {PREFERRED: [{"weight": 0, "preference": {}}]}}),
        f"spec.affinity.nodeAffinity.{PREFERRED}[0].weight",
        "must be in the range 1-100",
    ),
    (
        pod(affinity={"podAffinity": {REQUIRED: [{"topologyKey": ""}]}}),
        f"{POD_TERM}.topologyKey",
        "can not be empty",
    ),
    (
        pod(affinity={"podAffinity": {REQUIRED: [{"topologyKey": "a", "matchLabelKeys": ["b"]}]}}),
        f"{POD_TERM}.matchLabelKeys",
        "must not be specified when labelSelector is not set",
    ),
    (
        pod(
            affinity={
                "podAffinity": {
                    REQUIRED: [
                        {
                            "topologyKey": "a",
                            "labelSelector": {"matchExpressions": [expression("Gt", "1")]},
                        }
                    ]
                }
            }
        ),
        f"{POD_TERM}.labelSelector.matchExpressions[0].operator",
        "not a valid selector operator",
    ),
    (
        pod(tolerations=[{"value": "x"}]),
        "spec.tolerations[0].operator",
        "operator must be Exists when `key` is empty",
    ),
    (
        pod(tolerations=[{"key": "a", "operator": "Exists", "value": "x"}]),
        "spec.tolerations[0].operator",
        "value must be empty when `operator` is 'Exists'",
    ),
    (
        pod(tolerations=[{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 1}]),
        "spec.tolerations[0].effect",
        "effect must be 'NoExecute' when `tolerationSeconds` is set",
    ),
    (
        pod(tolerations=[{"key": "a", "effect": "Never"}]),
        "spec.tolerations[0].effect",
        'Unsupported value: "Never": supported values: "NoExecute", "NoSchedule", "PreferNoSchedule"',
    ),
    (
        pod(topologySpreadConstraints=[{**SPREAD, "maxSkew": 0}]),
        "spec.topologySpreadConstraints[0].maxSkew",
        "must be greater than zero",
    ),
    (
        pod(topologySpreadConstraints=[SPREAD, SPREAD]),
        "spec.topologySpreadConstraints[1].{topologyKey, whenUnsatisfiable}",
        'Duplicate value: "{zone, DoNotSchedule}"',
    ),
    (
        pod(
            topologySpreadConstraints=[
                {**SPREAD, "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2}
            ]
        ),
        "spec.topologySpreadConstraints[0].minDomains",
        "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
    ),
    (
        pod(readinessGates=[{"conditionType": "a b"}]),
        "spec.readinessGates[0].conditionType",
        "name part must consist of",
    ),
    (
        pod(schedulingGates=[{"name": "a"}, {"name": "a"}]),
        "spec.schedulingGates[1]",
        'Duplicate value: "a"',
    ),
    (
        pod(schedulingGates=[{"name": "a"}], nodeName="here"),
        "spec.nodeName",
        "Forbidden: cannot be set until all schedulingGates have been cleared",
    ),
]

WHOLE: list[tuple[Doc, str, str]] = [
    (
        pod(restartPolicy="Sometimes"),
        "spec.restartPolicy",
        'Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"',
    ),
    (
        pod(terminationGracePeriodSeconds=-1),
        "spec.terminationGracePeriodSeconds",
        "must be greater than or equal to 0",
    ),
    (
        pod(activeDeadlineSeconds=0),
        "spec.activeDeadlineSeconds",
        "must be between 1 and 2147483647, inclusive",
    ),
    (pod(hostname="a.b"), "spec.hostname", DNS),
    (pod(subdomain="A"), "spec.subdomain", DNS),
    (
        pod(serviceAccountName="A"),
        "spec.serviceAccountName",
        "a lowercase RFC 1123 subdomain must consist of",
    ),
    (
        pod(priorityClassName="A"),
        "spec.priorityClassName",
        "a lowercase RFC 1123 subdomain must consist of",
    ),
    (
        pod(runtimeClassName="A"),
        "spec.runtimeClassName",
        "a lowercase RFC 1123 subdomain must consist of",
    ),
    (
        pod(preemptionPolicy="Always"),
        "spec.preemptionPolicy",
        'supported values: "Never", "PreemptLowerPriority"',
    ),
    (
        pod(dnsPolicy="None"),
        "spec.dnsConfig",
        "must provide `dnsConfig` when `dnsPolicy` is None",
    ),
    (
        pod(dnsPolicy="None", dnsConfig={"searches": ["a"]}),
        "spec.dnsConfig.nameservers",
        "must provide at least one DNS nameserver when `dnsPolicy` is None",
    ),
    (
        pod(dnsConfig={"nameservers": ["1.1.1.1"] * 4}),
        "spec.dnsConfig.nameservers",
        "must not have more than 3 nameservers",
    ),
    (
        pod(dnsConfig={"nameservers": ["one"]}),
        "spec.dnsConfig.nameservers[0]",
        "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
    ),
    (
        pod(dnsConfig={"searches": ["a"] * 33}),
        "spec.dnsConfig.searches",
        "must not have more than 32 search paths",
    ),
    (
        pod(dnsConfig={"searches": ["a..b"]}),
        "spec.dnsConfig.searches[0]",
        "a lowercase RFC 1123 subdomain must consist of",
    ),
    (
        pod(dnsConfig={"options": [{"value": "1"}]}),
        "spec.dnsConfig.options[0]",
        "must not be empty",
    ),
    (
        pod(hostAliases=[{"ip": "one"}]),
        "spec.hostAliases[0].ip",
        "must be a valid IP address",
    ),
    (
        pod(hostAliases=[{"ip": "::1", "hostnames": ["a_b"]}]),
        "spec.hostAliases[0].hostnames[0]",
        "a lowercase RFC 1123 subdomain must consist of",
    ),
]


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        *CONTAINERS,
        *ENVIRONMENT,
        *RESOURCES,
        *VOLUMES,
        *PROBES,
        *SECURITY,
        *PLACEMENT,
        *WHOLE,
    ],
)
def test_a_wrong_pod_is_refused_by_field_value_and_rule(spec: Doc, field: str, words: str) -> None:
    found = faults(spec)
    assert any(words in message for message in found.get(field, [])), found


def test_several_faults_are_told_at_once() -> None:
    found = faults({**main(image="", ports=[{"containerPort": 0}]), "hostname": "A"})
    assert {f"{C}.image", f"{C}.ports[0].containerPort", "spec.hostname"} <= set(found)


RIGHT: list[Doc] = [
    pod(volumes=[], initContainers=None, hostNetwork=False, readinessGates=[]),
    volume(emptyDir={"medium": "Memory", "sizeLimit": "64Mi"}),
    volume(),
    mount(subPathExpr="$(NAME)/logs", readOnly=True, recursiveReadOnly="IfPossible"),
    init(restartPolicy="Always", readinessProbe={**EXEC}, lifecycle={"preStop": {**EXEC}}),
    main(livenessProbe={"httpGet": {"port": "web"}, "terminationGracePeriodSeconds": 1}),
    {
        **main(lifecycle={"stopSignal": "SIGUSR1", "preStop": {"sleep": {"seconds": 0}}}),
        "os": {"name": "linux"},
    },
    env(fieldRef={"fieldPath": "status.podIP"}),
    env(fieldRef={"fieldPath": "metadata.annotations['example.com/Tier']"}),
    env(resourceFieldRef={"resource": "limits.memory", "divisor": "1Mi"}),
    main(resources={"limits": {"example.com/gpu": "1", "ephemeral-storage": "1Gi"}}),
    main(securityContext={"procMount": "Unmasked", "capabilities": {"drop": ["ALL"]}}),
    pod(securityContext={"seccompProfile": {"type": "Localhost", "localhostProfile": "p/a.json"}}),
    pod(dnsPolicy="None", dnsConfig={"nameservers": ["10.0.0.1"], "searches": ["_tcp.a.b.", "."]}),
    pod(tolerations=[{"operator": "Exists"}], topologySpreadConstraints=[SPREAD]),
    pod(hostUsers=True, os={"name": "linux"}, schedulerName="mine"),
]


@pytest.mark.parametrize("spec", RIGHT)
def test_a_right_pod_is_taken_without_a_word(spec: Doc) -> None:
    assert create(spec).warnings == ()


def test_a_field_that_no_api_knows_is_dropped_with_a_warning_or_refused() -> None:
    doc: Doc = {"metadata": {"name": "web"}, "spec": main(color="red")}
    prepared = prepare_create(POD, copy.deepcopy(doc), namespace="default")
    assert prepared.warnings == ('unknown field "spec.containers[0].color"',)
    with pytest.raises(BadRequest, match="strict decoding error"):
        prepare_create(POD, doc, namespace="default", field_validation="Strict")


# Updates -----------------------------------------------------------------------------------------

OLD = pod(
    activeDeadlineSeconds=60,
    tolerations=[{"key": "a", "operator": "Exists", "effect": "NoExecute"}],
)


def step(before: Doc, change: Doc, *, subresource: str = "") -> Prepared:
    old = create(before).doc
    new = copy.deepcopy(old)
    new["spec"] |= copy.deepcopy(change)
    return prepare_update(POD, new, old, subresource=subresource)


TOLERATION = {"key": "a", "operator": "Exists", "effect": "NoExecute"}
GATED = pod(schedulingGates=[{"name": "a"}, {"name": "b"}], nodeSelector={"disk": "ssd"})


@pytest.mark.parametrize(
    ("before", "change"),
    [
        (OLD, main(image="demo:2")),
        (OLD, {"activeDeadlineSeconds": 30}),
        (pod(), {"activeDeadlineSeconds": 30}),
        (OLD, {"tolerations": [{**TOLERATION, "tolerationSeconds": 5}, {"key": "b"}]}),
        (GATED, {"schedulingGates": [{"name": "b"}]}),
        (GATED, {"schedulingGates": []}),
        (GATED, {"nodeSelector": {"disk": "ssd", "zone": "a"}}),
        (GATED, {"affinity": node_affinity(expression("Exists"))["affinity"]}),
    ],
)
def test_what_may_change(before: Doc, change: Doc) -> None:
    assert step(before, change).doc["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    ("before", "change", "field", "words"),
    [
        (OLD, main(command=["other"]), "spec", "may not change fields other than"),
        (OLD, {"hostname": "other"}, "spec", "this one changes `spec.hostname`"),
        (OLD, {"containers": []}, "spec.containers", "may not add or remove containers"),
        (OLD, {"activeDeadlineSeconds": 90}, "spec.activeDeadlineSeconds", "less than or equal to"),
        (OLD, {"activeDeadlineSeconds": None}, "spec.activeDeadlineSeconds", "to nil value"),
        (OLD, {"tolerations": []}, "spec.tolerations", "existing toleration can not be modified"),
        (
            pod(),
            {"schedulingGates": [{"name": "a"}]},
            "spec.schedulingGates[0].name",
            "only deletion is allowed, but found new scheduling gate 'a'",
        ),
        (GATED, {"nodeSelector": {}}, "spec.nodeSelector", "only additions to spec.nodeSelector"),
        (pod(), {"nodeSelector": {"a": "b"}}, "spec", "may not change fields other than"),
        (
            pod(),
            {"ephemeralContainers": [container(name="debug")]},
            "spec",
            "this one changes `spec.ephemeralContainers`",
        ),
    ],
)
def test_what_may_not(before: Doc, change: Doc, field: str, words: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        step(before, change)
    found = {cause.field: cause.message for cause in caught.value.causes}
    assert words in found.get(field, ""), found


EPHEMERAL = "spec.ephemeralContainers[0]"


def debug(**fields: Any) -> Doc:
    return {"ephemeralContainers": [container(**{"name": "debug", **fields})]}


def test_ephemeral_containers_are_added_by_their_own_subresource_and_nothing_else_is() -> None:
    change = {**debug(targetContainerName="main"), "hostname": "other"}
    changed = step(pod(), change, subresource="ephemeralcontainers").doc["spec"]
    assert "hostname" not in changed
    [added] = changed["ephemeralContainers"]
    assert added["imagePullPolicy"] == "IfNotPresent"
    assert added["terminationMessagePath"] == "/dev/termination-log"


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (debug(name="main"), f"{EPHEMERAL}.name", 'Duplicate value: "main"'),
        (
            debug(targetContainerName="other"),
            f"{EPHEMERAL}.targetContainerName",
            'Not found: "other"',
        ),
        *(
            (
                debug(**{name: value}),
                f"{EPHEMERAL}.{name}",
                "cannot be set for an Ephemeral Container",
            )
            for name, value in (
                ("ports", [{"containerPort": 80}]),
                ("resources", {"limits": {"cpu": "1"}}),
                ("livenessProbe", EXEC),
                ("lifecycle", {"preStop": EXEC}),
            )
        ),
        (
            debug(volumeMounts=[{"name": "data", "mountPath": "/d", "subPath": "a"}]),
            f"{EPHEMERAL}.volumeMounts[0].subPath",
            "cannot be set for an Ephemeral Container",
        ),
    ],
)
def test_what_an_ephemeral_container_may_not_have(change: Doc, field: str, words: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        step(volume(emptyDir={}), change, subresource="ephemeralcontainers")
    found = {cause.field: cause.message for cause in caught.value.causes}
    assert words in found.get(field, ""), found


def test_an_ephemeral_container_that_is_there_stays_as_it_is() -> None:
    old = step(pod(), debug(), subresource="ephemeralcontainers").doc
    for wanted, words in (([], "may not be removed"), (debug(image="x:1"), "may not be changed")):
        new = copy.deepcopy(old)
        new["spec"]["ephemeralContainers"] = wanted and wanted["ephemeralContainers"]  # type: ignore[call-overload]
        with pytest.raises(InvalidSpec, match=words):
            prepare_update(POD, new, old, subresource="ephemeralcontainers")
