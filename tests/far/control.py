"""The control network of far hosts: a namespace that ends with this process, wired to both.

    control   c-a 10.98.1.1 ──── 10.98.1.2 ctl   a
              c-b 10.98.2.1 ──── 10.98.2.2 ctl   b

SSH goes over these wires, migrations over the lab's own links, so either can be cut alone.
The namespace has no name: a file descriptor holds it, and nothing of it outlives the process.
"""

import asyncio
import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from pyroute2 import AsyncIPRoute  # type: ignore[import-untyped] # ships no types

from whimbrel.lab.hosts import LabHost
from whimbrel.lab.namespaces import FOLDER, in_namespace, uninterrupted

WIRE = "ctl"
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET, linux/sched.h
_LOOPBACK = 1
_libc = ctypes.CDLL(None, use_errno=True)


def control_address(end: int) -> str:
    """Return the address at which SSH listens on host a (1) or b (2)."""
    return f"10.98.{end}.2"


@contextmanager
def control_network(hosts: tuple[LabHost, LabHost]) -> Iterator[str]:
    """Hold the control network with the calling thread inside it; yield its path for nsenter.

    Threads and processes that are started meanwhile are inside too.
    """
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    control = uninterrupted(_fresh)
    path = f"/proc/{os.getpid()}/fd/{control}"
    try:
        for end, host in enumerate(hosts, start=1):
            in_namespace(path, partial(asyncio.run, _wire(end, host)))
            in_namespace(host.namespace, partial(asyncio.run, _far_end(end)))
        _enter(control)
        yield path
    finally:
        _enter(here)
        os.close(here)
        os.close(control)


def switch(host: LabHost, interface: str, state: str) -> None:
    """Set an interface of a host "up" or "down"; its addresses stay.

    While it is down, what the other end sends vanishes without a word, as with a pulled cable.
    """
    in_namespace(host.namespace, lambda: asyncio.run(_switch(interface, state)))


def _fresh() -> int:
    """Give the calling thread a network of its own; return what holds that."""
    _checked(_libc.unshare(_NEW_NETWORK))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _enter(namespace: int) -> None:
    _checked(_libc.setns(namespace, _NEW_NETWORK))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


async def _wire(end: int, host: LabHost) -> None:
    other = os.open(FOLDER / host.namespace, os.O_RDONLY)
    name = f"c-{host.name}"
    try:
        async with AsyncIPRoute() as route:
            peer = {"ifname": WIRE, "net_ns_fd": other}
            await route.link("add", ifname=name, kind="veth", peer=peer)
            await route.link("set", index=_LOOPBACK, state="up")
            await _address(route, name, f"10.98.{end}.1")
    finally:
        os.close(other)


async def _far_end(end: int) -> None:
    async with AsyncIPRoute() as route:
        await _address(route, WIRE, control_address(end))
        await _until_up(route, WIRE)


async def _address(route: AsyncIPRoute, interface: str, address: str) -> None:
    (index,) = await route.link_lookup(ifname=interface)
    await route.addr("add", index=index, address=address, prefixlen=24)
    await route.link("set", index=index, state="up")


async def _switch(interface: str, state: str) -> None:
    async with AsyncIPRoute() as route:
        (index,) = await route.link_lookup(ifname=interface)
        await route.link("set", index=index, state=state)
        if state == "up":
            await _until_up(route, interface)


async def _until_up(route: AsyncIPRoute, interface: str) -> None:
    (index,) = await route.link_lookup(ifname=interface)
    async with asyncio.timeout(5.0):
        while True:
            (link,) = await route.link("get", index=index)
            if link.get("operstate") == "UP":
                return
            await asyncio.sleep(0.001)
