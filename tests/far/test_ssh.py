"""The way over SSH as a real sshd answers, and questions over it."""

import asyncio
import json
import stat
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from far.hosts import FarHost, FarHosts, needs_far_hosts
from whimbrel.errors import CommandRefused, HostUnreachable
from whimbrel.lab.namespaces import inhabitants
from whimbrel.ports import Finished
from whimbrel.sites import program, ssh
from whimbrel.sites.connect import connect, shell
from whimbrel.sites.onsite import serve

pytestmark = needs_far_hosts

ECHO = """
import time
def echo(value, after=0.0):
    time.sleep(after)
    return value
def grow(size):
    return bytes(range(256)) * (size // 256)
def shout(size):
    import os
    os.write(2, b"noise" * (size // 5))
    return size
QUESTIONS = {"echo": echo, "grow": grow, "shout": shout}
"""


@pytest.fixture
def _echoing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bring a program along that answers what a test needs."""
    modules = [("serve", Path(serve.__file__).read_text()), ("echo", ECHO)]
    line = json.dumps(modules).encode() + b"\n"
    monkeypatch.setattr(program, "text", lambda: line)


async def test_words_arrive_one_by_one_whatever_they_hold(far: FarHosts) -> None:
    way = shell(far.a.host)
    done = await way.run(["printf", "%s|", "a b", "$HOME", "'", "`id`", "*", ""])
    assert done == Finished(0, b"a b|$HOME|'|`id`|*||", b"")
    assert (await way.run(["cat"], given=b"x\0y\n")).output == b"x\0y\n"
    assert (await way.run(["cat"])).output == b""
    await way.close()


async def test_how_a_command_ended_is_told(far: FarHosts) -> None:
    way = shell(far.a.host)
    done = await way.run(["sh", "-c", "echo no >&2; exit 3"])
    assert (done.code, done.errors) == (3, b"no\n")
    assert (await way.run(["sh", "-c", "kill -9 $$"])).code == -9
    assert (await way.run(["no-such-program"])).code == 127
    with pytest.raises(HostUnreachable, match="sleep did not end"):
        await way.run(["sleep", "600"], within=0.2)
    await way.close()


async def test_a_host_whose_key_is_not_known_is_refused(far: FarHosts) -> None:
    changed = far.folder / "changed"
    theirs = Path(str(far.b.host.known_hosts)).read_text().partition(" ")[2]
    changed.write_text(f"[10.98.1.2]:2222 {theirs}")
    for known in (far.b.host.known_hosts, changed):
        way = shell(replace(far.a.host, known_hosts=known))
        with pytest.raises(HostUnreachable, match="host key"):
            await way.run(["true"])
        await way.close()


async def test_a_file_of_known_hosts_that_is_not_there_is_named(far: FarHosts) -> None:
    way = shell(replace(far.a.host, known_hosts=far.folder / "none"))
    with pytest.raises(HostUnreachable, match="/none cannot be read"):
        await way.run(["true"])


async def test_nobodys_ssh_configuration_switches_the_check_of_host_keys_off(
    far: FarHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    (far.folder / ".ssh").mkdir()
    (far.folder / ".ssh" / "config").write_text(
        "StrictHostKeyChecking no\nUserKnownHostsFile none\n"
    )
    monkeypatch.setenv("HOME", str(far.folder))
    way = shell(replace(far.a.host, known_hosts=None))
    with pytest.raises(HostUnreachable, match="host key"):
        await way.run(["true"])
    await way.close()


async def test_the_users_own_known_hosts_are_trusted(
    far: FarHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    (far.folder / ".ssh").mkdir()
    known = Path(str(far.a.host.known_hosts)).read_text()
    (far.folder / ".ssh" / "known_hosts").write_text(known)
    monkeypatch.setenv("HOME", str(far.folder))
    way = shell(replace(far.a.host, known_hosts=None))
    assert (await way.run(["true"])).code == 0
    await way.close()


async def test_a_user_whose_key_is_not_let_in_is_told_what_to_try(far: FarHosts) -> None:
    way = shell(replace(far.a.host, identity=far.b.host.identity))
    with pytest.raises(HostUnreachable, match="takes none of your SSH keys") as caught:
        await way.run(["true"])
    assert caught.value.hint.startswith("Try: ssh -p 2222 root@")
    await way.close()


async def test_a_key_that_cannot_be_read_is_named(far: FarHosts) -> None:
    way = shell(replace(far.a.host, identity=far.folder / "no-key"))
    with pytest.raises(HostUnreachable, match="no-key"):
        await way.run(["true"])
    (far.folder / "no-key").write_text("this is no key")
    with pytest.raises(HostUnreachable, match="no-key"):
        await way.run(["true"])
    await way.close()


async def test_a_socket_there_is_one_here_that_nobody_else_may_use(far: FarHosts) -> None:
    there = str(far.folder / "there.sock")
    served = asyncio.Event()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        writer.close()
        served.set()

    server = await asyncio.start_unix_server(serve_one, there)
    way = shell(far.a.host)
    here = await way.socket(there)
    assert await way.socket(there) == here
    assert stat.S_IMODE(here.stat().st_mode) == 0o600
    assert stat.S_IMODE(here.parent.stat().st_mode) == 0o700
    reader, writer = await asyncio.open_unix_connection(str(here))
    writer.write(b"hello\n")
    assert await reader.read() == b"HELLO\n"
    writer.close()
    await writer.wait_closed()
    await served.wait()
    await way.close()
    assert not here.parent.exists()
    server.close()
    await server.wait_closed()


async def test_a_socket_where_nobody_listens_ends_at_once(far: FarHosts) -> None:
    way = shell(far.a.host)
    here = await way.socket("/nowhere/at/all")
    reader, writer = await asyncio.open_unix_connection(str(here))
    assert await reader.read() == b""
    writer.close()
    await way.close()


@pytest.mark.usefixtures("_echoing")
async def test_many_questions_at_once_are_each_answered(far: FarHosts) -> None:
    async with connect(far.a.host) as site:
        asked = [site.ask("echo", value=[number, b"x" * number]) for number in range(300)]
        answers = await asyncio.gather(*asked)
    assert answers == [[number, b"x" * number] for number in range(300)]


@pytest.mark.usefixtures("_echoing")
async def test_sixteen_megabytes_go_there_and_come_back(far: FarHosts) -> None:
    size = 16 << 20
    async with connect(far.a.host) as site:
        assert len(await site.ask("grow", size=size)) == size
        poorly_packed = (
            b"".join(zlib.crc32(n.to_bytes(4, "big")).to_bytes(4, "big") for n in range(1 << 20))
            * 4
        )
        assert await site.ask("echo", value=poorly_packed) == poorly_packed


@pytest.mark.usefixtures("_echoing")
async def test_a_host_that_complains_a_lot_still_answers(far: FarHosts) -> None:
    async with connect(far.a.host) as site:
        assert await site.ask("shout", size=5_000_000) == 5_000_000


@pytest.mark.usefixtures("_echoing")
async def test_sshd_killed_amid_a_question_is_noticed_at_once(far: FarHosts) -> None:
    async with connect(far.a.host) as site:
        assert await site.ask("echo", value=1) == 1
        waiting = asyncio.create_task(site.ask("echo", value=2, after=600.0))
        await asyncio.sleep(0)
        far.a.kill_sshd()
        with pytest.raises(HostUnreachable, match="The connection to a broke"):
            await waiting
        with pytest.raises(HostUnreachable):
            await site.ask("echo", value=3)
    await far.a.restart_sshd()
    async with connect(far.a.host) as again:
        assert await again.ask("echo", value=4) == 4


@pytest.mark.usefixtures("_echoing")
async def test_a_host_gone_silent_is_noticed_though_no_answer_is_due(
    far: FarHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "ALIVE_EVERY", 0.1)
    async with connect(far.a.host) as site:
        assert await site.ask("echo", value=1) == 1
        far.a.cut_control()
        with pytest.raises(HostUnreachable):
            await site.ask("echo", value=2, after=600.0, within=600.0)


async def test_the_real_program_refuses_a_question_that_it_does_not_know(far: FarHosts) -> None:
    async with connect(far.a.host) as site:
        with pytest.raises(CommandRefused, match="a: there is no question bogus"):
            await site.ask("bogus")


@pytest.mark.usefixtures("_echoing")
async def test_the_program_ends_with_the_connection_even_amid_a_question(far: FarHosts) -> None:
    async with connect(far.a.host) as site:
        await site.ask("echo", value=1)
        waiting = asyncio.create_task(site.ask("echo", value=2, after=600.0))
        await asyncio.sleep(0)
        assert programs(far.a)
    with pytest.raises(HostUnreachable):
        await waiting
    async with asyncio.timeout(10):
        while programs(far.a):  # noqa: ASYNC110 - the kernel is asked
            await asyncio.sleep(0.01)


async def test_a_host_whose_ssh_is_down_is_said_with_what_to_try(far: FarHosts) -> None:
    far.a.kill_sshd()
    await far.a.stopped()
    site = connect(far.a.host)
    with pytest.raises(HostUnreachable, match=r"no SSH connection to 10\.98\.1\.2, port 2222"):
        await site.ask("facts")
    await site.close()


async def test_a_host_that_is_off_is_left_long_before_a_busy_one_would_be(
    far: FarHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "REACHED_WITHIN", 0.2)
    monkeypatch.setattr(ssh, "CONNECT_WITHIN", 3600.0)
    far.a.cut_control()  # what is sent vanishes, as with a machine that is off
    site = connect(far.a.host)
    try:
        with pytest.raises(HostUnreachable, match="nothing took the connection"):
            await site.ask("facts", within=600.0)
    finally:
        await site.close()
        far.a.restore_control()


def programs(far: FarHost) -> list[int]:
    """Return the pids of whimbrel's programs on a host."""
    found = []
    for pid in inhabitants(far.lab.namespace):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"python3\0-I\0" in words:
            found.append(pid)
    return found
