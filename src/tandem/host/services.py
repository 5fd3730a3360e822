"""Finds containerd and libvirt running, or gets them running.

In this order: a runtime whose socket answers is used as it is. Where systemd runs, its units are
started. Otherwise the programs are started here, with a configuration of our own, below the keeper
(:mod:`tandem.host.keeper`), and they outlive whoever asked for them.

Everything is idempotent, and two callers at once do each thing once. The calls block, for seconds
where something has to be started: this is for the command line, not for the daemon's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import grp
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tandem.errors import DeadlineExceeded, TandemError, Unavailable
from tandem.host import cni, keeper, pause
from tandem.host.containerd import (
    ContainerdConfig,
    can_lower_oom_scores,
    snapshotter_for,
    write_mirrors,
)
from tandem.host.run import run

Progress = Callable[[str], None]
"""Told one short sentence before each slow step."""

CONTAINERD = "containerd"
VIRTLOGD = "virtlogd"
LIBVIRTD = "libvirtd"

_HANDLERS = ("crun",)
"""OCI runtimes that a RuntimeClass may name beside runc, where they are installed."""

_START_SECONDS = 60.0  # libvirtd's first start probes every QEMU binary before it answers
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROXY_VARIABLES = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
_PACKAGES = {
    CONTAINERD: "containerd",
    "runc": "runc",
    LIBVIRTD: "libvirt-daemon-system qemu-system-x86 qemu-utils",
    VIRTLOGD: "libvirt-daemon-system",
}


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One runtime service of the host.

    ``running``: its socket answers. ``keeper_pid``: the process, when our keeper runs it; 0 when
    somebody else does, or nobody.
    """

    name: str
    socket: Path
    running: bool
    keeper_pid: int = 0

    @property
    def ours(self) -> bool:
        """Whether it was started here."""
        return self.keeper_pid != 0


