"""`--cpu-budget`: the threads that move a guest use so many cores at most, on both hosts.

The hosts hold them (sites/onsite/budget.py) for a lease that is renewed while the move runs, so
that nothing stays behind when whimbrel is gone. While the guest stands still at switchover they
are let go: what is held back then, it waits for. A budget is a machine's: where both hosts are
one (containers, a lab), either end has half of it.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from whimbrel.errors import ConfigError, HostError, WhimbrelError
from whimbrel.model.migration import Phase
from whimbrel.ports import Machine, Site
from whimbrel.practice.attend import Afoot

LEASE = 12.0
"""Seconds for which a host holds the threads without being asked again."""

RENEW_EVERY = 3.0
"""Seconds from one renewal to the next."""

LOOK_EVERY = 0.05
"""Seconds from one look at the move's phase to the next."""

ANSWER_WITHIN = 5.0
"""Seconds after which a host that does not answer is given up."""

NO_PROCESS = "It is not known which process holds the guest; its CPU use is not limited."

UNNAMED = (
    "this QEMU does not name its threads (-name debug-threads=on), so those that move the guest "
    "cannot be held to a budget."
)


@dataclass(frozen=True)
class Allowance:
    """What a move may use on one host.

    Attributes:
        site: The host.
        cores: Cores' time that all its threads there may use together, above 0; where both
            hosts are one machine, those of both ends.
        interface: The NIC the guest moves through there, empty where that does not matter.
        vcpus: Threads of the vCPUs, needed where QEMU does not name its threads.
    """

    site: Site
    cores: float
    interface: str = ""
    vcpus: tuple[int, ...] = ()


class Budget:
    """The `Attendant` that holds a move to its budget of cores.

    Args:
        source: What it may use at the source; None for as much as it likes.
        destination: What it may use at the destination.
        told: Hears in one sentence how the threads are held on each host.
        lost: Hears why they can no longer be held.
    """

    def __init__(
        self,
        source: Allowance | None,
        destination: Allowance | None,
        *,
        told: Callable[[str], None],
        lost: Callable[[WhimbrelError], None],
    ) -> None:
        for each in (source, destination):
            if each is not None and not each.cores > 0:
                raise ConfigError(f"A CPU budget of {each.cores} cores is none.")
        self._source = source
        self._destination = destination
        self._told = told
        self._lost = lost

    async def attend(self, afoot: Afoot) -> None:
        """See `Attendant.attend`; a destination that is still being built is held later."""
        if self._source is not None and afoot.source.pid is None:
            raise HostError(f"{self._source.site.name}: {NO_PROCESS}")
        pairs = ((self._source, afoot.source), (self._destination, afoot.destination))
        held = [
            _Held(allowed, machine, self._told) for allowed, machine in pairs if allowed is not None
        ]
        if len(held) > 1 and await _one_machine(held):
            held = [each.of_two() for each in held]
            self._told("Both hosts are one machine: either end has half of the CPU budget.")
        whereabouts = _whereabouts(afoot)
        try:
            for each in held:
                await each.renew(whereabouts, afoot)  # one by one: the source is told of first
            while held:
                whereabouts = await _until_due(afoot, whereabouts)
                await asyncio.gather(*(each.act(whereabouts, afoot) for each in held))
        finally:
            await _release(held)

    def failed(self, error: WhimbrelError) -> None:
        """See `Attendant.failed`."""
        self._lost(HostError(f"The CPU budget is no longer held. {error.what}", error.hint))


class _Held:
    def __init__(
        self, allowance: Allowance, machine: Machine, tell: Callable[[str], None], ends: int = 1
    ) -> None:
        self._allowance, self._machine, self._tell = allowance, machine, tell
        self._ends = ends
        self._pid: int | None = None

    def of_two(self) -> "_Held":
        """Return it as one of two ends on one machine, which have its budget together."""
        half = replace(self._allowance, cores=self._allowance.cores / 2)
        return _Held(half, self._machine, self._tell, ends=2)

    async def boot(self) -> str:
        return str(await self._allowance.site.ask("boot_id", within=ANSWER_WITHIN))

    async def act(self, whereabouts: "_Whereabouts", afoot: Afoot) -> None:
        if whereabouts is _Whereabouts.BETWEEN:
            await self.release()
        else:
            await self.renew(whereabouts, afoot)

    async def renew(self, whereabouts: "_Whereabouts", afoot: Afoot) -> None:
        """Hold the threads for another lease; tell of it the first time."""
        asked, pid = self._allowance, self._machine.pid
        if pid is None:
            return
        first, self._pid = self._pid is None, pid
        answer: dict[str, Any] = await asked.site.ask(
            "confine",
            within=ANSWER_WITHIN,
            pid=pid,
            cores=asked.cores,
            lease=LEASE,
            ends=self._ends,
            vcpus=list(asked.vcpus),
            interface=asked.interface,
            arriving=whereabouts is _Whereabouts.HERE and self._machine is afoot.destination,
        )
        if first:
            self._tell(told(asked, answer))

    async def release(self) -> None:
        if self._pid is None:
            return
        # A host that cannot be reached undoes it by itself when the lease is over.
        with suppress(HostError):
            site = self._allowance.site
            await site.ask("release_threads", within=ANSWER_WITHIN, pid=self._pid)


async def _one_machine(held: Sequence[_Held]) -> bool:
    return len({await each.boot() for each in held}) == 1


class _Whereabouts(Enum):
    HERE = "it runs at the source"
    BETWEEN = "it stands still"
    THERE = "it runs at the destination"


def _whereabouts(afoot: Afoot) -> _Whereabouts:
    seen = afoot.latest()
    if seen is None or seen.phase in (Phase.IDLE, Phase.SETUP, Phase.PRECOPY):
        return _Whereabouts.HERE
    still = seen.phase is Phase.SWITCHOVER
    return _Whereabouts.BETWEEN if still else _Whereabouts.THERE


async def _until_due(afoot: Afoot, before: _Whereabouts) -> _Whereabouts:
    """Wait until a renewal is due, or the guest is elsewhere; return where it is."""
    with suppress(TimeoutError):
        async with asyncio.timeout(RENEW_EVERY):
            while _whereabouts(afoot) is before:  # noqa: ASYNC110 - observations are polled
                await asyncio.sleep(LOOK_EVERY)
    return _whereabouts(afoot)


async def _release(held: Sequence[_Held]) -> None:
    await asyncio.gather(*(each.release() for each in held))


def told(allowance: Allowance, answer: dict[str, Any]) -> str:
    """Return in one sentence how a host holds the threads."""
    if not answer["known"]:
        return f"{allowance.site.name}: {UNNAMED}"
    cores = ", ".join(str(core) for core in answer["cores"])
    words = f"{allowance.site.name}: the move may use {allowance.cores:g} cores (core {cores}"
    if str(answer["means"]).startswith("cgroup"):
        return f"{words}, held by a quota; guests go first)"
    return f"{words}, niceness {answer['nice']}: guests go first; exact only beside others' work)"
