"""A program's control messages inside its event loop: `async for message in inbox`, until nobody can send any more.

What can't be understood ends it like the supervisor's death: its only writer is the supervisor, and what can't be
obeyed must not be ignored.
"""

import asyncio
import socket
from typing import Self

from inbounds.program import channel


class Inbox:
    """Reads the channel while its loop runs; make it inside the loop."""

    def __init__(self, control: socket.socket) -> None:
        """Begin to read."""
        self._control = control
        self._messages: asyncio.Queue[channel.Message | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(control, self._readable)

    def end(self) -> None:
        """Say that there is no supervisor any more, where a failed send shows it first."""
        self._messages.put_nowait(None)

    def _readable(self) -> None:
        try:
            message = channel.receive(self._control)
        except BlockingIOError:
            return
        except (channel.ChannelError, OSError):
            message = None
        if message is None:
            self._loop.remove_reader(self._control)
        self._messages.put_nowait(message)

    def __aiter__(self) -> Self:
        """Itself."""
        return self

    async def __anext__(self) -> channel.Message:
        """The next message."""
        message = await self._messages.get()
        if message is None:
            raise StopAsyncIteration
        return message
