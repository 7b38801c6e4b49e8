"""The claims about speed, each measured when you ask for it.

    sudo .venv/bin/python benchmarks/claims.py            all of them
    sudo .venv/bin/python benchmarks/claims.py goodput    one

Every claim compares within one run, since machines drift. Nothing else may run meanwhile.
"""

import asyncio
import resource
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from statistics import median

import numpy as np

import whimbrel
from whimbrel.lab.audience import Nobody
from whimbrel.lab.goodput import measure_goodput
from whimbrel.lab.hosts import two_hosts
from whimbrel.model.memory import LinkProfile, MemoryProfile, Survey
from whimbrel.model.method import Method, Settings, tuning_for
from whimbrel.model.migration import ENDS, Event, Observation, PhaseChange
from whimbrel.model.scenario import GuestSpec, LinkSpec, Load, Pattern, Run, Scenario
from whimbrel.model.units import GIB, MIB, PAGE, format_link, format_rate, format_size, format_time
from whimbrel.theory.candidates import NAMED
from whimbrel.theory.dirtying import uniform
from whimbrel.theory.simulate import predict

REPEATS = 3
"""Runs per method where the first may differ from the rest."""


class Cost(Nobody):
    """Counts whimbrel's own CPU while it watches moves."""

    def __init__(self) -> None:
        self.cpu = 0.0
        self.wall = 0.0
        self._began: tuple[float, float] | None = None

    def says(self, text: str) -> None:
        """See `Audience`."""
        print(f"  {text}", file=sys.stderr)

    def run_ended(self, run: Run) -> None:
        """See `Audience`."""
        seen = run.observed.wall_time
        told = run.reason if seen is None else format_time(seen)
        print(f"  {run.method}: {told}", file=sys.stderr)

    def happened(self, event: Event) -> None:
        """See `Audience`."""
        if isinstance(event, Observation) and self._began is None:
            self._began = (time.process_time(), time.monotonic())
        if isinstance(event, PhaseChange) and event.phase in ENDS and self._began is not None:
            self.cpu += time.process_time() - self._began[0]
            self.wall += time.monotonic() - self._began[1]
            self._began = None


async def runs(scenario: Scenario, cost: Cost) -> dict[Method, list[Run]]:
    """Run one scenario and return its runs by method; all must complete."""
    result = await whimbrel.run_lab([scenario], cost)
    found: dict[Method, list[Run]] = {}
    for run in result.scenarios[0].runs:
        if run.observed.wall_time is None or run.observed.total_time is None:
            sys.exit(f"{run.method}: {run.ending}: {run.reason}")
        found.setdefault(run.method, []).append(run)
    return found


def wall(runs: list[Run]) -> float:
    """Return the median wall time of completed runs."""
    return median(run.observed.wall_time or 0.0 for run in runs)


async def goodput(cost: Cost) -> None:
    """`tcp` with random content reaches at least 97 % of a plain TCP transfer's goodput."""
    link = LinkSpec(125e6)
    load = Load(fill=1536 * MIB, pattern=Pattern.RANDOM)
    scenario = Scenario(
        "goodput", methods=(Method.TCP,), link=link, guest=GuestSpec(2 * GIB, 1, load), survey=None
    )
    with two_hosts(link.rate) as (a, b):
        before = (await measure_goodput(a, b, duration=5.0)).rate
    [run] = (await runs(scenario, cost))[Method.TCP]
    with two_hosts(link.rate) as (a, b):
        after = (await measure_goodput(a, b, duration=5.0)).rate
    plain = (before + after) / 2
    sent = (run.observed.qemu_bytes or 0) / (run.observed.total_time or 1)
    own = wall([run]) - (run.observed.preparation_time or 0) - (run.observed.total_time or 0)
    say(
        "tcp on 1 Gbit/s, random content",
        f"{format_link(sent)} of {format_link(plain)}",
        sent / plain,
        0.97,
    )
    say("whimbrel's own part", format_time(own), 0.5 / max(own, 1e-3), 1.0)


