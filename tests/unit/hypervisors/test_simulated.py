import pytest

from whimbrel.errors import CommandRefused, HostError, HostUnreachable, Unsupported
from whimbrel.hypervisors.simulated import (
    EVERYTHING,
    Faults,
    SimulatedHypervisor,
    idle_guest,
    simulated_pair,
)
from whimbrel.model.inventory import Capability, MigrationAddress, Vm
from whimbrel.model.memory import LinkProfile, MemoryProfile
from whimbrel.model.method import Postcopy, Tuning
from whimbrel.model.migration import (
    Cancel,
    Event,
    Observation,
    Pass,
    Phase,
    PhaseChange,
    SetDowntimeLimit,
    StartPostcopy,
)
from whimbrel.model.units import MIB
from whimbrel.ports import Machine, Migration, Reception
from whimbrel.theory.dirtying import uniform

VM = Vm("hiwi", 256 * MIB)
HERE = MigrationAddress("127.0.0.1")
SPEED = 200.0
PULL = Tuning(postcopy=Postcopy.AFTER_FIRST_PASS)
SLOW_LINK = LinkProfile({1: 20e6})

Pair = tuple[SimulatedHypervisor, SimulatedHypervisor]


def busy_guest(vm: Vm) -> MemoryProfile:
    return MemoryProfile(vm.memory, dirty=uniform(40_000, 50_000))


async def begin(pair: Pair, tuning: Tuning) -> tuple[Machine, Reception, Migration]:
    source, destination = pair
    machine = await source.start(VM)
    reception = await destination.receive(VM, tuning, HERE)
    return machine, reception, await source.send(machine, tuning, reception.address)


async def heard(migration: Migration) -> list[Event]:
    return [event async for event in migration.watch()]


def last_phase(events: list[Event]) -> Phase:
    return [event.phase for event in events if isinstance(event, PhaseChange)][-1]


async def test_a_stalled_move_finishes_once_it_may_stand_still_longer() -> None:
    pair = simulated_pair(speed=SPEED, link=SLOW_LINK, guest=busy_guest)
    _, _, migration = await begin(pair, Tuning())
    passes = []
    async for event in migration.watch():
        if isinstance(event, Pass):
            passes.append(event)
            if event.number == 4:
                await migration.apply(SetDowntimeLimit(30.0))
    assert 4 < passes[-1].number < 8
    assert (await migration.ended()).phase is Phase.COMPLETED


async def test_a_move_that_makes_no_progress_goes_on_beyond_any_horizon() -> None:
    pair = simulated_pair(speed=2000.0, link=SLOW_LINK, guest=busy_guest)
    _, _, migration = await begin(pair, Tuning())
    async for event in migration.watch():
        if isinstance(event, Observation) and event.at > 70:
            await migration.apply(Cancel())
    ended = await migration.ended()
    assert ended.phase is Phase.CANCELLED
    assert ended.total_time is not None
    assert ended.total_time > 70
    assert ended.transferred is not None
    assert ended.transferred > 20e6 * 60


@pytest.mark.parametrize("phase", [Phase.PRECOPY, Phase.SWITCHOVER])
async def test_before_post_copy_a_failure_leaves_the_guest_to_the_source(phase: Phase) -> None:
    pair = simulated_pair(speed=SPEED, source_faults=Faults(fails_in=phase))
    machine, reception, migration = await begin(pair, Tuning())
    events = await heard(migration)
    assert last_phase(events) is Phase.FAILED
    assert phase in [event.phase for event in events if isinstance(event, PhaseChange)]
    assert (await migration.ended()).reason
    await machine.resume()
    assert await machine.running()
    with pytest.raises(HostError):
        await reception.run()
    assert not await reception.machine.running()


async def test_a_failure_in_post_copy_leaves_the_guest_nowhere() -> None:
    faults = Faults(fails_in=Phase.POSTCOPY)
    pair = simulated_pair(speed=SPEED, link=SLOW_LINK, guest=busy_guest, source_faults=faults)
    machine, reception, migration = await begin(pair, PULL)
    async for event in migration.watch():
        if isinstance(event, Pass) and event.number == 2:
            await migration.apply(StartPostcopy())
        if isinstance(event, PhaseChange) and event.phase is Phase.POSTCOPY:
            await reception.run()
    assert not await machine.running()
    assert not await reception.machine.running()
    with pytest.raises(CommandRefused):
        await machine.resume()


