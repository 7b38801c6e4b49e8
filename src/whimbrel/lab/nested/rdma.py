"""Soft-RoCE on nested hosts: real verbs over an ordinary NIC (rdma_rxe)."""

from whimbrel.lab.nested.hosts import NestedHost

MODULES = ("crc32_generic", "rdma_rxe", "rdma_ucm", "ib_uverbs")
"""Without crc32_generic no device can be added."""


async def add_device(host: NestedHost, number: int = 1) -> None:
    """Give a host an RDMA device on a wire; raises `LabError` where its kernel has none."""
    await host.run("modprobe", "-a", *MODULES)
    name, netdev = device(number), f"eth{number}"
    await host.run("rdma", "link", "add", name, "type", "rxe", "netdev", netdev)


async def remove_device(host: NestedHost, number: int = 1) -> None:
    """Take it away."""
    await host.run("rdma", "link", "delete", device(number))


def device(number: int = 1) -> str:
    """Return the device's name on a wire."""
    return f"rxe{number}"
