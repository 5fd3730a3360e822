"""How each kind of volume is made on this host: decided here, done in a thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tandem.api.kind import Doc
from tandem.api.meta import get
from tandem.api.quantity import to_bytes
from tandem.control.pods.podfields import Lookup
from tandem.control.pods.volumes import claims, sources
from tandem.control.pods.volumes.limits import Limit
from tandem.errors import InvalidSpec
from tandem.host import volumes as host
from tandem.host.tokens import Tokens, refresh_in
from tandem.host.volumefiles import File, write_files

# As the kubelet names the folders.
_KINDS = {
    "emptyDir": "empty-dir",
    "configMap": "configmap",
    "secret": "secret",
    "downwardAPI": "downward-api",
    "projected": "projected",
    "image": "image",
    "persistentVolumeClaim": "local-volume",
}
_SETGID = 0o2000


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of one Pod."""

    path: Path

    @property
    def uid(self) -> str:
        return self.path.name

    @property
    def hosts(self) -> Path:
        """Its ``/etc/hosts``."""
        return self.path / "etc-hosts"

    def volume(self, kind: str, name: str) -> Path:
        """Where a volume lies; ``kind`` is its field in the Pod."""
        return self.path / "volumes" / f"kubernetes.io~{_KINDS[kind]}" / name

    def part(self, volume: str, container: str, index: int) -> Path:
        """Where a part of a volume is bound for one mount of a container."""
        return self.path / "volume-subpaths" / volume / container / str(index)

    def is_written(self, volume: Doc) -> bool:
        """Whether a volume that is made of objects has been made."""
        return any(
            (self.volume(kind, volume["name"]) / "..data").is_symlink()
            for kind in sources.MADE_OF_OBJECTS
            if volume.get(kind) is not None
        )

    def mark(self, kind: str, name: str) -> bool:
        """Note that a volume was dealt with that does not lie here; False when it was noted."""
        path = self.volume(kind, name)
        if path.is_dir():
            return False
        path.mkdir(parents=True)
        return True

    def has(self, kind: str) -> bool:
        """Whether there is any volume of a kind."""
        return self.volume(kind, "x").parent.is_dir()

    def ensure(self) -> None:
        """Make the folder itself, which is nobody else's to look into."""
        self.path.mkdir(mode=0o750, parents=True, exist_ok=True)

    def write_hosts(self, text: str) -> None:
        """Write ``/etc/hosts`` in place: running containers have this very file mounted."""
        data = text.encode(errors="surrogateescape")
        if self.hosts.exists() and self.hosts.read_bytes() == data:
            return
        self.hosts.write_bytes(data)
        self.hosts.chmod(0o644)


@dataclass(frozen=True, slots=True)
class VolumeWork:
    """What there is to do for one volume. ``shown``: its name in messages. ``changes``: it is made of
    objects. ``make`` does the work, and says after how many seconds it is due again, if ever; it
    raises ``OSError`` and ``VolumeProblem``."""

    shown: str
    make: Callable[[Tokens], float | None]
    changes: bool = False


def place(folder: Folder, volume: Doc, pod: Doc, lookup: Lookup) -> tuple[Path, bool]:
    """What containers mount, and whether they may only read it whatever they ask.

    Raises :class:`sources.MissingSource` and ``InvalidSpec``.
    """
    name = volume["name"]
    if (source := volume.get("hostPath")) is not None:
        return Path(str(source["path"])), False
    if claims.claim_key(pod, volume) is not None:
        persistent = claims.persistent_volume(pod, volume, lookup)
        read_only = get(volume, "persistentVolumeClaim.readOnly", False)
        return Path(claims.path_of(persistent)), bool(read_only)
    kind = _kind(volume)
    return folder.volume(kind, name), kind != "emptyDir"


def work_for(folder: Folder, volume: Doc, pod: Doc, lookup: Lookup, memory: int) -> VolumeWork:
    """What is to be done for ``volume``, other than for one of an image. ``memory``: bytes that the
    node has.

    Raises :class:`sources.MissingSource` and ``InvalidSpec``.
    """
    name = volume["name"]
    if (source := volume.get("hostPath")) is not None:
        path, type_ = str(source["path"]), str(source.get("type") or "")
        return VolumeWork(name, lambda _: host.check_host_path(path, type_))
    if claims.claim_key(pod, volume) is not None:
        return _persistent(folder, volume, pod, lookup)
    kind = _kind(volume)
    if kind == "emptyDir":
        return _empty_dir(folder, volume, pod, memory)
    return _made_of_objects(folder, kind, volume, pod, lookup)