@dataclass(frozen=True, kw_only=True)
class HostServices:
    """The runtime services of this host, as one instance of Tandem wants them.

    ``container_endpoint`` and ``libvirt_uri`` are what the adapters connect to; those that are not
    on this host, or not ours to start (CRI-O, another driver), are only looked at.
    ``sandbox_image`` empty: the built-in one. ``registry_mirrors``: registry host to URL.
    """

    run_dir: Path = Path("/run/tandem")
    log_dir: Path = Path("/var/log/tandem")
    config_dir: Path = Path("/etc/tandem")
    container_endpoint: str = "/run/containerd/containerd.sock"
    containerd_root: Path = Path("/var/lib/containerd")
    libvirt_uri: str = "qemu:///system"
    libvirt_run_dir: Path = Path("/run/libvirt")
    cni_conf_dir: Path = Path("/etc/cni/net.d")
    certs_dir: Path = Path("/etc/containerd/certs.d")
    sandbox_image: str = ""
    registry_mirrors: Mapping[str, str] = field(default_factory=dict)
    progress: Progress = lambda _: None

    # What is there -----------------------------------------------------------------------------

    def status(self) -> list[ServiceStatus]:
        """containerd, virtlogd and libvirtd, as they are now. Starts nothing."""
        return [
            self._status(CONTAINERD, self._containerd_socket),
            self._status(VIRTLOGD, self._virtlogd_socket),
            self._status(LIBVIRTD, self._libvirt_socket),
        ]

    def _status(self, name: str, path: Path) -> ServiceStatus:
        pid = keeper.running_pid(str(self._keeper_dir / f"{name}.pid"))
        return ServiceStatus(name, path, _answers(path), pid)

    @property
    def _containerd_socket(self) -> Path:
        return Path(self.container_endpoint.removeprefix("unix://"))

    @property
    def _virtlogd_socket(self) -> Path:
        return self.libvirt_run_dir / "virtlogd-sock"

    @property
    def _libvirt_socket(self) -> Path:
        query = parse_qs(urlsplit(self.libvirt_uri).query)
        return Path(query.get("socket", [str(self.libvirt_run_dir / "libvirt-sock")])[0])

    @property
    def _keeper_dir(self) -> Path:
        return self.run_dir / "keeper"

    # Getting it running ------------------------------------------------------------------------

    def ensure_containerd(self) -> ServiceStatus:
        """containerd answers on ``container_endpoint`` when this returns.

        Raises ``Unavailable`` (what is missing or why it does not start) and ``DeadlineExceeded``.
        """
        with self._lock():
            found = self._status(CONTAINERD, self._containerd_socket)
            if not found.running:
                if self._containerd_socket.name == "crio.sock":
                    raise Unavailable(
                        f"CRI-O does not answer on {self._containerd_socket}",
                        hint="start CRI-O, or set container_endpoint to containerd's socket",
                    )
                if _has_systemd():
                    self._ensure_network(self.cni_conf_dir)
                    self._start_units("containerd.service")
                    self._await_socket(CONTAINERD, self._containerd_socket)
                else:
                    self._start_containerd()
            status = self._status(CONTAINERD, self._containerd_socket)
            if status.ours:
                write_mirrors(self._mirrors_dir, self.registry_mirrors)
                if not self.sandbox_image:
                    self._import_sandbox_image()
            return status

    def ensure_libvirt(self) -> ServiceStatus:
        """libvirtd answers (and virtlogd, which it needs) when this returns.

        Raises ``Unavailable`` and ``DeadlineExceeded``, as :meth:`ensure_containerd` does.
        """
        with self._lock():
            found = self._status(LIBVIRTD, self._libvirt_socket)
            if found.running:
                return found
            if urlsplit(self.libvirt_uri).netloc or not self.libvirt_uri.startswith("qemu"):
                raise Unavailable(
                    f"libvirt does not answer for {self.libvirt_uri}",
                    hint="only qemu:///system on this host is started for you",
                )
            if _has_systemd():
                self._start_units("virtlogd.socket", "libvirtd.service")
            else:
                _open_kvm()
                if _is_chrooted():
                    _share_machines_namespace(Path("/etc/libvirt/qemu.conf"))
                self._start(VIRTLOGD, [_find(VIRTLOGD)], self._virtlogd_socket)
                self._start(LIBVIRTD, [_find(LIBVIRTD)], self._libvirt_socket)
            self._await_socket(LIBVIRTD, self._libvirt_socket)
            return self._status(LIBVIRTD, self._libvirt_socket)

    def stop_all(self) -> None:
        """Stop every service that the keeper runs, then the keeper. Workloads go on, unattended."""
        with self._lock():
            for name in (LIBVIRTD, VIRTLOGD, CONTAINERD):
                file = self._keeper_dir / f"{name}.service"
                if not file.exists():
                    continue
                self.progress(f"stopping {name}")
                text = file.read_text(encoding="utf-8")
                keeper.write_file(str(file), text.replace("want=run\n", "want=stop\n", 1))
                self._wake_keeper()
                self._await_end(name)
                file.unlink()
            if pid := self._keeper_pid():
                os.kill(pid, signal.SIGTERM)
                _poll(lambda: not self._keeper_pid(), _START_SECONDS, "the keeper does not end")

    def _await_end(self, name: str) -> None:
        pid_file = str(self._keeper_dir / f"{name}.pid")
        seconds = keeper.STOP_SECONDS + 5.0
        _poll(lambda: not keeper.running_pid(pid_file), seconds, f"{name} does not stop")

    # containerd --------------------------------------------------------------------------------

    @property
    def _mirrors_dir(self) -> Path:
        return self.run_dir / "certs.d"

    def _start_containerd(self) -> None:
        program = _find(CONTAINERD)
        _find("runc")
        bin_dir = cni.find_bin_dir()
        state = self._containerd_socket.parent
        for folder in (state, self.containerd_root):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        config = ContainerdConfig(
            socket=self._containerd_socket,
            root=self.containerd_root,
            state=state,
            sandbox_image=self.sandbox_image or pause.IMAGE,
            cni_conf_dir=self._network_conf_dir(),
            cni_bin_dir=bin_dir,
            certs_dirs=(self._mirrors_dir, self.certs_dir),
            snapshotter=snapshotter_for(
                self.containerd_root, Path("/proc/self/mountinfo").read_text(encoding="utf-8")
            ),
            restrict_oom_score_adj=not can_lower_oom_scores(),
            override=self.config_dir / "containerd.d" / "*.toml",
            handlers={name: path for name in _HANDLERS if (path := shutil.which(name))},
        )
        file = self.run_dir / "containerd.toml"
        keeper.write_file(str(file), config.render())
        write_mirrors(self._mirrors_dir, self.registry_mirrors)
        self._start(CONTAINERD, [program, "--config", str(file)], self._containerd_socket)

    def _network_conf_dir(self) -> Path:
        """The folder with the Pods' network: the host's own when it has one, else ours."""
        if cni.is_configured(self.cni_conf_dir):
            return self.cni_conf_dir
        ours = self.config_dir / "cni"
        self._ensure_network(ours)
        return ours

    def _ensure_network(self, conf_dir: Path) -> None:
        if cni.is_configured(conf_dir):
            return
        routes = _read("/proc/net/route")
        address_range = cni.network_of_bridge(routes) or cni.choose_range(
            cni.networks_in_use(routes, _read("/etc/resolv.conf"))
        )
        masquerade = _iptables_work()
        conf_dir.mkdir(parents=True, exist_ok=True)
        text = cni.conflist(address_range, masquerade=masquerade)
        keeper.write_file(str(conf_dir / cni.CONF_NAME), text)
        self.progress(f"Pods get addresses from {address_range} on the bridge {cni.BRIDGE}")
        if not masquerade:
            self.progress("iptables does not work here: Pods cannot reach beyond this host")

    def _import_sandbox_image(self) -> None:
        ctr = [_find("ctr"), "--address", str(self._containerd_socket), "--namespace", "k8s.io"]
        listed = _run(*ctr, "images", "list", "--quiet", f"name=={pause.IMAGE}")
        if pause.IMAGE not in listed.split():
            _run(*ctr, "images", "import", "-", input=pause.archive())

    # Starting ----------------------------------------------------------------------------------

    def _start_units(self, *units: str) -> None:
        self.progress(f"starting {' and '.join(units)}")
        for unit in units:
            _run("systemctl", "start", unit, hint=f"see: systemctl status {unit}")

    def _start(self, name: str, arguments: Sequence[str], path: Path) -> None:
        """Have the keeper run ``name`` and wait until ``path`` answers."""
        if _answers(path):
            return
        self.progress(f"starting {name}")
        environment = {"PATH": _PATH, "LANG": "C.UTF-8"} | {
            variable: os.environ[variable]
            for variable in _PROXY_VARIABLES
            if variable in os.environ
        }
        lines = ["want=run", f"log={self._log(name)}"]
        lines += [f"arg={argument}" for argument in arguments]
        lines += [f"env={variable}={content}" for variable, content in environment.items()]
        exit_file = self._keeper_dir / f"{name}.exit"
        exit_file.unlink(missing_ok=True)
        keeper.write_file(str(self._keeper_dir / f"{name}.service"), "\n".join(lines) + "\n")
        self._wake_keeper()
        self._await_socket(name, path)

    def _await_socket(self, name: str, path: Path) -> None:
        exit_file = self._keeper_dir / f"{name}.exit"

        def answers() -> bool:
            if exit_file.exists():
                how = exit_file.read_text(encoding="utf-8").strip()
                raise Unavailable(
                    f"{name} does not start: {how}: {_last_lines(self._log(name))}",
                    hint=f"see {self._log(name)}",
                )
            return _answers(path)

        _poll(answers, _START_SECONDS, f"{name} does not answer on {path}")

    def _log(self, name: str) -> Path:
        return self.log_dir / f"{name}.log"

    def _wake_keeper(self) -> None:
        """Have the keeper read the service files, starting one when none lives."""
        command = [sys.executable, "-S", "-I", keeper.__file__, str(self._keeper_dir)]
        with open(self.log_dir / "keeper.log", "ab") as log:
            code = subprocess.call(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": _PATH}
            )
        if code == 0:
            return  # a new one, which reads them first of all
        if code != keeper.ANOTHER_RUNS:
            raise Unavailable(
                f"the keeper of the host's services does not start (status {code})",
                hint=f"see {self.log_dir / 'keeper.log'}",
            )
        os.kill(self._keeper_pid(), signal.SIGHUP)

    def _keeper_pid(self) -> int:
        """The living keeper's pid, 0 when there is none."""
        try:
            with open(self._keeper_dir / "lock", "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return 0
        except BlockingIOError:
            return int((self._keeper_dir / "lock").read_text(encoding="ascii"))
        return 0

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One caller at a time, across processes."""
        try:
            self._keeper_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.log_dir.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.run_dir / "services.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Unavailable(
                f"cannot write to {self.run_dir}: {error}", hint="run as root"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _has_systemd() -> bool:
    return Path("/run/systemd/system").is_dir()


def _answers(path: Path) -> bool:
    """Whether somebody accepts connections on the unix socket ``path``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(2.0)
        try:
            connection.connect(os.fspath(path))
        except OSError:
            return False
        return True


def _find(program: str) -> str:
    """The path of ``program``. Raises ``Unavailable`` with the package that has it."""
    if found := shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_PATH}"):
        return found
    raise Unavailable(
        f"{program} is not installed",
        hint=f"apt-get install --no-install-recommends {_PACKAGES.get(program, program)}",
    )


