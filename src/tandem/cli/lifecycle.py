"""``tandem up`` and ``tandem down``: the daemon and the runtimes below it.

``up`` may be called by anybody at any time, twice at once included: what runs already is left as it
is. Where systemd runs the machine the daemon becomes a unit; elsewhere it is a process of its own
session that outlives this one. ``down`` ends the daemon and nothing else.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tandem import __version__
from tandem.cli import unit
from tandem.cli.context import Context, add_settings, flags_of
from tandem.cli.status import fetch, runtime_line
from tandem.client.request import Doc
from tandem.config import Settings
from tandem.errors import DeadlineExceeded, Forbidden, TandemError, Unavailable
from tandem.instance import NOTIFY_VARIABLE, ReadySocket, running_pid

# Half a second is the rule; a store of many objects on a slow disk may take longer to be read.
_READY_SECONDS = 60.0
_STOP_SECONDS = 15.0
_KILL_SECONDS = 15.0
_LOOK_AGAIN_SECONDS = 0.02


def arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Every setting is a flag."""
    add_settings(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """``up`` or ``down``."""
    settings = context.settings(args)
    return _up(args, context, settings) if args.verb == "up" else _down(args, context, settings)


def _up(args: argparse.Namespace, context: Context, settings: Settings) -> int:
    real = {settings.container_runtime, settings.vm_runtime} & {"container", "vm", "virtualmachine"}
    if real and os.geteuid() != 0:
        raise Forbidden("containers and machines need root", hint="sudo tandem up")
    with _alone(settings):
        if settings.start_runtimes == "auto":
            _ensure_runtimes(settings, context)
        if pid := running_pid(settings.lock_file):
            context.note(f"The daemon runs already (process {pid})")
        elif unit.applies(settings):
            with context.step("Starting the daemon (systemd unit tandem.service)"):
                unit.start(_arguments(args))
        else:
            with context.step("Starting the daemon"):
                _start(_arguments(args), settings)
    status = fetch(context, args)
    if status["version"] != __version__:
        context.note(
            f"The daemon is version {status['version']} and this is {__version__}: "
            "tandem down and tandem up change over, workloads keep running"
        )
    _say_what_next(status, settings)
    return 0


def _ensure_runtimes(settings: Settings, context: Context) -> None:
    """Get the runtimes running. One that cannot be is said and left: the daemon serves without it,
    and takes it up when it comes."""
    from tandem.host.services import HostServices

    told: list[str] = []
    services = HostServices(
        run_dir=settings.run_dir,
        log_dir=settings.log_dir,
        config_dir=settings.config_dir,
        container_endpoint=settings.container_endpoint,
        containerd_root=settings.containerd_root,
        libvirt_uri=settings.libvirt_uri,
        sandbox_image=settings.sandbox_image,
        registry_mirrors=settings.registry_mirrors,
        progress=told.append,
    )
    wanted = []
    if settings.container_runtime == "container":
        wanted.append(("containers", "containerd", services.ensure_containerd))
    if settings.vm_runtime in ("vm", "virtualmachine"):
        wanted.append(("virtual machines", "libvirt", services.ensure_libvirt))
    for what, name, ensure in wanted:
        try:
            with context.step(f"Looking for {name}"):
                ensure()
        except TandemError as error:
            context.error(f"no {what} for now: {error.message}", hint=error.hint)
        for words in told:
            context.note(f"  {words}")
        told.clear()


def _arguments(args: argparse.Namespace) -> list[str]:
    """This command's own settings, for the daemon: it reads environment and file itself."""
    words = ["serve"]
    if args.config:
        words += ["--config", str(Path(args.config).absolute())]
    for name, value in flags_of(args).items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def _start(arguments: list[str], settings: Settings) -> None:
    """Start the daemon in a session of its own, and return when it serves."""
    command = [sys.executable, "-P", "-m", "tandem", *arguments]
    with _open_log(settings) as log, ReadySocket() as ready:
        before = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=os.environ | {NOTIFY_VARIABLE: ready.address},
            start_new_session=True,
        )
        deadline = time.monotonic() + _READY_SECONDS
        while not ready.wait(_LOOK_AGAIN_SECONDS):
            if process.poll() is not None:
                log.seek(before)
                raise _failure(log.read().decode("utf-8", "replace"), settings.log_file)
            if time.monotonic() > deadline:
                process.terminate()
                process.wait()
                raise DeadlineExceeded(
                    f"the daemon did not serve within {_READY_SECONDS:g} s",
                    hint=f"see {settings.log_file}",
                )
        process.returncode = 0  # it is meant to outlive us: nobody waits for it


