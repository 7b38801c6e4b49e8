"""What a VM of libvirt's says of a move, as whoever finds it must know it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from whimbrel.errors import CommandRefused
from whimbrel.hypervisors.libvirt.machine import LibvirtMachine
from whimbrel.hypervisors.libvirt.states import State
from whimbrel.model.inventory import Vm
from whimbrel.model.migration import Phase
from whimbrel.model.units import MIB

if TYPE_CHECKING:
    from whimbrel.hypervisors.libvirt.connection import Connection, Domain


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