def _iptables_work() -> bool:
    try:
        _run(_find("iptables"), "--table", "nat", "--list-rules")
    except TandemError:  # not installed, or the kernel lacks what it needs
        return False
    return True


def _open_kvm() -> None:
    """Give /dev/kvm the owner and mode that udev's rules give it, where no udev does.

    The kernel makes it for root alone, and libvirt runs QEMU as a user of the group kvm; while that
    user cannot open it, libvirt asks QEMU for its abilities anew before every start.
    """
    device = Path("/dev/kvm")
    try:
        found, group = device.stat(), grp.getgrnam("kvm").gr_gid
        for_all = found.st_mode & 0o006 == 0o006
        for_group = found.st_mode & 0o060 == 0o060 and found.st_gid == group
        if for_all or for_group or Path("/run/udev").is_dir():
            return
        os.chown(device, -1, group)
        device.chmod(0o660)
    except (OSError, LookupError):
        return  # no such device or group: machines are emulated, and the adapter says so


def _is_chrooted() -> bool:
    """Whether our root is another one than that of our mount namespace, which is where whoever enters
    the namespace finds itself."""
    ours = Path("/").stat()
    try:
        namespace = _run("nsenter", "--mount=/proc/self/ns/mnt", "stat", "--format=%d:%i", "/")
    except TandemError:
        return False  # not allowed, or no such program: nothing to go by
    return namespace.strip() != f"{ours.st_dev}:{ours.st_ino}"


def _share_machines_namespace(qemu_conf: Path) -> None:
    """Have libvirt start QEMU without a mount namespace of its own.

    libvirt enters that namespace to make device nodes, and entering ends in the namespace's root: from
    within a chroot, the nodes are made outside of it and QEMU finds none.
    """
    text = _read(str(qemu_conf))
    if not any(line.split("=")[0].strip() == "namespaces" for line in text.splitlines()):
        with qemu_conf.open("a", encoding="utf-8") as file:
            file.write("\n# By tandem up: libvirt's namespaces do not work inside a chroot.\n")
            file.write("namespaces = []\n")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _last_lines(path: Path, count: int = 3) -> str:
    return " | ".join(_read(os.fspath(path)).splitlines()[-count:])


def _poll(done: Callable[[], bool], seconds: float, message: str) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"{message} within {seconds:g} s")
        time.sleep(0.02)


def _run(*command: str, input: bytes = b"", hint: str | None = None) -> str:
    """What ``command`` prints; :func:`tandem.host.run.run` for callers without an event loop."""
    # With a factory the runner leaves the thread's own event loop, if there is one, alone.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        finished = runner.run(run(*command, input=input, timeout=_START_SECONDS, hint=hint))
    return finished.stdout.decode(errors="replace")
