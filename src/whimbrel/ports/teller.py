"""What is asked of a hypervisor about its host, where no shell leads to the host."""

from typing import Protocol

from whimbrel.model.survey import HostFacts


class Teller(Protocol):
    """One host as the hypervisor on it tells of it. Each method may raise `HostError`."""

    @property
    def name(self) -> str:
        """The host's name, for people."""

    async def identity(self) -> str:
        """Return what tells this host from all others; the same under each of its addresses."""

    async def facts(self) -> HostFacts:
        """Return what the host has."""

    async def idle(self) -> tuple[float, float]:
        """Return a moment, seconds, and the seconds that cores were idle until then, all cores."""

    async def carried(self, vm: str) -> float | None:
        """Return the bytes per second at which the last move of a VM brought its memory here.

        None where it did not come by a move, or nobody remembers.
        """
