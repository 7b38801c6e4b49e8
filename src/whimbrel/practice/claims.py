"""Memory at the destination, reserved for the duration of a move (sites/onsite/claims.py).

    async with Claims(destination, vm):
        …the move…                      no other move counts on the same memory meanwhile

A plan only looks; a move claims. The reservation is whimbrel's among its own: other programs
on the host are not kept from taking the memory.
"""

import secrets
from contextlib import suppress
from types import TracebackType
from typing import Self

from whimbrel.errors import CommandRefused, HostError
from whimbrel.model.inventory import Vm
from whimbrel.ports import Site
from whimbrel.theory.checks.hosts import memory_needed, overhead

LASTING = 24 * 3600.0
"""Seconds after which a claim counts no more, whatever became of it."""


class Claims:
    """What one move has reserved at its destination.

    It counts as long as this whimbrel is connected to the host, or the VM that it was made
    for lives there; what that VM's process has taken is not counted a second time.

    Args:
        destination: The host.
        vm: The VM that is to come.
        huge_page: Bytes of the huge pages that its memory needs; 0: common ones.
        lasting: Seconds after which the claim counts no more.
    """

    def __init__(
        self, destination: Site, vm: Vm, huge_page: int = 0, lasting: float = LASTING
    ) -> None:
        self._site = destination
        self._vm = vm.name
        self._lasting = lasting
        self._wanted = {0: memory_needed(vm.memory)}
        if huge_page:
            pages = -(-vm.memory // huge_page)
            self._wanted = {huge_page: pages * huge_page, 0: overhead(vm.memory)}
        self._made: list[str] = []

    async def __aenter__(self) -> Self:
        """Reserve; raises `HostError` when others have, and then nothing is reserved."""
        try:
            for page_size, wanted in self._wanted.items():
                await self._claim(page_size, wanted)
        except BaseException:
            await self.release()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.release()

    async def _claim(self, page_size: int, wanted: int) -> None:
        name = secrets.token_hex(8)
        self._made.append(name)  # before it is there: an answer may be lost on the way
        try:
            await self._site.ask(
                "claim_memory",
                folder=self._site.folder,
                claim=name,
                vm=self._vm,
                wanted=wanted,
                page_size=page_size,
                lasting=self._lasting,
            )
        except CommandRefused as error:
            raise HostError(
                f"No memory could be reserved for {self._vm}: {error.what.rstrip('.')}.",
                f"See what else is there or on its way: whimbrel vms --on {self._site.name}",
            ) from error

    async def release(self) -> None:
        """Give all of it up; harmless when that is done, or the host cannot be reached."""
        while self._made:
            # Unreachable: the claim counts no more once the connection has ended there too.
            with suppress(HostError):
                await self._site.ask(
                    "release_memory", folder=self._site.folder, claim=self._made[-1]
                )
            self._made.pop()


async def forget_claims(site: Site, vm: str) -> None:
    """Give up what a move of a VM whose whimbrel died had reserved on a host.

    Raises:
        HostError: The host cannot be asked.
    """
    await site.ask("forget_claims", folder=site.folder, vm=vm)
