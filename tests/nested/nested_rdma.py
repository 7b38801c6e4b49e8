"""Moves by RDMA over soft-RoCE, by the real command on nested hosts; run by ./run test-nested.

there and back ─► what the survey asks of the device ─► what cannot go beside it ─► preflight
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from nested.person import Person, person
from whimbrel.errors import CommandRefused, ExitCode
from whimbrel.hypervisors.qemu import ResidentHost, hypervisor
from whimbrel.lab.nested import rdma
from whimbrel.lab.nested.hosts import nested_hosts
from whimbrel.model.inventory import MigrationAddress, Vm
from whimbrel.model.method import Postcopy, Transport, Tuning
from whimbrel.model.scenario import Load
from whimbrel.model.units import MIB
from whimbrel.practice.rdma import RDMA_PAYLOAD, rdma_rate
from whimbrel.sites.connect import connect

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]

MEMORY, FILL = 128 * MIB, 8 * MIB
PAGES = FILL // 4096
CALM = ("--max-downtime", "30 s")
RDMA = ("--method", "rdma", *CALM)
QUICK = ("--survey", "quick", "--json")
UNSEEN = ("--survey", "none")


@dataclass(frozen=True)
class Kept:
    """A plan of a move by RDMA from a to b.

    Attributes:
        file: Where it was kept.
        said: What it says.
    """

    file: Path
    said: Mapping[str, Any]

    def beside(self, more: Mapping[str, object]) -> Path:
        """Return a copy of it whose tuning asks for more."""
        saved = self.said["saved"]
        other = {**self.said, "saved": {**saved, "tuning": {**saved["tuning"], **more}}}
        file = self.file.with_name("more.json")
        file.write_text(json.dumps(other))
        return file


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def at(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Person]:
    """Somebody with a filled guest on a, and an RDMA device on both hosts."""
    folder = tmp_path_factory.mktemp("person")
    async with nested_hosts("a", "b") as nested:
        await asyncio.gather(*(rdma.add_device(host) for host in nested.values()))
        async with person(nested, "a", "b", folder=folder) as someone:
            await someone.up("db", on="a", memory=MEMORY, load=Load(fill=FILL))
            yield someone


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kept(at: Person) -> Kept:
    """Return a plan that whimbrel has made and kept."""
    file = at.config.with_name("kept.json")
    said = await at.done("plan", "db", "--to", "b", *RDMA, *QUICK, "--save", str(file))
    return Kept(file, said.json)


async def test_a_guest_moves_by_rdma_as_predicted_in_outline(at: Person) -> None:
    said = (await at.done("move", "db", "--to", "b", *RDMA, *QUICK)).json
    assert await at.places("db") == ["b"]
    assert await at.intact("db", on="b") == PAGES
    assert said["tuning"]["transport"] == "rdma"
    # Chunks that nobody has touched are only told of, and theory says so beforehand.
    assert FILL <= said["observed"]["hypervisor_bytes"] < MEMORY
    assert FILL <= said["predicted"]["wire_bytes"]["p50"] < MEMORY


async def test_with_pin_all_every_page_is_sent_zero_or_not(at: Person) -> None:
    said = await at.done("move", "db", "--to", "a", *RDMA, "--pin-all", *QUICK)
    assert "all memory pinned" in said.errors
    assert said.json["observed"]["hypervisor_bytes"] >= MEMORY
    assert said.json["predicted"]["wire_bytes"]["p50"] >= MEMORY
    assert await at.places("db") == ["a"]
    assert await at.intact("db", on="a") == PAGES


async def test_the_survey_asks_the_device_and_believes_no_emulated_one(
    at: Person, kept: Kept
) -> None:
    assert kept.said["chosen"]["tuning"]["transport"] == "rdma"
    assert kept.said["survey"]["survey"]["link"]["rdma"] is None
    there = at.hosts["b"]
    async with connect(there.host) as site:
        [port], interfaces = await site.ask("rdma_ports"), await site.ask("interfaces")
    assert (port["device"], port["interfaces"]) == (rdma.device(), ["eth1"])
    assert port["active"]
    assert port["software"]
    # All but that is what a card would say: the kernel's own words of its rate and its NIC.
    card = {**port, "software": False}
    assert rdma_rate([port], interfaces, there.addresses[0]) is None
    assert rdma_rate([card], interfaces, there.addresses[0]) == port["rate"] * RDMA_PAYLOAD


@pytest.mark.parametrize(
    ("flags", "code", "why", "instead"),
    [
        (("--channels", "4"), ExitCode.CONFIG, "several channels", "--method multichannel"),
        (("--postcopy",), ExitCode.CONFIG, "post-copy", "--method postcopy"),
        (("--prepare-network",), ExitCode.CONFIG, "several NICs", "--method multinic"),
        (
            ("--encryption", "always"),
            ExitCode.NO_PLAN,
            "QEMU cannot encrypt RDMA",
            "choose another method",
        ),
    ],
    ids=lambda each: str(each[0]) if isinstance(each, tuple) else None,
)
async def test_what_rdma_cannot_have_beside_it_is_refused_before_anything_is_begun(
    at: Person, flags: tuple[str, ...], code: ExitCode, why: str, instead: str
) -> None:
    said = await at.whimbrel("move", "db", "--to", "b", *RDMA, *UNSEEN, *flags)
    assert said.code == code, said.errors
    assert why in said.errors
    assert instead in said.errors
    await untouched(at)


@pytest.mark.parametrize(
    ("more", "why", "instead"),
    [
        ({"channels": 2}, "several channels", "multichannel"),
        (
            {"channels": 2, "compression": {"codec": "zstd", "level": 1}},
            "several channels and compression",
            "compressed",
        ),
        ({"xbzrle_cache": 64 * MIB}, "differences of pages (XBZRLE)", "xbzrle"),
        ({"postcopy": Postcopy.IF_STALLED.value}, "post-copy", "postcopy"),
        ({"multipath": True}, "several NICs (MPTCP)", "multinic"),
    ],
    ids=lambda each: "-".join(each) if isinstance(each, dict) else None,
)
async def test_a_plan_that_asks_for_it_is_refused_before_anything_is_begun(
    at: Person, kept: Kept, more: Mapping[str, object], why: str, instead: str
) -> None:
    words = ("--plan", str(kept.beside(more)), "--anyway")
    said = await at.whimbrel("move", "db", "--to", "b", *words)
    assert said.code == ExitCode.NO_PLAN, said.errors
    assert f"QEMU cannot move by RDMA together with {why}." in said.errors
    assert instead in said.errors
    await untouched(at)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (Tuning(transport=Transport.RDMA, channels=2), "multi-channel URIs|RDMA and multifd"),
        (Tuning(transport=Transport.RDMA, xbzrle_cache=64 * MIB), "RDMA and XBZRLE"),
    ],
    ids=["channels", "xbzrle"],
)
async def test_qemu_itself_refuses_what_whimbrel_refuses_before(
    at: Person, monkeypatch: pytest.MonkeyPatch, asked: Tuning, why: str
) -> None:
    monkeypatch.setattr(hypervisor, "rdma_refusal", lambda _: None)
    there, vm = at.hosts["b"], Vm("probe", 64 * MIB, accelerator="tcg")
    address = MigrationAddress(there.addresses[0], 4444)
    async with connect(there.host) as site, ResidentHost("b", site) as host:
        with pytest.raises(CommandRefused, match=why):
            await host.receive(vm, asked, address)
    await untouched(at)


async def test_a_device_on_another_nic_than_the_migration_addresss_is_told_beforehand(
    at: Person, kept: Kept
) -> None:
    there = at.hosts["b"]
    await rdma.remove_device(there)
    await rdma.add_device(there, 0)
    try:
        said = await at.whimbrel("move", "db", "--to", "b", *RDMA, *UNSEEN)
        planned = await at.whimbrel("move", "db", "--to", "b", "--plan", str(kept.file), "--anyway")
    finally:
        await rdma.remove_device(there, 0)
        await rdma.add_device(there)
    for each in (said, planned):
        assert each.code == ExitCode.NO_PLAN, each.errors
        assert f"On b the migration address {there.addresses[0]} is on eth1" in each.errors
        assert f"no RDMA device ({rdma.device(0)} is on eth0)" in each.errors
        assert "netdev eth1   # on b" in each.errors
    await untouched(at)


async def test_memory_that_may_not_be_pinned_is_told_beforehand(at: Person) -> None:
    await at.hosts["b"].limit_pinning(64)
    said = await at.whimbrel("move", "db", "--to", "b", *RDMA, *UNSEEN)
    assert said.code == ExitCode.NO_PLAN
    assert "On b only 64 KiB may be pinned; the guest has 128 MiB." in said.errors
    assert "ulimit -l unlimited" in said.errors
    await untouched(at)


async def test_nor_is_rdma_weighed_then(at: Person) -> None:
    said = (await at.whimbrel("plan", "db", "--to", "b", *CALM, *QUICK)).json
    reasons = {each["method"]: each["rejected"] for each in said["candidates"]}
    assert reasons["rdma"] == "On b only 64 KiB may be pinned; the guest has 128 MiB."
    [check] = [each for each in said["checks"] if each["name"] == "RDMA"]
    assert check["result"] == "warn"
    assert said["chosen"]["tuning"]["transport"] == "tcp"


async def test_a_host_without_a_device_is_told_beforehand(at: Person) -> None:
    await rdma.remove_device(at.hosts["b"])
    said = await at.whimbrel("move", "db", "--to", "b", *RDMA, *UNSEEN)
    assert said.code == ExitCode.NO_PLAN
    assert "b has no RDMA device." in said.errors
    assert "rdma link add" in said.errors
    await untouched(at)


async def test_a_plan_by_rdma_is_refused_where_the_device_is_gone_since(
    at: Person, kept: Kept
) -> None:
    said = await at.whimbrel("move", "db", "--to", "b", "--plan", str(kept.file), "--anyway")
    assert said.code == ExitCode.NO_PLAN
    assert "b has no RDMA device." in said.errors
    await untouched(at)


async def untouched(at: Person) -> None:
    """Assert that the guest runs where it was, and that nothing of a move is on b."""
    assert await at.places("db") == ["a"]
    seen = await at.hosts["b"].tried("pgrep", "-x", "qemu-system-x86")
    assert seen.code == 1, f"a QEMU runs on b: {seen.output.decode()}"
    left = "find /run/whimbrel/vms /run/whimbrel/moves -mindepth 1 2>/dev/null || true"
    assert await at.hosts["b"].run("sh", "-c", left) == ""
