"""The configuration of a containerd that Tandem starts itself: pure text, made from facts.

A containerd that somebody else started keeps its own configuration; nothing here touches it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_CAP_SYS_RESOURCE = 24  # linux/capability.h


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerdConfig:
    """What varies between hosts and instances.

    ``socket``, ``root``, ``state``: where it listens, keeps images and containers, keeps what a
    reboot may lose. ``snapshotter``: ``overlayfs``, or ``native`` where the root cannot take one.
    ``certs_dirs``: folders of ``HOST/hosts.toml``, searched in this order.
    ``handlers``: further OCI runtimes by the handler that a RuntimeClass names, each a program.
    ``override``: pattern of files that the administrator may add, which win over ours.
    """

    socket: Path
    root: Path
    state: Path
    sandbox_image: str
    cni_conf_dir: Path
    cni_bin_dir: Path
    certs_dirs: tuple[Path, ...]
    snapshotter: str
    restrict_oom_score_adj: bool
    override: Path
    handlers: Mapping[str, str] = field(default_factory=dict)

    def render(self) -> str:
        """The file, in containerd's configuration version 2 (which 1.4 to 2.x read)."""
        # JSON's strings, numbers and booleans are TOML's as well.
        value = json.dumps
        certs = ":".join(str(path) for path in self.certs_dirs)
        return f"""\
# Written by `tandem up`, which writes it again each time it starts containerd.
# Your own settings go into {self.override}
version = 2
root = {value(str(self.root))}
state = {value(str(self.state))}
imports = [{value(str(self.override))}]
# Neither has a use here, and each costs a probe and a warning at every start.
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = {value(str(self.socket))}

[plugins."io.containerd.internal.v1.opt"]
  path = {value(str(self.root / "opt"))}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {value(self.sandbox_image)}
  # The byte streams of exec, attach and port-forward: only the daemon on this host fetches them.
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  # Without CAP_SYS_RESOURCE nobody may lower an OOM score, and runc fails if it is told to.
  restrict_oom_score_adj = {value(self.restrict_oom_score_adj)}
  tolerate_missing_hugetlb_controller = true

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = {value(self.snapshotter)}
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        # Nobody here could do what systemd does for a cgroup.
        SystemdCgroup = false
{"".join(_handler(*item) for item in self.handlers.items())}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {value(str(self.cni_bin_dir))}
    conf_dir = {value(str(self.cni_conf_dir))}

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = {value(certs)}
"""


def _handler(name: str, program: str) -> str:
    section = f'plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}'
    return f"""
    [{section}]
      runtime_type = "io.containerd.runc.v2"

      [{section}.options]
        BinaryName = {json.dumps(program)}
        SystemdCgroup = false
"""


def hosts_toml(registry: str, url: str) -> str:
    """``certs.d/REGISTRY/hosts.toml``: ``url`` stands in for ``registry``."""
    return f"""\
server = {json.dumps(f"https://{registry}")}

[host.{json.dumps(url)}]
  capabilities = ["pull", "resolve"]
"""


def write_mirrors(certs_dir: Path, mirrors: Mapping[str, str]) -> None:
    """Make ``certs_dir`` say what ``mirrors`` (registry host to URL) says. containerd reads it anew
    at every pull, so this may be done while it runs."""
    for registry, url in mirrors.items():
        target = certs_dir / registry / "hosts.toml"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(hosts_toml(registry, url), encoding="utf-8")
    if certs_dir.is_dir():
        for entry in certs_dir.iterdir():
            if entry.name not in mirrors:
                (entry / "hosts.toml").unlink(missing_ok=True)
                entry.rmdir()


def can_lower_oom_scores() -> bool:
    """Whether this process (and so what it starts) holds CAP_SYS_RESOURCE."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return False


def snapshotter_for(root: Path, mountinfo: str) -> str:
    """``overlayfs``, unless ``root`` itself lies on an overlay, which cannot carry another one.

    ``mountinfo`` is the text of ``/proc/self/mountinfo``.
    """
    best, filesystem = -1, ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        mount_point = before.split()[4]
        if root.is_relative_to(mount_point) and len(mount_point) >= best:
            best, filesystem = len(mount_point), after.split()[0]
    return "native" if filesystem == "overlay" else "overlayfs"
