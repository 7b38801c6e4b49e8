"""The port `Shell` over SSH; the one file that imports asyncssh.

Host keys are verified, always: against the user's known_hosts, or the file that the host's
description names. Keys come from the user's agent and files; passwords are never asked for.
"""

import asyncio
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from whimbrel.errors import HostError, HostUnreachable
from whimbrel.ports import Finished

CONNECT_WITHIN = 15.0
"""Seconds to connect and to prove who both are."""

ALIVE_EVERY = 3.0
"""Seconds between two questions whether the host is still there; three go unanswered at most."""

WINDOW = 16 * 1024 * 1024
"""Bytes that may be on their way in one channel."""


@dataclass(frozen=True)
class SshPlace:
    """Where a host is reached.

    Attributes:
        host: Name or address.
        user: Who one is there; None: as ssh would.
        port: 22 unless told.
        identity: A private key's file; None: those of the user.
        known_hosts: A file of host keys to trust; None: the user's.
    """

    host: str
    user: str | None = None
    port: int = 22
    identity: Path | None = None
    known_hosts: Path | None = None


class SshTalk:
    """The port's `Talk`: a command at the far end of an SSH channel."""

    def __init__(self, process: "asyncssh.SSHClientProcess[bytes]") -> None:
        self._process = process
        self._heard = bytearray()

    async def write(self, content: bytes) -> None:
        """See `ports.Talk.write`."""
        try:
            self._process.stdin.write(content)
            await self._process.stdin.drain()
        except (OSError, asyncssh.Error) as error:
            raise HostUnreachable(f"the SSH connection broke: {error}") from error

    async def read_line(self) -> bytes:
        """See `ports.Talk.read_line`."""
        try:
            while (end := self._heard.find(b"\n")) < 0:
                part = await self._process.stdout.read(1 << 20)
                if not part:
                    raise HostUnreachable(await self._last_words())
                self._heard += part
        except (OSError, asyncssh.Error) as error:
            raise HostUnreachable(f"the SSH connection broke: {error}") from error
        line = bytes(self._heard[: end + 1])
        del self._heard[: end + 1]
        return line

    async def _last_words(self) -> str:
        said = ""
        with suppress(OSError, asyncssh.Error, TimeoutError):
            async with asyncio.timeout(1.0):
                said = (await self._process.stderr.read(2000)).decode(errors="replace").strip()
        return said or "the command, or the SSH connection, has ended."

    async def close(self) -> None:
        """See `ports.Talk.close`."""
        self._process.close()
        with suppress(OSError, asyncssh.Error, TimeoutError):
            async with asyncio.timeout(2.0):
                await self._process.wait_closed()


class SshShell:
    """The port's `Shell`: one SSH connection, made when it is first needed.

    Args:
        name: The host's name, for people.
        place: Where it is.
    """

    def __init__(self, name: str, place: SshPlace) -> None:
        self.name = name
        self._place = place
        self._connection: asyncssh.SSHClientConnection | None = None
        self._connecting = asyncio.Lock()
        self._sockets: dict[str, Path] = {}
        self._folder: Path | None = None

    async def run(
        self, words: Sequence[str], *, given: bytes = b"", within: float = 60.0
    ) -> Finished:
        """See `ports.Shell.run`."""
        connection = await self._connected()
        try:
            async with asyncio.timeout(within):
                done = await connection.run(shlex.join(words), input=given, encoding=None)
        except TimeoutError as error:
            raise HostUnreachable(
                f"{self.name}: {words[0]} did not end within {within:.0f} s."
            ) from error
        except (OSError, asyncssh.Error) as error:
            raise self._broken(error) from error
        return Finished(done.returncode or 0, _bytes(done.stdout), _bytes(done.stderr))

    async def talk(self, words: Sequence[str]) -> SshTalk:
        """See `ports.Shell.talk`."""
        connection = await self._connected()
        try:
            process = await connection.create_process(
                shlex.join(words), encoding=None, window=WINDOW
            )
        except (OSError, asyncssh.Error) as error:
            raise self._broken(error) from error
        return SshTalk(process)

    async def socket(self, path: str) -> Path:
        """See `ports.Shell.socket`; SSH forwards it."""
        if path in self._sockets:
            return self._sockets[path]
        connection = await self._connected()
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="whimbrel-ssh-"))
        here = self._folder / str(len(self._sockets))
        try:
            await connection.forward_local_path(str(here), path)
        except (OSError, asyncssh.Error) as error:
            raise self._broken(error) from error
        self._sockets[path] = here
        return here

    async def close(self) -> None:
        """See `ports.Shell.close`."""
        if self._connection is not None:
            self._connection.close()
            with suppress(OSError, asyncssh.Error, TimeoutError):
                async with asyncio.timeout(2.0):
                    await self._connection.wait_closed()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _connected(self) -> asyncssh.SSHClientConnection:
        async with self._connecting:
            if self._connection is None:
                self._connection = await self._connect()
            elif self._connection.is_closed():
                raise HostUnreachable(f"The SSH connection to {self.name} broke.")
            return self._connection

    async def _connect(self) -> asyncssh.SSHClientConnection:
        place = self._place
        options: dict[str, Any] = {
            "port": place.port,
            "connect_timeout": CONNECT_WITHIN,
            "login_timeout": CONNECT_WITHIN,
            "keepalive_interval": ALIVE_EVERY,
            "keepalive_count_max": 3,
            "password_auth": False,
            "kbdint_auth": False,
        }
        if place.user is not None:
            options["username"] = place.user
        if place.identity is not None:
            options["client_keys"] = [str(place.identity)]
        if place.known_hosts is not None:
            options["known_hosts"] = str(place.known_hosts)
        try:
            return await asyncssh.connect(place.host, **options)
        except asyncssh.HostKeyNotVerifiable as error:
            raise HostUnreachable(
                f"{self.name}: the host key of {place.host} is not known or has changed.",
                "Compare its fingerprint, then add it: ssh-keyscan, or connect once with ssh.",
            ) from error
        except asyncssh.PermissionDenied as error:
            raise HostUnreachable(
                f"{self.name}: {place.host} takes none of your SSH keys for "
                f"{place.user or 'your user'}.",
                f"Try: ssh -p {place.port} {_who(place)} true",
            ) from error
        except (OSError, asyncssh.Error, TimeoutError) as error:
            raise HostUnreachable(
                f"{self.name}: no SSH connection to {place.host}, port {place.port}: "
                f"{str(error) or type(error).__name__}",
                f"Try: ssh -p {place.port} {_who(place)} true",
            ) from error

    def _broken(self, error: Exception) -> HostError:
        words = str(error) or type(error).__name__
        return HostUnreachable(f"The SSH connection to {self.name} broke: {words}")


def _who(place: SshPlace) -> str:
    return f"{place.user}@{place.host}" if place.user else place.host


def _bytes(content: object) -> bytes:
    return content if isinstance(content, bytes) else str(content or "").encode()
