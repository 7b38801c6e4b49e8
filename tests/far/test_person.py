"""What a person does with two hosts: the two files, up, plan, move there and back, history."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from far.hosts import needs_far_hosts
from far.person import Person, person
from whimbrel.errors import ExitCode
from whimbrel.lab.redline import Redline
from whimbrel.model.scenario import Load
from whimbrel.model.units import MIB, PAGE
from whimbrel.store import Store

pytestmark = [needs_far_hosts, pytest.mark.timeout(600)]

LOAD = Load(fill=48 * MIB, hot=8 * MIB, dirty_rate=4e6)
TURNS = 10
FAST = ("--survey", "none")


@pytest.fixture
async def at() -> AsyncIterator[Person]:
    async with person() as somebody:
        yield somebody


async def with_disk(at: Person, place: Path) -> None:
    """Start "db" on a, with memory and a disk that it goes on writing."""
    place.mkdir()
    disk = place / "db.qcow2"
    more = f'[[disks]]\nname = "vda"\npath = "{disk}"\nformat = "qcow2"\nsize = "256 MiB"\n'
    await at.up("db", load=LOAD, more=more)
    async with at.redline("db", "a") as guest:
        await guest.fill_disk("/dev/vda", 16 * MIB)
        await guest.load_disk("/dev/vda", 4 * MIB, 1e6)


async def whole(guest: Redline) -> None:
    assert (await guest.verify()).intact
    assert (await guest.verify_disk("/dev/vda")).intact


async def test_a_vm_goes_there_and_back_ten_times_and_history_tells_of_each(at: Person) -> None:
    await with_disk(at, at.far.folder / "share")
    said = await at.whimbrel("plan", "db", "--to", "b", "--survey", "quick", "--json")
    assert said.code == ExitCode.DONE, said.errors
    assert said.json["verdict"] == "go"
    for turn in range(2 * TURNS):
        to = "ba"[turn % 2]
        said = await at.whimbrel("move", "db", "--to", to, *FAST)
        assert said.code == ExitCode.DONE, (turn, said.errors)
    assert await at.places("db") == ["a"]
    async with at.redline("db", "a") as guest:
        await whole(guest)
    said = await at.whimbrel("history", "--limit", "100", "--json", configured=False)
    moves = [(each["source"], each["destination"]) for each in said.json["moves"]]
    assert moves.count(("a", "b")) == moves.count(("b", "a")) == TURNS
    assert not (Path(at.host("b").folder) / "vms" / "db").exists()


async def test_a_vm_and_its_disk_move_to_a_host_that_shares_nothing(at: Person) -> None:
    await with_disk(at, at.far.folder / "here")
    there = at.far.folder / "there"
    there.mkdir()
    said = await at.whimbrel("move", "db", "--to", "b", "--storage", str(there), "--json", *FAST)
    assert said.code == ExitCode.DONE, said.errors
    [copied] = said.json["storage"]["disks"]
    assert (copied["name"], copied["new"]) == ("vda", str(there / "db.qcow2"))
    assert copied["bytes"] >= 16 * MIB
    assert copied["time"] > 0
    assert str(at.far.folder / "here" / "db.qcow2") in copied["note"]
    assert said.json["runs_nowhere"] is False
    async with at.redline("db", "b") as guest:
        await whole(guest)
    said = await at.whimbrel("vms", "--json")
    [vm] = said.json["vms"]
    assert (vm["host"], vm["disks"]) == ("b", [str(there / "db.qcow2")])
    # And the disk alone, back to where it was, while its VM stays.
    back = at.far.folder / "back"
    back.mkdir()
    said = await at.whimbrel("move", "db", "--storage", str(back), "--remove-source")
    assert said.code == ExitCode.DONE, said.errors
    assert [each.name for each in back.iterdir()] == ["db.qcow2"]
    assert list(there.iterdir()) == []
    async with at.redline("db", "b") as guest:
        await whole(guest)


async def test_what_was_said_of_disks_stands_beside_what_was_seen_and_is_kept(at: Person) -> None:
    await with_disk(at, at.far.folder / "here")
    there = at.far.folder / "there"
    there.mkdir()
    words = ("--to", "b", "--storage", str(there), "--survey", "quick")
    said = await at.whimbrel("move", "db", *words, "--json")
    assert said.code in {ExitCode.DONE, ExitCode.GOAL_MISSED}, said.errors
    storage = said.json["storage"]
    assert storage["predicted"]["bytes"]["p50"] >= 16 * MIB
    assert storage["time"] > 0
    with Store.open(Path(at.environment["XDG_STATE_HOME"], "whimbrel", "moves.sqlite")) as store:
        [record] = store.moves()
    assert record.copied is not None
    assert record.copied.time == storage["time"]
    assert record.copied.predicted is not None
    assert record.copied.predicted.time.p50 == storage["predicted"]["time"]["p50"]


async def test_a_plan_that_was_kept_is_carried_out_and_what_was_said_stands_beside(
    at: Person,
) -> None:
    await at.up("db", load=LOAD)
    file = at.far.folder / "plan.json"
    words = ("--to", "b", "--survey", "quick")
    said = await at.whimbrel("plan", "db", *words, "--save", str(file))
    assert said.code == ExitCode.DONE, said.errors
    chosen = json.loads(file.read_text())["chosen"]
    said = await at.whimbrel("move", "db", "--to", "b", "--plan", str(file), "--json")
    assert said.code == ExitCode.DONE, said.errors
    assert said.json["predicted"]["total_time"] == chosen["total_time"]
    assert said.json["observed"]["total_time"] > 0
    assert said.json["runs_on"] == "destination"
    assert await at.intact("db", "b") == LOAD.fill // 4096


async def test_what_cannot_be_moved_is_refused_with_what_mends_it(at: Person) -> None:
    await with_disk(at, at.far.folder / "here")
    said = await at.whimbrel("move", "db", "--to", "b", "--storage", "/nowhere/at/all", *FAST)
    assert said.code == ExitCode.NO_PLAN
    assert "mkdir" in said.errors
    assert await at.places("db") == ["a"]


async def test_ctrl_c_leaves_the_guest_where_it_is(at: Person) -> None:
    await at.up("db", load=LOAD)
    moving = await at.started("move", "db", "--to", "b", "--limit", "8 Mbit/s", *FAST)
    await at.until_step("db", "sending")
    moving.send_signal(signal.SIGINT)
    _, errors = await asyncio.wait_for(moving.communicate(), 60)
    assert moving.returncode == ExitCode.INTERRUPTED
    assert "runs on a" in errors.decode()
    assert await at.places("db") == ["a"]
    assert not (Path(at.host("b").folder) / "vms" / "db").exists()
    assert await at.intact("db", "a")


async def test_others_look_on_and_a_second_move_is_refused(at: Person) -> None:
    await at.up("db", load=LOAD)
    moving = await at.started("move", "db", "--to", "b", "--limit", "64 Mbit/s", *FAST)
    await at.until_step("db", "sending")
    lookers = [await at.started("watch", "db", "--json") for _ in range(2)]
    second = await at.whimbrel("move", "db", "--to", "b", *FAST)
    assert second.code in {ExitCode.NO_PLAN, ExitCode.CONFIG, ExitCode.HOST}
    assert "move" in second.errors
    await asyncio.wait_for(moving.communicate(), 200)
    assert moving.returncode == ExitCode.DONE
    for looker in lookers:
        output, _ = await asyncio.wait_for(looker.communicate(), 60)
        steps = [json.loads(line)["step"] for line in output.decode().splitlines()]
        assert steps[-1] == "closed"
        assert "event" in steps


async def test_a_move_that_loses_ssh_finds_out_by_itself_where_the_guest_runs(at: Person) -> None:
    await at.up("db", load=LOAD)
    moving = await at.started(
        "move", "db", "--to", "b", "--method", "tcp", "--limit", "64 Mbit/s", *FAST
    )
    await at.until_step("db", "sending")
    await at.far.a.restart_sshd()
    _, errors = await asyncio.wait_for(moving.communicate(), 200)
    [place] = await at.places("db")
    wanted = {"a": ExitCode.SAFE_AT_SOURCE, "b": ExitCode.DONE}[place]
    assert moving.returncode == wanted, errors.decode()
    assert await at.intact("db", place)
    said = await at.whimbrel("recover")
    assert "Nothing to recover" in said.output


async def test_what_the_threads_of_a_move_used_is_kept_for_the_next_forecast(at: Person) -> None:
    await at.up("db", load=LOAD)
    # Slow enough to be looked at, once a second.
    said = await at.whimbrel("move", "db", "--to", "b", "--limit", "20 MB/s", *FAST)
    assert said.code == ExitCode.DONE, said.errors
    with Store.open(Path(at.environment["XDG_STATE_HOME"], "whimbrel", "moves.sqlite")) as store:
        [record] = store.moves()
    seen = record.observed
    assert seen.normal_pages is not None
    assert seen.normal_pages * PAGE >= LOAD.fill
    for used in (seen.source_cpu_seconds, seen.destination_cpu_seconds):
        assert used is not None
        assert 1e-8 < used / seen.normal_pages < 1e-3
