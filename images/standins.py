"""Small images under the names that manifests of the world ask for, so that those run unchanged.

Each answers as far as the manifests of the Kubernetes documentation look: the same ports, the same
programs by name. All are busybox, but for bash and Python, which are Debian's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from oci import Entry, Storage, layer

Unpack = Callable[..., None]

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LIBRARIES = "lib/x86_64-linux-gnu"


def _script(*lines: str) -> Entry:
    return Entry("\n".join(("#!/bin/sh", *lines, "")).encode())


# Debian's busybox has no printenv.
_PRINTENV = _script(
    "[ $# -gt 0 ] || exec env",
    'for name; do env | grep "^$name=" | cut -d= -f2-; done',
)


def _server(port: int, *more: str) -> Entry:
    """A program that answers HTTP, or at least connections, on a port, whatever its arguments."""
    return _script(*more, f"exec httpd -f -p {port} -h /www")


_NGINX = _server(80, 'if [ "$1" = -s ]; then exec killall httpd; fi')
# Holds what it is asked to hold, as the real one does with --vm-hang.
_STRESS = _script(
    "size=0",
    'while [ $# -gt 0 ]; do [ "$1" = --vm-bytes ] && size=${2%M}; shift; done',
    'dd if=/dev/zero of=/dev/shm/held bs=1M count="$size" 2>/dev/null',
    "exec sleep infinity",
)

_PLAIN = (
    ("library/busybox", ("latest", "1.27.2", "1.28", "1.37")),
    ("busybox", ("1.27.2",)),
    ("library/alpine", ("latest",)),
    ("library/debian", ("latest",)),
    ("e2e-test-images/agnhost", ("2.45",)),
)
_SERVERS = (
    ("library/nginx", ("latest", "1.14.2"), "nginx", _NGINX),
    ("nginx-slim", ("0.7",), "nginx", _NGINX),
    ("library/redis", ("latest", "5"), "redis-server", _server(6379)),
    (
        "google-samples/containers/gke/gb-redis-follower",
        ("v2",),
        "redis-server",
        _server(6379),
    ),
    ("library/mysql", ("5.6", "8.0"), "mysqld", _server(3306)),
    ("google-samples/hello-app", ("2.0",), "hello-app", _server(8080)),
    ("google-samples/hello-go-gke", ("1.0",), "hello", _server(80)),
    ("hashicorp/http-echo", ("1.0",), "http-echo", _server(5678)),
    ("pause", ("latest",), "pause", _script("exec sleep infinity")),
    ("polinux/stress", ("latest",), "stress", _STRESS),
)


def add(storage: Storage, busybox: Mapping[str, Entry], unpack: Unpack, work: Path) -> None:
    """Put the images into ``storage``. ``busybox``: a root file system; ``unpack``: fetches files of a
    Debian package below ``work``, as :func:`build.unpack` does."""
    plain = {**busybox, "usr/bin/printenv": _PRINTENV}
    plain["data"] = plain["var/log"] = Entry()
    _add(storage, _PLAIN, plain, {"Cmd": ["sh"], "Env": [_PATH]})
    for repository, tags, name, program in _SERVERS:
        config = {"Entrypoint": [f"/usr/bin/{name}"], "Env": [_PATH]}
        files = {**plain, f"usr/bin/{name}": program, "usr/share/nginx/html": Entry()}
        _add(storage, ((repository, tags),), files, config)
    files = {"dir/file": Entry(b"2\n", mode=0o644), "file": Entry(b"2\n", mode=0o644)}
    storage.add_image("crio/artifact", "v2", layer(files), {})
    _add_bash(storage, plain, unpack, work / "bash")
    _add_python(storage, plain, unpack, work / "python")


def _add(
    storage: Storage,
    names: tuple[tuple[str, tuple[str, ...]], ...],
    files: Mapping[str, Entry],
    config: Mapping[str, object],
) -> None:
    tar = layer(files)
    for repository, tags in names:
        for tag in tags:
            storage.add_image(repository, tag, tar, config)


def _add_bash(storage: Storage, plain: Mapping[str, Entry], unpack: Unpack, work: Path) -> None:
    work.mkdir()
    unpack("bash-static", work, "./bin/bash-static")
    program = Entry((work / "bin/bash-static").read_bytes())
    config = {"Cmd": ["bash"], "Env": [_PATH]}
    _add(storage, (("library/bash", ("5",)),), {**plain, "usr/local/bin/bash": program}, config)


def _add_python(storage: Storage, plain: Mapping[str, Entry], unpack: Unpack, work: Path) -> None:
    work.mkdir()
    unpack("python3.11-minimal", work, "./usr/bin/python3.11")
    unpack("libpython3.11-minimal", work, "./usr/lib/python3.11/*")
    unpack("libexpat1", work, f"./{_LIBRARIES}/libexpat.so*")
    unpack("zlib1g", work, f"./{_LIBRARIES}/libz.so*")
    libc = [f"./{_LIBRARIES}/{name}" for name in ("libc.so.6", "libm.so.6", "ld-linux-*")]
    unpack("libc6", work, *libc, "./lib64/*")
    files = dict(plain)
    for path in sorted(work.rglob("*")):
        name = path.relative_to(work).as_posix()
        if path.is_symlink():
            files[name] = Entry(link=str(path.readlink()), mode=0o777)
        elif path.is_file():
            files[name] = Entry(path.read_bytes(), mode=path.stat().st_mode & 0o777)
    files["usr/bin/python3"] = Entry(link="python3.11", mode=0o777)
    _add(storage, (("library/python", ("latest",)),), files, {"Cmd": ["python3"], "Env": [_PATH]})
