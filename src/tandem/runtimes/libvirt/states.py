"""What libvirt's states and events mean in Tandem's words.

The numbers are libvirt's stable public API (``virDomainState`` and its reasons); they are written out
so that this table can be read, and tested, without the library. A test compares them with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from tandem.runtimes.adapter import EventKind, Phase


class State(IntEnum):
    """``virDomainState``."""

    NOSTATE = 0
    RUNNING = 1
    BLOCKED = 2
    PAUSED = 3
    SHUTDOWN = 4
    SHUTOFF = 5
    CRASHED = 6
    PMSUSPENDED = 7


class Paused(IntEnum):
    """``virDomainPausedReason``."""

    UNKNOWN = 0
    USER = 1
    MIGRATION = 2
    SAVE = 3
    DUMP = 4
    IOERROR = 5
    WATCHDOG = 6
    FROM_SNAPSHOT = 7
    SHUTTING_DOWN = 8
    SNAPSHOT = 9
    CRASHED = 10
    STARTING_UP = 11
    POSTCOPY = 12
    POSTCOPY_FAILED = 13


class ShutOff(IntEnum):
    """``virDomainShutoffReason``."""

    UNKNOWN = 0
    SHUTDOWN = 1
    DESTROYED = 2
    CRASHED = 3
    MIGRATED = 4
    SAVED = 5
    FAILED = 6
    FROM_SNAPSHOT = 7
    DAEMON = 8


@dataclass(frozen=True, slots=True)
class Condition:
    """How a domain is. ``ended``: the machine is not on any more. ``reason`` is a word for machines
    to read, ``message`` a sentence for people; both may be empty while all is well."""

    phase: Phase
    reason: str = ""
    message: str = ""
    ended: bool = False


_RUNNING = Condition(Phase.RUNNING)

_PAUSED = {
    Paused.USER: Condition(Phase.PAUSED, "PausedByUser", "The machine was paused by a user."),
    Paused.MIGRATION: Condition(Phase.PAUSED, "Migrating", "Paused for its migration."),
    Paused.SAVE: Condition(Phase.PAUSED, "Saving", "Paused while its state is saved."),
    Paused.DUMP: Condition(Phase.PAUSED, "Dumping", "Paused while its memory is dumped."),
    Paused.IOERROR: Condition(
        Phase.PAUSED, "PausedIOError", "Paused by an I/O error of a disk, often a full host."
    ),
    Paused.WATCHDOG: Condition(Phase.PAUSED, "PausedByWatchdog", "Its watchdog expired."),
    Paused.FROM_SNAPSHOT: Condition(Phase.PAUSED, "FromSnapshot", "Restored from a snapshot."),
    # The guest has powered off and QEMU is on its way out: no pause that anyone asked for.
    Paused.SHUTTING_DOWN: _RUNNING,
    Paused.SNAPSHOT: Condition(Phase.PAUSED, "Snapshotting", "Paused while a snapshot is taken."),
    Paused.CRASHED: Condition(Phase.FAILED, "GuestPanicked", "The guest has crashed.", ended=True),
    Paused.STARTING_UP: Condition(Phase.PENDING, "Starting", "QEMU is starting."),
    Paused.POSTCOPY: Condition(Phase.PAUSED, "Migrating", "Paused for its migration."),
    Paused.POSTCOPY_FAILED: Condition(
        Phase.FAILED, "MigrationFailed", "Its migration failed half way.", ended=True
    ),
}

_SHUT_OFF = {
    ShutOff.UNKNOWN: Condition(
        Phase.STOPPED, "ShutOff", "It is off; libvirt does not know since when or why.", ended=True
    ),
    ShutOff.DESTROYED: Condition(
        Phase.FAILED, "Destroyed", "It was switched off by force.", ended=True
    ),
    ShutOff.CRASHED: Condition(
        Phase.FAILED, "Crashed", "QEMU ended unexpectedly or the guest crashed.", ended=True
    ),
    ShutOff.MIGRATED: Condition(
        Phase.STOPPED, "Migrated", "It was migrated to another host.", ended=True
    ),
    ShutOff.SAVED: Condition(Phase.STOPPED, "Saved", "Its state was saved to disk.", ended=True),
    ShutOff.FAILED: Condition(Phase.FAILED, "StartFailed", "It could not be started.", ended=True),
    ShutOff.FROM_SNAPSHOT: Condition(
        Phase.STOPPED, "FromSnapshot", "Restored from a snapshot that was taken off.", ended=True
    ),
    ShutOff.DAEMON: Condition(
        Phase.FAILED,
        "LostByLibvirt",
        "libvirt could not take it up again and ended it.",
        ended=True,
    ),
}

NEVER_STARTED = Condition(Phase.STOPPED, "NeverStarted", "It is defined and was never started.")
HOST_REBOOTED = Condition(
    Phase.FAILED, "HostRebooted", "The host was restarted while it ran.", ended=True
)


def condition(state: int, reason: int, *, shutdown_phase: Phase = Phase.STOPPED) -> Condition:
    """What ``virDomainGetState`` says. ``shutdown_phase`` is what a clean shutdown means to the
    machine's owner. Numbers that are not known, from a newer libvirt, are ``Unknown`` or the
    state's general meaning."""
    match state:
        case State.RUNNING | State.BLOCKED | State.PMSUSPENDED | State.SHUTDOWN:
            return _RUNNING
        case State.PAUSED:
            return _PAUSED.get(Paused(reason) if reason in _PAUSED else Paused.UNKNOWN) or (
                Condition(Phase.PAUSED, "Paused", "It is paused.")
            )
        case State.SHUTOFF if reason == ShutOff.SHUTDOWN:
            return Condition(shutdown_phase, "Shutdown", "The guest has shut down.", ended=True)
        case State.SHUTOFF:
            return _SHUT_OFF[ShutOff(reason) if reason in _SHUT_OFF else ShutOff.UNKNOWN]
        case State.CRASHED:
            return _SHUT_OFF[ShutOff.CRASHED]
    return Condition(Phase.UNKNOWN, "Unknown", "libvirt does not know its state.")


class Event(IntEnum):
    """``virDomainEventType``."""

    DEFINED = 0
    UNDEFINED = 1
    STARTED = 2
    SUSPENDED = 3
    RESUMED = 4
    STOPPED = 5
    SHUTDOWN = 6
    PMSUSPENDED = 7
    CRASHED = 8


EVENT_KINDS = {
    Event.DEFINED: EventKind.CREATED,
    Event.STARTED: EventKind.STARTED,
    Event.SUSPENDED: EventKind.PAUSED,
    Event.RESUMED: EventKind.RESUMED,
    Event.STOPPED: EventKind.STOPPED,
    Event.CRASHED: EventKind.STOPPED,
}
"""What is told of a domain that is there. SHUTDOWN (on its way, STOPPED follows) and PMSUSPENDED (asleep counts as running) change no
phase."""
