"""The port `Shell` over SSH; the one file that imports asyncssh.

Host keys are verified, always, whatever ~/.ssh/config says: against the known_hosts of the user
and of the machine, or the file that the host's description names. All else of ~/.ssh/config
counts. Keys come from the user's agent and files; passwords are never asked for. The far sshd
must allow commands, and forwarding to UNIX sockets (AllowStreamLocalForwarding; one that has
AllowTcpForwarding no refuses that too).
"""

import asyncio
import os
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
from whimbrel.sites.lines import LastWords, Lines

REACHED_WITHIN = 5.0
"""Seconds for a host to take a connection, which its kernel does however busy it is: TCP has
tried three times by then. Jump hosts on the way count too."""

CONNECT_WITHIN = 15.0
"""Seconds to connect and to prove who both are."""

ALIVE_EVERY = 3.0
"""Seconds between two questions whether the host is still there; three go unanswered at most."""

KNOWN_HOSTS = (Path("~/.ssh/known_hosts"), Path("/etc/ssh/ssh_known_hosts"))
"""Where host keys to trust are looked for, as ssh does (ssh_config(5))."""

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


_PREFIX = "whimbrel-ssh-"


def sweep(base: Path) -> None:
    """Remove the socket folders of this user's whimbrels that were killed."""
    for folder in base.glob(f"{_PREFIX}[0-9]*-*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        with suppress(OSError):  # somebody else was quicker
            if pid.isdigit() and folder.stat().st_uid == os.getuid() and not _lives(int(pid)):
                shutil.rmtree(folder)


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


class SshTalk:
    """The port's `Talk`: a command at the far end of an SSH channel."""

    def __init__(self, process: "asyncssh.SSHClientProcess[bytes]") -> None:
        self._process = process
        self._lines = Lines(process.stdout)
        self._last_words = LastWords(process.stderr, asyncssh.Error)

    async def write(self, content: bytes) -> None:
        """See `ports.Talk.write`."""
        try:
            self._process.stdin.write(content)
            await self._process.stdin.drain()
        except (OSError, asyncssh.Error) as error:
            raise await self._ended(error) from error

    async def read_line(self) -> bytes:
        """See `ports.Talk.read_line`."""
        try:
            if line := await self._lines.next():
                return line
        except (OSError, asyncssh.Error) as error:
            raise await self._ended(error) from error
        raise await self._ended()

    async def close(self) -> None:
        """See `ports.Talk.close`."""
        self._process.close()
        with suppress(OSError, asyncssh.Error, TimeoutError):
            async with asyncio.timeout(2.0):
                await self._process.wait_closed()
        await self._last_words.close()

    async def _ended(self, error: Exception | None = None) -> HostUnreachable:
        if said := await self._last_words.said():
            return HostUnreachable(said)
        words = str(error) if error is not None else ""
        return HostUnreachable(words or "the command, or the SSH connection, has ended.")


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
        await self._connected()  # which has its own limits
        process: asyncssh.SSHClientProcess[bytes] | None = None
        try:
            async with asyncio.timeout(within):
                process = await self._started(words, given=given)
                done = await process.wait()
        except TimeoutError as error:
            raise HostUnreachable(
                f"{self.name}: {words[0]} did not end within {within:.0f} s."
            ) from error
        except (OSError, asyncssh.Error) as error:
            raise self._broken(error) from error
        finally:
            if process is not None:
                process.close()
        if done.returncode is None:  # without a word of how it ended it is not known to have
            raise self._broken(ConnectionError(f"{words[0]} had not ended"))
        return Finished(done.returncode, _bytes(done.stdout), _bytes(done.stderr))

    async def talk(self, words: Sequence[str]) -> SshTalk:
        """See `ports.Shell.talk`."""
        return SshTalk(await self._started(words))

    async def socket(self, path: str) -> Path:
        """See `ports.Shell.socket`; SSH forwards it."""
        if path in self._sockets:
            return self._sockets[path]
        connection = await self._connected()
        if self._folder is None:
            sweep(Path(tempfile.gettempdir()))
            self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))  # 0700
        here = self._folder / str(len(self._sockets))
        try:
            await connection.forward_local_path(str(here), path)
            here.chmod(0o600)
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

    async def _started(
        self, words: Sequence[str], given: bytes | None = None
    ) -> "asyncssh.SSHClientProcess[bytes]":
        """Start a command; `given` is all that it can read, None leaves its input open."""
        connection = await self._connected()
        no_input = {"stdin": asyncssh.DEVNULL} if given == b"" else {}
        try:
            return await connection.create_process(
                shlex.join(words), input=given or None, encoding=None, window=WINDOW, **no_input
            )
        except (OSError, asyncssh.Error) as error:
            raise self._broken(error) from error

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
        try:
            options["known_hosts"] = _known_hosts(place)
            return await _opened(place.host, options)
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
        except ValueError as error:  # a key or configuration that asyncssh cannot read
            raise HostUnreachable(
                f"{self.name}: the SSH key {place.identity or ''} cannot be used: {error}",
                "Give one without a passphrase, or load it into ssh-agent.",
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


class _Client(asyncssh.SSHClient):
    """Tells when the far end has taken the connection, before either side proves who it is."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:  # noqa: ARG002
        """See asyncssh."""
        self.reached.set()


async def _opened(host: str, options: dict[str, Any]) -> asyncssh.SSHClientConnection:
    """Connect; a host that is off holds nobody up for as long as a busy one may take."""
    client = _Client()

    async def connect() -> asyncssh.SSHClientConnection:
        return await asyncssh.connect(host, client_factory=lambda: client, **options)

    connecting = asyncio.create_task(connect())
    reached = asyncio.create_task(client.reached.wait())
    try:
        first = asyncio.FIRST_COMPLETED
        done, _ = await asyncio.wait(
            [connecting, reached], timeout=REACHED_WITHIN, return_when=first
        )
        if not done:
            raise TimeoutError(f"nothing took the connection within {REACHED_WITHIN:.0f} s")
        return await connecting
    finally:
        reached.cancel()
        if not connecting.done():
            connecting.cancel()
            await asyncio.wait([connecting])


def new_identity() -> tuple[bytes, bytes]:
    """Return a new key pair as SSH's files hold it: the private key, and the public one's line."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    return key.export_private_key(), key.export_public_key()


def _who(place: SshPlace) -> str:
    return f"{place.user}@{place.host}" if place.user else place.host


def _known_hosts(place: SshPlace) -> bytes:
    """Return the host keys to trust; never None, with which asyncssh would trust anybody."""
    if place.known_hosts is not None:
        try:
            return place.known_hosts.read_bytes()
        except OSError as error:
            raise HostUnreachable(
                f"The file of known hosts {place.known_hosts} cannot be read: {error.strerror}.",
                f"Fill it: ssh-keyscan -p {place.port} {place.host}, and compare fingerprints.",
            ) from error
    found = [path.expanduser() for path in KNOWN_HOSTS]
    return b"\n".join(path.read_bytes() for path in found if path.is_file())


def _bytes(content: object) -> bytes:
    return content if isinstance(content, bytes) else str(content or "").encode()
