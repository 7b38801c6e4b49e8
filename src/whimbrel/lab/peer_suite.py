"""The peers suite: the same guests over the same link, by whimbrel and by what others do.

    seed ──► one guest of each kind ──► everyone moves it, one after the other ──► compare

Products move it in an order drawn anew for each guest; whimbrel comes last, with a guest whose
kernel can tell what is free, since that is one of the things it makes use of.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from whimbrel.errors import WhimbrelError
from whimbrel.lab import libvirts, tunnel
from whimbrel.lab.audience import Audience, Nobody
from whimbrel.lab.bench import run_lab
from whimbrel.lab.gathering import Clock, Gathering, in_turn
from whimbrel.lab.habits import Conducted
from whimbrel.lab.peer_guests import peer_scenarios
from whimbrel.lab.peers import PRESETS, Preset, Way
from whimbrel.lab.plan import Carry, Planned, carried
from whimbrel.lab.stage import End, Stage
from whimbrel.lab.suite import SEED
from whimbrel.lab.tunnel import TunnelledHost, tunnels
from whimbrel.lab.virsh import by_virsh
from whimbrel.model.method import Method, Tuning, tuning_for
from whimbrel.model.scenario import LabResult, Scenario
from whimbrel.practice.move import Moved, Request, Watcher, move
from whimbrel.theory.peers import Comparison, compare

MINUTES = 20.0
"""How long the suite runs unless told otherwise."""

_SHORTEST, _LONGEST, _PER_MINUTE = 15.0, 240.0, 2.0
"""Seconds that every move is given: at least, at most, and for each minute of the suite."""


@dataclass(frozen=True)
class PeersResult:
    """What the suite yields.

    Attributes:
        lab: Every run, called by `Run.preset`, without counters over time.
        comparison: What that says.
    """

    lab: LabResult
    comparison: Comparison


def time_allowed(minutes: float) -> float:
    """Return the seconds that every move is given in a suite of so many minutes."""
    return min(max(_SHORTEST, _PER_MINUTE * minutes), _LONGEST)


async def run_peers(
    audience: Audience | None = None,
    *,
    seed: int = SEED,
    minutes: float = MINUTES,
    command: str = "whimbrel lab --suite peers",
    presets: Sequence[Preset] = PRESETS,
    scenarios: Iterable[Scenario] | None = None,
    clock: Clock = time.monotonic,
    rescued: Callable[[PeersResult], None] | None = None,
) -> PeersResult:
    """Run the suite on this machine.

    Args:
        audience: Who is told on the way.
        seed: Of the guests and every order.
        minutes: No guest begins later; the one under way is finished.
        command: The command line that reproduces it.
        presets: Who takes part.
        scenarios: Other guests than the suite's own.
        clock: Seconds.
        rescued: Is told all that was found where the suite does not reach its end.

    Raises:
        LabError: The lab cannot be built here; the hint says what is needed.
        HostError: QEMU is missing or does not start.
    """
    gathering = Gathering(audience or Nobody())
    generator = np.random.default_rng(seed)

    def found() -> PeersResult:
        assert gathering.whole is not None  # noqa: S101 - in_turn raises otherwise
        peers = [preset.peer for preset in presets]
        return PeersResult(gathering.whole, compare(gathering.whole.scenarios, peers))

    async def play(scenario: Scenario) -> None:
        order = [presets[place] for place in generator.permutation(len(presets))]
        hindrance = await _by_libvirt(scenario, order, gathering, command)
        rest = [each for each in order if hindrance or not each.way.by_libvirt]
        await run_lab(
            [scenario],
            gathering,
            command,
            past=gathering.records,
            planning=partial(planned_for, rest, hindrance=hindrance),
        )

    await in_turn(
        peer_scenarios(seed, time_allowed(minutes)) if scenarios is None else scenarios,
        play,
        gathering,
        end=clock() + 60 * minutes,
        clock=clock,
        rescued=lambda: rescued(found()) if rescued is not None else None,
    )
    return found()


async def _by_libvirt(
    scenario: Scenario, presets: Sequence[Preset], gathering: Gathering, command: str
) -> str:
    """Make the moves that need libvirt, on hosts that it runs; return why it cannot be had."""
    by_libvirt = [each for each in presets if each.way.by_libvirt]
    if hindrance := libvirts.lacking():
        return hindrance
    if not by_libvirt:
        return ""
    try:
        await run_lab(
            [scenario],
            gathering,
            command,
            past=gathering.records,
            planning=partial(planned_for, by_libvirt),
            staging=libvirts.libvirt_stage,
        )
    except WhimbrelError as error:  # the others can do without it
        return error.what
    gathering.turn_over()
    return ""


def planned_for(
    presets: Sequence[Preset], scenario: Scenario, *, hindrance: str = ""
) -> tuple[Planned, ...]:
    """Return the moves of one guest, those of products first, in the order of `presets`.

    Args:
        presets: Who moves it.
        scenario: The guest.
        hindrance: Why nothing can be moved by libvirt; empty where it can.
    """
    ordered = sorted(presets, key=lambda preset: preset.way is Way.WHIMBREL)
    return tuple(
        Planned(
            method=preset.method,
            tuning=_tuning(preset, scenario),
            repeat=1,
            number=number,
            of=len(ordered),
            preset=preset.peer.name,
            carry=_carry(preset, scenario),
            hindrance=_hindrance(preset, hindrance),
        )
        for number, preset in enumerate(ordered, start=1)
    )


def _tuning(preset: Preset, scenario: Scenario) -> Tuning:
    """Return what is set; for `auto` what its choice begins from."""
    if preset.method is not Method.AUTO:
        return preset.tuning(scenario)
    tuning = tuning_for(Method.AUTO, scenario.settings)
    # libvirt does not know the device by which a guest tells what is free.
    return tuning if preset.way is Way.WHIMBREL else replace(tuning, free_page_hints=False)


def _hindrance(preset: Preset, without_libvirt: str) -> str:
    if preset.way is Way.SSH:
        return tunnel.lacking()
    return without_libvirt if preset.way.by_libvirt else ""


def _carry(preset: Preset, scenario: Scenario) -> Carry:
    if preset.way is Way.VIRSH:
        return partial(by_virsh, preset.flags)
    if preset.way is Way.LIBVIRT:
        return libvirts.when_built
    if preset.habit is None:
        return carried
    conduct = partial(_conducted, preset, scenario)
    return partial(_tunnelled, conduct) if preset.way is Way.SSH else conduct


async def _conducted(
    preset: Preset, scenario: Scenario, request: Request, watcher: Watcher, _s: Stage, _e: End
) -> Moved:
    """Carry a move out under another's control, made anew for it."""
    assert preset.habit is not None  # noqa: S101 - only who has one comes here
    control = Conducted(preset.habit(scenario), request.timeout)
    return await move(replace(request, control=control), watcher)


async def _tunnelled(
    conduct: Carry, request: Request, watcher: Watcher, stage: Stage, end: End
) -> Moved:
    """Carry a move out through ssh."""
    async with (
        tunnels(end.host, stage.other(end).host) as ways,
        TunnelledHost(request.destination, ways) as destination,
    ):
        return await conduct(replace(request, destination=destination), watcher, stage, end)
