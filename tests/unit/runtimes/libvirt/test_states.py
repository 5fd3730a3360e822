"""Every state, reason and event that libvirt knows, and what we make of it."""

from __future__ import annotations

import libvirt
import pytest

from tandem.runtimes.adapter import EventKind, Phase
from tandem.runtimes.libvirt import states
from tandem.runtimes.libvirt.states import Event, Paused, ShutOff, State, condition

_STATES = (
    "NOSTATE", "RUNNING", "BLOCKED", "PAUSED", "SHUTDOWN", "SHUTOFF", "CRASHED", "PMSUSPENDED",
)  # fmt: skip


def _constants(prefix: str) -> dict[str, int]:
    return {
        name.removeprefix(prefix): getattr(libvirt, name)
        for name in dir(libvirt)
        if name.startswith(prefix) and not name.endswith("_LAST")
    }


def test_the_numbers_are_libvirts() -> None:
    assert {item.name: item.value for item in State} == {
        name: getattr(libvirt, f"VIR_DOMAIN_{name}") for name in _STATES
    }
    for ours, prefix in ((Paused, "VIR_DOMAIN_PAUSED_"), (ShutOff, "VIR_DOMAIN_SHUTOFF_")):
        theirs = _constants(prefix)
        assert {item.name: item.value for item in ours}.items() <= theirs.items()
    for event in Event:
        assert getattr(libvirt, f"VIR_DOMAIN_EVENT_{event.name}") == event


@pytest.mark.parametrize(
    ("prefix", "state"),
    [
        ("VIR_DOMAIN_RUNNING_", State.RUNNING),
        ("VIR_DOMAIN_BLOCKED_", State.BLOCKED),
        ("VIR_DOMAIN_PMSUSPENDED_", State.PMSUSPENDED),
    ],
)
def test_whatever_is_on_is_running(prefix: str, state: State) -> None:
    for reason in _constants(prefix).values():
        assert condition(state, reason).phase is Phase.RUNNING
    assert condition(State.SHUTDOWN, 0).phase is Phase.RUNNING


PAUSED = {
    "UNKNOWN": Phase.PAUSED,
    "USER": Phase.PAUSED,
    "MIGRATION": Phase.PAUSED,
    "SAVE": Phase.PAUSED,
    "DUMP": Phase.PAUSED,
    "IOERROR": Phase.PAUSED,
    "WATCHDOG": Phase.PAUSED,
    "FROM_SNAPSHOT": Phase.PAUSED,
    "SHUTTING_DOWN": Phase.RUNNING,
    "SNAPSHOT": Phase.PAUSED,
    "CRASHED": Phase.FAILED,
    "STARTING_UP": Phase.PENDING,
    "POSTCOPY": Phase.PAUSED,
    "POSTCOPY_FAILED": Phase.FAILED,
}

SHUT_OFF = {
    "UNKNOWN": Phase.STOPPED,
    "SHUTDOWN": Phase.SUCCEEDED,
    "DESTROYED": Phase.FAILED,
    "CRASHED": Phase.FAILED,
    "MIGRATED": Phase.STOPPED,
    "SAVED": Phase.STOPPED,
    "FAILED": Phase.FAILED,
    "FROM_SNAPSHOT": Phase.STOPPED,
    "DAEMON": Phase.FAILED,
}


def test_every_reason_of_a_pause_has_its_phase() -> None:
    # A newer libvirt's reasons are a pause like any other.
    for name, reason in _constants("VIR_DOMAIN_PAUSED_").items():
        found = condition(State.PAUSED, reason)
        assert found.phase is PAUSED.get(name, Phase.PAUSED), name
        assert found.reason or found.phase is Phase.RUNNING


def test_every_reason_of_being_off_has_its_phase() -> None:
    for name, reason in _constants("VIR_DOMAIN_SHUTOFF_").items():
        found = condition(State.SHUTOFF, reason, shutdown_phase=Phase.SUCCEEDED)
        assert found.phase is SHUT_OFF.get(name, Phase.STOPPED), name
        assert found.ended
        assert found.reason
        assert found.message


def test_a_clean_shutdown_means_what_its_owner_says() -> None:
    for phase in (Phase.SUCCEEDED, Phase.STOPPED):
        assert condition(State.SHUTOFF, ShutOff.SHUTDOWN, shutdown_phase=phase).phase is phase
    assert condition(State.SHUTOFF, ShutOff.SHUTDOWN).phase is Phase.STOPPED


@pytest.mark.parametrize("reason", _constants("VIR_DOMAIN_CRASHED_").values())
def test_a_crash_is_a_failure(reason: int) -> None:
    assert condition(State.CRASHED, reason).phase is Phase.FAILED


@pytest.mark.parametrize("state", [State.NOSTATE, 8, 99, -1])
def test_what_nobody_knows_is_unknown(state: int) -> None:
    assert condition(state, 0).phase is Phase.UNKNOWN


def test_events_of_a_life_are_told() -> None:
    kinds = states.EVENT_KINDS
    assert kinds[Event.DEFINED] is EventKind.CREATED
    assert kinds[Event.STARTED] is EventKind.STARTED
    assert kinds[Event.SUSPENDED] is EventKind.PAUSED
    assert kinds[Event.RESUMED] is EventKind.RESUMED
    assert kinds[Event.STOPPED] is kinds[Event.CRASHED] is EventKind.STOPPED
