"""What a command writes, read as it comes: its lines, and the last words of its complaints."""

import asyncio
from contextlib import suppress
from typing import Protocol

from whimbrel.errors import ProtocolError

LONGEST = 256 * 1024 * 1024
"""Bytes of the longest line: an answer may hold pages of a guest."""

_PART = 1 << 20
_KEPT = 2000
"""Bytes of a complaint that are kept: its end says why."""
_SOON = 1.0
"""Seconds that a command which has ended is given to have said why."""


class Reader(Protocol):
    """The end of a pipe, of asyncio or asyncssh."""

    async def read(self, n: int = -1) -> bytes:
        """Return some bytes, none at the end."""


class Lines:
    """Splits a stream into lines, each looked through once however long it is.

    Args:
        reader: Where they come from.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._heard = bytearray()

    async def next(self) -> bytes:
        """Return the next line with its end, empty when none comes; `ProtocolError` if endless."""
        searched = 0
        while (end := self._heard.find(b"\n", searched)) < 0:
            searched = len(self._heard)
            if searched > LONGEST:
                raise ProtocolError(f"A command wrote a line of more than {LONGEST >> 20} MiB.")
            part = await self._reader.read(_PART)
            if not part:
                return b""
            self._heard += part
        line = bytes(self._heard[: end + 1])
        del self._heard[: end + 1]
        return line


class LastWords:
    """Reads a command's errors to their end, so that it never waits for a reader; keeps the last.

    Args:
        reader: Where they come from.
        failures: What its reading may raise when the way breaks.
    """

    def __init__(self, reader: Reader, *failures: type[Exception]) -> None:
        self._kept = b""
        self._failures = failures
        self._reading = asyncio.create_task(self._read(reader))

    async def said(self) -> str:
        """Return the last words once they are complete, or after a second."""
        await asyncio.wait([self._reading], timeout=_SOON)
        return self._kept.decode(errors="replace").strip()

    async def close(self) -> None:
        """Read no more."""
        self._reading.cancel()
        await asyncio.wait([self._reading])

    async def _read(self, reader: Reader) -> None:
        with suppress(OSError, *self._failures):
            while part := await reader.read(_PART):
                self._kept = (self._kept + part)[-_KEPT:]
