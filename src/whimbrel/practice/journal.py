"""Journals of moves: one file of JSON lines each, on the machine that runs whimbrel.

    $XDG_STATE_HOME/whimbrel/journals/BEGAN-VM-ID.jsonl     folder 0700, files 0600

    {"schema": "whimbrel.journal/1", "move": ID, "vm": …, "source": …, "destination": …, …}
    {"step": "opened", "at": …, "fields": {…}}
    …

Lines are only ever added. The file is kept longer than what it holds, filled up with empty
lines, so that the last steps of a move find room even when the disk is full by then: what
cannot be reserved is refused before anything irreversible. Whoever writes it holds a lock on it
(flock(2)), which ends with its process and tells others whether the move is still conducted.
"""

import asyncio
import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from whimbrel.errors import HostError
from whimbrel.model.holder import Holder
from whimbrel.model.journal import Entry, Step
from whimbrel.practice.holder import myself

SCHEMA = "whimbrel.journal/1"
"""What the first line of a journal says it is."""

CHUNK = 64 << 10
"""Bytes by which the file grows."""

LAST_ROOM = 16 << 10
"""Bytes kept for the steps that come after the point of no return; they need under 4 KiB."""

NOTED_EVERY = 0.5
"""Seconds between two observations that are kept; a file grows by some 600 bytes per second."""


def journal_folder() -> Path:
    """Return where journals lie; a relative $XDG_STATE_HOME does not count (XDG 0.8)."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    home = state if state.is_absolute() else Path.home() / ".local" / "state"
    return home / "whimbrel" / "journals"


class FileJournal:
    """The port's `Journal`, in a file; to be used in a `with` block.

    Attributes:
        move: The move's identity, some letters.
        path: The file.
    """

    def __init__(self, descriptor: int, path: Path, move: str) -> None:
        self.move = move
        self.path = path
        self._descriptor = descriptor
        self._end = self._size = 0
        self._observed = float("-inf")

    @classmethod
    def create(
        cls,
        vm: str,
        source: str,
        destination: str,
        *,
        folder: Path | None = None,
        holder: Holder | None = None,
    ) -> Self:
        """Begin the journal of one move of a VM between two hosts, named as in the config.

        Raises:
            HostError: There is no room for it, or it may not be written; nothing is left of it.
        """
        folder = folder or journal_folder()
        began, move = time.time(), secrets.token_hex(4)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(began))
        path = folder / f"{stamp}-{re.sub(r'[^A-Za-z0-9_.-]', '_', vm)}-{move}.jsonl"
        head = {
            "schema": SCHEMA,
            "move": move,
            "vm": vm,
            "source": source,
            "destination": destination,
            "holder": asdict(holder or myself(began)),
        }
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return cls._begun(path, move, head)
        except OSError as error:
            raise _refused(path, error) from error

    @classmethod
    def _begun(cls, path: Path, move: str, head: dict[str, Any]) -> Self:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            journal = cls(descriptor, path, move)
            journal._append(_line(head), CHUNK // 2)
            os.fsync(descriptor)
            _sync_folder(path.parent)
        except BaseException:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        return journal

    @classmethod
    def reopen(cls, path: Path, move: str) -> Self:
        """Go on with the journal of a whimbrel that died, after its last whole line.

        Raises:
            HostError: It is still being written by somebody, or cannot be.
        """
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError as error:
            raise _refused(path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise HostError(f"{path} is still being written: its move is conducted.") from error
        journal = cls(descriptor, path, move)
        content = path.read_bytes()
        journal._size = len(content)
        journal._end = len(content.rstrip(b"\n")) + 1
        return journal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the room that was kept, and let go of the file."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, self._end)
            os.close(self._descriptor)
            self._descriptor = -1

    async def write(self, entry: Entry) -> None:
        """See `ports.Journal.write`."""
        try:
            self._append(_entry_line(entry), LAST_ROOM if entry.step.may_wait else 0)
            await asyncio.to_thread(os.fdatasync, self._descriptor)
        except OSError as error:
            raise _refused(self.path, error) from error

    def note(self, entry: Entry) -> None:
        """See `ports.Journal.note`; observations are thinned."""
        if entry.step is Step.EVENT and "observation" in entry.fields:
            if entry.at - self._observed < NOTED_EVERY:
                return
            self._observed = entry.at
        try:
            self._append(_entry_line(entry), LAST_ROOM)
        except OSError:
            return  # it is for those who watch; the steps have their own room

    def _append(self, line: bytes, room: int) -> None:
        try:
            self._make_room(len(line) + room)
        except OSError:
            if room or self._end + len(line) > self._size:
                raise
        os.pwrite(self._descriptor, line, self._end)
        self._end += len(line)

    def _make_room(self, needed: int) -> None:
        while self._end + needed > self._size:
            # Real bytes: on some file systems nothing else keeps room (posix_fallocate(3)).
            self._size += os.pwrite(self._descriptor, b"\n" * CHUNK, self._size)


def _line(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def _entry_line(entry: Entry) -> bytes:
    return _line({"step": entry.step.value, "at": entry.at, "fields": dict(entry.fields)})


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refused(path: Path, error: OSError) -> HostError:
    return HostError(
        f"The journal {path} cannot be written: {error.strerror or error}.",
        f"Make room in {path.parent}, or see who may write there. Without it no move is begun.",
    )


class Tail:
    """Reads a journal while it is written; several may, each with its own.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self.head: dict[str, Any] = {}

    def new(self) -> tuple[Entry, ...]:
        """Return the entries added since the last time.

        Raises:
            HostError: The file is gone, or is no journal of this version.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                content = file.read()
        except OSError as error:
            raise HostError(f"{self.path} cannot be read: {error.strerror}.") from error
        found = [entry for line in self._whole(content) if (entry := self._taken(line))]
        if self._read and self.head.get("schema") != SCHEMA:
            raise HostError(f"{self.path} is no journal that this whimbrel can read.")
        return tuple(found)

    def _whole(self, content: bytes) -> Iterable[dict[str, Any]]:
        """Yield what each whole line says, and step over the broken ones between them."""
        lines = content.split(b"\n")[:-1]
        broken = 0
        for line in lines:
            if not line:
                return  # room for what is to come
            message = _read(line)
            broken += len(line) + 1
            if message is not None:
                self._read += broken
                broken = 0
                yield message

    def _taken(self, message: dict[str, Any]) -> Entry | None:
        if not self.head:
            self.head = message
            return None
        try:
            return Entry(Step(message["step"]), float(message["at"]), message["fields"])
        except (KeyError, ValueError, TypeError):
            return None  # a newer whimbrel's


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
