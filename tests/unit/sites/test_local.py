"""The way onto this machine, and questions over it."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from whimbrel.errors import CommandRefused, HostError, HostUnreachable, ProtocolError
from whimbrel.ports import Finished
from whimbrel.sites import lines, program
from whimbrel.sites.local import LocalShell
from whimbrel.sites.onsite import serve
from whimbrel.sites.site import OnSite


@pytest.fixture
async def shell() -> AsyncIterator[LocalShell]:
    made = LocalShell("here")
    yield made
    await made.close()


@pytest.fixture
async def site(shell: LocalShell) -> AsyncIterator[OnSite]:
    async with OnSite(shell, "/nowhere") as made:
        yield made


async def test_a_command_gets_its_words_one_by_one_and_its_input(shell: LocalShell) -> None:
    done = await shell.run(["printf", "%s|", "a b", "$HOME", "'"])
    assert done == Finished(0, b"a b|$HOME|'|", b"")
    assert (await shell.run(["cat"], given=b"x\0y")).output == b"x\0y"
    assert (await shell.run(["cat"])).output == b""


async def test_how_a_command_ended_is_told(shell: LocalShell) -> None:
    done = await shell.run(["sh", "-c", "echo no >&2; exit 3"])
    assert (done.code, done.errors) == (3, b"no\n")
    assert (await shell.run(["sh", "-c", "kill -9 $$"])).code == -9


async def test_a_command_that_does_not_end_is_ended(shell: LocalShell) -> None:
    with pytest.raises(HostUnreachable, match="sleep did not end"):
        await shell.run(["sleep", "600"], within=0.05)


async def test_an_interrupt_at_the_terminal_does_not_reach_a_command(shell: LocalShell) -> None:
    done = await shell.run(["ps", "-o", "sid=", "-p", str(os.getpid())])
    here = int(done.output)
    done = await shell.run(["sh", "-c", "ps -o sid= -p $$"])
    assert int(done.output) not in {here, os.getsid(0)}


async def test_a_missing_program_is_named(shell: LocalShell) -> None:
    with pytest.raises(HostError, match="no-such-program is not installed"):
        await shell.run(["no-such-program"])
    with pytest.raises(HostError, match="cannot be run"):
        await shell.run(["/etc/passwd"])


async def test_the_launcher_stands_before_every_command() -> None:
    shell = LocalShell("there", lambda words: ["env", "PLACE=there", *words])
    assert (await shell.run(["printenv", "PLACE"])).output == b"there\n"
    talk = await shell.talk(["printenv", "PLACE"])
    assert await talk.read_line() == b"there\n"
    await shell.close()


async def test_a_talk_that_ends_gives_its_last_words(shell: LocalShell) -> None:
    talk = await shell.talk(["sh", "-c", "echo one; yes noise | head -c 300000 >&2; echo why >&2"])
    assert await talk.read_line() == b"one\n"
    with pytest.raises(HostUnreachable, match=r"why$"):
        await talk.read_line()


async def test_a_talk_ends_with_its_shell() -> None:
    shell = LocalShell("here")
    talk = await shell.talk(["sh", "-c", "echo $$; exec sleep 600"])
    pid = int(await talk.read_line())
    await shell.close()
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(HostUnreachable):
        await talk.read_line()


async def test_neither_full_pipes_nor_children_that_hold_them_keep_a_shell_from_closing() -> None:
    shell = LocalShell("here")
    await shell.talk(["cat", "/dev/zero"])
    talk = await shell.talk(["sh", "-c", "sleep 600 & echo $!; exec cat /dev/zero"])
    child = int(await talk.read_line())
    with pytest.raises(HostUnreachable):
        await shell.run(["cat", "/dev/zero"], within=0.05)
    async with asyncio.timeout(10):
        await shell.close()
    os.kill(child, signal.SIGKILL)


async def test_a_socket_whose_path_is_too_long_gets_a_short_one(tmp_path: Path) -> None:
    shell = LocalShell("here")
    long = str(tmp_path / ("d" * 60) / ("s" * 60))
    short = await shell.socket(long)
    assert len(os.fsencode(short)) < 108
    assert short.readlink() == Path(long)
    assert short.parent.stat().st_mode & 0o077 == 0
    assert await shell.socket("/run/short") == Path("/run/short")
    await shell.close()
    assert not short.parent.exists()


async def test_an_unknown_question_is_refused_by_name(site: OnSite) -> None:
    with pytest.raises(CommandRefused, match="no question bogus"):
        await site.ask("bogus")


async def test_a_question_that_breaks_a_pipe_of_its_own_is_refused_and_the_next_is_answered(
    shell: LocalShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks = "def breaks():\n    raise BrokenPipeError('its own')\nQUESTIONS = {'breaks': breaks}"
    modules = [("serve", Path(serve.__file__).read_text()), ("breaks", breaks)]
    monkeypatch.setattr(program, "text", lambda: json.dumps(modules).encode() + b"\n")
    async with OnSite(shell, "/nowhere") as site:
        for _ in range(2):
            with pytest.raises(CommandRefused, match="its own"):
                await site.ask("breaks")


async def test_wrong_arguments_are_refused_in_pythons_words(site: OnSite) -> None:
    with pytest.raises(CommandRefused, match="nonsense"):
        await site.ask("facts", nonsense=1)


async def test_a_host_without_python_says_so_in_its_own_words() -> None:
    words = ["sh", "-c", "echo python3: command not found >&2; exit 127"]
    async with OnSite(LocalShell("bare", lambda _: words), "/nowhere") as site:
        with pytest.raises(HostUnreachable, match="command not found") as caught:
            await site.ask("facts")
    assert "python3" in caught.value.hint


async def test_what_a_login_writes_before_the_program_is_passed_over() -> None:
    def greeting(words: Sequence[str]) -> list[str]:
        return ["sh", "-c", 'echo Welcome; echo; echo "{}"; exec "$@"', "sh", *words]

    async with OnSite(LocalShell("polite", greeting), "/nowhere") as site:
        with pytest.raises(CommandRefused):
            await site.ask("bogus")


async def test_a_program_that_never_begins_is_not_waited_for_without_end() -> None:
    words = ["sh", "-c", "exec 3<&0; cat <&3 >/dev/null & exec yes"]
    async with OnSite(LocalShell("odd", lambda _: words), "/nowhere") as site:
        with pytest.raises(ProtocolError, match="when it was to begin"):
            await site.ask("facts")


class Script:
    """A shell whose program says what a test has written."""

    name = "scripted"

    def __init__(self) -> None:
        self.says: asyncio.Queue[bytes] = asyncio.Queue()
        self.heard: list[dict[str, Any]] = []
        self.says.put_nowait(program.READY)

    async def talk(self, words: Sequence[str]) -> "Script":
        return self

    async def write(self, content: bytes) -> None:
        if content != program.text():
            self.heard.append(json.loads(content))

    async def read_line(self) -> bytes:
        line = await self.says.get()
        if not line:
            raise HostUnreachable("gone")
        return line

    async def run(
        self, words: Sequence[str], *, given: bytes = b"", within: float = 60
    ) -> Finished:
        raise NotImplementedError

    async def socket(self, path: str) -> Path:
        raise NotImplementedError

    async def close(self) -> None:
        pass


async def test_no_question_waits_on_when_the_connection_breaks_and_later_ones_fail_too() -> None:
    script = Script()
    async with OnSite(script, "/nowhere") as site:
        asked = [asyncio.create_task(site.ask("facts")) for _ in range(3)]
        while len(script.heard) < 3:  # noqa: ASYNC110 - until all are asked
            await asyncio.sleep(0)
        script.says.put_nowait(b"")
        for each in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(each, HostUnreachable)
        with pytest.raises(HostUnreachable, match="gone"):
            await site.ask("facts")


async def test_no_question_waits_on_when_the_site_is_closed() -> None:
    script = Script()
    site = OnSite(script, "/nowhere")
    asked = asyncio.create_task(site.ask("facts"))
    while not script.heard:  # noqa: ASYNC110 - until it is asked
        await asyncio.sleep(0)
    await site.close()
    with pytest.raises(HostUnreachable, match="closed"):
        await asked
    with pytest.raises(HostUnreachable, match="closed"):
        await site.ask("facts")


async def test_an_answer_that_comes_too_late_is_dropped_and_the_next_question_answered() -> None:
    script = Script()
    async with OnSite(script, "/nowhere") as site:
        with pytest.raises(HostUnreachable, match="did not answer"):
            await site.ask("facts", within=0.02)
        script.says.put_nowait(b'{"id": 1, "answer": "late"}\n')
        script.says.put_nowait(b'{"id": 2, "answer": "in time"}\n')
        assert await site.ask("facts") == "in time"


@pytest.mark.parametrize("nonsense", ["!", "AAAA"])
async def test_bytes_that_cannot_be_read_fail_their_question_only(nonsense: str) -> None:
    script = Script()
    async with OnSite(script, "/nowhere") as site:
        broken = {"id": 1, "answer": {"$bytes": nonsense}}
        script.says.put_nowait(json.dumps(broken).encode() + b"\n")
        script.says.put_nowait(b'{"id": 2, "answer": 7}\n')
        asked = [asyncio.create_task(site.ask("facts")) for _ in range(2)]
        with pytest.raises(ProtocolError):
            await asked[0]
        assert await asked[1] == 7


async def test_a_line_without_end_is_refused(
    shell: LocalShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LONGEST", 1 << 16)
    talk = await shell.talk(["cat", "/dev/zero"])
    with pytest.raises(ProtocolError, match="a line of more than"):
        await talk.read_line()
