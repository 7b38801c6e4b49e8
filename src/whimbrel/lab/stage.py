"""What one scenario needs for as long as it runs: two hosts, their counters, a heartbeat's ear."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from whimbrel.hypervisors.qemu import QemuHost
from whimbrel.hypervisors.qemu.probe import Abilities
from whimbrel.lab.counters import Counters
from whimbrel.lab.heartbeat import HeartbeatListener
from whimbrel.lab.hosts import LabHost, two_hosts
from whimbrel.lab.warm import WarmMemory
from whimbrel.model.inventory import Capability, MigrationAddress
from whimbrel.model.method import Tuning
from whimbrel.model.scenario import Scenario
from whimbrel.ports import Hypervisor


class LabHypervisor(Hypervisor, Protocol):
    """A hypervisor of the lab."""

    async def abilities(self) -> Abilities:
        """Return what its QEMU can do and is."""


@dataclass(frozen=True)
class End:
    """One end of the link: a host and its hypervisor."""

    host: LabHost
    hypervisor: LabHypervisor

    @property
    def name(self) -> str:
        """The host's name."""
        return self.host.name


@dataclass(frozen=True)
class Stage:
    """Two ends with everything that measures them.

    Attributes:
        a: One end; guests boot here.
        b: The other.
        counters: Samples both hosts.
        beats: Hears the guests.
        warm: Keeps the next destination's memory warm between moves.
        mptcp: Whether connections may use all links at once, as `Tuning.multipath` asks.
    """

    a: End
    b: End
    counters: Counters
    beats: HeartbeatListener
    warm: WarmMemory
    mptcp: bool

    def other(self, end: End) -> End:
        """Return the end across the link."""
        return self.b if end is self.a else self.a

    def address(self, end: End) -> MigrationAddress:
        """Return where `end` shall listen: its first link's address, never any other."""
        return MigrationAddress(end.host.addresses[0])

    async def common(self) -> frozenset[Capability]:
        """Return what both hosts can do."""
        here, there = [await end.hypervisor.capabilities() for end in (self.a, self.b)]
        return here & there

    async def lacking(self, tuning: Tuning) -> str:
        """Return why this pair of hosts cannot do what `tuning` needs; empty when it can."""
        if tuning.multipath and len(self.a.host.interfaces) == 1:
            return "each host has one NIC"
        reasons = {
            f"{reason}"
            for end in (self.a, self.b)
            for reason in _missing(tuning.needs, await end.hypervisor.lacking())
        }
        return "; ".join(sorted(reasons))


Staging = Callable[[Scenario, Path], AbstractAsyncContextManager[Stage]]
"""Makes what a scenario's moves are made on, with a private folder; see `stage`."""


@asynccontextmanager
async def stage(scenario: Scenario, folder: Path) -> AsyncIterator[Stage]:
    """Hold a stage; at the end everything on it is ended and removed.

    Args:
        scenario: Its link joins the hosts; its guest's memory is kept warm.
        folder: Private folder for sockets and consoles.

    Raises:
        LabError: The hosts cannot be made.
    """
    async with AsyncExitStack() as stack:
        yield await equipped(stack, scenario, lambda h: QemuHost(h.name, folder, launcher(h)))


async def equipped(
    stack: AsyncExitStack,
    scenario: Scenario,
    hypervisor: Callable[[LabHost], AbstractAsyncContextManager[LabHypervisor]],
) -> Stage:
    """Return a stage that `stack` holds, with hypervisors that are made one after the other.

    Raises:
        LabError: The hosts cannot be made.
    """
    link = scenario.link
    hosts = stack.enter_context(two_hosts(link.rate, link.count, link.rates))
    beats = stack.enter_context(HeartbeatListener())
    counters = await stack.enter_async_context(Counters(hosts))
    a, b = [End(h, await stack.enter_async_context(hypervisor(h))) for h in hosts]
    warm = await stack.enter_async_context(WarmMemory(scenario.guest.memory))
    mptcp = link.count > 1 and await _has_mptcp(a, b)
    return Stage(a, b, counters, beats, warm, mptcp=mptcp)


def launcher(host: LabHost) -> Callable[[Sequence[str]], list[str]]:
    """Return what starts a command on a lab host, to end with this process even if killed."""

    def launch(words: Sequence[str]) -> list[str]:
        return ["setpriv", "--pdeathsig", "KILL", "--", *host.enter(words)]

    return launch


async def _has_mptcp(a: End, b: End) -> bool:
    present = [await end.hypervisor.capabilities() for end in (a, b)]
    return all(Capability.MPTCP in capabilities for capabilities in present)


def _missing(needs: frozenset[Capability], lacking: Mapping[Capability, str]) -> list[str]:
    return [lacking[capability] for capability in sorted(needs & lacking.keys())]
