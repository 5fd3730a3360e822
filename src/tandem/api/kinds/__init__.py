"""The kinds that are served, one module each; a new kind is one more line here."""

from tandem.api.kind import Registry
from tandem.api.kinds.configmap import CONFIG_MAP
from tandem.api.kinds.deployment import DEPLOYMENT
from tandem.api.kinds.event import EVENT
from tandem.api.kinds.instance import VIRTUAL_MACHINE_INSTANCE
from tandem.api.kinds.job import JOB
from tandem.api.kinds.lease import LEASE
from tandem.api.kinds.machine import VIRTUAL_MACHINE
from tandem.api.kinds.namespace import NAMESPACE
from tandem.api.kinds.node import NODE
from tandem.api.kinds.persistentvolume import PERSISTENT_VOLUME
from tandem.api.kinds.persistentvolumeclaim import PERSISTENT_VOLUME_CLAIM
from tandem.api.kinds.pod import POD
from tandem.api.kinds.priorityclass import PRIORITY_CLASS
from tandem.api.kinds.replicaset import REPLICA_SET, REPLICATION_CONTROLLER
from tandem.api.kinds.runtimeclass import RUNTIME_CLASS
from tandem.api.kinds.secret import SECRET
from tandem.api.kinds.serviceaccount import SERVICE_ACCOUNT
from tandem.api.kinds.storageclass import STORAGE_CLASS

REGISTRY = Registry(
    [
        NAMESPACE,
        NODE,
        POD,
        CONFIG_MAP,
        SECRET,
        SERVICE_ACCOUNT,
        PERSISTENT_VOLUME_CLAIM,
        PERSISTENT_VOLUME,
        EVENT,
        REPLICATION_CONTROLLER,
        DEPLOYMENT,
        REPLICA_SET,
        JOB,
        LEASE,
        PRIORITY_CLASS,
        RUNTIME_CLASS,
        STORAGE_CLASS,
        VIRTUAL_MACHINE,
        VIRTUAL_MACHINE_INSTANCE,
    ]
)

__all__ = [
    "CONFIG_MAP",
    "DEPLOYMENT",
    "EVENT",
    "JOB",
    "LEASE",
    "NAMESPACE",
    "NODE",
    "PERSISTENT_VOLUME",
    "PERSISTENT_VOLUME_CLAIM",
    "POD",
    "PRIORITY_CLASS",
    "REGISTRY",
    "REPLICATION_CONTROLLER",
    "REPLICA_SET",
    "RUNTIME_CLASS",
    "SECRET",
    "SERVICE_ACCOUNT",
    "STORAGE_CLASS",
    "VIRTUAL_MACHINE",
    "VIRTUAL_MACHINE_INSTANCE",
]
