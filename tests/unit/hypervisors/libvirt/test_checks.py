"""A preflight's checks as they hold where libvirt runs both hosts."""

from typing import TYPE_CHECKING, Any, cast

import pytest

from whimbrel.hypervisors.libvirt.checks import at_home, in_virsh, own_checks, seen_by_both
from whimbrel.hypervisors.libvirt.host import LibvirtHost
from whimbrel.hypervisors.libvirt.states import State
from whimbrel.model.check import Check, Result, failed, passed, warned
from whimbrel.model.inventory import Vm

if TYPE_CHECKING:
    from whimbrel.hypervisors.libvirt.machine import LibvirtMachine

XML = "<domain type='qemu'><os><type machine='pc-q35-10.0'>hvm</type></os></domain>"


class Domain:
    """A VM that libvirt holds."""

    def __init__(
        self, name: str = "web", uuid: str = "1", *, lives: bool = True, defined: bool = False
    ) -> None:
        self.name, self.id = name, uuid
        self._state, self._defined = State.RUNNING if lives else State.OFF, defined

    @property
    def known(self) -> bool:
        return self._defined or self._state.lives

    async def forget(self) -> None:
        self._defined = False

    async def state(self) -> State:
        return self._state

    async def persistent(self) -> bool:
        return self._defined

    async def xml(self, *, movable: bool = False) -> str:
        assert movable
        return XML


class Host:
    """A host with some VMs, and its connection."""

    def __init__(self, name: str, *domains: Domain) -> None:
        self.name, self._domains = name, domains

    async def connection(self) -> "Host":
        return self

    async def domains(self) -> list[Domain]:
        return list(self._domains)

    async def domain(self, name: str) -> Domain | None:
        return next((each for each in self._domains if each.known and each.name == name), None)


class Machine:
    vm, host = Vm("web", 0), "a"

    def __init__(self, domain: Domain) -> None:
        self._domain = domain

    async def domain(self) -> Domain:
        return self._domain


def as_host(host: Host) -> LibvirtHost:
    return cast("LibvirtHost", cast("Any", host))


async def judged(*there: Domain, defined: bool = False) -> dict[str, Check]:
    machine = cast("LibvirtMachine", cast("Any", Machine(Domain(defined=defined))))
    checks = await own_checks(machine, as_host(Host("b", *there)))
    return {each.name: each for each in checks}


async def test_where_nobody_has_the_name_a_vm_may_come_with_its_definition() -> None:
    checks = await judged(Domain("mail", "2"), defined=True)
    assert {each.result for each in checks.values()} == {Result.PASS}
    assert "goes along" in checks["definition"].detail
    assert "transient" in (await judged())["definition"].detail


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (Domain("web", "2"), "runs web"),
        (Domain("other", "1"), "runs other"),
        (Domain("web", "2", lives=False, defined=True), "another web defined"),
        (Domain("other", "1", lives=False, defined=True), "another other defined"),
    ],
)
async def test_a_stranger_of_the_same_name_or_uuid_is_in_the_way(there: Domain, said: str) -> None:
    check = (await judged(there))["name at libvirt"]
    assert check.result is Result.FAIL
    assert said in check.detail


async def test_its_own_definition_from_before_is_in_nobodys_way() -> None:
    own = Domain(lives=False, defined=True)
    assert (await judged(own))["name at libvirt"].result is Result.PASS


def test_remedies_are_those_of_virsh_and_only_where_something_is_wrong() -> None:
    checks = [
        failed("guest", "paused", "QMP"),
        passed("devices", "fine"),
        warned("memory", "scarce", "free some"),
        passed("CPU features", "all 0"),
        failed("disk vda: rights", "User 1000 may not write", "chown"),
    ]
    said = {each.name: each for each in in_virsh(checks, "web")}
    assert said["guest"].remedy.startswith("virsh resume web")
    assert said["devices"] == checks[1]
    assert said["memory"] == checks[2]
    assert "CPU features" not in said
    assert said["disk vda: rights"].result is Result.PASS


def test_a_cpu_that_a_host_does_not_know_is_still_told() -> None:
    unknown = failed("CPU features", "QEMU on b does not know EPYC", "another")
    assert list(in_virsh([unknown], "web")) == [unknown]


def test_libvirt_is_overruled_only_where_all_disks_are_proved_to_be_the_same() -> None:
    same = passed("disk vda: same bytes", "Proved")
    assert seen_by_both([same, failed("memory", "none", "free some")])
    assert not seen_by_both([same, warned("disk vdb: same bytes", "equal", "compare")])
    assert not seen_by_both([same, failed("disk vdb: same bytes", "another", "mount")])


@pytest.mark.parametrize(
    ("left", "arrived", "defined", "wrong"),
    [
        (None, Domain(), False, set()),
        (None, Domain(defined=True), True, set()),
        (Domain(), Domain(), False, {"source"}),
        (Domain(lives=False, defined=True), Domain(defined=True), True, set()),
        (Domain(lives=False, defined=True), Domain(lives=False, defined=True), True, {"source"}),
        (None, Domain(defined=True), False, {"definition"}),
        (None, Domain(), True, {"definition"}),
    ],
)
async def test_afterwards_nothing_is_left_and_the_definition_is_as_it_was(
    left: Domain | None, arrived: Domain, *, defined: bool, wrong: set[str]
) -> None:
    source = Host("a", *([left] if left else []))
    there = as_host(Host("b", arrived))
    checks = await at_home(as_host(source), "web", defined=defined, there=there)
    assert {each.name for each in checks if each.result is Result.FAIL} == wrong


def test_what_is_said_of_ports_is_where_libvirt_keeps_them() -> None:
    remedy = "ss -ltnp   # on b names who; or name other `ports` of b in whimbrel.toml"
    [found] = in_virsh([failed("migration address", "Every port is taken.", remedy)], "web")
    assert found.remedy.startswith("ss -ltnp   # on b names who; or widen migration_port_min")
    assert "whimbrel.toml" not in found.remedy
