"""A Pod's ``/etc/hosts``, as a kubelet writes it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tandem.api.kind import Doc
from tandem.api.meta import get

PATH = "/etc/hosts"
CLUSTER_DOMAIN = "cluster.local"

_HOSTNAME_LIMIT = 63
_HEADER = """\
# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""
_HOST_NETWORK_HEADER = "# Kubernetes-managed hosts file (host network).\n"


def managed(pod: Doc, container: Doc, addresses: Sequence[str]) -> bool:
    """Whether the container gets a file of ours: it mounts none itself, and the address is known."""
    if any(mount.get("mountPath") == PATH for mount in container.get("volumeMounts") or ()):
        return False
    return bool(addresses) or bool(get(pod, "spec.hostNetwork"))


def hosts_file(pod: Doc, addresses: Sequence[str], host: str) -> str:
    """The file's text. ``host``: this host's own, which a Pod in the host's network starts from."""
    if get(pod, "spec.hostNetwork"):
        return _HOST_NETWORK_HEADER + host + _aliases(pod)
    name = hostname(pod)
    subdomain = get(pod, "spec.subdomain")
    if subdomain:
        namespace = pod["metadata"]["namespace"]
        name = f"{name}.{subdomain}.{namespace}.svc.{CLUSTER_DOMAIN}\t{name}"
    return _HEADER + "".join(f"{address}\t{name}\n" for address in addresses) + _aliases(pod)


def hostname(pod: Doc) -> str:
    """The name that the Pod's containers have as their host's."""
    name = str(get(pod, "spec.hostname") or pod["metadata"]["name"])
    return name[:_HOSTNAME_LIMIT].rstrip("-.") if len(name) > _HOSTNAME_LIMIT else name


def _aliases(pod: Doc) -> str:
    aliases = get(pod, "spec.hostAliases", [])
    if not aliases:
        return ""
    lines = [
        f"{alias.get('ip', '')}\t" + "\t".join(alias.get("hostnames") or ()) + "\n"
        for alias in aliases
    ]
    return "\n# Entries added by HostAliases.\n" + "".join(lines)
