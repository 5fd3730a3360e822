"""What holds for every unit test."""

import asyncio

# looptime asks for the current event loop in tests that have none. With none set, asyncio makes one,
# which nobody closes once the code under test calls asyncio.run(); told so, it makes none.
asyncio.set_event_loop(None)
