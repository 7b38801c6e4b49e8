"""The links between the lab's two hosts: veth pairs, shaped by HTB, joined by MPTCP.

The one file that knows pyroute2. What it builds, for every link in both namespaces:

    w0, w1, ...    10.99.LINK.1/24 in a, 10.99.LINK.2/24 in b
     └ htb 1:        one class 1:10 at the link's rate, for each direction by itself
        └ pfifo      a short queue, see `Shape`

With several links MPTCP is on, and each host announces its address on every link but the first,
with a port that the kernel itself listens on (a `signal` endpoint with a port). So a connection
to the other's first address soon runs over all links, whoever opened it, even where the program
listens on that one address only, or stops listening once it has been called, as QEMU does.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import AsyncIPRoute  # type: ignore[import-untyped] # as below: ships no types
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]
from pyroute2.netlink.generic.mptcp import AsyncMPTCP  # type: ignore[import-untyped]

from whimbrel.errors import LabError
from whimbrel.lab.namespaces import FOLDER, in_namespace

MAX_LINKS = 8
"""Linux announces and joins at most 8 addresses for one MPTCP connection."""

_LOOPBACK = 1  # interface index, always
_ROOT, _CLASS, _LEAF = 0x10000, 0x10010, 0x100000  # 1:, 1:10 and 10: as tc prints them
_FRAME = 1514  # bytes of a full Ethernet frame as HTB counts it: header, no checksum
_SEGMENT_MAX = 65536  # bytes, the largest packet that IPv4 lets TCP hand to a device
_SEGMENT_TIME, _BURST_TIME, _QUEUE_TIME = 0.0005, 0.005, 0.005  # seconds, see `Shape`
_SHORTEST_QUEUE = 16  # packets
_SIGNAL = 1  # MPTCP_PM_ADDR_FLAG_SIGNAL, linux/mptcp.h
_JOIN_PORT = 9099  # below the ports that the kernel hands out
_UP_TIMEOUT = 5.0  # seconds; it takes some milliseconds
_SETTINGS = Path("/proc/sys/net")  # shows the network of the thread that opens it


@dataclass(frozen=True)
class Shape:
    """How one direction of a link is held to its rate.

    TCP would hand over packets of 64 KiB (2.6 ms at 200 Mbit/s) and a default queue holds
    1000 of them (half a second at 1 Gbit/s): what waits there would falsify a downtime. So:

    Attributes:
        rate: Bytes per second of Ethernet frames, headers counted; TCP with full frames gets
            1448/1514 of it as goodput (956 Mbit/s of 1 Gbit/s).
        segment: The largest packet that TCP hands over, bytes: half a millisecond of the
            link, two frames at least, 64 KiB at most.
        burst: Bytes that may pass unshaped after a pause: five milliseconds. That bounds the
            error in a downtime; less would lose goodput (7 % with two milliseconds) on a
            machine whose own hypervisor takes the core away for some milliseconds at a time.
        queue: Packets that wait at most: five milliseconds, 16 at least. TCP keeps one or two
            milliseconds per connection of its own accord.
    """

    rate: int
    segment: int
    burst: int
    queue: int


def shape_of(rate: float) -> Shape:
    """Return the shape for a rate in bytes per second."""
    segment = round(min(max(2 * _FRAME, rate * _SEGMENT_TIME), _SEGMENT_MAX))
    return Shape(
        rate=round(rate),
        segment=segment,
        burst=max(2 * segment, round(rate * _BURST_TIME)),
        queue=max(_SHORTEST_QUEUE, round(rate * _QUEUE_TIME / segment)),
    )


def interfaces(count: int) -> tuple[str, ...]:
    """Return the names of the interfaces, one per link, the same at both ends."""
    return tuple(f"w{link}" for link in range(count))


def addresses(end: int, count: int) -> tuple[str, ...]:
    """Return the addresses of one end (1 is a, 2 is b), one per link."""
    return tuple(f"10.99.{link}.{end}" for link in range(count))


def join(a: str, b: str, *, rates: Sequence[float | None]) -> None:
    """Join two fresh namespaces by links, all up when this returns.

    Args:
        a: Name of one namespace.
        b: Name of the other.
        rates: Bytes per second of each link in each direction, `MAX_LINKS` at most; None leaves
            it unshaped.

    Raises:
        LabError: The kernel refused. What was built so far goes with the namespaces.
    """
    count = len(rates)
    shapes = [None if rate is None else shape_of(rate) for rate in rates]
    _do(a, _build(b, count))
    _do(a, _set_up(1, shapes))
    _do(b, _set_up(2, shapes))
    _do(a, _until_up(count))
    _do(b, _until_up(count))


def _do(namespace: str, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` in a namespace, in a loop of its own: the caller may have one running."""
    try:
        in_namespace(namespace, lambda: asyncio.run(work))
    except (NetlinkError, OSError) as error:
        raise LabError(
            f"The lab's links cannot be made: {str(error) or 'they do not come up'}.",
            "The kernel needs veth, HTB (sch_htb) and, for several links, MPTCP.",
        ) from error
    finally:
        work.close()  # does nothing unless the namespace could not be entered


