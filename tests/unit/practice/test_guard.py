"""The guard on its way with a simulated move, whose guest may change its mind."""

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from unit.practice.fakes import Silent
from whimbrel.hypervisors.simulated import Faults, SimulatedHypervisor, simulated_pair
from whimbrel.model.inventory import MigrationAddress, Vm
from whimbrel.model.memory import LinkProfile, MemoryProfile
from whimbrel.model.method import Policy, Postcopy, Tuning
from whimbrel.model.migration import Action, Cancel, Phase, SetDowntimeLimit, StartPostcopy
from whimbrel.model.outcome import Ending
from whimbrel.model.plan import Certificate, Rung, Step
from whimbrel.model.units import MIB, PAGE
from whimbrel.practice.move import Moved, Request, move
from whimbrel.theory.dirtying import uniform
from whimbrel.theory.simulate import Change, Haste

VM = Vm("guest", 512 * MIB)
LINK = 50e6
READY = Tuning(postcopy=Postcopy.IF_STALLED)
SHORT = Policy(downtime=0.3)
DEADLINE = 200.0
SPEED = 100.0


def guest(share: float) -> MemoryProfile:
    """Half of memory, written at a share of what the link carries."""
    return MemoryProfile(VM.memory, dirty=uniform(VM.memory / PAGE / 2, share * LINK / PAGE))


def pair(share: float, *changes: Change) -> tuple[SimulatedHypervisor, SimulatedHypervisor]:
    faults = Faults(befalls=changes)
    link = LinkProfile({1: LINK})
    return simulated_pair(
        speed=SPEED, link=link, guest=lambda _: guest(share), source_faults=faults
    )


async def moved(
    hosts: tuple[SimulatedHypervisor, SimulatedHypervisor],
    tuning: Tuning = READY,
    policy: Policy | None = SHORT,
    certificate: Certificate | None = None,
) -> Moved:
    source, destination = hosts
    machine = await source.start(VM)
    address = MigrationAddress("127.0.0.1")
    request = Request(
        source, machine, destination, address, tuning, DEADLINE, policy, certificate=certificate
    )
    outcome = await move(request, Silent())
    there = [each for each in destination.machines if await each.running()]
    here = [each for each in source.machines if await each.running()]
    assert len(there) + len(here) == 1, "the guest runs exactly once"
    return outcome


def actions(result: Moved) -> Sequence[Action]:
    return [decision.action for decision in result.outcome.decisions]


async def test_a_guest_that_never_converges_goes_to_post_copy_and_completes() -> None:
    result = await moved(pair(5.0))
    assert result.outcome.ending is Ending.COMPLETED
    assert actions(result) == [StartPostcopy()]
    assert Phase.POSTCOPY in [each.phase for each in result.outcome.phases]


async def test_a_guest_that_converges_is_left_alone() -> None:
    result = await moved(pair(0.3))
    assert result.outcome.ending is Ending.COMPLETED
    assert actions(result) == []


@settings(max_examples=10)
@given(at=st.floats(2.0, 12.0), factor=st.floats(20.0, 100.0))
def test_a_guest_that_stops_converging_is_noticed_within_two_passes(
    at: float, factor: float
) -> None:
    result = asyncio.run(moved(pair(0.3, Change(at, Haste(factor)))))
    assert result.outcome.ending is Ending.COMPLETED
    pull = next(d for d in result.outcome.decisions if isinstance(d.action, StartPostcopy))
    first = next(p.at for p in result.outcome.passes if p.at > at)
    since = [p for p in result.outcome.passes if first < p.at <= pull.at]
    assert len(since) <= 2 or pull.at - first <= 5.0


async def test_without_post_copy_it_gives_up_long_before_the_deadline() -> None:
    result = await moved(
        pair(0.3, Change(5.0, Haste(50.0))), policy=Policy(downtime=0.3, postcopy=False)
    )
    assert result.outcome.ending is Ending.CANCELLED
    assert actions(result) == [Cancel()]
    assert "policy forbids post-copy" in result.outcome.reason
    assert result.outcome.decisions[-1].at < DEADLINE / 2


async def test_what_was_named_runs_as_it_is_named() -> None:
    result = await moved(pair(5.0), policy=None)
    assert result.outcome.ending is Ending.TIMEOUT
    assert actions(result) == [Cancel()]


def rung(step: Step, action: Action | None, latest: float) -> Rung:
    return Rung(step, READY, action, latest, 1.0, 60.0, 1.0, guaranteed=True, reason="sure")


async def test_the_certificates_rungs_are_climbed_by_the_clock_within_a_pass() -> None:
    # Memory takes more than ten seconds to send, so that no pass but the first has begun.
    ladder = Certificate(
        (
            rung(Step.PRECOPY, None, 0.0),
            rung(Step.RAISED_DOWNTIME_LIMIT, SetDowntimeLimit(0.25), 3.0),
            rung(Step.RAISED_DOWNTIME_LIMIT, SetDowntimeLimit(0.3), 4.0),
            rung(Step.POSTCOPY, StartPostcopy(), 6.0),
        ),
        (),
    )
    begun = Tuning(postcopy=Postcopy.IF_STALLED, downtime_limit=0.2)
    result = await moved(pair(0.3), begun, SHORT, ladder)
    assert result.outcome.ending is Ending.COMPLETED
    assert actions(result) == [SetDowntimeLimit(0.25), SetDowntimeLimit(0.3), StartPostcopy()]
    for decision, climbed in zip(result.outcome.decisions, ladder.rungs[1:], strict=True):
        assert decision.at <= climbed.latest
    pulled = result.outcome.decisions[-1].at
    assert [p.number for p in result.outcome.passes if p.at < pulled] == [1]
