"""`--at` and `--when quiet` of `whimbrel move`: when it begins."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from whimbrel.errors import ConfigError
from whimbrel.model.moment import parse_moment, parse_span
from whimbrel.model.units import format_time
from whimbrel.ports import Machine
from whimbrel.practice.later import until_moment
from whimbrel.practice.quiet import dirty_rate, until_quiet
from whimbrel.schedule.clock import local_zone

NEGLIGIBLE = 0.01
"""Share of the link's rate below which whatever a guest writes is next to nothing."""

UNKNOWN_RATE = 1.25e8
"""Bytes per second that a link is taken for of which nothing is known."""


class Occasion(StrEnum):
    """What a move can wait for."""

    QUIET = "quiet"


At = Annotated[
    str | None,
    typer.Option("--at", help='Begin at this time: "22:15", "in 2 h".', metavar="TIME"),
]
When = Annotated[
    Occasion | None,
    typer.Option("--when", help="Begin when the guest writes little, compared with before."),
]
WaitAtMost = Annotated[
    str,
    typer.Option(
        "--wait-at-most", help="With --when: begin in any case after so long.", metavar="TIME"
    ),
]


@dataclass(frozen=True)
class Later:
    """When a move begins.

    Attributes:
        moment: Not before, seconds since 1970-01-01 UTC; None: at once.
        quiet: Whether a quiet guest is waited for.
        longest: Seconds after which it is waited for no longer.
    """

    moment: float | None = None
    quiet: bool = False
    longest: float = 7200.0

    @classmethod
    def read(cls, at: str | None, when: Occasion | None, at_most: str) -> "Later":
        """Read the flags; raises `ConfigError` for what cannot be meant."""
        now = datetime.now(UTC)
        moment = None if at is None else parse_moment(at, now, ZoneInfo(local_zone())).timestamp()
        longest = parse_span(at_most)
        if longest <= 0:
            raise ConfigError("Nobody can wait for no time at all.", 'Such as "2 h".')
        return cls(moment, when is Occasion.QUIET, longest)


async def until_time(later: Later, works: Callable[[str], None]) -> None:
    """Wait for the moment a move was given; no host is connected to meanwhile."""
    if later.moment is not None:
        shown = datetime.fromtimestamp(later.moment, ZoneInfo(local_zone()))
        words = f"waiting for {shown:%Y-%m-%d %H:%M}"
        await until_moment(
            later.moment, told=lambda left: works(f"{words}, in {format_time(left)}")
        )


async def until_still(
    later: Later,
    machine: Machine,
    link: float | None,
    works: Callable[[str], None],
    say: Callable[[str], None],
) -> None:
    """Wait until a guest is quiet, where that was asked for, and say why it is called so.

    Raises:
        HostError: Its host failed, or cannot count what it writes. Nothing was begun.
    """
    if not later.quiet:
        return
    inspection = machine.inspection()
    works("waiting for the guest to be quiet")
    found = await until_quiet(
        lambda: dirty_rate(inspection),
        negligible=NEGLIGIBLE * (link or UNKNOWN_RATE),
        longest=later.longest,
        told=lambda seen: works(f"waiting for the guest to be quiet: {seen.reason}"),
    )
    say(found.reason)
