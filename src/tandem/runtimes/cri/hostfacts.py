"""Reading from this host what a translation needs to know of it."""

from __future__ import annotations

from pathlib import Path

from tandem.runtimes.cri.translate import HostFacts


def read_host_facts(root: Path = Path("/")) -> HostFacts:
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
    return HostFacts(_memory(root), tuple(servers), tuple(searches), tuple(options))


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