def _failure(written: str, log: Path) -> Unavailable:
    """Why the daemon ended at once, in the words it left in its log."""
    words: dict[str, str] = {}
    for line in written.splitlines():
        label, found, rest = line.partition(": ")
        if found and label in ("error", "hint"):
            words[label] = rest
    return Unavailable(
        f"the daemon does not start: {words.get('error', 'it ended at once')}",
        hint=words.get("hint", f"see {log}"),
    )


def _open_log(settings: Settings) -> BinaryIO:
    try:
        settings.log_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Unbuffered and appending: the daemon writes to the same file.
        return open(settings.log_file, "ab+", buffering=0)
    except OSError as error:
        raise Unavailable(f"cannot write {settings.log_file}: {error.strerror}") from error


def _say_what_next(status: Doc, settings: Settings) -> None:
    print(f"Tandem {status['version']} serves {status['server']}")
    for runtime in status["runtimes"]:
        print(f"  {runtime_line(runtime)}")
    print()
    print(f"  export KUBECONFIG={settings.kubeconfig}")
    print("  kubectl get pods,vms")
    print()
    print("or, without kubectl: tandem apply -f FILE, tandem get pods,vms, tandem --help")


def _down(args: argparse.Namespace, context: Context, settings: Settings) -> int:
    pid = running_pid(settings.lock_file)
    if not pid:
        context.note("The daemon does not run")
        return 0
    left = _what_runs(args, context)
    with context.step("Stopping the daemon"):
        if unit.applies(settings) and unit.is_active():
            unit.stop()
        else:
            _stop(pid, settings.lock_file)
    if left:
        context.note(f"Still running, as before: {left}. They are taken up again by: tandem up")
    return 0


def _what_runs(args: argparse.Namespace, context: Context) -> str:
    try:
        objects = fetch(context, args)["objects"]
    except TandemError:
        return ""  # it does not serve, so it cannot be asked, only stopped
    counted = [
        (objects.get("pods", {}).get("Running", 0), "pod"),
        (objects.get("virtualmachineinstances.kubevirt.io", {}).get("Running", 0), "machine"),
    ]
    return ", ".join(f"{count} {word}{'s' * (count > 1)}" for count, word in counted if count)


def _stop(pid: int, lock: Path) -> None:
    """End the daemon: asked first, forced when it does not listen."""
    import signal

    for sign, patience in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
        try:
            # By a descriptor of the process: a pid could be somebody else's by now.
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if running_pid(lock) != pid:
                return
            signal.pidfd_send_signal(handle, sign)
        except PermissionError as error:
            raise Forbidden(
                f"process {pid} is not ours to stop", hint="sudo tandem down"
            ) from error
        finally:
            os.close(handle)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if running_pid(lock) != pid:
                return
            time.sleep(_LOOK_AGAIN_SECONDS)
    raise DeadlineExceeded(f"the daemon (process {pid}) does not end")


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """One ``up`` at a time; a second waits, and then finds everything running."""
    try:
        settings.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(
            settings.run_dir / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        raise Unavailable(
            f"cannot use {settings.run_dir}: {error.strerror}", hint="run as root"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
