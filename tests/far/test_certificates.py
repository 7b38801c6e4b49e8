"""The way from whimbrel.toml to a move that the user's own certificates encrypt."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from contract.certificates import Authority
from far.hosts import needs_far_hosts
from far.person import Person, person
from whimbrel.errors import ExitCode
from whimbrel.lab.namespaces import inhabitants
from whimbrel.model.units import MIB

pytestmark = [needs_far_hosts, pytest.mark.timeout(300)]

NAME = "b.example.org"
WORDS = ("db", "--to", "b", "--survey", "none", "--json")


@pytest.fixture
async def at() -> AsyncIterator[Person]:
    async with person(trusted=False) as somebody:
        yield somebody


def describe(at: Person, folders: Mapping[str, str], name: str = NAME) -> None:
    """Write the folders of certificates into whimbrel.toml."""
    plain = [line for line in at.config.read_text().splitlines() if "certificate" not in line]
    lines = []
    for line in plain:
        lines.append(line)
        for host, folder in folders.items():
            if line == f"[hosts.{host}]":
                lines.append(f'certificates = "{folder}"')
                lines += [f'certificate_name = "{name}"'] if host == "b" else []
    at.config.write_text("\n".join(lines))


async def with_disk(at: Person) -> Path:
    """Start "db" on a with a disk of its own, and return where its disk may go."""
    here, there = at.far.folder / "here", at.far.folder / "there"
    here.mkdir()
    there.mkdir()
    disk = f'[[disks]]\nname = "vda"\npath = "{here}/db.img"\nsize = "32 MiB"\n'
    await at.up("db", more=disk)
    async with at.redline("db", "a") as guest:
        await guest.fill_disk("/dev/vda", 4 * MIB)
    return there


async def test_certificates_that_both_hosts_name_encrypt_memory_and_disks(at: Person) -> None:
    ours, others = Authority("ours"), Authority("others")
    client = ours.folder(at.far.folder / "client", "client", "a.example.org")
    server = ours.folder(at.far.folder / "server", "server", NAME)
    strange = others.folder(at.far.folder / "strange", "client", "a.example.org")
    there = await with_disk(at)

    # Of another authority: nobody comes in, and the guest stays.
    describe(at, {"a": strange, "b": server})
    said = await at.whimbrel("move", *WORDS, "--storage", str(there))
    assert said.code in {ExitCode.SAFE_AT_SOURCE, ExitCode.HOST}, said.errors
    assert await at.places("db") == ["a"]
    assert list(there.iterdir()) == []

    describe(at, {"a": client, "b": server})
    said = await at.whimbrel("move", *WORDS, "--storage", str(there))
    assert said.code in {ExitCode.DONE, ExitCode.GOAL_MISSED}, said.errors
    assert "the user's certificates" in said.json["encryption"]
    assert said.json["tuning"]["encrypted"]
    async with at.redline("db", "b") as guest:
        assert (await guest.verify_disk("/dev/vda")).intact


async def test_what_is_missing_in_a_folder_is_found_before_anything_is_begun(at: Person) -> None:
    ours = Authority("ours")
    client = ours.folder(at.far.folder / "client", "client", "a.example.org")
    server = ours.folder(at.far.folder / "server", "server", NAME)
    Path(server, "server-key.pem").unlink()
    await at.up("db")
    describe(at, {"a": client, "b": server})
    said = await at.whimbrel("move", *WORDS)
    assert said.code == ExitCode.NO_PLAN
    assert f"no server-key.pem in {server} on b" in said.errors
    assert not [
        pid
        for pid in inhabitants(at.far.b.lab.namespace)
        if Path(f"/proc/{pid}/comm").read_text().startswith("qemu")
    ]


async def test_where_one_host_names_none_a_key_is_made_for_the_move(at: Person) -> None:
    ours = Authority("ours")
    await at.up("db")
    describe(at, {"a": ours.folder(at.far.folder / "client", "client", "a.example.org")})
    said = await at.whimbrel("move", *WORDS)
    assert said.code in {ExitCode.DONE, ExitCode.GOAL_MISSED}, said.errors
    assert "a key made for this move alone" in said.json["encryption"]
