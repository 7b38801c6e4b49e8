"""Post-copy that loses its link: noticed, held, and taken up again when the link is back.

    nothing sent for STALLED seconds ─► pause: the source lets go of the dead connection
    paused ─► listen again there, take up here ─┬─► post-copy goes on
              ▲                                 │
              └──── RETRY seconds later ────────┘ until the patience is over

While it is paused the guest stands still as soon as it needs a page that is not there yet.
Nothing is lost meanwhile, however long it takes: when the patience is over both sides are left
as they are, and `whimbrel recover` can go on.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Protocol

from whimbrel.errors import HostError, MachineEnded, Unsupported
from whimbrel.model.inventory import MigrationAddress
from whimbrel.model.journal import Step
from whimbrel.model.migration import Event, Observation, Phase, PhaseChange
from whimbrel.model.units import format_time
from whimbrel.ports import Migration
from whimbrel.practice.record import Record

STALLED = 10.0
"""Seconds without a byte after which a connection counts as dead. TCP would try for 15 minutes
(tcp(7), tcp_retries2); after a cut of 5 s it goes on by itself within that time."""

RETRY = 1.0
"""Seconds between two attempts to take a post-copy up again."""

LEAVES_WITHIN = 15.0
"""Seconds for a destination to be told that others will take its post-copy up again."""

PATIENCE = 600.0
"""Seconds that a post-copy may be without its link before it is left paused."""


class Listener(Protocol):
    """The destination, as far as mending needs it."""

    async def listen_again(self) -> MigrationAddress:
        """See `ports.Reception.listen_again`."""


class Mender:
    """Mends one move's post-copy; told of everything that happens.

    Args:
        migration: The move, at its source.
        reception: Its destination.
        record: Where attempts are written down.
        patience: Seconds that it may be without its link.
    """

    def __init__(
        self,
        migration: Migration,
        reception: Listener,
        record: Record,
        patience: float = PATIENCE,
    ) -> None:
        self._migration = migration
        self._reception = reception
        self._record = record
        self._patience = patience
        self._task: asyncio.Task[None] | None = None
        self._phase = Phase.IDLE
        self._sent = -1
        self._moved_at = self._paused_at = 0.0
        self._trouble = ""
        self.gave_up = ""

    def hear(self, event: Event) -> None:
        """Take in what happened, and begin what has to be done about it."""
        if isinstance(event, PhaseChange):
            self._enter(event)
        elif isinstance(event, Observation) and self._phase is Phase.POSTCOPY:
            self._watch(event)
        if self._phase is Phase.POSTCOPY_PAUSED and event.at - self._paused_at > self._patience:
            self._give_up()

    async def close(self) -> None:
        """End what is being tried."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def leave(self) -> None:
        """End what is being tried, and let the destination wait to be taken up by others.

        It has to be told now: a hypervisor whose guest waits for memory may answer nobody who
        comes later.
        """
        await self.close()
        with suppress(HostError, TimeoutError):
            async with asyncio.timeout(LEAVES_WITHIN):
                await self._reception.listen_again()

    def _enter(self, change: PhaseChange) -> None:
        self._phase = change.phase
        self._sent, self._moved_at = -1, change.at
        if change.phase is Phase.POSTCOPY_PAUSED:
            self._paused_at = change.at
            self._trouble = change.reason
            self._begin(self._take_up())

    def _watch(self, seen: Observation) -> None:
        if seen.transferred != self._sent:
            self._sent, self._moved_at = seen.transferred, seen.at
        elif seen.at - self._moved_at > STALLED:
            self._moved_at = seen.at
            self._begin(self._pause())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.create_task(work)

    async def _pause(self) -> None:
        try:
            await self._migration.pause()
        except HostError as error:  # it was over by then, or the stream will say what is wrong
            self._trouble = error.what

    async def _take_up(self) -> None:
        await self._record.before(Step.LISTENING_AGAIN)
        while True:
            try:
                await self._migration.resume(await self._reception.listen_again())
            except (MachineEnded, Unsupported) as error:
                why = f"{error.what} {error.hint}".strip()
                self.gave_up = f"the post-copy cannot be taken up again: {why}"
                return
            except HostError as error:
                self._trouble = error.what
            else:
                return
            # The network tells nobody when it is back.
            await asyncio.sleep(RETRY)

    def _give_up(self) -> None:
        waited = format_time(self._patience)
        why = f": {self._trouble}" if self._trouble else ""
        self.gave_up = f"the post-copy is paused, and could not be taken up within {waited}{why}"