def _kind(volume: Doc) -> str:
    for kind in ("emptyDir", *sources.MADE_OF_OBJECTS):
        if volume.get(kind) is not None:
            return kind
    kinds = sorted(set(volume) - {"name"})
    if not kinds:
        return "emptyDir"  # what a volume is that says nothing of itself
    raise InvalidSpec(f"volumes of the kind {', '.join(kinds)} are not supported")


def _fs_group(pod: Doc) -> int | None:
    value = get(pod, "spec.securityContext.fsGroup")
    return None if value is None else int(value)


def _empty_dir(folder: Folder, volume: Doc, pod: Doc, memory: int) -> VolumeWork:
    name, source = volume["name"], volume.get("emptyDir") or {}
    path = folder.volume("emptyDir", name)
    group = _fs_group(pod)
    mode = 0o777 if group is None else 0o777 | _SETGID
    medium = source.get("medium") or ""
    if medium == "Memory":
        size = to_bytes(source.get("sizeLimit") or 0)
        bounds = [bound for bound in (size, _memory_limit(pod), memory) if bound]

        def mount(_: Tokens) -> None:
            host.mount_tmpfs(path, mode=mode, gid=group or 0, size=min(bounds))

        return VolumeWork(name, mount)
    if medium:
        raise InvalidSpec(f'unknown storage medium "{medium}"')
    return VolumeWork(name, lambda _: host.make_directory(path, mode=mode, gid=group or 0))


def limits_of(folder: Folder, pod: Doc) -> dict[str, Limit]:
    """The volumes whose size has to be watched, by name. One in memory is bounded by the kernel."""
    return {
        volume["name"]: Limit(
            folder.volume("emptyDir", volume["name"]),
            to_bytes(source["sizeLimit"]),
            str(source["sizeLimit"]),
        )
        for volume in get(pod, "spec.volumes", [])
        if (source := volume.get("emptyDir"))
        and source.get("sizeLimit")
        and not source.get("medium")
    }


def _memory_limit(pod: Doc) -> int:
    """What all containers together may use, in bytes; 0 when one of them has no limit."""
    limits = [
        get(container, "resources.limits", {}).get("memory")
        for container in get(pod, "spec.containers", [])
    ]
    return sum(to_bytes(limit) for limit in limits) if all(limits) else 0


def _made_of_objects(
    folder: Folder, kind: str, volume: Doc, pod: Doc, lookup: Lookup
) -> VolumeWork:
    name = volume["name"]
    path = folder.volume(kind, name)
    content = sources.content(volume, pod, lookup)
    group = _fs_group(pod)

    def make(tokens: Tokens) -> float | None:
        if kind == "configMap":
            host.make_directory(path, mode=0o755)
        else:  # secrets and what tells of the Pod are never on a disk
            host.mount_tmpfs(path, mode=0o755)
        files, due = dict(content.files), None
        for where, token in content.tokens.items():
            text, seconds = _token(tokens, path / where, token)
            files[where] = File(text.encode(), token.mode, token.uid)
            due = seconds if due is None else min(due, seconds)
        write_files(path, files, gid=group)
        return due

    return VolumeWork(name, make, changes=True)


def _token(tokens: Tokens, path: Path, token: sources.TokenFile) -> tuple[str, float]:
    """The token that is there for as long as it is good, else a new one; and until when."""
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, ValueError):
        text = ""
    left = refresh_in(text, token.claims)
    if left <= 0:
        text, _ = tokens.sign(token.claims)
        left = refresh_in(text, token.claims)
    return text, max(left, 1.0)


def _persistent(folder: Folder, volume: Doc, pod: Doc, lookup: Lookup) -> VolumeWork:
    name = volume["name"]
    persistent = claims.persistent_volume(pod, volume, lookup)
    shown = persistent["metadata"]["name"]
    path = Path(claims.path_of(persistent))
    kind = str(get(persistent, "spec.hostPath.type", ""))
    is_local = get(persistent, "spec.local") is not None
    read_only = bool(get(volume, "persistentVolumeClaim.readOnly"))
    group = _fs_group(pod)
    on_mismatch = get(pod, "spec.securityContext.fsGroupChangePolicy") == "OnRootMismatch"

    def make(_: Tokens) -> None:
        if not is_local:
            host.check_host_path(str(path), kind)
            return
        if not path.exists():
            raise host.VolumeProblem(f'path "{path}" does not exist')
        # Once for each Pod: a large tree takes a while, and containers come and go.
        if (
            group is not None
            and not read_only
            and not folder.volume("persistentVolumeClaim", name).is_dir()
        ):
            host.set_group(path, group, on_mismatch=on_mismatch)
        folder.mark("persistentVolumeClaim", name)

    return VolumeWork(shown, make)
