"""Which of several VMs of a name is meant, and what is said where that is not sure."""

import pytest

from whimbrel.cli.session import Session, the_one
from whimbrel.config import Config
from whimbrel.errors import ConfigError, HostUnreachable
from whimbrel.model.overview import HostSeen, VmSeen, VmState


def host(name: str, *vms: tuple[str, VmState]) -> HostSeen:
    return HostSeen(name, vms=tuple(VmSeen(vm, name, state) for vm, state in vms))


SILENT = HostSeen("c", unreachable="no SSH connection")
RUNNING, WAITING, ENDED = VmState.RUNNING, VmState.WAITING, VmState.ENDED


def test_a_vm_is_found_on_whichever_host_has_it() -> None:
    hosts = [host("a", ("web", RUNNING)), host("b", ("mail", RUNNING))]
    assert the_one("mail", hosts).host == "b"


def test_amid_a_move_the_side_that_has_the_guest_is_meant() -> None:
    before = [host("a", ("web", RUNNING)), host("b", ("web", WAITING))]
    assert the_one("web", before).host == "a"
    after = [host("a", ("web", VmState.MOVED)), host("b", ("web", RUNNING))]
    assert the_one("web", after).host == "b"


def test_what_ended_is_meant_only_where_nothing_else_is() -> None:
    assert the_one("web", [host("a", ("web", ENDED)), host("b", ("web", WAITING))]).host == "b"
    assert the_one("web", [host("a", ("web", ENDED)), host("b")]).host == "a"


def test_two_that_may_have_the_guest_are_not_chosen_between() -> None:
    hosts = [host("a", ("web", RUNNING)), host("b", ("web", VmState.UNKNOWN))]
    with pytest.raises(ConfigError, match=r"on a and b(.|\n)*--on HOST"):
        the_one("web", hosts)


def test_a_missing_one_is_told_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r'no VM "wbe" on a, b\.(.|\n)*Did you mean "web"'):
        the_one("wbe", [host("a", ("web", RUNNING)), host("b")])


def test_a_missing_one_may_be_on_a_host_that_does_not_answer() -> None:
    with pytest.raises(HostUnreachable, match=r"on a, and c cannot be asked(.|\n)*no SSH"):
        the_one("web", [host("a"), SILENT])
    assert the_one("web", [host("a", ("web", RUNNING)), SILENT]).host == "a"


def test_without_hosts_it_is_said_how_to_name_them() -> None:
    with pytest.raises(ConfigError, match=r"no whimbrel.toml(.|\n)*\[hosts.a\]"):
        _ = Session(Config()).hosts
