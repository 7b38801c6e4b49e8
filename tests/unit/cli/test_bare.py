"""Hosts to which only libvirt leads: what needs a shell is refused, what stands for it is found."""

from typing import TYPE_CHECKING, Any, cast

import pytest

from whimbrel.cli.asked import Asked
from whimbrel.cli.bare import (
    assumed_between,
    bare_of,
    probe_of,
    refuse_what_needs_a_shell,
)
from whimbrel.cli.place import LibvirtPlace
from whimbrel.cli.session import Session
from whimbrel.cli.ways import moves_over, nominal_rate, take_back
from whimbrel.config import Config
from whimbrel.errors import ConfigError, HostError
from whimbrel.hypervisors.libvirt.teller import arrival_rate
from whimbrel.model.inventory import Host, MigrationLink
from whimbrel.practice.survey_assumed import USUAL, ToldHost
from whimbrel.practice.survey_site import SiteHost

if TYPE_CHECKING:
    from whimbrel.ports import Site

SHELL = Host("a", "libvirt+ssh://a/system", links=(MigrationLink("10.0.1.1"),))
BARE = Host("b", "libvirt+tls://b/system", links=(MigrationLink("10.0.1.2"),))
ALSO = Host("c", "libvirt+tcp://c/system")
LINK = BARE.links[0]


def session(*hosts: Host) -> Session:
    return Session(Config(hosts={host.name: host for host in hosts}))


class Nic:
    """A host with one interface."""

    name, folder = "a", "/run/whimbrel"

    def __init__(self, rate: float | None = 5e8, *, silent: bool = False) -> None:
        self._rate, self._silent = rate, silent

    async def ask(self, question: str, **_: Any) -> Any:
        if self._silent:
            raise HostError("no answer")
        if question == "link_route":
            return "10.0.1.1"
        return {"eth0": {"addresses": ["10.0.1.1/24"], "rate": self._rate}}


class Teller:
    """A libvirt that remembers how a VM came."""

    name = "a"

    def __init__(self, carried: float | None) -> None:
        self._carried = carried

    async def carried(self, vm: str) -> float | None:
        assert vm == "web"
        return self._carried


class Place(LibvirtPlace):
    """A host whose libvirt remembers so."""

    def __init__(self, carried: float | None = None) -> None:
        super().__init__(cast("Any", None))
        self._carried = carried

    def teller(self) -> Any:
        return Teller(self._carried)


def test_hosts_without_a_shell_are_known_by_their_uri() -> None:
    assert bare_of((SHELL, BARE, ALSO)) == ("b", "c")
    found = session(SHELL, BARE)
    assert found.shell("a") is found.site("a")
    assert found.shell("b") is None
    assert found.shells(["b", "a"]) == [found.site("a")]


def test_a_host_is_probed_where_a_shell_leads_and_else_asked_of_its_libvirt() -> None:
    found = session(SHELL, BARE)
    assert isinstance(probe_of(found, SHELL, found.place("a")), SiteHost)
    assert isinstance(probe_of(found, BARE, found.place("b")), ToldHost)


@pytest.mark.parametrize(
    ("flag", "asked"),
    [
        ("--storage", Asked("web", "b", storage=["/srv"])),
        ("--leave", Asked("web", "b", leave="30%")),
        ("--cpu-budget", Asked("web", "b", cpu_budget=1.0)),
        ("--prepare-network", Asked("web", "b", prepare_network=True)),
    ],
)
def test_what_only_a_shell_can_do_is_refused_by_its_name(flag: str, asked: Asked) -> None:
    refuse_what_needs_a_shell(asked, (SHELL, SHELL))
    with pytest.raises(ConfigError, match=f"{flag} needs a shell(.|\n)*libvirt\\+ssh"):
        refuse_what_needs_a_shell(asked, (SHELL, BARE))


def test_a_plain_move_needs_none() -> None:
    refuse_what_needs_a_shell(Asked("web", "b", limit="1 Gbit/s"), (ALSO, BARE))


async def test_what_the_owner_says_of_a_link_is_believed() -> None:
    named = MigrationLink("10.0.1.2", rate=1.25e9)
    found = await assumed_between(session(SHELL, BARE), (SHELL, BARE), named, ("web", Place()), [])
    assert found.rate == 1.25e9


@pytest.mark.parametrize(
    ("nic", "rate"),
    [(Nic(), 5e8), (Nic(None), 9e8), (Nic(silent=True), 9e8)],
)
async def test_else_the_interface_at_an_end_with_a_shell_and_else_what_a_move_got(
    nic: Nic, rate: float
) -> None:
    found = session(SHELL, BARE)
    found._sites["a"] = cast("Site", nic)
    assumed = await assumed_between(found, (SHELL, BARE), LINK, ("web", Place(9e8)), [])
    assert assumed.rate == rate


async def test_without_any_shell_a_link_is_taken_for_a_usual_one() -> None:
    found = session(ALSO, BARE)
    assert await nominal_rate(found, (ALSO, BARE), LINK) is None
    assumed = await assumed_between(found, (ALSO, BARE), LINK, ("web", Place()), [])
    assert assumed.rate == USUAL


async def test_hosts_without_a_shell_bear_no_marks_and_nothing_to_take_back() -> None:
    found = session(ALSO, BARE)
    assert await moves_over(found, (ALSO, BARE), [LINK], "web") == []
    await take_back(found, ["b", "c"], lambda _: None)


@pytest.mark.parametrize(
    ("job", "rate"),
    [
        ({"operation": 4, "type": 3, "time_elapsed": 2100, "setup_time": 100,
          "memory_processed": 4_000_000}, 2e6),
        ({"operation": 5, "type": 3, "time_elapsed": 2000, "memory_processed": 1}, None),
        ({"operation": 4, "type": 3}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_a_guest_that_came_by_a_move_tells_what_its_link_carried(
    job: dict[str, Any], rate: float | None
) -> None:
    assert arrival_rate(job) == rate
