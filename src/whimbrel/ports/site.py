"""What is asked of a host's operating system: commands, sockets, answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Finished:
    """A command that has ended.

    Attributes:
        code: Its exit code; negative: the signal that ended it.
        output: What it wrote to its standard output.
        errors: What it wrote to its standard error.
    """

    code: int
    output: bytes
    errors: bytes


class Talk(Protocol):
    """A running command, talked to over its standard input and output."""

    async def write(self, content: bytes) -> None:
        """Write all of it; `HostUnreachable` when the command or the way to it is gone."""

    async def read_line(self) -> bytes:
        """Return the next line with its end; `HostUnreachable` when there is none to come."""

    async def close(self) -> None:
        """End the command; harmless when it has ended."""


class Shell(Protocol):
    """The way onto one host: this machine's own, or SSH.

    Words are passed on one by one, never as a string that a shell would read again.
    Everything here raises `HostUnreachable` when the host cannot be reached or the way breaks.
    """

    @property
    def name(self) -> str:
        """The host's name, for people."""

    async def run(
        self, words: Sequence[str], *, given: bytes = b"", within: float = 60.0
    ) -> Finished:
        """Run a command to its end; a nonzero code is no error here."""

    async def talk(self, words: Sequence[str]) -> Talk:
        """Start a command to talk to."""

    async def socket(self, path: str) -> Path:
        """Return a private UNIX socket on this machine that leads to the one at `path` there.

        Valid until `close`. Nothing is said of whether anybody listens at `path`.
        """

    async def close(self) -> None:
        """End every command and connection; harmless when that is done."""


class Site(Protocol):
    """One host's operating system, asked through a program that whimbrel brings along.

    Nothing is installed: the program (sites/onsite, standard library only) is sent over the
    shell, runs on the host's Python, and ends with the connection.
    """

    @property
    def name(self) -> str:
        """The host's name, for people."""

    @property
    def folder(self) -> str:
        """The private folder on that host in which VMs' sockets and state lie."""

    async def ask(self, question: str, *, within: float = 60.0, **arguments: Any) -> Any:
        """Return the answer to one question of sites/onsite; plain data, or bytes.

        Several may be asked at once. Raises `HostUnreachable` when the host or the way to it
        fails or `within` seconds bring no answer, and `CommandRefused` with the host's words
        when it cannot be answered.
        """

    async def socket(self, path: str) -> Path:
        """See `Shell.socket`."""

    async def close(self) -> None:
        """End the program and the connection; VMs go on."""
