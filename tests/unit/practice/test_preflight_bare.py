"""A preflight without a shell: what hypervisors tell is judged, and the rest is not kept silent."""

from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from unit.practice.fakes import FakeMachine
from whimbrel.errors import CommandRefused, HostUnreachable
from whimbrel.model.check import Check, Result
from whimbrel.model.inventory import Vm
from whimbrel.model.preflight import DiskState, HypervisorFacts, MachineFacts
from whimbrel.model.survey import HostFacts
from whimbrel.model.units import GIB
from whimbrel.ports import Examiner, Machine
from whimbrel.practice.preflight_bare import BareSubject, preflight_bare

RUNNING = MachineFacts(
    version=(10, 0, 2),
    package="libvirt 11.3.0",
    machine_type="pc-q35-10.0",
    cpu_model="host",
    cpu_features=frozenset(),
    disks=(DiskState("vda", ("/srv/vda.qcow2",)),),
)
ABLE = HypervisorFacts(
    version=(10, 0, 2),
    package="libvirt 11.3.0",
    machine_types={"pc-q35-10.0": 255},
    cpu_models=frozenset({"host"}),
    cpu_features=frozenset(),
    devices=frozenset(),
    free_page_hints=False,
)


@dataclass(frozen=True)
class Told:
    """A host as its hypervisor tells of it."""

    name: str
    uuid: str
    free: int = 8 * GIB
    silent: bool = False

    async def identity(self) -> str:
        if self.silent:
            raise HostUnreachable("no answer")
        return self.uuid

    async def facts(self) -> HostFacts:
        return HostFacts(cores=2, available_memory=self.free, memory=16 * GIB)

    async def idle(self) -> tuple[float, float]:
        return 0.0, 0.0

    async def carried(self, vm: str) -> float | None:
        return None


@dataclass(frozen=True)
class Examined:
    """A hypervisor as it is examined."""

    running: MachineFacts | None = RUNNING

    async def machine(self, machine: Machine) -> MachineFacts:
        if self.running is None:
            raise CommandRefused("it cannot be read")
        return self.running

    async def hypervisor(self, vm: Vm) -> HypervisorFacts:
        return ABLE


def subject(**instead: Any) -> BareSubject:
    examiner = cast("Examiner", Examined())
    machine = cast("Machine", FakeMachine(Vm("web", GIB), runs=True))
    whole = BareSubject(machine, Told("a", "1"), Told("b", "2"), examiner, examiner, ("a", "b"))
    return replace(whole, **instead)


async def checks(**instead: Any) -> dict[str, Check]:
    return {each.name: each for each in await preflight_bare(subject(**instead))}


async def test_what_was_not_looked_at_is_a_warning_and_all_else_is_in_order() -> None:
    found = await checks()
    warned = {name for name, each in found.items() if each.result is Result.WARN}
    assert warned == {"disk vda: same bytes", "without a shell"}
    assert [each for each in found.values() if each.result is Result.FAIL] == []
    assert "libvirt's own lock" in found["without a shell"].detail
    assert {"control", "memory", "cores", "machine type", "different hosts"} <= found.keys()


async def test_the_same_host_by_another_name_is_refused() -> None:
    found = await checks(destination=Told("b", "1"))
    assert found["different hosts"].result is Result.FAIL


async def test_a_host_without_enough_memory_is_refused() -> None:
    found = await checks(destination=Told("b", "2", free=GIB // 2))
    assert found["memory"].result is Result.FAIL


async def test_a_destination_that_is_silent_is_a_failed_check() -> None:
    found = await checks(destination=Told("b", "2", silent=True))
    assert found["control"].result is Result.FAIL
    assert found["guest"].result is Result.PASS


async def test_a_guest_in_huge_pages_needs_them_there_which_nobody_looks_at() -> None:
    huge = cast("Examiner", Examined(replace(RUNNING, huge_page=2 << 20)))
    found = await checks(source_examiner=huge, destination=Told("b", "2", free=GIB // 2))
    assert found["memory"].result is Result.PASS
    assert found["huge pages"].result is Result.WARN


async def test_a_guest_that_cannot_be_read_is_not_moved() -> None:
    found = await checks(source_examiner=cast("Examiner", Examined(None)))
    assert found["guest"].result is Result.FAIL


async def test_a_move_that_is_under_way_is_refused() -> None:
    moving = cast("Examiner", Examined(replace(RUNNING, migration="active")))
    assert (await checks(source_examiner=moving))["migration blockers"].result is Result.FAIL


@pytest.mark.parametrize("vcpus", [2, 3])
async def test_cores_are_counted(vcpus: int) -> None:
    machine = cast("Machine", FakeMachine(Vm("web", GIB, vcpus), runs=True))
    wanted = Result.PASS if vcpus == 2 else Result.WARN
    assert (await checks(machine=machine))["cores"].result is wanted
