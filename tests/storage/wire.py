"""A wire between two hosts on this machine: counts what passes, keeps to a rate, can be cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

CHUNK = 64 * 1024


@dataclass
class Wire:
    """One wire from a port of its own to where something listens.

    Attributes:
        port: Where it begins.
        to: Where it leads, host and port; to be set before somebody connects.
        rate: Bytes per second from there to here, all connections together; None: unlimited.
        carried: Bytes that went there so far.
    """

    port: int = 0
    to: tuple[str, int] = ("127.0.0.1", 0)
    rate: float | None = None
    carried: int = 0
    _whole: asyncio.Event = field(default_factory=asyncio.Event)
    _ends: list[asyncio.StreamWriter] = field(default_factory=list)
    _free_at: float = 0.0
    _closed: bool = False

    def cut(self) -> None:
        """Let nothing through any more, in silence."""
        self._whole.clear()

    def mend(self) -> None:
        """Let everything through again."""
        self._whole.set()

    def snap(self) -> None:
        """Break every connection, and refuse new ones until `mend` is called."""
        self._closed = True
        for end in self._ends:
            end.transport.abort()

    def restore(self) -> None:
        """Take connections again."""
        self._closed = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Lead one connection to where the wire ends."""
        self._ends.append(writer)
        with suppress(OSError):
            if self._closed:
                return writer.transport.abort()
            there, back = await asyncio.open_connection(*self.to)
            self._ends.append(back)
            await asyncio.gather(self._pass(reader, back, counts=True), self._pass(there, writer))
        return None

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counts: bool = False
    ) -> None:
        with suppress(OSError):
            while part := await reader.read(CHUNK):
                await self._whole.wait()
                if counts:
                    self.carried += len(part)
                    await self._paced(len(part))
                writer.write(part)
                await writer.drain()
        writer.close()

    async def _paced(self, size: int) -> None:
        if self.rate is None:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at) + size / self.rate
        await asyncio.sleep(self._free_at - now)


@asynccontextmanager
async def wire() -> AsyncIterator[Wire]:
    """Yield a whole wire; every connection ends with the block."""
    led = Wire()
    led.mend()
    server = await asyncio.start_server(led.serve, "127.0.0.1", 0)
    led.port = server.sockets[0].getsockname()[1]
    try:
        yield led
    finally:
        server.close()
        led.mend()
        led.snap()
