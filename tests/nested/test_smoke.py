"""What CI runs of the nested tests: a host with Debian's full kernel boots, and RDMA is found."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from whimbrel.hypervisors.qemu import ResidentHost
from whimbrel.lab.nested import rdma
from whimbrel.lab.nested.hosts import NestedHost, nested_hosts
from whimbrel.model.inventory import Capability
from whimbrel.sites.connect import connect

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


async def found(nested: NestedHost) -> tuple[list[str], frozenset[Capability]]:
    """Return a host's RDMA devices, and what of RDMA its QEMU can do."""
    async with connect(nested.host) as site, ResidentHost("a", site) as host:
        facts = await site.ask("facts")
        able = await host.capabilities()
    return facts["rdma"], able & {Capability.RDMA, Capability.RDMA_PIN_ALL}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host() -> AsyncIterator[NestedHost]:
    """A nested host, booted once."""
    async with nested_hosts("a") as nested:
        yield nested["a"]


async def test_a_nested_hosts_rdma_device_is_found(host: NestedHost) -> None:
    before = await found(host)
    await rdma.add_device(host, 0)
    after = await found(host)
    assert before == ([], frozenset())
    assert after == ([rdma.device(0)], frozenset({Capability.RDMA, Capability.RDMA_PIN_ALL}))


async def test_a_nested_hosts_kernel_is_not_told_to_store_byte_by_byte(host: NestedHost) -> None:
    flags = await host.run("grep", "--max-count=1", "^flags", "/proc/cpuinfo")
    assert not {"erms", "fsrm"} & set(flags.split())
    assert {"sse2", "avx2"} <= set(flags.split())
