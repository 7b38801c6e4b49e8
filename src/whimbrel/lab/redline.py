"""The host's side of redline, the program that loads a lab guest's memory and proves it intact.

    load = Load(fill=700 * MIB, pattern=Pattern.TEXT, hot=200 * MIB, dirty_rate=100e6)
    async with Redline.connect(socket) as redline:
        await redline.ready()
        await redline.fill(load)
        ...                                   # the guest moves; its socket is another one now
    async with Redline.connect(other_socket) as redline:
        assert (await redline.verify()).intact

docs/redline.md describes the protocol. Lines that an earlier connection left half sent, and
answers to questions of an earlier client, are skipped.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from whimbrel.errors import LabError
from whimbrel.model.scenario import Load
from whimbrel.model.units import Bytes, BytesPerSecond, Seconds

PATIENCE: Seconds = 30.0
"""How long a guest may say nothing; long commands report about four times a second."""

_RETRY: Seconds = 0.05
_ASK_AGAIN: Seconds = 1.0

Share = Callable[[float], None]
"""Is told how far a long command is, 0 to 1."""


@dataclass(frozen=True)
class RedlineStatus:
    """What redline says of itself and its guest.

    Attributes:
        filled: Bytes of the fill, in whole pages.
        writing: Whether hot pages are being written.
        pages_dirtied: Page writes since redline began.
        rate: Bytes of pages written per second, over the last second of the guest's clock.
        rate_since: The same since the last fill, change or start.
        memory_total: MemTotal of the guest's kernel, bytes.
        memory_free: MemFree, bytes.
        memory_cached: Cached, bytes.
    """

    filled: Bytes
    writing: bool
    pages_dirtied: int
    rate: BytesPerSecond
    rate_since: BytesPerSecond
    memory_total: Bytes
    memory_free: Bytes
    memory_cached: Bytes


@dataclass(frozen=True)
class Verification:
    """What redline found when it checked every page of the fill.

    Attributes:
        pages_checked: All pages of the fill.
        bad_pages: Those with at least one wrong byte.
        first_bad: The number of the first of them; None without any.
    """

    pages_checked: int
    bad_pages: int
    first_bad: int | None

    @property
    def intact(self) -> bool:
        """Whether every page is right; checking no page proves nothing."""
        return self.pages_checked > 0 and self.bad_pages == 0


@dataclass(frozen=True)
class DiskVerification:
    """What redline found when it read every block of a disk's fill.

    Attributes:
        blocks_checked: All blocks of the fill.
        bad_blocks: Those that could not be read, or with at least one wrong byte.
        first_bad: The number of the first of them; None without any.
        written: Blocks written again since redline began.
        failed: Writes that the disk refused; each may have left a bad block.
    """

    blocks_checked: int
    bad_blocks: int
    first_bad: int | None
    written: int
    failed: int

    @property
    def intact(self) -> bool:
        """Whether every block is right; checking no block proves nothing."""
        return self.blocks_checked > 0 and self.bad_blocks == 0 and self.failed == 0


class Redline:
    """One connection to a guest's redline; commands are sent one after another."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: Seconds
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._patience = patience
        self._in_step = False
        self._one_at_a_time = asyncio.Lock()
        # A random start, so that an answer to an earlier client is never taken for ours.
        self._last_id = secrets.randbelow(1 << 48)

    @classmethod
    @asynccontextmanager
    async def connect(cls, path: Path, patience: Seconds = PATIENCE) -> AsyncIterator[Self]:
        """Connect to the control port's socket, as soon as QEMU offers it.

        Args:
            path: The chardev's UNIX socket.
            patience: Seconds to wait for the socket, and later for each sign of life.

        Raises:
            LabError: There is no such socket within that time.
        """
        reader, writer = await _opened(path, patience)
        try:
            yield cls(reader, writer, patience)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def ready(self) -> RedlineStatus:
        """Wait until redline answers.

        Raises:
            LabError: It does not within the patience.
        """
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    with suppress(TimeoutError):
                        return _status(await self._ask({"do": "status"}, _ASK_AGAIN))
        except TimeoutError as error:
            raise self._silent("status") from error

    async def fill(self, load: Load, progress: Share | None = None) -> None:
        """Fill memory, then free what the load wants freed; dirtying begins at once.

        Raises:
            LabError: It does not fit the guest's memory; then nothing is filled.
        """
        words = {"do": "fill", "bytes": load.fill, "pattern": load.pattern, **_writing(load)}
        await self._told(words, progress)
        if load.freed:
            await self.free(load)

    async def change(self, load: Load) -> None:
        """Dirty otherwise from now on; the fill and its pattern stay as they are."""
        await self._told({"do": "load", **_writing(load)})

    async def free(self, load: Load, progress: Share | None = None) -> None:
        """Fill `load.freed` bytes and give them back, so that free memory holds old content."""
        words = {"do": "free", "bytes": load.freed, "pattern": load.pattern}
        await self._told(words, progress)

    async def stop(self) -> None:
        """Stop dirtying."""
        await self._told({"do": "stop"})

    async def start(self) -> None:
        """Dirty again under the load last given."""
        await self._told({"do": "start"})

    async def status(self) -> RedlineStatus:
        """Return what redline says of itself now."""
        return _status(await self._told({"do": "status"}))

    async def verify(self, progress: Share | None = None) -> Verification:
        """Check every page; writing pauses meanwhile."""
        reply = await self._told({"do": "verify"}, progress)
        first = _number(reply, "first_bad")
        bad = _number(reply, "bad_pages")
        return Verification(_number(reply, "pages_checked"), bad, first if bad else None)

    async def fill_disk(
        self, disk: str, size: Bytes, at: Bytes = 0, progress: Share | None = None
    ) -> None:
        """Write a disk's blocks from byte `at` on, and flush; `disk` is "/dev/vda" or the like."""
        await self._told({"do": "disk_fill", "disk": disk, "at": at, "bytes": size}, progress)

    async def load_disk(self, disk: str, hot: Bytes, rate: BytesPerSecond) -> None:
        """Keep writing blocks of the first `hot` bytes of its fill again; rate 0 stops it."""
        await self._told({"do": "disk_load", "disk": disk, "hot": hot, "rate": rate})

    async def verify_disk(self, disk: str, progress: Share | None = None) -> DiskVerification:
        """Read every block of a disk's fill; writing pauses meanwhile."""
        reply = await self._told({"do": "disk_verify", "disk": disk}, progress)
        first, bad = _number(reply, "first_bad"), _number(reply, "bad_blocks")
        return DiskVerification(
            _number(reply, "blocks_checked"),
            bad,
            first if bad else None,
            _number(reply, "written"),
            _number(reply, "failed"),
        )

    async def disk_written(self, disk: str) -> int:
        """Return how many blocks of a disk were written again since redline began."""
        reply = await self._told({"do": "disk_status", "disk": disk})
        return _number(reply, "written")

    async def corrupt(self, page: int) -> None:
        """Flip a bit in a page of the fill, so that a test can see `verify` find it."""
        await self._told({"do": "corrupt", "page": page})

    async def _told(self, words: dict[str, Any], progress: Share | None = None) -> dict[str, Any]:
        try:
            return await self._ask(words, self._patience, progress)
        except TimeoutError as error:
            raise self._silent(words["do"]) from error

    def _silent(self, command: str) -> LabError:
        return LabError(
            f'The guest\'s redline said nothing for {self._patience:g} s after "{command}".',
            "Look at the guest's serial console.",
        )

    async def _ask(
        self, words: dict[str, Any], silence: Seconds, progress: Share | None = None
    ) -> dict[str, Any]:
        """Send one command and return its answer; TimeoutError when nothing comes for `silence`."""
        async with self._one_at_a_time:
            self._last_id += 1
            # The newline in front ends what an earlier client left half sent.
            line = "\n" + json.dumps({"id": self._last_id, **words}) + "\n"
            try:
                self._writer.write(line.encode())
                await asyncio.wait_for(self._writer.drain(), silence)
                return await self._answer(silence, progress)
            except (OSError, EOFError, asyncio.LimitOverrunError) as error:
                if isinstance(error, TimeoutError):
                    raise
                raise LabError(
                    f'The connection to redline broke after "{words["do"]}": {error}.'
                ) from error

    async def _answer(self, silence: Seconds, progress: Share | None) -> dict[str, Any]:
        while True:
            async with asyncio.timeout(silence):
                reply = await self._reply()
            if "error" in reply:
                raise LabError(f"redline refused: {reply['error']}.")
            if "progress" not in reply:
                return reply
            if progress is not None:
                progress(float(reply["progress"]))

    async def _reply(self) -> dict[str, Any]:
        """Return the next line that answers the question asked last."""
        while True:
            line = await self._reader.readuntil(b"\n")
            reply = _parsed(line)
            if reply is None and self._in_step and line.strip():
                raise LabError(f"redline answered what cannot be read: {line[:200]!r}.")
            if reply is not None and reply.get("id") == self._last_id:
                self._in_step = True
                return reply


