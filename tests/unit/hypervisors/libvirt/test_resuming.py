"""What is said of a libvirt that cannot go on by itself, and what a person does then."""

from typing import Any, cast

import pytest

from whimbrel.errors import CommandRefused, HostUnreachable, MachineEnded, Unsupported
from whimbrel.hypervisors.libvirt import LibvirtHost
from whimbrel.hypervisors.libvirt.connection import Connection
from whimbrel.hypervisors.libvirt.machine import LibvirtMachine, LibvirtReception
from whimbrel.hypervisors.libvirt.resuming import GOES_ON_WITHIN, nobody_leads
from whimbrel.hypervisors.libvirt.states import State, Versions
from whimbrel.model.inventory import MigrationAddress, Vm
from whimbrel.model.method import Tuning
from whimbrel.model.units import MIB

libvirt = pytest.importorskip("libvirt")


class Handle:
    """A connection that stands, or has been lost."""

    def __init__(self, *, alive: bool) -> None:
        self._alive = alive

    def isAlive(self) -> int:  # noqa: N802 - libvirt's own word
        return int(self._alive)


def refused() -> None:
    raise libvirt.libvirtError("client socket is closed")


@pytest.mark.parametrize(("alive", "error"), [(True, CommandRefused), (False, HostUnreachable)])
async def test_whatever_fails_on_a_connection_that_is_lost_is_no_refusal(
    *, alive: bool, error: type[Exception]
) -> None:
    connection = Connection("a", Handle(alive=alive))
    with pytest.raises(error, match="client socket is closed"):
        await connection.call(refused)


def test_a_post_copy_without_a_leader_is_given_up_only_when_nothing_of_it_is_sent() -> None:
    assert isinstance(nobody_leads(GOES_ON_WITHIN / 2), CommandRefused)
    assert isinstance(nobody_leads(GOES_ON_WITHIN * 2), Unsupported)


class Daemon:
    """A libvirt of a version, with a VM in a state; of which post-copy is not over."""

    name, id = "b", "web"

    def __init__(self, version: int, state: State) -> None:
        self._version, self._state = version, state

    async def versions(self) -> Versions:
        return Versions(self._version, self._version, 10000002)

    async def domain(self, _: str) -> Any:
        return self

    async def state(self) -> State:
        return self._state


async def listens_again(version: int, state: State) -> MigrationAddress:
    connection = cast("Connection", Daemon(version, state))
    machine = LibvirtMachine(Vm("web", MIB), connection, None, None)
    address = MigrationAddress("10.0.0.2")
    return await LibvirtReception(machine, connection, address, Tuning()).listen_again()


@pytest.mark.parametrize("state", [State.RUNNING_IN_POSTCOPY, State.RUNNING_IN_LOST_POSTCOPY])
async def test_a_libvirt_that_would_die_of_it_is_not_waited_for(state: State) -> None:
    """Its QEMU notices a link that is cut for good after a quarter of an hour only."""
    with pytest.raises(Unsupported, match="dies when it is asked"):
        await listens_again(11003000, state)


async def test_what_has_not_lost_its_connection_is_not_taken_up() -> None:
    with pytest.raises(CommandRefused, match="No post-copy has lost"):
        await listens_again(11003000, State.RUNNING)
    address = await listens_again(11004000, State.RUNNING_IN_LOST_POSTCOPY)
    assert address.host == "10.0.0.2"


@pytest.mark.parametrize("state", [State.OFF, State.GONE])
async def test_a_destination_that_has_ended_is_not_waited_for(state: State) -> None:
    with pytest.raises(MachineEnded):
        await listens_again(11003000, state)


def test_what_a_person_does_with_a_vm_of_libvirts_can_be_copied_as_it_is() -> None:
    words = LibvirtHost("a", "qemu+ssh://root@a/system?keyfile=/k&no_tty=1").by_hand("db")
    connection = "virsh -c 'qemu+ssh://root@a/system?keyfile=/k&no_tty=1'"
    assert words.end == f"{connection} destroy db"
    assert words.start.startswith(f"{connection} start db ")
