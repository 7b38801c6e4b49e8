"""What a VM of libvirt's says of a move, as whoever finds it must know it."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from whimbrel.errors import CommandRefused
from whimbrel.hypervisors.libvirt.connection import Busy
from whimbrel.hypervisors.libvirt.departure import Departure
from whimbrel.hypervisors.libvirt.inspect import stretches
from whimbrel.hypervisors.libvirt.machine import (
    SILENT_AT_MOST,
    LibvirtMachine,
    LibvirtReception,
)
from whimbrel.hypervisors.libvirt.migration import LibvirtMigration
from whimbrel.hypervisors.libvirt.states import State
from whimbrel.model.inventory import MigrationAddress, Vm
from whimbrel.model.method import Tuning
from whimbrel.model.migration import Phase, PhaseChange
from whimbrel.model.units import MIB, PAGE

if TYPE_CHECKING:
    from whimbrel.hypervisors.libvirt.connection import Connection, Domain
    from whimbrel.ports import Site


@dataclass
class Told:
    """A VM as libvirt tells of it."""

    now: State
    doing: dict[str, Any] = field(default_factory=dict)
    did: dict[str, Any] | None = None

    async def state(self) -> State:
        return self.now

    async def job(self) -> dict[str, Any]:
        return self.doing

    async def last_job(self) -> dict[str, Any]:
        if self.did is None:
            raise CommandRefused("there was none")
        return self.did


UNDER_WAY = {"type": 2}
CAME_HERE = {"operation": 4, "type": 3}


@pytest.mark.parametrize(
    ("told", "running", "phase"),
    [
        (Told(State.RUNNING), True, Phase.IDLE),
        (Told(State.RUNNING, UNDER_WAY), True, Phase.PRECOPY),
        (Told(State.HANDED_OVER, UNDER_WAY), False, Phase.SWITCHOVER),
        # Who led the move has gone after all was sent: libvirt leaves it at that.
        (Told(State.HANDED_OVER), False, Phase.COMPLETED),
        (Told(State.ARRIVING), False, Phase.PRECOPY),
        (Told(State.RUNNING, did=CAME_HERE), True, Phase.COMPLETED),
        (Told(State.POSTCOPY, UNDER_WAY), False, Phase.POSTCOPY),
        (Told(State.RUNNING_IN_LOST_POSTCOPY), True, Phase.POSTCOPY_PAUSED),
    ],
)
async def test_a_vm_says_how_far_a_move_is(told: Told, *, running: bool, phase: Phase) -> None:
    nobody = cast("Connection", None)
    machine = LibvirtMachine(Vm("web", MIB), nobody, cast("Domain", told), None)
    standing = await machine.standing()
    assert (standing.running, standing.phase) == (running, phase)


class Somebodys:
    """A libvirt that has a VM of that name, which another whimbrel has just brought there."""

    name = "b"

    async def domain(self, name: str) -> Any:
        raise AssertionError(f"{name} is none of ours")


async def test_what_was_only_promised_is_never_ended_as_somebody_elses_vm() -> None:
    machine = LibvirtMachine(Vm("web", MIB), cast("Connection", Somebodys()), None, None)
    machine.expected = machine.promised = True
    await machine.stop()
    assert not machine.expected


class Held(Told):
    """A VM that another move has, for as long as libvirt lets anybody wait."""

    async def migrate(self, *_: object) -> None:
        raise Busy("cannot acquire state change lock")


async def test_a_move_that_libvirt_never_began_ends_nothing_at_the_destination() -> None:
    domain = cast("Domain", Held(State.RUNNING))
    nobody = cast("Connection", None)
    there = LibvirtMachine(Vm("web", MIB), cast("Connection", Somebodys()), None, None)
    reception = LibvirtReception(there, nobody, MigrationAddress("10.0.0.2"), Tuning())
    departure = Departure(domain, reception, frozenset(), {})
    here = LibvirtMachine(Vm("web", MIB), nobody, domain, None)
    migration = LibvirtMigration(here, domain, asyncio.Queue(), (), departure)
    migration.depart()
    *_, last = [event async for event in migration.watch()]
    assert isinstance(last, PhaseChange)
    assert last.phase is Phase.FAILED
    await there.stop()


class Asked:
    """A way onto a host, which knows the VM's process."""

    def __init__(self) -> None:
        self.limits: list[dict[str, Any]] = []

    async def ask(self, question: str, **words: Any) -> Any:
        if question == "libvirt_pid":
            return 4711
        assert question == "limit_silence"
        self.limits.append(words)
        raise CommandRefused("no right to do so")


class Named(Told):
    """A VM whose process can be asked for."""

    name = id = "web"


async def limits_of(site: Asked | None, port: int) -> None:
    domain = Named(State.RUNNING)
    machine = LibvirtMachine(
        Vm("web", MIB), cast("Connection", None), cast("Domain", domain), cast("Site", site)
    )
    await machine.attach("/run/")
    await machine.limit_silence(MigrationAddress("10.0.0.2", port))


@pytest.mark.parametrize("port", [49152, 0])
async def test_a_far_end_may_not_be_silent_for_as_long_as_tcp_tries(port: int) -> None:
    site = Asked()
    await limits_of(site, port)
    where = {"port": port, "host": "10.0.0.2"}
    assert site.limits == [{"pid": 4711, "seconds": SILENT_AT_MOST, **where}]


async def test_where_no_shell_leads_connections_stay_as_they_are() -> None:
    await limits_of(None, 49152)


def test_neighbouring_pages_are_read_at_once() -> None:
    near = [0, 1, 2, 9, 4, 5]
    size = 16 * PAGE
    assert stretches(near, 1 << 30) == [
        (0, 3 * PAGE),
        (9 * PAGE, PAGE),
        (4 * PAGE, 2 * PAGE),
    ]
    assert stretches(range(40), 1 << 30) == [(0, size), (size, size), (2 * size, 8 * PAGE)]
    gap = 8 * PAGE
    assert stretches(range(7, 9), gap) == [(7 * PAGE, PAGE), (4 << 30, PAGE)]
