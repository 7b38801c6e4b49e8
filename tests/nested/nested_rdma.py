"""Moves by RDMA over soft-RoCE, by the real command on nested hosts; run by ./run test-nested."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from nested import rdma
from nested.hosts import nested_hosts
from nested.person import Person, person
from whimbrel.errors import ExitCode
from whimbrel.model.scenario import Load
from whimbrel.model.units import MIB

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]

FILL = 32 * MIB
RDMA = ("--method", "rdma", "--max-downtime", "5 s")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def at(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Person]:
    """Somebody with a filled guest on a, and an RDMA device on both hosts."""
    folder = tmp_path_factory.mktemp("person")
    async with nested_hosts("a", "b") as nested:
        await asyncio.gather(*(rdma.add_device(host) for host in nested.values()))
        async with person(nested, "a", "b", folder=folder) as someone:
            await someone.up("db", on="a", load=Load(fill=FILL))
            yield someone


async def test_a_guest_moves_by_rdma_as_predicted_in_outline(at: Person) -> None:
    said = (await at.done("move", "db", "--to", "b", *RDMA, "--json")).json
    assert await at.places("db") == ["b"]
    assert await at.intact("db", on="b") == FILL // 4096
    assert said["tuning"]["transport"] == "rdma"
    assert said["predicted"] is not None


async def test_with_pin_all_every_page_is_sent_zero_or_not(at: Person) -> None:
    said = await at.done("move", "db", "--to", "a", *RDMA, "--pin-all", "--survey", "none")
    assert "all memory pinned" in said.errors
    assert await at.places("db") == ["a"]
    assert await at.intact("db", on="a") == FILL // 4096


async def test_an_encrypted_move_by_rdma_is_refused(at: Person) -> None:
    said = await at.whimbrel("move", "db", "--to", "b", *RDMA, "--encryption", "always")
    assert said.code == ExitCode.NO_PLAN
    assert "QEMU cannot encrypt RDMA" in said.errors
    assert await at.places("db") == ["a"]


async def test_memory_that_may_not_be_pinned_is_told_beforehand(at: Person) -> None:
    await at.hosts["b"].limit_pinning(64)
    said = await at.whimbrel("move", "db", "--to", "b", *RDMA, "--survey", "none")
    assert said.code == ExitCode.NO_PLAN
    assert "On b only 64 KiB may be pinned; the guest has 128 MiB." in said.errors
    assert "ulimit -l unlimited" in said.errors
    assert await at.places("db") == ["a"]


async def test_a_host_without_a_device_is_told_beforehand(at: Person) -> None:
    await rdma.remove_device(at.hosts["b"])
    said = await at.whimbrel("move", "db", "--to", "b", *RDMA, "--survey", "none")
    assert said.code == ExitCode.NO_PLAN
    assert "b has no RDMA device." in said.errors
    assert "rdma link add" in said.errors
    assert await at.places("db") == ["a"]
