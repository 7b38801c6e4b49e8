"""Which of several VMs of a name is meant, and what is said where that is not sure."""

import asyncio
from typing import Any

import pytest

from whimbrel.cli import session
from whimbrel.cli.session import Session, the_one
from whimbrel.config import Config
from whimbrel.errors import ConfigError, HostUnreachable
from whimbrel.model.inventory import Host
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
    with pytest.raises(ConfigError, match=r'no VM "wbe" on a and b\.(.|\n)*Did you mean "web"'):
        the_one("wbe", [host("a", ("web", RUNNING)), host("b")])


def test_a_missing_one_may_be_on_a_host_that_does_not_answer() -> None:
    with pytest.raises(
        HostUnreachable, match="on a; c cannot be asked, and it may be there"
    ) as one:
        the_one("web", [host("a"), SILENT])
    assert "no SSH" in one.value.hint
    also = HostSeen("d", unreachable="it is off")
    with pytest.raises(HostUnreachable, match="c and d cannot be asked, and it may be on one of"):
        the_one("web", [host("a"), SILENT, also])
    with pytest.raises(HostUnreachable) as none:
        the_one("web", [SILENT, also])
    assert none.value.what == 'c and d cannot be asked, so it is not known where "web" is.'
    assert the_one("web", [host("a", ("web", RUNNING)), SILENT]).host == "a"


def test_without_hosts_it_is_said_how_to_name_them() -> None:
    with pytest.raises(ConfigError, match=r"no whimbrel.toml(.|\n)*\[hosts.a\]"):
        _ = Session(Config()).hosts


class FakeSite:
    """A host that answers at once, or never."""

    def __init__(self, *, silent: bool) -> None:
        self.closed = False
        self._silent = silent

    async def ask(self, question: str, **_: object) -> Any:
        if self._silent:
            await asyncio.Event().wait()
        return FACTS if question == "facts" else {"vms": [], "moves": []}

    async def close(self) -> None:
        self.closed = True


FACTS: dict[str, Any] = {
    "qemu": None,
    "cores": 2,
    "memory": 0,
    "spare_memory": 0,
    "kvm": False,
    "interfaces": {},
}


async def test_one_silent_host_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SEEN_WITHIN", 0.05)
    sites = {"a": FakeSite(silent=False), "b": FakeSite(silent=True)}
    monkeypatch.setattr(session, "connect", lambda host: sites[host.name])
    hosts = {name: Host(name, f"qemu+ssh://{name}") for name in sites}
    async with session.opened(Config(hosts=hosts)) as opened:
        a, b = await opened.see()
    assert (a.cores, a.unreachable) == (2, "")
    assert b.unreachable == "b did not answer within 0 s."
    assert all(site.closed for site in sites.values())