async def fastest(cost: Cost) -> None:
    """`multichannel` with prepared memory is at least 8 times as fast as QEMU's default."""
    methods = (Method.QEMU_DEFAULT, Method.MULTICHANNEL)
    scenario = Scenario(
        "fastest", methods=methods, link=LinkSpec(None), repeats=REPEATS, survey=None
    )
    found = await runs(scenario, cost)
    slow, fast = found[Method.QEMU_DEFAULT], found[Method.MULTICHANNEL]
    setup = format_time(median(run.observed.preparation_time or 0 for run in fast))
    text = f"{format_time(wall(slow))} against {format_time(wall(fast))} ({setup} of it setup)"
    say(
        f"multichannel, 4 GiB, unlimited link, median of {REPEATS}",
        text,
        wall(slow) / wall(fast),
        8,
    )


async def freed(cost: Cost) -> None:
    """A guest with 2 GiB of freed memory moves at least 3 times as fast with free page hints."""
    load = Load(fill=256 * MIB, pattern=Pattern.RANDOM, freed=2 * GIB)
    scenario = Scenario(
        "freed", methods=(Method.TCP,), guest=GuestSpec(3 * GIB, 1, load), survey=None
    )
    [hinted] = (await runs(scenario, cost))[Method.TCP]
    without = replace(scenario, settings=Settings(free_page_hints=False))
    [plain] = (await runs(without, cost))[Method.TCP]
    sent = [format_size(run.observed.wire_bytes or 0) for run in (plain, hinted)]
    slow, fast = wall([plain]), wall([hinted])
    text = f"{format_time(slow)} and {sent[0]} without, {format_time(fast)} and {sent[1]} with"
    say("free page hints, 2 GiB freed, 1 Gbit/s", text, slow / fast, 3.0)


async def redline(cost: Cost) -> None:
    """The redliner dirties at least 400 MiB/s of pages in a guest, whole pages of new content."""
    load = Load(fill=GIB, hot=GIB, dirty_rate=4.0 * GIB, touch=4096)
    guest = GuestSpec(1536 * MIB, 1, load)
    scenario = Scenario("redline", methods=(Method.POSTCOPY,), guest=guest, link=LinkSpec(None))
    [run] = (await runs(replace(scenario, survey=None), cost))[Method.POSTCOPY]
    rate = run.observed.dirty_rate_before or 0.0
    say("redline, text in whole pages", format_rate(rate), rate / MIB, 400)


async def forecast(cost: Cost) -> None:  # noqa: ARG001 - no move is made
    """One candidate, 4 GiB, 200 draws: at most half a second of one core, the slowest counts."""
    link, settings = LinkProfile({1: 1.2e8, 2: 1.2e8}, error=0.02), Settings()
    slowest, worst = 0.0, ""
    for share in (0.0, 0.3, 0.9, 1.1, 3.0):
        curve = uniform(65_536, share * 1.2e8 / PAGE)
        memory = MemoryProfile(4 * GIB, 0.2, 0.01, dirty=replace(curve, rate_error=0.05))
        for method in NAMED:
            began = time.process_time()
            predict(
                Survey(memory, link),
                tuning_for(method, settings),
                generator=np.random.default_rng(1),
                deadline=300.0,
            )
            took = time.process_time() - began
            if took > slowest:
                slowest, worst = took, f"{method}, dirtying {share:.0%} of the link"
    say(f"forecast of 200 draws, 4 GiB ({worst})", format_time(slowest), 0.5 / slowest, 1.0)


CLAIMS: dict[str, Callable[[Cost], Coroutine[None, None, None]]] = {
    "goodput": goodput,
    "fastest": fastest,
    "freed": freed,
    "redline": redline,
    "forecast": forecast,
}


def say(what: str, figures: str, ratio: float, least: float) -> None:
    """Print one claim with its measured ratio."""
    kept = "kept" if ratio >= least else "MISSED"
    print(f"{what}: {figures}: {ratio:.2f}, at least {least:g} claimed: {kept}", flush=True)


async def main(names: list[str]) -> None:
    """Measure the named claims, and what whimbrel itself took for it."""
    cost = Cost()
    for name in names or list(CLAIMS):
        await CLAIMS[name](cost)
    if not cost.wall:
        return
    share = cost.cpu / cost.wall
    say("whimbrel's CPU while watching", f"{share:.1%} of one core", 0.05 / share, 1.0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    say("whimbrel's memory", format_size(peak), 200 * MIB / peak, 1.0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
