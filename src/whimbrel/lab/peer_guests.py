"""The guests of the peers suite: one of each kind, drawn from a seed.

They are small, so that a pass takes seconds, and everyone can be tried on each of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from whimbrel.lab.scenario_check import GUEST_ROOM
from whimbrel.model.method import Method
from whimbrel.model.scenario import Access, GuestSpec, LinkSpec, Load, Pattern, Scenario
from whimbrel.model.units import MIB, PAGE


class Kind(StrEnum):
    """What a guest is like."""

    IDLE = "idle"
    CONVERGING = "converging"
    BORDERLINE = "borderline"
    NEVER_CONVERGING = "never converging"
    FREED = "freed memory"
    FAST_LINK = "fast link"


@dataclass(frozen=True)
class _Range:
    low: float
    high: float

    def draw(self, generator: np.random.Generator) -> float:
        return float(generator.uniform(self.low, self.high))


_WRITES = {
    Kind.CONVERGING: _Range(0.15, 0.45),
    Kind.BORDERLINE: _Range(0.75, 1.1),
    Kind.NEVER_CONVERGING: _Range(1.6, 2.4),
    Kind.FAST_LINK: _Range(0.1, 0.3),
}
"""Bytes of pages written per second, over what the link carries; none else."""

_FASTEST_WRITER = 300.0 * MIB
"""Bytes of pages per second that a guest surely writes under emulation beside a move."""

_LINKS = (500e6 / 8, 1e9 / 8)
_FAST = 5e9 / 8
_PASS, _FAST_PASS = _Range(2.5, 5.0), _Range(1.2, 2.0)
"""Seconds of a first pass at the link's rate."""

_HOT = _Range(0.3, 0.6)
"""Share of the fill that is rewritten: more than any downtime limit lets over at once."""


def peer_scenarios(seed: int, timeout: float) -> Iterator[Scenario]:
    """Yield one scenario for each kind, in an order drawn as well, and then again others.

    Args:
        seed: Of everything that is drawn.
        timeout: Seconds that every move is given.
    """
    generator = np.random.default_rng(seed)
    while True:
        for kind in generator.permutation(list(Kind)):
            yield _scenario(Kind(str(kind)), timeout, generator)


def _scenario(kind: Kind, timeout: float, generator: np.random.Generator) -> Scenario:
    rate = _FAST if kind is Kind.FAST_LINK else float(generator.choice(_LINKS))
    seconds = _FAST_PASS if kind is Kind.FAST_LINK else _PASS
    fill = int(rate * seconds.draw(generator)) // MIB * MIB
    freed = int(fill * _Range(1.0, 1.6).draw(generator)) // MIB * MIB if kind is Kind.FREED else 0
    writes = _WRITES[kind].draw(generator) * rate if kind in _WRITES else 0.0
    load = Load(
        fill=fill,
        pattern=Pattern(str(generator.choice(["text", "mixed", "random"]))),
        hot=int(fill * _HOT.draw(generator)) // MIB * MIB if writes else 0,
        dirty_rate=float(round(min(writes, _FASTEST_WRITER))),
        access=Access(str(generator.choice(["uniform", "sequential"]))),
        touch=int(generator.choice([512, PAGE])),
        freed=freed,
    )
    memory = -(-int((fill + freed) * 1.15 + GUEST_ROOM) // (64 * MIB)) * 64 * MIB
    return Scenario(
        name=kind.value,
        methods=(Method.AUTO,),
        timeout=timeout,
        link=LinkSpec(rate),
        guest=GuestSpec(memory, redline=load),
        survey=None,
    )