async def _opened(
    path: Path, patience: Seconds
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    failure: OSError | None = None
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            while True:
                try:
                    return await asyncio.open_unix_connection(path)
                except OSError as error:
                    failure = error
                await asyncio.sleep(_RETRY)
    raise LabError(f"redline's socket {path} cannot be reached: {failure}.") from failure


def _writing(load: Load) -> dict[str, Any]:
    return {
        "hot": load.hot,
        "dirty_rate": load.dirty_rate,
        "access": load.access,
        "touch": load.touch,
    }


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        reply = json.loads(line)
    except ValueError:
        return None
    return reply if isinstance(reply, dict) else None


def _number(reply: dict[str, Any], name: str) -> int:
    value = reply.get(name)
    if not isinstance(value, (int, float)):
        raise LabError(f"redline's answer has no figure {name}: {reply}.")
    return int(value)


def _status(reply: dict[str, Any]) -> RedlineStatus:
    return RedlineStatus(
        filled=_number(reply, "filled"),
        writing=bool(reply.get("writing")),
        pages_dirtied=_number(reply, "pages_dirtied"),
        rate=float(_number(reply, "rate")),
        rate_since=float(_number(reply, "rate_since")),
        memory_total=_number(reply, "memory_total"),
        memory_free=_number(reply, "memory_free"),
        memory_cached=_number(reply, "memory_cached"),
    )
