"""The contract of `whimbrel.ports`, on every adapter."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from contract.harness import Harness
from whimbrel.errors import CommandRefused, HostError, Unsupported
from whimbrel.model.inventory import Capability, Vm
from whimbrel.model.method import Method, Postcopy, Settings, Transport, Tuning, tuning_for
from whimbrel.model.migration import (
    TRANSITIONS,
    Cancel,
    Event,
    Observation,
    Pass,
    Phase,
    PhaseChange,
    Proceed,
    SetBandwidthLimit,
    SetDowntimeLimit,
    StartPostcopy,
)
from whimbrel.model.units import MIB
from whimbrel.ports import Machine, Migration, Reception
from whimbrel.practice.encryption import new_key

PLAIN = Tuning()


async def begin(
    pair: Harness, tuning: Tuning, vm: Vm | None = None
) -> tuple[Machine, Reception, Migration]:
    await able(pair, tuning)
    machine = await pair.source.start(vm or pair.vm)
    address = replace(pair.address, key=new_key()) if tuning.encrypted else pair.address
    reception = await pair.destination.receive(vm or pair.vm, tuning, address)
    migration = await pair.source.send(machine, tuning, reception.address)
    return machine, reception, migration


async def able(pair: Harness, tuning: Tuning) -> None:
    """Leave out a move that this hypervisor is known to have no words for."""
    lacking = await pair.source.lacking()
    if pair.may_lack and (missing := sorted(tuning.needs & lacking.keys())):
        pytest.skip(f"{missing[0]}: {lacking[missing[0]]}")


async def finish(migration: Migration, reception: Reception) -> list[Event]:
    """Watch to the end, and run the guest as soon as it has been handed over."""
    events: list[Event] = []
    async for event in migration.watch():
        first = not any(is_handed_over(seen) for seen in events)
        events.append(event)
        if first and is_handed_over(event):
            await reception.run()
    return events


def is_handed_over(event: Event) -> bool:
    return isinstance(event, PhaseChange) and event.phase in {Phase.POSTCOPY, Phase.COMPLETED}


def phases(events: list[Event]) -> list[Phase]:
    return [event.phase for event in events if isinstance(event, PhaseChange)]


async def test_a_started_guest_runs_until_it_is_stopped(pair: Harness) -> None:
    machine = await pair.source.start(pair.vm)
    assert await machine.running()
    await machine.stop()
    assert not await machine.running()
    await machine.stop()
    assert pair.left_over() == []


async def test_capabilities_and_what_is_lacking_share_out_everything(pair: Harness) -> None:
    present = await pair.source.capabilities()
    lacking = await pair.source.lacking()
    assert present | lacking.keys() == frozenset(Capability)
    assert not present & lacking.keys()
    assert all(lacking.values())


async def test_a_guest_waits_at_the_destination_until_it_may_run(pair: Harness) -> None:
    reception = await pair.destination.receive(pair.vm, PLAIN, pair.address)
    assert reception.address.host == pair.address.host
    assert reception.address.port > 0
    assert not await reception.machine.running()


# RDMA and several NICs need hosts of their own: tests/nested, tests/far.
ANYWHERE = [m for m in Method if m not in {Method.RDMA, Method.MULTINIC}]


@pytest.mark.parametrize("method", ANYWHERE)
async def test_every_method_brings_the_guest_over_exactly_once(
    pair: Harness, method: Method
) -> None:
    settings = Settings(free_page_hints=False)
    machine, reception, migration = await begin(pair, tuning_for(method, settings))
    events = await finish(migration, reception)
    assert phases(events)[-1] is Phase.COMPLETED
    assert not await machine.running()
    assert await reception.machine.running()


async def test_pages_that_are_sent_without_copying_them_arrive_all_the_same(
    pair: Harness,
) -> None:
    small = replace(pair.vm, memory=8 * MIB)  # which may be pinned everywhere
    tuning = Tuning(channels=2, zero_copy=True)
    machine, reception, migration = await begin(pair, tuning, small)
    events = await finish(migration, reception)
    assert phases(events)[-1] is Phase.COMPLETED
    assert not await machine.running()
    assert await reception.machine.running()


@pytest.mark.parametrize(
    "beside", [{"channels": None}, {"compression": Settings().compression}, {"encrypted": True}]
)
async def test_what_cannot_go_with_uncopied_pages_is_refused_beforehand(
    pair: Harness, beside: dict[str, Any]
) -> None:
    machine = await pair.source.start(pair.vm)
    tuning = replace(Tuning(channels=2, zero_copy=True), **beside)
    address = replace(pair.address, key=new_key()) if tuning.encrypted else pair.address
    with pytest.raises(Unsupported):
        await pair.destination.receive(pair.vm, tuning, address)
    assert await machine.running()


async def test_phases_follow_the_table_and_passes_count_upwards(pair: Harness) -> None:
    _, reception, migration = await begin(pair, PLAIN)
    events = await finish(migration, reception)
    for before, after in pairwise([Phase.IDLE, *phases(events)]):
        assert after in TRANSITIONS[before]
    numbers = [event.number for event in events if isinstance(event, Pass)]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 1
    first = next(event for event in events if isinstance(event, Pass))
    assert first.remaining > 0
    times = [event.at for event in events if isinstance(event, Observation)]
    assert times == sorted(times)


async def test_the_last_word_has_the_figures(pair: Harness) -> None:
    _, reception, migration = await begin(pair, PLAIN)
    await finish(migration, reception)
    ended = await migration.ended()
    assert ended.phase is Phase.COMPLETED
    assert ended.total_time is not None
    assert ended.downtime is not None
    assert ended.transferred is not None
    assert 0 <= ended.downtime <= ended.total_time
    assert ended.transferred > 0


async def test_a_cancelled_move_leaves_the_guest_running_at_the_source(pair: Harness) -> None:
    machine, reception, migration = await begin(pair, Tuning(bandwidth_limit=pair.slow))
    events: list[Event] = []
    async for event in migration.watch():
        events.append(event)
        if isinstance(event, Observation) and event.phase is Phase.PRECOPY:
            await migration.apply(Cancel())
    assert phases(events)[-1] is Phase.CANCELLED
    assert await machine.running()
    assert not await reception.machine.running()
    ended = await migration.ended()
    assert ended.downtime is None
    assert ended.transferred


async def test_limits_can_be_changed_on_the_way(pair: Harness) -> None:
    _, reception, migration = await begin(pair, Tuning(bandwidth_limit=pair.slow))
    lifted = False
    async for event in migration.watch():
        if isinstance(event, Observation) and event.phase is Phase.PRECOPY and not lifted:
            lifted = True
            await migration.apply(SetDowntimeLimit(0.5))
            await migration.apply(SetBandwidthLimit(None))
        if is_handed_over(event):
            await reception.run()
    assert lifted
    assert await reception.machine.running()


async def test_after_post_copy_began_the_guest_cannot_be_called_back(pair: Harness) -> None:
    tuning = Tuning(postcopy=Postcopy.AFTER_FIRST_PASS, bandwidth_limit=pair.slow)
    machine, reception, migration = await begin(pair, tuning)
    events: list[Event] = []
    async for event in migration.watch():
        events.append(event)
        if isinstance(event, Observation) and event.phase is Phase.PRECOPY:
            await migration.apply(StartPostcopy())
        if isinstance(event, PhaseChange) and event.phase is Phase.POSTCOPY:
            await reception.run()
            with pytest.raises(CommandRefused):
                await migration.apply(Cancel())
            assert not await machine.running()
            assert await reception.machine.running()
            await migration.apply(SetBandwidthLimit(None))
    assert Phase.POSTCOPY in phases(events)
    assert phases(events)[-1] is Phase.COMPLETED


async def test_a_guest_stands_still_before_switchover_until_it_may_proceed(pair: Harness) -> None:
    tuning = Tuning(pause_before_switchover=True)
    machine, reception, migration = await begin(pair, tuning)
    events: list[Event] = []
    async for event in migration.watch():
        events.append(event)
        if isinstance(event, PhaseChange) and event.phase is Phase.SWITCHOVER:
            assert not await machine.running()
            assert not await reception.machine.running()
            await migration.apply(Proceed())
        if is_handed_over(event):
            await reception.run()
    assert phases(events)[-2:] == [Phase.SWITCHOVER, Phase.COMPLETED]
    assert not await machine.running()
    assert await reception.machine.running()


async def test_a_guest_stands_still_before_it_goes_over_to_post_copy_too(pair: Harness) -> None:
    tuning = Tuning(
        postcopy=Postcopy.AFTER_FIRST_PASS, bandwidth_limit=pair.slow, pause_before_switchover=True
    )
    machine, reception, migration = await begin(pair, tuning)
    events: list[Event] = []
    async for event in migration.watch():
        events.append(event)
        if isinstance(event, Observation) and event.phase is Phase.PRECOPY:
            await migration.apply(StartPostcopy())
        if isinstance(event, PhaseChange) and event.phase is Phase.SWITCHOVER:
            assert not await machine.running()
            await migration.apply(Proceed())
        if isinstance(event, PhaseChange) and event.phase is Phase.POSTCOPY:
            await reception.run()
            await migration.apply(SetBandwidthLimit(None))
    assert phases(events)[-3:] == [Phase.SWITCHOVER, Phase.POSTCOPY, Phase.COMPLETED]
    assert await reception.machine.running()


async def test_a_guest_that_stands_still_can_be_called_back(pair: Harness) -> None:
    machine, reception, migration = await begin(pair, Tuning(pause_before_switchover=True))
    events: list[Event] = []
    async for event in migration.watch():
        events.append(event)
        if isinstance(event, PhaseChange) and event.phase is Phase.SWITCHOVER:
            await migration.apply(Cancel())
    assert phases(events)[-1] is Phase.CANCELLED
    if not await machine.running():
        await machine.resume()
    assert await machine.running()
    assert not await reception.machine.running()


async def test_a_post_copy_that_lost_its_connection_is_taken_up_again(pair: Harness) -> None:
    tuning = Tuning(postcopy=Postcopy.AFTER_FIRST_PASS, bandwidth_limit=pair.slow)
    machine, reception, migration = await begin(pair, tuning)
    events: list[Event] = []
    async for event in migration.watch():
        events.append(event)
        if isinstance(event, Observation) and event.phase is Phase.PRECOPY:
            await migration.apply(StartPostcopy())
        if phases(events)[-1:] == [Phase.POSTCOPY] and isinstance(event, PhaseChange):
            if Phase.POSTCOPY_PAUSED not in phases(events):
                await reception.run()
                await migration.pause()
            else:
                await migration.apply(SetBandwidthLimit(None))
        if isinstance(event, PhaseChange) and event.phase is Phase.POSTCOPY_PAUSED:
            assert (await machine.standing()).phase is Phase.POSTCOPY_PAUSED
            try:
                await migration.resume(await reception.listen_again())
            except Unsupported as error:
                assert pair.may_lack
                pytest.skip(error.what)
    assert phases(events)[-4:] == [
        Phase.POSTCOPY,
        Phase.POSTCOPY_PAUSED,
        Phase.POSTCOPY,
        Phase.COMPLETED,
    ]
    assert (await reception.machine.standing()).phase is Phase.COMPLETED
    assert await reception.machine.running()
    assert not await machine.running()


async def test_only_a_post_copy_can_be_paused_and_taken_up_again(pair: Harness) -> None:
    machine, reception, migration = await begin(pair, Tuning(bandwidth_limit=pair.slow))
    with pytest.raises(HostError):
        await migration.pause()
    with pytest.raises(HostError):
        await migration.resume(reception.address)
    with pytest.raises(CommandRefused):
        await reception.listen_again()
    assert await machine.running()


async def test_a_move_under_way_is_found_and_called_back_by_another(pair: Harness) -> None:
    machine, reception, _ = await begin(pair, Tuning(bandwidth_limit=pair.slow))
    found = await pair.source.seek(pair.vm.name)
    there = await pair.destination.seek(pair.vm.name)
    assert found is not None
    assert there is not None
    migration = await pair.source.rejoin(found)
    events: list[Event] = []
    async for event in migration.watch():
        events.append(event)
        if isinstance(event, Observation) and event.phase is Phase.PRECOPY:
            await migration.apply(Cancel())
    assert phases(events)[-1] is Phase.CANCELLED
    assert (await machine.standing()).phase is Phase.CANCELLED
    again = await pair.destination.expecting(there, reception.address)
    assert again.address == reception.address
    await there.stop()
    assert await pair.destination.seek(pair.vm.name) is None
    assert await machine.running()
    with pytest.raises(CommandRefused):
        await pair.source.rejoin(found)


async def test_a_dead_destination_fails_the_move_and_the_source_keeps_the_guest(
    pair: Harness,
) -> None:
    machine, reception, migration = await begin(pair, Tuning(bandwidth_limit=pair.slow))
    events: list[Event] = []
    killed = False
    async for event in migration.watch():
        events.append(event)
        if isinstance(event, Observation) and event.phase is Phase.PRECOPY and not killed:
            killed = True
            pair.kill(reception.machine)
    assert phases(events)[-1] is Phase.FAILED
    if not await machine.running():
        await machine.resume()
    assert await machine.running()
    with pytest.raises(HostError):
        await reception.run()


async def test_a_lost_source_ends_the_stream_with_an_error(pair: Harness) -> None:
    machine, _, migration = await begin(pair, Tuning(bandwidth_limit=pair.slow))

    async def watch_and_cut() -> None:
        async for event in migration.watch():
            if isinstance(event, Observation):
                pair.kill(machine)

    with pytest.raises(HostError):
        await watch_and_cut()
    assert not await machine.running()


async def test_what_a_host_lacks_is_refused_and_leaves_nothing(pair: Harness) -> None:
    tuning = tuning_for(Method.RDMA, Settings(free_page_hints=False))
    assert tuning.transport is Transport.RDMA
    if Capability.RDMA in await pair.destination.capabilities():
        pytest.skip("this host has RDMA")
    with pytest.raises(Unsupported) as caught:
        await pair.destination.receive(pair.vm, tuning, pair.address)
    assert "rdma" in caught.value.what.lower()
    assert pair.left_over() == []


async def test_a_foreign_address_is_refused_and_leaves_nothing(pair: Harness) -> None:
    with pytest.raises(HostError) as caught:
        await pair.destination.receive(pair.vm, PLAIN, pair.foreign_address)
    assert caught.value.hint
    assert pair.left_over() == []


async def test_a_taken_port_is_refused_and_leaves_the_first_listening(pair: Harness) -> None:
    first = await pair.destination.receive(pair.vm, PLAIN, pair.address)
    before = pair.left_over()
    with pytest.raises(HostError):
        await pair.destination.receive(pair.vm, PLAIN, first.address)
    assert pair.left_over() == before


async def test_a_vm_that_cannot_start_says_why_and_leaves_nothing(pair: Harness) -> None:
    impossible = replace(pair.vm, memory=1 << 60)
    with pytest.raises(HostError) as caught:
        await pair.source.start(impossible)
    assert caught.value.what
    assert pair.left_over() == []
