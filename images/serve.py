#!/usr/bin/env python3
"""Builds the images and serves them from a docker-registry on loopback, detached.

    images/serve.py [ADDRESS]       default 127.0.0.1:5000; returns when it answers
    images/serve.py --fetch-only    builds and downloads what is missing, and starts nothing

A registry that serves these images already is left as it is; one of ours with older images is
replaced. The program is Debian's, unpacked beside the images and not installed: as an installed
package it would start a registry of its own at every boot.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import build

START_SECONDS = 20.0


def registry_program(cache: Path) -> Path:
    folder = cache / "docker-registry"
    program = folder / "usr/bin/docker-registry"
    if not program.exists():
        build.say("images: docker-registry from Debian's archive")
        folder.mkdir(exist_ok=True)
        build.unpack("docker-registry", folder, "./usr/bin/docker-registry")
    return program


def answers(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=2)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def serve(program: Path, folder: Path, address: str) -> None:
    """Have the registry ``program`` serve ``folder`` (as ``build.py`` fills it) on ``address``."""
    state = Path(os.environ.get("XDG_RUNTIME_DIR") or "/run") / f"tandem-registry-{address}"
    state.mkdir(parents=True, exist_ok=True)
    config, pid_file = state / "config.yml", state / "pid"
    text = f"""\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {folder / "registry"}}}
  maintenance: {{readonly: {{enabled: true}}}}
http: {{addr: "{address}"}}
"""
    if answers(address):
        if config.exists() and config.read_text(encoding="utf-8") == text:
            return
        try:
            os.kill(int(pid_file.read_text(encoding="ascii")), signal.SIGTERM)
        except (FileNotFoundError, ProcessLookupError):
            sys.exit(f"images: {address} is in use by something else")
    config.write_text(text, encoding="utf-8")
    deadline = time.monotonic() + START_SECONDS
    with open(state / "log", "ab") as log:
        registry = subprocess.Popen(
            [program, "serve", config],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
        )  # fmt: skip
    pid_file.write_text(str(registry.pid), encoding="ascii")
    while not answers(address):
        if registry.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"images: the registry does not start, see {state / 'log'}")
        time.sleep(0.02)


def main() -> None:
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:5000"
    folder = build.ensure()
    cache = build.cache_folder()
    with open(cache / "registry.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        program = registry_program(cache)
        if address != "--fetch-only":
            serve(program, folder, address)
            print(address)


if __name__ == "__main__":
    main()
