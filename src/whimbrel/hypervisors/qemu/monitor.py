"""A QMP connection whose errors are ours; the one file that imports qemu.qmp.

After any error from here the guest is as it was: a command that was refused or interrupted
may or may not have been carried out, and the caller asks before it goes on.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import (
    ConnectError,
    EventListener,
    ExecInterruptedError,
    ExecuteError,
    QMPClient,
    QMPError,
    StateError,
)
from qemu.qmp.error import ProtocolError as UnreadableError

from whimbrel.errors import CommandRefused, HostUnreachable, ProtocolError

ANSWER_WITHIN = 30.0
"""Seconds; QEMU answers within milliseconds unless it hangs or its host does."""

_CONNECT_AGAIN = 0.005


class Monitor:
    """QEMU's control connection."""

    def __init__(self, client: QMPClient, name: str) -> None:
        self._client = client
        self._name = name

    @classmethod
    async def connect(cls, path: Path, name: str, process_end: Awaitable[object]) -> "Monitor":
        """Connect as soon as QEMU listens at `path`.

        Waits as long as the process lives: preparing much memory takes its time.

        Raises:
            HostUnreachable: The process ended first.
        """
        ended = asyncio.ensure_future(process_end)
        attempt = asyncio.ensure_future(cls._connect(path, name))
        try:
            await asyncio.wait({ended, attempt}, return_when=asyncio.FIRST_COMPLETED)
            if not attempt.done():
                raise HostUnreachable(f"{name}: QEMU ended before it could be reached.")
            return await attempt
        finally:
            ended.cancel()
            attempt.cancel()
            await asyncio.wait({ended, attempt})

    @classmethod
    async def _connect(cls, path: Path, name: str) -> "Monitor":
        while True:
            client = QMPClient(name)
            client.logger.disabled = True  # its errors are raised, and reported by us
            try:
                await client.connect(str(path))
            except ConnectError:
                # QEMU has not made its socket yet; there is nothing to wait on but time.
                await asyncio.sleep(_CONNECT_AGAIN)
            else:
                return cls(client, name)

    async def execute(
        self, command: str, arguments: Mapping[str, Any] | None = None, *, urgent: bool = False
    ) -> Any:
        """Carry out one QMP command and return its answer.

        An urgent one is answered even while QEMU's main loop waits for a page of post-copy;
        QEMU takes only a few commands that way (out of band, docs/interop/qmp-spec).

        Raises:
            CommandRefused: QEMU said no; its words are kept.
            HostUnreachable: The connection is gone, or no answer came in `ANSWER_WITHIN`.
            ProtocolError: The answer cannot be read.
        """
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await self._client.execute(command, dict(arguments or {}), oob=urgent)
        except ExecuteError as error:
            raise CommandRefused(f"{self._name}: QEMU refused {command}: {error}") from error
        except TimeoutError as error:
            raise HostUnreachable(
                f"{self._name}: QEMU did not answer {command} in {ANSWER_WITHIN:.0f} s.",
                "See whether the process hangs or its host is overloaded.",
            ) from error
        except ExecInterruptedError as error:
            raise HostUnreachable(f"{self._name}: QEMU went away during {command}.") from error
        except QMPError as error:
            raise _translated(error, self._name, command) from error

    def listen(self, *names: str) -> "Events":
        """Return a stream of the named events, hearing from this moment on."""
        listener = EventListener(names)
        self._client.register_listener(listener)
        return Events(self._client, listener)

    async def close(self) -> None:
        """Close the connection; harmless when it is closed or broken."""
        try:
            await self._client.disconnect()
        except (QMPError, OSError, EOFError):
            return


class Events:
    """Events heard since `Monitor.listen`; ask a command now and then to learn of a lost peer."""

    def __init__(self, client: QMPClient, listener: EventListener) -> None:
        self._client = client
        self._listener = listener

    async def next(self, within: float) -> tuple[str, Mapping[str, Any]] | None:
        """Return the next event's name and data; None when `within` seconds brought none."""
        try:
            async with asyncio.timeout(max(0.0, within)):
                message = await self._listener.get()
        except TimeoutError:
            return None
        data = message.get("data", {})
        return str(message["event"]), data if isinstance(data, Mapping) else {}

    def close(self) -> None:
        """Stop hearing."""
        self._client.remove_listener(self._listener)


def _translated(error: QMPError, name: str, command: str) -> HostUnreachable | ProtocolError:
    if isinstance(error, UnreadableError):
        return ProtocolError(f"{name}: cannot read QEMU's answer to {command}: {error}")
    if isinstance(error, StateError):  # it speaks of its own states
        return HostUnreachable(f"{name}: the connection to QEMU has ended (before {command}).")
    return HostUnreachable(f"{name}: no connection to QEMU for {command}: {error}")
