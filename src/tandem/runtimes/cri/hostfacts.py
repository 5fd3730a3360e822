"""What a translation needs to know of this host, and reading it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SECCOMP_DIR = Path("/var/lib/tandem/seccomp")


@dataclass(frozen=True, slots=True)
class HostFacts:
    """``memory``: bytes. ``nameservers``, ``searches``, ``resolver_options``: of its resolv.conf.
    ``seccomp_dir``: where the profiles are that a ``localhostProfile`` names. ``apparmor``: whether
    the kernel enforces it."""

    memory: int
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    resolver_options: tuple[str, ...] = ()
    seccomp_dir: Path = SECCOMP_DIR
    apparmor: bool = False


def read_host_facts(root: Path = Path("/"), *, seccomp_dir: Path = SECCOMP_DIR) -> HostFacts:
    """The facts as they are now; blocking, some ten microseconds. ``root`` is for tests."""
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in _read(root / "etc/resolv.conf").splitlines():
        match line.split():
            case ["nameserver", server, *_]:
                servers.append(server)
            case [("search" | "domain"), *names]:
                searches = names  # the last one counts
            case ["options", *names]:
                options += names
    return HostFacts(
        _memory(root),
        tuple(servers),
        tuple(searches),
        tuple(options),
        seccomp_dir,
        _read(root / "sys/module/apparmor/parameters/enabled").strip() == "Y",
    )


def _memory(root: Path) -> int:
    """Bytes of memory of this host; 0 where it does not say."""
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
