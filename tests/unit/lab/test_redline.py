import asyncio
import json
import shutil
import socket
import subprocess
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from whimbrel.errors import LabError
from whimbrel.lab.heartbeat import FrameReader
from whimbrel.lab.image import build_redline
from whimbrel.lab.redline import Redline, Verification
from whimbrel.model.scenario import Access, Load, Pattern
from whimbrel.model.units import KIB, MIB, PAGE

Answer = Callable[[dict[str, Any]], list[bytes]]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return build_redline()


def dump(program: Path, pattern: Pattern, pages: int, counter: int = 0) -> list[bytes]:
    words = [str(program), "dump", pattern, str(pages), str(counter)]
    data = subprocess.run(words, capture_output=True, check=True).stdout
    return [data[at : at + PAGE] for at in range(0, len(data), PAGE)]


@contextmanager
def running(program: Path, control: socket.socket, beat: socket.socket) -> Iterator[None]:
    """Run the guest's program as a process of this machine, on sockets instead of ports."""
    files = (control.fileno(), beat.fileno())
    with subprocess.Popen(
        [str(program), "serve", *map(str, files)], pass_fds=files, stdout=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.kill()


@asynccontextmanager
async def redline(program: Path, folder: Path) -> AsyncIterator[Redline]:
    """Connect a client to the guest's program."""
    with listening(folder / "control") as server:
        async with Redline.connect(folder / "control") as client:
            control, _ = server.accept()
            ours, beat = socket.socketpair()
            with control, ours, beat, running(program, control, beat):
                yield client


def listening(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)
    return server


def packed(data: bytes) -> float:
    """Return the share that zstd level 1 leaves; zlib's stands in where zstd is missing."""
    if shutil.which("zstd"):
        done = subprocess.run(["zstd", "-1", "-qc"], input=data, capture_output=True, check=True)
        return len(done.stdout) / len(data)
    return len(zlib.compress(data, 1)) / len(data)


def test_text_is_packed_to_a_third_as_a_stream_and_page_by_page(program: Path) -> None:
    pages = dump(program, Pattern.TEXT, 4096)
    assert 0.30 <= packed(b"".join(pages)) <= 0.37
    alone = [len(zlib.compress(page, 1)) for page in pages[::16]]
    assert max(alone) < 1.3 * min(alone)
    stream = len(zlib.compress(b"".join(pages[::16]), 1))
    assert sum(alone) == pytest.approx(stream, rel=0.1)


@pytest.mark.skipif(not shutil.which("zstd"), reason="only zstd has a window of 128 MiB")
def test_a_large_window_finds_nothing_that_a_small_one_does_not(program: Path) -> None:
    data = b"".join(dump(program, Pattern.TEXT, 8192))
    words = ["zstd", "-1", "--long=27", "-qc"]
    done = subprocess.run(words, input=data, capture_output=True, check=True)
    assert len(done.stdout) / len(data) == pytest.approx(packed(data), rel=0.02)


def test_random_pages_cannot_be_packed(program: Path) -> None:
    assert packed(b"".join(dump(program, Pattern.RANDOM, 2048))) > 0.99


@pytest.mark.parametrize("pattern", [Pattern.TEXT, Pattern.RANDOM, Pattern.CONSTANT])
def test_no_two_pages_are_alike_nor_a_page_before_and_after_a_write(
    program: Path, pattern: Pattern
) -> None:
    pages = dump(program, pattern, 2048) + dump(program, pattern, 2048, 1)
    assert len(set(pages)) == 4096


@pytest.mark.parametrize("pattern", list(Pattern))
def test_every_write_changes_the_first_byte_so_that_one_touched_byte_counts(
    program: Path, pattern: Pattern
) -> None:
    before, after = (dump(program, pattern, 200, counter) for counter in (5, 6))
    assert all(old[0] != new[0] for old, new in zip(before, after, strict=True))


def test_zero_pages_are_zero_until_they_are_written_again(program: Path) -> None:
    assert set(dump(program, Pattern.ZERO, 10)) == {bytes(PAGE)}
    assert all(page[8:] == bytes(PAGE - 8) for page in dump(program, Pattern.ZERO, 10, 3))


def test_mixed_memory_has_the_shares_that_the_docs_state(program: Path) -> None:
    pages = dump(program, Pattern.MIXED, 8192)
    zero = sum(not any(page) for page in pages)
    constant = sum(any(page) and page == page[:8] * (PAGE // 8) for page in pages)
    text = sum(0.2 < len(zlib.compress(page, 1)) / PAGE < 0.6 for page in pages)
    assert [zero, constant, text] == pytest.approx([2048, 819, 3277], rel=0.08)


def test_checking_no_page_proves_nothing() -> None:
    assert not Verification(0, 0, None).intact


@pytest.mark.parametrize("pattern", list(Pattern))
async def test_what_is_filled_and_written_is_verified(
    program: Path, tmp_path: Path, pattern: Pattern
) -> None:
    load = Load(fill=4 * MIB, pattern=pattern, hot=2 * MIB, dirty_rate=400e6, freed=MIB)
    async with redline(program, tmp_path) as client:
        await client.fill(load)
        await written(client, 2000)
        assert await client.verify() == Verification(1024, 0, None)


@pytest.mark.parametrize("access", list(Access))
async def test_changing_the_touched_bytes_keeps_verification_exact(
    program: Path, tmp_path: Path, access: Access
) -> None:
    load = Load(fill=2 * MIB, pattern=Pattern.TEXT, hot=MIB, dirty_rate=200e6, access=access)
    async with redline(program, tmp_path) as client:
        await client.fill(load)
        for touch in (4096, 100, 1, 17, 2048, 16, 4096, 33):
            await client.change(replace(load, touch=touch))
            await written(client, 500)
            assert (await client.verify()).intact


async def test_one_wrong_bit_is_found_whatever_was_touched(program: Path, tmp_path: Path) -> None:
    async with redline(program, tmp_path) as client:
        await client.fill(Load(fill=MIB, hot=MIB, dirty_rate=50e6, touch=64))
        await written(client, 1000)
        await client.corrupt(77)
        await client.corrupt(201)
        assert await client.verify() == Verification(256, 2, 77)


async def test_a_stopped_writer_writes_nothing_until_it_is_started(
    program: Path, tmp_path: Path
) -> None:
    async with redline(program, tmp_path) as client:
        await client.fill(Load(fill=MIB, hot=MIB, dirty_rate=50e6))
        await written(client, 100)
        await client.stop()
        stopped = await client.status()
        assert not stopped.writing
        assert (await client.verify()).intact
        assert (await client.status()).pages_dirtied == stopped.pages_dirtied
        await client.start()
        await written(client, 100)


async def test_a_refused_command_says_why_and_the_connection_stays(
    program: Path, tmp_path: Path
) -> None:
    async with redline(program, tmp_path) as client:
        await client.fill(Load(fill=64 * KIB))
        with pytest.raises(LabError, match="larger than the fill"):
            await client.change(Load(fill=MIB, hot=MIB, dirty_rate=1.0))
        with pytest.raises(LabError, match="does not fit"):
            await client.free(Load(fill=0, freed=1 << 42))
        with pytest.raises(LabError, match="no such page"):
            await client.corrupt(16)
        assert (await client.verify()).intact


async def test_a_disk_is_verified_against_what_was_written(program: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(2 * MIB))
    async with redline(program, tmp_path) as client:
        await client.fill_disk(str(disk), MIB, at=64 * KIB)
        await client.load_disk(str(disk), MIB // 2, 50e6)
        while await client.disk_written(str(disk)) < 200:
            pass  # every question waits for its answer
        await client.load_disk(str(disk), 0, 0)
        good = await client.verify_disk(str(disk))
        assert (good.blocks_checked, good.bad_blocks, good.failed) == (256, 0, 0)
        assert good.intact
        with disk.open("r+b") as file:
            file.seek(64 * KIB + 9 * PAGE + 5)
            file.write(b"?")
        bad = await client.verify_disk(str(disk))
        assert (bad.bad_blocks, bad.first_bad, bad.intact) == (1, 9, False)


async def test_a_disk_that_is_not_there_is_refused(program: Path, tmp_path: Path) -> None:
    async with redline(program, tmp_path) as client:
        with pytest.raises(LabError, match="no such disk"):
            await client.fill_disk(str(tmp_path / "nothing"), MIB)


async def written(client: Redline, pages: int) -> None:
    """Wait until that many more pages were written."""
    enough = (await client.status()).pages_dirtied + pages
    while (await client.status()).pages_dirtied < enough:
        pass  # every question waits for its answer


async def test_the_program_beats_in_order_and_tells_the_pages_written(
    program: Path, tmp_path: Path
) -> None:
    frames = FrameReader()
    with listening(tmp_path / "control") as server:
        async with Redline.connect(tmp_path / "control") as client:
            control, _ = server.accept()
            ours, beat = socket.socketpair()
            with control, ours, beat, running(program, control, beat):
                await client.fill(Load(fill=MIB, hot=MIB, dirty_rate=50e6))
                await written(client, 1000)
                beats = frames.feed(ours.recv(4096))
                while beats[-1].pages_dirtied < 1000:
                    beats += frames.feed(ours.recv(4096))
    assert [beat.sequence for beat in beats] == list(range(len(beats)))


@asynccontextmanager
async def scripted(folder: Path, answer: Answer, patience: float = 30) -> AsyncIterator[Redline]:
    """Connect a client to a guest that answers as a test says; [] ends the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            if not line.strip():
                continue
            lines = answer(json.loads(line))
            if not lines:
                break
            writer.write(b"".join(lines))
        writer.close()

    server = await asyncio.start_unix_server(serve, folder / "control")
    async with server, Redline.connect(folder / "control", patience) as client:
        yield client


def line(words: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"id": words["id"], **more}).encode() + b"\n"


async def test_rests_of_an_earlier_connection_are_skipped(tmp_path: Path) -> None:
    def answer(words: dict[str, Any]) -> list[bytes]:
        stale = line({"id": 1}, error="not for you")
        return [b'rest": 7}\n', stale[:9], b"\n", stale, line(words, ok=True)]

    async with scripted(tmp_path, answer) as client:
        await client.stop()


async def test_progress_is_told_in_order(tmp_path: Path) -> None:
    def answer(words: dict[str, Any]) -> list[bytes]:
        shares = [line(words, progress=share) for share in (0.25, 0.5)]
        return [*shares, line(words, pages_checked=3, bad_pages=0, first_bad=-1)]

    told: list[float] = []
    async with scripted(tmp_path, answer) as client:
        assert (await client.verify(told.append)).intact
    assert told == [0.25, 0.5]


async def test_an_unreadable_answer_is_an_error_once_in_step(tmp_path: Path) -> None:
    answers: Iterator[bytes] = iter([b"", b"nonsense\n"])

    async with scripted(tmp_path, lambda words: [next(answers), line(words, ok=True)]) as client:
        await client.stop()
        with pytest.raises(LabError, match="cannot be read"):
            await client.stop()


async def test_an_answer_without_its_figures_is_an_error(tmp_path: Path) -> None:
    async with scripted(tmp_path, lambda words: [line(words, pages_checked=3)]) as client:
        with pytest.raises(LabError, match="no figure first_bad"):
            await client.verify()


@pytest.mark.parametrize("what", ["status", "ready", "verify"])
async def test_a_broken_connection_is_an_error(tmp_path: Path, what: str) -> None:
    async with scripted(tmp_path, lambda _: []) as client:
        ask: Callable[[], Awaitable[object]] = getattr(client, what)
        with pytest.raises(LabError, match="broke"):
            await ask()


async def test_a_silent_guest_is_an_error_after_the_patience(tmp_path: Path) -> None:
    # The same patience is that for the connection, which a busy machine takes its time for.
    async with scripted(tmp_path, lambda _: [b"\n"], patience=0.3) as client:
        with pytest.raises(LabError, match=r"said nothing for 0\.3 s"):
            await client.status()
        with pytest.raises(LabError, match=r"said nothing for 0\.3 s"):
            await client.ready()


async def test_a_socket_that_does_not_appear_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="cannot be reached"):
        async with Redline.connect(tmp_path / "nowhere", 0.05):
            pass
