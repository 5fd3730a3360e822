"""Handing out events: nobody is held up, and nobody is skipped in silence."""

from __future__ import annotations

from tandem.runtimes.adapter import EventKind, RuntimeEvent
from tandem.runtimes.libvirt.events import MAX_WAITING, RESYNC, Broadcast


def _event(number: int) -> RuntimeEvent:
    return RuntimeEvent(EventKind.STARTED, f"vm-{number}")


async def test_everybody_hears_everything_in_order() -> None:
    broadcast = Broadcast()
    listeners = [broadcast.listen() for _ in range(2)]
    for number in range(3):
        broadcast.tell(_event(number))
    for listener in listeners:
        assert [await listener.get() for _ in range(3)] == [_event(n) for n in range(3)]


async def test_who_lags_is_told_to_list_again() -> None:
    broadcast = Broadcast()
    slow, quick = broadcast.listen(), broadcast.listen()
    for number in range(MAX_WAITING + 5):
        broadcast.tell(_event(number))
        assert await quick.get() == _event(number)
    assert await slow.get() == RESYNC
    assert await slow.get() == _event(MAX_WAITING + 1)


async def test_a_resync_makes_what_waits_superfluous() -> None:
    broadcast = Broadcast()
    listener = broadcast.listen()
    broadcast.tell(_event(1))
    broadcast.tell(RESYNC)
    assert await listener.get() == RESYNC


async def test_the_end_comes_after_what_waits() -> None:
    broadcast = Broadcast()
    listener = broadcast.listen()
    broadcast.tell(_event(1))
    broadcast.end()
    assert await listener.get() == _event(1)
    assert await listener.get() is None


async def test_who_left_hears_nothing() -> None:
    broadcast = Broadcast()
    listener = broadcast.listen()
    broadcast.leave(listener)
    broadcast.tell(_event(1))
    broadcast.end()
    assert len(broadcast) == 0
