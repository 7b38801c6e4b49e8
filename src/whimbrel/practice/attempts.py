"""A move with its second attempt: begun anew where its certificate says so.

    move ─┬─ completed, failed, timed out ─────────────────► one attempt
          └─ given up by the guard, safe at the source ─► the ladder's last rung, begun anew

Hypervisors fix capabilities at the start of a migration; a way that would have needed another
one is therefore a rung of its own (`Step.ANEW`).
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from whimbrel.model.method import Tuning
from whimbrel.model.migration import Side
from whimbrel.model.outcome import Ending, Outcome
from whimbrel.practice.move import Clock, Request, Watcher, move
from whimbrel.practice.settle import Moved

Renewed = Callable[[Request], Awaitable[Request]]
"""Returns the request for a second attempt: fresh companions, a fresh key."""


@dataclass(frozen=True)
class Attempt:
    """One attempt: how it was set, and how it ended."""

    tuning: Tuning
    moved: Moved

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        return self.moved.outcome


async def attempts(
    request: Request,
    watcher: Watcher,
    *,
    renewed: Renewed,
    anew: Callable[[str], None] = lambda _: None,
    clock: Clock = time.monotonic,
) -> tuple[Attempt, ...]:
    """Move a guest as its certificate says; return one attempt or two, the last one counts.

    Args:
        request: The move.
        watcher: Who looks on.
        renewed: Makes what a second attempt needs anew.
        anew: Hears why a second attempt begins.
        clock: Seconds.

    Raises:
        HostError: As `move`.
    """
    began = clock()
    first = Attempt(request.tuning, await move(request, watcher, clock))
    tuning = request.certificate.anew if request.certificate else None
    left = request.timeout - (clock() - began)
    if tuning is None or left <= 0 or not _given_up(first.outcome):
        return (first,)
    anew(first.outcome.reason)
    again = replace(
        await renewed(request), tuning=tuning, timeout=left, certificate=None, prediction=None
    )
    return first, Attempt(again.tuning, await move(again, watcher, clock))


def _given_up(outcome: Outcome) -> bool:
    """Tell whether the guard called it back, and the guest is safe where it was."""
    given_up = outcome.ending is Ending.CANCELLED and bool(outcome.decisions)
    return given_up and outcome.runs_on is Side.SOURCE
