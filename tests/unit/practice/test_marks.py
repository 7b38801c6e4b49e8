import os
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from whimbrel.errors import ExitCode, Held, HostError
from whimbrel.model.holder import Holder
from whimbrel.model.journal import Entry, Step
from whimbrel.model.plain import plain
from whimbrel.practice.holder import lives, myself, of_process
from whimbrel.practice.marks import Mark, MarkedJournal, held, marks_on
from whimbrel.practice.record import Unwritten
from whimbrel.sites.local import LocalShell
from whimbrel.sites.onsite import marks as onsite
from whimbrel.sites.site import OnSite

ENDED = replace(myself(), start=1)
ELSEWHERE = Holder("eve", "far-away", 7, 1, "another boot", 0.0)


def mark(move: str = "first", holder: Holder | None = None) -> Mark:
    return Mark(move, "web", "a", "b", holder or myself())


@pytest.fixture
async def sites(tmp_path: Path) -> AsyncIterator[list[OnSite]]:
    folders = {name: str(tmp_path / name) for name in ("a", "b")}
    made = [OnSite(LocalShell(name), folder) for name, folder in folders.items()]
    yield made
    for site in made:
        await site.close()


async def steps(sites: list[OnSite]) -> list[list[Step]]:
    return [[each.step for each in await marks_on(site)] for site in sites]


async def test_a_second_whimbrel_is_refused_with_who_has_the_vm(sites: list[OnSite]) -> None:
    async with held(mark(), sites):
        with pytest.raises(Held) as caught:
            async with held(mark("second"), sites):
                pass
    assert f"process {os.getpid()}" in caught.value.what
    assert "since 20" in caught.value.what
    assert "whimbrel watch web" in caught.value.hint
    assert caught.value.exit_code is ExitCode.HOST
    async with held(mark("third"), sites):
        pass
    assert await steps(sites) == [[], []]


async def test_a_refusal_by_one_host_leaves_no_mark_on_the_other(sites: list[OnSite]) -> None:
    async with held(mark(), sites[1:]):
        with pytest.raises(Held):
            async with held(mark("second"), sites):
                pass
        assert await steps(sites) == [[], [Step.OPENED]]


async def test_a_mark_of_a_dead_holder_leads_to_recovery(sites: list[OnSite]) -> None:
    onsite.mark_set(sites[0].folder, "web", told(mark("dead", ENDED)))
    with pytest.raises(Held, match="has ended in the middle") as caught:
        async with held(mark(), sites):
            pass
    assert "whimbrel recover web" in caught.value.hint


async def test_a_holder_elsewhere_is_named_and_not_judged(sites: list[OnSite]) -> None:
    onsite.mark_set(sites[0].folder, "web", told(mark("far", ELSEWHERE)))
    with pytest.raises(Held, match="cannot be told from here") as caught:
        async with held(mark(), sites):
            pass
    assert "eve on far-away" in caught.value.what
    async with held(mark(), sites, instead_of="far") as marks:
        await marks.say(step=Step.STOPPING_THERE)
        assert await steps(sites) == [[Step.STOPPING_THERE]] * 2


async def test_steps_that_cannot_be_undone_stand_on_both_hosts_first(sites: list[OnSite]) -> None:
    async with held(mark(), sites) as marks:
        journal = MarkedJournal(Unwritten(), marks)
        await journal.write(Entry(Step.OPENED, 0.0))
        await journal.write(Entry(Step.PREPARED, 0.0, {"host": "10.0.0.2", "port": 4444}))
        for step in (Step.SENDING, Step.POSTCOPY):
            await journal.write(Entry(step, 0.0))
            assert await steps(sites) == [[step], [step]]
        [found] = await marks_on(sites[1])
        assert found.address is not None
        assert (found.address.host, found.address.port) == ("10.0.0.2", 4444)
        assert found.alive
        await journal.write(Entry(Step.CLOSED, 0.0, {"runs_on": "source"}))
    assert await steps(sites) == [[], []]


async def test_marks_stay_when_it_is_not_known_where_the_guest_runs(sites: list[OnSite]) -> None:
    async with held(mark(), sites) as marks:
        journal = MarkedJournal(Unwritten(), marks)
        await journal.write(Entry(Step.SENDING, 0.0))
        await journal.write(Entry(Step.CLOSED, 0.0, {"runs_on": None}))
        await marks.say(step=Step.CLOSED)
    assert await steps(sites) == [[Step.CLOSED]] * 2


async def test_a_move_whose_mark_was_taken_over_does_not_go_on(sites: list[OnSite]) -> None:
    one = held(mark(holder=ELSEWHERE), sites)
    async with one as marks, held(mark("first-again"), sites, instead_of="first"):
        with pytest.raises(HostError, match="taken away"):
            await MarkedJournal(Unwritten(), marks).write(Entry(Step.SENDING, 0.0))
    assert await steps(sites) == [[], []]


async def test_a_living_holder_is_not_taken_over(sites: list[OnSite]) -> None:
    async with held(mark("first-again", of_process(os.getppid())), sites):
        with pytest.raises(Held):
            async with held(mark("first-third"), sites, instead_of="first"):
                pass


async def test_a_holder_that_has_let_go_is_taken_over(sites: list[OnSite]) -> None:
    async with held(mark("first-again"), sites) as marks:
        marks.settled = False
    assert [each.alive for each in await marks_on(sites[0])] == [False]
    async with held(mark("first-third"), sites, instead_of="first"):
        pass
    assert await steps(sites) == [[], []]


async def test_one_host_twice_is_marked_once(sites: list[OnSite]) -> None:
    async with held(mark(), [sites[0], sites[0]]):
        assert await steps(sites) == [[Step.OPENED], []]


def told(each: Mark) -> dict[str, object]:
    found = plain(each)
    assert isinstance(found, dict)
    return found


def test_a_late_change_does_not_undo_a_newer(tmp_path: Path) -> None:
    folder = str(tmp_path)
    onsite.mark_set(folder, "web", told(mark()))
    onsite.mark_change(folder, "web", "first", told(replace(mark(), count=2, step=Step.SENDING)))
    onsite.mark_change(folder, "web", "first", told(replace(mark(), count=1, step=Step.PREPARED)))
    [found] = onsite.mark_list(folder)
    assert found["step"] == "sending"
    path = tmp_path / "moves/web.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_another_moves_mark_is_neither_changed_nor_removed(tmp_path: Path) -> None:
    folder = str(tmp_path)
    onsite.mark_set(folder, "web", told(mark()))
    with pytest.raises(FileNotFoundError):
        onsite.mark_change(folder, "web", "second", told(mark("second")))
    onsite.mark_clear(folder, "web", "second")
    assert len(onsite.mark_list(folder)) == 1
    onsite.mark_clear(folder, "web", "first")
    onsite.mark_clear(folder, "web", "first")
    assert onsite.mark_list(folder) == []
    with pytest.raises(ValueError, match="no name"):
        onsite.mark_set(folder, "../web", told(mark()))


def test_whether_a_holder_lives_is_known_on_its_own_machine_only() -> None:
    assert lives(myself())
    assert lives(ENDED) is False
    assert lives(replace(myself(), boot="an earlier boot")) is False
    assert lives(ELSEWHERE) is None
