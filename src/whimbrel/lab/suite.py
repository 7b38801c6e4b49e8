"""The accuracy suite: guests and links from a seed, to hold forecasts against real moves.

    seed ──► one draw per scenario ──► link, guest, load, methods in random order

Scenarios are drawn without looking at what any forecast says of them, and no constant of the
theory was fitted to them. The classes of load go round in random order, so that a suite that
ends early has seen them all about equally often.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from whimbrel.lab.scenario_check import GUEST_ROOM
from whimbrel.model.method import Method, Settings
from whimbrel.model.scenario import Access, GuestSpec, LinkSpec, Load, Pattern, Scenario
from whimbrel.model.survey import Depth
from whimbrel.model.units import MIB, PAGE

SEED = 1
"""The seed unless told otherwise."""

MINUTES = 30.0
"""How long the suite runs unless told otherwise."""


class Pace(StrEnum):
    """How fast a guest writes, as compared to the link."""

    IDLE = "idle"
    CONVERGING = "converging"
    BORDERLINE = "borderline"
    NEVER_CONVERGING = "never converging"


@dataclass(frozen=True)
class _Range:
    """Values spread evenly in log."""

    low: float
    high: float

    def draw(self, generator: np.random.Generator) -> float:
        return float(np.exp(generator.uniform(np.log(self.low), np.log(self.high))))


_PACES = {
    Pace.IDLE: None,
    Pace.CONVERGING: _Range(0.05, 0.6),
    Pace.BORDERLINE: _Range(0.6, 1.4),
    Pace.NEVER_CONVERGING: _Range(1.6, 4.0),
}
"""Bytes of pages written per second, over what the link carries."""

_LINKS = tuple(megabits * 125_000.0 for megabits in (200, 500, 1000, 1000, 2500, 2500))
_UNLIMITED = 1.5e9
"""What an unlimited link counts for, bytes per second: about what a core copies."""

_FASTEST_WRITER = 350.0 * MIB
"""Bytes of pages per second that redline surely reaches under emulation beside a move."""

_PASS = _Range(1.0, 12.0)
"""Seconds of a first pass, roughly: nobody has so fast a link for so small a guest that a move
is over before it has begun, nor so slow a one that it takes a day."""

_SIZES = _Range(160.0 * MIB, 2560.0 * MIB)
"""Bytes of fill, whatever the link."""

_ALWAYS = (
    Method.QEMU_DEFAULT,
    Method.TCP,
    Method.MULTICHANNEL,
    Method.COMPRESSED,
    Method.POSTCOPY,
    Method.AUTO,
)
_IN_TURN = (Method.XBZRLE, Method.AUTO_CONVERGE, Method.POSTCOPY_PREEMPT)

_REPEATED = 7
"""Every so many scenarios one repeats few methods, for the noise floor."""

_REPEATS = 3


def accuracy_scenarios(seed: int = SEED) -> Iterator[Scenario]:
    """Yield scenarios without end, always the same from the same seed."""
    generator = np.random.default_rng(seed)
    number = 0
    while True:
        for pace in generator.permutation(list(Pace)):
            number += 1
            yield _scenario(number, Pace(str(pace)), generator)


def _scenario(number: int, pace: Pace, generator: np.random.Generator) -> Scenario:
    rate = generator.choice([*_LINKS, np.inf])
    carried = _UNLIMITED if np.isinf(rate) else float(rate)
    guest = _guest(pace, carried, generator)
    repeated = number % _REPEATED == 0
    limit = float(generator.choice([0.1, 0.3, 0.5]))
    return Scenario(
        name=f"{number}: {pace.value}",
        repeats=_REPEATS if repeated else 1,
        methods=_methods(number, generator, repeated=repeated),
        timeout=round(8 + 2 * guest.redline.fill / carried),
        link=LinkSpec(None if np.isinf(rate) else float(rate)),
        guest=guest,
        settings=Settings(downtime_limit=limit),
        survey=Depth.DEFAULT,
    )


def _methods(number: int, generator: np.random.Generator, *, repeated: bool) -> tuple[Method, ...]:
    if repeated:
        some = generator.choice([Method.TCP, Method.MULTICHANNEL, Method.COMPRESSED], 1)
        return (Method(str(some[0])), Method.POSTCOPY)
    chosen = [*_ALWAYS, _IN_TURN[number % len(_IN_TURN)]]
    return tuple(Method(str(each)) for each in generator.permutation(chosen))


def _guest(pace: Pace, carried: float, generator: np.random.Generator) -> GuestSpec:
    smallest = max(_SIZES.low, min(_PASS.low * carried, _SIZES.high / 2))
    fill = _pages(_Range(smallest, min(_SIZES.high, _PASS.high * carried)).draw(generator))
    free = _Range(1.15, 1.8).draw(generator)
    memory = -(-int(fill * free + GUEST_ROOM) // (64 * MIB)) * 64 * MIB
    load = Load(
        freed=_pages(generator.choice([0.0, 0.0, 0.0, 0.5]) * (memory - fill - GUEST_ROOM)),
        fill=fill,
        pattern=Pattern(str(generator.choice(["text", "text", "mixed", "random"]))),
        hot=_pages(fill * _Range(0.03, 0.9).draw(generator)),
        dirty_rate=_dirty_rate(pace, carried, generator),
        access=Access(str(generator.choice(list(Access)))),
        touch=int(generator.choice([64, 512, PAGE])),
    )
    return GuestSpec(memory, redline=load)


def _dirty_rate(pace: Pace, carried: float, generator: np.random.Generator) -> float:
    share = _PACES[pace]
    if share is None:
        return 0.0
    return float(round(min(_FASTEST_WRITER, carried * share.draw(generator))))


def _pages(size: float) -> int:
    return int(size) // MIB * MIB
