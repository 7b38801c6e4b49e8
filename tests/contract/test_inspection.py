"""The contract of `whimbrel.ports.Inspection`, on every adapter."""

import asyncio
from array import array
from collections.abc import Sequence

import pytest

from contract.harness import Harness
from whimbrel.errors import Unsupported
from whimbrel.model.units import PAGE
from whimbrel.ports import IN_MEMORY, NEVER_PROVIDED, SWAPPED_OUT, Inspection, Machine


async def settled(machine: Machine) -> Inspection:
    """Return a look into a guest that has provided some memory (its firmware has run)."""
    inspection = machine.inspection()
    while (await inspection.provided()).count(IN_MEMORY) < 64:
        pass  # every question waits for its answer
    return inspection


async def at_rest(inspection: Inspection) -> bytes:
    """Return what the guest has been provided with once its firmware asks for no more."""
    before = await inspection.provided()
    while True:
        await asyncio.sleep(0.2)  # nobody tells when a firmware is done
        after = await inspection.provided()
        if after.count(IN_MEMORY) - before.count(IN_MEMORY) < 16:
            return after
        before = after


def present(provided: bytes, count: int = 64) -> list[int]:
    found = [page for page, state in enumerate(provided) if state == IN_MEMORY]
    return found[:: max(1, len(found) // count)][:count]


def marks(seen: bytes) -> Sequence[int]:
    return array("Q", seen)


async def test_every_page_is_accounted_for(pair: Harness) -> None:
    inspection = await settled(await pair.source.start(pair.vm))
    provided = await inspection.provided()
    assert inspection.pages == pair.vm.memory // PAGE
    assert len(provided) == inspection.pages
    assert set(provided) <= {NEVER_PROVIDED, IN_MEMORY, SWAPPED_OUT}


async def test_zero_pages_and_no_others_have_the_mark_zero(pair: Harness) -> None:
    machine = await pair.source.start(pair.vm)
    inspection = await settled(machine)
    pages = present(await inspection.provided())
    before = marks((await inspection.look(pages)).marks)
    content = await inspection.read(pages)
    after = marks((await inspection.look(pages)).marks)
    assert len(content) == len(pages) * PAGE
    for number, (first, last) in enumerate(zip(before, after, strict=True)):
        if first == last:  # the guest did not write it meanwhile
            page = content[number * PAGE : (number + 1) * PAGE]
            assert (first == 0) == (page == bytes(PAGE))


async def test_looks_follow_one_clock(pair: Harness) -> None:
    inspection = await settled(await pair.source.start(pair.vm))
    pages = present(await inspection.provided())
    first, second = [await inspection.look(pages) for _ in range(2)]
    assert first.began <= first.ended <= second.began <= second.ended


async def test_looking_provides_nothing_and_the_guest_runs_on(pair: Harness) -> None:
    machine = await pair.source.start(pair.vm)
    inspection = await settled(machine)
    before = await at_rest(inspection)
    pages = present(before, 1000)
    await inspection.look(pages)
    await inspection.read(pages)
    after = await inspection.provided()
    # The firmware may go on touching memory of its own; looking at 1000 pages must not show.
    assert after.count(IN_MEMORY) - before.count(IN_MEMORY) < 600
    assert await machine.running()


async def test_what_is_not_known_is_said_to_be_so(pair: Harness) -> None:
    inspection = await settled(await pair.source.start(pair.vm))
    free = await inspection.free_bytes()
    assert free is None or 0 <= free <= pair.vm.memory
    before = await inspection.vcpu_seconds()
    after = await inspection.vcpu_seconds()
    assert len(before) == len(after)
    assert all(first <= last for first, last in zip(before, after, strict=True))


@pytest.mark.parametrize("window", [0.1, 1.0])
async def test_the_hypervisor_counts_within_the_guest(pair: Harness, window: float) -> None:
    inspection = await settled(await pair.source.start(pair.vm))
    try:
        counted = await inspection.written(window)
    except Unsupported as error:
        assert pair.may_lack
        pytest.skip(error.what)
    assert counted.window == window
    assert 0 <= counted.pages <= inspection.pages
    assert counted.error > 0
