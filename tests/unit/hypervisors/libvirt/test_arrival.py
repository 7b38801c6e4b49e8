"""When a guest that stands at its destination is believed to have been given away."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from whimbrel.errors import HostUnreachable
from whimbrel.hypervisors.libvirt import migration as module
from whimbrel.hypervisors.libvirt.departure import Departure
from whimbrel.hypervisors.libvirt.migration import LibvirtMigration
from whimbrel.hypervisors.libvirt.states import Happening, State
from whimbrel.model.migration import Phase, PhaseChange, Side

PAUSED_THERE = Happening("paused", side=Side.DESTINATION)


class Says:
    """A VM that says one state after the other, and the last one for ever."""

    def __init__(self, *states: State) -> None:
        self.left = list(states)

    async def state(self) -> State:
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


async def phases(source: Says, there: State) -> list[Phase]:
    """Tell a move that its guest is paused at the destination, and return what it makes of it."""
    reception = SimpleNamespace(machine=Says(there))
    departure = Departure(*cast("Any", (source, reception, frozenset({"PAUSED"}), {})))
    machine = SimpleNamespace(last=Phase.IDLE)
    migration = LibvirtMigration(*cast("Any", (machine, source, asyncio.Queue(), (), departure)))
    events = await migration._take(PAUSED_THERE)
    return [each.phase for each in events if isinstance(each, PhaseChange)]


async def test_a_source_that_stands_has_given_its_guest_away() -> None:
    found = await phases(Says(State.HANDED_OVER), State.PAUSED)
    assert found[-1] is Phase.COMPLETED


async def test_a_source_that_says_so_a_little_later_is_waited_for() -> None:
    source = Says(State.RUNNING, State.RUNNING, State.HANDED_OVER)
    assert (await phases(source, State.PAUSED))[-1] is Phase.COMPLETED


async def test_a_guest_that_still_runs_at_the_source_is_not_let_go_on_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_SAYS_SO_WITHIN", 0.05)
    assert await phases(Says(State.RUNNING), State.PAUSED) == []


async def dying(happened: Sequence[str], within: float, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Look at a move, first of a source that lives and then of one that does not; its call hangs.

    Returns what the second look gave.
    """
    monkeypatch.setattr(module, "_RETURNS_WITHIN", within)
    source = Says(State.POSTCOPY, State.OFF)
    source.job = no_job  # type: ignore[attr-defined] # asked of one that lives
    machine = SimpleNamespace(last=Phase.IDLE)
    departure = SimpleNamespace(flags=frozenset())
    migration = LibvirtMigration(*cast("Any", (machine, source, asyncio.Queue(), (), departure)))
    migration._call = asyncio.get_running_loop().create_future()
    await migration._poll()
    for kind in happened:
        await migration._take(Happening(kind))
    return await migration._poll()


async def no_job() -> dict[str, Any]:
    return {}


async def test_a_call_that_never_returns_is_not_waited_for_when_the_source_is_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(HostUnreachable, match="nobody saw it arrive"):
        await dying([], -1.0, monkeypatch)


@pytest.mark.parametrize(("happened", "within"), [(["left"], -1.0), ([], 60.0)])
async def test_a_source_whose_guest_has_left_or_that_just_ended_is_given_its_call(
    monkeypatch: pytest.MonkeyPatch, happened: list[str], within: float
) -> None:
    assert await dying(happened, within, monkeypatch) == []
