"""The port `Site` over any shell: questions to the program that whimbrel brings along."""

import asyncio
import errno
import itertools
import json
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from whimbrel.errors import CommandRefused, HostUnreachable, ProtocolError
from whimbrel.ports import Shell, Talk
from whimbrel.sites import program
from whimbrel.sites.onsite.serve import decoded, encoded

READY_WITHIN = 30.0
"""Seconds for a host's Python to start; emulated or busy hosts take some."""

_LOGIN_LINES = 200
"""Lines that a shell's start-up files may write before the program says that it runs."""


class OnSite:
    """The port's `Site`: one program on one host, any number of questions at once.

    Args:
        shell: The way onto the host; closed with this.
        folder: Where VMs' sockets and state lie on it.
    """

    def __init__(self, shell: Shell, folder: str) -> None:
        self.name = shell.name
        self.folder = folder
        self._shell = shell
        self._talk: Talk | None = None
        self._listening: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._starting = asyncio.Lock()
        self._lost: HostUnreachable | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def ask(self, question: str, *, within: float = 60.0, **arguments: Any) -> Any:
        """See `ports.Site.ask`."""
        talk = await self._program()
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        request = {"id": number, "question": question, "arguments": encoded(arguments)}
        try:
            async with asyncio.timeout(within):
                await talk.write(json.dumps(request).encode() + b"\n")
                return await answer
        except TimeoutError as error:
            raise HostUnreachable(
                f"{self.name} did not answer within {within:.0f} s ({question}).",
                "See whether the host is overloaded or the network to it is broken.",
            ) from error
        finally:
            self._waiting.pop(number, None)
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # seen, whoever else told us first

    async def socket(self, path: str) -> Path:
        """See `ports.Shell.socket`."""
        return await self._shell.socket(path)

    async def close(self) -> None:
        """See `ports.Site.close`; whoever still waits for an answer hears of it."""
        self._lose(HostUnreachable(f"The connection to {self.name} has been closed."))
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
        if self._talk is not None:
            await self._talk.close()
        await self._shell.close()

    async def _program(self) -> Talk:
        async with self._starting:
            if self._lost is not None:
                raise HostUnreachable(self._lost.what, self._lost.hint)
            if self._talk is None:
                self._talk = await self._start()
                self._listening = asyncio.create_task(self._listen(self._talk))
            return self._talk

    async def _start(self) -> Talk:
        talk = await self._shell.talk(program.words())
        try:
            await self._greet(talk)
        except BaseException:
            await talk.close()
            raise
        return talk

    async def _greet(self, talk: Talk) -> None:
        """Send the program and hear that it runs; what a login writes before it is passed over."""
        try:
            async with asyncio.timeout(READY_WITHIN):
                await talk.write(program.text())
                for _ in range(_LOGIN_LINES):
                    first = await talk.read_line()
                    if first == program.READY:
                        return
        except TimeoutError as error:
            raise HostUnreachable(
                f"Python on {self.name} did not start within {READY_WITHIN:.0f} s."
            ) from error
        except HostUnreachable as error:
            raise HostUnreachable(
                f"Python 3 could not be started on {self.name}: {error.what}",
                "Nothing else is needed there; install the package python3.",
            ) from error
        raise ProtocolError(f"{self.name} answered {first[:80]!r} when it was to begin.")

    async def _listen(self, talk: Talk) -> None:
        try:
            while True:
                self._take(self._read(await talk.read_line()))
        except (HostUnreachable, ProtocolError) as error:
            self._lose(HostUnreachable(f"The connection to {self.name} broke: {error.what}"))

    def _lose(self, reason: HostUnreachable) -> None:
        self._lost = self._lost or reason
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(HostUnreachable(self._lost.what, self._lost.hint))

    def _refused(self, words: str) -> CommandRefused:
        if f"[Errno {errno.ENOSPC}]" in words:  # of which the kernel does not say where
            hint = f"Make room on {self.name}, where {self.folder} and its images lie."
            return CommandRefused(f"{self.name}: {words}", hint)
        return CommandRefused(f"{self.name}: {words}")

    def _take(self, message: Mapping[str, Any]) -> None:
        answer = self._waiting.get(message.get("id", 0))
        if answer is None or answer.done():
            return  # it came too late, and nobody waits for it
        if "refusal" in message:
            answer.set_exception(self._refused(str(message["refusal"])))
            return
        try:
            answer.set_result(decoded(message.get("answer")))
        except (ValueError, TypeError, zlib.error) as error:
            words = f"{self.name} gave an answer that cannot be read: {error}"
            answer.set_exception(ProtocolError(words))

    def _read(self, line: bytes) -> Mapping[str, Any]:
        with suppress(ValueError):
            message = json.loads(line)
            if isinstance(message, dict):
                return message
        raise ProtocolError(f"{self.name} said what cannot be read: {line[:80]!r}")
