"""Settings: what can be set, what each means, and where its value comes from.

One frozen dataclass holds them all, so that every part is handed values that were checked once. Each
field carries its own documentation and its own rule; the documentation page, the flags of the command
line and the error messages are all made from these, which is why they cannot drift apart.

A value is taken from the first of: a flag (``--data-dir``), the environment (``TANDEM_DATA_DIR``), the
settings file (``data_dir:`` in ``/etc/tandem/config.yaml``), the default.
"""

# ruff: noqa: RUF009 - _setting() returns dataclasses.field(), which is what the rule asks for
from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tandem.errors import Cause, InvalidSpec

DEFAULT_FILE = Path("/etc/tandem/config.yaml")
ENVIRONMENT_PREFIX = "TANDEM_"
FILE_VARIABLE = "TANDEM_CONFIG"

Rule = Callable[[object], Any]
"""Turns a flag's string or a YAML value into the setting's value, or raises ValueError with the rule
that it breaks (``must be ...``)."""


class InvalidSetting(InvalidSpec):
    """A setting that does not exist, or whose value breaks its rule; names key, value and rule."""


def text(value: object) -> str:
    """A non-empty string."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be a non-empty string")
    return value


def absolute_path(value: object) -> Path:
    """An absolute path."""
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError("must be an absolute path")
    return Path(value)


def port(value: object) -> int:
    """A TCP port; 0 lets the system choose a free one."""
    try:
        number = int(value) if isinstance(value, str | int) and not isinstance(value, bool) else -1
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise ValueError("must be a whole number from 0 to 65535")
    return number


def seconds(value: object) -> float:
    """A positive number of seconds."""
    try:
        number = float(value) if isinstance(value, str | int | float) else 0.0
    except ValueError:
        number = 0.0
    if isinstance(value, bool) or not 0 < number < float("inf"):
        raise ValueError("must be a positive number of seconds")
    return number


_UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_SMALLEST_SIZE = 16 << 10  # below it a log would be rotated for every few lines


class Bytes(int):
    """A number of bytes that is shown as it is written: ``10Mi``."""

    def __str__(self) -> str:
        unit = next(name for name in reversed(_UNITS) if self % _UNITS[name] == 0)
        return f"{self // _UNITS[unit]}{unit}"


def size(value: object) -> Bytes:
    """A number of bytes of at least 16Ki, with `Ki`, `Mi` or `Gi` for short."""
    text = str(value).strip() if isinstance(value, str | int) else ""
    number, unit = text.rstrip("KMGi"), text[len(text.rstrip("KMGi")) :]
    found = int(number) * _UNITS[unit] if number.isdecimal() and unit in _UNITS else 0
    if found < _SMALLEST_SIZE:
        raise ValueError("must be a number of bytes of at least 16Ki, such as 10Mi")
    return Bytes(found)


def at_least(least: int) -> Rule:
    """A whole number that is not below ``least``."""

    def rule(value: object) -> int:
        text = str(value) if isinstance(value, str | int) else ""
        if not text.isdecimal() or int(text) < least:
            raise ValueError(f"must be a whole number of at least {least}")
        return int(text)

    rule.__doc__ = f"a whole number of at least {least}"
    return rule


def one_of(*choices: str) -> Rule:
    """One word out of a fixed set."""

    def rule(value: object) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(value)

    rule.__doc__ = f"one of {', '.join(f'`{choice}`' for choice in choices)}"
    return rule


def strings(value: object) -> tuple[str, ...]:
    """A list of strings; as a flag or in the environment separated by commas."""
    items: object = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(i, str) and i for i in items):
        raise ValueError("must be a list of non-empty strings")
    return tuple(item.strip() for item in items)


def registry_mirrors(value: object) -> dict[str, str]:
    """A mapping of a registry's host to the URL that stands in for it; as a flag or in the
    environment `host=url`, separated by commas."""
    message = "must map registry hosts to http:// or https:// URLs (host=url,...)"
    if isinstance(value, str):
        pairs = [item.partition("=")[::2] for item in value.split(",") if item]
    elif isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        raise ValueError(message)
    for host, url in pairs:
        if not isinstance(host, str) or not host or "/" in host:
            raise ValueError(message)
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise ValueError(message)
    return dict(pairs)


def _setting(default: object, rule: Rule, doc: str) -> Any:
    if isinstance(default, dict):
        return dataclasses.field(
            default_factory=lambda: dict(default), metadata={"rule": rule, "doc": doc}
        )
    return dataclasses.field(default=default, metadata={"rule": rule, "doc": doc})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set. Construct through :func:`load`, or directly in tests."""

    data_dir: Path = _setting(
        Path("/var/lib/tandem"),
        absolute_path,
        "Where the daemon keeps what must survive a restart: the store, its certificate authority and "
        "the machines' disks. One daemon per directory.",
    )
    run_dir: Path = _setting(
        Path("/run/tandem"),
        absolute_path,
        "Where files live that mean nothing after a reboot: sockets, and the configuration of "
        "runtimes that `tandem up` starts itself.",
    )
    log_dir: Path = _setting(
        Path("/var/log/tandem"),
        absolute_path,
        "Where logs go: the daemon's own (`tandem.log`, when `tandem up` starts it), the containers' "
        "(`pods/`) and the machines' serial consoles (`machines/`).",
    )
    config_dir: Path = _setting(
        Path("/etc/tandem"),
        absolute_path,
        "Where the administrator's additions to runtimes that `tandem up` starts are looked for "
        "(`containerd.d/*.toml`), and the Pods' network is declared when the machine has none (`cni/`).",
    )
    kubeconfig: Path = _setting(
        Path("/etc/tandem/kubeconfig"),
        absolute_path,
        "The kubeconfig that the daemon writes with mode 0600 and that every command of `tandem` "
        "reads.",
    )
    listen_address: str = _setting(
        "127.0.0.1",
        text,
        "The address that the API listens on. Anything but loopback opens it to the network; clients "
        "still need a certificate that this daemon issued.",
    )
    listen_port: int = _setting(7443, port, "The port that the API listens on; 0 takes a free one.")
    server_names: tuple[str, ...] = _setting(
        (),
        strings,
        "Further names and addresses that clients may reach the API by; they are put into its "
        "certificate.",
    )
    container_runtime: str = _setting(
        "container",
        text,
        "The runtime type that runs Pods: `container` (CRI), `memory` (a trial without a runtime), "
        "or what a plugin registered.",
    )
    vm_runtime: str = _setting(
        "vm",
        text,
        "The runtime type that runs virtual machines: `vm` (libvirt), `memory`, or what a plugin "
        "registered.",
    )
    container_endpoint: str = _setting(
        "/run/containerd/containerd.sock",
        text,
        "The CRI socket, of containerd or CRI-O.",
    )
    containerd_root: Path = _setting(
        Path("/var/lib/containerd"),
        absolute_path,
        "Where a containerd started by `tandem up` keeps images and containers.",
    )
    libvirt_uri: str = _setting("qemu:///system", text, "The libvirt connection.")
    owner: str = _setting(
        "tandem",
        text,
        "The name under which workloads are marked in the runtimes. Daemons that share a runtime "
        "need different ones; a daemon never touches another owner's workloads.",
    )
    emulation: str = _setting(
        "auto",
        one_of("auto", "always", "never"),
        "Whether machines run without KVM: `auto` when a probe shows that KVM does not work, `always`, "
        "or `never` (machines that KVM cannot run are refused).",
    )
    sandbox_image: str = _setting(
        "",
        lambda value: value if value == "" else text(value),
        "The image of the Pods' sandbox that a containerd started by `tandem up` uses; empty: a tiny "
        "one that is built on the spot.",
    )
    registry_mirrors: dict[str, str] = _setting(
        {},
        registry_mirrors,
        "Registries that stand in for others, in a containerd started by `tandem up`.",
    )
    start_runtimes: str = _setting(
        "auto",
        one_of("auto", "never"),
        "Whether `tandem up` starts containerd, libvirtd and virtlogd when they do not run: `auto`, "
        "or `never`.",
    )
    runtime_timeout: float = _setting(
        120.0,
        seconds,
        "Seconds after which a call to a runtime is given up (pulling an image has a limit of its "
        "own).",
    )
    container_log_max_size: Bytes = _setting(
        Bytes(10 << 20),
        size,
        "How long a container's log may become before it is rotated, as the kubelet's "
        "`containerLogMaxSize`.",
    )
    container_log_max_files: int = _setting(
        5,
        at_least(2),
        "How many files of one container's log are kept, the one that is written among them, as the "
        "kubelet's `containerLogMaxFiles`.",
    )
    log_level: str = _setting(
        "info",
        one_of("debug", "info", "warning", "error"),
        "The least severe lines that are logged.",
    )

    @property
    def lock_file(self) -> Path:
        """Locked by the daemon that owns ``data_dir``, and holds its process id."""
        return self.data_dir / "daemon.lock"

    @property
    def log_file(self) -> Path:
        """Where a daemon started by ``tandem up`` writes its log."""
        return self.log_dir / "tandem.log"


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of :class:`Settings`, as documentation and the command line need it."""

    name: str
    default: object
    rule: Rule
    doc: str

    @property
    def flag(self) -> str:
        """``--data-dir``"""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """``TANDEM_DATA_DIR``"""
        return ENVIRONMENT_PREFIX + self.name.upper()


def describe() -> Iterator[Setting]:
    """Every setting, in the order in which they are documented."""
    defaults = Settings()
    for field in dataclasses.fields(Settings):
        yield Setting(
            field.name,
            getattr(defaults, field.name),
            field.metadata["rule"],
            field.metadata["doc"],
        )


def load(
    overrides: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    """The settings in force: ``overrides`` (flags, by setting name) > environment > file > default.

    ``file`` (or ``TANDEM_CONFIG``) must exist when given; the default file need not. Raises
    :class:`InvalidSetting`.
    """
    environ = os.environ if environ is None else environ
    known = {setting.name: setting for setting in describe()}
    values: dict[str, Any] = {}
    for source, raw in (
        *_from_file(file, environ),
        *_from_environment(environ, known),
        *(
            (f"flag --{key.replace('_', '-')}", (key, value))
            for key, value in (overrides or {}).items()
        ),
    ):
        name, value = raw
        if name not in known:
            raise _unknown(source, name, known)
        try:
            values[name] = known[name].rule(value)
        except ValueError as error:
            raise InvalidSetting(
                f"{source}: {name} is {_shown(value)}: {error}",
                causes=[Cause(name, f"{_shown(value)}: {error}")],
            ) from error
    return Settings(**values)


_Sourced = tuple[str, tuple[str, object]]


def _from_file(file: Path | None, environ: Mapping[str, str]) -> list[_Sourced]:
    given = file or (Path(environ[FILE_VARIABLE]) if environ.get(FILE_VARIABLE) else None)
    path = given or DEFAULT_FILE
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if given is None:
            return []
        raise InvalidSetting(f"settings file {path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"settings file {path}: {error}") from error
    import yaml  # a fifth of the command line's start, so only when there is a file

    try:
        document = yaml.safe_load(content)
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise InvalidSetting(f"settings file {path}: {line}") from error
    if document is None:
        return []
    if not isinstance(document, dict):
        raise InvalidSetting(f"settings file {path}: must be a mapping of setting to value")
    return [(f"settings file {path}", (str(key), value)) for key, value in document.items()]


def _from_environment(environ: Mapping[str, str], known: Mapping[str, Setting]) -> list[_Sourced]:
    found: list[_Sourced] = []
    for variable, value in environ.items():
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        # The environment is shared with others (a service named tandem in a cluster brings
        # TANDEM_SERVICE_HOST): only what looks like a mistyped setting is refused.
        if variable.startswith(ENVIRONMENT_PREFIX) and (name in known or _nearest(name, known)):
            found.append((f"environment variable {variable}", (name, value)))
    return found


def _nearest(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, known, n=1, cutoff=0.8)), "")


def _unknown(source: str, name: str, known: Mapping[str, Setting]) -> InvalidSetting:
    near = _nearest(name, known)
    return InvalidSetting(
        f"{source}: unknown setting {name!r}" + (f", did you mean {near!r}?" if near else ""),
        causes=[Cause(name, "unknown setting", "FieldValueNotSupported")],
        hint=f"the settings are: {', '.join(known)}",
    )


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)