async def _build(peer: str, count: int) -> None:
    """Make the veth pairs: one end here, the other in the namespace `peer`."""
    other = os.open(FOLDER / peer, os.O_RDONLY)
    try:
        async with AsyncIPRoute() as route:
            for name in interfaces(count):
                end = {"ifname": name, "net_ns_fd": other}
                await route.link("add", ifname=name, kind="veth", peer=end)
    finally:
        os.close(other)


async def _set_up(end: int, shapes: Sequence[Shape | None]) -> None:
    """Give this namespace's ends their addresses and shapes, and switch them on."""
    count = len(shapes)
    _write_settings(several=count > 1)
    async with AsyncIPRoute() as route:
        await route.link("set", index=_LOOPBACK, state="up")
        ends = zip(interfaces(count), addresses(end, count), shapes, strict=True)
        for name, address, shape in ends:
            (index,) = await route.link_lookup(ifname=name)
            await route.addr("add", index=index, address=address, prefixlen=24)
            if shape is not None:
                await _shape(route, index, shape)
            await route.link("set", index=index, state="up")
    if count > 1:
        await _announce(addresses(end, count)[1:])


def _write_settings(*, several: bool) -> None:
    """Set what would else be inherited from the machine or blur a measurement."""
    # IPv6 would send its own packets into the counters
    (_SETTINGS / "ipv6/conf/all/disable_ipv6").write_text("1")
    # each transfer starts afresh, not from what the last one learned about the path
    (_SETTINGS / "ipv4/tcp_no_metrics_save").write_text("1")
    if several:
        (_SETTINGS / "mptcp/enabled").write_text("1")


async def _shape(route: AsyncIPRoute, index: int, shape: Shape) -> None:
    await route.link("set", index=index, IFLA_GSO_MAX_SIZE=shape.segment)
    await route.tc("add", "htb", index, _ROOT, default=_CLASS & 0xFFFF)
    await route.tc(
        "add-class",
        "htb",
        index,
        _CLASS,
        parent=_ROOT,
        rate=shape.rate,
        burst=shape.burst,
        cburst=shape.burst,
        mtu=shape.segment,
        quantum=shape.segment,
    )
    await route.tc("add", "pfifo", index, _LEAF, parent=_CLASS, limit=shape.queue)


async def _announce(others: tuple[str, ...]) -> None:
    """Let MPTCP connections of this namespace use the links of these addresses too."""
    # both sides may join a link at the same moment: leave room for each of them
    subflows = min(MAX_LINKS, 2 * len(others))
    async with AsyncMPTCP() as mptcp:
        await mptcp.setup_endpoint()  # looks up the netlink family; entering does not
        await _answered(mptcp.limits("set", subflows=subflows, add_addr_accepted=len(others)))
        for address in others:
            wanted = {"addr": address, "port": _JOIN_PORT, "flags": _SIGNAL}
            await _answered(mptcp.endpoint("add", **wanted))


async def _answered(request: Coroutine[Any, Any, AsyncIterator[object]]) -> None:
    """Send a request and read its answer; a refusal is raised only when it is read."""
    async for _ in await request:
        pass


async def _until_up(count: int) -> None:
    """Wait until the kernel has switched every end on: before that packets are lost."""
    async with AsyncIPRoute() as route, asyncio.timeout(_UP_TIMEOUT):
        for name in interfaces(count):
            (index,) = await route.link_lookup(ifname=name)
            while not await _is_up(route, index):  # noqa: ASYNC110 - the kernel is asked
                await asyncio.sleep(0.001)


async def _is_up(route: AsyncIPRoute, index: int) -> bool:
    (link,) = await route.link("get", index=index)
    return bool(link.get("state") == "up" and link.get("operstate") == "UP")
