"""What runs beside a move while the guest is on its way: keeping its bandwidth, its cores.

    send ─► attend (a task each) ─► the move settles ─► the tasks are cancelled, and undo

Nothing here can hold up a move or end it: an attendant that fails is told and let go.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from whimbrel.errors import WhimbrelError
from whimbrel.model.migration import Observation
from whimbrel.ports import Machine, Migration

UNDO_WITHIN = 10.0
"""Seconds that attendants have to undo what they did, all together."""


@dataclass(frozen=True)
class Afoot:
    """A move whose guest is on its way.

    Attributes:
        migration: For `apply` only; its `watch` belongs to the conduct.
        source: The machine the guest leaves.
        destination: The machine it goes to.
        latest: Returns the last observation; None before the first.
    """

    migration: Migration
    source: Machine
    destination: Machine
    latest: Callable[[], Observation | None]


class Attendant(Protocol):
    """Somebody who acts beside a move."""

    async def attend(self, afoot: Afoot) -> None:
        """Act until cancelled, then undo; may return early.

        A `WhimbrelError` raised here ends the attendant alone; `failed` is then called.
        """

    def failed(self, error: WhimbrelError) -> None:
        """The attendant ended by an error; the move goes on without it."""


@asynccontextmanager
async def attended(attendants: Sequence[Attendant], afoot: Afoot) -> AsyncIterator[None]:
    """Let all attend while the block runs; when it is left they have undone what they did."""
    tasks = [asyncio.create_task(_attend(each, afoot)) for each in attendants]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=UNDO_WITHIN)


async def _attend(attendant: Attendant, afoot: Afoot) -> None:
    try:
        await attendant.attend(afoot)
    except WhimbrelError as error:
        attendant.failed(error)
