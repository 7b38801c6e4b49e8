"""The one nested test that CI runs: a host with Debian's full kernel boots, and RDMA is found."""

import pytest

from whimbrel.hypervisors.qemu import ResidentHost
from whimbrel.lab.nested import rdma
from whimbrel.lab.nested.hosts import NestedHost, nested_hosts
from whimbrel.model.inventory import Capability
from whimbrel.sites.connect import connect


async def found(nested: NestedHost) -> tuple[list[str], frozenset[Capability]]:
    """Return a host's RDMA devices, and what of RDMA its QEMU can do."""
    async with connect(nested.host) as site, ResidentHost("a", site) as host:
        facts = await site.ask("facts")
        able = await host.capabilities()
    return facts["rdma"], able & {Capability.RDMA, Capability.RDMA_PIN_ALL}


@pytest.mark.timeout(600)
async def test_a_nested_hosts_rdma_device_is_found() -> None:
    async with nested_hosts("a") as nested:
        before = await found(nested["a"])
        await rdma.add_device(nested["a"], 0)
        after = await found(nested["a"])
    assert before == ([], frozenset())
    assert after == ([rdma.device(0)], frozenset({Capability.RDMA, Capability.RDMA_PIN_ALL}))
