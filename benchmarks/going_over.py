"""How long a guest stands still in post-copy that is begun at once, or with its memory's end sent.

    sudo .venv/bin/python benchmarks/going_over.py      three minutes

QEMU counts the first pass as over when what is left fits its downtime limit. Whoever goes over
then, as `virsh migrate --postcopy-after-precopy` does, leaves the end of memory behind, and with it
the rings of the guest's devices, which the destination reads before it lets the guest run. whimbrel
waits for as long as sending it may take (`theory/convergence.py`). Both ways move the same guest in
turns; standstills are seen from outside, by its heartbeat. Nothing else may run meanwhile. Exits
with 1 where waiting does not make the longest of them shorter.
"""

import asyncio
import sys
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from whimbrel.lab.bench import run_lab
from whimbrel.lab.plan import Planned
from whimbrel.lab.stage import End, Stage
from whimbrel.model.method import Method, Postcopy, Settings, tuning_for
from whimbrel.model.migration import Decision, Event, Pass, StartPostcopy
from whimbrel.model.scenario import Access, GuestSpec, LinkSpec, Load, Pattern, Run, Scenario
from whimbrel.model.units import MIB, format_link, format_time
from whimbrel.practice.move import Moved, Request, Watcher, move
from whimbrel.theory.convergence import Convergence

TURNS = 3
AT_ONCE, AT_ITS_END = "at once", "with the end of memory sent"


@dataclass(frozen=True)
class Case:
    """A link, and a guest that never converges over it."""

    rate: float
    hot: int
    dirty_rate: float


CASES = (Case(25e6, 32 * MIB, 16e6), Case(125e6, 96 * MIB, 120e6))


class AtOnce(Convergence):
    """Goes over as soon as QEMU counts the first pass as over."""

    def __init__(self, request: Request) -> None:
        super().__init__(replace(request.tuning, postcopy=Postcopy.IF_STALLED), request.timeout)
        self._gone = False

    def hear(self, event: Event) -> Decision | None:
        """See `Convergence.hear`."""
        if isinstance(event, Pass) and event.number > 1 and not self._gone:
            self._gone = True
            super().hear(event)
            return Decision(StartPostcopy(), "the first pass is over", event.at)
        return super().hear(event)


async def carried(at_once: bool, request: Request, watcher: Watcher, _s: Stage, _e: End) -> Moved:  # noqa: FBT001
    """Move the guest, one way or the other."""
    control = AtOnce(request) if at_once else None
    return await move(replace(request, control=control), watcher)


def planned(scenario: Scenario) -> tuple[Planned, ...]:
    """Return the moves: both ways in turns."""
    tuning = tuning_for(Method.POSTCOPY, scenario.settings)
    ways = [AT_ONCE, AT_ITS_END] * TURNS
    return tuple(
        Planned(
            Method.POSTCOPY,
            tuning,
            repeat=1 + place // 2,
            number=place + 1,
            of=len(ways),
            preset=way,
            carry=partial(carried, way == AT_ONCE),
        )
        for place, way in enumerate(ways)
    )


async def runs(case: Case) -> tuple[Run, ...]:
    """Move the guest; all of its moves must arrive."""
    load = Load(256 * MIB, Pattern.RANDOM, case.hot, case.dirty_rate, Access.UNIFORM)
    scenario = Scenario(
        "going over",
        methods=(Method.POSTCOPY,),
        link=LinkSpec(case.rate),
        guest=GuestSpec(512 * MIB, 1, load),
        settings=Settings(),
        survey=None,
    )
    found = (await run_lab([scenario], planning=planned)).scenarios[0].runs
    for run in found:
        if run.observed.downtime_observed is None or run.observed.wall_time is None:
            raise SystemExit(f"{run.preset}: {run.ending}: {run.reason}")
    return found


async def main() -> int:
    """Measure, print, and return the exit code."""
    good = True
    for case in CASES:
        found = await runs(case)
        longest = {}
        for way in (AT_ONCE, AT_ITS_END):
            own = [run.observed for run in found if run.preset == way]
            stood = [each.downtime_observed or 0.0 for each in own]
            lasted = median(each.wall_time or 0.0 for each in own)
            longest[way] = max(stood)
            every = ", ".join(map(format_time, stood))
            print(
                f"{format_link(case.rate)}, {way}: stood still for {every}, "
                f"moved in {format_time(lasted)}",
                flush=True,
            )
        good &= longest[AT_ITS_END] < longest[AT_ONCE]
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
