"""The port `Shell` on this machine itself."""

import asyncio
import shutil
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from pathlib import Path

from whimbrel.errors import HostError, HostUnreachable
from whimbrel.ports import Finished
from whimbrel.sites.lines import LastWords, Lines

Launcher = Callable[[Sequence[str]], list[str]]
"""Puts words before a command, so that it runs in a namespace for instance."""


def as_it_is(words: Sequence[str]) -> list[str]:
    """Launch a command with nothing before it."""
    return list(words)


class LocalTalk:
    """The port's `Talk`: a child process."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None  # noqa: S101 - all three were asked for as pipes
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        self._process, self._input = process, process.stdin
        self._lines = Lines(process.stdout)
        self._last_words = LastWords(process.stderr)

    async def write(self, content: bytes) -> None:
        """See `ports.Talk.write`."""
        try:
            self._input.write(content)
            await self._input.drain()
        except OSError as error:
            raise await self._ended() from error

    async def read_line(self) -> bytes:
        """See `ports.Talk.read_line`."""
        if line := await self._lines.next():
            return line
        raise await self._ended()

    async def close(self) -> None:
        """See `ports.Talk.close`."""
        await _end(self._process)
        await self._last_words.close()

    async def _ended(self) -> HostUnreachable:
        return HostUnreachable(await self._last_words.said() or "The command has ended.")


class LocalShell:
    """The port's `Shell`: this machine.

    Args:
        name: The host's name, for people.
        launcher: Puts words before every command.
    """

    def __init__(self, name: str, launcher: Launcher = as_it_is) -> None:
        self.name = name
        self._launcher = launcher
        self._talks: list[LocalTalk] = []
        self._links: Path | None = None

    async def run(
        self, words: Sequence[str], *, given: bytes = b"", within: float = 60.0
    ) -> Finished:
        """See `ports.Shell.run`."""
        process = await self._spawn(words)
        try:
            async with asyncio.timeout(within):
                output, errors = await process.communicate(given)
        except TimeoutError as error:
            raise HostUnreachable(
                f"{self.name}: {words[0]} did not end within {within:.0f} s."
            ) from error
        finally:
            await _end(process)
        return Finished(process.returncode or 0, output, errors)

    async def talk(self, words: Sequence[str]) -> LocalTalk:
        """See `ports.Shell.talk`."""
        talk = LocalTalk(await self._spawn(words))
        self._talks.append(talk)
        return talk

    async def socket(self, path: str) -> Path:
        """See `ports.Shell.socket`; it is there already, but its path may be too long."""
        if len(path.encode()) < _SOCKET_PATH:
            return Path(path)
        if self._links is None:
            self._links = Path(tempfile.mkdtemp(prefix="whimbrel-"))
        link = self._links / str(len(list(self._links.iterdir())))
        link.symlink_to(path)
        return link

    async def close(self) -> None:
        """See `ports.Shell.close`."""
        for talk in self._talks:
            await talk.close()
        if self._links is not None:
            shutil.rmtree(self._links, ignore_errors=True)

    async def _spawn(self, words: Sequence[str]) -> Process:
        try:
            # Ctrl-C at a terminal reaches all that share its session; whimbrel settles a move then.
            return await asyncio.create_subprocess_exec(
                *self._launcher(words),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise HostError(
                f"{self.name}: the program {error.filename or words[0]} is not installed."
            ) from error
        except OSError as error:
            raise HostError(f"{self.name}: {words[0]} cannot be run: {error.strerror}.") from error


async def _end(process: Process) -> None:
    """Kill a command unless it has ended, and let go of its pipes.

    To wait for it alone would not do: asyncio tells of the end only when all pipes are closed,
    and one that is full, or that a child of the command still holds, is not.
    """
    process._transport.close()  # type: ignore[attr-defined] # noqa: SLF001 - it has no other way
    await process.wait()


_SOCKET_PATH = 108
"""Bytes of a UNIX socket's path with its end (unix(7))."""
