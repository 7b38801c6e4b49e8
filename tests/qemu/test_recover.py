"""A whimbrel that is killed in the middle of a real move, and the one that recovers it."""

import asyncio
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from whimbrel.errors import Held
from whimbrel.hypervisors.qemu import ResidentHost
from whimbrel.model.inventory import Vm
from whimbrel.model.migration import Side
from whimbrel.model.units import MIB
from whimbrel.practice.cases import Repair
from whimbrel.practice.history import histories, unfinished
from whimbrel.practice.holder import myself
from whimbrel.practice.marks import Mark, held, marks_on
from whimbrel.practice.recover import Hosts, Lost, recover, search
from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite

DYING = Path(__file__).with_name("dying.py")

pytestmark = pytest.mark.timeout(120)


@dataclass
class Pair:
    """Two hosts whose VMs outlive whimbrel, and a guest on the first."""

    folder: Path
    sites: dict[str, OnSite]
    a: ResidentHost
    b: ResidentHost

    async def die(self, where: str, method: str) -> None:
        """Let a whimbrel move the guest and be killed at some point."""
        await self.a.close()  # the control socket is the other whimbrel's
        words = [sys.executable, str(DYING), str(self.folder), where, method]
        process = await asyncio.create_subprocess_exec(*words)
        assert await process.wait() == -signal.SIGKILL

    async def lost(self) -> Sequence[Lost]:
        found = await search(self.sites, folder=self.folder / "journals")
        assert not found.silent
        return found.lost

    @property
    def hosts(self) -> Hosts:
        return Hosts(self.a, self.b, self.sites)

    async def running(self) -> list[Side]:
        """Return where the guest executes now."""
        sides = {Side.SOURCE: self.a, Side.DESTINATION: self.b}
        machines = {side: await host.seek("guest") for side, host in sides.items()}
        return [side for side, each in machines.items() if each and await each.running()]

    async def left(self) -> list[str]:
        """Name the VMs that are still there, living or ended."""
        return [each.name for host in (self.a, self.b) for each in await host.machines()]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    folder = Path(tempfile.mkdtemp(prefix="whimbrel-"))  # short: sockets' paths are limited
    sites = {name: OnSite(LocalShell(name), str(folder / name)) for name in ("a", "b")}
    a, b = (ResidentHost(name, site) for name, site in sites.items())
    try:
        # Even zero pages take their time at the slowest rate that QEMU keeps to.
        await a.start(Vm("guest", 1024 * MIB))
        yield Pair(folder, sites, a, b)
    finally:
        for host in (a, b):
            for resident in await host.machines():
                await host.remove(resident.name)
            await host.close()
        for site in sites.values():
            await site.close()
        shutil.rmtree(folder)


DEATHS = [
    ("opened", "precopy", Side.SOURCE, []),
    ("prepared", "precopy", Side.SOURCE, [Repair.STOP_THERE]),
    ("sending", "precopy", Side.SOURCE, [Repair.STOP_THERE]),
    ("in precopy", "slow", Side.SOURCE, [Repair.CALL_BACK, Repair.STOP_THERE]),
    ("handing-over", "precopy", Side.SOURCE, [Repair.CALL_BACK, Repair.STOP_THERE]),
    ("running-there", "precopy", Side.DESTINATION, [Repair.RUN_THERE, Repair.STOP_HERE]),
    (
        "running-there",
        "postcopy",
        Side.DESTINATION,
        [Repair.RUN_THERE, Repair.FOLLOW, Repair.STOP_HERE],
    ),
    ("in postcopy", "postcopy", Side.DESTINATION, [Repair.FOLLOW, Repair.STOP_HERE]),
    ("stopping-here", "precopy", Side.DESTINATION, [Repair.STOP_HERE]),
]


@pytest.mark.parametrize(("where", "method", "side", "repairs"), DEATHS)
async def test_a_killed_whimbrel_loses_no_guest(
    pair: Pair, where: str, method: str, side: Side, repairs: list[Repair]
) -> None:
    await pair.die(where, method)
    [lost] = await pair.lost()
    assert (lost.source, lost.destination, lost.exact) == ("a", "b", True)
    done = await recover(lost, pair.hosts, folder=pair.folder)
    quick = [each for each in repairs if each is not Repair.FOLLOW]  # it was over by then
    taken = [case.repair for case in done.cases]
    assert taken in ([*repairs, Repair.NOTHING], [*quick, Repair.NOTHING])
    assert done.runs_on is side
    assert await pair.running() == [side]
    assert await pair.left() == ["guest"]
    assert unfinished(folder=pair.folder / "journals") == ()
    assert [await marks_on(site) for site in pair.sites.values()] == [(), ()]


async def test_another_machine_recovers_by_the_marks_alone(pair: Pair) -> None:
    await pair.die("in precopy", "slow")
    shutil.rmtree(pair.folder / "journals")
    [lost] = await pair.lost()
    assert not lost.exact
    assert lost.address is not None
    done = await recover(lost, pair.hosts, folder=pair.folder / "journals")
    assert done.runs_on is Side.SOURCE
    assert await pair.running() == [Side.SOURCE]
    assert await pair.left() == ["guest"]
    [told] = histories(folder=pair.folder / "journals")
    assert told.closed
    assert await pair.lost() == ()


async def test_the_command_tells_the_case_and_repairs_it(pair: Pair) -> None:
    config = pair.folder / "whimbrel.toml"
    config.write_text(
        "".join(
            f'[hosts.{name}]\nuri = "qemu:///local"\nfolder = "{site.folder}"\n'
            for name, site in pair.sites.items()
        )
    )
    words = [sys.executable, "-m", "whimbrel", "recover", "--config", str(config)]
    code, said = await told(words)
    assert (code, said) == (0, "Nothing to recover.\n")
    await pair.die("prepared", "precopy")
    code, said = await told([*words, "guest"])
    assert code == 0, said
    assert "guest, a to b, begun by" in said
    assert "what waits at the destination is left over" in said
    assert said.endswith("  guest runs on a.\n")
    assert await pair.running() == [Side.SOURCE]
    code, said = await told([*words, "--json"])
    assert json.loads(said) == {"schema": "whimbrel.recover/1", "moves": []}


async def told(words: Sequence[str]) -> tuple[int | None, str]:
    """Run a command and return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_a_vm_whose_move_died_is_not_moved_before_it_is_recovered(pair: Pair) -> None:
    await pair.die("sending", "precopy")
    mark = Mark("another", "guest", "a", "b", myself())
    with pytest.raises(Held, match="has ended in the middle of it"):
        async with held(mark, list(pair.sites.values())):
            pass
    [lost] = await pair.lost()
    await recover(lost, pair.hosts, folder=pair.folder)
    async with held(mark, list(pair.sites.values())):
        pass


async def test_a_recovery_that_dies_can_be_recovered(pair: Pair) -> None:
    await pair.die("running-there", "precopy")
    [lost] = await pair.lost()

    class Died(Exception):
        """What ends the first recovery."""

    def told(_: object) -> None:
        raise Died

    with pytest.raises(Died):
        await recover(lost, pair.hosts, told=told, folder=pair.folder)
    assert len(await pair.running()) == 0
    [again] = await pair.lost()
    done = await recover(again, pair.hosts, folder=pair.folder)
    assert done.runs_on is Side.DESTINATION
    assert await pair.running() == [Side.DESTINATION]