async def test_a_lost_connection_ends_the_stream_while_the_move_goes_on_unseen() -> None:
    faults = Faults(unreachable_in=Phase.PRECOPY)
    source, destination = simulated_pair(speed=SPEED, source_faults=faults)
    machine, reception, migration = await begin((source, destination), Tuning())
    with pytest.raises(HostUnreachable):
        await heard(migration)
    with pytest.raises(HostUnreachable):
        await machine.running()
    with pytest.raises(HostUnreachable):
        await migration.ended()
    await reception.run()
    assert await reception.machine.running()


async def test_a_destination_that_refuses_leaves_the_guest_with_nobody() -> None:
    pair = simulated_pair(speed=SPEED, destination_faults=Faults(refuses_to_run=True))
    machine, reception, migration = await begin(pair, Tuning())
    await heard(migration)
    with pytest.raises(CommandRefused):
        await reception.run()
    assert not await reception.machine.running()
    assert not await machine.running()


async def test_a_guest_that_was_handed_over_is_not_taken_back() -> None:
    machine, _, migration = await begin(simulated_pair(speed=SPEED), Tuning())
    await heard(migration)
    with pytest.raises(CommandRefused):
        await machine.resume()
    assert not await machine.running()


async def test_at_no_event_does_the_guest_run_on_both_sides() -> None:
    pair = simulated_pair(speed=SPEED, link=SLOW_LINK, guest=busy_guest)
    machine, reception, migration = await begin(pair, PULL)
    async for event in migration.watch():
        if isinstance(event, Pass) and event.number == 2:
            await migration.apply(StartPostcopy())
        if isinstance(event, PhaseChange) and event.phase is Phase.POSTCOPY:
            assert not await machine.running()
            await reception.run()
        assert not (await machine.running() and await reception.machine.running())
    assert await reception.machine.running()


async def test_post_copy_needs_to_be_prepared() -> None:
    pair = simulated_pair(speed=SPEED, link=SLOW_LINK)
    _, _, migration = await begin(pair, Tuning())
    with pytest.raises(CommandRefused):
        await migration.apply(StartPostcopy())


async def test_nothing_can_be_done_to_a_move_that_has_ended() -> None:
    _, _, migration = await begin(simulated_pair(speed=SPEED), Tuning())
    await heard(migration)
    with pytest.raises(CommandRefused):
        await migration.apply(Cancel())


async def test_both_sides_need_the_capabilities_of_a_tuning() -> None:
    source, destination = simulated_pair(capabilities=EVERYTHING - {Capability.XBZRLE})
    machine = await source.start(VM)
    with pytest.raises(Unsupported, match="xbzrle"):
        await destination.receive(VM, Tuning(xbzrle_cache=MIB), HERE)
    with pytest.raises(Unsupported, match="xbzrle"):
        await source.send(machine, Tuning(xbzrle_cache=MIB), HERE)


async def test_nobody_listening_is_told_at_once() -> None:
    source, _ = simulated_pair()
    machine = await source.start(VM)
    with pytest.raises(CommandRefused):
        await source.send(machine, Tuning(), MigrationAddress("127.0.0.1", 1))


async def test_a_machine_cannot_leave_twice_at_the_same_time() -> None:
    source, destination = simulated_pair(speed=SPEED, link=SLOW_LINK, guest=idle_guest)
    machine, reception, _ = await begin((source, destination), Tuning())
    with pytest.raises(CommandRefused):
        await source.send(machine, Tuning(), reception.address)


async def test_two_machines_of_one_name_cannot_be_on_one_host() -> None:
    source, _ = simulated_pair()
    await source.start(VM)
    with pytest.raises(CommandRefused):
        await source.start(VM)


async def test_a_channel_is_refused_since_nobody_would_answer() -> None:
    source, _ = simulated_pair()
    machine = await source.start(VM)
    assert machine.pid is None
    with pytest.raises(CommandRefused):
        machine.channel("heartbeat")
